"""One subject's betas as a memory-mapped matrix in the cache: written once, then read many times faster than Parquet.

It holds each beta as the table has it, float16 or float32, and nothing that was computed over trials: one matrix serves
all splits and folds of a table, so that any statistics over its trials would be over trials that one of them holds out.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import filelock
import numpy as np

from ..errors import FmriModelsError
from ..names import file_name
from ..progress import bar
from ..reading import read_array
from ..saving import atomic_folder
from .cache import CACHE_VARIABLE, cache_folder, counted, make_cache_folder, write_array
from .mapped_rows import MappedRows

VALUES_FILE = "values.npy"
# Beside float16 that former versions had standardised with all trials; such a matrix is written again.
FORMER_SCALING_FILE = "scaling.npy"
_TRIALS_A_CHUNK = 64


class FmriMatrix:
    """A (trials, voxels) matrix of which only the trials asked for are read.

    Attributes:
        shape: (trials, voxels).
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mend = f"delete the folder {folder}"
        self._values = read_array(folder / VALUES_FILE, "cached matrix", mend, memory_map=True)
        self._rows = MappedRows(self._values)
        self.shape: tuple[int, ...] = self._values.shape

    @classmethod
    def materialize(
        cls,
        fingerprint: str,
        subject: str,
        shape: tuple[int, int],
        chunks: Callable[[], Iterable[np.ndarray]],
        dtype: np.dtype | type = np.float32,
    ) -> "FmriMatrix":
        """Opens a matrix from the cache, which is written first if it isn't there.

        Several processes may ask at once: one writes, the others wait.

        Args:
            fingerprint: The table's.
            subject: The subject's id.
            shape: (trials, voxels) that the matrix has to have.
            chunks: Gives (trials, voxels) chunks from the first trial to the last.
            dtype: float32, or float16 where all chunks are float16.

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
                    _write(folder, shape, chunks, np.dtype(dtype))
        matrix = cls(folder)
        if matrix.shape != shape or matrix._values.dtype != dtype:
            raise FmriModelsError(
                f"The cached matrix {folder} has the shape {matrix.shape} of {matrix._values.dtype}; expected {shape} "
                f"of {np.dtype(dtype)}: delete it."
            )
        return matrix

    def gather(self, trials: np.ndarray) -> np.ndarray:
        """Betas of some trials, by their positions and in the order asked for, as (n, voxels) float32."""
        out = np.empty((len(trials), self.shape[1]), dtype=np.float32)
        if self._values.dtype == np.float32:
            self._read(trials, out)
            return out
        # NumPy converts float16 at half the speed.
        import torch

        halves = np.empty((min(len(trials), _TRIALS_A_CHUNK), self.shape[1]), dtype=np.float16)
        for start in range(0, len(trials), _TRIALS_A_CHUNK):
            chosen = trials[start : start + _TRIALS_A_CHUNK]
            chunk = halves[: len(chosen)]
            self._read(chosen, chunk)
            torch.from_numpy(out[start : start + _TRIALS_A_CHUNK]).copy_(torch.from_numpy(chunk))
        return out

    def _read(self, trials: np.ndarray, out: np.ndarray) -> None:
        # In the order of the file, for pages that are not in memory yet.
        for position in np.argsort(trials, kind="stable"):
            out[position] = self._values[trials[position]]
            self._rows.count(self._values.itemsize * out.shape[1])


def _is_complete(folder: Path) -> bool:
    return folder.is_dir() and not (folder / FORMER_SCALING_FILE).exists()


def _check_room(folder: Path, shape: tuple[int, int], dtype: np.dtype) -> None:
    """Refuses a matrix for which there is no room, before hours are spent on it."""
    needed, free = dtype.itemsize * shape[0] * shape[1], shutil.disk_usage(folder).free
    if needed > free:
        raise FmriModelsError(
            f"The disk is full: the betas need {needed / 2**20:.0f} MiB in the cache {folder}, {free / 2**20:.0f} MiB "
            f"are free; make room, or set the environment variable {CACHE_VARIABLE} to a folder elsewhere."
        )


def _write(folder: Path, shape: tuple[int, int], chunks: Callable[[], Iterable[np.ndarray]], dtype: np.dtype) -> None:
    progress = bar(name=f"Writing betas of {folder.name} to the cache", total=shape[0], unit="trial", delay=1)
    # Overwritten is what a former version has left, under the lock.
    with progress, atomic_folder(folder, overwrite=True) as partial:
        written = write_array(partial / VALUES_FILE, shape, dtype, counted(chunks(), progress))
        if written != shape[0]:
            raise FmriModelsError(f"The trial table has {written} rows of betas; expected {shape[0]}.")
