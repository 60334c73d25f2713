"""The patterns of a processor's call: whose and of which session each is, what is refused, how widths are changed."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import FmriModelsError
from ..in_memory import as_numbers, as_sessions
from ..names import one_line
from .options import Pooling


def flat_windows(fmri: Any, shapes: Collection[tuple[int, int]], widths: Collection[int]) -> Any:
    """Patterns whose last two axes are those of a window, flattened; others as they are.

    Args:
        fmri: (..., time, voxels), (..., channels, time), or (..., values); or a sequence of such arrays.
        shapes: Of the windows that a processor knows.
        widths: Of flat patterns that it knows, which are never flattened further.
    """
    if isinstance(fmri, list | tuple):
        return [flat_windows(each, shapes, widths) if hasattr(each, "shape") else each for each in fmri]
    shape = tuple(getattr(fmri, "shape", ()))
    if len(shape) < 2 or shape[-2:] not in shapes or shape[-1] in widths:
        return fmri
    return fmri.reshape(*shape[:-2], shape[-2] * shape[-1])


@dataclass(frozen=True)
class Patterns:
    """Patterns of one call, one after the other.

    Args:
        values: (N, voxels), or a list of N patterns (voxels,) where widths differ.
        leading: Dimensions that the output gets back; none for a list.
    """

    values: np.ndarray | list[np.ndarray]
    leading: tuple[int, ...]

    @classmethod
    def of(cls, fmri: Any) -> "Patterns":
        """Those of an array (..., voxels), or of a sequence of (voxels,).

        Raises:
            FmriModelsError: It is empty, has no such shape, or is no numbers.
        """
        if isinstance(fmri, list | tuple) and any(
            isinstance(each, list | tuple) or hasattr(each, "shape") for each in fmri
        ):
            fmri = [as_numbers(pattern) for pattern in fmri]
        if isinstance(fmri, list) and len({np.shape(pattern) for pattern in fmri}) > 1:
            if wrong := [pattern.shape for pattern in fmri if pattern.ndim != 1 or not pattern.size]:
                raise FmriModelsError(f"A pattern has the shape {wrong[0]}; expected (voxels,), each of one subject.")
            return cls(fmri, ())
        array = as_numbers(fmri)
        if array.ndim == 0 or array.size == 0:
            raise FmriModelsError(f"Voxels have the shape {array.shape}; expected (trials, voxels), not empty.")
        array = array[None] if array.ndim == 1 else array
        return cls(array.reshape(-1, array.shape[-1]), array.shape[:-1])

    def __len__(self) -> int:
        return len(self.values)

    @property
    def batch_size(self) -> int:
        """Number of entries of the first dimension, each of which has one subject."""
        return self.leading[0] if self.leading else len(self)

    def width(self, position: int) -> int:
        """Voxels of a pattern."""
        return int(np.shape(self.values[position])[-1])

    def subjects(self, subject: str | Sequence[str] | None, known: Sequence[str]) -> list[str]:
        """The subject of each pattern.

        Args:
            subject: A name, or one for each entry of the first dimension; None where one subject is known.
            known: The processor's subjects.

        Raises:
            FmriModelsError: Nobody says which subject it is, a name is none, or there are too many or too few.
        """
        if subject is None:
            if len(known) != 1:
                raise FmriModelsError(f"Say with subject= whose voxels these are: {', '.join(known)}.")
            subject = known[0]
        if isinstance(subject, str):
            return [subject] * len(self)
        several: Any = subject
        is_one = isinstance(several, bytes) or not isinstance(several, Iterable) or getattr(several, "ndim", 1) == 0
        names = [several] if is_one else list(several)
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise FmriModelsError(
                f"subject is {one_line(repr(wrong[0]), 80)}; expected a subject's name, or one for each pattern: it "
                f"knows {', '.join(known)}."
            )
        if len(names) != self.batch_size:
            raise FmriModelsError(
                f"{len(names)} subjects were given for {self.batch_size} patterns; give one a pattern."
            )
        return [name for name in names for _ in range(len(self) // self.batch_size)]

    def sessions(self, session: int | Sequence[int] | np.ndarray | None) -> np.ndarray | None:
        """(N,) session of each pattern; None where none is given.

        Args:
            session: One for all, one for each entry of the first dimension, or one a pattern.

        Raises:
            FmriModelsError: A session is no whole number, or there are too many or too few.
        """
        if session is None:
            return None
        sessions = as_sessions(session)
        if sessions.ndim == 0:
            return np.full(len(self), sessions)
        if sessions.shape == self.leading:
            return sessions.reshape(-1)
        if sessions.shape != (self.batch_size,):
            found = len(sessions) if sessions.ndim == 1 else f"sessions of the shape {sessions.shape} instead of"
            raise FmriModelsError(f"{found} sessions were given for {self.batch_size} patterns; give one a pattern.")
        return np.repeat(sessions, len(self) // self.batch_size)


def check_finite(
    patterns: np.ndarray,
    name: str,
    numbers: list[int],
    voxel_number: Callable[[int, int], int] = lambda position, voxel: voxel,
) -> None:
    """Refuses patterns (N, voxels) with NaN or infinite values.

    Args:
        patterns: The patterns.
        name: The subject.
        numbers: By which a message calls each pattern.
        voxel_number: Position of a pattern and of a voxel in it ▶ number by which a message calls the voxel.
    """
    # A sum is finite only if every value is: one pass without a mask, which only a failure needs.
    with np.errstate(invalid="ignore"):
        if np.isfinite(patterns.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(patterns)
    if bad.any():
        position, voxel = (int(index[0]) for index in np.nonzero(bad))
        raise FmriModelsError(
            f"{name} has {int(bad.sum())} values that are NaN or infinite, the first in pattern {numbers[position]} at "
            f"voxel {voxel_number(position, voxel)}; leave out these trials, or "
            "before training these voxels (`fmri-models prepare arrays --drop-bad-voxels`)."
        )


def check_not_constant(patterns: np.ndarray, name: str, numbers: list[int]) -> None:
    """Refuses patterns that have one value in all of several voxels."""
    if patterns.shape[1] < 2:
        return
    constant = (patterns == patterns[:, :1]).all(axis=1)
    if constant.any():
        position = int(np.flatnonzero(constant)[0])
        raise FmriModelsError(
            f"Pattern {numbers[position]} of {name} has the value {patterns[position, 0]:g} in every voxel, so it "
            "holds no response; leave it out."
        )


def wrapped_columns(num_columns: int, patch_size: int, width: int, extra_patch: bool) -> np.ndarray:
    """(width,) int64 which of a pattern's columns each one is, where it is repeated from its start up to a width.

    Args:
        num_columns: Columns of the pattern.
        patch_size: Columns of a patch.
        width: At least as many columns.
        extra_patch: As the original of MinD-Vis: the pattern is padded to patches by itself, by a whole one where it is
            a multiple already, and what is repeated up to the width is that.
    """
    columns = np.arange(num_columns)
    if extra_patch:
        columns = np.resize(columns, padded_width(num_columns, patch_size, extra_patch))
    return np.resize(columns, width)


def padded_width(num_columns: int, patch_size: int, extra_patch: bool) -> int:
    """The smallest multiple of a patch that takes some columns; with an extra patch, the smallest that is larger."""
    return (num_columns // patch_size + 1) * patch_size if extra_patch else -(-num_columns // patch_size) * patch_size


def pooled(values: np.ndarray, width: int, pooling: Pooling = "max") -> np.ndarray:
    """Brings patterns to one width along the order of their voxels, as MindBridge does with subjects.

    Column i is made of the voxels from floor(i V / width) up to ceil((i + 1) V / width), whether there are more of them
    than columns or fewer.

    Args:
        values: (N, V) float32.
        width: Columns of the result.
        pooling: `"max"` and `"average"` of these windows, or `"resize"`, linear interpolation.

    Returns:
        (N, width) float32.
    """
    patterns = torch.from_numpy(np.ascontiguousarray(values))
    if pooling == "max":
        return torch.nn.functional.adaptive_max_pool1d(patterns, width).numpy()
    if pooling == "average":
        return torch.nn.functional.adaptive_avg_pool1d(patterns, width).numpy()
    resized = torch.nn.functional.interpolate(patterns[None], size=width, mode="linear", align_corners=False)
    return resized[0].numpy()


def pooled_by_roi(
    values: np.ndarray, roi: Sequence[str], widths: Mapping[str, int], pooling: Pooling = "max"
) -> np.ndarray:
    """Brings the voxels of each ROI to the ROI's own width, so that a column is of the same ROI in all subjects.

    Args:
        values: (N, V) float32.
        roi: ROI of each voxel.
        widths: ROI ▶ columns; in the result they stand by name, since files keep no other order. An ROI without voxels
            is zero; voxels of others are left out.
        pooling: As of [`pooled`].

    Returns:
        (N, sum of the widths) float32.
    """
    labels, parts = np.asarray(roi), []
    for name, width in sorted(widths.items()):
        own = values[:, labels == name]
        parts.append(pooled(own, width, pooling) if own.shape[1] else np.zeros((len(values), width), np.float32))
    return np.concatenate(parts, axis=1)


def roi_widths(rois: Sequence[Sequence[str]], width: int) -> dict[str, int]:
    """How many columns each ROI gets of a common width: in proportion to its share of the voxels, one at least.

    Args:
        rois: For each subject, the ROI of each of its voxels; shares are means over subjects.
        width: Columns of all together.

    Raises:
        FmriModelsError: There are more ROIs than columns.
    """
    names = sorted({name for each in rois for name in each})
    if len(names) > width:
        raise FmriModelsError(
            f"pool_width is {width}, and the voxels are of {len(names)} ROIs, each of which needs a column; give a "
            "larger one, or leave pool_by_roi out."
        )
    shares = np.mean([[np.mean(np.asarray(each) == name) for name in names] for each in rois], axis=0)
    exact = shares * (width - len(names))
    columns = 1 + np.floor(exact).astype(int)
    # What is left goes to those that were cut the most.
    for place in np.argsort(-(exact - np.floor(exact)), kind="stable")[: width - int(columns.sum())]:
        columns[place] += 1
    return {name: int(count) for name, count in zip(names, columns, strict=True)}
