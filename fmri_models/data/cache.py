"""The folder for what can be made again, and how large arrays are written into it."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from tqdm import tqdm

from ..errors import FmriModelsError

CACHE_VARIABLE = "FMRI_MODELS_CACHE"


def cache_folder() -> Path:
    """The folder for what can be made again: `$FMRI_MODELS_CACHE`, or `~/.cache/fmri_models`."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "fmri_models"


def make_cache_folder(folder: Path) -> None:
    """Makes a folder of the cache.

    Raises:
        FmriModelsError: It can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise FmriModelsError(_cache_refusal(folder, error.strerror or str(error))) from error
    if not writable:
        raise FmriModelsError(_cache_refusal(folder, "no permission to write"))


def _cache_refusal(folder: Path, reason: str) -> str:
    return (
        f"The cache folder {folder} can't be written ({reason}); set the environment variable {CACHE_VARIABLE} to a "
        "folder that can be."
    )


def write_array(path: Path, shape: tuple[int, ...], dtype: np.dtype, chunks: Iterable[np.ndarray]) -> int:
    """Writes a `.npy` file chunk by chunk.

    Written, not memory-mapped: a full disk is an error then, and not a killed process.

    Args:
        path: The file.
        shape: Of the whole array.
        dtype: Of the file; chunks may have another.
        chunks: Follow each other along the first dimension.

    Returns:
        How long the chunks are together.
    """
    written = 0
    with path.open("wb") as out:
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(out, header)
        for chunk in chunks:
            out.write(chunk.astype(dtype, copy=False).tobytes())
            written += len(chunk)
    return written


def counted(chunks: Iterable[np.ndarray], progress: tqdm) -> Iterator[np.ndarray]:
    """The same chunks, counted by a bar as they have been taken."""
    for chunk in chunks:
        yield chunk
        progress.update(len(chunk))
