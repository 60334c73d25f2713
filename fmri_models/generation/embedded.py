"""The tiny generator that comes with the package: latent diffusion, an autoencoder and a CLIP for 64x64 scenes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid, get_2d_sincos_pos_embed
from diffusers.utils.torch_utils import randn_tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..names import one_line
from ..offloading import onloaded
from .clip_embedding import token_ids
from .denoising import denoised, noisy_start, zeros_like
from .image_generator import Generators, ImageGenerator
from .trainable_generator import Predict, Told

ASSETS_FOLDER = Path(__file__).parent.parent / "assets" / "embedded"

_PREPROCESSING = "64x64 RGB in [-1, 1]"
# What the diffusion model computes of more pictures on a CPU leaves the caches in between.
_IMAGES_ON_A_CPU = 128
# Of means and standard deviations; those of networks are near 1.
_LARGEST = 1e6


class EmbeddedImageGenerator(ImageGenerator):
    """Draws small pictures from the tokens of its own CLIP by latent diffusion, from a low-level latent, or from both.

    The condition of the diffusion model is a sequence of image tokens and text tokens, each standardised and with a
    code of its place; what is absent is zero. The picture's own CLIP embedding is added to the time embedding besides.

    The statistics and revisions describe the weights. They are part of the saved configuration, so that a generator
    that was saved again (in another dtype, inside another pipeline) still means the same by a vector.

    Args:
        autoencoder: Takes pictures after `pixel_unshuffle` by 2: 12 channels at half the size.
        image_encoder: A CLIP; its vision tower embeds pictures, its text tower captions.
        tokenizer: The CLIP's.
        unet: Predicts the velocity of noisy latents; without one (while it is being trained, for instance) pictures
            come from latents alone and embeddings serve retrieval.
        scheduler: Steps of the denoising; any of diffusers' that knows the UNet's prediction.
        latent_mean: Mean of each latent channel over training pictures; None for 0.
        latent_std: Standard deviation of each latent channel; None for 1.
        image_embeds_mean: Mean of each dimension of the vision tokens over training pictures and tokens.
        image_embeds_std: Standard deviation of each dimension of the vision tokens.
        text_embeds_mean: Mean of each dimension of the text tokens over training captions and tokens.
        text_embeds_std: Standard deviation of each dimension of the text tokens.
        autoencoder_revision: Content hash of the autoencoder's weights file.
        image_encoder_revision: Content hash of the CLIP's weights file.
        condition_revision: Which weights of the UNet learned conditions belong to, where it was trained together with a
            brain model.
    """

    package_folder = ASSETS_FOLDER
    model_cpu_offload_seq = "image_encoder->unet->autoencoder"
    used_settings = (*ImageGenerator.used_settings, "text_to_image_ratio")
    images_a_batch = 250
    images_a_pass = 250
    learning_components = ("unet",)
    target_components: ClassVar = {
        "image_embeds": ("image_encoder",),
        "text_embeds": ("image_encoder",),
        "latents": ("autoencoder",),
    }
    _optional_components = ["unet", "scheduler"]

    @register_to_config
    def __init__(
        self,
        autoencoder: AutoencoderTiny,
        image_encoder: CLIPModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel | None = None,
        scheduler: DPMSolverMultistepScheduler | None = None,
        latent_mean: list[float] | None = None,
        latent_std: list[float] | None = None,
        image_embeds_mean: list[float] | None = None,
        image_embeds_std: list[float] | None = None,
        text_embeds_mean: list[float] | None = None,
        text_embeds_std: list[float] | None = None,
        autoencoder_revision: str | None = None,
        image_encoder_revision: str | None = None,
        condition_revision: str | None = None,
    ) -> None:
        super().__init__()
        channels, width = autoencoder.config.latent_channels, image_encoder.config.projection_dim
        for name, values, length in (
            ("latent_mean", latent_mean, channels),
            ("latent_std", latent_std, channels),
            ("image_embeds_mean", image_embeds_mean, width),
            ("image_embeds_std", image_embeds_std, width),
            ("text_embeds_mean", text_embeds_mean, width),
            ("text_embeds_std", text_embeds_std, width),
        ):
            _check_statistics(name, values, length)
        self.register_modules(
            autoencoder=autoencoder,
            image_encoder=image_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
        )

    @classmethod
    def from_assets(cls, dtype: torch.dtype = torch.float32) -> "EmbeddedImageGenerator":
        """Loads the generator that comes with the package (its files hold float16)."""
        return cls.from_pretrained(ASSETS_FOLDER, dtype=dtype, local_files_only=True)

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int], **options: Any) -> Self:
        return cls.from_assets()

    @property
    def image_size(self) -> tuple[int, int, int]:
        size = self.image_encoder.config.vision_config.image_size
        return (3, size, size)

    @property
    def latent_space(self) -> EmbeddingSpace:
        size = self.image_size[1] // 2 // 2 ** (len(self.autoencoder.config.encoder_block_out_channels) - 1)
        return EmbeddingSpace(
            encoder="embedded/autoencoder",
            revision=self.config.autoencoder_revision,
            layer="latent",
            shape=(self.autoencoder.config.latent_channels, size, size),
            normalisation="channel_standardised",
            preprocessing=_PREPROCESSING,
        )

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        vision = self.image_encoder.config.vision_config
        num_tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        return self._embedding_space("vision", num_tokens, "cls_norm", _PREPROCESSING)

    @property
    def text_embedding_space(self) -> EmbeddingSpace:
        num_tokens = self.image_encoder.config.text_config.max_position_embeddings
        return self._embedding_space("text", num_tokens, "eos_norm", "padded to full length")

    @property
    def encoder_hidden_states_space(self) -> EmbeddingSpace:
        num_tokens = self.image_embedding_space.shape[0] + self.text_embedding_space.shape[0]
        return self.learned_space("encoder_hidden_states", (num_tokens, self.image_encoder.config.projection_dim))

    @property
    def time_embeds_space(self) -> EmbeddingSpace:
        return self.learned_space("time_embeds", (self.image_encoder.config.projection_dim,))

    def _embedding_space(self, tower: str, num_tokens: int, normalisation: str, preprocessing: str) -> EmbeddingSpace:
        return EmbeddingSpace(
            encoder=f"embedded/image_encoder/{tower}",
            revision=self.config.image_encoder_revision,
            layer="projected_tokens",
            shape=(num_tokens, self.image_encoder.config.projection_dim),
            normalisation=normalisation,
            preprocessing=preprocessing,
        )

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds pictures: all vision tokens, normalized and projected as CLIP does with the first one alone.

        Args:
            pixel_values: (N, 3, 64, 64) float in [0, 1].

        Returns:
            (N, 17, D) float32, divided by the norm of the picture's own first token, which thereby is CLIP's embedding.

        Raises:
            FmriModelsError: Shape, dtype or values differ.
        """
        return self.pass_images(self._embed_chunk, pixel_values)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeds captions: all text tokens, normalized and projected as CLIP does with the last one alone.

        Args:
            texts: N captions; what exceeds the tokenizer's length is cut off.

        Returns:
            (N, T, D) float32, divided by the norm of the caption's own end token.

        Raises:
            FmriModelsError: The tokenizer is none of the CLIP's.
        """
        input_ids = token_ids(self.tokenizer, texts, self.image_encoder.config.text_config)
        with self.released():
            return self.in_chunks(self._embed_tokens, input_ids)

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes pictures.

        Args:
            pixel_values: (N, 3, 64, 64) float in [0, 1].

        Returns:
            (N, 12, 8, 8) float32 latents; each channel has mean 0 and variance 1 over training pictures.

        Raises:
            FmriModelsError: Shape, dtype or values differ.
        """
        return self.pass_images(self._encode_chunk, pixel_values)

    @property
    def generates_from_embeddings(self) -> bool:
        return self.unet is not None

    @classmethod
    def check_settings(cls, settings: DrawingSettings) -> None:
        if settings.text_to_image_ratio not in (None, 0.0, 0.5, 1.0):
            raise FmriModelsError(
                f"text_to_image_ratio is {settings.text_to_image_ratio:g}, and {cls.__name__} reads image and text in "
                "one sequence, which has no weights; expected 0 (image alone), 0.5 (both) or 1 (text alone)."
            )

    def accept(self, conditions: Conditions) -> Conditions:
        conditions = super().accept(conditions)
        if self.unet is None and conditions.latents is None and not conditions.told_nothing:
            raise FmriModelsError(
                "EmbeddedImageGenerator was given embeddings without latents, but this one was saved without its "
                "diffusion model and draws from latents alone; pass latents, or load it with its unet."
            )
        return conditions

    def condition(self, conditions: Conditions) -> tuple[torch.Tensor, torch.Tensor]:
        """What the diffusion model is told of each picture; zero where nothing is known.

        Learned conditions are added to what the embeddings say.

        Returns:
            Tokens (N, 17 + T, D), image before text, and the pooled embedding (N, D).
        """
        device, num_images = self._execution_device, len(conditions)
        image_shape, text_shape = self.image_embedding_space.shape, self.text_embedding_space.shape
        image_tokens = torch.zeros(num_images, *image_shape, device=device)
        text_tokens = torch.zeros(num_images, *text_shape, device=device)
        pooled = torch.zeros(num_images, image_shape[-1], device=device)
        if conditions.image_embeds is not None:
            standardised = self._standardised(conditions.image_embeds.to(device), "image_embeds")
            image_tokens, pooled = standardised + self._image_places(device), standardised[:, 0]
        if conditions.text_embeds is not None:
            standardised = self._standardised(conditions.text_embeds.to(device), "text_embeds")
            text_tokens = standardised + self._text_places(device)
        tokens = torch.cat([image_tokens, text_tokens], dim=1)
        if conditions.encoder_hidden_states is not None:
            tokens = tokens + conditions.encoder_hidden_states.to(tokens)
        if conditions.time_embeds is not None:
            pooled = pooled + conditions.time_embeds.to(pooled)
        return tokens, pooled

    def learned_from(self, conditions: Conditions) -> Conditions:
        tokens, pooled = self.condition(conditions)
        return Conditions(encoder_hidden_states=tokens, time_embeds=pooled)

    def network_in_training(self, conditions: Conditions, generator: torch.Generator | None) -> tuple[Told, Predict]:
        if self.unet is None:
            return super().network_in_training(conditions, generator)
        return self._told(self.accept(conditions)), self._asked

    def draw(self, conditions: Conditions, settings: DrawingSettings, generators: Generators) -> torch.Tensor:
        """(N, 12, 8, 8) standardised latents of the pictures."""
        conditions = _weighted(conditions, settings.text_to_image_ratio)
        latents, num_images = conditions.latents, len(conditions)
        if self.unet is None and latents is None:
            latents = self.draw_latents(num_images, generators)
        num_steps = self.num_steps(conditions, settings)
        if latents is not None and (self.unet is None or num_steps == 0):
            return self.in_one_step(latents, conditions)
        noise = randn_tensor((num_images, *self.latent_space.shape), generators, self._execution_device, torch.float32)
        return denoised(
            self,
            noisy_start(self.scheduler, latents, noise, settings.num_inference_steps, num_steps),
            conditions,
            self._told(conditions),
            tell=self._told,
            nothing_like=zeros_like,
            predict=self._predicted,
            generators=generators,
        )

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self._latent_statistics(self._execution_device)
        unscaled = (latents.to(mean) * std + mean).to(self.autoencoder.dtype)
        return (F.pixel_shuffle(self.autoencoder.decode(unscaled).sample.float(), 2) + 1) / 2

    def _told(self, conditions: Conditions) -> Told:
        return dict(zip(("tokens", "pooled"), self.condition(conditions), strict=True))

    def _predicted(self, noisy: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        """What the diffusion model says of (N, 12, 8, 8) noisy latents, in float32; none depends on another one."""
        size = _IMAGES_ON_A_CPU if noisy.device.type == "cpu" else max(1, len(noisy))
        inputs = [values.split(size) for values in (noisy, told["tokens"], told["pooled"])]
        chunks = [
            self._asked(sample, timestep, {"tokens": hidden, "pooled": labels})
            for sample, hidden, labels in zip(*inputs, strict=True)
        ]
        return torch.cat(chunks)

    def _asked(self, noisy: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        sample, tokens, pooled = (values.to(self.unet.dtype) for values in (noisy, told["tokens"], told["pooled"]))
        return self.unet(sample, timestep, encoder_hidden_states=tokens, class_labels=pooled).sample.float()

    def _standardised(self, embeds: torch.Tensor, name: str) -> torch.Tensor:
        embeds = embeds.float()
        mean, std = getattr(self.config, f"{name}_mean"), getattr(self.config, f"{name}_std")
        if mean is None or std is None:
            return embeds
        return (embeds - embeds.new_tensor(mean)) / embeds.new_tensor(std)

    def _image_places(self, device: torch.device) -> torch.Tensor:
        """(17, D) code of each patch's place; the first token has none."""
        num_tokens, width = self.image_embedding_space.shape
        places = get_2d_sincos_pos_embed(
            width, int((num_tokens - 1) ** 0.5), cls_token=True, extra_tokens=1, output_type="pt"
        )
        return places.to(device, torch.float32)

    def _text_places(self, device: torch.device) -> torch.Tensor:
        """(T, D) code of each token's place in the caption."""
        num_tokens, width = self.text_embedding_space.shape
        places = get_1d_sincos_pos_embed_from_grid(width, torch.arange(num_tokens), output_type="pt")
        return places.to(device, torch.float32)

    def _embed_chunk(self, pixel_values: torch.Tensor) -> torch.Tensor:
        clip = self.image_encoder
        pictures = 2 * pixel_values.to(self._execution_device, clip.dtype) - 1
        with onloaded(clip):
            tokens = clip.vision_model(pixel_values=pictures).last_hidden_state
            tokens = clip.visual_projection(clip.vision_model.post_layernorm(tokens)).float()
        return tokens / tokens[:, :1].norm(dim=-1, keepdim=True)

    def _embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        clip = self.image_encoder
        input_ids = input_ids.to(self._execution_device)
        with onloaded(clip):
            tokens = clip.text_projection(clip.text_model(input_ids=input_ids).last_hidden_state).float()
        end = (input_ids == clip.config.text_config.eos_token_id).int().argmax(dim=1)
        norm = tokens[torch.arange(len(tokens), device=tokens.device), end].norm(dim=-1)
        return tokens / norm[:, None, None]

    def _encode_chunk(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pictures = F.pixel_unshuffle(2 * pixel_values.to(self._execution_device, self.autoencoder.dtype) - 1, 2)
        mean, std = self._latent_statistics(self._execution_device)
        return (self.autoencoder.encode(pictures).latents.float() - mean) / std

    def _latent_statistics(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        num_channels = self.latent_space.shape[0]
        mean = torch.tensor(self.config.latent_mean or [0.0] * num_channels, device=device)
        std = torch.tensor(self.config.latent_std or [1.0] * num_channels, device=device)
        return mean[:, None, None], std[:, None, None]


def _weighted(conditions: Conditions, text_to_image_ratio: float | None) -> Conditions:
    """Without the image or the text, where both are given and one has no weight."""
    if conditions.image_embeds is None or conditions.text_embeds is None:
        return conditions
    if text_to_image_ratio == 0:
        return replace(conditions, text_embeds=None)
    return replace(conditions, image_embeds=None) if text_to_image_ratio == 1 else conditions


def _check_statistics(name: str, values: Sequence[float] | None, length: int) -> None:
    if values is None:
        return
    if len(values) != length:
        raise FmriModelsError(
            f"EmbeddedImageGenerator has {len(values)} values in {name}; expected {length}, as its weights have."
        )
    beyond = next((value for value in values if not abs(value) <= _LARGEST), None)
    if beyond is not None:
        raise FmriModelsError(
            f"EmbeddedImageGenerator has {one_line(beyond, 40)} in {name}; expected numbers up to {_LARGEST:,.0f}."
        )
    if name.endswith("_std") and min(values) <= 0:
        raise FmriModelsError(f"EmbeddedImageGenerator has {min(values):g} in {name}; expected numbers above 0.")
