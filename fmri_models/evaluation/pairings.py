"""Which other stimuli the finished reconstructions are paired with, for the permutation test."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def stimulus_pairings(
    stimuli: np.ndarray, strata: Sequence[np.ndarray], permutations: int, seed: int
) -> tuple[np.ndarray, bool]:
    """Which stimulus each item is paired with in each permutation, and whether these are all that there are.

    Args:
        stimuli: (N,) number of what each item shows.
        strata: Positions of the items of each subject, seed and fold, and of the session or block where stimuli are
            exchanged inside those alone (see [`within`]).
        permutations: Largest number of pairings.
        seed: Of those that are drawn.

    Returns:
        (pairings, N) numbers of stimuli. All of them are few where stimuli are; they then include the true pairing.
    """
    numbers = np.arange(stimuli.max() + 1)
    classes = exchangeable(numbers, [stimuli[positions] for positions in strata])
    number = math.prod(math.factorial(len(each)) for each in classes)
    exhaustive = number <= permutations
    partners = np.tile(numbers, (number if exhaustive else permutations, 1))
    orders = _all_orders(classes) if exhaustive else _random_orders(classes, np.random.default_rng(seed))
    for pairing, order in zip(partners, orders, strict=False):
        for own, other in zip(classes, order, strict=True):
            pairing[own] = other
    return partners[:, stimuli], exhaustive


def _all_orders(classes: Sequence[np.ndarray]) -> Iterator[Sequence[Any]]:
    return itertools.product(*(itertools.permutations(each.tolist()) for each in classes))


def _random_orders(classes: Sequence[np.ndarray], generator: np.random.Generator) -> Iterator[Sequence[Any]]:
    while True:
        yield [generator.permutation(each) for each in classes]


def within(strata: Sequence[np.ndarray], blocks: np.ndarray | None) -> list[np.ndarray]:
    """Strata parted by where their items were recorded.

    A stimulus that is in several blocks is exchanged with those that are in the same ones.

    Args:
        strata: Positions of the items of each subject, seed and fold.
        blocks: (N,) names of each item's session, run or block, of several where its trials are of several; None parts
            nothing.
    """
    if blocks is None:
        return list(strata)
    return [positions[blocks[positions] == block] for positions in strata for block in np.unique(blocks[positions])]


def exchangeable(stimuli: np.ndarray, of_strata: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Groups of stimuli that the same subjects, seeds and folds have."""
    present = np.zeros((len(stimuli), len(of_strata)), dtype=bool)
    for number, shown in enumerate(of_strata):
        present[shown, number] = True
    _, group = np.unique(present, axis=0, return_inverse=True)
    return [stimuli[group.ravel() == number] for number in range(group.max() + 1)]
