"""The processor of a table's voxels: fitted on its training trials, and compared with other tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers.utils import logging

from ..errors import FmriModelsError
from ..names import listed, one_line
from ..processing.image_grid import ImageGrid
from ..processing.options import BY_GROUP, groups_of_trials
from ..processing_fmri import FmriProcessor
from . import schema
from .noise_ceiling import estimate_ncsnr, noise_ceiling_from_ncsnr, usual_repetitions
from .table import TrialTable
from .table_trials import Trials
from .table_voxels import Voxels

logger = logging.get_logger(__name__)


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
    statistics = options.get("statistics", "pooled")
    if statistics in BY_GROUP and options.get("unseen_session", "error") == "error":
        _name_unseen_sessions(table, trials, split, fold, needed, statistics)
    return FmriProcessor.fit(
        {name: (chunk for _, chunk in subject_trials.batches(1024)) for name, subject_trials in trials.items()},
        subjects=subjects,
        sessions={name: subject_trials.sessions for name, subject_trials in trials.items()},
        runs={name: subject_trials.runs for name, subject_trials in trials.items()},
        stimuli={name: schema.distinct_stimuli(subject_trials.stimulus_ids) for name, subject_trials in trials.items()},
        voxels={name: _voxels(table, trials[name], split, fold, options) for name in subjects},
        **options,
    )


def _name_unseen_sessions(
    table: TrialTable,
    trials: Mapping[str, Trials],
    split: str,
    fold: int,
    needed: Sequence[str],
    statistics: str = "session",
) -> None:
    """Says before the work which sessions have trials to be decoded and none to take statistics from."""
    for part in schema.SPLITS:
        found = {}
        for name, own in trials.items():
            of_part = table.trials(name, part, split, fold)
            sessions = groups_of_trials(statistics, of_part.sessions, of_part.runs)
            unseen = ~np.isin(sessions, groups_of_trials(statistics, own.sessions, own.runs))
            if unseen.any():
                found[name] = f"{int(unseen.sum())} of {name} in {listed(np.unique(sessions[unseen]), 10)}"
        if not found:
            continue
        sentence = (
            f"The split {split!r} has {part} trials in {'sessions' if statistics == 'session' else 'runs'} without "
            f'training trials ({"; ".join(found.values())}), and statistics="{statistics}" has none for them'
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
    stimuli = schema.distinct_stimuli(trials.stimulus_ids)
    ncsnr = estimate_ncsnr(trials.fmri, stimuli, trials.sessions, trials.num_voxels)
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
    _check_grid(table, subject, known.grid)
    window = table.window_shape(subject)
    if known.num_voxels == found and known.window != window:
        said = [f"windows of {shape[0]} x {shape[1]}" if shape else "patterns" for shape in (window, known.window)]
        raise FmriModelsError(
            f"{subject} of {one_line(table.path)} has {said[0]}, and the model was made for {said[1]} of as many "
            "values; prepare a table with the model's windows."
        )
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


def _check_grid(table: TrialTable, subject: str, known: ImageGrid | None) -> None:
    """Refuses a subject whose betas came from other voxels of a volume than those of the processor, where both say."""
    if known is None or subject not in table.metadata.get("grids", {}):
        return
    found = table.voxels(subject).grid
    assert found is not None
    if not found.same_as(known):
        raise FmriModelsError(
            f"{subject} of {one_line(table.path)} came from other voxels of a volume than the model's: the shape, the "
            "affine or the mask of the images differs; prepare a table with the model's mask, on its grid."
        )
