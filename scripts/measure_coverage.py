"""How often the 95 % intervals of reports hold the true mean: the table in `docs/evaluation.md`.

python scripts/measure_coverage.py [repeats]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fmri_models.evaluation.bootstrap import interval, paired_difference

STIMULI = (5, 10, 20, 50, 100)
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Population:
    """Scores as they come in reports.

    Args:
        draw: A source of random numbers and a number of stimuli ▶ (stimuli,) scores, or (2, stimuli) of two rows.
        mean: Of the population, or of the difference of the rows.
        bounds: Smallest and largest score that is possible.
    """

    draw: Draw
    mean: float
    bounds: tuple[float, float] | None = (0.0, 1.0)


def _near_ceiling(share: float) -> Draw:
    """Identification: all others are beaten but for some pictures, which beat half of them or more."""
    return lambda source, n: np.where(source.random(n) < share, 1.0, source.uniform(0.5, 1, n))


def _hits(share: float) -> Draw:
    return lambda source, n: (source.random(n) < share).astype(float)


def _two_rows_of_hits(better: float, worse: float) -> Draw:
    """Both right or both wrong but for a share of pictures that one of them alone has right."""

    def draw(source: np.random.Generator, n: int) -> np.ndarray:
        which = source.random(n)
        return np.stack([which < better, (which >= better) & (which < better + worse)]).astype(float)

    return draw


POPULATIONS = {
    "normal": Population(lambda source, n: source.normal(size=n), 0.0, None),
    "skewed (log-normal, σ = .5)": Population(
        lambda source, n: source.lognormal(0, 0.5, n), float(np.exp(0.125)), None
    ),
    "very skewed (log-normal, σ = 1)": Population(
        lambda source, n: source.lognormal(0, 1, n), float(np.exp(0.5)), None
    ),
    "near the ceiling (beta 8, 1)": Population(lambda source, n: source.beta(8, 1, n), 8 / 9),
    "70 % at the ceiling": Population(_near_ceiling(0.7), 0.925),
    "90 % at the ceiling": Population(_near_ceiling(0.9), 0.975),
    "0/1, half right": Population(_hits(0.5), 0.5),
    "0/1, 95 % right": Population(_hits(0.95), 0.95),
    "difference of two rows of 0/1 (.3, .1)": Population(_two_rows_of_hits(0.3, 0.1), 0.2),
    "difference of two rows of 0/1 (.1, .02)": Population(_two_rows_of_hits(0.1, 0.02), 0.08),
}


def coverage(population: Population, stimuli: int, repeats: int, seed: int = 0) -> float:
    """Share of the intervals that are stated that hold the true mean."""
    source = np.random.default_rng(seed)
    ids = [str(number) for number in range(stimuli)]
    held = []
    for repeat in range(repeats):
        scores = population.draw(source, stimuli)
        if scores.ndim == 2:
            bounds = paired_difference(*scores, ids, draws=1000, seed=repeat, bounds=population.bounds).ci95  # type: ignore[union-attr]
        else:
            bounds = interval(scores, ids, draws=1000, seed=repeat, bounds=population.bounds).ci95  # type: ignore[union-attr]
        if bounds is not None:
            held.append(bounds[0] <= population.mean <= bounds[1])
    return float(np.mean(held))


def main(repeats: int) -> None:
    """Prints the table."""
    print(f"| scores | {' | '.join(map(str, STIMULI))} |\n|---|{'---|' * len(STIMULI)}")
    for name, population in POPULATIONS.items():
        shares = (f"{coverage(population, stimuli, repeats):.3f}".lstrip("0") for stimuli in STIMULI)
        print(f"| {name} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
