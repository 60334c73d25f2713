"""How well scores tell two groups apart: the area under the ROC curve, with what chance does."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

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
    """How much better one kind of score tells the groups apart than another one of the same units, and its interval."""
    rng = np.random.default_rng(seed)
    value = area(first, second) - area(first_other, second_other)
    drawn = []
    for _ in range(_DRAWS):
        left, right = rng.integers(len(first), size=len(first)), rng.integers(len(second), size=len(second))
        drawn.append(area(first[left], second[right]) - area(first_other[left], second_other[right]))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return value, (float(low), float(high))


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
