"""The rows of a report: the reconstruction, and the controls and references that stand beside it.

A row is one entry of [`ROWS`]: what it is, when there is one, and how it is drawn from what is evaluated of a subject.
Scoring, tables, pages, grid and folders of pictures take all of it from there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..conditions import CONDITION_SPACES
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..modeling_outputs import FmriDecoding
from ..names import did_you_mean, one_line
from ..scenes import background
from .learning import why_without_references
from .row_data import RowData

if TYPE_CHECKING:
    from .evaluated_subject import EvaluatedSubject

Role = Literal["brain", "part", "control", "reference"]

_NOT_LOW_LEVEL = ("retrieval_embeds", *(name for name in CONDITION_SPACES if name != "latents"))


def _there_is_one(of: "EvaluatedSubject") -> None:
    return None


def _is_another(of: "EvaluatedSubject") -> bool:
    return False


@dataclass(frozen=True)
class Row:
    """A row of reports.

    Args:
        name: As in report.json, and of its folder in `images/`.
        role: `"brain"` is what is evaluated; a `"part"` of it; a `"control"` that has to be beaten; a `"reference"`.
        label: Short, for tables and grids.
        description: One sentence.
        draw: What it has for each of a subject's items; None for a row that somebody has given.
        missing: Why a subject has no such row, a sentence for the report's notes, which is empty where nobody would
            look for it; None if there is one.
        is_brain: Whether it is the row `brain` itself, which is not drawn again.
        by_generator: Whether the generator draws it, which takes its time, and not a given picture is shown.
        uses_test_images: Whether the report has to say that it is made from the true test pictures.
        grid_place: Where in `grid.png`, by these numbers from above; None for rows that it doesn't show.
        of_method: The method whose pictures it shows; where that is the evaluated one, the grid shows them once.
        is_average: Whether it is a blurry average, which wins in metrics that reward blur.
        learned_nothing: Whether it can be above chance only where something leaks from test to training.
    """

    name: str
    role: Role
    label: str
    description: str
    draw: "Callable[[EvaluatedSubject], RowData] | None" = None
    missing: "Callable[[EvaluatedSubject], str | None]" = _there_is_one
    is_brain: "Callable[[EvaluatedSubject], bool]" = _is_another
    by_generator: bool = True
    uses_test_images: bool = False
    grid_place: int | None = None
    of_method: str | None = None
    is_average: bool = False
    learned_nothing: bool = False

    def described(self) -> dict[str, Any]:
        """For report.json."""
        described = {"kind": self.role, "label": self.label, "description": self.description}
        return {**described, "uses_test_images": True} if self.uses_test_images else described


# -------------------------------------------------------------------------------------------------- how they are drawn


def _brain(of: "EvaluatedSubject") -> RowData:
    return of.row(of.decoding)


def _low_level(of: "EvaluatedSubject") -> RowData:
    return RowData(images=of.draw_low_level(of.decoding))


def _embeds_only(of: "EvaluatedSubject") -> RowData:
    return RowData(images=of.draw(of.only(of.decoding, *_NOT_LOW_LEVEL)))


def _is_drawn_from_one(decoding: FmriDecoding, generator: ImageGenerator) -> str | None:
    """Rows of a part are where the generator draws from embeddings, or conditions that it has learned to read, and
    latents, and there are both.
    """
    learned = [
        name for name in decoding.conditions.given if CONDITION_SPACES[name] in generator.learned_condition_spaces
    ]
    embeds = decoding.image_embeds is not None or decoding.text_embeds is not None or learned
    both = embeds and decoding.latents is not None
    return None if both and generator.generates_from_embeddings else ""


def _without_parts(of: "EvaluatedSubject") -> str | None:
    return _is_drawn_from_one(of.decoding, of.pipeline.image_generator)


def _shuffled(of: "EvaluatedSubject") -> RowData:
    return of.row(of.decode(of.pipeline.brain_model, of.exchanged_features))


def _without_partners(of: "EvaluatedSubject") -> str | None:
    if of.different_pictures > 1:
        return None
    return (
        "A subject has one test stimulus alone in a fold, where there is nothing to exchange, so the row "
        "shuffled_brain is missing."
    )


def _without_references(of: "EvaluatedSubject") -> str | None:
    return why_without_references(of.pipeline) if of.references is None else None


def _permuted_training(of: "EvaluatedSubject") -> RowData:
    assert of.references is not None
    return of.row_of_reference(of.references.permuted)


def _permuted_training_own(of: "EvaluatedSubject") -> RowData:
    assert of.refitted is not None
    return of.row(of.decode(of.refitted, of.features))


def _not_refitted(of: "EvaluatedSubject") -> str | None:
    return "" if of.refitted is None else None


def _mean_image(of: "EvaluatedSubject") -> RowData:
    return RowData(images=of.mean_training_picture)


def _nearest_train(of: "EvaluatedSubject") -> RowData:
    return RowData(images=of.nearest_training_pictures)


def _without_nearest(of: "EvaluatedSubject") -> str | None:
    if of.nearest_by is not None:
        return None
    return (
        "The method decodes no embeddings of pictures, and nothing embeds its reconstructions (neither a generator nor "
        "a network of the protocol), so that the row nearest_train is missing."
    )


def _floor(of: "EvaluatedSubject") -> RowData:
    return RowData(images=of.draw_floor())


def _ceiling(of: "EvaluatedSubject") -> RowData:
    assert of.references is not None
    return RowData(images=of.draw(of.true_decoding, of.references.drawn_by))


def _ceiling_embeds_only(of: "EvaluatedSubject") -> RowData:
    assert of.references is not None
    embeds = of.only(of.true_decoding, "image_embeds", "text_embeds", "retrieval_embeds")
    return RowData(images=of.draw(embeds, of.references.drawn_by))


def _ceiling_is_of_one(of: "EvaluatedSubject") -> str | None:
    if of.references is None:
        return _without_references(of)
    return _is_drawn_from_one(of.true_decoding, of.references.generator)


def _ridge(of: "EvaluatedSubject") -> RowData:
    assert of.references is not None
    return of.row_of_reference(of.references.ridge)


def _is_ridge(of: "EvaluatedSubject") -> bool:
    return of.references is not None and of.references.ridge is of.pipeline.brain_model


def _noise_free(of: "EvaluatedSubject") -> RowData:
    assert of.noise_free_features is not None
    return of.row(of.decode(of.pipeline.brain_model, of.noise_free_features))


def _always_noisy(of: "EvaluatedSubject") -> str | None:
    if of.noise_free_features is not None:
        return None
    no_responses = "The table has no noise-free responses of these test stimuli, so that row is missing."
    return no_responses if of.table.simulated else ""


def _reference(of: "EvaluatedSubject") -> RowData:
    return RowData(images=of.draw_reference())


def _without_reference(of: "EvaluatedSubject") -> str | None:
    return "" if of.reference is None else None


def _background(of: "EvaluatedSubject") -> RowData:
    assert of.scenes is not None
    return RowData(images=of.as_drawn(np.stack([background(scene) for scene in of.scenes])))


def _no_scenes(of: "EvaluatedSubject") -> str | None:
    return "" if of.scenes is None else None


# ------------------------------------------------------------------------------------------------------------ by name

_OF_CALLERS = "A further row given by the caller."

ROWS = {
    row.name: row
    for row in (
        Row("brain", "brain", "from brain", "The reconstruction from brain activity.", draw=_brain, grid_place=10),
        Row(
            "brain_low_level",
            "part",
            "low level only",
            "The decoded low-level latent alone.",
            draw=_low_level,
            missing=_without_parts,
            grid_place=20,
        ),
        Row(
            "brain_embeds_only",
            "part",
            "embeddings only",
            "The decoded embeddings alone.",
            draw=_embeds_only,
            missing=_without_parts,
        ),
        Row(
            "shuffled_brain",
            "control",
            "shuffled brain",
            "Whole patterns exchanged between stimuli before the model saw them.",
            draw=_shuffled,
            missing=_without_partners,
            grid_place=70,
        ),
        Row(
            "permuted_training",
            "control",
            "permuted training (ridge)",
            "Ridge regression, whatever the evaluated method is, fitted after the pictures were exchanged between "
            "training stimuli.",
            draw=_permuted_training,
            missing=_without_references,
            learned_nothing=True,
        ),
        Row(
            "permuted_training_own",
            "control",
            "permuted training (own)",
            "The evaluated method itself, trained anew by its recipe after the pictures were exchanged between "
            "training stimuli, and between validation stimuli.",
            draw=_permuted_training_own,
            missing=_not_refitted,
            learned_nothing=True,
        ),
        Row(
            "mean_image",
            "control",
            "mean image",
            "An average picture, the same for every stimulus of a subject and fold.",
            draw=_mean_image,
            by_generator=False,
            grid_place=80,
            is_average=True,
        ),
        Row(
            "nearest_train",
            "control",
            "nearest training",
            "The training picture nearest to what was decoded.",
            draw=_nearest_train,
            missing=_without_nearest,
            by_generator=False,
            grid_place=60,
        ),
        Row("floor", "control", "floor", "The generator without any embedding.", draw=_floor, grid_place=90),
        Row(
            "ceiling",
            "reference",
            "ceiling",
            "The generator with the true embedding and latent, as far as the model decodes them.",
            draw=_ceiling,
            missing=_without_references,
            grid_place=40,
        ),
        Row(
            "ceiling_embeds_only",
            "reference",
            "ceiling, embeddings",
            "The generator with the true embedding alone.",
            draw=_ceiling_embeds_only,
            missing=_ceiling_is_of_one,
        ),
        Row(
            "ridge",
            "reference",
            "ridge",
            "The linear method on the same data.",
            draw=_ridge,
            missing=_without_references,
            is_brain=_is_ridge,
            grid_place=30,
            of_method="linear",
        ),
        Row(
            "noise_free",
            "reference",
            "noise-free",
            "The model on responses without noise (simulated data only).",
            draw=_noise_free,
            missing=_always_noisy,
            grid_place=50,
        ),
        Row("reference", "reference", "reference", _OF_CALLERS, draw=_reference, missing=_without_reference),
        Row(
            "background",
            "reference",
            "background",
            "The true scene without its object: what sky and ground alone give away.",
            draw=_background,
            missing=_no_scenes,
            by_generator=False,
        ),
    )
}
"""By name, in the order of reports."""


def check_rows(chosen: Sequence[str] | None) -> list[str] | None:
    """Rows that somebody chose, with the reconstruction itself, without which there is nothing to report.

    Args:
        chosen: Names; None for all rows that there are.

    Raises:
        FmriModelsError: There is no such row.
    """
    if chosen is None:
        return None
    known = [name for name, row in ROWS.items() if row.draw is not None]
    for name in chosen:
        if name not in known:
            raise FmriModelsError(
                f"There is no row {one_line(repr(name), 80)} of a report; known: {', '.join(known)}."
                f"{did_you_mean(str(name), known)}"
            )
    return list(dict.fromkeys(["brain", *chosen]))


def get_row(name: str) -> Row:
    """What a row is; rows of others (such as `reference_<name>`) are references."""
    return ROWS.get(name) or Row(name, "reference", name.replace("_", " "), _OF_CALLERS)


def grid_rows(names: Iterable[str], method: str) -> list[str]:
    """Which rows `grid.png` shows, from above.

    Args:
        names: Rows that there are.
        method: The evaluated one.
    """
    shown = [row for row in map(get_row, names) if row.grid_place is not None and row.of_method != method]
    return [row.name for row in sorted(shown, key=lambda row: row.grid_place or 0)]
