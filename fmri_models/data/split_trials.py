"""The trials that a split is drawn over, and which of their stimuli or runs can be held out."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from ..plain_values import ShortRepr
from .table import TrialTable
from .training_checks import FEWEST_TRAINING_STIMULI


@dataclass(repr=False)
class SplitTrials(ShortRepr):
    """All trials that a split is drawn over, of all subjects together.

    Attributes:
        subjects: (n,) str.
        trials: (n,) trial numbers, unique within a subject.
        stimulus_ids: (n,) str.
        runs: (n,) what counts as one run, such as (session, run).
        groups: Stimulus id to what may not be torn apart: the hash of its picture, or its id.
        categories: Stimulus id to category, None where it is unknown.
        imagery: (n,) whether the stimulus was imagined; none was if this is empty.
    """

    subjects: Sequence[str]
    trials: Sequence[int]
    stimulus_ids: Sequence[str]
    runs: Sequence[tuple[int, int]] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str | None] = field(default_factory=dict)
    imagery: Sequence[bool] = ()

    @classmethod
    def of_table(cls, table: TrialTable) -> "SplitTrials":
        """All trials of a table."""
        subjects: list[str] = []
        trials: list[int] = []
        stimulus_ids: list[str] = []
        runs: list[tuple[int, int]] = []
        imagery: list[bool] = []
        for subject in table.subjects:
            own = table.all_trials(subject)
            subjects += [subject] * len(own)
            trials += own.trials.tolist()
            stimulus_ids += own.stimulus_ids.tolist()
            runs += zip(own.sessions.tolist(), own.runs.tolist(), strict=True)
            imagery += own.imagery.tolist()
        hashes = zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True)
        categories = zip(table.stimuli.ids, table.stimuli.categories(), strict=True)
        groups = {stimulus: digest or stimulus for stimulus, digest in hashes}
        return cls(subjects, trials, stimulus_ids, runs, groups, dict(categories), imagery)

    def group_of(self, stimulus_id: str) -> str:
        """What the stimulus may not be torn apart from."""
        return self.groups.get(stimulus_id, stimulus_id)

    @property
    def shown(self) -> list[str]:
        """Groups that were shown at all, sorted, so that a draw depends on nothing but the seed."""
        return sorted({self.group_of(stimulus) for stimulus in self.stimulus_ids})


def draw_validation(
    trials: SplitTrials,
    training: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
    repeated: Set[str] = frozenset(),
) -> np.ndarray:
    """Which training trials become validation trials.

    Args:
        trials: All of them.
        training: Those that would be learned from.
        fraction: Share of their stimuli, or of their runs; at least one, and none without which a subject would have
            fewer than two stimuli to learn from.
        rng: Draws them.
        repeated: Stimuli that the design tests and learns from in other runs. If there are any, whole runs are drawn; a
            run stays in training where one of them or a session would have no training trials left without it.

    Returns:
        Some of `training`; none where that leaves nothing to learn from.
    """
    if repeated:
        runs = _drawn_runs(trials, training, fraction, rng, repeated)
        return np.array([trial for trial in training if trials.runs[trial] in runs], dtype=np.int64)
    groups = [trials.group_of(trials.stimulus_ids[trial]) for trial in training]
    drawn = drawn_stimuli(trials, training, fraction, rng)
    return training[np.array([group in drawn for group in groups], dtype=bool)]


def _drawn_runs(
    trials: SplitTrials, training: np.ndarray, fraction: float, rng: np.random.Generator, repeated: Set[str]
) -> set[tuple[int, int]]:
    """A share of the runs, without which each subject has training trials of the same sessions and repeated stimuli."""
    holds: dict[tuple[int, int], set[tuple[str, str | int]]] = {}
    shows: dict[tuple[int, int], set[tuple[str, str]]] = {}
    for trial in training:
        run, subject, group = trials.runs[trial], trials.subjects[trial], trials.group_of(trials.stimulus_ids[trial])
        held = holds.setdefault(run, set())
        held.add((subject, run[0]))
        shows.setdefault(run, set()).add((subject, group))
        if group in repeated:
            held.add((subject, group))
    left = Counter(what for held in holds.values() for what in held)
    runs_left = Counter(shown for several in shows.values() for shown in several)
    stimuli_left = Counter(subject for subject, _ in runs_left)
    runs = sorted(holds)
    count = min(max(1, round(fraction * len(runs))), len(runs) - 1)
    drawn: set[tuple[int, int]] = set()
    for run in (runs[i] for i in rng.permutation(len(runs))):
        lost = Counter(subject for subject, group in shows[run] if runs_left[subject, group] == 1)
        enough = all(stimuli_left[subject] - lost[subject] >= FEWEST_TRAINING_STIMULI for subject in lost)
        if len(drawn) < count and enough and all(left[what] > 1 for what in holds[run]):
            drawn.add(run)
            left.subtract(holds[run])
            runs_left.subtract(shows[run])
            stimuli_left.subtract(lost)
    return drawn


def drawn_stimuli(trials: SplitTrials, training: np.ndarray, fraction: float, rng: np.random.Generator) -> set[str]:
    """A share of the stimuli of some trials, at least one, without which each subject has enough to learn from.

    Returns:
        Groups; none where no stimulus can be spared.
    """
    subjects_of: dict[str, set[str]] = {}
    for trial in training:
        subjects_of.setdefault(trials.group_of(trials.stimulus_ids[trial]), set()).add(trials.subjects[trial])
    left = Counter(subject for subjects in subjects_of.values() for subject in subjects)
    groups = sorted(subjects_of)
    count = max(1, round(fraction * len(groups)))
    drawn: set[str] = set()
    for group in (groups[i] for i in rng.permutation(len(groups))):
        if len(drawn) < count and all(left[subject] > FEWEST_TRAINING_STIMULI for subject in subjects_of[group]):
            drawn.add(group)
            left.subtract(subjects_of[group])
    return drawn
