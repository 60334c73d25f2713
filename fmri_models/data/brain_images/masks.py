"""Masks and regions: which voxels of a volume are taken, in which order, and what they are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import progress
from ...errors import FmriModelsError
from ...names import check_line, listed, one_line
from ...plain_values import ShortRepr
from ...processing.image_grid import grid_difference, shape_text
from ...reading import read_bytes
from ..csv_files import read_csv
from ..published.dataset import VoxelGrid
from .opening import damage_as_sentences, is_volume_name, open_image

# Far above any brain at any resolution.
MOST_VOXELS = 2**27
_MOST_LABELS = 100_000
_ROUNDING = 1e-2
# Of a voxel, in mm³.
_LEAST_VOLUME = 1e-9


@dataclass(frozen=True, repr=False)
class Mask(ShortRepr):
    """Some voxels of a volume.

    Args:
        path: The file, for messages.
        affine: (4, 4) from indices to mm.
        chosen: (x, y, z) bool.
    """

    path: Path
    affine: np.ndarray
    chosen: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.chosen.shape

    @property
    def positions(self) -> np.ndarray:
        """(V,) flat positions of its voxels, ascending: the order of nilearn's maskers and of `data[mask]`."""
        return np.flatnonzero(self.chosen)

    @property
    def coordinates(self) -> np.ndarray:
        """(V, 3) float32 in mm."""
        indices = np.argwhere(self.chosen)
        return (indices @ self.affine[:3, :3].T + self.affine[:3, 3]).astype(np.float32)

    @property
    def grid(self) -> VoxelGrid:
        """As a table keeps it."""
        return VoxelGrid(self.shape, self.affine, self.positions)

    def check_same_grid(self, path: Path, shape: Sequence[int], affine: np.ndarray) -> None:
        """Refuses another image that does not lie on the mask's grid: nothing is resampled without being asked for.

        Raises:
            FmriModelsError: Its shape differs, or its affine by more than rounding.
        """
        if difference := grid_difference(shape, affine, self.shape, self.affine):
            raise FmriModelsError(
                f"{one_line(path)} and the mask {one_line(self.path)} have different grids: {difference}. Nothing is "
                "resampled here; bring one to the grid of the other first, for example with "
                "nilearn.image.resample_to_img."
            )

    def both(self, other: "Mask") -> "Mask":
        """The voxels that are in both."""
        self.check_same_grid(other.path, other.shape, other.affine)
        return Mask(self.path, self.affine, self.chosen & other.chosen)


def read_volume(path: Path, what: str) -> tuple[np.ndarray, np.ndarray]:
    """One volume of numbers and its affine.

    Args:
        path: A NIfTI file of three axes, or four with one volume.
        what: What it is, such as `"mask"`.

    Raises:
        FmriModelsError: It is another file, or has several volumes.
    """
    if not is_volume_name(path.name):
        raise FmriModelsError(f"The {what} {one_line(path)} is no NIfTI file; give a .nii or .nii.gz file.")
    image = open_image(path, "NIfTI image")
    shape = tuple(int(size) for size in image.shape)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 1) or 0 in shape:
        raise FmriModelsError(f"The {what} {one_line(path)} has the shape {shape}; expected one volume, (x, y, z).")
    if np.prod(shape, dtype=float) > MOST_VOXELS:
        raise FmriModelsError(
            f"The {what} {one_line(path)} says it has {shape_text(shape)} voxels; {MOST_VOXELS} at most."
        )
    with damage_as_sentences(path, "NIfTI image"):
        values = np.asarray(image.dataobj)
    if values.dtype.kind not in "biuf":
        raise FmriModelsError(f"The {what} {one_line(path)} holds {values.dtype}; expected numbers.")
    return values.reshape(shape[:3]), _checked_affine(image, f"The {what} {one_line(path)}")


def _checked_affine(image: Any, what: str) -> np.ndarray:
    """(4, 4) from indices to mm.

    Raises:
        FmriModelsError: It leads nowhere, so that nothing says which voxels of two images are the same.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _LEAST_VOLUME:
        raise FmriModelsError(
            f"{what} has an affine that places no voxel (NaN, infinite or flat): left and right could be exchanged "
            "unnoticed; copy the affine of the image that it was made of."
        )
    if not any(int(image.header.get(name, 1)) for name in ("qform_code", "sform_code")):
        progress.say(
            f"{what} does not say where its voxels lie (qform_code and sform_code are 0), so that left and right could "
            "be exchanged unnoticed; look at it over the images once."
        )
    return affine


def read_mask(path: Path) -> Mask:
    """Reads a mask: a volume of 0 and one other number.

    Raises:
        FmriModelsError: It is another image, has no voxel, or several numbers as an atlas has.
    """
    values, affine = read_volume(path, "mask")
    found = np.unique(values[values != 0])
    if not found.size:
        raise FmriModelsError(f"The mask {one_line(path)} is 0 everywhere; expected 1 where a voxel is taken.")
    if found.size > 1 or not np.isfinite(found).all():
        raise FmriModelsError(
            f"The mask {one_line(path)} has the values {listed(np.round(found[:4], 4).tolist())} beside 0; expected 0 "
            "and 1: threshold a map of probabilities first, and give an atlas as one (--option atlas=)."
        )
    return Mask(path, affine, values != 0)


def region_labels(mask: Mask, folder: Path | None, atlas: Path | None, labels: Path | None) -> list[str] | None:
    """The region of each voxel of a mask, empty where it is in none; None if no regions are given.

    Args:
        mask: Whose voxels.
        folder: Of a mask a region, whose file is named as the region; the first in alphabetical order has a voxel that
            several claim.
        atlas: A volume of whole numbers.
        labels: What these are called: a table with `index` and `name` (or a line a region, from 1); without it, the
            regions are called `label1` ….

    Raises:
        FmriModelsError: A file is none of these, or lies on another grid.
    """
    if folder is not None and atlas is not None:
        raise FmriModelsError("Regions come from masks (roi_masks) or an atlas (atlas); give one of the two.")
    if atlas is not None:
        return _of_atlas(mask, atlas, labels)
    if labels is not None:
        raise FmriModelsError("atlas_labels names the numbers of an atlas; give it with --option atlas=FILE.")
    return None if folder is None else _of_masks(mask, folder)


def atlas_names(labels: Path | None, numbers: Sequence[int]) -> Mapping[int, str]:
    """Number ▶ name of the regions of an atlas.

    Raises:
        FmriModelsError: The table of names is none.
    """
    if labels is None:
        return {number: f"label{number}" for number in numbers}
    data = read_bytes(labels, "atlas' table of labels", "give a table with the columns index and name")
    lines = [line for line in data.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if lines and not any(mark in lines[0] for mark in ",\t;"):
        return {number: check_line(line.strip(), "region's name", 200) for number, line in enumerate(lines, 1)}
    columns = read_csv(data, f"The table of labels {one_line(labels)}", ["index", "name"], _MOST_LABELS)
    try:
        indices = [int(text) for text in columns["index"]]
    except ValueError as error:
        raise FmriModelsError(
            f"The column index of {one_line(labels)} has {one_line(error)}; expected numbers."
        ) from error
    return {index: check_line(name, "region's name", 200) for index, name in zip(indices, columns["name"], strict=True)}


def _of_masks(mask: Mask, folder: Path) -> list[str]:
    files = sorted(path for path in folder.glob("*") if is_volume_name(path.name)) if folder.is_dir() else []
    if not files:
        raise FmriModelsError(
            f"The folder of regions {one_line(folder)} has no masks; expected one NIfTI file a region, such as "
            "V1.nii.gz."
        )
    regions = np.full(len(mask.positions), "", dtype=object)
    claimed = np.zeros(len(regions), dtype=np.int64)
    for path in files:
        region = read_mask(path)
        mask.check_same_grid(path, region.shape, region.affine)
        inside = region.chosen[mask.chosen]
        claimed += inside
        regions[inside & (regions == "")] = check_line(path.name.partition(".")[0], "region's name", 200)
    if several := int((claimed > 1).sum()):
        progress.say(f"{several} voxels are in several regions; the first in alphabetical order has them.")
    return list(regions)


def _of_atlas(mask: Mask, atlas: Path, labels: Path | None) -> list[str]:
    values, affine = read_volume(atlas, "atlas")
    mask.check_same_grid(atlas, values.shape, affine)
    own = values[mask.chosen]
    # Labels that a header scales are whole numbers but for rounding.
    if not np.isfinite(own).all() or (np.abs(own - np.round(own)) > _ROUNDING).any():
        raise FmriModelsError(f"The atlas {one_line(atlas)} has values that are no whole numbers; expected labels.")
    own = np.round(own).astype(np.int64)
    numbers = sorted(set(np.unique(own).tolist()) - {0})
    return names_of(own, atlas_names(labels, numbers))


def names_of(numbers: np.ndarray, names: Mapping[int, str]) -> list[str]:
    """Region of each number; empty for 0 and what has no name."""
    return [names.get(number, "") if number else "" for number in numbers.tolist()]
