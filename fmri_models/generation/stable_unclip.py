"""Stable unCLIP: Stable Diffusion 2.1, fine-tuned to be told CLIP's embedding of a picture."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
from diffusers.schedulers import DDPMScheduler, KarrasDiffusionSchedulers
from pydantic import Field
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace, clip_hidden_text_space, clip_pooled_space, stable_diffusion_latent_space
from ..errors import FmriModelsError
from .latent_diffusion import LatentDiffusionGenerator
from .stored_generator import GeneratorOptions, ImageSide
from .trainable_generator import Told

# Width of the embedding ▶ vision tower, of stable-diffusion-2-1-unclip and stable-diffusion-2-1-unclip-small.
_IMAGE_ENCODERS = {1024: "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 768: "openai/clip-vit-large-patch14"}


class StableUnCLIPOptions(GeneratorOptions):
    """What a file may say of [`StableUnCLIPImageGenerator`]."""

    image_encoder_name: str | None = None
    noise_level: Annotated[int, Field(ge=0)] = 0
    image_side: ImageSide | None = None


class StableUnCLIPImageGenerator(LatentDiffusionGenerator):
    """Draws pictures of 768 x 768 from CLIP's pooled image embedding, as Stable unCLIP 2.1 does (Stability AI, 2023).

    The network was trained on noisy embeddings and is told how noisy each one is (Ramesh et al., 2022, section 2 for
    the idea of drawing from an embedding). Embeddings are standardised with `image_normalizer`, get the noise of
    `noise_level` by `image_noising_scheduler`, and are given to the UNet together with a code of that level in place of
    a class label. A decoded embedding is never exact; a higher level asks the network to trust it less.

    Its second condition are text tokens. Without any they are those of the empty caption, which is also what guidance
    compares with; the embedding of the unconditional prediction is zero.

    Args:
        vae: Stable Diffusion's autoencoder.
        image_normalizer: Mean and standard deviation of the embeddings over the training pictures.
        image_noising_scheduler: Schedule of the noise that is added to embeddings.
        feature_extractor: Kept for diffusers' own pipeline; pictures are prepared by [`ClipPreprocessing`].
        image_encoder: CLIP's vision tower; None for a generator that draws from embeddings but makes none.
        tokenizer: Of the text tower.
        text_encoder: CLIP's text tower; needed for drawing.
        unet: The diffusion model; None for a generator that embeds, encodes and decodes alone.
        scheduler: Steps of the denoising.
        image_encoder_name: Repository of the vision tower's weights, which names the embedding space; None for that of
            the published variant with embeddings of this width.
        noise_level: Step of `image_noising_scheduler` whose noise every embedding gets; 0 is next to nothing.
        image_side: Height and width of a picture in pixels; None for the size that the UNet was trained with.
    """

    options = StableUnCLIPOptions
    default_repository = "stabilityai/stable-diffusion-2-1-unclip"
    published_spaces: ClassVar[Mapping[str, EmbeddingSpace]] = {
        "image_embedding_space": clip_pooled_space(_IMAGE_ENCODERS[1024], 1024),
        "latent_space": stable_diffusion_latent_space(768),
    }
    drawing_settings = DrawingSettings(guidance_scale=10.0)
    diffusers_class_names = ("StableUnCLIPImg2ImgPipeline",)
    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
    _exclude_from_cpu_offload = ["image_normalizer"]
    _optional_components = ["feature_extractor", "image_encoder", "tokenizer", "text_encoder", "unet", "scheduler"]

    @register_to_config
    def __init__(
        self,
        vae: AutoencoderKL,
        image_normalizer: StableUnCLIPImageNormalizer,
        image_noising_scheduler: DDPMScheduler,
        feature_extractor: CLIPImageProcessor | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        tokenizer: CLIPTokenizer | None = None,
        text_encoder: CLIPTextModel | None = None,
        unet: UNet2DConditionModel | None = None,
        scheduler: KarrasDiffusionSchedulers | None = None,
        image_encoder_name: str | None = None,
        noise_level: int = 0,
        image_side: int | None = None,
    ) -> None:
        super().__init__()
        num_levels = image_noising_scheduler.config.num_train_timesteps
        if not 0 <= noise_level < num_levels:
            raise FmriModelsError(f"noise_level is {noise_level}; expected 0 (no noise) to {num_levels - 1}.")
        self.register_modules(
            vae=vae,
            image_normalizer=image_normalizer,
            image_noising_scheduler=image_noising_scheduler,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
        )

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        width = self.image_normalizer.config.embedding_dim
        published = _IMAGE_ENCODERS.get(width, f"{self.default_repository}/image_encoder")
        return clip_pooled_space(
            self.config.image_encoder_name or published, width, self.clip_preprocessing.description
        )

    @property
    def text_embedding_space(self) -> EmbeddingSpace | None:
        if self.text_encoder is None:
            return None
        config = self.text_encoder.config
        encoder = f"{self.default_repository}/text_encoder"
        return clip_hidden_text_space(encoder, config.max_position_embeddings, config.hidden_size)

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"image_embeds": self.image_embedding_space.shape, "latents": self.latent_space.shape}

    def condition(self, conditions: Conditions, noises: dict[str, torch.Tensor]) -> Told:
        told = self.unconditional(len(conditions))
        if conditions.text_embeds is not None:
            told["text_tokens"] = conditions.text_embeds
        if conditions.image_embeds is not None:
            told["class_labels"] = self._noisy(conditions.image_embeds, noises["image_embeds"])
        return told

    def unconditional(self, num_images: int) -> Told:
        width = 2 * self.image_normalizer.config.embedding_dim
        return {
            "text_tokens": self.text_tokens([""]).expand(num_images, -1, -1),
            "class_labels": torch.zeros(num_images, width, device=self._execution_device),
        }

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states=told["text_tokens"].to(sample.dtype),
            class_labels=told["class_labels"].to(sample.dtype),
        ).sample

    def _noisy(self, image_embeds: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """(N, 2D): embeddings with the noise of `noise_level`, and the level's code."""
        level = torch.full((len(image_embeds),), self.config.noise_level, device=image_embeds.device)
        standardised = self.image_normalizer.scale(image_embeds)
        noisy = self.image_normalizer.unscale(self.image_noising_scheduler.add_noise(standardised, noise, level))
        code = get_timestep_embedding(level, image_embeds.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([noisy, code], dim=1)
