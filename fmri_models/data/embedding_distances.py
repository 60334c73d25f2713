"""Cosine distances between unit vectors, a block at a time: of 73,000 pictures no matrix of all pairs is ever made."""

import numpy as np

from ..errors import FmriModelsError

_ROWS, _COLUMNS = 1024, 8192
# Pairs of pictures that are near each other, 24 bytes each.
_MOST_PAIRS = 2**26


def nearest_distances(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) float32: how far the nearest of others is from each.

    Args:
        values: (n, D) float32 of length 1.
        others: (m, D) float32 of length 1, at least one.
    """
    nearest = np.full(len(values), np.inf, dtype=np.float32)
    for start in range(0, len(values), _ROWS):
        for first in range(0, len(others), _COLUMNS):
            found = _distances(values[start : start + _ROWS], others[first : first + _COLUMNS]).min(axis=1)
            chosen = nearest[start : start + _ROWS]
            np.minimum(chosen, found, out=chosen)
    return nearest


def mean_nearest_distances(values: np.ndarray, neighbours: int) -> np.ndarray:
    """(n,) float64: mean distance of each to the nearest of the other ones.

    Args:
        values: (n, D) float32 of length 1.
        neighbours: How many of them count; less than n.
    """
    means = np.empty(len(values))
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS]
        own = np.arange(start, start + len(rows))
        best = np.full((len(rows), neighbours), np.inf, dtype=np.float32)
        for first in range(0, len(values), _COLUMNS):
            found = _distances(rows, values[first : first + _COLUMNS])
            inside = (own >= first) & (own < first + found.shape[1])
            found[np.flatnonzero(inside), own[inside] - first] = np.inf
            both = np.concatenate([best, found], axis=1)
            best = np.partition(both, neighbours - 1, axis=1)[:, :neighbours]
        means[start : start + len(rows)] = best.astype(np.float64).mean(axis=1)
    return means


def near_pairs(values: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs that are nearer than a radius.

    Args:
        values: (n, D) float32 of length 1.
        radius: A distance.

    Returns:
        (pairs,) numbers of one, of the other, which is greater, and their distances.

    Raises:
        FmriModelsError: There are too many of them.
    """
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    count = 0
    for start in range(0, len(values), _ROWS):
        for first in range(start, len(values), _COLUMNS):
            distances = _distances(values[start : start + _ROWS], values[first : first + _COLUMNS])
            rows, columns = np.nonzero(distances < radius)
            kept = columns + first > rows + start
            rows, columns = rows[kept], columns[kept]
            count += len(rows)
            if count > _MOST_PAIRS:
                raise FmriModelsError(
                    f"More than {_MOST_PAIRS} pairs of the {len(values)} pictures are nearer to each other than "
                    f"{radius:.4g}; take a smaller tau."
                )
            found.append(
                ((rows + start).astype(np.int64), (columns + first).astype(np.int64), distances[rows, columns])
            )
    if not found:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, np.zeros(0, dtype=np.float32)
    one, other, apart = (np.concatenate(each) for each in zip(*found, strict=True))
    return one, other, apart


def _distances(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    found = rows @ columns.T
    np.subtract(1, found, out=found)
    # Rounding takes equal vectors below 0.
    return np.maximum(found, 0, out=found)
