"""Training pictures that stand beside reconstructions: their mean, and those nearest to what was decoded."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..data.generator_pictures import prepare_pictures
from ..data.table import TrialTable
from ..data.targets import Target, cached_targets
from ..errors import FmriModelsError
from ..modeling_outputs import FmriDecoding
from ..pipeline_fmri import FmriToImagePipeline
from ..training_record import TrainingRecord


class TrainingPictures(NamedTuple):
    """Pictures (N, C, H, W) in [0, 1] that were learned from, for each of N items.

    Attributes:
        mean: The mean of all, of every item.
        nearest: The one nearest to what was decoded.
    """

    mean: torch.Tensor
    nearest: torch.Tensor


def training_pictures(
    pipeline: FmriToImagePipeline, record: TrainingRecord, table: TrialTable, subject: str, decoding: FmriDecoding
) -> TrainingPictures:
    """The mean training picture of a subject, and the one nearest to each decoded embedding, or latent.

    Args:
        pipeline: Of whose generator the pictures have the size.
        record: Which trials were learned from.
        table: The trial table.
        subject: Name.
        decoding: What was decoded of N items.

    Raises:
        FmriModelsError: Neither embeddings nor latents were decoded.
    """
    trials = table.trials(subject, record.train_parts, record.split, record.fold)
    ids = list(dict.fromkeys(trials.stimulus_ids.tolist()))
    generator = pipeline.image_generator
    total = torch.zeros(generator.image_size, dtype=torch.float64)
    for start in range(0, len(ids), 512):
        pictures = prepare_pictures(table.stimuli.images(ids[start : start + 512]), generator.image_size)
        total += pictures.double().sum(dim=0)
    target, decoded = _compared_with_training(decoding)
    mean = (total / len(ids)).float().expand(len(decoded), -1, -1, -1)
    targets = cached_targets(table, generator, target)
    nearest = [ids[position] for position in nearest_training_positions(decoded, targets, table.stimuli.positions(ids))]
    return TrainingPictures(mean, prepare_pictures(table.stimuli.images(nearest), generator.image_size))


def nearest_training_positions(
    decoded: torch.Tensor, values: np.ndarray, positions: Sequence[int], batch: int = 512
) -> np.ndarray:
    """For each decoded vector, the index into `positions` of the most similar training vector (cosine).

    Args:
        decoded: (N, …).
        values: (M, size) array or memory map.
        positions: Of `values` that belong to training stimuli.
        batch: Vectors read at a time.
    """
    query = torch.nn.functional.normalize(decoded.flatten(1).float(), dim=1)
    best = torch.full((len(query),), -np.inf)
    nearest = torch.zeros(len(query), dtype=torch.long)
    for start in range(0, len(positions), batch):
        chunk = torch.from_numpy(np.asarray(values[list(positions[start : start + batch])], dtype=np.float32))
        similarity, index = (query @ torch.nn.functional.normalize(chunk, dim=1).T).max(dim=1)
        better = similarity > best
        best[better], nearest[better] = similarity[better], index[better] + start
    return nearest.numpy()


def _compared_with_training(decoding: FmriDecoding) -> tuple[Target, torch.Tensor]:
    if decoding.retrieval_embeds is not None:
        return "image_embeds", decoding.retrieval_embeds
    if decoding.latents is not None:
        return "latents", decoding.latents
    raise FmriModelsError("The model decodes neither embeddings nor latents; an evaluation needs one of them.")
