"""Which voxels of a volume the columns of patterns are, as far as it takes to refuse another volume or mask."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FmriModelsError
from ..names import one_line

# How far the corners of a volume may lie apart, in mm: what single precision in headers makes of one affine is less.
TOLERANCE_MM = 0.05


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """The grid that betas were taken from.

    Args:
        shape: Of the volume.
        affine: (4, 4) from indices to mm.
        sha256: Of the voxels' flat positions, in the order of the columns ([`positions_sha256`]).
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    sha256: str

    def same_as(self, other: "ImageGrid") -> bool:
        """Whether two tables' columns are the same voxels."""
        return self.sha256 == other.sha256 and not grid_difference(self.shape, self.affine, other.shape, other.affine)

    def check_volume(self, shape: Sequence[int], affine: np.ndarray, what: str) -> None:
        """Refuses a volume of another grid.

        Args:
            shape: Of the volume, three numbers.
            affine: (4, 4) of the volume.
            what: What it is, as the beginning of a sentence.

        Raises:
            FmriModelsError: The shape differs, or the affine by more than rounding.
        """
        if difference := grid_difference(shape, affine, self.shape, self.affine):
            raise FmriModelsError(
                f"{what} has another grid than the images that the model was trained on: {difference}. Nothing is "
                "resampled here; bring it to that grid first, for example with nilearn.image.resample_to_img."
            )

    def check_mask(self, shape: Sequence[int], affine: np.ndarray, positions: np.ndarray, what: str) -> None:
        """Refuses a mask of another grid, or of other voxels.

        Args:
            shape: As in [`check_volume`].
            affine: As in [`check_volume`].
            positions: (V,) flat positions of its voxels, ascending.
            what: As in [`check_volume`].

        Raises:
            FmriModelsError: It is another one.
        """
        self.check_volume(shape, affine, what)
        if (found := positions_sha256(positions)) != self.sha256:
            raise FmriModelsError(
                f"{what} has other voxels than the mask that the model's table was made with ({len(positions)} voxels "
                f"with the SHA-256 {found[:12]}; expected {one_line(self.sha256, 12)}); give that mask."
            )


def positions_sha256(positions: np.ndarray) -> str:
    """By which two masks are known to be the same: the digest of the voxels' flat positions, in their order."""
    return hashlib.sha256(np.ascontiguousarray(positions, dtype="<i8").tobytes()).hexdigest()


def grid_difference(
    shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other_affine: np.ndarray
) -> str:
    """How a grid differs from another one, in words; empty where it doesn't."""
    if tuple(shape) != tuple(other_shape):
        return f"{shape_text(shape)} voxels, and not {shape_text(other_shape)}"
    corners = np.array([[0, 0, 0, 1], *(np.append(row, 1) for row in np.diag(shape)), [*shape, 1]], dtype=float)
    apart = np.abs(corners @ (np.asarray(affine, dtype=float) - np.asarray(other_affine, dtype=float)).T).max()
    if not apart <= TOLERANCE_MM:
        return f"the same {shape_text(shape)} voxels, but other positions (affines up to {apart:.3g} mm apart)"
    return ""


def shape_text(shape: Sequence[int]) -> str:
    """Such as `40 x 20 x 1`."""
    return " x ".join(map(str, shape))
