"""The spaces of image generators whose weights are gigabytes, which nobody loads to count."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..embedding_space import EmbeddingSpace
from ..generation.loading import image_generator_class, image_generator_classes, parse_source
from ..hub_repository import is_folder


@dataclass(frozen=True)
class PlannedGenerator:
    """The spaces of an image generator that is not loaded.

    Args:
        image_embedding_space: Space of its image embeddings.
        latent_space: Space of its latents.
        text_embedding_space: Space of its text embeddings.
    """

    image_embedding_space: EmbeddingSpace | None = None
    latent_space: EmbeddingSpace | None = None
    text_embedding_space: EmbeddingSpace | None = None

    @property
    def learned_condition_spaces(self) -> Mapping[str, EmbeddingSpace]:
        """None: nothing is published of what a generator has yet to learn to read."""
        return {}


def planned_generator(generator: str | dict[str, Any]) -> PlannedGenerator | None:
    """The spaces of a recipe's generator, if its class states them.

    Args:
        generator: As a recipe says it.

    Returns:
        None for a generator that is small or lies in a folder; load that one.
    """
    source = parse_source(generator)
    place = source.repository
    if place is not None and is_folder(place):
        return None
    if source.name is not None:
        spaces = image_generator_class(source.name).published_spaces
    else:
        stated = (each.published_spaces for each in image_generator_classes() if each.default_repository == place)
        spaces = next(stated, {})
    return PlannedGenerator(**spaces) if spaces else None
