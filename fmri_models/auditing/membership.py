"""Membership inference: which pictures was a model trained on?"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.random_projection import SparseRandomProjection

from ..data.schema import labelled_parts
from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..evaluation.held_out import held_out_trials
from ..pipeline_fmri import FmriToImagePipeline
from ..training_record import TrainingRecord
from .decoded import decoded, fit_to_truth, processed, true_targets
from .roc import FEWEST, Area, area_of, difference_of

# Trials of each side, all of the same pictures; more make no difference to what an interval of so many says.
_MOST_TRIALS = 1500
_FOLDS = 5
# Values of a target that the baseline predicts; ridge regression takes several times the memory of its targets.
_WIDEST = 2048
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
    parts = [table.trials(subject, part, record.split, record.fold) for part in labelled_parts(record.train_parts)]
    sessions = sorted(set(np.concatenate([part.sessions for part in parts]).tolist()) & set(unknown.sessions.tolist()))
    rng = np.random.default_rng(seed)
    learned, other = _as_often([*parts, unknown], sessions, rng)
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
    narrow = _narrow(truth, seed)
    unseen = fit_to_truth(_cross_fitted(features, narrow[position], ids), narrow[position], narrow.mean(axis=0))
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


def _as_often(parts: list[Trials], sessions: list[int], rng: np.random.Generator) -> tuple[list[Trials], Trials]:
    """Trials of some sessions, as many of each picture, so that no picture's mean is less noisy than another's.

    Args:
        parts: What was learned from, part by part, and last what was held out.
        sessions: Of which trials are taken.
        rng: Draws which trials of a picture, and which pictures where there are more than are needed.

    Returns:
        Those of each part that was learned from, and those that were held out.
    """
    here = [part.subset(np.flatnonzero(np.isin(part.sessions, sessions))) for part in parts]
    counts = [np.unique(part.stimulus_ids, return_counts=True)[1] for part in here]
    fewest = min((int(each.min()) for each in counts if len(each)), default=1)
    sides = [len(here) - 1] * (len(here) - 1) + [1]
    chosen = [_drawn(part, fewest, _MOST_TRIALS // fewest // most, rng) for part, most in zip(here, sides, strict=True)]
    return chosen[:-1], chosen[-1]


def _drawn(trials: Trials, a_picture: int, most: int, rng: np.random.Generator) -> Trials:
    """So many drawn trials of each picture, of at most so many drawn pictures."""
    names, position = np.unique(trials.stimulus_ids, return_inverse=True)
    taken = rng.choice(len(names), most, replace=False) if len(names) > most else np.arange(len(names))
    order = rng.permutation(len(position))
    chosen = [order[position[order] == index][:a_picture] for index in taken]
    return trials.subset(np.sort(np.concatenate([*chosen, np.zeros(0, dtype=np.int64)])).astype(np.int64))


def _narrow(targets: np.ndarray, seed: int) -> np.ndarray:
    """Targets of a bounded width, whose correlations are nearly those of the whole ones (Achlioptas, 2003)."""
    if targets.shape[1] <= _WIDEST:
        return targets
    projection = SparseRandomProjection(_WIDEST, random_state=seed)
    return np.asarray(projection.fit_transform(targets), dtype=np.float32)


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
    """Mean scores of the stimuli that were learned from, and of the others, as far as they differ within sessions.

    A session's level is that of the side with more trials: the mean of both would pull the few trials of the other side
    in a session towards each other.
    """
    centred = np.array(scores, dtype=np.float64)
    larger = is_learned if 2 * is_learned.sum() >= len(is_learned) else ~is_learned
    for session in np.unique(sessions):
        here = sessions == session
        measured = here & larger
        centred[here] -= scores[measured if measured.any() else here].mean()
    means = []
    for side in (is_learned, ~is_learned):
        _, cluster = np.unique(ids[side], return_inverse=True)
        means.append(np.bincount(cluster, weights=centred[side]) / np.bincount(cluster))
    return means[0], means[1]
