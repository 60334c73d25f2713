"""Training material of a trial table for methods in closed form."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..closed_form_trials import ClosedFormTrials, IndexedTargets, LeftOut, Selection
from ..deprecation import renamed_argument
from ..guides import GuideSet
from ..objectives import ClosedFormObjective
from ..processing_fmri import FmriProcessor
from .processed import processed_subjects
from .table import TrialTable
from .table_trials import Trials
from .target_options import DEFAULT_TARGET_OPTIONS, TargetOptions
from .targets import Target, cached_guides, cached_targets

if TYPE_CHECKING:
    from ..generation.image_generator import ImageGenerator


def settled_fit(
    objective: ClosedFormObjective[Any],
    table: TrialTable,
    subjects: Sequence[str],
    train_on: Sequence[str],
    validate_on: Sequence[str],
    split: str = "default",
    fold: int = 0,
) -> tuple[Selection, list[str]]:
    """What an objective whose `selection` is "auto" chooses its penalty on, and the parts of the split it learns from.

    Validation trials that nothing is chosen on are learned from.

    Args:
        objective: Says what it does with so many trials.
        table: The trial table.
        subjects: Names.
        train_on: Parts that are learned from in any case.
        validate_on: Parts to choose on.
        split: Name of the split.
        fold: Fold of the split.
    """
    held_out = [part for part in validate_on if part not in train_on]
    training = [table.trials(name, train_on, split, fold) for name in subjects]
    validation = [table.trials(name, held_out, split, fold) for name in subjects] if held_out else []
    selection = objective.settled(
        min(len(set(trials.stimulus_ids.tolist())) for trials in training),
        min((len(trials) for trials in validation), default=0),
        bool(table.repeats_stimuli(split)),
    )
    return selection, [*train_on, *held_out] if selection != "validation" else list(train_on)


@renamed_argument("kinds", "targets", since="0.1")
def closed_form_trials(
    table: TrialTable,
    processor: FmriProcessor,
    generator: "ImageGenerator",
    targets: Sequence[Target],
    parts: Sequence[str],
    split: str = "default",
    fold: int = 0,
    repetitions: Literal["average", "single"] = "average",
    options: TargetOptions = DEFAULT_TARGET_OPTIONS,
    guides: GuideSet | None = None,
) -> dict[str, ClosedFormTrials]:
    """Subject ▶ processed voxels and cached targets of some parts of a split.

    Single trials of a split whose design repeats stimuli are left out by run, not by stimulus.

    Args:
        table: The trial table.
        processor: Its subjects are taken, in its order.
        generator: Encodes the pictures.
        targets: What is learned.
        parts: Such as `["train", "validation"]`.
        split: Name of the split.
        fold: Fold of the split.
        repetitions: One example a stimulus, or one a trial.
        options: How targets are made of pictures and captions.
        guides: Layers of networks that are learned, too, by their names.
    """
    values: dict[str, Any] = {target: cached_targets(table, generator, target, options=options) for target in targets}
    values |= cached_guides(table, guides) if guides is not None and guides.sources else {}
    trials = {}
    subjects = processed_subjects(table, processor, parts, split, fold, repetitions)
    for name, processed in zip(processor.subject_names, subjects, strict=True):
        index = np.array(table.stimuli.positions(processed.stimulus_ids), dtype=np.int64)
        indexed: dict[str, IndexedTargets] = {target: IndexedTargets(each, index) for target, each in values.items()}
        leaves_out: LeftOut = "stimulus"
        groups = None
        if repetitions == "single" and table.repeats_stimuli(split):
            leaves_out, groups = _left_out(table.trials(name, parts, split, fold))
        rois = _rois_of_columns(processor, name)
        trials[name] = ClosedFormTrials(processed, processed.stimulus_ids, indexed, leaves_out, groups, rois)
    return trials


def _rois_of_columns(processor: FmriProcessor, name: str) -> np.ndarray | None:
    """(V,) region of each column of a subject's processed patterns; None where none is known, or columns are pooled."""
    labels = processor.subject(name).roi
    if not labels or processor.pool_width is not None:
        return None
    return np.array(labels, dtype=str)[processor.column_voxels(name)]


def _left_out(trials: Trials) -> tuple[LeftOut, np.ndarray | None]:
    """What can be left out such that its stimuli stay: runs, or else single trials; and the label of each trial."""
    labels = np.unique(np.stack([trials.sessions, trials.runs], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    stimuli = np.unique(trials.stimulus_ids, return_inverse=True)[1].reshape(-1)
    runs_of_stimuli = np.unique(np.stack([stimuli, labels], axis=1), axis=0)[:, 0]
    if len(runs_of_stimuli) > len(np.unique(stimuli)):
        return "run", labels
    if len(stimuli) > len(np.unique(stimuli)):
        return "trial", np.arange(len(stimuli))
    return "nothing", None
