"""Reconstruct: the picture that was shown, and what was made of the responses to it, or of somebody's own betas."""

from typing import Any

import gradio as gr

from ...names import markdown
from ..chooser import Chooser
from ..decoder import Decoder
from ..figures import figures, figures_html, origin_note
from ..limits import (
    MOST_CANDIDATES,
    MOST_GUIDANCE,
    MOST_STEPS,
    MOST_UPLOAD_BYTES,
    checked_seed,
    visitors_settings,
    whole,
)
from ..open_fields import Number, Slider
from ..pictures import PICTURE_HEIGHT
from ..sentences import in_sentences
from ..uploads import read_upload
from .drawing import DRAWING, as_seen, progress_of

_SLIDERS: dict[str, dict[str, Any]] = {
    "num_inference_steps": {"label": "Steps", "minimum": 1, "maximum": MOST_STEPS, "step": 1},
    "guidance_scale": {"label": "Guidance scale", "minimum": 0, "maximum": MOST_GUIDANCE, "step": 0.5},
    "strength": {"label": "Strength (how much of the low-level picture is replaced)", "minimum": 0, "maximum": 1},
    "num_candidates": {"label": "Candidates", "minimum": 1, "maximum": MOST_CANDIDATES, "step": 1},
    "text_to_image_ratio": {"label": "Weight of the text beside the image", "minimum": 0, "maximum": 1},
}


def add_tab(chooser: Chooser, page: gr.Blocks) -> None:
    """Adds the tab."""
    with gr.Row():
        button = gr.Button("Reconstruct", variant="primary", scale=1, min_width=160)
        seed = Number(value=0, precision=None, label="Seed of the image generator", scale=1, min_width=160)
    with gr.Accordion("Settings of the image generator", open=False):
        sliders = [Slider(**_slider(chooser.first, name)) for name in _SLIDERS]
    with gr.Row():
        shown = _picture(chooser, "Shown", "The picture that the subject saw", "shown")
        reconstructed = _picture(chooser, "Reconstructed", "What the decoder drew", "reconstructed")
        low_level = _picture(chooser, "Low-level picture", "The decoded low-level picture alone", "low-level")
    summary = gr.Markdown(elem_id="summary")
    candidates = figures("candidates")
    chooser.follow(lambda decoder, _: [gr.update(**_slider(decoder, name)) for name in _SLIDERS], sliders)
    # Changes once a method or subject was chosen and all fields fit it.
    drawn_by = gr.State()
    chooser.follow(lambda decoder, subject: [(id(decoder), subject)], [drawn_by])

    def reconstruct(
        data: str,
        method: str,
        subject: str,
        stimulus: str,
        seed: float | None,
        *settings: float | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio is told of it)
    ) -> tuple[Any, ...]:
        decoder = chooser.shelf.decoder(data, method)
        found = decoder.reconstruct(
            subject, stimulus, checked_seed(seed), _settings(decoder, settings), progress_of(progress)
        )
        drawn = figures_html(found.candidates, f"Candidates{origin_note(decoder.table.simulated)}")
        return found.shown, found.reconstructed, found.low_level, drawn, markdown(found.summary)

    inputs = [*chooser.fields, seed, *sliders]
    outputs = [shown, reconstructed, low_level, candidates, summary]
    gr.on(
        [page.load, button.click, chooser.stimulus.change, drawn_by.change],
        in_sentences(reconstruct),
        inputs,
        outputs,
        api_name="reconstruct",
        trigger_mode="always_last",
        **as_seen(reconstructed),
    )
    _add_upload(chooser, seed, sliders)


def _add_upload(chooser: Chooser, seed: Number, sliders: list[Slider]) -> None:
    with gr.Accordion("Betas of your own", open=False):
        gr.Markdown(
            "A `.npy` file of (voxels,) or (trials, voxels) betas of the chosen subject, as they were recorded, or a "
            "NIfTI file with a volume a trial and the mask that the method's table was made with, of "
            f"{MOST_UPLOAD_BYTES // 2**20} MiB at most. It is deleted from this server within twenty minutes."
        )
        with gr.Row():
            file = gr.File(
                label="Betas (.npy, .nii.gz)", file_types=[".npy", ".nii", ".gz"], height=120, elem_id="upload"
            )
            mask = gr.File(label="Mask (of .nii.gz)", file_types=[".nii", ".gz"], height=120, elem_id="upload-mask")
            session = Number(label="Session (where statistics are by session)", precision=0, value=None)
        button = gr.Button("Reconstruct the upload")
        drawn = figures("uploaded")

    def reconstruct_upload(
        data: str,
        method: str,
        subject: str,
        file: str | None,
        session: float | None,
        seed: float | None,
        *settings_and_mask: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        # Last, so that programs that name arguments by their places keep them.
        *settings, mask = settings_and_mask
        decoder = chooser.shelf.decoder(data, method)
        betas = read_upload(file, mask, decoder.pipeline.processor.subject(subject).grid, subject)
        pictures = decoder.reconstruct_betas(
            betas,
            subject,
            whole(session),
            checked_seed(seed),
            _settings(decoder, tuple(settings)),
            progress_of(progress),
        )
        texts = (f"trial {number}, reconstructed" for number in range(len(pictures)))
        return figures_html(zip(pictures, texts, strict=True), "Reconstructed from your betas")

    inputs = [chooser.data, chooser.method, chooser.subject, file, session, seed, *sliders, mask]
    button.click(in_sentences(reconstruct_upload), inputs, drawn, api_name="reconstruct_upload", **DRAWING)


def _picture(chooser: Chooser, label: str, alt_text: str, name: str) -> gr.Image:
    # PNG: Gradio's own choice changes the pixels.
    picture = gr.Image(
        interactive=False,
        format="png",
        elem_id=name,
        alt_text=alt_text,
        elem_classes=["picture"],
        height=PICTURE_HEIGHT,
        min_width=160,
        buttons=["download"],
    )
    chooser.label(picture, label)
    return picture


def _slider(decoder: Decoder, name: str) -> dict[str, Any]:
    """A slider as the pipeline's own settings have it; hidden where it would change nothing."""
    value = decoder.settings_used().get(name)
    # A slider has some value, also where nobody sees it.
    return {
        **_SLIDERS[name],
        "value": _SLIDERS[name]["minimum"] if value is None else value,
        "visible": value is not None,
    }


def _settings(decoder: Decoder, values: tuple[float | None, ...]) -> Any:
    used = decoder.settings_used()
    given = {name: value for name, value in zip(_SLIDERS, values, strict=True) if name in used}
    return visitors_settings(decoder.pipeline.drawing_settings, given)
