"""A visitor's betas, an array or volumes: bounded before they are read, never unpickled; no message has their path."""

from pathlib import Path

import numpy as np

from ..data.brain_images.opening import is_volume_name
from ..data.brain_images.patterns import read_patterns
from ..errors import FmriModelsError
from ..names import one_line
from ..processing.image_grid import ImageGrid
from ..reading import MEBIBYTE, read_array
from .limits import MOST_PATTERNS, MOST_UPLOAD_BYTES

_MEND = "numpy.save(file, betas) writes one of (voxels,) or (trials, voxels)"


def read_upload(
    path: str | None, mask: str | None = None, grid: ImageGrid | None = None, subject: str = ""
) -> np.ndarray:
    """Reads uploaded betas.

    Args:
        path: Where the server has put the file: a .npy array, or a NIfTI file.
        mask: Where it has put the mask of volumes.
        grid: What the model knows of its own.
        subject: Whose betas they are.

    Returns:
        (n, voxels), n from 1 to `MOST_PATTERNS`.

    Raises:
        FmriModelsError: Nothing was uploaded; the file is too large, or no array of numbers of one or two dimensions;
            or volumes or their mask are of another grid.
    """
    if not path:
        raise FmriModelsError("No file was uploaded; choose a .npy or .nii.gz file of betas.")
    file = _checked_file(path)
    if is_volume_name(file.name):
        return _volumes(file, mask, grid, subject)
    try:
        # A header may claim any shape; of a file as long as it says, no more is read than the file has.
        values = read_array(file, "uploaded file", f"no readable .npy array of numbers; {_MEND}")
    except FmriModelsError as error:
        raise FmriModelsError(str(error).replace(f" {one_line(file)}", "")) from error
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise FmriModelsError(f"The uploaded array has the shape {values.shape}; expected betas: {_MEND}.")
    patterns = np.atleast_2d(values)
    if len(patterns) > MOST_PATTERNS:
        raise FmriModelsError(
            f"The uploaded array has {len(patterns)} trials; this page draws {MOST_PATTERNS} at most: save fewer."
        )
    return patterns


def _checked_file(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise FmriModelsError("The uploaded file is not here any more; upload it again.")
    if (size := file.stat().st_size) > MOST_UPLOAD_BYTES:
        raise FmriModelsError(
            f"The uploaded file has {size / MEBIBYTE:.0f} MiB; expected {MOST_UPLOAD_BYTES // MEBIBYTE} at most: save "
            "fewer trials."
        )
    return file


def _volumes(file: Path, mask: str | None, grid: ImageGrid | None, subject: str) -> np.ndarray:
    """(n, voxels) of volumes, whose headers are compared with the model's grid before anything is decompressed."""
    if grid is not None and mask is None:
        raise FmriModelsError("The upload is a volume; upload the mask that the model's table was made with, too.")
    checked = None if mask is None else _checked_file(mask)
    try:
        return read_patterns(file, checked, grid, subject, MOST_PATTERNS)
    except FmriModelsError as error:
        shown = str(error)
        for each in (file, checked):
            shown = shown if each is None else shown.replace(one_line(each), each.name)
        raise FmriModelsError(shown) from error
