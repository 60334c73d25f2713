"""Series of patterns in files: time points, or betas of trials, read a few at a time whatever the file's size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import FmriModelsError
from ...names import one_line
from ...processing.image_grid import shape_text
from .masks import Mask
from .opening import image_values, open_image, opened_hdf5

_BYTES_AT_ONCE = 64 * 2**20
_MOST_SECONDS = 60.0
# Far above any run.
_MOST_PATTERNS = 2**24


class Series(Protocol):
    """Patterns one after the other."""

    @property
    def files(self) -> Sequence[Path]:
        """What they are read from."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def width(self) -> int:
        """Values of each."""
        ...

    @property
    def seconds(self) -> float:
        """From one to the next, 0 where that is not known."""
        ...

    @property
    def at_once(self) -> int:
        """How many are read together at most."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, width) float32."""
        ...


def blocks(series: Series, rows: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """(n, width) float32 of all patterns of a series, or of some, ascending."""
    wanted = np.arange(series.count) if rows is None else np.asarray(rows, dtype=np.int64)
    for start in range(0, series.count, series.at_once):
        stop = min(start + series.at_once, series.count)
        own = wanted[(wanted >= start) & (wanted < stop)]
        if len(own):
            yield series.read(start, stop)[own - start]


@dataclass
class VolumeSeries:
    """Voxels of a mask in the volumes of a NIfTI file, in the order of nilearn's maskers.

    Args:
        path: Of three axes (one volume) or four.
        mask: Which voxels.
        first: Number of the first volume that counts.
        length: How many count; all from there on if None.

    Raises:
        FmriModelsError: The file is none, or lies on another grid than the mask.
    """

    path: Path
    mask: Mask
    first: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        self._image = open_image(self.path)
        shape = tuple(int(size) for size in self._image.shape)
        if len(shape) not in (3, 4):
            raise FmriModelsError(
                f"{one_line(self.path)} has the shape {shape}; expected volumes, (x, y, z) or (x, y, z, volumes)."
            )
        if self._image.get_data_dtype().kind not in "iuf":
            raise FmriModelsError(f"{one_line(self.path)} holds {self._image.get_data_dtype()}; expected numbers.")
        self.mask.check_same_grid(self.path, shape[:3], self._image.affine)
        self._there = shape[3] if len(shape) == 4 else 1
        self._is_single = len(shape) == 3
        if not 0 < self._there <= _MOST_PATTERNS:
            raise FmriModelsError(
                f"{one_line(self.path)} says it has {self._there} volumes; expected one at least, and {_MOST_PATTERNS} "
                "at most: copy or export it again."
            )

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]

    @property
    def count(self) -> int:
        return self._there - self.first if self.length is None else self.length

    @cached_property
    def width(self) -> int:
        return len(self.mask.positions)

    @property
    def seconds(self) -> float:
        return header_seconds(self._image)

    @property
    def at_once(self) -> int:
        # nibabel scales in float64.
        return max(1, _BYTES_AT_ONCE // (8 * int(np.prod(self.mask.shape))))

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._is_single:
            return image_values(self._image, self.path)[self.mask.chosen][None]
        volumes = image_values(self._image, self.path, slice(self.first + start, self.first + stop))
        return np.ascontiguousarray(volumes[self.mask.chosen].T)


def header_seconds(image: Any) -> float:
    """Seconds from one volume to the next by the header of a NIfTI file; 0 where it says none that can be."""
    zooms = image.header.get_zooms()
    if len(zooms) < 4:
        return 0.0
    unit = image.header.get_xyzt_units()[1]
    seconds = float(zooms[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    return seconds if 0 < seconds <= _MOST_SECONDS else 0.0


@dataclass
class HdfBetas:
    """Betas of trials in GLMsingle's HDF5 file, or its MATLAB file of version 7.3 with reversed axes.

    Args:
        path: The file.
        mask: Which voxels; its grid is that of the images which GLMsingle was given.
        name: Of the array.
        is_reversed: Whether it is (trials, z, y, x), as HDF5 shows arrays of MATLAB, and not (x, y, z, trials).

    Raises:
        FmriModelsError: The file is damaged, has no such array, or one of another shape than the mask.
    """

    path: Path
    mask: Mask
    name: str
    is_reversed: bool

    def __post_init__(self) -> None:
        with opened_hdf5(self.path) as file:
            if self.name not in file:
                raise FmriModelsError(
                    f"{one_line(self.path)} has no array {self.name!r}; it has {', '.join(map(str, list(file)[:20]))}: "
                    "give GLMsingle's file of single-trial betas, TYPED_FITHRF_GLMDENOISE_RR."
                )
            shape = tuple(int(size) for size in file[self.name].shape or ())
        self._shape = shape[::-1] if self.is_reversed else shape
        # MATLAB drops axes of length 1 at the end.
        if len(self._shape) < 4 or self._shape[:3] != self.mask.shape:
            flat = (
                " (a flat list of units has no grid; make an array of it, for `prepare arrays`)"
                if len(shape) < 4
                else ""
            )
            raise FmriModelsError(
                f"{self.name} of {one_line(self.path)} has the shape {self._shape}; expected (x, y, z, trials) with "
                f"the {shape_text(self.mask.shape)} voxels of the mask {one_line(self.mask.path)}{flat}."
            )

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]

    @property
    def count(self) -> int:
        return self._shape[3]

    @cached_property
    def width(self) -> int:
        return len(self.mask.positions)

    @property
    def seconds(self) -> float:
        return 0.0

    @property
    def at_once(self) -> int:
        return max(1, _BYTES_AT_ONCE // (4 * int(np.prod(self.mask.shape))))

    def read(self, start: int, stop: int) -> np.ndarray:
        with opened_hdf5(self.path) as file:
            if self.is_reversed:
                values = file[self.name][start:stop].transpose(3, 2, 1, 0)
            else:
                values = file[self.name][..., start:stop]
            values = np.asarray(values, dtype=np.float32)
        return np.ascontiguousarray(values[self.mask.chosen].T)
