"""What a stage learns from at once; apart from objectives, so that reading batches imports no network."""

from typing import Required, TypedDict

import torch


class Batch(TypedDict, total=False):
    """B examples: the first three always, targets as far as the recipe has them and the objective learns from them."""

    # (B, V) float32, processed and zero-padded to the widest subject; (B, R, V) in training with `repetitions: all`.
    fmri: Required[torch.Tensor]
    # (B,) long, indices into `config.subject_names`.
    subject_ids: Required[torch.Tensor]
    stimulus_ids: Required[list[str]]
    # (B,) long, the same number for rows of the same stimulus, of one subject or of several; -1 without a stimulus.
    stimulus: torch.Tensor
    # (B, …) float32 each, in the shape of its space.
    image_embeds: torch.Tensor
    text_embeds: torch.Tensor
    latents: torch.Tensor
    # (B, positions, width) of the pictures and of a changed view of them, where the stage has a `teacher`.
    feature_maps: torch.Tensor
    augmented_feature_maps: torch.Tensor
    # Of each further source of a stage's `unpaired`: `fmri` (B, V) float32 without pictures, in rows of its own.
    unpaired: list["UnpairedBatch"]
    # In training, the number of the step, from 0; of ordered batches, the number of the batch over all processes.
    step: int
    number: int


class UnpairedBatch(TypedDict):
    """Examples of a source of fMRI without pictures."""

    # (B, V) float32, as wide as the model reads of its widest subject.
    fmri: torch.Tensor
