"""How large a part one advantage is of another one."""

import numpy as np
import pytest

from fmri_models.evaluation.ratios import ratio_of_means

IDS = [f"s{index}" for index in range(40)]


def drawn(seed, share=0.6, whole=0.4, scatter=0.3, count=40):
    rng = np.random.default_rng(seed)
    wholes = whole + scatter * rng.standard_normal(count)
    return share * wholes + 0.2 * rng.standard_normal(count), wholes


def test_the_interval_holds_the_true_share_as_often_as_it_says():
    held = 0
    for seed in range(200):
        part, whole = drawn(seed)
        found = ratio_of_means(part, whole, IDS, draws=200, seed=seed)
        held += found is not None and found.ci95[0] <= 0.6 <= found.ci95[1]
    # The wider one of two is right a little more often than 95 in 100.
    assert 185 <= held <= 200


def test_nothing_is_a_part_of_what_may_be_nothing():
    part, whole = drawn(0, whole=0.0)
    assert ratio_of_means(part, whole - whole.mean(), IDS) is None
    assert ratio_of_means(part[:4], np.ones(4), IDS[:4]) is None
    assert ratio_of_means(np.full(40, np.nan), np.ones(40), IDS) is None


def test_the_whole_is_all_of_itself_and_what_is_missing_is_left_out():
    _, whole = drawn(1)
    found = ratio_of_means(whole, whole, IDS)
    assert found.value == pytest.approx(1) and found.ci95 == pytest.approx((1, 1))
    part, whole = drawn(2)
    part[3] = np.nan
    found = ratio_of_means(part, whole, IDS)
    assert found.n == found.stimuli == 39
    assert found.value == pytest.approx(np.nanmean(part) / np.delete(whole, 3).mean())


def test_a_stimulus_counts_once_and_folds_widen():
    part, whole = drawn(3)
    once = ratio_of_means(part, whole, IDS)
    twice = ratio_of_means(np.tile(part, 2), np.tile(whole, 2), IDS * 2)
    assert twice.ci95 == pytest.approx(once.ci95) and twice.stimuli == once.stimuli
    wider = ratio_of_means(part, whole, IDS, widening=2**0.5)
    assert wider.ci95[0] < once.ci95[0] and wider.ci95[1] > once.ci95[1]
