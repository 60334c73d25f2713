"""Retrieve: the test pictures ranked by how near their embeddings are to the decoded one."""

import gradio as gr

from ...names import markdown
from ..chooser import Chooser
from ..figures import figures, figures_html, origin_note
from ..sentences import in_sentences
from .drawing import DRAWING


def add_tab(chooser: Chooser) -> None:
    """Adds the tab."""
    button = gr.Button("Rank the test pictures", variant="primary")
    summary = gr.Markdown(elem_id="rank-summary")
    ranked = figures("ranked")
    chooser.forget([summary, ranked])

    def retrieve(data: str, method: str, subject: str, stimulus: str) -> tuple[str, str]:
        decoder = chooser.shelf.decoder(data, method)
        found = decoder.rank(subject, stimulus)
        title = f"Most similar to the decoded embedding first{origin_note(decoder.table.simulated)}"
        return figures_html(found.best, title), markdown(found.summary)

    button.click(in_sentences(retrieve), chooser.fields, [ranked, summary], api_name="retrieve", **DRAWING)
