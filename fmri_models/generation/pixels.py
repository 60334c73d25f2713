"""The simplest generator: its latent is the small picture itself."""

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from .image_generator import ImageGenerator, ImageGeneratorOutput


class PixelsImageGenerator(ImageGenerator):
    """A picture whose latent is its pixels: for digits, Miyawaki's figures, a person's own small stimuli.

    Args:
        channels: 1 (grey) or 3 (RGB).
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
    """

    config_name = "model_index.json"

    @register_to_config
    def __init__(self, channels: int = 1, height: int = 28, width: int = 28) -> None:
        super().__init__()

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int]) -> "PixelsImageGenerator":
        return cls(*image_size)

    @property
    def image_size(self) -> tuple[int, int, int]:
        return (self.config.channels, self.config.height, self.config.width)

    @property
    def latent_space(self) -> EmbeddingSpace:
        return EmbeddingSpace(encoder="pixels", layer="latent", shape=self.image_size, normalisation="[0, 1]")

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.check_images(pixel_values)
        return pixel_values.float()

    @torch.no_grad()
    def __call__(
        self,
        image_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 1,
        num_images: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> ImageGeneratorOutput:
        """Returns the latents, clamped to [0, 1], as pictures; without latents, uniform noise."""
        if image_embeds is not None or text_embeds is not None:
            raise FmriModelsError("The pixels generator draws from latents alone; it takes no embeddings.")
        batch_size = self.batch_size(num_images, latents)
        if latents is None:
            # The normal distribution's own function turns normal draws into uniform ones.
            latents = torch.special.ndtr(self.draw_latents(batch_size, generator))
        return self.postprocess(latents.reshape(batch_size, *self.image_size), output_type)

    def to(self, *args: Any, **kwargs: Any) -> "PixelsImageGenerator":
        return self
