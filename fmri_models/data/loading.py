"""Examples for training by gradient: processed voxels beside cached targets."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch.utils.data import Dataset

from ..batch import Batch
from ..deprecation import renamed_argument
from ..errors import FmriModelsError
from ..names import listed
from ..processing_fmri import FmriProcessor
from .mapped_rows import MappedRows
from .processed import ProcessedTrials, Repetitions, processed_subjects
from .table import TrialTable
from .target_options import DEFAULT_TARGET_OPTIONS, TargetOptions
from .targets import TARGET_SPACES, Target, cached_targets

if TYPE_CHECKING:
    from ..generation.image_generator import ImageGenerator

# Enough for statistics of targets; all of 9,000 pictures' tokens would be 7 GB at the published size.
_MOST_DISTINCT_TARGETS = 4096


class Examples(Protocol):
    """Examples of one or several subjects, one after the other, that give whole batches."""

    @property
    def subject_sizes(self) -> list[int]:
        """How many examples each subject has that has any, in their order."""

    @property
    def num_own(self) -> int:
        """How many of these are of the recipe's own table; those of further sources come behind."""

    @property
    def shown(self) -> np.ndarray:
        """(examples,) str: what tells the stimulus of each example from others; empty where there is none."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Batch: ...

    def distinct_targets(self, name: str) -> np.ndarray | None:
        """(pictures, values) targets of each picture that is shown, once, as float32; None if there are none."""


class TrialDataset(Dataset):
    """Examples of one or several subjects, one after the other, as a map-style data set that gives whole batches.

    ```python
    subjects = [ProcessedTrials(table.trials(name), processor) for name in processor.subject_names]
    data = TrialDataset(subjects, {"image_embeds": embeddings}, table.stimuli.ids)
    loader = DataLoader(data, batch_size=64, shuffle=True, collate_fn=TrialDataset.collate)
    ```

    Args:
        subjects: Processed voxels, all with the same processor and as many repetitions an example.
        targets: Name ▶ (stimuli, values), which may be memory-mapped, in the order of `target_ids`.
        target_ids: The stimulus ids.
        shapes: Name ▶ shape of one target, where the array has it flattened.

    Raises:
        FmriModelsError: A stimulus has no target, or a target another number of stimuli.
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
        self._rows = {name: MappedRows(np.asanyarray(values)) for name, values in self.targets.items()}
        self._ends = np.cumsum([len(examples) for examples in self.subjects])
        self._stimuli = self._positions_of_stimuli(target_ids) if self.targets else None
        self._stimulus = stimulus_numbers(self.shown)

    @property
    def subject_sizes(self) -> list[int]:
        """How many examples each subject has that has any, in their order."""
        return [len(examples) for examples in self.subjects if len(examples)]

    @property
    def num_own(self) -> int:
        """All subjects are of one table."""
        return len(self.subject_sizes)

    @property
    def shown(self) -> np.ndarray:
        """(examples,) str stimulus of each example; empty where there is none."""
        return np.concatenate([np.empty(0, dtype=str), *(examples.stimulus_ids for examples in self.subjects)])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Batch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch.

        Returns:
            `fmri` (B, width) float32, or (B, repetitions, width) if examples hold all of them, zero-padded to the
            widest subject, `subject_ids` (B,) long, `stimulus_ids` list of str, `stimulus` (B,) long, the same number
            for rows of the same stimulus and -1 for those without one, and each target (B, …), floating point as
            float32.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {len(self)}")
        which = np.searchsorted(self._ends, chosen, side="right")
        positions = chosen - np.concatenate([[0], self._ends[:-1]])[which]
        processor = self.subjects[0].processor
        fmri = np.zeros((len(chosen), *self.subjects[0].shape[:-1], processor.width), dtype=np.float32)
        subject_ids = np.empty(len(chosen), dtype=np.int64)
        for number in np.unique(which):
            places, subject = np.flatnonzero(which == number), self.subjects[number]
            fmri[places, ..., : subject.width] = subject[positions[places]]
            subject_ids[places] = processor.subject_names.index(subject.trials.subject)
        batch: Batch = {
            "fmri": torch.from_numpy(fmri),
            "subject_ids": torch.from_numpy(subject_ids),
            "stimulus_ids": [
                str(self.subjects[number].stimulus_ids[position])
                for number, position in zip(which, positions, strict=True)
            ],
            "stimulus": torch.from_numpy(self._stimulus[chosen]),
        }
        if self._stimuli is not None:
            wanted = self._stimuli[chosen]
            targets = {name: self._targets_of(name, wanted) for name in self.targets}
            batch = cast(Batch, {**batch, **targets})
        return batch

    def distinct_targets(self, name: str) -> np.ndarray | None:
        """(pictures, values) targets of each picture that is shown, once, as float32; None if there are none of them.

        Of many pictures, those of 4,096 that are spread evenly.
        """
        if name not in self.targets or self._stimuli is None:
            return None
        shown = np.unique(self._stimuli)
        chosen = shown[np.linspace(0, len(shown) - 1, min(len(shown), _MOST_DISTINCT_TARGETS)).astype(np.int64)]
        return self._rows[name].take(chosen).astype(np.float32)

    @staticmethod
    def collate(batch: Any) -> Any:
        """Gives the batch on as it is, for a `DataLoader`."""
        return batch

    def _targets_of(self, name: str, stimuli: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(self._rows[name].take(stimuli))
        values = values.float() if values.is_floating_point() else values
        return values.reshape(len(stimuli), *self.shapes[name]) if name in self.shapes else values

    def _positions_of_stimuli(self, target_ids: Sequence[str]) -> np.ndarray:
        """(examples,) where the targets of each example are."""
        position_of = {stimulus: position for position, stimulus in enumerate(target_ids)}
        shown = [str(stimulus) for examples in self.subjects for stimulus in examples.stimulus_ids]
        if missing := sorted(set(shown) - position_of.keys()):
            raise FmriModelsError(
                f"{len(missing)} stimuli have no target ({listed(missing)}); expected one for each shown."
            )
        return np.array([position_of[stimulus] for stimulus in shown], dtype=np.int64)


def stimulus_numbers(shown: np.ndarray) -> np.ndarray:
    """(examples,) int64: the same number for examples of the same stimulus, -1 for those without one."""
    numbers = np.unique(shown, return_inverse=True)[1].astype(np.int64)
    return np.where(shown == "", -1, numbers)


@renamed_argument("kinds", "targets", since="0.1")
def gradient_trials(
    table: TrialTable,
    processor: FmriProcessor,
    generator: "ImageGenerator",
    targets: Sequence[Target],
    parts: Sequence[str],
    split: str = "default",
    fold: int = 0,
    repetitions: Repetitions = "average",
    whole_table: bool = True,
    options: TargetOptions = DEFAULT_TARGET_OPTIONS,
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
        repetitions: One example a stimulus (with the mean of its trials, or all of them), or one a trial.
        whole_table: Whether targets of all stimuli of the table are cached, for other parts too, or those of these
            parts alone.
        options: How targets are made of pictures and captions.
    """
    subjects = processed_subjects(table, processor, parts, split, fold, repetitions)
    shown = {str(stimulus) for subject in subjects for stimulus in subject.stimulus_ids}
    ids = [stimulus for stimulus in table.stimuli.ids if whole_table or stimulus in shown]
    # Parts without trials have no targets either.
    values: dict[str, np.ndarray] = {
        name: cached_targets(table, generator, name, ids, options) for name in targets if ids
    }
    shapes: dict[str, tuple[int, ...]] = {name: getattr(generator, TARGET_SPACES[name]).shape for name in targets}
    return TrialDataset(subjects, values, ids, shapes)
