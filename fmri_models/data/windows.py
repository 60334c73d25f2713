"""Trials that are windows of a recording: several volumes around a clip, or the samples of several channels.

A window is stored as one flat row of the column `fmri`, as any other trial, so that everything that reads voxels reads
it; `table.json` says its shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import FmriModelsError
from ..plain_values import ShortRepr

OVER_TIME = ("time", "voxels")
OF_CHANNELS = ("channels", "time")
AXES = (OVER_TIME, OF_CHANNELS)


@dataclass(frozen=True, repr=False)
class Windows(ShortRepr):
    """What the windows of a table are.

    Attributes:
        axes: `("time", "voxels")`, volume after volume, or `("channels", "time")`.
        seconds_per_sample: From one sample to the next; None where unknown.
        lag_seconds: From the beginning of a stimulus to that of its window; None where unknown.
        picture: Which picture stands for a stimulus that moves, in words; empty where none does.
        shapes: Subject ▶ lengths of the two axes.
    """

    axes: tuple[str, str] = OVER_TIME
    seconds_per_sample: float | None = None
    lag_seconds: float | None = None
    picture: str = ""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def sentence(self, subject: str | None = None) -> str:
        """What a person has to know of them.

        Args:
            subject: Whose shape is said; that of all where none is given.
        """
        shapes = self.shapes if subject is None else {subject: self.shapes[subject]}
        different = sorted(set(shapes.values()))
        sizes = " or ".join(f"{first} x {second}" for first, second in different[:3])
        sizes += " or others" if len(different) > 3 else ""
        step = "" if self.seconds_per_sample is None else f", a sample each {self.seconds_per_sample:g} s"
        lag = "the lag behind the stimulus is not known"
        if self.lag_seconds is not None:
            side = "before" if self.lag_seconds < 0 else "after"
            lag = f"a window begins {abs(self.lag_seconds):g} s {side} the beginning of its stimulus"
        picture = f"; the picture of a stimulus is {self.picture}" if self.picture else ""
        return f"Each trial is a window of {sizes} ({' x '.join(self.axes)}){step}; {lag}{picture}."

    def to_metadata(self) -> dict[str, Any]:
        """As `table.json` has it."""
        return {
            "axes": list(self.axes),
            "shapes": {name: list(shape) for name, shape in sorted(self.shapes.items())},
            "seconds_per_sample": self.seconds_per_sample,
            "lag_seconds": self.lag_seconds,
            "picture": self.picture,
        }

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> "Windows | None":
        """Those of a table; None where trials are patterns."""
        found = metadata.get("windows")
        if found is None:
            return None
        return cls(
            axes=(found["axes"][0], found["axes"][1]),
            seconds_per_sample=found.get("seconds_per_sample"),
            lag_seconds=found.get("lag_seconds"),
            picture=found.get("picture", ""),
            shapes={name: (shape[0], shape[1]) for name, shape in found["shapes"].items()},
        )


def place_axis(axes: Sequence[str]) -> int:
    """Which of two axes is that of voxels or channels, along which windows have ROIs, positions and noise ceilings."""
    return 1 - list(axes).index("time")


def over_window(values: Any, shape: tuple[int, int], axes: Sequence[str]) -> Any:
    """What is known of each voxel or channel, for each value of a flat window.

    Args:
        values: One for each voxel or channel, along the first axis of an array or list; None stays None.
        shape: Of the window.
        axes: Of the window.
    """
    if values is None:
        return None
    numbers = place_numbers(shape, axes)
    if isinstance(values, np.ndarray):
        return values[numbers]
    return [values[number] for number in numbers.tolist()]


def place_numbers(shape: tuple[int, int], axes: Sequence[str]) -> np.ndarray:
    """(values,) which voxel or channel each value of a flat window is of."""
    along = place_axis(axes)
    numbers = np.arange(shape[along])
    return np.broadcast_to(numbers[None] if along == 1 else numbers[:, None], shape).reshape(-1)


def check_windows(windows: Windows, what: str) -> None:
    """Refuses axes that there are not.

    Raises:
        FmriModelsError: Names what is expected.
    """
    if tuple(windows.axes) not in AXES:
        known = " or ".join(" x ".join(axes) for axes in AXES)
        raise FmriModelsError(f"The windows of {what} have the axes {' x '.join(windows.axes)}; expected {known}.")
