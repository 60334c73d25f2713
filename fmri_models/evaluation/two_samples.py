"""The difference of two means over stimuli that are not the same ones, or only in part."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .bootstrap import CONFIDENCE, DRAWS, FEWEST_STIMULI, interval

_DRAWS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Gap:
    """How much more one sample of stimuli scores than another one.

    Args:
        difference: The first mean less the second.
        ci95: Bounds; None with fewer than five stimuli on a side, or where all of a side have the same score.
        stimuli: Of the first, of the second, and how many of them are the same.
    """

    difference: float
    ci95: tuple[float, float] | None
    stimuli: tuple[int, int, int]


def gap_of_means(
    first: Mapping[str, float],
    second: Mapping[str, float],
    bounds: tuple[float, float] | None = None,
    widening: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> Gap | None:
    """The difference of two means, with the wider one on either side of two intervals.

    One joins the intervals of both means (MOVER; Zou & Donner, 2008), which are those that the report states, with the
    correlation of the means that comes of stimuli in both. The other is a bootstrap over all stimuli: one that is in
    both is drawn for both, so that what makes it easy or hard does not count as a difference.

    Args:
        first: Stimulus ▶ mean score.
        second: The same of the other sample.
        bounds: Smallest and largest score that is possible; None if that is not known.
        widening: How many times as far as for independent stimuli the bounds are from the difference.
        draws: Bootstrap samples.
        seed: Of the bootstrap.

    Returns:
        None if one of them is empty.
    """
    if not first or not second:
        return None
    one, other = (np.array([each[name] for name in sorted(each)]) for each in (first, second))
    shared = sorted(first.keys() & second.keys())
    difference = float(one.mean() - other.mean())
    stimuli = len(one), len(other), len(shared)
    means = [interval(values, sorted(each), draws, seed, bounds) for values, each in ((one, first), (other, second))]
    if min(len(one), len(other)) < FEWEST_STIMULI or any(mean is None or mean.ci95 is None for mean in means):
        return Gap(difference, None, stimuli)
    sides = [(mean.value - mean.ci95[0], mean.ci95[1] - mean.value) for mean in means if mean and mean.ci95]
    correlation = _correlation(first, second, shared)
    joined = _joined(sides[0][0], sides[1][1], correlation), _joined(sides[0][1], sides[1][0], correlation)
    drawn = _bootstrapped(first, second, draws, seed)
    low = max(joined[0], difference - drawn[0]) * widening
    high = max(joined[1], drawn[1] - difference) * widening
    span = math.inf if bounds is None else bounds[1] - bounds[0]
    return Gap(difference, (max(-span, difference - low), min(span, difference + high)), stimuli)


def _joined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))


def _correlation(first: Mapping[str, float], second: Mapping[str, float], shared: list[str]) -> float:
    """Of both means: that of the scores of stimuli in both, times the share that they are of each."""
    if len(shared) < FEWEST_STIMULI:
        return 0.0
    pairs = np.array([[first[name], second[name]] for name in shared])
    spreads = [np.std(list(each.values()), ddof=1) for each in (first, second)]
    if min(spreads) <= 0:
        return 0.0
    covariance = float(np.cov(pairs.T, ddof=1)[0, 1]) / (spreads[0] * spreads[1])
    found = covariance * len(shared) / math.sqrt(len(first) * len(second))
    return float(np.clip(found, -1, 1))


def _bootstrapped(
    first: Mapping[str, float], second: Mapping[str, float], draws: int, seed: int
) -> tuple[float, float]:
    """Percentiles of the difference, over samples of all stimuli of both."""
    names = sorted(first.keys() | second.keys())
    values = np.array([[each.get(name, 0.0) for name in names] for each in (first, second)])
    inside = np.array([[name in each for name in names] for each in (first, second)], dtype=np.float64)
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    at_once = max(1, _DRAWS_AT_ONCE // len(names))
    for start in range(0, draws, at_once):
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(at_once, draws - start))
        counts = times @ inside.T
        # With five stimuli a side, next to no sample has none of them.
        with np.errstate(invalid="ignore"):
            means = times @ values.T / counts
        found.append(means[:, 0] - means[:, 1])
    every = np.concatenate(found)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(every[np.isfinite(every)], [tail, 1 - tail])
    return float(low), float(high)
