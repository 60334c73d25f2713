"""A diffusion model that learns to read a brain, by cross-attention and in its time embedding (MinD-Vis)."""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, UNet2DConditionModel, VQModel
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from pydantic import Field

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..offloading import onloaded
from ..original_checkpoint import Checkpoint, read_state
from ..reading import checked
from .denoising import denoised, noisy_start, zeros_like
from .double_conditioned_original import TIME_CONDITION_PREFIX, unet_from_original, vae_from_original
from .image_generator import Generators, ImageGenerator
from .stored_generator import GeneratorOptions
from .trainable_generator import Predict, Told
from .weights_digest import weights_digest

# The noise that the published weights were trained with; as PLMS, PNDM takes an additional first step.
_NOISE = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "steps_offset": 1}
_SCHEDULERS: dict[str, Any] = {"pndm": PNDMScheduler, "ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler}


_Channels = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
PredictionType = Literal["epsilon", "v_prediction", "sample"]


class DoubleConditionedOptions(GeneratorOptions):
    """Size of a generator that begins untrained, in a recipe.

    Attributes:
        block_out_channels: Channels of each level; each halves height and width of the one before.
        layers_per_block: Residual blocks of a level.
        context_dim: Width of a token that the cross-attention reads.
        num_context_tokens: Tokens.
        time_conditioning: Whether there is a condition in the time embedding, too.
        attention_heads: Heads of each attention.
        prediction_type: What the network predicts.
        scheduler: Steps of the denoising.
        seed: Of the initial weights.
    """

    block_out_channels: Annotated[list[_Channels], Field(min_length=2)] = [32, 64]
    layers_per_block: Annotated[int, Field(ge=1, le=8)] = 1
    context_dim: Annotated[int, Field(ge=1, le=8192)] = 64
    num_context_tokens: Annotated[int, Field(ge=1, le=4096)] = 8
    time_conditioning: bool = True
    attention_heads: Annotated[int, Field(ge=1, le=64)] = 1
    prediction_type: PredictionType = "epsilon"
    scheduler: Literal["pndm", "ddim", "dpm"] = "pndm"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class DoubleConditionedImageGenerator(ImageGenerator):
    """Draws pictures from conditions that it has learned to read together with a brain model, or from a start picture.

    Both conditions have no meaning but the one that training gives them: `encoder_hidden_states` is what the
    cross-attention reads, `time_embeds` is added to the time embedding. What is absent is zero, and zero is what
    guidance leads away from.

    Args:
        unet: With `class_embed_type="identity"` it has the condition in its time embedding; with None it has none.
        scheduler: Steps of the denoising; any of diffusers' that knows the UNet's prediction. None where it only
            encodes and decodes pictures.
        vae: Autoencoder; None where the UNet works on the picture itself, in [-1, 1].
        num_context_tokens: Tokens of `encoder_hidden_states`.
        vae_revision: Content hash of the autoencoder's weights.
        condition_revision: Which weights of the UNet the conditions belong to.
    """

    # The published weights know no picture without a condition, and were sampled without guidance.
    drawing_settings = DrawingSettings(guidance_scale=1.0)
    model_cpu_offload_seq = "unet->vae"
    learning_components = ("unet",)
    target_components: ClassVar = {"latents": ("vae",)}
    options = DoubleConditionedOptions
    _optional_components = ["scheduler", "vae"]

    @register_to_config
    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: PNDMScheduler | None = None,
        vae: VQModel | None = None,
        num_context_tokens: int = 77,
        vae_revision: str | None = None,
        condition_revision: str | None = None,
    ) -> None:
        super().__init__()
        if unet.config.class_embed_type not in (None, "identity"):
            raise FmriModelsError(
                f"The unet has class_embed_type={unet.config.class_embed_type!r}; expected 'identity', by which it is "
                "told a time embedding, or None."
            )
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int], **options: Any) -> Self:
        """An untrained one that works on pictures of that size themselves.

        Args:
            image_size: Channels, height and width.
            **options: Those of [`DoubleConditionedOptions`].

        Raises:
            FmriModelsError: An option is none.
        """
        if "block_out_channels" in options:
            options["block_out_channels"] = list(options["block_out_channels"])
        size = checked(
            options, DoubleConditionedOptions, "The image generator double_conditioned", "change its options"
        )
        channels, height, width = image_size
        levels = tuple(size.block_out_channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(size.seed)
            unet = UNet2DConditionModel(
                sample_size=(height, width),
                in_channels=channels,
                out_channels=channels,
                down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (len(levels) - 1)),
                up_block_types=(*["CrossAttnUpBlock2D"] * (len(levels) - 1), "UpBlock2D"),
                block_out_channels=levels,
                layers_per_block=size.layers_per_block,
                norm_num_groups=math.gcd(32, *levels),
                cross_attention_dim=size.context_dim,
                attention_head_dim=size.attention_heads,
                class_embed_type="identity" if size.time_conditioning else None,
            )
        scheduler = _schedule(size.scheduler, size.prediction_type)
        return cls(unet.eval(), scheduler, num_context_tokens=size.num_context_tokens)

    @classmethod
    def from_original(
        cls,
        state: Checkpoint,
        sample_size: int = 64,
        num_context_tokens: int | None = None,
        unet: UNet2DConditionModel | None = None,
        vae: VQModel | None = None,
        num_heads: int = 1,
    ) -> Self:
        """The generator in a checkpoint of MinD-Vis (`finetuned.pth`), sizes by its shapes.

        Args:
            state: Path, whole checkpoint or state dict; what belongs to the brain model is left there.
            sample_size: Side of a latent, which no shape says.
            num_context_tokens: None for what the time condition of the state takes, or 77.
            unet: Takes the place of that in the state.
            vae: Takes the place of that in the state.
            num_heads: Heads of each attention, which no shape says.

        Raises:
            FmriModelsError: Tensors are missing, unknown, of other shapes or not finite; they are named.
        """
        state = read_state(state)
        unet = unet_from_original(state, sample_size, num_heads) if unet is None else unet
        vae = vae_from_original(state) if vae is None else vae
        if num_context_tokens is None:
            first = state.get(f"{TIME_CONDITION_PREFIX}0.weight")
            is_pooled = any(name.startswith(TIME_CONDITION_PREFIX) for name in state)
            num_context_tokens = 77 if not is_pooled else 1 if first is None or first.ndim < 3 else first.shape[1]
        revision = weights_digest([vae])
        return cls(unet, _schedule("pndm"), vae, num_context_tokens=num_context_tokens, vae_revision=revision)

    @property
    def image_size(self) -> tuple[int, int, int]:
        height, width = self._sample_size
        if self.vae is None:
            return (self.unet.config.in_channels, height, width)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return (self.vae.config.in_channels, factor * height, factor * width)

    @property
    def latent_space(self) -> EmbeddingSpace:
        if self.vae is None:
            return EmbeddingSpace(encoder="pixels", layer="latent", shape=self.image_size, normalisation="[-1, 1]")
        _, height, width = self.image_size
        return EmbeddingSpace(
            encoder="double_conditioned/vae",
            revision=self.config.vae_revision,
            layer="latent",
            shape=(self.vae.config.latent_channels, *self._sample_size),
            preprocessing=f"{height}x{width} in [-1, 1]",
        )

    @property
    def _sample_size(self) -> tuple[int, int]:
        size = self.unet.config.sample_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def encoder_hidden_states_space(self) -> EmbeddingSpace:
        shape = (self.config.num_context_tokens, self.unet.config.cross_attention_dim)
        return self.learned_space("encoder_hidden_states", shape)

    @property
    def time_embeds_space(self) -> EmbeddingSpace | None:
        if self.unet.config.class_embed_type is None:
            return None
        width = self.unet.config.time_embedding_dim or 4 * self.unet.config.block_out_channels[0]
        return self.learned_space("time_embeds", (width,))

    @property
    def generates_from_embeddings(self) -> bool:
        return self.scheduler is not None

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes pictures (N, *image_size) in [0, 1]; an autoencoder's latents are those before the codebook."""
        return self.pass_images(self._encode_chunk, pixel_values)

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures of latents, which an autoencoder takes to the next entries of its codebook first."""
        return (self.in_chunks(self._decode_chunk, latents) + 1) / 2

    def network_in_training(self, conditions: Conditions, generator: torch.Generator | None) -> tuple[Told, Predict]:
        self._check_has_schedule()
        return self._told(self.accept(conditions)), self._predicted

    def draw(self, conditions: Conditions, settings: DrawingSettings, generators: Generators) -> torch.Tensor:
        num_steps = self.num_steps(conditions, settings)
        if conditions.latents is not None and num_steps == 0:
            return self.in_one_step(conditions.latents, conditions)
        self._check_has_schedule()
        shape = (len(conditions), *self.latent_space.shape)
        noise = randn_tensor(shape, generators, self._execution_device, torch.float32)
        return denoised(
            self,
            self._start(conditions.latents, noise, settings.num_inference_steps, num_steps),
            conditions,
            self._told(conditions),
            tell=self._told,
            nothing_like=zeros_like,
            predict=self._predicted,
            generators=generators,
        )

    def _check_has_schedule(self) -> None:
        if self.scheduler is None:
            raise FmriModelsError(
                "This DoubleConditionedImageGenerator has no schedule, so that it can only encode and decode; "
                "load it with its scheduler, or pass latents alone."
            )

    def _start(
        self, latents: torch.Tensor | None, noise: torch.Tensor, num_inference_steps: int, num_steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sample, timesteps = noisy_start(self.scheduler, latents, noise, num_inference_steps, num_steps)
        first, schedule = num_inference_steps - num_steps, self.scheduler.timesteps
        is_plms = isinstance(self.scheduler, PNDMScheduler) and self.scheduler.config.skip_prk_steps
        if latents is None or first == 0 or not is_plms:
            return sample, timesteps
        # PLMS takes its second timestep twice, wherever it begins; its schedule has that at the whole picture's.
        left = torch.cat([schedule[:1], schedule[2:]])[first:]
        noisy = self.scheduler.add_noise(latents.to(noise), noise, left[:1].expand(len(noise)))
        return noisy, torch.cat([left[:2], left[1:]])

    def _told(self, conditions: Conditions) -> Told:
        device, number = self._execution_device, len(conditions)
        told = {}
        for name, label in (("encoder_hidden_states", "encoder_hidden_states"), ("time_embeds", "class_labels")):
            space = self.condition_spaces.get(name)
            if space is not None:
                values = getattr(conditions, name)
                told[label] = torch.zeros(number, *space.shape, device=device) if values is None else values.to(device)
        return told

    def _predicted(self, noisy: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        in_dtype = {name: values.to(self.unet.dtype) for name, values in told.items()}
        return self.unet(noisy.to(self.unet.dtype), timestep, **in_dtype).sample.float()

    def _encode_chunk(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pictures = 2 * pixel_values.to(self._execution_device, torch.float32) - 1
        if self.vae is None:
            return pictures
        return self.vae.encode(pictures.to(self.vae.dtype)).latents.float() * self.vae.config.scaling_factor

    def _decode_chunk(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self._execution_device, torch.float32)
        if self.vae is None:
            return latents
        # The autoencoder looks its codebook up without calling it.
        with onloaded(self.vae.quantize.embedding):
            return self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample.float()


def _schedule(name: str, prediction_type: PredictionType = "epsilon") -> Any:
    only_pndm = {"skip_prk_steps": True} if name == "pndm" else {}
    return _SCHEDULERS[name](**_NOISE, prediction_type=prediction_type, **only_pndm)
