"""Intervals over stimuli."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmri_models.evaluation.bootstrap import interval, paired_difference, permutation_test


def test_interval_covers_the_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = interval(values, [str(i) for i in range(400)])
    standard_error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.ci95 == pytest.approx(
        (values.mean() - 1.96 * standard_error, values.mean() + 1.96 * standard_error), abs=0.03
    )
    assert found.n == 400


def test_subjects_of_one_stimulus_are_drawn_together():
    by_stimulus = np.random.default_rng(1).normal(size=50)
    ids = [str(i) for i in range(50)]
    alone = interval(by_stimulus, ids)
    repeated = interval(np.tile(by_stimulus, 4), ids * 4)
    # Four equal copies carry no more information than one.
    assert repeated.ci95 == pytest.approx(alone.ci95)
    assert repeated.n == 200


def test_interval_is_seeded_and_ignores_missing_scores():
    values, ids = np.array([0.1, np.nan, 0.4, 0.9]), ["a", "b", "c", "d"]
    found = interval(values, ids)
    assert found == interval(values, ids)
    assert found.value == pytest.approx(1.4 / 3)
    assert found.n == 3
    assert interval(np.array([np.nan]), ["a"]) is None
    assert interval(np.array([0.5, 0.7]), ["a", "a"]).ci95 is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 30))
def test_interval_holds_the_mean_and_stays_inside_the_values(seed, count):
    values = np.random.default_rng(seed).random(count)
    found = interval(values, [str(i) for i in range(count)], draws=500)
    assert values.min() - 1e-9 <= found.ci95[0] <= found.ci95[1] <= values.max() + 1e-9


def test_paired_difference_is_narrower_than_its_sides_and_signed_by_direction():
    generator = np.random.default_rng(2)
    hard = generator.normal(0, 5, 100)
    better, worse = hard + 1 + generator.normal(0, 0.1, 100), hard
    ids = [str(i) for i in range(100)]
    higher = paired_difference(better, worse, ids)
    assert higher.difference == pytest.approx(1, abs=0.05)
    assert higher.ci95[0] > 0.9
    lower = paired_difference(better, worse, ids, higher_is_better=False)
    assert lower.difference == pytest.approx(-higher.difference)
    assert lower.ci95[1] < -0.9
    assert paired_difference(better, np.full(100, np.nan), ids) is None


def test_permutation_p_value_counts_the_observed_pairing():
    scores = np.linspace(0, 1, 199)
    assert permutation_test(scores, 2.0).p == pytest.approx(1 / 200)
    assert permutation_test(scores, -1.0).p == 1
    assert permutation_test(scores, -1.0, higher_is_better=False).p == pytest.approx(1 / 200)
    assert permutation_test(np.full(9, 0.1 + 0.2), 0.3).p == 1
