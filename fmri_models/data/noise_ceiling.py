"""Noise ceilings: from a signal-to-noise ratio, and from repetitions in the training data."""

from collections.abc import Callable, Sequence

import numpy as np

from ..processing.subject_statistics import stimuli_in_effect
from .streaming_statistics import StreamingStatistics

_TRIALS_A_CHUNK = 256
# A session with fewer trials has no standard deviation worth dividing by.
_FEWEST_TRIALS_OF_SESSION = 20
# The mean of fewer stimuli takes away more than a tenth of what differs between them.
_FEWEST_STIMULI_OF_SESSION = 10


def noise_ceiling_from_ncsnr(ncsnr: np.ndarray, repetitions: int) -> np.ndarray:
    """Share of the variance that a perfect model could explain in the mean of n repetitions (Allen et al. 2022)."""
    squared = np.square(np.asarray(ncsnr, dtype=np.float64))
    return squared / (squared + 1.0 / repetitions)


def usual_repetitions(stimulus_ids: np.ndarray) -> int:
    """How often a test stimulus is shown: the ceiling is that of the mean which is evaluated."""
    return int(np.median(np.unique(stimulus_ids, return_counts=True)[1])) if len(stimulus_ids) else 1


def estimate_ncsnr(
    read: Callable[[np.ndarray], np.ndarray],
    stimulus_ids: Sequence[str] | np.ndarray,
    sessions: Sequence[int] | np.ndarray,
    num_voxels: int,
) -> np.ndarray | None:
    """Estimates each voxel's noise-ceiling signal-to-noise ratio from repeated stimuli, as NSD does.

    Responses are standardised per session, so that their variance is 1; the noise's variance is what repetitions of the
    same stimulus differ by, and the signal's is the rest (Allen et al. 2022). Where a session has fewer than 20 trials,
    or in effect fewer than 10 stimuli, all sessions are standardised together, and what differs between sessions counts
    as noise.

    Args:
        read: Gives the (trials, voxels) float32 responses of some of the trials, by their positions.
        stimulus_ids: (n,) what each trial showed; training trials only.
        sessions: (n,) session of each trial.
        num_voxels: How many voxels there are.

    Returns:
        (voxels,) float32, or None if no stimulus was shown twice.
    """
    stimuli = np.asarray(stimulus_ids)
    _, which, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    order = order[counts[which[order]] > 1]
    if not len(order):
        return None
    standardize = _standardization(read, stimuli, np.asarray(sessions), num_voxels)
    within = np.zeros(num_voxels)
    for trials in _whole_stimuli(order, which):
        values = standardize(trials, read(trials)).astype(np.float64)
        starts = np.flatnonzero(np.diff(which[trials], prepend=-1))
        sums = np.add.reduceat(values, starts, axis=0)
        sizes = np.diff(np.append(starts, len(trials)))[:, None]
        within += np.einsum("rv,rv->v", values, values) - (sums**2 / sizes).sum(axis=0)
    noise = within / (len(order) - np.sum(counts > 1))
    noise = np.clip(noise, np.finfo(np.float32).tiny, None)
    return np.sqrt(np.clip(1 - noise, 0, None) / noise).astype(np.float32)


def _standardization(
    read: Callable[[np.ndarray], np.ndarray], stimuli: np.ndarray, sessions: np.ndarray, num_voxels: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    has_few_trials = np.unique(sessions, return_counts=True)[1].min() < _FEWEST_TRIALS_OF_SESSION
    if has_few_trials or min(stimuli_in_effect(stimuli, sessions).values()) < _FEWEST_STIMULI_OF_SESSION:
        sessions = np.zeros_like(sessions)
    scaling = {}
    for session in np.unique(sessions):
        statistics = StreamingStatistics(num_voxels)
        trials = np.flatnonzero(sessions == session)
        for start in range(0, len(trials), _TRIALS_A_CHUNK):
            statistics.update(read(trials[start : start + _TRIALS_A_CHUNK]))
        scaling[session] = (statistics.mean, np.where(statistics.std > 0, statistics.std, 1))

    def standardize(trials: np.ndarray, values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        for session in np.unique(sessions[trials]):
            mean, std = scaling[session]
            chosen = sessions[trials] == session
            out[chosen] = (values[chosen] - mean) / std
        return out

    return standardize


def _whole_stimuli(order: np.ndarray, which: np.ndarray) -> list[np.ndarray]:
    """Chunks of trials, cut only between stimuli."""
    starts = np.flatnonzero(np.diff(which[order], prepend=-1))
    cuts = [0]
    for start in starts:
        if start - cuts[-1] >= _TRIALS_A_CHUNK:
            cuts.append(int(start))
    return np.split(order, cuts[1:])
