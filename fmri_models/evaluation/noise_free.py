"""Responses without noise, which a simulated table may have, as trials."""

from dataclasses import dataclass

import numpy as np

from ..data.processed import BetasOfTrials
from ..data.table import TrialTable
from ..data.table_trials import Trials


@dataclass
class _NoiseFreeTrials:
    """Test trials whose betas are the simulator's responses without noise."""

    subject: str
    stimulus_ids: np.ndarray
    sessions: np.ndarray
    runs: np.ndarray
    responses: np.ndarray

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def fmri(self, positions: np.ndarray) -> np.ndarray:
        return self.responses[positions]


def noise_free_trials(table: TrialTable, test: Trials) -> BetasOfTrials | None:
    """The trials with responses without noise in the place of their betas; None where the table has them not of all.

    Args:
        table: The trial table.
        test: Trials of one subject.
    """
    found = table.noise_free(test.subject)
    if found is None:
        return None
    ids, responses = found
    position_of = {stimulus: position for position, stimulus in enumerate(ids)}
    if any(stimulus not in position_of for stimulus in test.stimulus_ids):
        return None
    positions = [position_of[stimulus] for stimulus in test.stimulus_ids]
    return _NoiseFreeTrials(test.subject, test.stimulus_ids, test.sessions, test.runs, responses[positions])
