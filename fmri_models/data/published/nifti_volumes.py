"""NIfTI volumes read block by block, and masks on the same grid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import one_line
from ...processing.image_grid import grid_difference
from ..brain_images.opening import image_values, open_image
from .dataset import VoxelGrid

VOLUMES_AT_ONCE = 16


def opened_image(path: Path, axes: int, mend: str) -> Any:
    """A NIfTI file whose values are not read yet.

    Args:
        path: The file.
        axes: How many it has to have.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It is none, or has other axes.
    """
    image = open_image(path, mend=mend)
    if len(image.shape) != axes:
        raise FmriModelsError(f"{one_line(path)} is of the shape {image.shape}; expected {axes} axes; {mend}.")
    return image


def read_mask(path: Path, mend: str, like: Any = None) -> tuple[np.ndarray, Any]:
    """Which voxels of a volume are in a mask, and its image.

    Args:
        path: The file, of three axes.
        mend: What to do about another file.
        like: An image whose grid it has to have.

    Raises:
        FmriModelsError: It is no such file, or has another grid than `like`.
    """
    image = opened_image(path, 3, mend)
    if like is not None and (
        difference := grid_difference(image.shape, image.affine, like.shape[:3], np.asarray(like.affine))
    ):
        raise FmriModelsError(
            f"{one_line(path)} has another grid than {one_line(like.get_filename())}: {difference}. Nothing is "
            f"resampled here; {mend}."
        )
    return np.nan_to_num(image_values(image, path, mend=mend)) > 0, image


def grid_of(mask: np.ndarray, affine: np.ndarray) -> VoxelGrid:
    """Of the voxels of a mask, in the volume's flat order (C)."""
    return VoxelGrid(tuple(mask.shape), np.asarray(affine, dtype=float), np.flatnonzero(mask))


def places_of(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(V, 3) in mm of the voxels of a mask."""
    affine = np.asarray(affine, dtype=float)
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def masked_volumes(path: Path, mask: np.ndarray, mend: str) -> Iterator[np.ndarray]:
    """(n, V) float32 blocks of the volumes of a file, scaled as its header says.

    Raises:
        FmriModelsError: It is no NIfTI file of that grid, or is cut short.
    """
    image = opened_image(path, 4, mend)
    if image.shape[:3] != mask.shape:
        raise FmriModelsError(
            f"The volumes of {one_line(path)} are of the shape {image.shape[:3]}, and the mask is {mask.shape}; {mend}."
        )
    for start in range(0, image.shape[3], VOLUMES_AT_ONCE):
        block = image_values(image, path, slice(start, start + VOLUMES_AT_ONCE), mend)
        yield block[mask].T
