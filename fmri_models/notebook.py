"""Pictures in a notebook's cell: what was shown, and what a pipeline reads out of the responses to it."""

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from .data import schema
from .data.picture_tiles import SMOOTH_FROM, TILE
from .data.processed import ProcessedTrials
from .data.stimulus_pictures import stimulus_pictures
from .data.table import TrialTable
from .data.table_trials import Trials
from .drawing_request import DrawingRequest
from .errors import FmriModelsError, check_path
from .evaluation.held_out import notes_on_trials
from .evaluation.picture_grid import GridRow, encode_png, labelled_grid, png_address
from .evaluation.seeded_drawing import SeededDrawing
from .names import one_line
from .pipeline_fmri import FmriPipelineOutput, FmriToImagePipeline
from .saving import atomic_file

NOTICE = "The generator makes a plausible picture of any input: a sharp picture is no evidence of a right one."

_SIMULATED = "simulated brain"
_SIMULATED_NOTICE = "The brain activity is simulated: nothing here says how well a person's brain can be read."
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body {{ font-family: system-ui, sans-serif; margin: 1rem }}</style>
</head>
<body>
{body}
</body>
</html>
"""


@dataclass(frozen=True, repr=False)
class Reconstructions:
    """Pictures that a notebook shows when they are the last value of a cell.

    Args:
        images: The reconstructed picture of each item.
        names: What the items are called: their stimuli, or numbers of patterns.
        subject: Whose brain activity it is.
        of: How many items there are in all, of which these are the first.
        drawn_with: How they were drawn, in a few words.
        shown: What the subject saw, None where the table has no picture; empty for patterns of which nobody knows.
        low_level: The decoded low-level picture alone; empty where it was not asked for, or is not decoded.
        candidates: All pictures that were drawn of each item; empty where they were not asked for, or there is one.
        scores: (items, candidates) similarity of each to what the brain says; None where nothing was ranked.
        simulated: Whether the brain activity is simulated; None where nobody knows.
        notes: What a person should know of them, a sentence each.
    """

    images: list[Image.Image]
    names: list[str]
    subject: str
    of: int
    drawn_with: str
    shown: list[Image.Image | None] = field(default_factory=list)
    low_level: list[Image.Image] = field(default_factory=list)
    candidates: list[list[Image.Image]] = field(default_factory=list)
    scores: np.ndarray | None = None
    simulated: bool | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Reconstructions({self.title!r}, images=[{len(self)} pictures])"

    @property
    def title(self) -> str:
        """Whose pictures these are, and how they were drawn, in a line."""
        brain = f" ({_SIMULATED})" if self.simulated else ""
        few = f"the first {len(self)} of {self.of} items" if len(self) < self.of else f"{len(self)} items"
        return f"{one_line(self.subject, 80)}{brain}: {few if self.of > 1 else '1 item'}, drawn with {self.drawn_with}"

    @property
    def sentences(self) -> list[str]:
        """What stands beneath the pictures."""
        return [*self.notes, *([_SIMULATED_NOTICE] if self.simulated else []), NOTICE]

    def grid(self) -> Image.Image:
        """All of it as one picture: a column an item, what was shown above what was read."""
        return labelled_grid([GridRow(*row) for row in self._rows()], [self.title, *self.sentences])

    def save(self, path: str | os.PathLike) -> Path:
        """Writes what the cell shows.

        Args:
            path: File that ends in `.png` (one picture) or `.html` (a page with a description of each picture, which
                needs no other file).

        Raises:
            FmriModelsError: It ends in something else, or can't be written.
        """
        check_path(path)
        path = Path(path)
        content = {".png": self._repr_png_, ".html": self._page}.get(path.suffix.lower())
        if content is None:
            raise FmriModelsError(f"The file {one_line(path)} would be no picture and no page; name it .png or .html.")
        with atomic_file(path) as partial:
            partial.write_bytes(content())
        return path

    def _repr_png_(self) -> bytes:
        return encode_png(self.grid())

    def _repr_html_(self) -> str:
        """The pictures as a table, a column an item; each is there pixel for pixel, with a description."""
        lines = "".join(self._html_row(*row) for row in self._rows())
        plain = 'style="background: none; border: none"'
        head = (
            'scope="col" style="text-align: center; font-weight: normal; border: none; padding: 2px; '
            f'max-width: {TILE}px; overflow-wrap: anywhere"'
        )
        heads = "".join(f"<th {head}><small>{_escaped(name, 60)}</small></th>" for name in self.names)
        told = "".join(f'<p style="margin: 0.2em 0">{_escaped(sentence, 2000)}</p>' for sentence in self.sentences)
        return (
            f'<figure style="margin: 0; max-width: 100%">'
            f'<p style="margin: 0.2em 0"><strong>{_escaped(self.title, 500)}</strong></p>'
            # Whoever scrolls by keys has to be able to stand there.
            f'<div style="overflow-x: auto" tabindex="0" role="region" aria-label="Pictures">'
            f'<table style="border-collapse: collapse; border: none; background: none">'
            f"<thead><tr {plain}><td {plain}></td>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
            f"<figcaption><small>{told}</small></figcaption></figure>"
        )

    def _page(self) -> bytes:
        return _PAGE.format(title=_escaped(self.title, 500), body=self._repr_html_()).encode()

    def _rows(self) -> list[tuple[str, Sequence[Image.Image | None], Sequence[str]]]:
        """(label, pictures, texts below them) of each row."""
        brain = f"\n({_SIMULATED})" if self.simulated else ""
        rows: list[tuple[str, Sequence[Image.Image | None], Sequence[str]]] = []
        if self.shown:
            rows.append(("shown", self.shown, ()))
        rows.append((f"reconstructed{brain}", self.images, ()))
        if self.low_level:
            rows.append((f"low level{brain}", self.low_level, ()))
        for number in range(len(self.candidates[0]) if self.candidates else 0):
            drawn = [each[number] for each in self.candidates]
            scores = [] if self.scores is None else [self._score(item, number) for item in range(len(self))]
            rows.append((f"candidate {number + 1}{brain}", drawn, scores))
        return rows

    def _score(self, item: int, candidate: int) -> str:
        assert self.scores is not None
        chosen = " (chosen)" if self.scores[item].argmax() == candidate else ""
        return f"{self.scores[item, candidate]:.2f}{chosen}"

    def _html_row(self, label: str, pictures: Sequence[Image.Image | None], texts: Sequence[str]) -> str:
        head, _, brain = label.partition("\n")
        lines = f"{_escaped(head, 60)}<br>{_escaped(brain, 60)}" if brain else _escaped(head, 60)
        style = "text-align: center; vertical-align: top; border: none; padding: 2px"
        cells = []
        for item, picture in enumerate(pictures):
            below = f"<br><small>{_escaped(texts[item], 40)}</small>" if texts else ""
            shown = "–" if picture is None else _html_picture(picture, self._described(label, item))
            cells.append(f'<td style="{style}">{shown}{below}</td>')
        beside = "text-align: right; font-weight: normal; border: none; white-space: nowrap"
        row_head = f'<th scope="row" style="{beside}">{lines}</th>'
        return f'<tr style="background: none">{row_head}{"".join(cells)}</tr>'

    def _described(self, label: str, item: int) -> str:
        """What a picture is, for whoever does not see it."""
        what = one_line(label.replace("\n", " "), 80).capitalize()
        return f"{what}: {one_line(self.names[item], 80)}, {one_line(self.subject, 80)}"


@torch.no_grad()
def show(
    pipeline: FmriToImagePipeline,
    fmri: Trials | np.ndarray | torch.Tensor | Sequence[Any],
    *,
    subject: str | None = None,
    session: int | Sequence[int] | None = None,
    num: int = 8,
    seed: int = 0,
    low_level: bool = False,
    candidates: bool = False,
    **settings: Any,
) -> Reconstructions:
    """What was shown and what a pipeline reads out of the responses, as pictures in a notebook's cell.

    ```python
    fmri_models.show(pipeline, trials)
    ```

    The first items are drawn as an evaluation draws them: repetitions of a stimulus averaged after each was
    standardised, with the pipeline's own settings, item i from the noise of `seed + i`. Whoever gives all test trials
    of a table therefore sees the pictures of its report.

    Args:
        pipeline: The pipeline.
        fmri: Trials of a table, or betas as they were recorded, (patterns, voxels) or (voxels,), of which nobody knows
            what was shown.
        subject: Of betas, whose they are; may be left out if the pipeline has one subject. Trials say it themselves.
        session: Of betas, their session, or one a pattern, where the processor keeps statistics by session.
        num: How many items, the first ones.
        seed: Of the noise.
        low_level: Show the decoded low-level picture, too.
        candidates: Show all pictures that were drawn of an item, with their similarity to what the brain says.
        **settings: What is drawn with in the place of the pipeline's own [`DrawingSettings`], by their names.

    Returns:
        [`Reconstructions`], which notebooks show; `images` are the pictures, `save(path)` writes what is shown.

    Raises:
        FmriModelsError: The voxels do not fit the processor, there are no trials, the pipeline has no image generator,
            or an option is out of range or means nothing here.
    """
    if not isinstance(pipeline, FmriToImagePipeline):
        raise FmriModelsError(
            f"The pipeline is a {type(pipeline).__name__}; expected one that FmriToImagePipeline.from_pretrained "
            "loads: show(pipeline, trials)."
        )
    chosen = pipeline.drawing_settings.changed(settings)
    chosen = pipeline.check_inputs(**chosen.to_dict())
    pipeline.warn_of_unused(settings)
    if candidates and chosen.num_candidates == 1:
        raise FmriModelsError(
            "candidates=True shows the pictures among which one is chosen, and this pipeline draws one of each item; "
            "add num_candidates=4, or leave it out."
        )
    drawing = SeededDrawing(chosen, seed)
    items = _items(pipeline, fmri, subject, session, _checked_num(num))
    output = _drawn(pipeline, items, drawing)
    notes = list(items.notes)
    if low_level and output.low_level_images is None:
        notes.append("The method decodes no low-level picture.")
    if candidates and output.candidates is None:
        notes.append("What this pipeline draws is the same each time, so that there are no candidates.")
    return Reconstructions(
        images=cast(list[Image.Image], output.images),
        names=items.names,
        subject=items.subject,
        of=items.of,
        drawn_with=_in_words(pipeline.settings_used(chosen), drawing.seed),
        shown=items.shown,
        low_level=cast(list[Image.Image], output.low_level_images or []) if low_level else [],
        candidates=cast(list[list[Image.Image]], output.candidates or []) if candidates else [],
        scores=None if output.scores is None or not candidates else output.scores.float().cpu().numpy(),
        simulated=items.simulated,
        notes=notes,
    )


@dataclass(frozen=True)
class _Items:
    """What pictures are drawn from: (N, width) processed voxels of a subject, and what is known of them."""

    features: torch.Tensor
    subject: str
    names: list[str]
    of: int
    shown: list[Image.Image | None] = field(default_factory=list)
    simulated: bool | None = None
    notes: list[str] = field(default_factory=list)


def _checked_num(num: object) -> int:
    if isinstance(num, bool) or not isinstance(num, Integral) or int(num) < 1:
        raise FmriModelsError(f"num is {one_line(repr(num), 80)}; expected how many items are shown, a number from 1.")
    return int(num)


def _items(pipeline: FmriToImagePipeline, fmri: Any, subject: str | None, session: Any, num: int) -> _Items:
    if isinstance(fmri, Trials):
        if subject is not None and subject != fmri.subject:
            raise FmriModelsError(
                f"The trials are of {one_line(fmri.subject, 80)} and the subject is {one_line(repr(subject), 80)}; "
                "leave subject= out: trials say whose they are."
            )
        if session is not None:
            raise FmriModelsError("Trials say their sessions themselves; leave session= out.")
        return _of_trials(pipeline, fmri, num)
    if isinstance(fmri, TrialTable | str | os.PathLike):
        what = "a trial table" if isinstance(fmri, TrialTable) else "a path"
        raise FmriModelsError(
            f"The patterns are {what}; expected trials, such as TrialTable.open(path).trials(subject, 'test'), or an "
            "array of betas."
        )
    return _of_betas(pipeline, fmri, subject, session, num)


def _of_trials(pipeline: FmriToImagePipeline, trials: Trials, num: int) -> _Items:
    pipeline.processor.subject(trials.subject)
    stimuli = schema.distinct_stimuli(trials.stimulus_ids)
    every = list(dict.fromkeys(stimuli.tolist()))
    if not every:
        raise FmriModelsError(f"There are no trials of {one_line(trials.subject, 80)} to be shown; choose other ones.")
    first = trials.subset(np.isin(stimuli, every[:num]))
    # Statistics of the trials given are those of all.
    read = ProcessedTrials(trials if pipeline.processor.is_transductive else first, pipeline.processor)
    count = min(num, len(every))
    features = torch.zeros(count, pipeline.processor.width)
    features[:, : read.width] = torch.from_numpy(read[np.arange(count)])
    ids = read.stimulus_ids[:count].tolist()
    shown = stimulus_pictures(trials.table, ids)
    notes = notes_on_trials(pipeline, first)
    if missing := sum(picture is None for picture in shown):
        notes.append(f"The table has no picture of {missing} of these {count} items.")
    names = [name or f"item {number}" for number, name in enumerate(ids)]
    return _Items(features, trials.subject, names, len(every), shown, trials.table.simulated, notes)


def _of_betas(pipeline: FmriToImagePipeline, fmri: Any, subject: str | None, session: Any, num: int) -> _Items:
    if subject is not None and not isinstance(subject, str):
        raise FmriModelsError(f"The subject is {one_line(repr(subject), 80)}; expected one name.")
    inputs = pipeline.processor(fmri, subject=subject, session=session)
    features, ids = inputs["fmri"], inputs["subject_ids"]
    if features.ndim != 2 or len(features) != len(ids) or len(features) == 0:
        raise FmriModelsError(
            f"The patterns have the shape {tuple(np.shape(fmri))}; expected betas of (patterns, voxels), or of one "
            "pattern (voxels,)."
        )
    count = min(num, len(features))
    names = [f"pattern {number}" for number in range(count)]
    name = pipeline.processor.subject_names[int(ids[0])]
    record = pipeline.training_record
    notes = ["The pipeline was trained on simulated brain activity."] if record is not None and record.simulated else []
    return _Items(features[:count], name, names, len(features), notes=notes)


def _drawn(pipeline: FmriToImagePipeline, items: _Items, drawing: SeededDrawing) -> FmriPipelineOutput:
    """Decodes and draws as an evaluation does, with its noise."""
    count = len(items.features)
    ids = torch.full((count,), pipeline.processor.subject_names.index(items.subject))
    decoding = pipeline.decode(items.features, ids, drawing.settings.num_candidates, drawing.sources(count))
    request = DrawingRequest(drawing.settings, generator=drawing.sources(count))
    return pipeline.images_of(decoding, request, count)


def _in_words(settings: dict[str, Any], seed: int) -> str:
    """Such as "20 inference steps, guidance scale 3.5, 4 candidates, seed 0"."""
    said = []
    for name, value in settings.items():
        if name == "selection":
            said.append("chosen by the brain" if value == "brain" else f"the {value} taken")
            continue
        words = name.replace("_", " ")
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        said.append(f"{shown} {words.removeprefix('num ')}" if name.startswith("num_") else f"{words} {shown}")
    return ", ".join([*said, f"seed {seed}"])


def _html_picture(picture: Image.Image, description: str) -> str:
    scale = TILE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    sharp = "" if min(picture.size) >= SMOOTH_FROM else "; image-rendering: pixelated"
    return (
        f'<img src="{png_address(picture)}" alt="{_escaped(description, 300)}" width="{width}" '
        f'height="{height}" style="max-width: none{sharp}">'
    )


def _escaped(text: str, most: int) -> str:
    return html.escape(one_line(text, most))
