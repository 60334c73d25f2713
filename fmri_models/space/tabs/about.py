"""About: what this is, what it is not, and which methods there are."""

import gradio as gr

from ...evaluation.report_pages import markdown_table
from ...evaluation.table import Table
from ...registry import METHODS
from ...training.recipe_files import recipe_names
from ..limits import MOST_SECONDS


def add_tab() -> None:
    """Adds the tab."""
    gr.Markdown(about_text())


def about_text() -> str:
    """The text, as Markdown."""
    return "\n".join(
        [
            "## What this is",
            "",
            "A person, or a simulated brain, looked at a picture while the responses of voxels were recorded. A model "
            "that was trained on responses of the same subject to other pictures decodes these responses, and an image "
            "generator draws from what was decoded. The picture that was shown is not among what the model is given. "
            "All pictures are drawn with the settings that are saved with the pipeline, unless you change them.",
            "",
            "## What this is not",
            "",
            "- It reads no thoughts, and nobody without hours of recordings of that very person.",
            "- A sharp picture is no evidence of a right one: the generator makes a plausible picture of any input. "
            "The tables under *Compare* say how much better than chance it is, beside controls that know nothing.",
            "- It is not for identifying or judging anybody. More: `docs/responsible_use.md` of fmri_models.",
            "",
            "## Your data",
            "",
            "What you upload is read for the picture that you ask for, is not kept beyond twenty minutes, and goes "
            f"nowhere else. A drawing that takes more than {MOST_SECONDS:.0f} seconds is stopped. This page counts no "
            "visitors and loads nothing from other servers.",
            "",
            "## Methods",
            "",
            *markdown_table(_methods()),
            "",
            "A pipeline of any of them is shown here with `fmri-models space --model PIPELINE --data TABLE`.",
        ]
    )


def _methods() -> Table:
    recipes = set(recipe_names())
    lines = [
        [
            method.name,
            method.title,
            "–" if method.paper is None else str(method.paper),
            f"fmri-models train {method.name}" if method.name in recipes else "–",
        ]
        for method in METHODS.own()
    ]
    return Table("", "", ["method", "what it does", "paper", "trained by"], lines)
