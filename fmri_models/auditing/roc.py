"""How well scores tell two groups apart: the area under the ROC curve, with what chance does."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from scipy.stats import t as student

# With fewer on a side, an interval says nothing.
FEWEST = 10
_DRAWS = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve.

    Args:
        value: The chance that a score of the first group is above one of the second; .5 tells nothing.
        ci95: Its 95 % interval.
        p: Of the null that the groups do not differ, against that they do, in either direction.
        n: How many units each group has.
    """

    value: float
    ci95: tuple[float, float]
    p: float
    n: tuple[int, int]


def area(first: np.ndarray, second: np.ndarray) -> float:
    """The area alone; ties count half."""
    ranks = rankdata(np.concatenate([first, second]))
    count = len(first)
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(second)))


def area_of(first: np.ndarray, second: np.ndarray, seed: int, draws: int = _DRAWS) -> Area:
    """The area with its interval and p; the scores are of units that may be exchanged under the null.

    The interval is the wider one, on either side, of a bootstrap over the units of either group and of Hanley and
    McNeil's (1982) on the scale of the logit, whose area is kept half a unit away from 0 and 1, so that groups that do
    not overlap at all do not have a point for an interval. p exchanges the groups' labels.

    Args:
        first: (n,) scores, one a unit.
        second: (m,) likewise.
        seed: Of bootstrap and exchanges.
        draws: How many of each.
    """
    rng = np.random.default_rng(seed)
    value = area(first, second)
    resampled = [area(rng.choice(first, len(first)), rng.choice(second, len(second))) for _ in range(draws)]
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    closed_low, closed_high = _in_closed_form(value, len(first), len(second))
    return Area(
        value,
        (float(min(low, closed_low)), float(max(high, closed_high))),
        _exchanged(first, second, value, rng, draws),
        (len(first), len(second)),
    )


def difference_of(
    first: np.ndarray, second: np.ndarray, first_other: np.ndarray, second_other: np.ndarray, seed: int
) -> tuple[float, tuple[float, float]]:
    """How much better one kind of score tells the groups apart than another one of the same units, and its interval.

    The interval is the wider one, on either side, of a bootstrap over the units and of DeLong's (1988) with a quantile
    of Student's t for the smaller group.
    """
    rng = np.random.default_rng(seed)
    value = area(first, second) - area(first_other, second_other)
    drawn = []
    for _ in range(_DRAWS):
        left, right = rng.integers(len(first), size=len(first)), rng.integers(len(second), size=len(second))
        drawn.append(area(first[left], second[right]) - area(first_other[left], second_other[right]))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    of_first, of_second = (
        one - other
        for one, other in zip(_placements(first, second), _placements(first_other, second_other), strict=True)
    )
    deviation = np.sqrt(of_first.var(ddof=1) / len(first) + of_second.var(ddof=1) / len(second))
    reach = student.ppf(1 - tail, min(len(first), len(second)) - 1) * deviation
    return value, (float(min(low, value - reach)), float(max(high, value + reach)))


def share_of(shares: np.ndarray) -> tuple[float, tuple[float, float]]:
    """The mean of shares from 0 to 1, one a unit, and its 95 % interval.

    Student's on the scale of the logit, whose mean is kept half a unit away from 0 and 1; of shares that are all 0 or
    all 1, the exact bound for that many units.
    """
    value, number = float(shares.mean()), len(shares)
    tail = (1 - _CONFIDENCE) / 2
    if value in (0.0, 1.0):
        edge = tail ** (1 / number)
        return value, ((edge, 1.0) if value == 1 else (0.0, 1 - edge))
    kept = min(max(value, 0.5 / number), 1 - 0.5 / number)
    reach = student.ppf(1 - tail, number - 1) * shares.std(ddof=1) / np.sqrt(number) / (kept * (1 - kept))
    return value, (min(float(expit(logit(kept) - reach)), value), max(float(expit(logit(kept) + reach)), value))


def _placements(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each unit, the share of the other group that it is on the right side of; the means of both are the area."""
    ranks = rankdata(np.concatenate([first, second]))
    of_first = (ranks[: len(first)] - rankdata(first)) / len(second)
    of_second = 1 - (ranks[len(first) :] - rankdata(second)) / len(first)
    return of_first, of_second


def _in_closed_form(value: float, count: int, other: int) -> tuple[float, float]:
    half_a_unit = 0.5 / min(count, other)
    kept = min(max(value, half_a_unit), 1 - half_a_unit)
    of_first, of_second = kept / (2 - kept), 2 * kept**2 / (1 + kept)
    spread = kept * (1 - kept) + (count - 1) * (of_first - kept**2) + (other - 1) * (of_second - kept**2)
    deviation = np.sqrt(spread / (count * other)) / (kept * (1 - kept))
    reach = norm.ppf(0.5 + _CONFIDENCE / 2) * deviation
    low, high = expit(logit(kept) - reach), expit(logit(kept) + reach)
    return min(float(low), value), max(float(high), value)


def _exchanged(first: np.ndarray, second: np.ndarray, value: float, rng: np.random.Generator, draws: int) -> float:
    ranks = rankdata(np.concatenate([first, second]))
    count, other = len(first), len(second)
    drawn = np.array([rng.permutation(ranks)[:count].sum() for _ in range(draws)])
    areas = (drawn - count * (count + 1) / 2) / (count * other)
    as_far = np.abs(areas - 0.5) >= abs(value - 0.5) - 1e-12
    return float((1 + as_far.sum()) / (1 + draws))
