"""NIfTI volumes read block by block, and masks on the same grid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import one_line
from ...reading import check_regular_file
from .dataset import VoxelGrid
from .libraries import nibabel_image, volumes

VOLUMES_AT_ONCE = 16
_AFFINE_TOLERANCE = 1e-3


def opened_image(path: Path, axes: int, mend: str) -> Any:
    """A NIfTI file whose values are not read yet.

    Args:
        path: The file.
        axes: How many it has to have.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It is none, or has other axes.
    """
    check_regular_file(path, "NIfTI file", mend)
    # Kept open, so that going on in a compressed file doesn't begin at its start again.
    image = nibabel_image(path, keep_file_open=True)
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
    if like is not None:
        same = image.shape == like.shape[:3]
        if not same or np.abs(np.asarray(image.affine) - np.asarray(like.affine)).max() > _AFFINE_TOLERANCE:
            what = "affine" if same else f"shape {image.shape}"
            raise FmriModelsError(
                f"{one_line(path)} has another {what} than {one_line(like.get_filename())}, and nothing is resampled "
                f"here; {mend}."
            )
    return np.nan_to_num(volumes(image, path, slice(None))) > 0, image


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
        block = volumes(image, path, slice(start, start + VOLUMES_AT_ONCE))
        yield block[mask].T
