"""Intervals and tests whose unit is the stimulus.

Scores of several subjects (or seeds) for one stimulus are not independent, so stimuli are drawn with all their items.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DRAWS = 2000
PERMUTATIONS = 200


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile bootstrap interval.

    Args:
        value: Mean over items.
        ci95: Lower and upper bound; None with fewer than two stimuli.
        n: Number of items that have a score.
    """

    value: float
    ci95: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A paired difference, positive where the first is better.

    Args:
        difference: Mean over the items that both sides have.
        ci95: Lower and upper bound; None with fewer than two stimuli.
        n: Number of those items.
    """

    difference: float
    ci95: tuple[float, float] | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True)
class Permutation:
    """What a metric scores when finished reconstructions are re-paired with stimuli at random.

    Args:
        mean: Mean over permutations.
        sd: Standard deviation over permutations.
        n: Number of permutations.
        p: Share of permutations at least as good as the observed pairing, with the observed one counted among them.
    """

    mean: float
    sd: float
    n: int
    p: float


def interval(values: np.ndarray, stimulus_ids: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Interval | None:
    """The mean of item scores and its 95 % interval.

    Args:
        values: (N,) scores; NaN marks an item without one.
        stimulus_ids: N ids; items of one stimulus are drawn together.
        draws: Bootstrap samples.
        seed: Equal seeds draw the same stimuli, so rows of a report are comparable.

    Returns:
        None if no item has a score.
    """
    values = np.asarray(values, dtype=np.float64)
    present = np.isfinite(values)
    if not present.any():
        return None
    return Interval(
        float(values[present].mean()), _percentiles(values, present, stimulus_ids, draws, seed), int(present.sum())
    )


def paired_difference(
    values: np.ndarray,
    other: np.ndarray,
    stimulus_ids: Sequence[str],
    higher_is_better: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference | None:
    """The mean advantage of one row over another on the same items, with its 95 % interval.

    Args:
        values: (N,) scores of the first row; NaN marks an item without one.
        other: (N,) scores of the second row.
        stimulus_ids: N ids.
        higher_is_better: False turns the sign, so that positive always favours the first row.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        None if no item has both scores.
    """
    advantage = np.asarray(values, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    result = interval(advantage if higher_is_better else -advantage, stimulus_ids, draws, seed)
    return None if result is None else Difference(result.value, result.ci95, result.n)


def permutation_test(scores: np.ndarray, observed: float, higher_is_better: bool = True) -> Permutation:
    """Compares the true pairing of reconstructions and stimuli with random ones.

    Args:
        scores: (permutations,) the metric's mean under each random pairing.
        observed: Its mean under the true one.
        higher_is_better: Direction of the metric.
    """
    # Sums in another order differ in the last bits; such scores are equal.
    margin = 1e-12 * max(1.0, abs(observed))
    as_good = scores >= observed - margin if higher_is_better else scores <= observed + margin
    p = (1 + int(as_good.sum())) / (1 + len(scores))
    spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    return Permutation(float(scores.mean()), spread, len(scores), p)


def _percentiles(
    values: np.ndarray, present: np.ndarray, stimulus_ids: Sequence[str], draws: int, seed: int
) -> tuple[float, float] | None:
    """Bounds over draws of stimuli; a stimulus enters with the sum and the number of its scores."""
    # Numbering all stimuli, also those without a score, makes equal seeds draw equal stimuli for every metric.
    names, cluster = np.unique(np.asarray(stimulus_ids, dtype=str), return_inverse=True)
    sums = np.bincount(cluster[present], weights=values[present], minlength=len(names))
    counts = np.bincount(cluster[present], minlength=len(names)).astype(np.float64)
    if (counts > 0).sum() < 2:
        return None
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    drawn = weights @ counts
    means = (weights @ sums)[drawn > 0] / drawn[drawn > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
