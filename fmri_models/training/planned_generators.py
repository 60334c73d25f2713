"""The spaces of image generators whose weights are gigabytes, which nobody loads to count."""

import os
from dataclasses import dataclass
from typing import Any

from ..embedding_space import EmbeddingSpace, clip_image_tokens_space, stable_diffusion_latent_space
from ..generation.loading import image_generator_class, parse_source


@dataclass(frozen=True)
class PlannedGenerator:
    """The spaces of an image generator that is not loaded.

    Args:
        image_embedding_space: Space of its image embeddings.
        latent_space: Space of its latents.
        text_embedding_space: Space of its text embeddings.
    """

    image_embedding_space: EmbeddingSpace | None
    latent_space: EmbeddingSpace | None
    text_embedding_space: EmbeddingSpace | None = None


def _pooled(encoder: str, size: int) -> EmbeddingSpace:
    return EmbeddingSpace(encoder=encoder, layer="pooled", shape=(size,))


# The published sizes of generators whose weights are gigabytes; for counting, no further detail matters.
_PUBLISHED = {
    "versatile_diffusion": PlannedGenerator(clip_image_tokens_space(), stable_diffusion_latent_space(512)),
    "stable_unclip": PlannedGenerator(
        _pooled("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 1024), stable_diffusion_latent_space(768)
    ),
    "kandinsky": PlannedGenerator(
        _pooled("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", 1280),
        EmbeddingSpace(encoder="kandinsky-community/kandinsky-2-2-decoder/movq", layer="latent", shape=(4, 64, 64)),
    ),
    "ip_adapter": PlannedGenerator(
        _pooled("h94/IP-Adapter/models/image_encoder", 1024), stable_diffusion_latent_space(512)
    ),
}


def planned_generator(generator: str | dict[str, Any]) -> PlannedGenerator | None:
    """The spaces of a recipe's generator, if they are known without loading it.

    Args:
        generator: As a recipe says it.

    Returns:
        None for a generator that is small or lies in a folder; load that one.
    """
    source = parse_source(generator)
    if source.repository is not None and os.path.isdir(source.repository):
        return None
    name = source.name
    if name is None:
        at = source.repository
        name = next((each for each in _PUBLISHED if image_generator_class(each).default_repository == at), None)
    return None if name is None else _PUBLISHED.get(name)
