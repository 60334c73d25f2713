"""Membership inference: which pictures was a model trained on?"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..evaluation.held_out import held_out_trials
from ..pipeline_fmri import FmriToImagePipeline
from ..training_record import TrainingRecord
from .decoded import decoded, fit_to_truth, processed, true_targets
from .roc import FEWEST, Area, area_of, difference_of

# Trials of each side; more make no difference to what an interval of so many says.
_MOST_TRIALS = 1500
_FOLDS = 5
_PENALTIES = np.logspace(0, 6, 7)


@dataclass(frozen=True)
class Membership:
    """What can be told of one subject's pictures.

    Args:
        subject: The subject.
        sessions: Sessions that have trials of either kind, which alone are compared.
        trials: How many trials were learned from and held out.
        area: Of the scores of pictures that were learned from, above those that were held out; None where it is not
            defined.
        baseline: The same of a ridge regression that has never seen the picture that it is scored on.
        difference: How much of the area the baseline does not have.
        difference_ci95: Its 95 % interval.
        not_defined: Why not; empty where it is.
        notes: What could not be checked, a sentence each.
    """

    subject: str
    sessions: list[int]
    trials: tuple[int, int]
    area: Area | None = None
    baseline: Area | None = None
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None
    not_defined: str = ""
    notes: tuple[str, ...] = ()


def membership(
    pipeline: FmriToImagePipeline, table: TrialTable, record: TrainingRecord, subject: str, seed: int
) -> Membership:
    """Compares a subject's training pictures with held-out ones of the same sessions, single trials of either.

    Args:
        pipeline: What is audited.
        table: The table that it was trained on.
        record: How it was trained.
        subject: One of its subjects.
        seed: Of draws among trials, of intervals and exchanges.
    """
    held_out = held_out_trials(pipeline, table, subject, may_be_empty=True)
    notes = held_out.doubts
    if held_out.repeats_stimuli:
        return Membership(subject, [], (0, 0), not_defined=f"the same pictures are tested ({held_out.repeats_stimuli})")
    unknown = held_out.trials.subset(~np.isin(held_out.trials.stimulus_ids, sorted(held_out.learned)))
    parts = [table.trials(subject, part, record.split, record.fold) for part in record.train_parts]
    sessions = sorted(set(np.concatenate([part.sessions for part in parts]).tolist()) & set(unknown.sessions.tolist()))
    rng = np.random.default_rng(seed)
    learned = [_some(part, sessions, rng, _MOST_TRIALS // len(parts)) for part in parts]
    other = _some(unknown, sessions, rng, _MOST_TRIALS)
    counts = (sum(map(len, learned)), len(other))
    shown = np.concatenate([part.stimulus_ids for part in learned])
    stimuli = (len(np.unique(shown)), len(np.unique(other.stimulus_ids)))
    if min(stimuli) < FEWEST:
        few = (
            f"{stimuli[0]} training pictures and {stimuli[1]} held-out ones share sessions; {FEWEST} of each are needed"
        )
        return Membership(subject, sessions, counts, not_defined=few, notes=notes)
    trials = [*learned, other]
    is_learned = np.repeat([True] * len(learned) + [False], [len(each) for each in trials])
    ids = np.concatenate([each.stimulus_ids for each in trials])
    session = np.concatenate([each.sessions for each in trials])
    features = np.concatenate([processed(pipeline, each) for each in trials])
    name, predicted = decoded(pipeline, features, subject)
    names, position = np.unique(ids, return_inverse=True)
    truth = true_targets(pipeline, other, names.tolist(), name)
    centre = truth.mean(axis=0)
    scores = fit_to_truth(predicted, truth[position], centre)
    unseen = fit_to_truth(_cross_fitted(features, truth[position], ids), truth[position], centre)
    own = _of_stimuli(scores, is_learned, ids, session)
    base = _of_stimuli(unseen, is_learned, ids, session)
    difference, interval = difference_of(*own, *base, seed)
    return Membership(
        subject,
        sessions,
        counts,
        area_of(*own, seed),
        area_of(*base, seed),
        difference,
        interval,
        notes=notes,
    )


def _some(trials: Trials, sessions: list[int], rng: np.random.Generator, most: int) -> Trials:
    chosen = np.flatnonzero(np.isin(trials.sessions, sessions))
    return trials.subset(np.sort(rng.choice(chosen, most, replace=False)) if len(chosen) > most else chosen)


def _cross_fitted(features: np.ndarray, targets: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """What ridge regressions say of trials whose pictures they have not seen, be these training pictures or not."""
    penalty = RidgeCV(alphas=_PENALTIES).fit(features, targets).alpha_
    predicted = np.empty_like(targets)
    for train, test in GroupKFold(_FOLDS).split(features, groups=ids):
        predicted[test] = RidgeCV(alphas=[penalty]).fit(features[train], targets[train]).predict(features[test])
    return predicted


def _of_stimuli(
    scores: np.ndarray, is_learned: np.ndarray, ids: np.ndarray, sessions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores of the stimuli that were learned from, and of the others, as far as they differ within sessions."""
    centred = np.array(scores, dtype=np.float64)
    for session in np.unique(sessions):
        here = sessions == session
        middle = np.mean([scores[here & side].mean() for side in (is_learned, ~is_learned)])
        centred[here] -= middle
    means = []
    for side in (is_learned, ~is_learned):
        _, cluster = np.unique(ids[side], return_inverse=True)
        means.append(np.bincount(cluster, weights=centred[side]) / np.bincount(cluster))
    return means[0], means[1]
