"""The simplest generator: its latent is the small picture itself, and so are its embeddings, cut into patches."""

from dataclasses import replace
from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from .image_generator import Generators, ImageGenerator

# Patches a side: few enough for a diffusion prior, and small enough to say where something is.
_PATCHES_A_SIDE = 4
# Beyond it, what a brain tells of a pixel is less than the noise that every pixel has of its own.
_LARGEST_ADVISED_SIDE = 32


class PixelsImageGenerator(ImageGenerator):
    """A picture whose latent is its pixels: for digits, Miyawaki's figures, a person's own small stimuli.

    It knows nothing about pictures. Its embeddings are the same pixels, cut into 4 x 4 patches of values in [-1, 1]
    over the root of a patch's size; a method that decodes embeddings (a diffusion prior, say) thereby is its own model
    of pictures. It draws what it is given; where there are embeddings and a latent, `strength` is the share of the
    embeddings' picture. Told nothing, it draws uniform noise. Guidance and steps are without effect.

    Args:
        channels: 1 (grey) or 3 (RGB).
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
    """

    used_settings = ("strength",)

    @register_to_config
    def __init__(self, channels: int = 1, height: int = 28, width: int = 28) -> None:
        super().__init__()

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int], **options: Any) -> Self:
        return cls(*image_size)

    @property
    def image_size(self) -> tuple[int, int, int]:
        return (self.config.channels, self.config.height, self.config.width)

    @property
    def latent_space(self) -> EmbeddingSpace:
        return EmbeddingSpace(encoder="pixels", layer="latent", shape=self.image_size, normalisation="[0, 1]")

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        height, width = self._patch_size
        return EmbeddingSpace(
            encoder="pixels",
            layer="patches",
            shape=(_PATCHES_A_SIDE**2, self.config.channels * height * width),
            normalisation="[-1, 1] / sqrt(size)",
        )

    @property
    def generates_from_embeddings(self) -> bool:
        return True

    @property
    def advice(self) -> str | None:
        channels, height, width = self.image_size
        if max(height, width) <= _LARGEST_ADVISED_SIDE:
            return None
        return (
            f"The generator pixels decodes each of the {channels * height * width:,} numbers of a {height}x{width} "
            f"picture for itself: beyond some {_LARGEST_ADVISED_SIDE} pixels a side, most of what is drawn is noise. "
            "generator=thumbnail decodes a copy of 16x16 pixels and draws it smoothly."
        )

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.check_images(pixel_values)
        return pixel_values.float()

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cuts pictures (N, C, H, W) in [0, 1] into patches (N, 16, values); sides are lengthened to multiples of 4."""
        self.check_images(pixel_values)
        height, width = self._patch_size
        missing = (_PATCHES_A_SIDE * height - self.config.height, _PATCHES_A_SIDE * width - self.config.width)
        whole = F.pad(pixel_values.float(), (0, missing[1], 0, missing[0]), mode="replicate")
        patches = F.unfold(whole, self._patch_size, stride=self._patch_size).transpose(1, 2)
        return (2 * patches - 1) / patches.shape[-1] ** 0.5

    def accept(self, conditions: Conditions) -> Conditions:
        """The conditions; flat latents (N, C * H * W) are pictures, too."""
        if conditions.text_embeds is not None:
            raise FmriModelsError("The pixels generator takes no text embeddings; pass image embeddings or latents.")
        latents, num_values = conditions.latents, self.config.channels * self.config.height * self.config.width
        if latents is not None and latents.ndim == 2 and latents.shape[1] == num_values:
            conditions = replace(conditions, latents=latents.reshape(-1, *self.image_size))
        return super().accept(conditions)

    def draw(self, conditions: Conditions, settings: DrawingSettings, generators: Generators) -> torch.Tensor:
        latents = conditions.latents
        if not conditions.given:
            # The normal distribution's own function turns normal draws into uniform ones.
            latents = torch.special.ndtr(self.draw_latents(len(conditions), generators))
        pictures = [] if latents is None else [latents]
        if conditions.image_embeds is not None:
            pictures.append(self._joined(conditions.image_embeds))
        if len(pictures) == 2:
            pictures = [torch.lerp(pictures[0].float(), pictures[1].float(), settings.strength)]
        return self.in_one_step(pictures[0], conditions)

    @property
    def _patch_size(self) -> tuple[int, int]:
        return (-(-self.config.height // _PATCHES_A_SIDE), -(-self.config.width // _PATCHES_A_SIDE))

    def _joined(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """(N, 16, values) ▶ (N, C, H, W)."""
        size = tuple(_PATCHES_A_SIDE * side for side in self._patch_size)
        patches = (image_embeds.float() * image_embeds.shape[-1] ** 0.5 + 1) / 2
        whole = F.fold(patches.transpose(1, 2), size, self._patch_size, stride=self._patch_size)
        return whole[..., : self.config.height, : self.config.width]
