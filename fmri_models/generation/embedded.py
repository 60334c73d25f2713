"""The tiny generator that comes with the package: an autoencoder and a CLIP for 64x64 scenes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from .image_generator import ImageGenerator, ImageGeneratorOutput

ASSETS_FOLDER = Path(__file__).parent.parent / "assets" / "embedded"

_PREPROCESSING = "64x64 RGB in [-1, 1]"
_BATCH_SIZE = 250


class EmbeddedImageGenerator(ImageGenerator):
    """Decodes latents into small pictures, and embeds and encodes pictures as targets for decoders.

    It has no diffusion model yet: pictures come from `latents`, and `image_embeds` serve retrieval.

    The statistics and revisions describe the weights. They are part of the saved configuration, so that a generator
    that was saved again (in another dtype, inside another pipeline) still means the same by a vector.

    Args:
        autoencoder: Takes pictures after `pixel_unshuffle` by 2: 12 channels at half the size.
        image_encoder: A CLIP; its vision tower embeds pictures, its text tower captions.
        tokenizer: The CLIP's.
        latent_mean: Mean of each latent channel over training pictures; None for 0.
        latent_std: Standard deviation of each latent channel; None for 1.
        image_embeds_mean: Mean of each dimension of the vision tokens over training pictures and tokens.
        image_embeds_std: Standard deviation of each dimension of the vision tokens.
        autoencoder_revision: Content hash of the autoencoder's weights file.
        image_encoder_revision: Content hash of the CLIP's weights file.
    """

    config_name = "model_index.json"
    model_cpu_offload_seq = "image_encoder->autoencoder"

    @register_to_config
    def __init__(
        self,
        autoencoder: AutoencoderTiny,
        image_encoder: CLIPModel,
        tokenizer: CLIPTokenizer,
        latent_mean: list[float] | None = None,
        latent_std: list[float] | None = None,
        image_embeds_mean: list[float] | None = None,
        image_embeds_std: list[float] | None = None,
        autoencoder_revision: str | None = None,
        image_encoder_revision: str | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(autoencoder=autoencoder, image_encoder=image_encoder, tokenizer=tokenizer)

    @classmethod
    def from_assets(cls, dtype: torch.dtype = torch.float32) -> "EmbeddedImageGenerator":
        """Loads the generator that comes with the package (its files hold float16)."""
        return cls.from_pretrained(ASSETS_FOLDER, dtype=dtype, local_files_only=True)

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int]) -> "EmbeddedImageGenerator":
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

    def _embedding_space(self, tower: str, num_tokens: int, normalisation: str, preprocessing: str) -> EmbeddingSpace:
        return EmbeddingSpace(
            encoder=f"embedded/image_encoder/{tower}",
            revision=self.config.image_encoder_revision,
            layer="projected_tokens",
            shape=(num_tokens, self.image_encoder.config.projection_dim),
            normalisation=normalisation,
            preprocessing=preprocessing,
        )

    @torch.no_grad()
    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds pictures: all vision tokens, normalized and projected as CLIP does with the first one alone.

        Args:
            pixel_values: (N, 3, 64, 64) float in [0, 1].

        Returns:
            (N, 17, D) float32, divided by the norm of the picture's own first token, which thereby is CLIP's embedding.

        Raises:
            FmriModelsError: Shape, dtype or values differ.
        """
        self.check_images(pixel_values)
        return _in_batches(self._embed_batch, pixel_values)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeds captions: all text tokens, normalized and projected as CLIP does with the last one alone.

        Args:
            texts: N captions; what exceeds the tokenizer's length is cut off.

        Returns:
            (N, T, D) float32, divided by the norm of the caption's own end token.
        """
        max_length = self.image_encoder.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
        )
        return _in_batches(self._embed_tokens, tokens["input_ids"])

    @torch.no_grad()
    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes pictures.

        Args:
            pixel_values: (N, 3, 64, 64) float in [0, 1].

        Returns:
            (N, 12, 8, 8) float32 latents; each channel has mean 0 and variance 1 over training pictures.

        Raises:
            FmriModelsError: Shape, dtype or values differ.
        """
        self.check_images(pixel_values)
        return _in_batches(self._encode_batch, pixel_values)

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
        """Decodes latents into pictures.

        Args:
            image_embeds: (N, 17, D), or None. They don't change the picture and don't suffice for one.
            text_embeds: (N, T, D), or None; likewise.
            latents: (N, 12, 8, 8), or None: standard normal ones are drawn, which is all this generator believes
                without a brain.
            strength: Without effect.
            guidance_scale: Without effect.
            num_inference_steps: Without effect.
            num_images: How many pictures to draw if there are no latents.
            generator: Source of the drawn latents.
            output_type: `"pil"`, `"np"` or `"pt"`.

        Raises:
            FmriModelsError: Embeddings without latents, latents of another shape, or an unknown output type.
        """
        if latents is None and (image_embeds is not None or text_embeds is not None):
            raise FmriModelsError(
                "EmbeddedImageGenerator was given embeddings without latents, but this stack has no diffusion model "
                "yet and draws from latents alone; pass latents, or use a generator that generates from embeddings."
            )
        batch_size = self.batch_size(num_images, image_embeds, text_embeds, latents)
        if latents is None:
            latents = self.draw_latents(batch_size, generator)
        if tuple(latents.shape[1:]) != self.latent_space.shape:
            raise FmriModelsError(
                f"EmbeddedImageGenerator takes latents of shape (N, {', '.join(map(str, self.latent_space.shape))}); "
                f"got {tuple(latents.shape)}."
            )
        return self.postprocess(_in_batches(self._decode_batch, latents), output_type)

    def _embed_batch(self, pixel_values: torch.Tensor) -> torch.Tensor:
        clip = self.image_encoder
        tokens = clip.vision_model(pixel_values=2 * pixel_values.to(clip.device, clip.dtype) - 1).last_hidden_state
        tokens = clip.visual_projection(clip.vision_model.post_layernorm(tokens)).float()
        return tokens / tokens[:, :1].norm(dim=-1, keepdim=True)

    def _embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        clip = self.image_encoder
        input_ids = input_ids.to(clip.device)
        tokens = clip.text_projection(clip.text_model(input_ids=input_ids).last_hidden_state).float()
        end = (input_ids == clip.config.text_config.eos_token_id).int().argmax(dim=1)
        norm = tokens[torch.arange(len(tokens), device=tokens.device), end].norm(dim=-1)
        return tokens / norm[:, None, None]

    def _encode_batch(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pictures = F.pixel_unshuffle(2 * pixel_values.to(self.autoencoder.device, self.autoencoder.dtype) - 1, 2)
        mean, std = self._latent_statistics(self.autoencoder.device)
        return (self.autoencoder.encode(pictures).latents.float() - mean) / std

    def _decode_batch(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self._latent_statistics(self.autoencoder.device)
        unscaled = (latents.to(mean) * std + mean).to(self.autoencoder.dtype)
        return (F.pixel_shuffle(self.autoencoder.decode(unscaled).sample.float(), 2) + 1) / 2

    def _latent_statistics(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        num_channels = self.latent_space.shape[0]
        mean = torch.tensor(self.config.latent_mean or [0.0] * num_channels, device=device)
        std = torch.tensor(self.config.latent_std or [1.0] * num_channels, device=device)
        return mean[:, None, None], std[:, None, None]


def _in_batches(function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Applies a function to bounded parts, so that memory does not grow with the number of pictures."""
    return torch.cat([function(part) for part in values.split(_BATCH_SIZE)])
