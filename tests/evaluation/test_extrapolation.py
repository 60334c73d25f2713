"""Limits of curves over averaged repetitions: found where they are planted, and refused where nothing tells them."""

import numpy as np
import pytest

from fmri_models.evaluation.extrapolation import fitted_score, limit
from fmri_models.evaluation.named_metrics import get_metric

NUMBERS = [1, 2, 3, 4, 8]
PIXCORR, MSE = get_metric("pixcorr"), get_metric("mse")


def decoded(seed, stimuli=40, noise=2.0, numbers=NUMBERS, size=100, signal=0.6):
    """The truth, and what a linear decoder makes of responses without noise and of averaged noisy ones."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(stimuli, size))
    clean = signal * truth + 0.5 * rng.normal(size=truth.shape)
    scatter = rng.normal(size=(max(numbers), *truth.shape)) * np.sqrt(noise * (signal**2 + 0.25))
    averaged = [clean + scatter[:number].mean(0) for number in numbers]
    return truth, clean, averaged


def correlation(one, other):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)])


def errors(one, other):
    return ((one - other) ** 2).mean(1)


@pytest.mark.parametrize(("metric", "score"), [(PIXCORR, correlation), (MSE, errors)])
def test_the_limit_of_a_linear_decoder_is_found(metric, score):
    inside, ends = 0, []
    for seed in range(20):
        truth, clean, averaged = decoded(seed)
        found = limit(NUMBERS, np.stack([score(each, truth) for each in averaged]), metric, None, seed=seed)
        ends.append(found.value - score(clean, truth).mean())
        expected = {"pixcorr": 0.768, "mse": 0.41}[metric.name]
        inside += found.ci95[0] <= expected <= found.ci95[1]
        assert found.residual < 0.05 and found.stimuli == 40
    # Of 20 intervals of 95 %, two may miss.
    assert inside >= 18
    assert abs(np.mean(ends)) < 0.02


def test_the_curve_goes_through_what_was_measured():
    truth, _, averaged = decoded(0)
    scores = np.stack([correlation(each, truth) for each in averaged])
    found = limit(NUMBERS, scores, PIXCORR, None)
    assert fitted_score(np.array(NUMBERS), found, PIXCORR, None) == pytest.approx(scores.mean(1), abs=0.03)
    assert fitted_score(np.array([1e9]), found, PIXCORR, None) == pytest.approx(found.value, abs=1e-4)
    wrong = limit(NUMBERS, np.stack([errors(each, truth) for each in averaged]), MSE, None)
    assert fitted_score(np.array([1e9]), wrong, MSE, None) == pytest.approx(wrong.value, abs=1e-4)


def test_shares_are_counted_from_chance():
    metric = get_metric("pairwise_pixcorr")
    stimuli = np.random.default_rng(0).normal(size=60) * 0.02
    numbers = np.array(NUMBERS)
    scores = 0.5 + 0.3 * np.sqrt(numbers / (numbers + 2))[:, None] + stimuli
    found = limit(NUMBERS, scores, metric, 0.5)
    assert found.value == pytest.approx(0.8, abs=0.01) and found.noise == pytest.approx(2, abs=0.3)


def test_distances_are_one_minus_a_correlation():
    truth, clean, averaged = decoded(1)
    scores = np.stack([1 - correlation(each, truth) for each in averaged])
    found = limit(NUMBERS, scores, get_metric("distance_swav_resnet50"), None)
    assert found.ci95[0] <= 1 - correlation(clean, truth).mean() <= found.ci95[1]


def test_what_does_not_rise_ends_where_it_is():
    stimuli = np.random.default_rng(0).normal(size=30) * 0.05 + 0.4
    found = limit(NUMBERS, np.tile(stimuli, (5, 1)), PIXCORR, None)
    assert found.value == pytest.approx(stimuli.mean()) and found.noise == 0


@pytest.mark.parametrize(
    ("numbers", "scores", "chance", "reason"),
    [
        ([1, 2], np.full((2, 20), 0.4), None, "2 points"),
        ([1, 2, 3], np.full((3, 4), 0.4), None, "4 stimuli"),
        # Noise around nothing.
        ([1, 2, 3], np.random.default_rng(0).normal(size=(3, 20)) * 0.1, None, "not beyond doubt above guessing"),
        # As √n, which never ends.
        ([1, 2, 3], np.sqrt([[1], [2], [3]]) * np.linspace(0.1, 0.2, 30), None, "any limit"),
        ([1, 2, 3], np.array([[0.6], [0.5], [0.4]]) + np.linspace(0, 0.01, 30), None, "fall"),
    ],
)
def test_curves_that_tell_no_limit_are_refused(numbers, scores, chance, reason):
    found = limit(numbers, scores, PIXCORR, chance)
    assert isinstance(found, str) and reason in found


def test_scores_near_their_limit_are_refused():
    # Saturates faster than noise does.
    scores = np.array([[0.8], [0.95], [0.98]]) + np.linspace(0, 0.01, 30)
    assert "no score can be" in limit([1, 2, 3], scores, get_metric("pairwise_pixcorr"), 0.5)


def test_folds_widen_the_interval():
    truth, _, averaged = decoded(2)
    scores = np.stack([correlation(each, truth) for each in averaged])
    narrow, wide = (limit(NUMBERS, scores, PIXCORR, None, widening) for widening in (1.0, 1.4))
    assert wide.value == narrow.value
    assert wide.ci95[1] - wide.ci95[0] > 1.3 * (narrow.ci95[1] - narrow.ci95[0])
