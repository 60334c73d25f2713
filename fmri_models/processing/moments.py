"""Mean and variance of each voxel over a stream of chunks, as processors are fitted with them."""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Number of patterns, and mean and sum of squared differences from it of each voxel, in float64.

    Moments of chunks are merged (Chan et al., 1983), so that betas are read once and the digits of large means are not
    lost. Of scikit-learn's and SciPy's, none merges what was computed apart.

    Args:
        count: Patterns.
        mean: (voxels,) mean.
        squares: (voxels,) sum of squared differences from the mean.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, chunk: np.ndarray) -> Self:
        """Those of (patterns, voxels), which are at least one."""
        chunk = chunk.astype(np.float64, copy=False)
        mean = chunk.mean(axis=0)
        return cls(len(chunk), mean, ((chunk - mean) ** 2).sum(axis=0))

    def merged(self, other: "Moments") -> "Moments":
        """Those of the patterns of both."""
        count = self.count + other.count
        difference = other.mean - self.mean
        squares = self.squares + other.squares + difference**2 * self.count * other.count / count
        return Moments(count, self.mean + difference * other.count / count, squares)

    @property
    def std(self) -> np.ndarray:
        """(voxels,) standard deviation of the population; 0 below float32's resolution of the mean: rounding."""
        return self.std_with(0)

    def std_with(self, ddof: int) -> np.ndarray:
        """(voxels,) standard deviation over the number of patterns less `ddof`: with 1, a sample's."""
        std = np.sqrt(self.squares / max(self.count - ddof, 1))
        return np.where(std > 1e-7 * np.abs(self.mean), std, 0)
