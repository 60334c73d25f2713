"""Which trials may be stored as float16: those that lose next to nothing of what differs between trials.

Sessions may be in other units than others (raw BOLD of two scanners), trials may be damaged, and a split may hold some
out. Whether a trial is rounded is decided by medians over trials of its session, which a minority does not move.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

# What rounding may cost, root mean square, as a fraction of a voxel's spread; and what it may cost a single value.
TOLERANCE = 1e-3
_MOST_OF_A_VALUE = 0.1
_TRIALS_AROUND = 128
# Fewer trials tell no spread of their own.
_FEWEST_TRIALS = 20
_VOXELS_AT_ONCE = 8192
# The median of the distances from a median ▶ the standard deviation, of a normal distribution.
_NORMAL = 1.4826


def rounded_trials(
    read: Callable[[int, int], np.ndarray], sessions: Sequence[int], spread: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which of some trials may be float16.

    Args:
        read: Gives the (rows, voxels) float32 betas of trials, by the first and the one behind the last.
        sessions: The session of each trial.
        spread: (voxels,) of other trials of the subject, for trials that are too few to tell one.

    Returns:
        (trials,) bool, and the (voxels,) smallest spread among these trials; None if they are too few.
    """
    rounded = np.zeros(len(sessions), dtype=bool)
    smallest = None
    for rows in _trials_of_a_session(np.asarray(sessions, dtype=np.int64)):
        values = _gather(read, rows)
        own = _spread(values) if len(rows) >= _FEWEST_TRIALS else None
        if own is not None:
            smallest = own if smallest is None else np.minimum(smallest, own)
        scale = own if own is not None else values.std(axis=0) if spread is None else spread
        rounded[rows] = _fit(values, scale)
    return rounded, smallest


def _trials_of_a_session(sessions: np.ndarray) -> Iterator[np.ndarray]:
    for session in np.unique(sessions):
        rows = np.flatnonzero(sessions == session)
        yield from np.array_split(rows, -(-len(rows) // _TRIALS_AROUND))


def _gather(read: Callable[[int, int], np.ndarray], rows: np.ndarray) -> np.ndarray:
    if rows[-1] - rows[0] == len(rows) - 1:
        return read(int(rows[0]), int(rows[-1]) + 1)
    return np.concatenate([read(int(row), int(row) + 1) for row in rows])


def _fit(values: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(rows,) whether rounding costs next to nothing: none of the rows unless it does so of most."""
    fits, rows = True, np.ones(len(values), dtype=bool)
    for start in range(0, values.shape[1], _VOXELS_AT_ONCE):
        block, scale = values[:, start : start + _VOXELS_AT_ONCE], spread[start : start + _VOXELS_AT_ONCE]
        with np.errstate(over="ignore"):
            error = np.abs(block.astype(np.float16).astype(np.float32) - block)
            usual = _median(np.abs(block)).astype(np.float16)
        # The distance of neighbouring numbers says what rounding costs, where it costs anything.
        step = np.where(np.isinf(usual), np.inf, np.spacing(np.where(np.isinf(usual), 0, usual)).astype(np.float32))
        typical = np.minimum(step / np.sqrt(12), error.max(axis=0))
        # Of a voxel that never changes nothing is lost but by an overflow.
        limit = np.where(scale > 0, scale, np.finfo(np.float32).max / 1e3)
        fits &= bool((typical <= TOLERANCE * limit).all())
        rows &= (error <= _MOST_OF_A_VALUE * limit).all(axis=1)
    return rows & fits


def _spread(values: np.ndarray) -> np.ndarray:
    """(voxels,) standard deviation as medians tell it; that of all trials where more than half are the same."""
    spread = np.empty(values.shape[1], dtype=np.float32)
    for start in range(0, values.shape[1], _VOXELS_AT_ONCE):
        block = values[:, start : start + _VOXELS_AT_ONCE]
        told = _NORMAL * _median(np.abs(block - _median(block)))
        spread[start : start + _VOXELS_AT_ONCE] = np.where(told > 0, told, block.std(axis=0, dtype=np.float64))
    return spread


def _median(values: np.ndarray) -> np.ndarray:
    """(voxels,) the upper median of rows, several times faster than NumPy's."""
    middle = len(values) // 2
    return np.partition(np.ascontiguousarray(values.T), middle, axis=1)[:, middle]
