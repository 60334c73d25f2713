"""Intervals and tests whose unit is the stimulus.

Scores of several subjects, trials or seeds of one stimulus are not independent: a stimulus enters with the mean of its
scores, and re-pairing moves all its items together.

Which interval was chosen by measured coverage (`scripts/measure_coverage.py`, table in `docs/evaluation.md`): with few
stimuli a percentile or BCa bootstrap is far too narrow and Student's t is not; with skewed scores and scores near their
ceiling it is the other way round from some twenty stimuli on. The wider one of both is right in either case.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DRAWS = 2000
PERMUTATIONS = 200
SIGN_FLIPS = 10_000
CONFIDENCE = 0.95
FEWEST_STIMULI = 5
"""Below this no interval is stated: of two to four scores nobody can say how they are distributed."""

# Scores are computed in float64 from pictures and features that are the same for every pairing. The worst conditioned
# of them, structural similarity of flat regions, loses three digits (1e-16 over its constant of 9e-4).
TIE_MARGIN = 1e-10

# Of two tested items in different folds each is a training item of the other's model, and their chance agreement counts
# in both scores: the variance of a mean over folds is up to twice what scattered or re-paired scores show. For ridge on
# noise (one is in `tests/evaluation/test_nulls.py`) 1.6 to 2.3 times was measured; Nadeau & Bengio (2003) add as much.
WIDENING_OF_FOLDS = math.sqrt(2)
# Range of shares of successes, of which the binomial distribution is the most spread one.
_SHARE = (0.0, 1.0)
# Values that the bootstrap holds at a time.
_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Interval:
    """A mean over stimuli with its interval.

    Args:
        value: Mean over stimuli of each one's mean score; the mean over items where each has as many.
        ci95: Lower and upper bound; None with fewer than five stimuli, and where all have the same score inside the
            metric's range.
        n: Number of items that have a score.
        stimuli: Number of stimuli that have one.
    """

    value: float
    ci95: tuple[float, float] | None
    n: int
    stimuli: int


@dataclass(frozen=True)
class Difference:
    """A paired difference, positive where the first is better.

    Args:
        difference: Mean over stimuli of each one's mean difference, over the items that both sides have.
        ci95: As of [`Interval`].
        n: Number of those items.
        stimuli: Number of their stimuli.
    """

    difference: float
    ci95: tuple[float, float] | None
    n: int
    stimuli: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True)
class Permutation:
    """What a metric scores when finished reconstructions are re-paired with stimuli.

    Args:
        mean: Mean over pairings.
        sd: Standard deviation over pairings.
        n: Number of pairings.
        p: Share of pairings at least as good as the true one, which is one of them; where folds were merged, with
            their scores as far from the mean as those of refitted folds can be.
        smallest_p: What p can't be below, with so many pairings.
        exhaustive: Whether these are all pairings that there are; else they were drawn, with the true one added.
    """

    mean: float
    sd: float
    n: int
    p: float
    smallest_p: float
    exhaustive: bool


def interval(
    values: np.ndarray,
    stimulus_ids: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
    confidence: float = CONFIDENCE,
    widening: float = 1.0,
) -> Interval | None:
    """The mean of scores over stimuli and its interval.

    The interval is exact (binomial; Clopper & Pearson, 1934) for scores of 0 and 1 with one item a stimulus. Else it
    is the wider one, on either side, of Student's t and a BCa bootstrap over the stimuli's mean scores. Shares that are
    all 0 or all 1 have no spread to tell anything by; no distribution from 0 to 1 with such a mean would show them more
    often than scores of 0 and 1 would, so that the binomial bound holds for them, too. Other scores that are all the
    same have no interval.

    Args:
        values: (N,) scores; NaN marks an item without one.
        stimulus_ids: N ids; items of one stimulus count as one.
        draws: Bootstrap samples.
        seed: Of the bootstrap.
        bounds: Smallest and largest score that is possible; None if that is not known.
        confidence: Of the interval.
        widening: How many times as far as for independent stimuli the bounds are from the mean.

    Returns:
        None if no item has a score.
    """
    values = np.asarray(values, dtype=np.float64)
    present = np.isfinite(values)
    if not present.any():
        return None
    means = stimulus_means(values, stimulus_ids)
    single = len(means) == present.sum()
    if len(means) < FEWEST_STIMULI:
        found = None
    elif single and bounds in (None, _SHARE) and np.isin(means, _SHARE).all():
        found = _binomial(int(means.sum()), len(means), confidence)
    else:
        found = _interval_of_means(means, draws, seed, bounds, _SHARE if bounds == _SHARE else None, confidence)
    mean = float(means.mean())
    if found is not None and widening != 1:
        low, high = bounds or (-math.inf, math.inf)
        found = max(low, mean + (found[0] - mean) * widening), min(high, mean + (found[1] - mean) * widening)
    return Interval(mean, found, int(present.sum()), len(means))


def paired_difference(
    values: np.ndarray,
    other: np.ndarray,
    stimulus_ids: Sequence[str],
    higher_is_better: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
    widening: float = 1.0,
) -> Difference | None:
    """The mean advantage of one row over another on the same items, with its 95 % interval.

    Args:
        values: (N,) scores of the first row; NaN marks an item without one.
        other: (N,) scores of the second row.
        stimulus_ids: N ids.
        higher_is_better: False turns the sign, so that positive always favours the first row.
        draws: Bootstrap samples.
        seed: Of the draws.
        bounds: Smallest and largest score that is possible; None if that is not known.
        widening: How many times as far as for independent stimuli the bounds are from the mean.

    Returns:
        None if no item has both scores.
    """
    advantage = np.asarray(values, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    present = np.isfinite(advantage)
    if not present.any():
        return None
    means = stimulus_means(advantage if higher_is_better else -advantage, stimulus_ids)
    found = None
    if len(means) >= FEWEST_STIMULI:
        span = math.inf if bounds is None else bounds[1] - bounds[0]
        ends = (-span, span) if bounds == _SHARE else None
        found = _interval_of_means(means, draws, seed, (-span, span), ends, CONFIDENCE)
    return Difference(float(means.mean()), found, int(present.sum()), len(means))


def permutation_test(
    scores: np.ndarray,
    observed: float,
    higher_is_better: bool = True,
    exhaustive: bool = False,
    widening: float = 1.0,
) -> Permutation:
    """Compares the true pairing of reconstructions and stimuli with others.

    Args:
        scores: (pairings,) the metric's mean under each; NaN where a pairing leaves no item with a score.
        observed: Its mean under the true one.
        higher_is_better: Direction of the metric.
        exhaustive: Whether these are all pairings that there are, the true one among them.
        widening: How many times as far from their mean as they are the pairings' scores are taken to be.
    """
    finite = scores[np.isfinite(scores)]
    centre = float(finite.mean())
    scores = centre + (scores - centre) * widening
    margin = TIE_MARGIN * max(1.0, abs(observed))
    # What can't be compared counts against the observed one.
    as_good = ~(scores < observed - margin) if higher_is_better else ~(scores > observed + margin)
    count = len(scores)
    p = int(as_good.sum()) / count if exhaustive else (1 + int(as_good.sum())) / (1 + count)
    spread = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
    smallest = 1 / count if exhaustive else 1 / (1 + count)
    return Permutation(centre, spread, count, max(p, smallest), smallest, exhaustive)


def sign_flip_test(
    values: np.ndarray,
    other: np.ndarray,
    stimulus_ids: Sequence[str] | np.ndarray,
    widening: float = 1.0,
    draws: int = SIGN_FLIPS,
    seed: int = 0,
) -> float | None:
    """How often a mean difference at least as far from 0 comes about where neither row is better (two-sided p).

    Each stimulus' difference is as likely to have either sign then. With few stimuli all signs are looked at, the true
    ones among them; else p is (1 + number at least as far) / (1 + number of draws).

    Args:
        values: (N,) scores of one row; NaN marks an item without one.
        other: (N,) scores of the other.
        stimulus_ids: N ids; items of one stimulus count as one.
        widening: How many times as far from 0 the differences under random signs are taken to be.
        draws: Number of random signs.
        seed: Of these.

    Returns:
        None with fewer than five stimuli, of which no signs are rare enough to tell anything.
    """
    advantage = np.asarray(values, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    if not np.isfinite(advantage).any():
        return None
    means = stimulus_means(advantage, stimulus_ids)
    if len(means) < FEWEST_STIMULI:
        return None
    observed = abs(float(means.mean()))
    margin = TIE_MARGIN * max(1.0, float(np.abs(means).max()))
    exhaustive = 2 ** len(means) <= draws
    if exhaustive:
        signs = 1 - 2 * ((np.arange(2 ** len(means))[:, None] >> np.arange(len(means))) & 1)
        return float((np.abs(signs @ means) / len(means) * widening >= observed - margin).mean())
    generator = np.random.default_rng(seed)
    as_far, at_once = 0, max(1, _VALUES_AT_ONCE // len(means))
    for start in range(0, draws, at_once):
        size = (min(at_once, draws - start), len(means))
        flipped = (1 - 2 * generator.integers(2, size=size, dtype=np.int8)) @ means
        as_far += int((np.abs(flipped) / len(means) * widening >= observed - margin).sum())
    return (1 + as_far) / (1 + draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for all of several tests together (Holm, 1979).

    Args:
        p_values: One of each test.

    Returns:
        Adjusted ones in the same order: below .05 are those that are significant with a chance of 5 % at most that any
        of the tests is so by luck, however they depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    ordered = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(ordered))
    return adjusted.tolist()


def stimulus_means(values: np.ndarray, stimulus_ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """(stimuli,) mean over the items of each stimulus that have a score; stimuli without any are left out."""
    present = np.isfinite(values)
    _, cluster = np.unique(np.asarray(stimulus_ids, dtype=str)[present], return_inverse=True)
    return np.bincount(cluster, weights=values[present]) / np.bincount(cluster)


def means_over_stimuli(values: np.ndarray, stimulus_ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """(pairings,) the value of [`interval`] for each row of (pairings, N) scores; NaN for one without any score."""
    _, cluster = np.unique(np.asarray(stimulus_ids, dtype=str), return_inverse=True)
    order = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[order], np.arange(cluster.max() + 1))
    ordered = np.asarray(values, dtype=np.float64)[:, order]
    counts = np.add.reduceat(np.isfinite(ordered), starts, axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        means = np.add.reduceat(np.nan_to_num(ordered), starts, axis=1) / counts
        known = counts > 0
        return np.where(known, means, 0).sum(1) / known.sum(1)


def _interval_of_means(
    means: np.ndarray,
    draws: int,
    seed: int,
    bounds: tuple[float, float] | None,
    ends: tuple[float, float] | None,
    confidence: float,
) -> tuple[float, float] | None:
    """Of at least two means; those that are all the same have one at the ends of a range of shares, if it has any."""
    if np.ptp(means) <= TIE_MARGIN * max(1.0, float(np.abs(means).max())):
        return None if ends is None else _at_an_end(means, *ends, confidence)
    low, high = bounds or (-math.inf, math.inf)
    both = np.array([_student(means, confidence), _bootstrapped(means, draws, seed, confidence)])
    return max(low, float(np.nanmin(both[:, 0]))), min(high, float(np.nanmax(both[:, 1])))


def _at_an_end(means: np.ndarray, low: float, high: float, confidence: float) -> tuple[float, float] | None:
    for end, successes in ((low, 0), (high, len(means))):
        if abs(means[0] - end) <= TIE_MARGIN:
            bounds = _binomial(successes, len(means), confidence)
            return low + (high - low) * bounds[0], low + (high - low) * bounds[1]
    return None


def _binomial(successes: int, count: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(successes, count).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def _student(means: np.ndarray, confidence: float) -> tuple[float, float]:
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means)))
    return float(means.mean()) - half, float(means.mean()) + half


def _bootstrapped(means: np.ndarray, draws: int, seed: int, confidence: float) -> tuple[float, float]:
    """BCa (Efron, 1987); NaN where its correction is not defined."""
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        # Where the correction is not defined, as for scores that differ in one stimulus alone, SciPy warns.
        warnings.simplefilter("ignore")
        found = bootstrap(
            (means,),
            np.mean,
            n_resamples=draws,
            batch=max(1, _VALUES_AT_ONCE // len(means)),
            confidence_level=confidence,
            method="BCa",
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)
