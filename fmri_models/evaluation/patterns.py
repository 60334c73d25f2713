"""Patterns that somebody wants to have decoded: of a trial table, or of a file."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..data.brain_images.opening import is_volume_name
from ..data.brain_images.patterns import read_patterns
from ..data.hub import may_be_table
from ..data.processed import ProcessedTrials
from ..data.schema import TEST
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..names import one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..plain_values import ShortRepr
from ..reading import check_regular_file, read_array
from .held_out import held_out_notes, held_out_trials


@dataclass(repr=False)
class Patterns(ShortRepr):
    """Processed patterns of one subject.

    Args:
        names: File stem of each pattern.
        stimuli: Stimulus of each pattern; empty strings where unknown.
        features: (N, width) processed voxels.
        subject: Name of the subject.
        notes: What a person should know before believing what is made of them, a sentence each.
    """

    names: list[str]
    stimuli: list[str]
    features: torch.Tensor
    subject: str
    notes: list[str] = field(default_factory=list)


def load_patterns(
    pipeline: FmriToImagePipeline,
    fmri: str | os.PathLike,
    subject: str,
    session: int | None = None,
    part: str | None = None,
    repetitions: Literal["average", "single"] = "average",
    mask: str | os.PathLike | None = None,
) -> Patterns:
    """Reads patterns from a .npy file, volumes or a trial table and processes them.

    Args:
        pipeline: Its processor processes them.
        fmri: A .npy file (trials, voxels), a NIfTI file (a volume a trial), or a trial table (a folder, or of the Hub):
            the one that the pipeline was trained on, of which the split and fold of the training are taken, or another
            one, of which the split `default` is.
        subject: Whose patterns they are.
        session: Of a file; a table says the sessions itself.
        part: Of a table's split; None takes the test part.
        repetitions: Of a table: average a stimulus' trials after standardisation, or take single trials.
        mask: Of volumes: the mask that the pipeline's table was made with.

    Raises:
        FmriModelsError: The file is no array of numbers, lies on another grid than the pipeline's images, its voxels do
            not fit the pipeline, the split was drawn again after the training, or an option is for the other kind of
            `fmri`.
    """
    path = Path(fmri)
    if mask is not None and not is_volume_name(path.name):
        raise FmriModelsError(
            f"{one_line(path)} is no NIfTI file, so that no mask says which voxels it has; give none."
        )
    if may_be_table(path):
        if session is not None:
            raise FmriModelsError(f"{one_line(path)} is a trial table and says the sessions itself; give no session.")
        pipeline.processor.subject(subject)
        held_out = held_out_trials(pipeline, TrialTable.open(path), subject, part or TEST, any_table=True)
        trials = held_out.trials
        processed = ProcessedTrials(trials, pipeline.processor, repetitions)
        features = torch.zeros(len(processed), pipeline.processor.width)
        features[:, : processed.width] = torch.from_numpy(processed[np.arange(len(processed))])
        stimuli = processed.stimulus_ids.tolist()
        names = stimuli if repetitions == "average" else [f"trial{trial:05d}" for trial in trials.trials]
        return Patterns(names, stimuli, features, subject, held_out_notes([held_out]))
    if part is not None:
        raise FmriModelsError(
            f"{one_line(path)} is no trial table, so it has no part {one_line(repr(part))} of a split: all its rows "
            "are decoded; give no part."
        )
    if is_volume_name(path.name):
        grid = pipeline.processor.subject(subject).grid
        values = read_patterns(path, None if mask is None else Path(mask), grid, subject)
    else:
        values = load_array(path)
    features = pipeline.processor(values, subject=subject, session=session)["fmri"]
    count = len(features)
    return Patterns([f"trial{index:05d}" for index in range(count)], [""] * count, features, subject)


def load_array(path: str | os.PathLike, memory_map: bool = False) -> np.ndarray:
    """Reads a .npy file of numbers.

    Args:
        path: The file; (rows, …).
        memory_map: Read nothing yet, for arrays that may be larger than memory; they keep the byte order of the file.

    Raises:
        FmriModelsError: The file isn't there, can't be read, or holds something else.
    """
    path = check_regular_file(path, "file", "give a .npy array or a folder")
    values = read_array(
        path,
        "file",
        "no readable .npy array, but expected a (rows, values) array of numbers: numpy.save(..., allow_pickle=False) "
        "writes one",
        memory_map,
    )
    if values.ndim < 2:
        raise FmriModelsError(
            f"{one_line(path)} holds {values.dtype} of shape {values.shape}; expected a (rows, values) array of "
            "numbers."
        )
    return values
