"""The statistics of membership over trials, on scores that know nothing of what was learned from."""

from dataclasses import dataclass

import numpy as np
import pytest

from fmri_models.auditing import membership
from fmri_models.auditing.membership import _as_often, _narrow, _of_stimuli
from fmri_models.auditing.roc import area_of


@dataclass
class Scored:
    """Trials with a score each, in the place of trials of a table."""

    stimulus_ids: np.ndarray
    sessions: np.ndarray
    scores: np.ndarray

    def __len__(self):
        return len(self.scores)

    def subset(self, positions):
        return Scored(self.stimulus_ids[positions], self.sessions[positions], self.scores[positions])


def side(rng, name, number, repetitions, levels):
    ids = np.repeat([f"{name}{index}" for index in range(number)], repetitions)
    sessions = rng.permutation(np.arange(len(ids)) % len(levels))
    of_pictures = np.repeat(rng.normal(size=number) / 2, repetitions)
    return Scored(ids, sessions, of_pictures + rng.normal(size=len(ids)) + levels[sessions])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learned", "held_out", "sessions"),
    [((60, 2), (24, 2), 3), ((100, 3), (24, 1), 3), ((300, 1), (24, 3), 3), ((300, 1), (24, 1), 12)],
)
def test_p_of_nothing_is_uniform_and_intervals_hold_a_half(learned, held_out, sessions):
    rng, found = np.random.default_rng(5), []
    for index in range(200):
        levels = rng.normal(size=sessions) / 2
        parts = [side(rng, "learned", *learned, levels), side(rng, "other", *held_out, levels)]
        [first], second = _as_often(parts, list(range(sessions)), rng)
        both = [np.concatenate([getattr(each, name) for each in (first, second)]) for name in vars(first)]
        ids, places, scores = both
        is_learned = np.arange(len(ids)) < len(first)
        found.append(area_of(*_of_stimuli(scores, is_learned, ids, places), seed=index, draws=200))
    p = np.array([each.p for each in found])
    assert 0.42 <= p.mean() <= 0.58 and np.mean(p <= 0.05) <= 0.09
    assert np.mean([each.ci95[0] <= 0.5 <= each.ci95[1] for each in found]) >= 0.92


def test_pictures_have_as_many_trials_each_and_the_limit_counts_trials(monkeypatch):
    monkeypatch.setattr(membership, "_MOST_TRIALS", 60)
    rng = np.random.default_rng(0)
    levels = np.zeros(2)
    parts = [side(rng, "a", 50, 3, levels), side(rng, "b", 40, 5, levels), side(rng, "c", 12, 2, levels)]
    learned, other = _as_often(parts, [0, 1], rng)
    for each, pictures in zip([*learned, other], (15, 15, 12), strict=True):
        names, counts = np.unique(each.stimulus_ids, return_counts=True)
        assert len(names) == pictures and set(counts) == {2}


def test_wide_targets_are_made_narrow_and_keep_their_correlations():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(40, 20000)).astype(np.float32) + rng.normal(size=20000).astype(np.float32)
    narrow = _narrow(wide, seed=0)
    assert narrow.shape == (40, 2048) and narrow.dtype == np.float32
    assert np.abs(np.corrcoef(narrow) - np.corrcoef(wide)).max() < 0.1
    assert _narrow(wide[:, :100], seed=0) is not None and _narrow(wide[:, :100], seed=0).shape == (40, 100)
