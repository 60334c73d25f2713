"""Series on surfaces: CIFTI's grayordinates, and GIFTI's vertices of the left and the right hemisphere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import check_line, one_line
from .masks import names_of
from .opening import damage_as_sentences, open_image, required_package

_BYTES_AT_ONCE = 64 * 2**20
_LEFT, _RIGHT = "left", "right"


@dataclass
class CiftiSeries:
    """Grayordinates of a dense CIFTI-2 file: time points (`.dtseries.nii`) or maps (`.dscalar.nii`), in its order.

    Args:
        path: The file.

    Raises:
        FmriModelsError: It is another file, such as one of parcels.
    """

    path: Path

    def __post_init__(self) -> None:
        self._image, self._first, self._brain = _dense(self.path)

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]

    @property
    def count(self) -> int:
        return len(self._first)

    @property
    def width(self) -> int:
        return len(self._brain)

    @property
    def seconds(self) -> float:
        step = float(getattr(self._first, "step", 0) or 0)
        return step if str(getattr(self._first, "unit", "")).upper() == "SECOND" else 0.0

    @property
    def at_once(self) -> int:
        return max(1, _BYTES_AT_ONCE // (8 * self.width))

    @property
    def structures(self) -> list[str]:
        """Of each grayordinate, such as `CORTEX_LEFT`."""
        return [str(name).removeprefix("CIFTI_STRUCTURE_") for name in self._brain.name]

    @property
    def order(self) -> list[Any]:
        """What tells two orders of grayordinates apart."""
        return [self._brain.name.tolist(), self._brain.vertex.tolist(), self._brain.voxel.tolist()]

    @property
    def coordinates(self) -> np.ndarray:
        """(V, 3) float32 in mm of those in the volume; NaN of vertices, whose surface is another file."""
        xyz = np.full((self.width, 3), np.nan, dtype=np.float32)
        in_volume = np.asarray(self._brain.volume_mask)
        if in_volume.any():
            affine = np.asarray(self._brain.affine)
            xyz[in_volume] = self._brain.voxel[in_volume] @ affine[:3, :3].T + affine[:3, 3]
        return xyz

    def labels(self, atlas: Path) -> list[str]:
        """The region of each grayordinate by a `.dlabel.nii` file of the same order.

        Raises:
            FmriModelsError: It is another file, or of other grayordinates.
        """
        image, maps, brain = _dense(atlas)
        if not hasattr(maps, "label"):
            raise FmriModelsError(f"{one_line(atlas)} has no labels; give a .dlabel.nii file.")
        if len(brain) != self.width or brain != self._brain:
            raise FmriModelsError(
                f"{one_line(atlas)} and {one_line(self.path)} are of different grayordinates ({len(brain)} and "
                f"{self.width}, in their order); give an atlas of the same ones."
            )
        names = {number: check_line(name, "region's name", 200) for number, (name, _) in maps.label[0].items()}
        with damage_as_sentences(atlas, "CIFTI file"):
            numbers = np.asarray(image.dataobj[0]).astype(np.int64)
        return names_of(numbers, names)

    def read(self, start: int, stop: int) -> np.ndarray:
        with damage_as_sentences(self.path, "CIFTI file"):
            return np.ascontiguousarray(self._image.dataobj[start:stop], dtype=np.float32)


@dataclass
class GiftiSeries:
    """Vertices of the left and then the right hemisphere, in `.func.gii` files of which each array is a pattern.

    Args:
        paths: The left and the right one.

    Raises:
        FmriModelsError: A file is none, or the two have different numbers of patterns.
    """

    paths: tuple[Path, Path]

    def __post_init__(self) -> None:
        # GIFTI has no way to read a part; a hemisphere's run is what is held.
        self._values: np.ndarray | None = None
        shapes = [_arrays(path).shape for path in self.paths]
        if shapes[0][0] != shapes[1][0]:
            raise FmriModelsError(
                f"{one_line(self.paths[0])} has {shapes[0][0]} patterns, and {one_line(self.paths[1])} {shapes[1][0]}; "
                "give both hemispheres of one run."
            )
        self._count, self._widths = shapes[0][0], [shape[1] for shape in shapes]

    @property
    def files(self) -> Sequence[Path]:
        return list(self.paths)

    @property
    def count(self) -> int:
        return self._count

    @property
    def width(self) -> int:
        return sum(self._widths)

    @property
    def seconds(self) -> float:
        return 0.0

    @property
    def at_once(self) -> int:
        return max(1, _BYTES_AT_ONCE // (4 * self.width))

    @property
    def structures(self) -> list[str]:
        """Hemisphere of each vertex."""
        return [_LEFT] * self._widths[0] + [_RIGHT] * self._widths[1]

    def labels(self, atlases: Sequence[Path]) -> list[str]:
        """The region of each vertex by two `.label.gii` files.

        Raises:
            FmriModelsError: One is none, or has another number of vertices.
        """
        found = []
        for path, width, side in zip(atlases, self._widths, (_LEFT, _RIGHT), strict=True):
            image = open_image(path, "GIFTI file")
            if not getattr(image, "darrays", None):
                raise FmriModelsError(f"{one_line(path)} has no labels; give a .label.gii file.")
            numbers = np.asarray(image.darrays[0].data).ravel().astype(np.int64)
            if len(numbers) != width:
                raise FmriModelsError(
                    f"{one_line(path)} labels {len(numbers)} vertices; the {side} hemisphere has {width}: give an "
                    "atlas of the same surface."
                )
            found += names_of(numbers, image.labeltable.get_labels_as_dict())
        return found

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._values is None:
            self._values = np.concatenate([_arrays(path) for path in self.paths], axis=1)
        return self._values[start:stop]


def _dense(path: Path) -> tuple[Any, Any, Any]:
    """The image, its axis of patterns and its axis of grayordinates."""
    axes = required_package("nibabel.cifti2")
    image = open_image(path, "CIFTI file")
    if not isinstance(image, axes.Cifti2Image):
        raise FmriModelsError(f"{one_line(path)} is no CIFTI-2 file; give a .dtseries.nii or .dscalar.nii file.")
    with damage_as_sentences(path, "CIFTI file"):
        first, brain = (image.header.get_axis(axis) for axis in range(2))
    if not isinstance(brain, axes.BrainModelAxis):
        raise FmriModelsError(
            f"{one_line(path)} is of parcels or connections; expected a dense file, of patterns and grayordinates."
        )
    return image, first, brain


def _arrays(path: Path) -> np.ndarray:
    """(patterns, vertices) float32 of a GIFTI file."""
    image = open_image(path, "GIFTI file")
    with damage_as_sentences(path, "GIFTI file"):
        if not hasattr(image, "darrays") or not image.darrays:
            raise FmriModelsError(f"{one_line(path)} has no arrays; give a .func.gii file.")
        values = [np.asarray(each.data, dtype=np.float32) for each in image.darrays]
        if len(values) == 1 and values[0].ndim == 2:
            # FreeSurfer writes one array of all time points.
            return np.ascontiguousarray(values[0].T)
        return np.stack([each.ravel() for each in values])
