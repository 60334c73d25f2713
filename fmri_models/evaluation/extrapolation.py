"""What a score would be if infinitely many repetitions were averaged: fitted, and refused where nothing tells it.

A score that is a correlation falls by noise as Spearman and Brown have it: a decoder that is linear in the mean of n
responses, whose noise has k times the variance of what it decodes without noise, correlates with the truth as
s(n) = s∞ √(n / (n + k)). A mean squared error of such a decoder is s(n) = s∞ + a / n. Other scores, other decoders and
generators that draw at random follow neither for sure: for them the same curves are a description of what was measured,
and what they say of infinitely many is a guess. Shares of successes are counted from what guessing scores.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .bootstrap import CONFIDENCE, DRAWS, FEWEST_STIMULI, TIE_MARGIN, interval
from .named_metrics import Metric

Form = Literal["attenuation", "noise"]
"""`"attenuation"`: s∞ √(n / (n + k)) above chance; `"noise"`: s∞ + a / n."""

FEWEST_POINTS = 3
# A limit beyond √(1 + 10), some three times the largest score that was measured, is told by nothing.
_LARGEST_NOISE = 10
_GRID = 1000
_SMALLEST_NOISE = 1e-3
# Of the draws of a bootstrap, as many as lie beyond either end of an interval.
_TAIL = (1 - CONFIDENCE) / 2


@dataclass(frozen=True)
class Limit:
    """The score of infinitely many averaged repetitions, which nobody has measured.

    Args:
        value: As the curve has it.
        ci95: Interval over stimuli.
        form: Of the curve.
        noise: k, or a, of the curve.
        residual: How far a measured mean is from the curve at most.
        stimuli: From how many it is.
    """

    value: float
    ci95: tuple[float, float]
    form: Form
    noise: float
    residual: float
    stimuli: int


@dataclass(frozen=True)
class _Curve:
    """A form with what is done to scores before and after it is fitted."""

    form: Form
    transformed: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]

    def fitted(self, points: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Limits (draws,), noise (draws,) and fitted scores (draws, points) of transformed mean scores."""
        return (_attenuated if self.form == "attenuation" else _noisy)(points, numbers)


def limit(
    numbers: Sequence[int],
    scores: np.ndarray,
    metric: Metric,
    chance: float | None,
    widening: float = 1.0,
    seed: int = 0,
) -> Limit | str:
    """The limit of a curve.

    Args:
        numbers: (points,) how many repetitions were averaged, ascending.
        scores: (points, stimuli) each stimulus' mean score; all finite.
        metric: Says which curve fits.
        chance: What guessing scores; None if that is not known.
        widening: How many times as far as for independent stimuli the bounds of intervals are from the value.
        seed: Of the bootstrap.

    Returns:
        A sentence where nothing can be told, and why.
    """
    stimuli = scores.shape[1]
    if len(numbers) < FEWEST_POINTS:
        return f"a curve through {len(numbers)} points says nothing of where it ends; {FEWEST_POINTS} are needed"
    if stimuli < FEWEST_STIMULI:
        return f"{stimuli} stimuli tell nothing of how far a limit would scatter; {FEWEST_STIMULI} are needed"
    curve, counts = _curve_of(metric, chance), np.asarray(numbers, dtype=np.float64)
    points = curve.transformed(scores)
    refusal = _without_rise(points, curve.form, widening, seed)
    if refusal is not None:
        return refusal
    of_draws, noise_of_draws, _ = curve.fitted(_resampled(points, seed), counts)
    (value,), (noise,), fitted = curve.fitted(points.mean(1)[None], counts)
    if curve.form == "attenuation" and (noise_of_draws >= _LARGEST_NOISE * counts[-1] * 0.999).mean() > _TAIL:
        return "scores still rise so steeply that the curve fits any limit"
    found, bounds = float(curve.back(value)), metric.bounds
    if not bounds[0] <= found <= bounds[1]:
        return (
            f"the curve would end at {found:.3f}, which no score can be: so near their limits scores follow another one"
        )
    ends = sorted(curve.back(np.quantile(of_draws, [_TAIL, 1 - _TAIL])).tolist())
    factor = widening * _few_stimuli(stimuli)
    low, high = (found + (end - found) * factor for end in ends)
    return Limit(
        found,
        (max(bounds[0], min(low, found)), min(bounds[1], max(high, found))),
        curve.form,
        float(noise),
        float(np.abs(fitted[0] - points.mean(1)).max()),
        stimuli,
    )


def fitted_score(numbers: np.ndarray, found: Limit, metric: Metric, chance: float | None) -> np.ndarray:
    """(points,) what the curve of a limit has at some numbers of repetitions, for plots."""
    curve = _curve_of(metric, chance)
    if found.form == "noise":
        return found.value + found.noise / numbers
    end = curve.transformed(np.asarray(found.value))
    return curve.back(end * np.sqrt(numbers / (numbers + found.noise)))


def _curve_of(metric: Metric, chance: float | None) -> _Curve:
    if not metric.higher_is_better and math.isfinite(metric.bounds[1]):
        # A distance that is one minus a correlation.
        return _Curve("attenuation", lambda scores: 1 - scores, lambda found: 1 - found)
    if not metric.higher_is_better:
        return _Curve("noise", lambda scores: scores, lambda found: found)
    level = chance or 0.0
    return _Curve("attenuation", lambda scores: scores - level, lambda found: found + level)


def _without_rise(points: np.ndarray, form: Form, widening: float, seed: int) -> str | None:
    """Why these scores have no limit that a rising curve could have; None if they may have one."""
    ids = [str(number) for number in range(points.shape[1])]
    better = points[-1] - points[0] if form == "attenuation" else points[0] - points[-1]
    gain = interval(better, ids, DRAWS, seed, widening=widening)
    # Without an interval it is the same for all stimuli.
    if gain is not None and (gain.value if gain.ci95 is None else gain.ci95[1]) < -TIE_MARGIN:
        return "scores fall as repetitions are averaged, which no noise explains"
    if form == "attenuation":
        last = interval(points[-1], ids, DRAWS, seed, widening=widening)
        if last is None or (last.ci95[0] if last.ci95 is not None else last.value) <= 0:
            return (
                "the score of most repetitions is not beyond doubt above guessing, so that there is nothing to extend"
            )
    return None


def _attenuated(points: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    noises = np.append(0.0, np.geomspace(_SMALLEST_NOISE, _LARGEST_NOISE * numbers[-1], _GRID))
    shapes = np.sqrt(numbers / (numbers + noises[:, None]))
    products, lengths = np.clip(points @ shapes.T, 0, None), (shapes**2).sum(1)
    best = (products**2 / lengths).argmax(1)
    limits = products[np.arange(len(points)), best] / lengths[best]
    return limits, noises[best], limits[:, None] * shapes[best]


def _noisy(points: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shares = 1 / numbers
    centred = shares - shares.mean()
    slopes = np.clip(points @ centred / (centred @ centred), 0, None)
    limits = points.mean(1) - slopes * shares.mean()
    return limits, slopes, limits[:, None] + slopes[:, None] * shares


def _resampled(points: np.ndarray, seed: int) -> np.ndarray:
    """(draws, points) means over stimuli that were drawn with replacement, the same ones at all points."""
    stimuli = points.shape[1]
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(stimuli, np.full(stimuli, 1 / stimuli), size=DRAWS)
    return weights @ points.T / stimuli


def _few_stimuli(count: int) -> float:
    """How much wider than a percentile bootstrap's an interval of so few stimuli has to be: as Student's t is."""
    from scipy.stats import norm, t

    return float(t.ppf(1 - _TAIL, count - 1) / norm.ppf(1 - _TAIL) * math.sqrt(count / (count - 1)))
