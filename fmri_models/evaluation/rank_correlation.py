"""Whether scores go with something else that is known of each stimulus: ranks, bins, and two samples of stimuli.

The unit is the stimulus, as in [`bootstrap`]. Of several subjects or folds each is ranked for itself first, so that a
subject who is read better and whose test pictures happen to be nearer is no relation. Ranks of one subject or fold sum
up to 0, so that many small ones tell less than as many stimuli together: only stimuli of the same subjects and folds
change places in the permutation test.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .bootstrap import CONFIDENCE, DRAWS, FEWEST_STIMULI, Difference, stimulus_means

# Below it, the normal approximation of an interval of rank correlations is not to be believed (Bonett & Wright, 2000).
_FEWEST_FOR_INTERVAL = 10
_LARGEST_BINS = 3
_TIE = 1e-9


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation over stimuli.

    Args:
        rho: Of the stimuli's mean ranks.
        ci95: By Fisher's transformation with Bonett and Wright's (2000) variance, for as many independent stimuli as
            have the variance of random pairings; None with fewer than ten.
        p: Two-sided, of random pairings of the stimuli that the same subjects and folds have.
        n: Number of stimuli.
    """

    rho: float
    ci95: tuple[float, float] | None
    p: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}


def rank_correlation(
    values: np.ndarray,
    others: np.ndarray,
    units: np.ndarray,
    strata: Sequence[np.ndarray],
    seed: int = 0,
    draws: int = DRAWS,
    widening: float = 1.0,
) -> RankCorrelation | None:
    """Spearman's correlation of two values of each stimulus, with a permutation test over stimuli.

    Args:
        values: (N,); NaN marks an item without one.
        others: (N,) likewise.
        units: (N,) stimulus of each item; items of one count as one.
        strata: Positions of the items of each subject and fold, inside which values are ranked.
        seed: Of the pairings.
        draws: How many pairings; p is (1 + those at least as far from 0) / (1 + all).
        widening: How many times as far as for independent stimuli chance is taken to reach.

    Returns:
        None with fewer than five stimuli, or where one side is the same for all.
    """
    known = np.isfinite(values) & np.isfinite(others)
    names, first, second = _mean_ranks([values, others], known, units, strata)
    if len(names) < FEWEST_STIMULI:
        return None
    one, other = _standardised(first), _standardised(second)
    if one is None or other is None:
        return None
    rho = float(np.clip(one @ other, -1, 1))
    groups = _exchangeable(names, known, units, strata)
    generator = np.random.default_rng(seed)
    paired = np.zeros(draws)
    for group in groups:
        orders = generator.permuted(np.tile(group, (draws, 1)), axis=1)
        paired += one[orders] @ other[group]
    as_far = int((np.abs(paired) * widening >= abs(rho) - _TIE).sum())
    count = _independent(one, other, groups)
    return RankCorrelation(rho, _interval(rho, count, widening), (1 + as_far) / (1 + draws), len(names))


def bins_of_units(values: np.ndarray, units: np.ndarray, strata: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Positions of the items in thirds of the stimuli by a value of theirs, the lowest first.

    Args:
        values: (N,); NaN marks an item without one.
        units: (N,) stimulus of each item.
        strata: As of [`rank_correlation`].

    Returns:
        Three bins, two where there would be fewer than five stimuli in one (ties are never parted), or none.
    """
    names, ranks = _mean_ranks([values], np.isfinite(values), units, strata)
    for count in range(_LARGEST_BINS, 1, -1):
        if len(names) < count * FEWEST_STIMULI:
            continue
        in_order = np.sort(ranks)
        bounds = [in_order[len(names) * number // count] for number in range(1, count)]
        of_unit = np.searchsorted(np.asarray(bounds) - _TIE, ranks, side="right")
        if np.bincount(of_unit, minlength=count).min() >= FEWEST_STIMULI:
            bin_of = dict(zip(names.tolist(), of_unit.tolist(), strict=True))
            found = np.asarray([bin_of.get(name, -1) for name in units.tolist()])
            found[~np.isfinite(values)] = -1
            return [np.flatnonzero(found == number) for number in range(count)]
    return []


def difference_of_samples(
    values: np.ndarray, units: np.ndarray, others: np.ndarray, other_units: np.ndarray, widening: float = 1.0
) -> Difference | None:
    """The mean of some stimuli less that of others, with Welch's interval.

    Args:
        values: (N,) of the first ones; NaN marks an item without one.
        units: (N,) their stimuli.
        others: (M,) of the others.
        other_units: (M,) theirs.
        widening: As of [`rank_correlation`].

    Returns:
        None where a side has nothing; without an interval where one has fewer than five stimuli.
    """
    from scipy.stats import t

    values, others = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if not np.isfinite(values).any() or not np.isfinite(others).any():
        return None
    one, other = stimulus_means(values, units), stimulus_means(others, other_units)
    found, count = float(one.mean() - other.mean()), int(np.isfinite(values).sum() + np.isfinite(others).sum())
    stimuli = len(one) + len(other)
    if min(len(one), len(other)) < FEWEST_STIMULI:
        return Difference(found, None, count, stimuli)
    parts = [one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)]
    if sum(parts) <= _TIE**2:
        return Difference(found, None, count, stimuli)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (one, other), strict=True))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(sum(parts)) * widening
    return Difference(found, (found - half, found + half), count, stimuli)


def smallest_seen(stimuli: int) -> float:
    """The correlation that a test of so many stimuli finds in four of five cases (α .05, two-sided)."""
    return min(1.0, math.tanh(2.8 * math.sqrt(1.06 / max(1, stimuli - 3))))


def _mean_ranks(
    sides: Sequence[np.ndarray], known: np.ndarray, units: np.ndarray, strata: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """(stimuli,) names, and for each of the sides their ranks inside a stratum, centred, over its number of stimuli."""
    from scipy.stats import rankdata

    names = np.unique(units[known])
    counts, totals = np.zeros(len(names)), [np.zeros(len(names)) for _ in sides]
    for positions in strata:
        chosen = positions[known[positions]]
        if not len(chosen):
            continue
        own = np.unique(units[chosen])
        places = np.searchsorted(names, own)
        counts[places] += 1
        for values, total in zip(sides, totals, strict=True):
            means = stimulus_means(np.asarray(values, dtype=np.float64)[chosen], units[chosen])
            # What differs by rounding alone is tied.
            ranks = rankdata(means.round(10))
            total[places] += (ranks - (len(own) + 1) / 2) / len(own)
    return [names, *(total / np.maximum(counts, 1) for total in totals)]


def _exchangeable(
    names: np.ndarray, known: np.ndarray, units: np.ndarray, strata: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Positions of the stimuli that the very same subjects and folds have."""
    inside = np.array([np.isin(names, units[positions[known[positions]]]) for positions in strata]).reshape(
        len(strata), len(names)
    )
    _, group = np.unique(inside, axis=1, return_inverse=True)
    return [np.flatnonzero(group.ravel() == number) for number in range(int(group.max()) + 1)]


def _independent(one: np.ndarray, other: np.ndarray, groups: Sequence[np.ndarray]) -> float:
    """Of how many independent stimuli random pairings would scatter as much as they do within the groups."""
    variance = 0.0
    for group in groups:
        squares = [float(((side[group] - side[group].mean()) ** 2).sum()) for side in (one, other)]
        variance += squares[0] * squares[1] / max(1, len(group) - 1)
    most = len(one) - len(groups) + 1
    return min(most, 1 + 1 / variance) if variance > 0 else 0


def _standardised(values: np.ndarray) -> np.ndarray | None:
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    return None if norm <= _TIE else centred / norm


def _interval(rho: float, count: float, widening: float) -> tuple[float, float] | None:
    from scipy.stats import norm

    if count < _FEWEST_FOR_INTERVAL - _TIE:
        return None
    if abs(rho) >= 1 - _TIE:
        return None
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt((1 + rho**2 / 2) / (count - 3)) * widening
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
