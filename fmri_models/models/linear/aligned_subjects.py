"""Decoders of subjects whose voxels are mapped to another subject's, by stimuli that all saw in training.

Ferrante et al. (2024) decode a subject with another subject's decoder. They align on the 982 pictures that are
everybody's test set; here no test trial is ever learned from, for a map no more than for a decoder.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ...alignment.subject_alignment import AlignmentMethod, SubjectMap, align_subjects
from ...closed_form_trials import ClosedFormTrials
from ...encoders.disk_backed import release_memory
from ...errors import FmriModelsError
from ...names import listed
from .modeling_linear import LinearModel


def shared_stimuli(trials: Mapping[str, ClosedFormTrials], share: float = 1.0, seed: int = 0) -> list[str]:
    """The training stimuli that all subjects saw, or some of them that are drawn from the seed.

    Args:
        trials: Subject ▶ training trials.
        share: Which share of them, two at least.
        seed: Of the draw.

    Returns:
        Stimulus ids, in order.

    Raises:
        FmriModelsError: The subjects have fewer than two training stimuli in common.
    """
    seen = [set(each.stimulus_ids.tolist()) for each in trials.values()]
    common = sorted(set.intersection(*seen))
    if len(common) < 2:
        raise FmriModelsError(
            f"The subjects {listed(list(trials), 8)} have {len(common)} training stimuli in common, and an alignment "
            "is learned from those; choose subjects that share some, or leave objective.aligned_to out."
        )
    chosen = np.random.default_rng(seed).permutation(len(common))[: max(2, round(share * len(common)))]
    return [common[place] for place in sorted(chosen.tolist())]


def mean_responses(trials: ClosedFormTrials, stimuli: Sequence[str]) -> torch.Tensor:
    """(stimuli, V) response to each stimulus, over its trials."""
    rows = [np.asarray(trials.fmri[np.flatnonzero(trials.stimulus_ids == each)]).mean(axis=0) for each in stimuli]
    return torch.from_numpy(np.stack(rows))


def fill_aligned(
    model: LinearModel,
    trials: Mapping[str, ClosedFormTrials],
    to: str,
    method: AlignmentMethod,
    penalties: Sequence[float],
    dimensions: int,
    share: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Sets the weights of all subjects but one to that one's decoder, read through a map of their voxels to its.

    Args:
        model: With the decoder of `to`.
        trials: Subject ▶ training trials.
        to: The subject with a decoder.
        method: How subjects are mapped, see [`align_subjects`]; penalties and dimensions go with it.
        penalties: See there.
        dimensions: See there.
        share: Of the shared stimuli, those that are learned from.
        seed: Of their choice.

    Returns:
        What the configuration keeps: whose decoder it is, the method, and how many stimuli there were.
    """
    stimuli = shared_stimuli(trials, share, seed)
    responses = {subject: mean_responses(each, stimuli) for subject, each in trials.items()}
    maps = align_subjects(responses, to, method, penalties, dimensions)
    for subject, found in maps.items():
        for target in model.spaces:
            _fold(model, target, subject, to, found)
    return {"to": to, "method": method, "stimuli": len(stimuli)}


@torch.no_grad()
def _fold(model: LinearModel, target: str, subject: str, to: str, found: SubjectMap) -> None:
    own, others = (cast(Sequence[nn.Linear], model.head(target, each).blocks) for each in (subject, to))
    for block, other in zip(own, others, strict=True):
        weight, bias = found.folded(other.weight, other.bias)
        block.weight.copy_(weight)
        block.bias.copy_(bias)
        release_memory(block)
        release_memory(other)
