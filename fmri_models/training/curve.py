"""The curve of a stage: a few points that say how its losses went."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

# Points of either loss in a stage's curve, which together are twice as many at most.
MAX_POINTS = 20
_DIGITS = 6


_Count = Annotated[int, Field(ge=0, lt=2**62)]
_Loss = Annotated[float, Field(allow_inf_nan=False)]


class TrainLoss(TypedDict):
    """A point of the training loss: the mean of the steps since the point before, after so many steps."""

    step: _Count
    loss: _Loss


class RunningLoss(TypedDict):
    """Sum of the training losses of some steps, and how many these are."""

    sum: _Loss
    steps: _Count


def no_losses() -> RunningLoss:
    """Before the first step."""
    return {"sum": 0.0, "steps": 0}


def with_loss(running: RunningLoss, loss: float) -> RunningLoss:
    """With one more step."""
    return {"sum": running["sum"] + loss, "steps": running["steps"] + 1}


def is_point(step: int, num_steps: int) -> bool:
    """Whether the training loss of the steps since the point before is noted after so many steps."""
    return step % math.ceil(num_steps / MAX_POINTS) == 0 or step == num_steps


def mean_loss(of_processes: Sequence[RunningLoss]) -> float:
    """The mean over all steps and processes."""
    return sum(each["sum"] for each in of_processes) / sum(each["steps"] for each in of_processes)


def curve(train_losses: Sequence[TrainLoss], validations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of a stage in the order of their steps.

    Args:
        train_losses: `step` and `loss` of each point of the training loss.
        validations: `step` and metrics of each validation, however many.

    Returns:
        `step`, `train_loss` (the mean since the point before) and `validation_loss`; None where one was not measured.
    """
    trained = {each["step"]: _rounded(each["loss"]) for each in train_losses}
    validated = {each["step"]: _rounded(each.get("loss")) for each in _thinned(validations)}
    return [
        {"step": step, "train_loss": trained.get(step), "validation_loss": validated.get(step)}
        for step in sorted(trained.keys() | validated.keys())
    ]


def _thinned(validations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evenly spaced ones, the last among them."""
    count = len(validations)
    chosen = min(count, MAX_POINTS)
    return [validations[count * (number + 1) // chosen - 1] for number in range(chosen)]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
