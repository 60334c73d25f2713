"""Stable Diffusion 1 (Rombach et al., 2022) from a low-level picture and a text, as Takagi & Nishimoto (2023) draw."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers import KarrasDiffusionSchedulers
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace, clip_hidden_text_space, stable_diffusion_latent_space
from ..errors import FmriModelsError
from .latent_diffusion import LatentDiffusionGenerator
from .stored_generator import GeneratorOptions, ImageSide
from .trainable_generator import Told

_PUBLISHED_TEXT_SHAPE = (77, 768)


class StableDiffusionOptions(GeneratorOptions):
    """What a file may say of [`StableDiffusionImageGenerator`]."""

    image_side: ImageSide | None = None
    low_level_side: ImageSide | None = None
    schedule: Literal["published", "ddim"] = "published"
    noise_one_step_later: bool = False


class StableDiffusionImageGenerator(LatentDiffusionGenerator):
    """Draws pictures of 512×512 from the tokens of a text, from a low-level picture, or from both.

    Guidance leads away from the empty text, which is also what is read where no text is given.

    Args:
        vae: The autoencoder.
        tokenizer: Of the text tower.
        text_encoder: CLIP ViT-L/14's text tower; needed for drawing.
        unet: The diffusion model; None for a generator that embeds, encodes and decodes alone.
        scheduler: Steps of the denoising.
        image_side: Height and width of a picture in pixels; None for the size that the UNet was trained with.
        low_level_side: Height and width at which low-level pictures are encoded; None for those of the picture. Takagi
            & Nishimoto decode latents of 320 pixels, and enlarge the picture that is decoded from them before it is
            encoded again as the start of the diffusion.
        schedule: `"published"` leaves the scheduler as it is; `"ddim"` puts DDIM (Song et al., 2021) in its place.
        noise_one_step_later: Repeats a peculiarity of CompVis' code: the low-level picture is given the noise of the
            step before the one that denoising begins with.
    """

    options = StableDiffusionOptions
    default_repository = "CompVis/stable-diffusion-v1-4"
    published_spaces: ClassVar[Mapping[str, EmbeddingSpace]] = {
        "text_embedding_space": clip_hidden_text_space("openai/clip-vit-large-patch14/text", *_PUBLISHED_TEXT_SHAPE),
        "latent_space": stable_diffusion_latent_space(512),
    }
    drawing_settings = DrawingSettings(num_inference_steps=50, guidance_scale=7.5, strength=0.8)
    published_side = 512
    # It embeds no pictures.
    embeds_any_size: ClassVar[bool] = False
    diffusers_class_names = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["tokenizer", "text_encoder", "unet", "scheduler"]

    @register_to_config
    def __init__(
        self,
        vae: AutoencoderKL,
        tokenizer: CLIPTokenizer | None = None,
        text_encoder: CLIPTextModel | None = None,
        unet: UNet2DConditionModel | None = None,
        scheduler: KarrasDiffusionSchedulers | None = None,
        image_side: int | None = None,
        low_level_side: int | None = None,
        schedule: str = "published",
        noise_one_step_later: bool = False,
    ) -> None:
        super().__init__()
        if schedule not in ("published", "ddim"):
            raise FmriModelsError(f"schedule is {schedule!r}; expected 'published' or 'ddim'.")
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        if low_level_side is not None and (low_level_side < factor or low_level_side % factor):
            raise FmriModelsError(
                f"low_level_side is {low_level_side}; expected a multiple of {factor}, the pixels for one latent."
            )
        if schedule == "ddim" and scheduler is not None:
            # Of pixels in [-1, 1] alone, and not of latents, is it known where to clip.
            scheduler = DDIMScheduler.from_config(scheduler.config, clip_sample=False)
        self.register_modules(vae=vae, tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, scheduler=scheduler)

    @property
    def text_embedding_space(self) -> EmbeddingSpace:
        shape = _PUBLISHED_TEXT_SHAPE
        if self.text_encoder is not None:
            shape = (self.text_encoder.config.max_position_embeddings, self.text_encoder.config.hidden_size)
        return clip_hidden_text_space("openai/clip-vit-large-patch14/text", *shape)

    @property
    def latent_space(self) -> EmbeddingSpace:
        """Latents of low-level pictures, `low_level_side` pixels a side where that is given."""
        side, space = self.config.low_level_side, super().latent_space
        if side is None:
            return space
        values = side // self.latent_factor
        preprocessing = stable_diffusion_latent_space(side).preprocessing
        return replace(space, shape=(space.shape[0], values, values), preprocessing=preprocessing)

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"latents": super().latent_space.shape}

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """It has no embeddings of pictures."""
        raise FmriModelsError(f"{type(self).__name__} has no image embeddings; choose a generator that has.")

    def condition(self, conditions: Conditions, noises: dict[str, torch.Tensor]) -> Told:
        """`"text"` (N, 77, 768)."""
        if conditions.text_embeds is None:
            return self.unconditional(len(conditions))
        return {"text": conditions.text_embeds}

    def unconditional(self, num_images: int) -> Told:
        """Tokens of the empty text."""
        return {"text": self.text_tokens([""]).expand(num_images, -1, -1)}

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        return self.unet(sample, timestep, encoder_hidden_states=told["text"].to(sample.dtype)).sample

    def start_from(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the size that is drawn: decoded, enlarged as 8-bit pictures (bicubic) and encoded again."""
        if self.config.low_level_side is None:
            return latents
        return self.in_chunks(self._encode_as_drawn, super().to_images(latents))

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        return resized(super().to_images(latents), self._image_side, Image.Resampling.BICUBIC)

    def check_output(self, output_type: str) -> None:
        super().check_output(output_type)
        if output_type == "latent" and self.config.low_level_side is not None:
            raise FmriModelsError(
                f"output_type is 'latent', and with low_level_side latents that are drawn ({self._image_side} pixels) "
                f"are none of those that low-level pictures are encoded as ({self.config.low_level_side}); ask for "
                "pictures."
            )

    def _encode_as_drawn(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.to_latents(super()._for_autoencoder(resized(pictures, self._image_side, Image.Resampling.BICUBIC)))

    def _for_autoencoder(self, pixel_values: torch.Tensor) -> torch.Tensor:
        side = self.config.low_level_side or self._image_side
        return super()._for_autoencoder(resized(pixel_values, side, Image.Resampling.LANCZOS))


def resized(pictures: torch.Tensor, side: int, resampling: Image.Resampling) -> torch.Tensor:
    """Pictures in another size, by way of 8 bits, as Pillow resizes; themselves where they have that already.

    Args:
        pictures: (N, 3, H, W) float, about [0, 1].
        side: Height and width in pixels.
        resampling: How Pillow weighs neighbours.

    Returns:
        (N, 3, side, side) float32 in [0, 1], on the device of the pictures.
    """
    if pictures.shape[2:] == (side, side):
        return pictures
    as_bytes = (pictures.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    of_size: list[Any] = [np.asarray(Image.fromarray(each).resize((side, side), resampling)) for each in as_bytes]
    return torch.from_numpy(np.stack(of_size)).permute(0, 3, 1, 2).to(pictures.device).float() / 255
