"""One subject's betas as a memory-mapped matrix in the cache: written once, then read many times faster than Parquet.

It holds each beta as the table has it, float16 or float32, and nothing that was computed over trials: one matrix serves
all splits and folds of a table, so that any statistics over its rows would be over trials that one of them holds out.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import filelock
import numpy as np
from numpy.lib import format as npy
from tqdm import tqdm

from ..errors import FmriModelsError
from ..names import file_name
from ..progress import bar
from ..reading import read_array
from ..saving import atomic_folder

VALUES_FILE = "values.npy"
# Beside float16 that former versions had standardised with all trials; such a matrix is written again.
FORMER_SCALING_FILE = "scaling.npy"
CACHE_VARIABLE = "FMRI_MODELS_CACHE"
_GATHER_ROWS = 64


class FmriMatrix:
    """A (trials, voxels) matrix of which only the rows asked for are read.

    Attributes:
        shape: (trials, voxels).
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mend = f"delete the folder {folder}"
        self._values = read_array(folder / VALUES_FILE, "cached matrix", mend, memory_map=True)
        self.shape: tuple[int, ...] = self._values.shape

    @classmethod
    def materialize(
        cls,
        fingerprint: str,
        subject: str,
        shape: tuple[int, int],
        blocks: Callable[[], Iterable[np.ndarray]],
        dtype: np.dtype | type = np.float32,
    ) -> "FmriMatrix":
        """Opens a matrix from the cache, which is written first if it isn't there.

        Several processes may ask at once: one writes, the others wait.

        Args:
            fingerprint: The table's.
            subject: The subject's id.
            shape: (trials, voxels) that the matrix has to have.
            blocks: Gives (rows, voxels) blocks from the first trial to the last.
            dtype: float32, or float16 where all blocks are float16.

        Raises:
            FmriModelsError: The cache can't be written, or the disk is full.
        """
        parent = cache_folder() / "matrices" / fingerprint
        folder = parent / file_name(subject, "", "subject")
        if not _is_complete(folder):
            make_cache_folder(parent)
            with filelock.FileLock(parent / file_name(subject, ".lock", "subject")):
                if not _is_complete(folder):
                    _check_room(parent, shape, np.dtype(dtype))
                    _write(folder, shape, blocks, np.dtype(dtype))
        matrix = cls(folder)
        if matrix.shape != shape or matrix._values.dtype != dtype:
            raise FmriModelsError(
                f"The cached matrix {folder} has the shape {matrix.shape} of {matrix._values.dtype}; expected {shape} "
                f"of {np.dtype(dtype)}: delete it."
            )
        return matrix

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, in the order asked for, as (n, voxels) float32."""
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        if self._values.dtype == np.float32:
            self._read(rows, out)
            return out
        # NumPy converts float16 at half the speed.
        import torch

        halves = np.empty((min(len(rows), _GATHER_ROWS), self.shape[1]), dtype=np.float16)
        for start in range(0, len(rows), _GATHER_ROWS):
            chosen = rows[start : start + _GATHER_ROWS]
            part = halves[: len(chosen)]
            self._read(chosen, part)
            torch.from_numpy(out[start : start + _GATHER_ROWS]).copy_(torch.from_numpy(part))
        return out

    def _read(self, rows: np.ndarray, out: np.ndarray) -> None:
        # In the order of the file, for pages that are not in memory yet.
        for position in np.argsort(rows, kind="stable"):
            out[position] = self._values[rows[position]]


def _is_complete(folder: Path) -> bool:
    return folder.is_dir() and not (folder / FORMER_SCALING_FILE).exists()


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


def _check_room(folder: Path, shape: tuple[int, int], dtype: np.dtype) -> None:
    """Refuses a matrix for which there is no room, before hours are spent on it."""
    needed, free = dtype.itemsize * shape[0] * shape[1], shutil.disk_usage(folder).free
    if needed > free:
        raise FmriModelsError(
            f"The disk is full: the betas need {needed / 2**20:.0f} MiB in the cache {folder}, {free / 2**20:.0f} MiB "
            f"are free; make room, or set the environment variable {CACHE_VARIABLE} to a folder elsewhere."
        )


def _write(folder: Path, shape: tuple[int, int], blocks: Callable[[], Iterable[np.ndarray]], dtype: np.dtype) -> None:
    progress = bar(name=f"Writing betas of {folder.name} to the cache", total=shape[0], unit="trial", delay=1)
    # Overwritten is what a former version has left, under the lock.
    with progress, atomic_folder(folder, overwrite=True) as partial:
        written = _write_values(partial / VALUES_FILE, shape, blocks(), dtype, progress)
        if written != shape[0]:
            raise FmriModelsError(f"The trial table has {written} rows of betas; expected {shape[0]}.")


def _write_values(
    path: Path, shape: tuple[int, int], blocks: Iterable[np.ndarray], dtype: np.dtype, progress: tqdm
) -> int:
    written = 0
    # Written, not memory-mapped: a full disk is an error then, and not a killed process.
    with path.open("wb") as out:
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(out, header)
        for block in blocks:
            out.write(block.astype(dtype, copy=False).tobytes())
            written += len(block)
            progress.update(len(block))
    return written
