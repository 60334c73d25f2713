"""Betas that a visitor uploads: bounded before they are read, never unpickled; no message says where they lie."""

from pathlib import Path

import numpy as np

from ..errors import FmriModelsError
from ..names import one_line
from ..reading import MEBIBYTE, read_array
from .limits import MOST_PATTERNS, MOST_UPLOAD_BYTES

_MEND = "numpy.save(file, betas) writes one of (voxels,) or (trials, voxels)"


def read_upload(path: str | None) -> np.ndarray:
    """Reads uploaded betas.

    Args:
        path: Where the server has put the file.

    Returns:
        (n, voxels), n from 1 to `MOST_PATTERNS`.

    Raises:
        FmriModelsError: Nothing was uploaded; the file is too large, or no array of numbers of one or two dimensions.
    """
    if not path:
        raise FmriModelsError("No file was uploaded; choose a .npy file of betas.")
    file = Path(path)
    if not file.is_file():
        raise FmriModelsError("The uploaded file is not here any more; upload it again.")
    if (size := file.stat().st_size) > MOST_UPLOAD_BYTES:
        raise FmriModelsError(
            f"The uploaded file has {size / MEBIBYTE:.0f} MiB; expected {MOST_UPLOAD_BYTES // MEBIBYTE} at most: save "
            "fewer trials."
        )
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
