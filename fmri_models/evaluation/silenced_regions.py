"""Responses of which one region is silenced or louder than it was."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.processed import BetasOfTrials
from ..processing.subject_statistics import SubjectStatistics
from ..processing_fmri import FmriProcessor


@dataclass
class SilencedTrials:
    """Trials in which some voxels answer as they did on average in training.

    Args:
        trials: As they were recorded.
        statistics: The processor's, of the subject.
        voxels: (recorded voxels,) bool, which are silenced.
        processor: Knows whose statistics a trial has.
    """

    trials: BetasOfTrials
    statistics: SubjectStatistics
    voxels: np.ndarray
    processor: FmriProcessor

    def __post_init__(self) -> None:
        self.subject = self.trials.subject
        self.stimulus_ids = self.trials.stimulus_ids
        self.sessions, self.runs = self.trials.sessions, self.trials.runs
        self._groups = self.processor.groups(self.sessions, self.runs)

    def __len__(self) -> int:
        return len(self.trials)

    def fmri(self, positions: np.ndarray) -> np.ndarray:
        """(n, voxels) betas of some trials."""
        sessions = self._groups[positions].tolist()
        return scaled_region(self.statistics, self.trials.fmri(positions), sessions, self.voxels, 0.0)


def voxels_read(statistics: SubjectStatistics, recorded: int) -> np.ndarray:
    """(recorded,) bool, which voxels of a pattern a processor reads.

    Args:
        statistics: The processor's, of the subject.
        recorded: Voxels of the table's patterns: all that were recorded, or those kept in preparation.
    """
    columns, read = statistics.source_columns, statistics.selected
    # A table of all recorded voxels, of which some were dropped in preparation.
    if columns is not None and recorded != statistics.num_voxels:
        read = columns[read]
    return np.isin(np.arange(recorded), read)


def scaled_region(
    statistics: SubjectStatistics, betas: np.ndarray, sessions: Sequence[int], voxels: np.ndarray, gain: float
) -> np.ndarray:
    """Betas of which some voxels' differences from the mean response of training are scaled.

    Args:
        statistics: The processor's, of the subject.
        betas: (n, voxels).
        sessions: Session of each.
        voxels: (voxels,) which are scaled; those that the processor drops stay as they are.
        gain: 0 leaves the mean of training, which says nothing of what was shown.

    Returns:
        (n, voxels) float32.
    """
    betas = np.asarray(betas, dtype=np.float32)
    # Of all voxels that were recorded, or of those alone that were kept in preparation.
    changed = statistics.kept(betas).copy()
    here = statistics.kept(voxels)[statistics.selected]
    columns = statistics.selected[here]
    means = np.stack([_mean(statistics, session) for session in sessions])[:, here]
    changed[:, columns] = means + gain * (changed[:, columns] - means)
    return changed


def _mean(statistics: SubjectStatistics, session: int) -> np.ndarray:
    """(S,) mean response of training trials to the voxels that are kept, in a session where there is one for each."""
    if not statistics.sessions:
        return statistics.mean[0]
    if session in statistics.sessions:
        return statistics.mean[statistics.sessions.index(session)]
    return statistics.pooled_statistics()[0]


def reference_response(processor: FmriProcessor) -> str:
    """What a processor knows of the response from which a region's differ, in words."""
    if processor.statistics == "identity":
        return "zero (the processor keeps no mean response: its statistics are identity)"
    if processor.statistics == "scalar":
        return "the mean of all voxels in training (the processor keeps none of each: its statistics are scalar)"
    return "the mean response of training"
