"""In which order examples come, and in which batches: a function of the seed, so that training resumes anywhere."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DataLoader, Sampler

from ..errors import FmriModelsError
from ..objectives import Batch
from .loading import TrialDataset


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
        if batch_size % num_processes:
            raise FmriModelsError(
                f"The batch size {batch_size} is that of all processes together and does not divide among "
                f"{num_processes}; choose a multiple of {num_processes}."
            )
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


def training_batches(data: TrialDataset, batches: SeededBatches, pin_memory: bool = False) -> Iterator[Batch]:
    """Batches without end, as `batches` orders them.

    Args:
        data: The examples.
        batches: Their order.
        pin_memory: Whether they go to a GPU.
    """
    loader = DataLoader(data, batch_sampler=batches, collate_fn=TrialDataset.collate, pin_memory=pin_memory)
    return iter(loader)


def with_unpaired(batches: Iterator[Batch], others: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """The batches, each with the next one of each further source, of whose examples nothing but the fMRI is known."""
    if not others:
        return batches
    return ({**batch, "unpaired": [{"fmri": next(other)["fmri"]} for other in others]} for batch in batches)


def ordered_batches(data: TrialDataset, batch_size: int, process: int = 0, num_processes: int = 1) -> Iterator[Batch]:
    """All examples once, in their order: every `num_processes`-th batch from the one that is `process`.

    Yields:
        Batches with their `number`, from 0 over all processes.
    """
    for number in range(process, math.ceil(len(data) / batch_size), num_processes):
        positions = range(number * batch_size, min((number + 1) * batch_size, len(data)))
        yield {**data.__getitems__(positions), "number": number}
