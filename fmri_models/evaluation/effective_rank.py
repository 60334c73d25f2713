"""In how many directions vectors vary, and with what interval.

Both measures are of the eigenvalues λ of the covariance. They grow with the number of vectors until there are many
times more of these than directions, so that only numbers of equally many vectors can be compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import CONFIDENCE, FEWEST_STIMULI

GROUPS = 20
"""Of stimuli, of which one is left out at a time."""
_COLUMNS = 4096
# Variance below this times that of the vectors' length is rounding of float32.
_ROUNDING = 1e-12


class EffectiveRank(NamedTuple):
    """In how many directions vectors vary.

    Attributes:
        participation: (Σλ)² / Σλ², the participation ratio.
        entropy: exp of the entropy of λ / Σλ (Roy & Vetterli, 2007), at least the participation ratio.
    """

    participation: float
    entropy: float


@dataclass(frozen=True)
class RankRatio:
    """How many times as many directions one set of vectors has as another.

    Args:
        ratio: Geometric mean over subjects and folds.
        ci95: Of a jackknife over groups of stimuli, on the scale of logarithms; None with fewer than five stimuli.
        stimuli: How many there are.
    """

    ratio: float
    ci95: tuple[float, float] | None
    stimuli: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "ratio": self.ratio,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "stimuli": self.stimuli,
        }


def gram(vectors: np.ndarray) -> np.ndarray:
    """(n, n) float64 scalar products of vectors (n, F), less their mean; wide ones become float64 in blocks."""
    found = np.zeros((len(vectors), len(vectors)))
    for start in range(0, vectors.shape[1], _COLUMNS):
        block = np.asarray(vectors[:, start : start + _COLUMNS], dtype=np.float64)
        block = block - block.mean(axis=0)
        found += block @ block.T
    return found


def effective_rank(products: np.ndarray) -> EffectiveRank | None:
    """Of vectors whose scalar products (n, n) are given; None where they do not vary."""
    centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
    total = float(np.trace(centred))
    if len(centred) < 2 or total <= _ROUNDING * max(float(np.abs(products).max()), 1e-300) * len(centred):
        return None
    values = np.linalg.eigvalsh((centred + centred.T) / 2).clip(min=0)
    shares = values[values > 0] / values.sum()
    return EffectiveRank(float(1 / (shares**2).sum()), float(np.exp(-(shares * np.log(shares)).sum())))


def participation_ratio(products: np.ndarray) -> float:
    """(Σλ)² / Σλ² of vectors whose scalar products (n, n) are given, without the eigenvalues."""
    centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
    squares = float((centred**2).sum())
    return float(np.trace(centred) ** 2 / squares) if squares > 0 else math.nan


def rank_ratio(
    ones: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    units: Sequence[np.ndarray],
    seed: int = 0,
    widening: float = 1.0,
) -> RankRatio | None:
    """The ratio of participation ratios of vectors of the same stimuli.

    A bootstrap would draw stimuli twice, which lowers every rank. Groups of stimuli are left out instead, the same of
    both sides and in all subjects.

    Args:
        ones: (n, n) scalar products for each subject and fold.
        others: Likewise, of the same stimuli.
        units: (n,) stimuli for each.
        seed: Of the groups.
        widening: How many times as far as for independent stimuli the interval reaches.

    Returns:
        None where a side does not vary.
    """
    from scipy.stats import t

    names = np.unique(np.concatenate(list(units)))
    everything = [np.ones(len(each), dtype=bool) for each in units]
    found = _mean_log_ratio(ones, others, everything)
    if not math.isfinite(found):
        return None
    groups = min(GROUPS, len(names))
    if groups < FEWEST_STIMULI:
        return RankRatio(math.exp(found), None, len(names))
    group = np.random.default_rng(seed).permutation(len(names)) % groups
    of_unit = [group[np.searchsorted(names, each)] for each in units]
    without = np.asarray(
        [_mean_log_ratio(ones, others, [each != number for each in of_unit]) for number in range(groups)]
    )
    if not np.isfinite(without).all():
        return RankRatio(math.exp(found), None, len(names))
    spread = math.sqrt((groups - 1) / groups * float(((without - without.mean()) ** 2).sum()))
    half = float(t.ppf((1 + CONFIDENCE) / 2, groups - 1)) * spread * widening
    return RankRatio(math.exp(found), (math.exp(found - half), math.exp(found + half)), len(names))


def _mean_log_ratio(ones: Sequence[np.ndarray], others: Sequence[np.ndarray], kept: Sequence[np.ndarray]) -> float:
    logs = []
    for one, other, chosen in zip(ones, others, kept, strict=True):
        if chosen.sum() < 2:
            continue
        sides = [participation_ratio(each[np.ix_(chosen, chosen)]) for each in (one, other)]
        if not all(side > 0 for side in sides):
            return math.nan
        logs.append(math.log(sides[0] / sides[1]))
    return float(np.mean(logs)) if logs else math.nan
