"""Values that are not finite: a training that meets one stops, and says which it was."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import FmriModelsError


class NotFiniteError(FmriModelsError):
    """A loss, a gradient or a batch has NaN or infinite values; the message says which."""


def not_finite_in(batch: Mapping[str, Any]) -> str | None:
    """A sentence's part on the first tensor of a batch that has such values; None where all are finite."""
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and not is_finite(value):
            return f"{name} of the batch has values that are not finite"
    return None


def not_finite_among(losses: Mapping[str, float]) -> str | None:
    """The same on the first loss that is none."""
    return next((f"the loss {name!r} is {value}" for name, value in losses.items() if not math.isfinite(value)), None)


def is_finite(values: torch.Tensor) -> bool:
    """Whether all values are."""
    # A sum is not finite where a value isn't, and takes a part of the time; that of large finite values may overflow.
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())
