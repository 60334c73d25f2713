"""Training material of a trial table for methods in closed form."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..encoders.closed_form import ClosedFormTrials, IndexedTargets
from ..generation.image_generator import ImageGenerator
from ..processing_fmri import FmriProcessor
from .processed import processed_subjects
from .table import TrialTable
from .targets import TargetKind, cached_targets


def closed_form_trials(
    table: TrialTable,
    processor: FmriProcessor,
    generator: ImageGenerator,
    kinds: Sequence[TargetKind],
    parts: Sequence[str],
    split: str = "default",
    fold: int = 0,
    repetitions: Literal["average", "single"] = "average",
) -> dict[str, ClosedFormTrials]:
    """Subject ▶ processed voxels and cached targets of some parts of a split.

    Args:
        table: The trial table.
        processor: Its subjects are taken, in its order.
        generator: Encodes the pictures.
        kinds: Groups of targets.
        parts: Such as `["train", "validation"]`.
        split: Name of the split.
        fold: Fold of the split.
        repetitions: One row a stimulus, or one a trial.
    """
    values: dict[str, Any] = {kind: cached_targets(table, generator, kind) for kind in kinds}
    trials = {}
    subjects = processed_subjects(table, processor, parts, split, fold, repetitions)
    for name, processed in zip(processor.subject_names, subjects, strict=True):
        index = np.array(table.stimuli.rows(processed.stimulus_ids), dtype=np.int64)
        targets: dict[str, IndexedTargets] = {kind: IndexedTargets(values[kind], index) for kind in kinds}
        trials[name] = ClosedFormTrials(processed, processed.stimulus_ids, targets)
    return trials
