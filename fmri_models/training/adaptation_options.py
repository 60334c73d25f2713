"""What a recipe says of subjects that are added to a trained model."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import FmriModelsError
from ..names import one_line
from ..option_types import PositiveNumber, check_fields
from ..typed_values import check_key
from .learning_generator import Dropout, Rank

Adaptation = Literal["reset", "lora", "full"]


@dataclass(frozen=True)
class SubjectLora:
    """LoRA (Hu et al., 2022) on the layers that all subjects share.

    Args:
        r: Rank.
        alpha: What it adds is scaled by `alpha / r`.
        dropout: Share of the layers' inputs that it does not see in training.
        parts: Beginnings of the names of these layers, such as `[backbone]`; None takes all that the stages train.
    """

    r: Rank = 8
    alpha: PositiveNumber = 16.0
    dropout: Dropout = 0.0
    parts: Annotated[list[str], Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        check_fields(vars(self), SubjectLora, "lora.", "correct the recipe")


def subject_lora(value: Mapping[str, Any] | None) -> SubjectLora:
    """What a recipe means by `lora`.

    Raises:
        FmriModelsError: A key is unknown, or a value is of another type.
    """
    if value is None:
        return SubjectLora()
    if not isinstance(value, Mapping):
        raise FmriModelsError(f"lora is {one_line(repr(value), 80)}; expected a mapping such as {{r: 8, alpha: 16}}.")
    for key in value:
        check_key(key, [each.name for each in fields(SubjectLora)], "lora")
    return SubjectLora(**value)
