"""Intervals over stimuli."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fmri_models.evaluation.bootstrap import interval, means_over_stimuli, paired_difference, permutation_test
from scripts.measure_coverage import POPULATIONS, STIMULI, coverage


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
@given(seed=st.integers(0, 1000), count=st.integers(5, 30))
def test_interval_holds_the_mean_and_stays_inside_what_is_possible(seed, count):
    values = np.random.default_rng(seed).random(count)
    found = interval(values, [str(i) for i in range(count)], draws=500, bounds=(0, 1))
    assert 0 <= found.ci95[0] < found.value < found.ci95[1] <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_below_five_stimuli_there_is_no_interval(count):
    for values in (np.random.default_rng(0).random(count), np.ones(count)):
        for repeats in (1, 10):
            ids = [str(i) for i in range(count)] * repeats
            found = interval(np.tile(values, repeats), ids, bounds=(0, 1))
            assert found.ci95 is None
            assert (found.n, found.stimuli) == (count * repeats, count)
            assert paired_difference(np.tile(values, repeats), np.zeros(count * repeats), ids).ci95 is None


def test_scores_of_0_and_1_with_one_item_a_stimulus_have_the_exact_interval():
    ids = [str(i) for i in range(10)]
    found = interval(np.array([1.0] * 7 + [0.0] * 3), ids, bounds=(0, 1))
    # Clopper & Pearson for 7 of 10.
    assert found.ci95 == pytest.approx((0.3475, 0.9333), abs=1e-4)
    assert interval(np.ones(10), ids, bounds=(0, 1)).ci95 == pytest.approx((0.6915, 1), abs=1e-4)
    assert interval(np.zeros(10), ids, bounds=(0, 1)).ci95 == pytest.approx((0, 0.3085), abs=1e-4)
    # With several items a stimulus the unit is the stimulus, whose means are no 0 and 1 any more.
    several = interval(np.array([1.0, 0.0] * 10), ids * 2, bounds=(0, 1))
    assert several.ci95 is not None
    assert several.ci95[1] - several.ci95[0] > 0.4


def test_student_and_the_bootstrap_are_both_inside():
    values = np.random.default_rng(3).lognormal(0, 1, 12)
    low, high = interval(values, list("abcdefghijkl")).ci95
    ordinary = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    bca = stats.bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    assert (low, high) == pytest.approx((min(ordinary[0], bca.low), max(ordinary[1], bca.high)))


def test_equal_scores_claim_nothing_that_they_do_not_show():
    ids = [str(i) for i in range(5)]
    # Inside the range: no interval of width zero.
    assert interval(np.full(5, 0.7), ids, bounds=(0, 1)).ci95 is None
    assert interval(np.zeros(5), ids, bounds=(-1, 1)).ci95 is None
    assert interval(np.full(5, 0.1 + 0.2), ids).ci95 is None
    assert interval(np.ones(5), ids, bounds=(-1, 1)).ci95 is None
    assert interval(np.zeros(5), ids, bounds=(0, np.inf)).ci95 is None
    # Shares that are all 0 or 1: as wide as scores of 0 and 1 would have it, also with several items a stimulus.
    for repeats in (1, 4):
        assert interval(np.ones(5 * repeats), ids * repeats, bounds=(0, 1)).ci95 == pytest.approx((0.478, 1), abs=1e-3)
    assert paired_difference(np.ones(5), np.zeros(5), ids, bounds=(-1, 1)).ci95 is None
    assert paired_difference(np.ones(5), np.ones(5), ids, bounds=(0, 1)).ci95 is None
    assert paired_difference(np.ones(5), np.zeros(5), ids, bounds=(0, 1)).ci95 == pytest.approx((-0.044, 1), abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_an_interval_is_there_where_the_bootstrap_is_not_defined():
    for count in (5, 8):
        values = np.array([0.5] * (count - 1) + [0.5 + 1e-9])
        found = interval(values, [str(i) for i in range(count)], draws=20)
        assert np.isfinite(found.ci95).all()
        assert found.ci95[0] < found.value < found.ci95[1]


def test_every_stimulus_counts_as_one_however_many_items_it_has():
    values, ids = np.array([0.0, 0.0, 0.0, 1.0]), ["a", "a", "a", "b"]
    assert interval(values, ids).value == 0.5
    assert means_over_stimuli(np.stack([values, 1 - values]), ids).tolist() == [0.5, 0.5]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_means_of_pairings_are_the_values_of_reports(seed):
    generator = np.random.default_rng(seed)
    values, ids = generator.random((4, 30)), generator.choice(list("abcdefgh"), 30)
    values[generator.random(values.shape) < 0.3] = np.nan
    values[3] = np.nan
    found = means_over_stimuli(values, ids)
    assert found[:3] == pytest.approx([interval(row, ids).value for row in values[:3]])
    assert np.isnan(found[3])


@pytest.mark.parametrize(("name", "least"), [("normal", 0.93), ("near the ceiling (beta 8, 1)", 0.86)])
@pytest.mark.parametrize("stimuli", [5, 10, 20])
def test_intervals_hold_the_true_mean(name, least, stimuli):
    assert coverage(POPULATIONS[name], stimuli, 400) > least - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", POPULATIONS)
def test_intervals_hold_the_true_mean_of_all_populations(name):
    found = {stimuli: coverage(POPULATIONS[name], stimuli, 1000) for stimuli in STIMULI}
    skewed = name.startswith("very skewed")
    assert min(found.values()) > (0.78 if skewed else 0.87)
    assert min(found[stimuli] for stimuli in (20, 50, 100)) > (0.84 if skewed else 0.9)
    assert min(found[stimuli] for stimuli in (50, 100)) > (0.91 if skewed else 0.93)


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


def test_all_pairings_hold_the_true_one_and_bound_p():
    scores = np.array([3.0, 1.0, 2.0, 0.0, 0.5, 2.5])
    found = permutation_test(scores, 3.0, exhaustive=True)
    assert (found.p, found.smallest_p, found.n, found.exhaustive) == (1 / 6, 1 / 6, 6, True)
    assert permutation_test(scores, 2.0, exhaustive=True).p == 3 / 6
    assert permutation_test(scores, 2.0).smallest_p == 1 / 7


def test_a_pairing_without_a_score_counts_against_the_true_one():
    found = permutation_test(np.array([0.0, np.nan, 0.1]), 1.0)
    assert found.p == 2 / 4
    assert found.mean == pytest.approx(0.05)
