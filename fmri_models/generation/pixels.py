"""The simplest generator: its latent is the small picture itself, and so are its embeddings, cut into patches."""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..seeds import checked_generators
from .image_generator import ImageGenerator, ImageGeneratorOutput
from .step_callback import CallbackFunction

# Patches a side: few enough for a diffusion prior, and small enough to say where something is.
_PATCHES_A_SIDE = 4
# Beyond it, what a brain tells of a pixel is less than the noise that every pixel has of its own.
_LARGEST_ADVISED_SIDE = 32


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
        return_dict: bool = True,
        callback_on_step_end: CallbackFunction | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
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
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for what `encode_images` would give of the pictures.
            return_dict: Whether to return an [`ImageGeneratorOutput`], or a tuple whose first item are the pictures.
            callback_on_step_end: As in [`ImageGenerator`]; nothing is denoised, and it is called once.
            callback_on_step_end_tensor_inputs: What it is given, of `"latents"`, `"image_embeds"`, `"text_embeds"`.

        Raises:
            FmriModelsError: Text embeddings, or another shape.
        """
        image_embeds, text_embeds, latents = self.batches(image_embeds, text_embeds, latents)
        if text_embeds is not None:
            raise FmriModelsError("The pixels generator takes no text embeddings; pass image embeddings or latents.")
        self.check_output(output_type)
        on_step_end = self.begin(guidance_scale, callback_on_step_end, callback_on_step_end_tensor_inputs)
        batch_size = self.batch_size(num_images, image_embeds, latents)
        generator = checked_generators(generator, batch_size, "pictures")
        if image_embeds is None and latents is None:
            # The normal distribution's own function turns normal draws into uniform ones.
            latents = torch.special.ndtr(self.draw_latents(batch_size, generator))
        pictures = [] if latents is None else [latents.reshape(batch_size, *self.image_size)]
        if image_embeds is not None:
            pictures.append(self._joined(image_embeds))
        mixed = pictures[0] if len(pictures) == 1 else torch.lerp(pictures[0].float(), pictures[1].float(), strength)
        drawn = self.in_one_step(on_step_end, mixed, image_embeds=image_embeds)
        return self.postprocess(drawn, output_type).in_form(return_dict)

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
