"""Rows of memory-mapped arrays, of which only so much stays in the process's memory as was read of late."""

import mmap
from collections.abc import Iterator

import numpy as np

# What is read until the pages are given back. The system maps what lies around it as well, up to 2 MiB for each row, so
# that many times as much is in memory then.
_BYTES_KEPT = 4 * 2**20


class MappedRows:
    """Reads rows of an array that may be a memory map.

    Every page that was read of a memory map counts as the process's memory, until it has all of the file. Here they are
    given back after each 4 MiB that were read; they stay in the system's cache of files.

    Args:
        values: (rows, …) array.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self._read = 0

    def take(self, positions: np.ndarray) -> np.ndarray:
        """(positions, …) copies of some rows, in the order asked for."""
        out = np.empty((len(positions), *self.values.shape[1:]), dtype=self.values.dtype)
        for place, row in self._in_order_of_file(positions):
            out[place] = row
        return out

    def fractions(self, positions: np.ndarray, whole: float) -> np.ndarray:
        """(positions, …) float32 of some rows, divided by a number.

        Each row is converted while the processor has it at hand, and into an array of NumPy, which takes its memory in
        large pages: for pictures this takes a fifth of the time of `torch.from_numpy(take(positions)).float() / 255`.
        """
        out = np.empty((len(positions), *self.values.shape[1:]), dtype=np.float32)
        for place, row in self._in_order_of_file(positions):
            out[place] = row
            out[place] /= np.float32(whole)
        return out

    def _in_order_of_file(self, positions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        # Views of a memory map take their time as such.
        rows = self.values.view(np.ndarray)
        for place in np.argsort(positions, kind="stable").tolist():
            row = rows[positions[place]]
            yield place, row
            self.count(row.nbytes)

    def count(self, size: int) -> None:
        """Says that so many bytes were read, and gives the pages back where these are enough."""
        self._read += size
        if self._read >= _BYTES_KEPT:
            self._read = 0
            _give_back(self.values)


def _give_back(values: np.ndarray) -> None:
    owner: object = values
    while isinstance(owner, np.ndarray):
        # What was changed in memory alone would be lost.
        if isinstance(owner, np.memmap) and owner.mode != "r":
            return
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
