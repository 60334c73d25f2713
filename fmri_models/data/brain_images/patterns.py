"""Patterns of somebody's volumes, in the voxels of a model's mask."""

from pathlib import Path

import numpy as np

from ...errors import FmriModelsError
from ...names import one_line
from ...processing.image_grid import ImageGrid
from .masks import read_mask
from .opening import open_image
from .series import VolumeSeries, blocks


def read_patterns(
    path: Path, mask: Path | None, grid: ImageGrid | None, subject: str, most: int | None = None
) -> np.ndarray:
    """Reads the betas of one volume or of several, as the model takes them.

    Args:
        path: A NIfTI file of three axes, or four with a volume a trial.
        mask: The mask that the model's table was made with.
        grid: What the model's processor keeps of that.
        subject: Whose betas they are, for messages.
        most: How many volumes there may be.

    Returns:
        (n, V) float32 in the order of the mask's voxels.

    Raises:
        FmriModelsError: The model knows of no grid, the mask or the volumes are of another one, or files are damaged.
    """
    if grid is None:
        raise FmriModelsError(
            f"The model was not trained on images of {subject}, so that nothing says which voxel each column is; give "
            "betas as a .npy file of (trials, voxels) in the order of its table."
        )
    if mask is None:
        raise FmriModelsError(
            f"{one_line(path.name)} is a volume; give the mask that the model's table was made with, too (--mask)."
        )
    image = open_image(path)
    grid.check_volume(tuple(image.shape[:3]), np.asarray(image.affine), one_line(path.name))
    chosen = read_mask(mask)
    grid.check_mask(chosen.shape, chosen.affine, chosen.positions, f"The mask {one_line(mask.name)}")
    series = VolumeSeries(path, chosen)
    if most is not None and series.count > most:
        raise FmriModelsError(f"{one_line(path.name)} has {series.count} volumes; {most} at most are taken here.")
    return np.concatenate(list(blocks(series)))
