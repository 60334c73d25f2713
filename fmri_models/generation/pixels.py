"""The simplest generator: its latent is the small picture itself, and so are its embeddings, cut into patches."""

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..seeds import checked_generators
from .image_generator import ImageGenerator, ImageGeneratorOutput

# Patches a side: few enough for a diffusion prior, and small enough to say where something is.
_PATCHES_A_SIDE = 4


class PixelsImageGenerator(ImageGenerator):
    """A picture whose latent is its pixels: for digits, Miyawaki's figures, a person's own small stimuli.

    It knows nothing about pictures. Its embeddings are the same pixels, cut into 4 x 4 patches of values in [-1, 1]
    over the root of a patch's size; a method that decodes embeddings (a diffusion prior, say) thereby is its own model
    of pictures, and `strength` mixes the picture of the embeddings with that of the latent.

    Args:
        channels: 1 (grey) or 3 (RGB).
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
    """

    config_name = "model_index.json"
    used_settings = ("strength",)

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
        """Returns what it was given, clamped to [0, 1], as pictures; uniform noise if that is nothing.

        Args:
            image_embeds: (N, 16, values) as `embed_images` gives them, or None.
            text_embeds: None.
            latents: (N, C, H, W) as `encode_images` gives them, or None.
            strength: Share of the embeddings' picture where there is a latent too.
            guidance_scale: Without effect.
            num_inference_steps: Without effect.
            num_images: How many pictures to draw if there is neither embedding nor latent.
            generator: Source of the noise.
            output_type: `"pil"`, `"np"` or `"pt"`.

        Raises:
            FmriModelsError: Text embeddings, or another shape.
        """
        if text_embeds is not None:
            raise FmriModelsError("The pixels generator takes no text embeddings; pass image embeddings or latents.")
        batch_size = self.batch_size(num_images, image_embeds, latents)
        generator = checked_generators(generator, batch_size, "pictures")
        if image_embeds is None and latents is None:
            # The normal distribution's own function turns normal draws into uniform ones.
            latents = torch.special.ndtr(self.draw_latents(batch_size, generator))
        pictures = [] if latents is None else [latents.reshape(batch_size, *self.image_size)]
        if image_embeds is not None:
            pictures.append(self._joined(image_embeds))
        mixed = pictures[0] if len(pictures) == 1 else torch.lerp(pictures[0].float(), pictures[1].float(), strength)
        return self.postprocess(mixed, output_type)

    @property
    def _patch_size(self) -> tuple[int, int]:
        return (-(-self.config.height // _PATCHES_A_SIDE), -(-self.config.width // _PATCHES_A_SIDE))

    def _joined(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """(N, 16, values) ▶ (N, C, H, W)."""
        space = self.image_embedding_space
        if tuple(image_embeds.shape[1:]) != space.shape:
            raise FmriModelsError(
                f"PixelsImageGenerator takes image_embeds of shape (N, {', '.join(map(str, space.shape))}); got "
                f"{tuple(image_embeds.shape)}."
            )
        size = tuple(_PATCHES_A_SIDE * side for side in self._patch_size)
        patches = (image_embeds.float() * space.shape[-1] ** 0.5 + 1) / 2
        whole = F.fold(patches.transpose(1, 2), size, self._patch_size, stride=self._patch_size)
        return whole[..., : self.config.height, : self.config.width]

    def to(self, *args: Any, **kwargs: Any) -> "PixelsImageGenerator":
        return self
