"""Trials as a model reads them: standardised one by one, repetitions averaged after that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
from transformers.utils import logging

from ..errors import FmriModelsError
from ..names import listed, one_line
from ..processing_fmri import FmriProcessor
from . import schema
from .noise_ceiling import estimate_ncsnr, noise_ceiling_from_ncsnr, usual_repetitions
from .table import TrialTable
from .table_trials import Trials
from .table_voxels import Voxels

Repetitions = Literal["average", "single", "all"]

logger = logging.get_logger(__name__)

# Processed voxels up to this size are kept in memory instead of being computed again at each pass.
_KEPT_BYTES = 2**29
_ROWS_A_BLOCK = 512


def training_repetitions(table: TrialTable, split: str, repetitions: Repetitions) -> Repetitions:
    """What becomes of repetitions in training.

    Where the design tests stimuli that are learned from in other runs, averages over runs would leave one pattern a
    stimulus, and nothing to tell by what differs between runs; each trial is a row there.

    Args:
        table: The trial table.
        split: Name of the split.
        repetitions: What was asked for.
    """
    return "single" if repetitions == "average" and table.repeats_stimuli(split) else repetitions


def fit_processor(
    table: TrialTable,
    subjects: Sequence[str],
    parts: Sequence[str] = ("train",),
    split: str = "default",
    fold: int = 0,
    needed: Sequence[str] = (),
    **options: Any,
) -> FmriProcessor:
    """A processor with the statistics of some parts of a table's split; give parts that are learned from, no others.

    Args:
        table: The trial table.
        subjects: Names, in the order of the model.
        parts: Such as `["train", "validation"]`.
        split: Name of the split.
        fold: Fold of the split.
        needed: Further parts that the training reads, so that it can't do without statistics of their sessions.
        **options: Those of [`FmriProcessor.fit`].

    Noise ceilings by which voxels are chosen come from repetitions in these trials, where there are any; else those of
    the table are taken if they are a release's or the simulator's.

    Raises:
        FmriModelsError: A subject has no such trials, the options do not fit the voxels, or the needed parts have a
            session of which there are no statistics.
    """
    trials = {name: table.trials(name, list(parts), split, fold) for name in subjects}
    for name, subject_trials in trials.items():
        if len(subject_trials) == 0:
            raise FmriModelsError(f"{name} has no trials in {', '.join(parts)} of the split {split!r}.")
    if options.get("statistics") == "session" and options.get("unseen_session", "error") == "error":
        _name_unseen_sessions(table, trials, split, fold, needed)
    return FmriProcessor.fit(
        {name: (block for _, block in subject_trials.batches(1024)) for name, subject_trials in trials.items()},
        subjects=subjects,
        sessions={name: subject_trials.sessions for name, subject_trials in trials.items()},
        stimuli={name: subject_trials.stimulus_ids for name, subject_trials in trials.items()},
        voxels={name: _voxels(table, trials[name], split, fold, options) for name in subjects},
        **options,
    )


def _name_unseen_sessions(
    table: TrialTable, trials: Mapping[str, Trials], split: str, fold: int, needed: Sequence[str]
) -> None:
    """Says before the work which sessions have trials to be decoded and none to take statistics from."""
    for part in schema.SPLITS:
        found = {}
        for name, own in trials.items():
            sessions = table.trials(name, part, split, fold).sessions
            unseen = ~np.isin(sessions, own.sessions)
            if unseen.any():
                found[name] = f"{int(unseen.sum())} of {name} in {listed(np.unique(sessions[unseen]), 10)}"
        if not found:
            continue
        sentence = (
            f"The split {split!r} has {part} trials in sessions without training trials ({'; '.join(found.values())}), "
            'and statistics="session" has none for them'
        )
        if part in needed:
            raise FmriModelsError(f"{sentence}; train with processor.unseen_session=pooled (or another split).")
        logger.warning(
            f"{sentence}: they will be refused; train with processor.unseen_session=pooled, or decode and evaluate "
            'with --unseen-session pooled (from_pretrained(..., unseen_session="pooled") in Python).'
        )


def _voxels(table: TrialTable, trials: Trials, split: str, fold: int, options: Mapping[str, Any]) -> Voxels:
    """What is known of the voxels; noise ceilings by which some are chosen are those of the trials themselves."""
    voxels = table.voxels(trials.subject)
    chosen_by_score = options.get("num_best_voxels") is not None and not options.get("voxel_scores")
    if options.get("min_noise_ceiling") is None and not chosen_by_score:
        return voxels
    ncsnr = estimate_ncsnr(trials.fmri, trials.stimulus_ids, trials.sessions, trials.num_voxels)
    if ncsnr is not None:
        tested = table.trials(trials.subject, schema.TEST, split, fold).stimulus_ids
        count = voxels.repetitions or usual_repetitions(tested)
        ceiling = noise_ceiling_from_ncsnr(ncsnr, count).astype(np.float32)
        source = schema.TRAINING_REPETITIONS
        return replace(voxels, ncsnr=ncsnr, noise_ceiling=ceiling, source=source, repetitions=count)
    if voxels.noise_ceiling is None or voxels.source == schema.TRAINING_REPETITIONS:
        # Without a repetition here, the table's come from trials that this split or fold does not learn from.
        option = "min_noise_ceiling" if options.get("min_noise_ceiling") is not None else "num_best_voxels"
        raise FmriModelsError(
            f"{option} chooses voxels of {trials.subject} by noise ceilings, of which there are none: no training "
            f"stimulus of the split {split!r} is repeated, and the table has no other ones; leave the option out, or "
            "give ncsnr with VOXELS.csv."
        )
    return voxels


def check_voxels(table: TrialTable, subject: str, processor: FmriProcessor, model_subject: str | None = None) -> None:
    """Refuses a subject of a table whose voxels are known to be others than those that a processor was fitted on.

    Args:
        table: The trial table.
        subject: The subject in the table.
        processor: The processor.
        model_subject: What the processor calls the subject, if not the same.

    Raises:
        FmriModelsError: There are more or fewer voxels, or others were dropped when the tables were prepared.
    """
    known, found = processor.subject(model_subject or subject), table.num_voxels(subject)
    # Read only where it matters: the file of a subject's voxels is large.
    labels = None if known.source_columns is None else table.voxels(subject)
    columns = None if labels is None else labels.source_columns
    if found == known.source_width and columns is None:
        return
    if found != known.num_voxels:
        recorded = "" if known.source_width is None else f", which were kept of {known.source_width} recorded ones"
        raise FmriModelsError(
            f"{subject} of {one_line(table.path)} has {found} voxels and the model was made for {known.num_voxels}"
            f"{recorded}; prepare a table of the model's voxels in their order."
        )
    if labels is None or columns is None or known.source_columns is None:
        return
    if labels.source_width != known.source_width or not np.array_equal(columns, known.source_columns):
        raise FmriModelsError(
            f"{subject} of {one_line(table.path)} has as many voxels as the model, but others: what was dropped when "
            "the tables were prepared differs; prepare a table of the model's voxels in their order."
        )


class BetasOfTrials(Protocol):
    """What [`ProcessedTrials`] needs of trials; [`Trials`] has it."""

    subject: str
    stimulus_ids: np.ndarray
    sessions: np.ndarray

    def __len__(self) -> int: ...

    def fmri(self, rows: np.ndarray) -> np.ndarray: ...


class ProcessedTrials:
    """Processed voxels of one subject, read by rows.

    Args:
        trials: Trials as they were recorded.
        processor: Standardises each trial with its session's or the subject's statistics.
        repetitions: `"average"` gives one row a stimulus (the mean of its standardised trials, in the order in which
            stimuli first appear), `"single"` one row a trial, `"all"` one row a stimulus with all its trials.
        max_repetitions: Take at most so many repetitions of a stimulus, the first ones; None takes all.
        repetitions_a_row: With `"all"`, how many trials each row has; a stimulus with fewer repeats its own from the
            first one on. None takes the most that a stimulus has.

    Attributes:
        stimulus_ids: (n,) stimulus of each row.
        shape: Shape of a row: (width,), with `"all"` (repetitions, width).

    Raises:
        FmriModelsError: The table has other voxels than those that the processor was fitted on.
    """

    def __init__(
        self,
        trials: Trials | BetasOfTrials,
        processor: FmriProcessor,
        repetitions: Repetitions = "average",
        max_repetitions: int | None = None,
        repetitions_a_row: int | None = None,
    ) -> None:
        if isinstance(trials, Trials):
            check_voxels(trials.table, trials.subject, processor)
        self.trials = trials
        self.processor = processor
        self.width = processor.num_voxels[processor.subject_names.index(trials.subject)]
        self.shape: tuple[int, ...] = (self.width,)
        self._groups = _groups(trials.stimulus_ids, repetitions, max_repetitions)
        if repetitions == "all":
            length = repetitions_a_row or max((len(group) for group in self._groups), default=0)
            self._groups = [np.resize(group, length) for group in self._groups]
            self.shape = (length, self.width)
        self.stimulus_ids = np.array([trials.stimulus_ids[group[0]] for group in self._groups], dtype=str)
        self._kept: np.ndarray | None = None
        # Statistics of the trials given are those of all, and not of whichever are read together.
        if processor.is_transductive or len(self) * math.prod(self.shape) * 4 <= _KEPT_BYTES:
            self._kept = self._process(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(rows, *shape) float32."""
        return self._process(rows) if self._kept is None else self._kept[rows]

    def _process(self, rows: np.ndarray) -> np.ndarray:
        output = np.empty((len(rows), *self.shape), dtype=np.float32)
        size = max(len(rows), 1) if self.processor.is_transductive else _ROWS_A_BLOCK
        for start in range(0, len(rows), size):
            groups = [self._groups[row] for row in rows[start : start + size]]
            if not groups:
                continue
            trial_rows = np.concatenate(groups)
            processed = self.processor(
                self.trials.fmri(trial_rows),
                subject=self.trials.subject,
                session=self.trials.sessions[trial_rows],
                return_tensors="np",
            )["fmri"][:, : self.width]
            if len(self.shape) > 1:
                output[start : start + len(groups)] = processed.reshape(len(groups), *self.shape)
            else:
                output[start : start + len(groups)] = _means(processed, [len(group) for group in groups])
        return output


def _means(values: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """The mean of each of several runs of rows, which follow each other."""
    starts = np.cumsum([0, *lengths[:-1]])
    return np.add.reduceat(values, starts, axis=0) / np.array(lengths)[:, None]


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
        repetitions: One row a stimulus, or one a trial; with `"all"`, the rows of all subjects have as many trials as
            the stimulus that was repeated most.
    """
    trials = [table.trials(name, parts, split, fold) for name in processor.subject_names]
    most = max((_most_repetitions(each.stimulus_ids) for each in trials), default=0)
    return [ProcessedTrials(each, processor, repetitions, repetitions_a_row=most or None) for each in trials]


def _most_repetitions(stimulus_ids: np.ndarray) -> int:
    return int(np.unique(stimulus_ids, return_counts=True)[1].max(initial=0))


def _groups(stimulus_ids: np.ndarray, repetitions: str, max_repetitions: int | None) -> list[np.ndarray]:
    if repetitions == "single":
        return list(np.arange(len(stimulus_ids))[:, None])
    rows: dict[str, list[int]] = {}
    for row, stimulus in enumerate(stimulus_ids.tolist()):
        rows.setdefault(stimulus, []).append(row)
    return [np.array(group[:max_repetitions]) for group in rows.values()]
