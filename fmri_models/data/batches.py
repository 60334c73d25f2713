"""In which order examples come, and in which batches: a function of the seed, so that training resumes anywhere."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader, Sampler

from ..batch import Batch
from ..errors import FmriModelsError
from .loading import Examples, TrialDataset


class BatchOrder(Protocol):
    """Which examples each batch has."""

    @property
    def examples_a_batch(self) -> int:
        """Examples of a batch, over all processes together."""

    @property
    def batches_an_epoch(self) -> int:
        """Batches of an epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        """Positions of the examples of this process in each batch, without end."""


class SeededBatches(Sampler[list[int]]):
    """Which examples each batch has: a function of the seed and its number alone, so that training resumes anywhere.

    Batches follow each other over epochs without end; each epoch has an order of its own and leaves out its incomplete
    last batch, unless there is no other.

    Args:
        num_examples: Of the data.
        batch_size: Examples of a batch, over all processes together.
        seed: Not negative.
        first: Number of the batch to begin with.
        process: Which of the processes this is.
        num_processes: Every process gets an equal slice of each batch.

    Raises:
        FmriModelsError: There are fewer examples in a batch than processes, or they don't divide among them.
    """

    def __init__(
        self, num_examples: int, batch_size: int, seed: int, first: int = 0, process: int = 0, num_processes: int = 1
    ) -> None:
        _check_processes(batch_size, num_processes)
        if num_examples < num_processes:
            raise FmriModelsError(
                f"There are {num_examples} rows to learn from for {num_processes} processes; use fewer."
            )
        self.num_examples = num_examples
        self.seed = seed
        self.first = first
        self._size = min(batch_size, num_examples) // num_processes * num_processes
        self._slice = slice(process * self._size // num_processes, (process + 1) * self._size // num_processes)

    @property
    def examples_a_batch(self) -> int:
        """Examples of a batch, over all processes together."""
        return self._size

    @property
    def batches_an_epoch(self) -> int:
        """Complete batches of an epoch."""
        return self.num_examples // self._size

    def __iter__(self) -> Iterator[list[int]]:
        """Positions of the examples of this process in each batch, without end."""
        epoch, number = divmod(self.first, self.batches_an_epoch)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)
            for start in range(number * self._size, self.batches_an_epoch * self._size, self._size):
                yield order[start : start + self._size][self._slice].tolist()
            epoch, number = epoch + 1, 0


class GroupedBatches(Sampler[list[int]]):
    """Batches with the same number of rows of each of several groups of examples, such as those of one subject.

    Each group has an order of its own, drawn anew when all of its examples were seen: smaller groups are seen more
    often than larger ones. As in [`SeededBatches`], a batch is a function of the seed and its number alone. The rows of
    all groups alternate, so that each process has some of every group.

    Args:
        sizes: Examples of each group; the groups follow each other in the data.
        rows: Rows of each group in a batch, over all processes together.
        seed: Not negative.
        first: Number of the batch to begin with.
        process: Which of the processes this is.
        num_processes: Every process gets an equal slice of each batch.
        leading: Groups that make an epoch: one of them, the largest by its share, is seen once; None for all.
        shared: (stimuli, groups, most) positions of the examples of stimuli that every group has, repeated to be as
            many for each stimulus and group; None where none are put together.
        shared_rows: So many rows of each group are those of such stimuli, the same for all groups.

    Raises:
        FmriModelsError: The rows don't divide among the processes, or a group that has rows has no examples.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        rows: Sequence[int],
        seed: int,
        first: int = 0,
        process: int = 0,
        num_processes: int = 1,
        leading: Sequence[int] | None = None,
        shared: np.ndarray | None = None,
        shared_rows: int = 0,
    ) -> None:
        _check_processes(sum(rows), num_processes)
        if not all(size for size, count in zip(sizes, rows, strict=True) if count):
            raise FmriModelsError("A group of a batch has no rows to learn from; leave it out.")
        self._sizes, self._rows = list(sizes), list(rows)
        self.seed = seed
        self.first = first
        self._slice = slice(process * sum(rows) // num_processes, (process + 1) * sum(rows) // num_processes)
        self._leading = range(len(sizes)) if leading is None else leading
        self._shared, self._shared_rows = shared, shared_rows if shared is not None else 0
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        places = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in rows])
        self._alternating = np.argsort(places, kind="stable")
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    @property
    def examples_a_batch(self) -> int:
        """Rows of a batch, over all processes together."""
        return sum(self._rows)

    @property
    def batches_an_epoch(self) -> int:
        """As many as the group needs to be seen once that takes longest."""
        return (
            max((self._sizes[group] // self._rows[group] for group in self._leading if self._rows[group]), default=1)
            or 1
        )

    def __iter__(self) -> Iterator[list[int]]:
        """Positions of the examples of this process in each batch, without end."""
        number = self.first
        while True:
            together = self._together(number)
            own = [
                np.concatenate([together[group], self._starts[group] + self._next(group, number, count)])
                for group, count in enumerate(self._rows)
            ]
            yield np.concatenate(own)[self._alternating][self._slice].tolist()
            number += 1

    def _together(self, number: int) -> np.ndarray:
        """(groups, shared rows) positions of the same stimuli in each group."""
        if self._shared is None or not self._shared_rows:
            return np.empty((len(self._rows), 0), dtype=np.int64)
        drawn = self._drawn(len(self._rows), len(self._shared), number * self._shared_rows, self._shared_rows)
        turns = (number * self._shared_rows + np.arange(self._shared_rows)) // len(self._shared)
        return self._shared[drawn, :, turns % self._shared.shape[2]].T

    def _next(self, group: int, number: int, count: int) -> np.ndarray:
        count -= self._shared_rows
        return self._drawn(group, self._sizes[group], number * count, count)

    def _drawn(self, group: int, size: int, first: int, count: int) -> np.ndarray:
        """(count,) from place `first` on of one random order of `size` after the other."""
        places = np.arange(first, first + count)
        drawn = np.empty(count, dtype=np.int64)
        for epoch in np.unique(places // size).tolist() if count else []:
            chosen = places // size == epoch
            drawn[chosen] = self._order(group, epoch, size)[places[chosen] % size]
        return drawn

    def _order(self, group: int, epoch: int, size: int) -> np.ndarray:
        if self._orders.get(group, (-1, None))[0] != epoch:
            self._orders[group] = epoch, np.random.default_rng([self.seed, group, epoch]).permutation(size)
        return self._orders[group][1]


def _check_processes(batch_size: int, num_processes: int) -> None:
    if batch_size % num_processes:
        raise FmriModelsError(
            f"The batch size {batch_size} is that of all processes together and does not divide among "
            f"{num_processes}; choose a multiple of {num_processes}."
        )


def training_batches(data: Examples, batches: BatchOrder, pin_memory: bool = False) -> Iterator[Batch]:
    """Batches without end, as `batches` orders them.

    Args:
        data: The examples.
        batches: Their order.
        pin_memory: Whether they go to a GPU.
    """
    examples: Any = data
    order: Any = batches
    loader: DataLoader[Any] = DataLoader(
        examples, batch_sampler=order, collate_fn=TrialDataset.collate, pin_memory=pin_memory
    )
    return iter(loader)


def with_unpaired(batches: Iterator[Batch], others: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """The batches, each with the next one of each further source, of whose examples nothing but the fMRI is known."""
    if not others:
        return batches
    return ({**batch, "unpaired": [{"fmri": next(other)["fmri"]} for other in others]} for batch in batches)


def ordered_batches(data: Examples, batch_size: int, process: int = 0, num_processes: int = 1) -> Iterator[Batch]:
    """All examples once, in their order: every `num_processes`-th batch from the one that is `process`.

    Yields:
        Batches with their `number`, from 0 over all processes.
    """
    for number in range(process, math.ceil(len(data) / batch_size), num_processes):
        positions = range(number * batch_size, min((number + 1) * batch_size, len(data)))
        yield {**data.__getitems__(positions), "number": number}
