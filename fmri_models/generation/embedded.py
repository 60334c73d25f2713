"""The tiny generator that comes with the package: latent diffusion, an autoencoder and a CLIP for 64x64 scenes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid, get_2d_sincos_pos_embed
from diffusers.utils.torch_utils import randn_tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..names import one_line
from ..offloading import onloaded
from ..seeds import checked_generators
from .clip_embedding import token_ids
from .image_generator import ImageGenerator, ImageGeneratorOutput
from .step_callback import CallbackFunction, StepCallback, Tensors

ASSETS_FOLDER = Path(__file__).parent.parent / "assets" / "embedded"

_PREPROCESSING = "64x64 RGB in [-1, 1]"
_BATCH_SIZE = 250
# Rows that go through the diffusion model together on a CPU: what it computes of more leaves the caches in between.
_ROWS_ON_A_CPU = 128
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
    """

    config_name = "model_index.json"
    model_cpu_offload_seq = "image_encoder->unet->autoencoder"
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
        with self.released():
            return _in_batches(self._embed_batch, pixel_values)

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
            return _in_batches(self._embed_tokens, input_ids)

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
        with self.released():
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
        return_dict: bool = True,
        callback_on_step_end: CallbackFunction | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImageGeneratorOutput:
        """Draws pictures.

        Args:
            image_embeds: (N, 17, D) as `embed_images` gives them, or None.
            text_embeds: (N, T, D) as `embed_texts` gives them, or None.
            latents: (N, 12, 8, 8) low-level picture to start from as `encode_images` gives it, or None.
            strength: How much of the low-level picture is replaced by diffusion: 0 decodes it as it is, 1 ignores it.
                Without embeddings there is nothing to replace it by, and it is decoded as it is.
            guidance_scale: Weight of the embeddings against the unconditional prediction (Ho and Salimans, 2022); 1
                takes the conditional prediction alone.
            num_inference_steps: Denoising steps of a whole picture; a start from latents takes `strength` of them.
            num_images: How many pictures to draw if there is neither embedding nor latent; they come from noise alone.
            generator: Source of noise for all, or one a picture.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for what `encode_images` would give of the pictures.
            return_dict: Whether to return an [`ImageGeneratorOutput`], or a tuple whose first item are the pictures.
            callback_on_step_end: As in [`ImageGenerator`]; the pictures of a long call are drawn in chunks, each of
                which takes all its steps.
            callback_on_step_end_tensor_inputs: What it is given, of `"latents"`, `"image_embeds"`, `"text_embeds"`.

        Raises:
            FmriModelsError: A shape or option is wrong, or there are embeddings and no diffusion model.
        """
        image_embeds, text_embeds, latents = self.batches(image_embeds, text_embeds, latents)
        self._check_call(image_embeds, text_embeds, latents, strength, guidance_scale, num_inference_steps)
        self.check_output(output_type)
        batch_size = self.batch_size(num_images, image_embeds, text_embeds, latents)
        generator = checked_generators(generator, batch_size, "pictures")
        on_step_end = self.begin(guidance_scale, callback_on_step_end, callback_on_step_end_tensor_inputs)
        drawn = []
        with self.released():
            for start in range(0, batch_size, _BATCH_SIZE):
                rows = slice(start, min(start + _BATCH_SIZE, batch_size))
                # What a callback made of it holds for the pictures that were drawn together.
                self._guidance_scale = guidance_scale
                part = self._draw(
                    rows.stop - rows.start,
                    _part(image_embeds, rows),
                    _part(text_embeds, rows),
                    _part(latents, rows),
                    strength,
                    num_inference_steps,
                    generator[rows] if isinstance(generator, list) else generator,
                    on_step_end,
                )
                drawn.append(part if output_type == "latent" else self._decode_batch(part))
        return self.postprocess(torch.cat(drawn), output_type).in_form(return_dict)

    @property
    def generates_from_embeddings(self) -> bool:
        return self.unet is not None

    def condition(
        self, image_embeds: torch.Tensor | None, text_embeds: torch.Tensor | None, num_images: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the diffusion model is told of each picture.

        Returns:
            Tokens (N, 17 + T, D), image before text, and the pooled embedding (N, D); zero where nothing is known.
        """
        device = self._execution_device
        image_shape, text_shape = self.image_embedding_space.shape, self.text_embedding_space.shape
        image_tokens = torch.zeros(num_images, *image_shape, device=device)
        text_tokens = torch.zeros(num_images, *text_shape, device=device)
        pooled = torch.zeros(num_images, image_shape[-1], device=device)
        if image_embeds is not None:
            standardised = self._standardised(image_embeds.to(device), "image_embeds")
            image_tokens, pooled = standardised + self._image_places(device), standardised[:, 0]
        if text_embeds is not None:
            text_tokens = self._standardised(text_embeds.to(device), "text_embeds") + self._text_places(device)
        return torch.cat([image_tokens, text_tokens], dim=1), pooled

    def _check_call(
        self,
        image_embeds: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
        latents: torch.Tensor | None,
        strength: float,
        guidance_scale: float,
        num_inference_steps: int,
    ) -> None:
        self.check_shapes(image_embeds, text_embeds, latents)
        self.check_options(strength, guidance_scale, num_inference_steps)
        if self.unet is None and latents is None and (image_embeds is not None or text_embeds is not None):
            raise FmriModelsError(
                "EmbeddedImageGenerator was given embeddings without latents, but this one was saved without its "
                "diffusion model and draws from latents alone; pass latents, or load it with its unet."
            )

    def _draw(
        self,
        num_images: int,
        image_embeds: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
        latents: torch.Tensor | None,
        strength: float,
        num_inference_steps: int,
        generator: torch.Generator | list[torch.Generator] | None,
        on_step_end: StepCallback,
    ) -> torch.Tensor:
        """(N, 12, 8, 8) standardised latents of the pictures."""
        embeds = {"image_embeds": image_embeds, "text_embeds": text_embeds}
        if self.unet is None:
            latents = self.draw_latents(num_images, generator) if latents is None else latents
            return self.in_one_step(on_step_end, latents, **embeds)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        num_steps = num_inference_steps if latents is None else int(num_inference_steps * strength)
        told_nothing = image_embeds is None and text_embeds is None
        if latents is not None and (told_nothing or num_steps == 0):
            return self.in_one_step(on_step_end, latents, **embeds)
        first = len(self.scheduler.timesteps) - num_steps
        timesteps = self.scheduler.timesteps[first:]
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(first)
        noise = randn_tensor((num_images, *self.latent_space.shape), generator, self._execution_device, torch.float32)
        if latents is None or first == 0:
            sample = noise * self.scheduler.init_noise_sigma
        else:
            sample = self.scheduler.add_noise(latents.to(noise), noise, timesteps[:1].expand(num_images))
        return self._denoise({**embeds, "latents": sample}, timesteps, on_step_end)

    def _denoise(self, tensors: Tensors, timesteps: torch.Tensor, on_step_end: StepCallback) -> torch.Tensor:
        sample = cast(torch.Tensor, tensors["latents"])
        is_told = any(tensors[name] is not None for name in ("image_embeds", "text_embeds"))
        condition: tuple[torch.Tensor, torch.Tensor] | None = None
        both: tuple[torch.Tensor, torch.Tensor] | None = None
        for step, timestep in self.steps(timesteps):
            if condition is None or on_step_end.may_change_embeds:
                condition = self.condition(tensors["image_embeds"], tensors["text_embeds"], len(sample))
                both = None
            guided = is_told and self.do_classifier_free_guidance
            if guided and both is None:
                both = _beside_zeros(*condition)
            tokens, pooled = both if guided and both is not None else condition
            noisy = self.scheduler.scale_model_input(torch.cat([sample, sample]) if guided else sample, timestep)
            predicted = self._predicted(noisy, timestep, tokens, pooled)
            if guided:
                unconditional, conditional = predicted.chunk(2)
                predicted = unconditional + self.guidance_scale * (conditional - unconditional)
            sample = self.scheduler.step(predicted, timestep, sample).prev_sample
            tensors = on_step_end(self, step, timestep, {**tensors, "latents": sample})
            sample = cast(torch.Tensor, tensors["latents"])
        return sample

    def _predicted(
        self, noisy: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """What the diffusion model says of (N, 12, 8, 8) noisy latents, in float32; no row depends on another one."""
        size = _ROWS_ON_A_CPU if noisy.device.type == "cpu" else max(1, len(noisy))
        inputs = [values.to(self.unet.dtype).split(size) for values in (noisy, tokens, pooled)]
        parts = [
            self.unet(sample, timestep, encoder_hidden_states=condition, class_labels=labels).sample.float()
            for sample, condition, labels in zip(*inputs, strict=True)
        ]
        return torch.cat(parts)

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

    def _embed_batch(self, pixel_values: torch.Tensor) -> torch.Tensor:
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

    def _encode_batch(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pictures = F.pixel_unshuffle(2 * pixel_values.to(self._execution_device, self.autoencoder.dtype) - 1, 2)
        mean, std = self._latent_statistics(self._execution_device)
        return (self.autoencoder.encode(pictures).latents.float() - mean) / std

    def _decode_batch(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self._latent_statistics(self._execution_device)
        unscaled = (latents.to(mean) * std + mean).to(self.autoencoder.dtype)
        return (F.pixel_shuffle(self.autoencoder.decode(unscaled).sample.float(), 2) + 1) / 2

    def _latent_statistics(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        num_channels = self.latent_space.shape[0]
        mean = torch.tensor(self.config.latent_mean or [0.0] * num_channels, device=device)
        std = torch.tensor(self.config.latent_std or [1.0] * num_channels, device=device)
        return mean[:, None, None], std[:, None, None]


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


def _part(values: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    return None if values is None else values[rows]


def _beside_zeros(tokens: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What guidance leads away from, before each of both."""
    return torch.cat([torch.zeros_like(tokens), tokens]), torch.cat([torch.zeros_like(pooled), pooled])


def _in_batches(function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Applies a function to bounded parts, so that memory does not grow with the number of pictures."""
    return torch.cat([function(part) for part in values.split(_BATCH_SIZE)])
