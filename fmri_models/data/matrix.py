"""One subject's betas as a memory-mapped matrix in the cache: written once, then read many times faster than Parquet.

It holds float16. A table that was written as float16 is copied as it is. One that needs float32 (raw BOLD of 10,000
± 20 as float16 would step by 8) has each voxel's mean subtracted and is divided by its standard deviation first. A
rounded number is off by at most 2^-11 of itself, and such values have a mean square of 1, so that the error's root mean
square is at most 2^-11 (4.9e-4) of the voxel's standard deviation: below the tolerance of a thousandth whatever the
data are, so no voxel needs float32 here.
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
from ..names import file_name
from ..reading import read_array
from ..saving import atomic_folder
from .streaming_statistics import StreamingStatistics

VALUES_FILE = "values.npy"
SCALING_FILE = "scaling.npy"
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
        scaled = (folder / SCALING_FILE).exists()
        self._scaling = read_array(folder / SCALING_FILE, "cached matrix", mend) if scaled else None
        self.shape: tuple[int, ...] = self._values.shape

    @classmethod
    def materialize(
        cls,
        fingerprint: str,
        subject: str,
        shape: tuple[int, int],
        blocks: Callable[[], Iterable[np.ndarray]],
        scale: bool = True,
    ) -> "FmriMatrix":
        """Opens a matrix from the cache, which is written first if it isn't there.

        Several processes may ask at once: one writes, the others wait.

        Args:
            fingerprint: The table's.
            subject: The subject's id.
            shape: (trials, voxels) that the matrix has to have.
            blocks: Gives (rows, voxels) blocks from the first trial to the last; called twice with `scale`.
            scale: Subtract each voxel's mean and divide by its standard deviation; needless for float16 blocks.

        Raises:
            FmriModelsError: The cache can't be written, or the disk is full.
        """
        parent = cache_folder() / "matrices" / fingerprint
        folder = parent / file_name(subject, "", "subject")
        if not folder.is_dir():
            make_cache_folder(parent)
            with filelock.FileLock(parent / file_name(subject, ".lock", "subject")):
                if not folder.is_dir():
                    _check_room(parent, shape)
                    _write(folder, shape, blocks, scale)
        matrix = cls(folder)
        if matrix.shape != shape or (matrix._scaling is not None and matrix._scaling.shape != (2, shape[1])):
            raise FmriModelsError(
                f"The cached matrix {folder} has the shape {matrix.shape}; expected {shape}: delete it."
            )
        return matrix

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, in the order asked for, as (n, voxels) float32."""
        # NumPy converts float16 at half the speed.
        import torch

        out = torch.empty((len(rows), self.shape[1]))
        scaling = None if self._scaling is None else torch.from_numpy(self._scaling)
        for start in range(0, len(rows), _GATHER_ROWS):
            part = out[start : start + _GATHER_ROWS]
            part.copy_(torch.from_numpy(self._gather_halves(rows[start : start + _GATHER_ROWS])))
            if scaling is not None:
                torch.addcmul(scaling[0], part, scaling[1], out=part)
        return out.numpy()

    def _gather_halves(self, rows: np.ndarray) -> np.ndarray:
        values = np.empty((len(rows), self.shape[1]), dtype=np.float16)
        # In the order of the file, for pages that are not in memory yet.
        for position in np.argsort(rows, kind="stable"):
            values[position] = self._values[rows[position]]
        return values


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


def _check_room(folder: Path, shape: tuple[int, int]) -> None:
    """Refuses a matrix for which there is no room, before hours are spent on it."""
    needed, free = 2 * shape[0] * shape[1], shutil.disk_usage(folder).free
    if needed > free:
        raise FmriModelsError(
            f"The disk is full: the betas need {needed / 2**20:.0f} MiB in the cache {folder}, {free / 2**20:.0f} MiB "
            f"are free; make room, or set the environment variable {CACHE_VARIABLE} to a folder elsewhere."
        )


def _write(folder: Path, shape: tuple[int, int], blocks: Callable[[], Iterable[np.ndarray]], scale: bool) -> None:
    description = f"betas of {folder.name} to the cache"
    with tqdm(total=(1 + scale) * shape[0], desc=description, unit=" trials", delay=1) as progress:
        scaling = _scaling(blocks(), shape[1], progress) if scale else None
        with atomic_folder(folder) as partial:
            if scaling is not None:
                np.save(partial / SCALING_FILE, scaling)
            written = _write_values(partial / VALUES_FILE, shape, blocks(), scaling, progress)
            if written != shape[0]:
                raise FmriModelsError(f"The trial table has {written} rows of betas; expected {shape[0]}.")


def _scaling(blocks: Iterable[np.ndarray], num_voxels: int, progress: tqdm) -> np.ndarray:
    """(2, voxels) float32: what is subtracted, and what the rest is divided by."""
    statistics = StreamingStatistics(num_voxels)
    for block in blocks:
        statistics.update(block)
        progress.update(len(block))
    return np.stack([statistics.mean, np.where(statistics.std > 0, statistics.std, 1)]).astype(np.float32)


def _write_values(
    path: Path, shape: tuple[int, int], blocks: Iterable[np.ndarray], scaling: np.ndarray | None, progress: tqdm
) -> int:
    written = 0
    # Written, not memory-mapped: a full disk is an error then, and not a killed process.
    with path.open("wb") as out:
        header = {"descr": npy.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(out, header)
        for block in blocks:
            values = block if scaling is None else (block - scaling[0]) / scaling[1]
            out.write(values.astype(np.float16, copy=False).tobytes())
            written += len(block)
            progress.update(len(block))
    return written
