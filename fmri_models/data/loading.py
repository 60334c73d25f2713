"""Batches for training by gradient: processed voxels beside cached targets."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..moved import renamed_argument
from ..names import listed
from ..objectives import Batch
from ..processing_fmri import FmriProcessor
from .processed import ProcessedTrials, Repetitions, processed_subjects
from .table import TrialTable
from .targets import TARGET_SPACES, Target, cached_targets

# Enough for statistics of targets; all of 9,000 pictures' tokens would be 7 GB at the published size.
_MOST_DISTINCT_TARGETS = 4096


class TrialDataset(Dataset):
    """Rows of one or several subjects, one subject after the other, as a map-style data set that gives whole batches.

    ```python
    rows = [ProcessedTrials(table.trials(name), processor) for name in processor.subject_names]
    data = TrialDataset(rows, {"image_embeds": embeddings}, table.stimuli.ids)
    loader = DataLoader(data, batch_size=64, shuffle=True, collate_fn=TrialDataset.collate)
    ```

    Args:
        subjects: Processed voxels, one item a subject, all with the same processor and as many repetitions a row.
        targets: Name to an array with a row a stimulus (may be memory-mapped), in the order of `target_ids`.
        target_ids: The stimulus id of each row of the targets.
        shapes: Name ▶ shape of one target, where a row of the array is that target flattened.

    Raises:
        FmriModelsError: A stimulus has no target, or a target has another number of rows.
    """

    def __init__(
        self,
        subjects: Sequence[ProcessedTrials],
        targets: Mapping[str, np.ndarray] | None = None,
        target_ids: Sequence[str] = (),
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.subjects = list(subjects)
        self.targets = dict(targets or {})
        self.shapes = dict(shapes or {})
        for name, values in self.targets.items():
            if len(values) != len(target_ids):
                raise FmriModelsError(
                    f"The target {name!r} has {len(values)} rows for {len(target_ids)} stimuli; expected one each."
                )
        self._ends = np.cumsum([len(rows) for rows in self.subjects])
        self._target_rows = self._rows_of_targets(target_ids) if self.targets else None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Batch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch.

        Returns:
            `fmri` (B, width) float32, or (B, repetitions, width) if rows hold all of them, zero-padded to the widest
            subject, `subject_ids` (B,) long, `stimulus_ids` list of str, and each target (B, …), floating point as
            float32.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {len(self)}")
        which = np.searchsorted(self._ends, chosen, side="right")
        rows = chosen - np.concatenate([[0], self._ends[:-1]])[which]
        processor = self.subjects[0].processor
        fmri = np.zeros((len(chosen), *self.subjects[0].shape[:-1], processor.width), dtype=np.float32)
        subject_ids = np.empty(len(chosen), dtype=np.int64)
        for number in np.unique(which):
            places, subject = np.flatnonzero(which == number), self.subjects[number]
            fmri[places, ..., : subject.width] = subject[rows[places]]
            subject_ids[places] = processor.subject_names.index(subject.trials.subject)
        batch: Batch = {
            "fmri": torch.from_numpy(fmri),
            "subject_ids": torch.from_numpy(subject_ids),
            "stimulus_ids": [
                str(self.subjects[number].stimulus_ids[row]) for number, row in zip(which, rows, strict=True)
            ],
        }
        if self._target_rows is not None:
            wanted = self._target_rows[chosen]
            targets = {name: self._targets_of(name, wanted) for name in self.targets}
            batch = cast(Batch, {**batch, **targets})
        return batch

    def distinct_targets(self, name: str) -> np.ndarray | None:
        """(pictures, values) targets of each picture that is shown, once, as float32; None if there are none of them.

        Of many pictures, those of 4,096 that are spread evenly.
        """
        if name not in self.targets or self._target_rows is None:
            return None
        rows = np.unique(self._target_rows)
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_DISTINCT_TARGETS)).astype(np.int64)]
        return _gather(self.targets[name], chosen).astype(np.float32)

    @staticmethod
    def collate(batch: Any) -> Any:
        """Gives the batch on as it is, for a `DataLoader`."""
        return batch

    def _targets_of(self, name: str, rows: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(_gather(self.targets[name], rows))
        values = values.float() if values.is_floating_point() else values
        return values.reshape(len(rows), *self.shapes[name]) if name in self.shapes else values

    def _rows_of_targets(self, target_ids: Sequence[str]) -> np.ndarray:
        row_of = {stimulus: row for row, stimulus in enumerate(target_ids)}
        shown = [str(stimulus) for rows in self.subjects for stimulus in rows.stimulus_ids]
        if missing := sorted(set(shown) - row_of.keys()):
            raise FmriModelsError(
                f"{len(missing)} stimuli have no target ({listed(missing)}); expected one for each shown."
            )
        return np.array([row_of[stimulus] for stimulus in shown], dtype=np.int64)


def _gather(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a (possibly memory-mapped) array, each read once and in the order of the file."""
    unique, inverse = np.unique(rows, return_inverse=True)
    return np.ascontiguousarray(np.asarray(values[unique])[inverse])


@renamed_argument("kinds", "targets")
def gradient_trials(
    table: TrialTable,
    processor: FmriProcessor,
    generator: ImageGenerator,
    targets: Sequence[Target],
    parts: Sequence[str],
    split: str = "default",
    fold: int = 0,
    repetitions: Repetitions = "average",
    whole_table: bool = True,
) -> TrialDataset:
    """Processed voxels of all subjects and cached targets of some parts of a split, for training by gradient.

    Args:
        table: The trial table.
        processor: Its subjects are taken, in its order.
        generator: Encodes the pictures; its spaces give the shapes of the targets.
        targets: What is learned.
        parts: Such as `["train", "validation"]`.
        split: Name of the split.
        fold: Fold of the split.
        repetitions: One row a stimulus (with the mean of its trials, or all of them), or one a trial.
        whole_table: Whether targets of all stimuli of the table are cached, for other parts too, or those of these
            parts alone.
    """
    subjects = processed_subjects(table, processor, parts, split, fold, repetitions)
    shown = {str(stimulus) for subject in subjects for stimulus in subject.stimulus_ids}
    ids = [stimulus for stimulus in table.stimuli.ids if whole_table or stimulus in shown]
    # Parts without trials have no targets either.
    values: dict[str, np.ndarray] = {name: cached_targets(table, generator, name, ids) for name in targets if ids}
    shapes: dict[str, tuple[int, ...]] = {name: getattr(generator, TARGET_SPACES[name]).shape for name in targets}
    return TrialDataset(subjects, values, ids, shapes)


class SeededBatches(Sampler[list[int]]):
    """Rows of each batch as a function of the seed and the batch's number alone, so that training resumes anywhere.

    Batches follow each other over epochs without end; each epoch has an order of its own and leaves out its incomplete
    last batch, unless there is no other.

    Args:
        num_rows: Rows of the data.
        batch_size: Rows of a batch, over all processes together.
        seed: Not negative.
        first: Number of the batch to begin with.
        process: Which of the processes this is.
        num_processes: Every process gets an equal slice of each batch.

    Raises:
        FmriModelsError: There are fewer rows in a batch than processes, or they don't divide among them.
    """

    def __init__(
        self, num_rows: int, batch_size: int, seed: int, first: int = 0, process: int = 0, num_processes: int = 1
    ) -> None:
        if batch_size % num_processes:
            raise FmriModelsError(
                f"The batch size {batch_size} is that of all processes together and does not divide among "
                f"{num_processes}; choose a multiple of {num_processes}."
            )
        if num_rows < num_processes:
            raise FmriModelsError(f"There are {num_rows} rows to learn from for {num_processes} processes; use fewer.")
        self.num_rows = num_rows
        self.seed = seed
        self.first = first
        self._size = min(batch_size, num_rows) // num_processes * num_processes
        self._slice = slice(process * self._size // num_processes, (process + 1) * self._size // num_processes)

    @property
    def rows_a_batch(self) -> int:
        """Rows of a batch, over all processes together."""
        return self._size

    @property
    def batches_an_epoch(self) -> int:
        """Complete batches of an epoch."""
        return self.num_rows // self._size

    def __iter__(self) -> Iterator[list[int]]:
        """(rows of this process) of each batch, without end."""
        epoch, number = divmod(self.first, self.batches_an_epoch)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)
            for start in range(number * self._size, self.batches_an_epoch * self._size, self._size):
                yield order[start : start + self._size][self._slice].tolist()
            epoch, number = epoch + 1, 0


def training_batches(data: TrialDataset, batches: SeededBatches, pin_memory: bool = False) -> Iterator[Batch]:
    """Batches without end, as `batches` orders them.

    Args:
        data: The rows.
        batches: Their order.
        pin_memory: Whether they go to a GPU.
    """
    loader = DataLoader(data, batch_sampler=batches, collate_fn=TrialDataset.collate, pin_memory=pin_memory)
    return iter(loader)


def ordered_batches(data: TrialDataset, batch_size: int, process: int = 0, num_processes: int = 1) -> Iterator[Batch]:
    """All rows once, in their order: every `num_processes`-th batch from the one that is `process`.

    Yields:
        Batches with their `number`, from 0 over all processes.
    """
    for number in range(process, math.ceil(len(data) / batch_size), num_processes):
        rows = range(number * batch_size, min((number + 1) * batch_size, len(data)))
        yield {**data.__getitems__(rows), "number": number}
