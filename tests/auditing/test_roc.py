"""Areas under the curve: right where they are known, and honest about chance."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fmri_models.auditing import roc
from fmri_models.auditing.identification import own_against_others
from fmri_models.auditing.roc import area, area_of, difference_of, share_of


def test_the_area_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 40), rng.integers(0, 5, 25)
    expected = roc_auc_score([1] * 40 + [0] * 25, np.concatenate([first, second]))
    assert area(first, second) == pytest.approx(expected)


def test_groups_that_do_not_overlap_have_an_interval():
    found = area_of(np.arange(20.0) + 100, np.arange(15.0), seed=0)
    assert found.value == 1 and found.ci95[1] == 1 and 0.5 < found.ci95[0] < 0.97
    assert found.p < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "sizes"), [(0.0, (60, 24)), (0.0, (200, 12)), (1.0, (60, 24)), (2.5, (60, 24))])
def test_intervals_hold_the_truth_and_p_of_nothing_is_uniform(shift, sizes):
    from scipy.stats import norm

    truth = norm.cdf(shift / np.sqrt(2))
    rng = np.random.default_rng(1)
    found = [
        area_of(rng.normal(shift, size=sizes[0]), rng.normal(size=sizes[1]), seed=index, draws=200)
        for index in range(200)
    ]
    held = np.mean([each.ci95[0] <= truth <= each.ci95[1] for each in found])
    assert held >= 0.92
    if shift == 0:
        p = np.array([each.p for each in found])
        assert 0.4 <= p.mean() <= 0.6 and np.mean(p <= 0.05) <= 0.1
    else:
        assert np.mean([each.p <= 0.05 for each in found]) > 0.9


@pytest.mark.parametrize(("number", "others", "truth"), [(24, 1, 0.856), (24, 3, 0.856), (12, 1, 0.7), (24, 1, 0.5)])
def test_intervals_of_shares_hold_the_truth(number, others, truth):
    from scipy.stats import norm

    rng, held = np.random.default_rng(0), []
    for _ in range(500):
        own = rng.normal(size=(number, 1)) + norm.ppf(truth) * np.sqrt(2)
        _, (low, high) = share_of((own > rng.normal(size=(number, others))).mean(axis=1))
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.93


@pytest.mark.slow
def test_the_interval_of_a_difference_holds_it(monkeypatch):
    monkeypatch.setattr(roc, "_DRAWS", 200)
    rng, held = np.random.default_rng(0), []
    for index in range(60):
        one, other = rng.normal(size=(2, 60)), rng.normal(size=(2, 24))
        _, (low, high) = difference_of(one[0], other[0], one[0] + one[1], other[0] + other[1], index)
        held.append(low <= 0 <= high)
    assert np.mean(held) >= 0.9


def test_the_same_scores_have_no_difference():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=30), rng.normal(size=20)
    assert difference_of(first, second, first, second, seed=0) == (0.0, (0.0, 0.0))


@pytest.mark.slow
def test_layers_that_are_alike_identify_nobody_and_p_is_uniform():
    rng = np.random.default_rng(2)
    p = np.array([own_against_others(rng.normal(size=(20, 3)), seed=index)[2] for index in range(60)])
    assert 0.35 <= p.mean() <= 0.65 and np.mean(p <= 0.05) <= 0.15


def test_an_own_layer_that_always_fits_best_has_an_interval():
    fits = np.random.default_rng(0).normal(size=(30, 4))
    fits[:, 0] += 20
    value, interval, p = own_against_others(fits, seed=0)
    assert value == 1 and 0.8 < interval[0] < 1 and p < 0.01
