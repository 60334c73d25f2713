"""The rows of a report: the reconstruction, and the controls and references that stand beside it."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Role = Literal["brain", "part", "control", "reference"]


@dataclass
class RowData:
    """What one row of a report has for each item.

    Args:
        images: (N, C, H, W) float in [0, 1], of the size of the true pictures; None for a row without pictures.
        retrieval_embeds: (N, ...) predicted embeddings; None for a row that retrieves nothing.
    """

    images: Tensor | None = None
    retrieval_embeds: Tensor | None = None


@dataclass(frozen=True)
class Row:
    """A row of reports.

    Args:
        name: As in report.json, and of its folder in `images/`.
        role: `"brain"` is what is evaluated; a `"part"` of it; a `"control"` that has to be beaten; a `"reference"`.
        label: Short, for tables and grids.
        description: One sentence.
        grid_place: Where in `grid.png`, by these numbers from above; None for rows that it doesn't show.
        of_method: The method whose pictures it shows; where that is the evaluated one, the grid shows them once.
        is_average: Whether it is a blurry average, which wins in metrics that reward blur.
        learned_nothing: Whether it can be above chance only where something leaks from test to training.
    """

    name: str
    role: Role
    label: str
    description: str
    grid_place: int | None = None
    of_method: str | None = None
    is_average: bool = False
    learned_nothing: bool = False

    def described(self) -> dict[str, Any]:
        """For report.json."""
        return {"kind": self.role, "label": self.label, "description": self.description}


ROWS = {
    row.name: row
    for row in (
        Row("brain", "brain", "from brain", "The reconstruction from brain activity.", grid_place=10),
        Row("brain_low_level", "part", "low level only", "The decoded low-level latent alone.", grid_place=20),
        Row("brain_embeds_only", "part", "embeddings only", "The decoded embeddings alone."),
        Row(
            "shuffled_brain",
            "control",
            "shuffled brain",
            "Whole patterns exchanged between stimuli before the model saw them.",
            grid_place=70,
        ),
        Row(
            "permuted_training",
            "control",
            "permuted training (ridge)",
            "Ridge regression, whatever the evaluated method is, fitted after the pictures were exchanged between "
            "training stimuli.",
            learned_nothing=True,
        ),
        Row(
            "permuted_training_own",
            "control",
            "permuted training (own)",
            "The evaluated method itself, trained anew by its recipe after the pictures were exchanged between "
            "training stimuli, and between validation stimuli.",
            learned_nothing=True,
        ),
        Row(
            "mean_image",
            "control",
            "mean image",
            "An average picture, the same for every stimulus of a subject and fold.",
            grid_place=80,
            is_average=True,
        ),
        Row(
            "nearest_train",
            "control",
            "nearest training",
            "The training picture nearest to what was decoded.",
            grid_place=60,
        ),
        Row("floor", "control", "floor", "The generator without any embedding.", grid_place=90),
        Row(
            "ceiling",
            "reference",
            "ceiling",
            "The generator with the true embedding and latent, as far as the model decodes them.",
            grid_place=40,
        ),
        Row("ceiling_embeds_only", "reference", "ceiling, embeddings", "The generator with the true embedding alone."),
        Row("ridge", "reference", "ridge", "The linear method on the same data.", grid_place=30, of_method="linear"),
        Row(
            "noise_free",
            "reference",
            "noise-free",
            "The model on responses without noise (simulated data only).",
            grid_place=50,
        ),
        Row("reference", "reference", "reference", "A further row given by the caller."),
        Row(
            "background",
            "reference",
            "background",
            "The true scene without its object: what sky and ground alone give away.",
        ),
    )
}
"""By name, in the order of reports."""


def get_row(name: str) -> Row:
    """What a row is; rows of others (such as `reference_<name>`) are references."""
    return ROWS.get(name) or Row(name, "reference", name.replace("_", " "), "A further row given by the caller.")
