"""Which rows a batch of several subjects has: as a stage's `sampling` and a recipe's sources say."""

from collections.abc import Sequence

import numpy as np

from ..data.batches import BatchOrder, GroupedBatches, SeededBatches
from ..data.loading import Examples
from ..errors import FmriModelsError
from .options import TrainingOptions


def batch_order(
    data: Examples,
    options: TrainingOptions,
    seed: int,
    first: int = 0,
    process: int = 0,
    num_processes: int = 1,
) -> BatchOrder:
    """The order of a stage's examples.

    Args:
        data: The examples, those of further sources behind the recipe's own.
        options: Of the stage.
        seed: Of the order.
        first: Number of the batch to begin with.
        process: Which of the processes this is.
        num_processes: Processes that share each batch.

    Raises:
        FmriModelsError: The batch does not divide among processes, subjects or sources, or no stimulus is shared.
    """
    shared = shared_examples(data.shown, data.subject_sizes) if options.shared_stimuli else None
    return order_of_sizes(data.subject_sizes, data.num_own, options, seed, first, process, num_processes, shared)


def order_of_sizes(
    sizes: Sequence[int],
    num_own: int,
    options: TrainingOptions,
    seed: int = 0,
    first: int = 0,
    process: int = 0,
    num_processes: int = 1,
    shared: np.ndarray | None = None,
) -> BatchOrder:
    """The same of so many examples of each subject, of which `num_own` subjects are of the recipe's own table."""
    where = (seed, first, process, num_processes)
    if num_own == len(sizes) and (options.sampling == "proportional" or len(sizes) == 1):
        return SeededBatches(sum(sizes), options.batch_size, *where)
    groups, rows, leading = group_rows(sizes, num_own, options)
    shared_rows = round(options.shared_stimuli * min(rows)) if shared is not None else 0
    return GroupedBatches(groups, rows, *where, leading=leading, shared=shared, shared_rows=shared_rows)


def group_rows(sizes: Sequence[int], num_own: int, options: TrainingOptions) -> tuple[list[int], list[int], list[int]]:
    """Examples of each group that is drawn from on its own, its rows in a batch, and the groups that make an epoch.

    Args:
        sizes: Examples of each subject, those of further sources behind the recipe's own.
        num_own: Subjects of the recipe's own table.
        options: Of the stage.

    Raises:
        FmriModelsError: The rows do not divide.
    """
    own, sources = list(sizes[:num_own]), list(sizes[num_own:])
    of_sources = round(options.batch_size * options.source_share) if sources else 0
    if sources and not 0 < of_sources < options.batch_size:
        raise FmriModelsError(
            f"A batch of {options.batch_size} rows has none of the sources, or none beside them, with source_share "
            f"{options.source_share:g}; choose a larger training.batch_size."
        )
    if options.sampling == "proportional":
        groups = [sum(own), *([sum(sources)] if sources else [])]
        rows = [options.batch_size - of_sources, *([of_sources] if sources else [])]
        return groups, rows, [0]
    rows = [
        *_equal_rows(options.batch_size - of_sources, len(own), "of the recipe's table"),
        *_equal_rows(of_sources, len(sources), "of the sources"),
    ]
    return [*own, *sources], rows, list(range(num_own))


def shared_examples(shown: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """(stimuli, subjects, most) positions of the examples of each stimulus that all subjects have seen.

    Args:
        shown: (examples,) what tells stimuli apart; empty where there is none.
        sizes: Examples of each subject, one after the other.

    Raises:
        FmriModelsError: There is no such stimulus.
    """
    ends = np.cumsum(sizes)
    found: list[dict[str, list[int]]] = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        places: dict[str, list[int]] = {}
        for place in range(start, end):
            places.setdefault(str(shown[place]), []).append(place)
        found.append(places)
    common = sorted(set.intersection(*(set(places) for places in found)) - {""})
    if not common:
        raise FmriModelsError(
            "training.shared_stimuli asks for stimuli that all subjects have seen, and there is none among those that "
            "are learned from; leave it out."
        )
    most = max(len(places[stimulus]) for places in found for stimulus in common)
    return np.array([[np.resize(places[stimulus], most) for places in found] for stimulus in common])


def _equal_rows(rows: int, subjects: int, what: str) -> list[int]:
    if subjects and rows % subjects:
        raise FmriModelsError(
            f"{rows} rows of a batch do not divide among the {subjects} subjects {what}, of which sampling: balanced "
            f"takes equally many; choose a training.batch_size with a multiple of {subjects} for them."
        )
    return [rows // subjects] * subjects if subjects else []
