"""Statistics of each voxel over a stream of chunks, as noise ceilings take them.

Not `processing.moments`, which rounds in another way: a table that is prepared again would get other last bits in its
noise ceilings, and so another fingerprint.
"""

import numpy as np


class StreamingStatistics:
    """Mean and standard deviation per voxel over chunks of (trials, voxels) float32.

    Sums run over differences from the first trial: raw BOLD of 10,000 ± 20 would cancel otherwise.
    """

    def __init__(self, num_voxels: int) -> None:
        self.count = 0
        self._shift: np.ndarray | None = None
        self._sum = np.zeros(num_voxels)
        self._sum_of_squares = np.zeros(num_voxels)

    def update(self, chunk: np.ndarray) -> None:
        """Adds a chunk of (trials, voxels) finite float32 values."""
        if not len(chunk):
            return
        if self._shift is None:
            self._shift = chunk[0].copy()
        difference = chunk - self._shift
        self._sum += difference.sum(axis=0, dtype=np.float64)
        self._sum_of_squares += _sum_of_squares(difference)
        self.count += len(chunk)

    @property
    def mean(self) -> np.ndarray:
        """(voxels,) float64; exact for a voxel without variance."""
        shift = np.zeros_like(self._sum) if self._shift is None else self._shift
        return shift + self._sum / max(self.count, 1)

    @property
    def std(self) -> np.ndarray:
        """(voxels,) float64, the population's; exactly 0 for a voxel without variance."""
        count = max(self.count, 1)
        return np.sqrt(np.maximum(self._sum_of_squares / count - (self._sum / count) ** 2, 0))


def _sum_of_squares(chunk: np.ndarray) -> np.ndarray:
    return np.einsum("rv,rv->v", chunk, chunk, dtype=np.float64)
