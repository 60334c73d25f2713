"""Look into the brain: silence a region or make it louder, and see the picture change."""

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr
from PIL import Image

from ...errors import FmriModelsError
from ...names import markdown
from ..chooser import Chooser
from ..decoder import Contributions, Decoder
from ..limits import MOST_GAIN, checked_gain
from ..open_fields import Dropdown, Slider
from ..pictures import PICTURE_HEIGHT
from ..sentences import in_sentences
from ..voxel_map import voxel_map, voxel_values
from .drawing import DRAWING, as_seen, progress_of

CSS = """
.contributions table {width: 100%; border-collapse: collapse; border: 0 !important;}
.contributions tr, .contributions th, .contributions td {border: 0 !important;}
.contributions th {text-align: left; font-weight: normal; white-space: nowrap; padding: 2px 10px 2px 0;}
.contributions td.bar {width: 100%;}
.contributions td.bar div {height: 14px; border-radius: 3px; background: var(--primary-500);}
.contributions td.bar div.negative {background: var(--neutral-400);}
.contributions td.value {text-align: right; padding-left: 10px; font-variant-numeric: tabular-nums;}
"""


def add_tab(chooser: Chooser) -> None:
    """Adds the tab."""
    first, subject = chooser.first, chooser.subject.value
    with gr.Row():
        region = Dropdown(**_regions(first, subject), label="Region", elem_id="region", min_width=160)
        gain = Slider(0, MOST_GAIN, 0.0, step=0.25, label="Gain (0 silences, 1 changes nothing)", min_width=160)
    button = gr.Button("Draw without and with the change", variant="primary")
    with gr.Row():
        unchanged = _picture("unchanged", "Drawn from all responses as they are")
        changed = _picture("changed", "Drawn with the region's responses scaled")
    chooser.label(unchanged, "All regions")
    chooser.label(changed, "Region changed")
    summary = gr.Markdown(elem_id="region-summary")
    measure = gr.Button("What each region contributes")
    contributions = gr.HTML(elem_id="contributions")
    brain = gr.Image(
        interactive=False,
        format="png",
        elem_id="voxel-map",
        elem_classes=["picture"],
        buttons=["download"],
        alt_text="Where the subject's voxels lie, on a glass brain",
    )
    chooser.label(brain, "Voxels")
    chooser.forget([unchanged, changed, summary, contributions, brain])
    chooser.follow(lambda decoder, subject: [gr.update(**_regions(decoder, subject))], [region])

    def change(
        data: str,
        method: str,
        subject: str,
        stimulus: str,
        region: str | None,
        gain: float | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio is told of it)
    ) -> tuple[Any, ...]:
        decoder = chooser.shelf.decoder(data, method)
        found = decoder.change_region(subject, stimulus, str(region), checked_gain(gain), tell=progress_of(progress))
        return found.unchanged, found.changed, markdown(found.summary)

    def contribute(data: str, method: str, subject: str, stimulus: str) -> tuple[str, Image.Image | None]:
        decoder = chooser.shelf.decoder(data, method)
        found = decoder.contributions(subject, stimulus)
        voxels = decoder.table.voxels(subject)
        values, what = voxel_values(voxels, found.by_region or None)
        caption = contribution_caption(found)
        try:
            picture = voxel_map(voxels, values)
        except FmriModelsError as error:
            # The numbers are there all the same.
            picture, caption = None, f"{caption} There is no map of the voxels: {error}"
        if picture is not None:
            caption += f" Below, where the voxels lie, in mm (space: {voxels.space or 'unknown'}); colour: {what}."
        return contributions_html(found.by_region, caption), picture

    inputs = [*chooser.fields, region, gain]
    button.click(
        in_sentences(change), inputs, [unchanged, changed, summary], api_name="change_region", **as_seen(changed)
    )
    measure.click(in_sentences(contribute), chooser.fields, [contributions, brain], api_name="contributions", **DRAWING)


def contributions_html(found: Mapping[str, float], caption: str) -> str:
    """Bars with their numbers beside them, and what they are."""
    if not found:
        return "<p>The table names no regions of this subject's voxels.</p>"
    largest = max(map(abs, found.values())) or 1.0
    rows = [
        f'<tr><th scope="row">{html.escape(name)}</th><td class="bar"><div class="{"negative" if value < 0 else ""}" '
        f'style="width: {100 * abs(value) / largest:.1f}%"></div></td><td class="value">{value:+z.4f}</td></tr>'
        for name, value in found.items()
    ]
    return f'<div class="contributions"><table>{"".join(rows)}</table><p>{html.escape(caption)}</p></div>'


def contribution_caption(found: Contributions) -> str:
    """What the numbers are that stand beside the regions."""
    if found.compares_embeddings:
        return (
            "By how much the cosine of the decoded embedding with the shown picture's falls when a region is silenced; "
            "one trial, so small numbers are noise, and negative ones (grey) say that it decodes better without."
        )
    return "The share by which what is decoded changes when a region is silenced."


def _regions(decoder: Decoder, subject: str) -> dict[str, Any]:
    names = decoder.regions(subject)
    return {"choices": names, "value": names[0] if names else None}


def _picture(name: str, alt_text: str) -> gr.Image:
    return gr.Image(
        interactive=False,
        format="png",
        elem_id=name,
        alt_text=alt_text,
        height=PICTURE_HEIGHT,
        min_width=160,
        elem_classes=["picture"],
        buttons=["download"],
    )
