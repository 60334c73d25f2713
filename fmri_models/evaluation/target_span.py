"""The directions in which training targets vary, and how much of other vectors lies outside of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MOST_DIMENSIONS = 2048
"""Wider targets are looked at through the scalar products of as many training stimuli at most."""
MOST_STIMULI = 2048
_ROWS, _COLUMNS = 512, 2048
_SMALLEST_VARIANCE = 1e-10


@dataclass(frozen=True)
class Targets:
    """Rows of a matrix that may be larger than memory.

    Args:
        values: (all, F) array or memory map.
        positions: (M,) of the rows.
    """

    values: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def at(self, chosen: np.ndarray) -> "Targets":
        """Some of the rows."""
        return Targets(self.values, self.positions[chosen])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """(n, F) float64."""
        return np.asarray(self.values[self.positions[start:stop]], dtype=np.float64)

    def columns(self, start: int, stop: int) -> np.ndarray:
        """(M, n) float64."""
        return np.asarray(self.values[self.positions, start:stop], dtype=np.float64)

    def read(self) -> np.ndarray:
        """(M, F) as they are stored."""
        return np.asarray(self.values[self.positions])


class Projected(NamedTuple):
    """Vectors in the principal directions of the training targets.

    Attributes:
        squares: (n, r) squared coordinates, the direction of most variance first.
        energy: (n,) squared distance from the mean of the training targets.
    """

    squares: np.ndarray
    energy: np.ndarray

    def outside(self, dimensions: int) -> np.ndarray:
        """(n,) squared distance from the space of the first so many directions; rounding is none."""
        rest = self.energy - self.squares[:, :dimensions].sum(axis=1)
        return np.where(rest > 1e-9 * self.energy, rest, 0.0)


@dataclass(frozen=True)
class TargetSpan:
    """The space of training targets, seen from their mean.

    Args:
        variances: (r,) of its principal directions, in falling order; those of rounding are left out.
        width: Values of a target.
        stimuli: How many training targets span it.
        vectors: Of each set that was projected.
    """

    variances: np.ndarray
    width: int
    stimuli: int
    vectors: list[Projected]

    @property
    def dimensions(self) -> int:
        return len(self.variances)

    def dimensions_of(self, share: float) -> int:
        """How many directions hold so much of the training targets' variance."""
        held = np.cumsum(self.variances) / self.variances.sum()
        return min(self.dimensions, int(np.searchsorted(held, share - 1e-12)) + 1)

    @property
    def expected_outside(self) -> float:
        """Share of the variance of a vector outside the space that has no preferred direction."""
        return 1 - self.dimensions / self.width


def span_of(training: Targets, vectors: Sequence[Targets]) -> TargetSpan | None:
    """Projects vectors on the principal directions of training targets.

    Of up to [`MOST_DIMENSIONS`] values all training targets are taken, through their covariance; of wider targets
    through their scalar products, for which there may be no more than [`MOST_STIMULI`]. Either way rows or columns
    become float64 in blocks.

    Args:
        training: Those that span the space.
        vectors: Those that are projected.

    Returns:
        None where the training targets do not vary.
    """
    if training.width <= MOST_DIMENSIONS:
        return _by_covariance(training, vectors)
    return _by_products(training, vectors)


def _kept(values: np.ndarray, dtype: np.dtype, most: int) -> np.ndarray:
    """Positions of eigenvalues that are no rounding, the largest first."""
    largest = float(values.max(initial=0.0))
    smallest = largest * max(_SMALLEST_VARIANCE, float(np.finfo(dtype).eps) ** 2)
    return np.flatnonzero((values > smallest) & (values > 1e-24))[::-1][: max(0, most)]


def _by_covariance(training: Targets, vectors: Sequence[Targets]) -> TargetSpan | None:
    width, count = training.width, len(training)
    mean = np.zeros(width)
    for start in range(0, count, _ROWS):
        mean += training.rows(start, start + _ROWS).sum(axis=0) / count
    covariance = np.zeros((width, width))
    for start in range(0, count, _ROWS):
        block = training.rows(start, start + _ROWS) - mean
        covariance += block.T @ block
    values, basis = np.linalg.eigh(covariance)
    chosen = _kept(values, training.values.dtype, count - 1)
    if not len(chosen):
        return None
    projected = []
    for each in vectors:
        centred = each.rows(0, len(each)) - mean
        projected.append(Projected((centred @ basis[:, chosen]) ** 2, (centred**2).sum(axis=1)))
    return TargetSpan(values[chosen], width, count, projected)


def _by_products(training: Targets, vectors: Sequence[Targets]) -> TargetSpan | None:
    count = len(training)
    own, crossed = np.zeros((count, count)), [np.zeros((len(each), count)) for each in vectors]
    energies = [np.zeros(len(each)) for each in vectors]
    for start in range(0, training.width, _COLUMNS):
        block = training.columns(start, start + _COLUMNS)
        mean = block.mean(axis=0)
        block -= mean
        own += block @ block.T
        for each, cross, energy in zip(vectors, crossed, energies, strict=True):
            centred = each.columns(start, start + _COLUMNS) - mean
            cross += centred @ block.T
            energy += (centred**2).sum(axis=1)
    values, basis = np.linalg.eigh(own)
    chosen = _kept(values, training.values.dtype, count - 1)
    if not len(chosen):
        return None
    scaled = basis[:, chosen] / np.sqrt(values[chosen])
    projected = [Projected((cross @ scaled) ** 2, energy) for cross, energy in zip(crossed, energies, strict=True)]
    return TargetSpan(values[chosen], training.width, count, projected)
