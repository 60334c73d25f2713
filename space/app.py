"""The demo as a web page: choose a subject and a picture, and see what the decoder reads out of the responses to it.

On the Hub this file is the Space; on a person's own machine `fmri-models space` (or `make space`) starts it. Model and
trial table come from the environment variables FMRI_MODEL and FMRI_DATA: folders, or repository ids on the Hub. Without
them it shows what `make demo` wrote, and where there is none, the example that the package carries.
"""

import html
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from fmri_models.process_threads import brief_waiting

# Before PyTorch is loaded.
os.environ.update(brief_waiting())

import gradio as gr
import numpy as np
import torch
from PIL import Image

from fmri_models import FmriDecoding, FmriModelsError, FmriToImagePipeline, TrialTable
from fmri_models.data.generator_pictures import pictures_to_embed
from fmri_models.evaluation.held_out import HeldOut, held_out_notes, held_out_trials
from fmri_models.evaluation.seeded_drawing import SeededDrawing
from fmri_models.examples import load_example
from fmri_models.hub_repository import fetch_folder, is_repository_id
from fmri_models.names import markdown, one_line
from fmri_models.seeds import check_seed

DEFAULT_MODEL = "outputs/demo/pipeline"
DEFAULT_DATA = "outputs/demo/data"
EXAMPLE = "mindeye-scenes"
DISPLAY_SIZE = 256
MOST_THUMBNAILS = 100
NUM_MATCHES = 5
CSS = ".gradio-container {max-width: 1100px !important; margin: auto}"


@dataclass(frozen=True)
class Reconstruction:
    """What the page shows of one stimulus.

    Attributes:
        shown: The picture that the subject saw.
        reconstructed: The picture that the decoder made of the responses.
        matches: Test pictures whose embeddings are most similar to the decoded one, the best first, with a line of text
            each; empty if the method or its image generator has no embeddings.
        summary: What was done, in a sentence.
    """

    shown: Image.Image
    reconstructed: Image.Image
    matches: list[tuple[Image.Image, str]]
    summary: str


class Decoder:
    """A pipeline and the test trials of the split and fold that it was trained on.

    Args:
        pipeline: The pipeline.
        table: The trial table; of another one than that of the training, the test trials of its split `default` are
            shown, and the page says what nobody knows of them.

    Attributes:
        subjects: Those of the table whose test trials there are.
        about: What is shown, and whether the pipeline has learned from it, as Markdown.

    Raises:
        FmriModelsError: They have no subject with test trials in common, or the split was drawn again after the
            training.
    """

    def __init__(self, pipeline: FmriToImagePipeline, table: TrialTable) -> None:
        self.pipeline = pipeline
        self.table = table
        shared = [subject for subject in table.subjects if subject in pipeline.processor.subject_names]
        held_out = {
            subject: held_out_trials(pipeline, table, subject, any_table=True, may_be_empty=True) for subject in shared
        }
        self._held_out = {subject: each for subject, each in held_out.items() if len(each.trials)}
        self._trials = {subject: each.trials for subject, each in self._held_out.items()}
        self.subjects = list(self._trials)
        if not self.subjects:
            raise FmriModelsError(
                f"The model was trained for {', '.join(pipeline.processor.subject_names)}, and {table.path} has test "
                f"trials of none of them (its subjects are {', '.join(table.subjects)}); choose the table that the "
                "model was trained on."
            )
        self.about = _about(table, list(self._held_out.values()))
        self._gallery_embeddings = cache(self._embed_gallery)
        # Pictures are drawn one after another: a pipeline has one scheduler, whose state is that of one picture.
        self._drawing = Lock()

    def stimulus_ids(self, subject: str) -> list[str]:
        """Test stimuli that a subject saw, sorted."""
        return sorted(set(self._trials[subject].stimulus_ids.tolist()))

    def pictures(self, stimulus_ids: list[str]) -> list[Image.Image]:
        """Pictures of stimuli, in their own size."""
        arrays = self.table.stimuli.images(stimulus_ids)
        return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]

    @torch.no_grad()
    def reconstruct(self, subject: str, stimulus_id: str, seed: int = 0) -> Reconstruction:
        """Decodes the mean response of a subject to all repetitions of a test stimulus.

        With an evaluation's seed, the picture is that of its report: same settings, and the item's own noise. Calls
        of several threads wait for each other.

        Raises:
            FmriModelsError: The subject did not see the stimulus in the test trials.
        """
        if subject not in self.subjects or stimulus_id not in self.stimulus_ids(subject):
            raise FmriModelsError(f"{subject} has no test trial of stimulus {stimulus_id}; choose another one.")
        trials = self._trials[subject]
        positions = np.flatnonzero(trials.stimulus_ids == stimulus_id)
        inputs = self.pipeline.processor(
            trials.fmri(positions), subject=subject, session=trials.sessions[positions].tolist()
        )
        mean_response = inputs["fmri"].mean(dim=0, keepdim=True)
        drawing = SeededDrawing(self.pipeline.drawing_settings, seed)
        number = list(dict.fromkeys(trials.stimulus_ids.tolist())).index(stimulus_id)
        item = range(number, number + 1)
        with self._drawing:
            decoding = self.pipeline.decode(mean_response, inputs["subject_ids"][:1], generator=drawing.sources(item))
            drawn = self.pipeline.generate(decoding, generator=drawing.sources(item), num_patterns=1).images[0]
            matches = self._matches(decoding, subject, stimulus_id)
        shown = self.pictures([stimulus_id])[0]
        responses = "one response" if len(positions) == 1 else f"the mean of {len(positions)} responses"
        origin = "a simulated brain" if self.table.simulated else "measured betas"
        return Reconstruction(
            shown=enlarge(shown),
            reconstructed=enlarge(drawn),
            matches=matches,
            summary=f"Decoded from {responses} of {subject} ({origin})."
            + (" The model has learned from this picture." if stimulus_id in self._held_out[subject].learned else ""),
        )

    def _matches(self, decoding: FmriDecoding, subject: str, stimulus_id: str) -> list[tuple[Image.Image, str]]:
        gallery = self._gallery_embeddings(subject)
        if gallery is None or decoding.retrieval_embeds is None:
            return []
        decoded = decoding.retrieval_embeds.flatten(1).float().cpu()
        similarities = torch.nn.functional.cosine_similarity(decoded, gallery)
        ids = self.stimulus_ids(subject)
        scores, indices = similarities.sort(descending=True, stable=True)
        best = [ids[index] for index in indices[:NUM_MATCHES].tolist()]
        ranked = zip(self.pictures(best), best, scores[:NUM_MATCHES].tolist(), strict=True)
        return [
            (enlarge(picture), f"{rank}. {score:.2f}" + (" (was shown)" if name == stimulus_id else ""))
            for rank, (picture, name, score) in enumerate(ranked, start=1)
        ]

    def _embed_gallery(self, subject: str) -> torch.Tensor | None:
        """(N, D) embeddings of the subject's test pictures; None if the image generator has none."""
        generator = self.pipeline.image_generator
        if generator.image_embedding_space is None:
            return None
        pictures = pictures_to_embed(self.table.stimuli.images(self.stimulus_ids(subject)), generator)
        return generator.embed_images(pictures).flatten(1).float().cpu()


def _about(table: TrialTable, shown: list[HeldOut]) -> str:
    """What the test pictures are, and whether they are new to the model, as Markdown."""
    first = shown[0]
    about = f"These are the test pictures of the split {first.split!r}, fold {first.fold}, of the table {table.name!r}"
    if all(each.is_unseen for each in shown):
        return markdown(f"{about}; the model was not fitted on them.")
    if first.repeats_stimuli:
        about += "; the model was fitted on none of these responses, but on others to the same pictures"
    return "".join([markdown(f"{about}."), *(f"\n\n**{markdown(note)}**" for note in held_out_notes(shown))])


def load_decoder(model: str, data: str, unseen_session: str | None = None) -> Decoder:
    """Loads a pipeline and a trial table from folders or from the Hub.

    Raises:
        FmriModelsError: One of them is missing; the message says how to make it.
    """
    for name, what, variable in ((model, "pipeline", "FMRI_MODEL"), (data, "trial table", "FMRI_DATA")):
        if not name or not (Path(name).is_dir() or is_repository_id(name)):
            raise FmriModelsError(
                f"There is no {what} in {one_line(name)}; run `make demo` (or `fmri-models demo`) first, or name "
                f"another one with --{variable.removeprefix('FMRI_').lower()} or the environment variable {variable}."
            )
    pipeline = FmriToImagePipeline.from_pretrained(model, unseen_session=unseen_session)
    return Decoder(pipeline, TrialTable.open(_local_table(data)))


def choose_decoder(model: str | None, data: str | None, unseen_session: str | None = None) -> Decoder:
    """Loads what was named, else what `make demo` wrote, else the example that the package carries.

    Args:
        model: Folder or repository of the pipeline.
        data: Folder or repository of the trial table.
        unseen_session: What is done with sessions of which the processor has no statistics; without, what it says.

    Raises:
        FmriModelsError: What was named is missing; the message says how to make it.
    """
    if not (model or data) and not Path(DEFAULT_MODEL).exists():
        options = {} if unseen_session is None else {"unseen_session": unseen_session}
        pipeline, trials = load_example(EXAMPLE, **options)
        return Decoder(pipeline, trials.table)
    return load_decoder(model or DEFAULT_MODEL, data or DEFAULT_DATA, unseen_session)


def build(decoder: Decoder) -> gr.Blocks:
    """The page."""
    first_subject = decoder.subjects[0]
    first_ids = decoder.stimulus_ids(first_subject)
    # Said where the pictures are: a screenshot has no more than that.
    origin = " (simulated brain)" if decoder.table.simulated else ""

    def thumbnails(subject: str) -> list[Image.Image]:
        return decoder.pictures(decoder.stimulus_ids(subject)[:MOST_THUMBNAILS])

    def choose_subject(subject: str) -> tuple[dict, list[Image.Image]]:
        ids = decoder.stimulus_ids(subject)
        return gr.update(choices=ids, value=ids[0]), thumbnails(subject)

    def choose_thumbnail(subject: str, event: gr.SelectData) -> str:
        return decoder.stimulus_ids(subject)[event.index]

    def reconstruct(
        subject: str, stimulus_id: str, seed: float | None
    ) -> tuple[Image.Image, Image.Image, list[tuple[Image.Image, str]], str]:
        try:
            result = decoder.reconstruct(subject, stimulus_id, checked_seed(seed))
        except FmriModelsError as error:
            # The page takes it for HTML.
            raise gr.Error(html.escape(one_line(error, most=2000))) from error
        note = "" if result.matches else " This model has no embeddings to find pictures with."
        return result.shown, result.reconstructed, result.matches, markdown(result.summary) + note

    with gr.Blocks(title="fmri_models", analytics_enabled=False) as page:
        gr.Markdown(
            "# Images from fMRI\nChoose a subject and a test picture. The decoder does not see it: it gets the voxels' "
            f"responses, and draws. {decoder.about}"
        )
        with gr.Row():
            with gr.Column(scale=1):
                subject = gr.Dropdown(decoder.subjects, value=first_subject, label="Subject")
                stimulus = gr.Dropdown(first_ids, value=first_ids[0], label="Test stimulus")
                seed = gr.Number(value=0, precision=0, label="Seed of the image generator")
                button = gr.Button("Reconstruct", variant="primary")
            gallery = gr.Gallery(
                thumbnails(first_subject),
                label="Test pictures",
                columns=4,
                height=320,
                object_fit="contain",
                allow_preview=False,
                show_label=False,
                format="png",
            )
        with gr.Row():
            # PNG: Gradio's own choice changes the pixels.
            size = {"height": DISPLAY_SIZE + 40, "min_width": 160}
            shown = gr.Image(label=f"Shown{origin}", interactive=False, format="png", elem_id="shown", **size)
            reconstructed = gr.Image(
                label=f"Reconstructed{origin}", interactive=False, format="png", elem_id="reconstructed", **size
            )
        summary = gr.Markdown()
        gr.Markdown(notice(decoder.table.simulated))
        matches = gr.Gallery(
            label="Most similar test pictures",
            columns=NUM_MATCHES,
            height=240,
            allow_preview=False,
            format="png",
        )

        subject.input(choose_subject, subject, [stimulus, gallery], api_visibility="private")
        gallery.select(choose_thumbnail, subject, stimulus, api_visibility="private")
        outputs = [shown, reconstructed, matches, summary]
        gr.on(
            [page.load, button.click, stimulus.change],
            reconstruct,
            [subject, stimulus, seed],
            outputs,
            api_name="reconstruct",
        )
    return page


def notice(simulated: bool) -> str:
    """What nobody should conclude from the pictures, as Markdown."""
    subjects = (
        "The brain activity is simulated: nothing here says how well a person's brain can be read."
        if simulated
        else "It reads only those whom it was trained on, who took part of their own will, and reads no thoughts."
    )
    return (
        f"<small>{subjects} The generator makes a plausible picture of any input, so a sharp picture is no evidence of "
        "a right one; do not use this to identify or to judge anybody. More: `docs/responsible_use.md` of "
        "fmri_models.</small>"
    )


def checked_seed(value: float | None) -> int:
    """The number in the page's field, 0 if it was emptied.

    Raises:
        FmriModelsError: It is none that a generator takes.
    """
    if value is None:
        return 0
    # The field gives whole numbers as fractions, too.
    return check_seed(int(value) if isinstance(value, float) and value.is_integer() else value)


def launch(
    model: str | None = None, data: str | None = None, port: int | None = None, unseen_session: str | None = None
) -> None:
    """Loads the decoder and serves the page until it is interrupted.

    Args:
        model: Folder or repository of the pipeline; the environment's FMRI_MODEL without, or see [`choose_decoder`].
        data: Folder or repository of the trial table; the environment's FMRI_DATA without.
        port: Port to listen on; the first free one from 7860 without.
        unseen_session: What is done with sessions of which the processor has no statistics; without, what it says.
    """
    decoder = choose_decoder(model or os.environ.get("FMRI_MODEL"), data or os.environ.get("FMRI_DATA"), unseen_session)
    build(decoder).launch(server_port=port, share=False, show_error=True, **appearance())


def appearance() -> dict[str, Any]:
    """How the page looks, as arguments of `launch`. Fonts of the system: it asks no other server for anything."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {"theme": theme, "css": CSS}


def enlarge(picture: Image.Image) -> Image.Image:
    """A small picture at a size that can be looked at."""
    factor = DISPLAY_SIZE / max(picture.size)
    if factor <= 1:
        return picture
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)


def _local_table(name: str) -> str:
    if Path(name).is_dir():
        return name
    return str(fetch_folder(name, ["*"], repo_type="dataset"))


if __name__ == "__main__":
    launch()
