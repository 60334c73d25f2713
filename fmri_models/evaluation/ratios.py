"""How large a part one paired difference is of another one, with its interval."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from .bootstrap import CONFIDENCE, DRAWS, FEWEST_STIMULI, Interval, stimulus_means

# Values that the bootstrap holds at a time.
_VALUES_AT_ONCE = 2**21


def ratio_of_means(
    part: np.ndarray,
    whole: np.ndarray,
    stimulus_ids: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
    widening: float = 1.0,
) -> Interval | None:
    """The mean of one score over that of another of the same items, with the 95 % interval.

    The interval is the wider one, on either side, of Fieller's (1954), which is exact where both are normal, and a BCa
    bootstrap over stimuli.

    Args:
        part: (N,) such as the advantage of one row over a floor; NaN marks an item without one.
        whole: (N,) such as the advantage of another row over the same floor.
        stimulus_ids: N ids; items of one stimulus count as one.
        draws: Bootstrap samples.
        seed: Of the bootstrap.
        widening: How many times as far as for independent stimuli scores scatter.

    Returns:
        None where `whole` is not beyond doubt other than 0, since nothing is a part of what may be nothing, and with
        fewer than five stimuli.
    """
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    present = np.isfinite(part) & np.isfinite(whole)
    if not present.any():
        return None
    ids = np.asarray(stimulus_ids, dtype=str)[present]
    parts, wholes = stimulus_means(part[present], ids), stimulus_means(whole[present], ids)
    if len(parts) < FEWEST_STIMULI:
        return None
    found = _fieller(parts, wholes, widening)
    if found is None:
        return None
    value = float(parts.mean() / wholes.mean())
    low, high = _bootstrapped(parts, wholes, draws, seed)
    # Where the correction is not defined it is NaN, which widens nothing.
    bounds = [(value + (each - value) * widening) for each in (low, high)]
    return Interval(
        value,
        (float(np.fmin(found[0], bounds[0])), float(np.fmax(found[1], bounds[1]))),
        int(present.sum()),
        len(parts),
    )


def _fieller(parts: np.ndarray, wholes: np.ndarray, widening: float) -> tuple[float, float] | None:
    from scipy.stats import t

    count = len(parts)
    covariance = np.cov(parts, wholes) / count * widening**2
    numerator, denominator = float(parts.mean()), float(wholes.mean())
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, count - 1))
    # The ratios r for which mean(part - r * whole) is not beyond doubt other than 0: those between the roots of
    # a r² - 2 b r + c, where `whole` is beyond doubt other than 0 (a > 0).
    a = denominator**2 - quantile**2 * covariance[1, 1]
    b = numerator * denominator - quantile**2 * covariance[0, 1]
    c = numerator**2 - quantile**2 * covariance[0, 0]
    if not a > 1e-12 * denominator**2:
        return None
    root = math.sqrt(max(0.0, b * b - a * c))
    return (b - root) / a, (b + root) / a


def _bootstrapped(parts: np.ndarray, wholes: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    def ratio(part: np.ndarray, whole: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(part.mean(axis=axis) / whole.mean(axis=axis))

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Where the correction is not defined, as for parts that are all as large as the whole, SciPy warns.
        warnings.simplefilter("ignore")
        found = bootstrap(
            (parts, wholes),
            ratio,
            n_resamples=draws,
            batch=max(1, _VALUES_AT_ONCE // len(parts)),
            confidence_level=CONFIDENCE,
            method="BCa",
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)
