"""Trials as a model reads them: standardised one by one, repetitions averaged after that."""

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from ..deprecation import moved_names, renamed_argument
from ..processing_fmri import FmriProcessor
from .schema import distinct_stimuli
from .table import TrialTable
from .table_processor import check_voxels
from .table_trials import Trials

__getattr__ = moved_names(__name__, "fmri_models.data.table_processor", {"fit_processor": "fit_processor"}, since="0.1")

Repetitions = Literal["average", "single", "all"]

# Processed voxels up to this size are kept in memory instead of being computed again at each pass.
_KEPT_BYTES = 2**27
_EXAMPLES_A_CHUNK = 128


def training_repetitions(table: TrialTable, split: str, repetitions: Repetitions) -> Repetitions:
    """What becomes of repetitions in training.

    Where the design tests stimuli that are learned from in other runs, averages over runs would leave one pattern a
    stimulus, and nothing to tell by what differs between runs; each trial is an example there.

    Args:
        table: The trial table.
        split: Name of the split.
        repetitions: What was asked for.
    """
    return "single" if repetitions == "average" and table.repeats_stimuli(split) else repetitions


class BetasOfTrials(Protocol):
    """What [`ProcessedTrials`] needs of trials; [`Trials`] has it."""

    subject: str
    stimulus_ids: np.ndarray
    sessions: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int: ...

    def fmri(self, positions: np.ndarray, /) -> np.ndarray: ...


class ProcessedTrials:
    """Processed voxels of one subject: examples that are read by their positions.

    Args:
        trials: Trials as they were recorded.
        processor: Standardises each trial with its session's or the subject's statistics.
        repetitions: `"average"` gives one example a stimulus (the mean of its standardised trials, in the order in
            which stimuli first appear), `"single"` one a trial, `"all"` one a stimulus with all its trials.
        max_repetitions: Take at most so many repetitions of a stimulus, the first ones; None takes all.
        repetitions_an_example: With `"all"`, how many trials each example has; a stimulus with fewer repeats its own
            from the first one on. None takes the most that a stimulus has.

    Attributes:
        stimulus_ids: (n,) stimulus of each example.
        shape: Shape of an example: (width,), with `"all"` (repetitions, width).

    Raises:
        FmriModelsError: The table has other voxels than those that the processor was fitted on.
    """

    @renamed_argument("repetitions_a_row", "repetitions_an_example", since="0.1")
    def __init__(
        self,
        trials: Trials | BetasOfTrials,
        processor: FmriProcessor,
        repetitions: Repetitions = "average",
        max_repetitions: int | None = None,
        repetitions_an_example: int | None = None,
    ) -> None:
        if isinstance(trials, Trials):
            check_voxels(trials.table, trials.subject, processor)
        self.trials = trials
        self.processor = processor
        self.width = processor.num_voxels[processor.subject_names.index(trials.subject)]
        self.shape: tuple[int, ...] = (self.width,)
        self._groups = _groups(distinct_stimuli(trials.stimulus_ids), repetitions, max_repetitions)
        if repetitions == "all":
            length = repetitions_an_example or max((len(group) for group in self._groups), default=0)
            self._groups = [np.resize(group, length) for group in self._groups]
            self.shape = (length, self.width)
        self.stimulus_ids = np.array([trials.stimulus_ids[group[0]] for group in self._groups], dtype=str)
        self._sessions = processor.groups(trials.sessions, trials.runs)
        self._kept: np.ndarray | None = None
        # Statistics of the trials given are those of all, and not of whichever are read together.
        if processor.is_transductive or len(self) * math.prod(self.shape) * 4 <= _KEPT_BYTES:
            self._kept = self._process(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """(examples, *shape) float32."""
        return self._process(positions) if self._kept is None else self._kept[positions]

    def _process(self, positions: np.ndarray) -> np.ndarray:
        output = np.empty((len(positions), *self.shape), dtype=np.float32)
        size = max(len(positions), 1) if self.processor.is_transductive else _EXAMPLES_A_CHUNK
        for start in range(0, len(positions), size):
            groups = [self._groups[position] for position in positions[start : start + size]]
            if not groups:
                continue
            trials = np.concatenate(groups)
            processed = self.processor(
                self.trials.fmri(trials),
                subject=self.trials.subject,
                session=self._sessions[trials],
                return_tensors="np",
            )["fmri"][:, : self.width]
            if len(self.shape) > 1:
                output[start : start + len(groups)] = processed.reshape(len(groups), *self.shape)
            else:
                output[start : start + len(groups)] = _means(processed, [len(group) for group in groups])
        return output


def _means(values: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """The mean of each of several groups of patterns, which follow each other."""
    if len(values) == len(lengths):
        return values
    starts = np.cumsum([0, *lengths[:-1]])
    # Divided by whole numbers, float32 becomes float64 on the way.
    return np.add.reduceat(values, starts, axis=0) / np.array(lengths, dtype=values.dtype)[:, None]


def processed_subjects(
    table: TrialTable,
    processor: FmriProcessor,
    parts: Sequence[str],
    split: str = "default",
    fold: int = 0,
    repetitions: Repetitions = "average",
) -> list[ProcessedTrials]:
    """Processed voxels of some parts of a split, of each of the processor's subjects in its order.

    Args:
        table: The trial table.
        processor: Names the subjects.
        parts: Such as `["train", "validation"]`.
        split: Name of the split.
        fold: Fold of the split.
        repetitions: One example a stimulus, or one a trial; with `"all"`, those of all subjects have as many trials as
            the stimulus that was repeated most.
    """
    trials = [table.trials(name, parts, split, fold) for name in processor.subject_names]
    most = max((_most_repetitions(distinct_stimuli(each.stimulus_ids)) for each in trials), default=0)
    return [ProcessedTrials(each, processor, repetitions, repetitions_an_example=most or None) for each in trials]


def _most_repetitions(stimulus_ids: np.ndarray) -> int:
    return int(np.unique(stimulus_ids, return_counts=True)[1].max(initial=0))


def _groups(stimulus_ids: np.ndarray, repetitions: str, max_repetitions: int | None) -> list[np.ndarray]:
    if repetitions == "single":
        return list(np.arange(len(stimulus_ids))[:, None])
    trials: dict[str, list[int]] = {}
    for trial, stimulus in enumerate(stimulus_ids.tolist()):
        trials.setdefault(stimulus, []).append(trial)
    return [np.array(group[:max_repetitions]) for group in trials.values()]
