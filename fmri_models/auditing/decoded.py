"""What an attacker computes of single trials: what is decoded from them, and how well that fits what was shown."""

from collections.abc import Sequence

import numpy as np
import torch

from ..data.generator_pictures import pictures_to_embed, prepare_pictures
from ..data.table_trials import Trials
from ..errors import FmriModelsError
from ..pipeline_fmri import FmriToImagePipeline

_TRIALS_A_CHUNK = 256
# Of what a method decodes, the first that it has.
_DECODINGS = ("retrieval_embeds", "image_embeds", "latents")


def processed(pipeline: FmriToImagePipeline, trials: Trials, layer_of: str | None = None) -> np.ndarray:
    """(n, width) voxels of single trials as a model reads them.

    Args:
        pipeline: Has the processor.
        trials: The trials.
        layer_of: Whose statistics they are standardised with, over all sessions alike; None for the subject's own, of
            each session.
    """
    processor, own = pipeline.processor, layer_of is None
    groups = processor.groups(trials.sessions, trials.runs)
    sessions = groups.tolist() if own else [_absent_session(pipeline, str(layer_of))] * len(trials)
    before = processor.unseen_session
    if not own:
        processor.unseen_session = "pooled"
    try:
        name = trials.subject if layer_of is None else layer_of
        return np.asarray(processor(trials.fmri(), subject=name, session=sessions, return_tensors="np")["fmri"])
    finally:
        processor.unseen_session = before


def decoded(pipeline: FmriToImagePipeline, features: np.ndarray, subject: str) -> tuple[str, np.ndarray]:
    """Name of a decoding, and (n, width) float32 of it; what is sampled of a trial comes from its own seed."""
    ids = torch.full((len(features),), pipeline.processor.subject_names.index(subject))
    found: list[np.ndarray] = []
    name = ""
    for start in range(0, len(features), _TRIALS_A_CHUNK):
        chunk = torch.from_numpy(features[start : start + _TRIALS_A_CHUNK])
        sources = [torch.Generator().manual_seed(start + index) for index in range(len(chunk))]
        decoding = pipeline.brain_model.decode(
            chunk.to(pipeline.brain_model.device), ids[: len(chunk)], num_candidates=1, generator=sources
        )
        name = name or next((each for each in _DECODINGS if getattr(decoding, each) is not None), "")
        if not name:
            raise FmriModelsError(
                "The model decodes neither embeddings nor latents, so that there is nothing to audit."
            )
        found.append(getattr(decoding, name).float().reshape(len(chunk), -1).cpu().numpy())
    return name, np.concatenate(found)


def true_targets(pipeline: FmriToImagePipeline, trials: Trials, names: Sequence[str], decoding: str) -> np.ndarray:
    """(stimuli, width) float32 of what was shown, in the space of what is decoded."""
    generator = pipeline.image_generator
    if generator is None:
        raise FmriModelsError(
            "The pipeline has no image generator, with whose embeddings decodings could be compared; load it with one "
            "(image_generator_source=)."
        )
    pictures = trials.table.stimuli.images(list(names))
    if decoding == "latents":
        targets = generator.encode_images(prepare_pictures(pictures, generator))
    else:
        targets = generator.embed_images(pictures_to_embed(pictures, generator))
    return np.asarray(targets.float().reshape(len(names), -1).cpu().numpy())


def fit_to_truth(predicted: np.ndarray, truth: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(n,) correlation of what was decoded of each trial with what was shown, after the mean picture was taken away."""
    return _correlation(predicted - predicted.mean(axis=0), truth - centre)


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(norms, 1e-12))


def _absent_session(pipeline: FmriToImagePipeline, subject: str) -> int:
    """A session that a subject has no statistics of."""
    return max([0, *pipeline.processor.subject(subject).sessions]) + 1
