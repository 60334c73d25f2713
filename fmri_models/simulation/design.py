"""Who sees what when: sessions, runs, repetitions."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from . import constants


@dataclass(frozen=True)
class Design:
    """The trials of one subject in the order in which they were shown.

    Args:
        stimulus: (T,) int, index of the stimulus.
        session: (T,) int32 from 1.
        run: (T,) int32 from 1 within the session.
        repetition: (T,) int32 from 0, counted over sessions.
        num_sessions: S.
    """

    stimulus: np.ndarray
    session: np.ndarray
    run: np.ndarray
    repetition: np.ndarray
    num_sessions: int

    def __len__(self) -> int:
        return len(self.stimulus)

    @property
    def starts_run(self) -> np.ndarray:
        """(T,) bool, whether nothing was shown before it in the run."""
        changes = (np.diff(self.session) != 0) | (np.diff(self.run) != 0)
        return np.concatenate([np.ones(min(len(self), 1), bool), changes])

    def runs(self) -> list[slice]:
        """The trials of each run."""
        edges = [*np.flatnonzero(self.starts_run).tolist(), len(self)]
        return [slice(start, stop) for start, stop in pairwise(edges)]


def plan_design(groups: np.ndarray, repetitions: int, rng: np.random.Generator) -> Design:
    """Spreads the repetitions of each stimulus over different sessions, evenly within each group of stimuli.

    Args:
        groups: (N,) group of each stimulus, such as "train" and "test"; each is spread over all sessions.
        repetitions: How often each stimulus is shown.
        rng: Where the order is drawn from.
    """
    num_sessions = max(
        constants.MIN_SESSIONS, repetitions, -(-len(groups) * repetitions // constants.TRIALS_PER_SESSION)
    )
    shown_in = _assign_sessions(groups, repetitions, num_sessions, rng)
    stimuli, sessions, runs = [], [], []
    for session in range(num_sessions):
        shown = rng.permutation(np.flatnonzero((shown_in == session).any(axis=1)))
        for run, of_run in enumerate(np.array_split(shown, max(1, -(-len(shown) // constants.TRIALS_PER_RUN)))):
            stimuli.append(of_run)
            sessions.append(np.full(len(of_run), session + 1, np.int32))
            runs.append(np.full(len(of_run), run + 1, np.int32))
    stimulus = np.concatenate(stimuli)
    return Design(stimulus, np.concatenate(sessions), np.concatenate(runs), _count_repetitions(stimulus), num_sessions)


def _assign_sessions(groups: np.ndarray, repetitions: int, num_sessions: int, rng: np.random.Generator) -> np.ndarray:
    """(N, repetitions) sessions, all different within a row; each group is as even over sessions as can be."""
    shown_in = np.empty((len(groups), repetitions), int)
    in_session = np.zeros(num_sessions, int)
    for group in np.unique(groups):
        of_group = np.zeros(num_sessions, int)
        for stimulus in rng.permutation(np.flatnonzero(groups == group)):
            chosen = np.lexsort((rng.random(num_sessions), in_session, of_group))[:repetitions]
            shown_in[stimulus] = chosen
            of_group[chosen] += 1
            in_session[chosen] += 1
    return shown_in


def _count_repetitions(stimulus: np.ndarray) -> np.ndarray:
    order = np.argsort(stimulus, kind="stable")
    ordered = stimulus[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    repetition = np.empty(len(stimulus), np.int32)
    repetition[order] = np.arange(len(stimulus)) - np.repeat(starts, np.diff([*starts, len(stimulus)]))
    return repetition
