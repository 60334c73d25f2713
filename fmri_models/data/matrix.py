"""One subject's betas as a memory-mapped matrix in the cache: written once, then read some hundred times faster.

Each voxel is stored as float16 after a constant (its mean) is subtracted and the rest is divided by its standard
deviation; raw BOLD of 10,000 ± 20 as float16 would step by 8. A rounded number is off by at most 2^-11 of itself, and
the stored values of a voxel have a mean square of 1, so that the error's root mean square is at most 2^-11 (4.9e-4) of
the voxel's standard deviation: below the tolerance of a thousandth whatever the data are, so no voxel needs float32.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import filelock
import numpy as np
from numpy.lib import format as npy
from tqdm.auto import tqdm

from ..errors import FmriModelsError
from ..saving import PARTIAL_PREFIX, atomic_folder
from .streaming_statistics import StreamingStatistics

VALUES_FILE = "values.npy"
SCALING_FILE = "scaling.npy"
CACHE_VARIABLE = "FMRI_MODELS_CACHE"


class FmriMatrix:
    """A (trials, voxels) matrix of which only the rows asked for are read.

    Attributes:
        shape: (trials, voxels).
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._values = np.load(folder / VALUES_FILE, mmap_mode="r", allow_pickle=False)
        self._constant, self._scale = np.load(folder / SCALING_FILE, allow_pickle=False)
        self.shape: tuple[int, int] = self._values.shape

    @classmethod
    def materialize(
        cls, fingerprint: str, subject: str, shape: tuple[int, int], blocks: Callable[[], Iterable[np.ndarray]]
    ) -> "FmriMatrix":
        """Opens a matrix from the cache, which is written first if it isn't there.

        Several processes may ask at once: one writes, the others wait.

        Args:
            fingerprint: The table's.
            subject: The subject's id.
            shape: (trials, voxels) that the matrix has to have.
            blocks: Called twice; gives (rows, voxels) float32 blocks from the first trial to the last.

        Raises:
            FmriModelsError: The cache can't be written, or the disk is full.
        """
        parent = cache_folder() / "matrices" / fingerprint
        folder = parent / subject
        if not folder.is_dir():
            _make_folder(parent)
            with filelock.FileLock(parent / f"{subject}.lock"):
                if not folder.is_dir():
                    _remove_interrupted(parent, subject)
                    _write(folder, shape, blocks)
        matrix = cls(folder)
        if matrix.shape != shape:
            raise FmriModelsError(
                f"The cached matrix {folder} has the shape {matrix.shape}; expected {shape}: delete it."
            )
        return matrix

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, in the order asked for, as (n, voxels) float32."""
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        # In the order of the file, for cold pages. A row at a time stays in the processor's cache: three times as fast
        # as whole batches.
        for row in np.argsort(rows, kind="stable"):
            values = out[row]
            values[:] = self._values[rows[row]]
            values *= self._scale
            values += self._constant
        return out


def cache_folder() -> Path:
    """The folder for what can be made again: `$FMRI_MODELS_CACHE`, or `~/.cache/fmri_models`."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "fmri_models"


def _make_folder(folder: Path) -> None:
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


def _remove_interrupted(parent: Path, subject: str) -> None:
    """Removes what a killed process left; the lock is held, so nobody is writing it."""
    for partial in parent.glob(f"{PARTIAL_PREFIX}{subject}-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, shape: tuple[int, int], blocks: Callable[[], Iterable[np.ndarray]]) -> None:
    statistics = StreamingStatistics(shape[1])
    progress = tqdm(total=2 * shape[0], desc=f"betas of {folder.name} to the cache", unit=" trials", delay=1)
    for block in blocks():
        statistics.update(block)
        progress.update(len(block))
    if statistics.count != shape[0]:
        raise FmriModelsError(f"The trial table has {statistics.count} rows of betas; expected {shape[0]}.")
    constant = statistics.mean.astype(np.float32)
    scale = np.where(statistics.std > 0, statistics.std, 1).astype(np.float32)
    with atomic_folder(folder) as partial:
        np.save(partial / SCALING_FILE, np.stack([constant, scale]))
        # Written, not memory-mapped: a full disk is an error then, and not a killed process.
        with (partial / VALUES_FILE).open("wb") as out:
            header = {"descr": npy.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(out, header)
            for block in blocks():
                out.write(((block - constant) / scale).astype(np.float16).tobytes())
                progress.update(len(block))
    progress.close()
