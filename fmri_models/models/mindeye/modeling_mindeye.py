"""MindEye: a backbone and projector, a diffusion prior, and a low-level branch (Scotti et al., 2023)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, cast

import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput, can_return_tuple, logging
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...alignment.diffusion_prior import (
    AttentionImplementation,
    AttentionWeights,
    DiffusionPriorNetwork,
    PriorLayer,
    PriorPositions,
)
from ...alignment.losses import normalised, soft_clip_loss
from ...alignment.prior_scheduler import CosinePriorScheduler
from ...alignment.token_components import TokenComponents
from ...encoders.residual_mlp import ResidualBlock, ResidualMLP
from ...errors import FmriModelsError
from ...modeling_fmri import FmriPreTrainedModel, SubjectIds
from ...modeling_outputs import FmriDecoding, FmriModelOutput
from ...original_checkpoint import Checkpoint
from ...seeds import checked_generators
from ...traced import becomes_a_graph
from .configuration_mindeye import MindEyeConfig
from .convert_mindeye import load_low_level, load_model, load_prior

logger = logging.get_logger(__name__)

# Values of the samples that the prior draws together: 21 samples at the published size, whose activations are 0.3 GB.
_VALUES_A_CHUNK = 2**22
# The weights and the temperature of `forward`; training has its own schedule in MindEyeObjective.
_PRIOR_WEIGHT = 30.0
_TEMPERATURE = 0.006
# What keeps a token of length zero finite, as in the published reconstruction.
_CLS_EPS = 1e-6

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass
class MindEyeOutput(FmriModelOutput):
    """Output of [`MindEyeModel`]; see [`FmriModelOutput`].

    `image_embeds` is None as long as the prior is not sampled; [`~MindEyeModel.decode`] does.

    Args:
        token_embeds: (B, T, D) the backbone's tokens, the condition of the prior.
        projected_embeds: (B, T, D) after the projector: what the contrastive loss compares with pictures.
        feature_maps: (B, h·w, F) of the low-level branch.
        hidden_states: (B, hidden_size) each, if they were asked for: what enters the backbone's first block, and what
            leaves each block. Of the low-level branch in a model without a backbone.
    """

    token_embeds: torch.Tensor | None = None
    projected_embeds: torch.Tensor | None = None
    feature_maps: torch.Tensor | None = None


@dataclass
class MindEyeLowLevelOutput(FmriModelOutput):
    """Output of [`MindEyeLowLevelModel`]; see [`FmriModelOutput`].

    Args:
        feature_maps: (B, h·w, F) what a teacher's feature maps are compared with: the map before its upsampling, after
            the projector that a model has which was built with a teacher.
        hidden_states: (B, low_level_hidden_size) each, if they were asked for: what enters the first block, and what
            leaves each block.
    """

    feature_maps: torch.Tensor | None = None


@dataclass
class MindEyePriorOutput(ModelOutput):
    """Output of [`MindEyePrior`] where more than the prediction is asked for.

    Args:
        predicted_embeds: (B, T, D) the clean embedding in the scaled space.
        hidden_states: (B, N, D) each, if they were asked for: what enters the first layer, and what leaves each layer,
            of brain tokens, the time step and noisy tokens.
        attentions: (B, heads, N, N + 1) each, if they were asked for; the null key is the first one.
    """

    predicted_embeds: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def _recorder_of_layers(layer_class: type[nn.Module], count_field: str) -> OutputRecorder:
    """Records what leaves layers; the configuration's field of their number is for those who count from the end."""
    # Older transformers do not let anybody do so.
    takes_it = any(each.name == "num_hidden_layers_key" for each in fields(OutputRecorder))
    return OutputRecorder(layer_class, **({"num_hidden_layers_key": count_field} if takes_it else {}))


class MindEyePreTrainedModel(FmriPreTrainedModel):
    """How the parts of MindEye are initialised: as torch does by default, which is what the published training used."""

    config: MindEyeConfig
    config_class = MindEyeConfig
    _no_split_modules = ["PriorLayer", "ResidualBlock"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.BatchNorm1d):
            super()._init_weights(module)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()


class MindEyePrior(MindEyePreTrainedModel):
    """The diffusion prior: from the backbone's tokens to embeddings of pictures.

    The network works on embeddings times the square root of their width, so that noise of variance one suits them.

    Args:
        config: Needs an `image_embedding_space`.
    """

    main_input_name = "sample"
    _can_record_outputs = {
        "hidden_states": _recorder_of_layers(PriorLayer, "prior_num_layers"),
        "attentions": OutputRecorder(AttentionWeights),
    }

    def __init__(self, config: MindEyeConfig) -> None:
        super().__init__(config)
        # Read once: a compiled graph can't read a space from its configuration.
        self.token_shape = num_tokens, size = config.token_shape
        self.network = DiffusionPriorNetwork(
            num_tokens,
            size,
            num_layers=config.prior_num_layers,
            num_heads=config.prior_num_attention_heads,
            head_dim=config.prior_attention_head_dim,
            multiplier=config.prior_feed_forward_multiplier,
            learned_query_mode=config.prior_learned_query_mode,
        )
        self.scheduler = CosinePriorScheduler(config.prior_num_timesteps)
        self.post_init()

    @classmethod
    def from_original(cls, checkpoint: Checkpoint, **config_overrides: Any) -> "MindEyePrior":
        """Reads the prior of a published checkpoint.

        Args:
            checkpoint: Path, whole checkpoint or state dict, with or without the `net.` prefix.
            **config_overrides: `learned_query_mode=` and other fields of [`MindEyeConfig`], with or without `prior_`.

        Returns:
            The prior in eval mode.

        Raises:
            FmriModelsError: The file is unreadable, or keys are missing or unknown.
        """
        return cast(MindEyePrior, load_prior(cls, checkpoint, config_overrides))

    @property
    def scale(self) -> float:
        """What embeddings are multiplied by."""
        return float(self.token_shape[1] ** 0.5)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        brain_embeds: torch.Tensor,
        brain_keep: torch.Tensor | None = None,
        image_keep: torch.Tensor | None = None,
        positions: PriorPositions | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> torch.Tensor | MindEyePriorOutput | tuple[Any, ...]:
        """Predicts the clean embedding in the scaled space.

        Args:
            sample: (B, T, D) or (B, T·D) noisy embeddings in the scaled space.
            timestep: (B,) noise level, or one for all.
            brain_embeds: (B, T, D) or (B, T·D) tokens of the backbone.
            brain_keep: (B,) bool; where False, the condition is dropped. None keeps all.
            image_keep: (B,) bool; the same for the noisy embeddings.
            positions: `network.positions()`, if several calls share it.
            output_hidden_states: Whether to return what is between the layers; None is the configuration's.
            output_attentions: Whether to return attention weights, with `attn_implementation="eager"` alone.
            return_dict: None returns (B, T, D) where nothing more is asked for; True always an output, False a tuple,
                as the configuration's False does.

        Returns:
            (B, T, D), or a [`MindEyePriorOutput`] or tuple of it and what was asked for.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_attentions and self.config._attn_implementation != "eager":
            logger.warning_once(
                "The prior returns attention weights with attn_implementation='eager' alone; call "
                "set_attn_implementation('eager') first."
            )
        output = self._recorded(
            sample,
            timestep,
            brain_embeds,
            brain_keep,
            image_keep,
            positions,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        if return_dict is False or (return_dict is None and not self.config.return_dict):
            return cast(tuple[Any, ...], output.to_tuple())
        return output if return_dict or output_hidden_states or output_attentions else output.predicted_embeds

    @capture_outputs
    def _recorded(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        brain_embeds: torch.Tensor,
        brain_keep: torch.Tensor | None,
        image_keep: torch.Tensor | None,
        positions: PriorPositions | None,
        output_hidden_states: bool | None,
        output_attentions: bool | None,
    ) -> MindEyePriorOutput:
        timesteps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        condition = self._tokens(brain_embeds)
        predicted = self.network(
            self._tokens(sample),
            timesteps,
            condition,
            brain_keep,
            image_keep,
            positions,
            attn_implementation=cast(AttentionImplementation, self.config._attn_implementation),
            computes_all=bool(output_hidden_states or output_attentions),
        )
        if self.config.prior_adds_condition:
            kept = None if brain_keep is None else brain_keep.to(condition.device)[:, None, None]
            predicted = predicted + (condition if kept is None else condition * kept)
        return MindEyePriorOutput(predicted_embeds=predicted)

    def _predict(self, *inputs: Any, **options: Any) -> torch.Tensor:
        """The prediction alone, whatever the configuration says about outputs."""
        output = self(*inputs, **options, output_hidden_states=False, output_attentions=False, return_dict=True)
        return cast(torch.Tensor, output.predicted_embeds)

    def loss(
        self,
        image_embeds: torch.Tensor,
        brain_embeds: torch.Tensor,
        timesteps: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        brain_keep: torch.Tensor | None = None,
        image_keep: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Mean squared error of the prediction in the scaled space.

        What is not given is drawn in the order of the arguments. Conditions and noisy embeddings are dropped,
        independently of each other, in train mode alone.

        Args:
            image_embeds: (B, T, D) embeddings of the pictures.
            brain_embeds: (B, T, D) tokens of the backbone.
            timesteps: (B,) long, noise levels.
            noise: (B, T, D) standard normal.
            brain_keep: (B,) bool, whose condition is kept.
            image_keep: (B,) bool, whose noisy embedding is kept.
            generator: Source of what is drawn.
        """
        target = self._tokens(image_embeds).float() * self.scale
        batch_size, device = target.shape[0], target.device
        source = torch.device("cpu") if generator is None else generator.device
        if timesteps is None:
            timesteps = torch.randint(
                self.config.prior_num_timesteps, (batch_size,), generator=generator, device=source
            ).to(device)
        if noise is None:
            noise = torch.randn(target.shape, generator=generator, device=source, dtype=torch.float32)
        noise = self._tokens(noise).to(target)
        brain_keep = self._draw_keep(brain_keep, self.config.prior_brain_dropout, batch_size, generator)
        image_keep = self._draw_keep(image_keep, self.config.prior_image_dropout, batch_size, generator)
        sample = self.scheduler.add_noise(target, noise, timesteps)
        return F.mse_loss(self._predict(sample, timesteps, brain_embeds, brain_keep, image_keep).float(), target)

    @torch.no_grad()
    def sample(
        self,
        brain_embeds: torch.Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        noises: Sequence[torch.Tensor] | None = None,
        generator: Generators = None,
    ) -> torch.Tensor:
        """Draws embeddings of pictures.

        Args:
            brain_embeds: (B, T, D) tokens of the backbone.
            num_inference_steps: Steps from 2 to the length of the noise schedule; None takes all, which is ancestral
                sampling. Fewer are DDIM with eta 1.
            guidance_scale: 1 is without guidance, which saves the work of one row.
            noises: (B, T, D) each: the initial sample, then the noise of each step. Given or drawn.
            generator: Source of the noise; one for all rows, or one a row.

        Returns:
            (B, T, D) float32 embeddings, without the network's scale.

        Raises:
            FmriModelsError: The number of steps is out of range, or there is too little noise.
        """
        scheduler = CosinePriorScheduler(self.config.prior_num_timesteps)
        scheduler.set_timesteps(self.config.prior_num_timesteps if num_inference_steps is None else num_inference_steps)
        brain_embeds = self._tokens(brain_embeds)
        source = self._noise_source(brain_embeds, noises, generator, scheduler)
        positions = self.network.positions()
        sample = next(source)
        for timestep in scheduler.timesteps:
            # As a tensor, so that a compiled prior is the same graph at each level.
            level = torch.tensor(timestep, device=sample.device)
            predicted = self._guided(sample, level, brain_embeds, guidance_scale, positions)
            noise = next(source) if scheduler.needs_noise(timestep) else None
            sample = scheduler.step(predicted, timestep, sample, noise).prev_sample
        return sample / self.scale

    def _guided(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        brain_embeds: torch.Tensor,
        guidance_scale: float,
        positions: PriorPositions,
    ) -> torch.Tensor:
        """Float32 prediction; with guidance, away from what the network says without picture and brain."""
        if guidance_scale == 1:
            return self._predict(sample, timestep, brain_embeds, positions=positions).float()
        # Without picture and brain, all rows are alike: one more row tells for all.
        keep = torch.arange(len(sample) + 1, device=sample.device) < len(sample)
        inputs = torch.cat([sample, sample[:1]]), timestep, torch.cat([brain_embeds, brain_embeds[:1]])
        both = self._predict(*inputs, keep, keep, positions).float()
        conditional, unconditional = both[:-1], both[-1:]
        return unconditional + guidance_scale * (conditional - unconditional)

    def _noise_source(
        self,
        brain_embeds: torch.Tensor,
        noises: Sequence[torch.Tensor] | None,
        generator: Generators,
        scheduler: CosinePriorScheduler,
    ) -> Iterator[torch.Tensor]:
        """The initial sample and the noise of each step that needs some, float32."""
        count = 1 + sum(map(scheduler.needs_noise, scheduler.timesteps))
        if noises is not None:
            if len(noises) < count:
                raise FmriModelsError(
                    f"{len(noises)} noises were given for {len(scheduler.timesteps)} steps; give {count}, the initial "
                    "one and those of the steps, of which the last ones need none."
                )
            tokens = [self._tokens(noise) for noise in noises]
            if wrong := [each for each in tokens if each.shape != brain_embeds.shape]:
                raise FmriModelsError(
                    f"A noise of shape {tuple(wrong[0].shape)} was given for {tuple(brain_embeds.shape)}; expected one "
                    "value for each."
                )
            return (each.to(brain_embeds.device, torch.float32) for each in tokens)
        generator = checked_generators(generator, len(brain_embeds), "rows")
        return (_standard_normal(brain_embeds.shape, generator, brain_embeds.device) for _ in range(count))

    def _draw_keep(
        self, keep: torch.Tensor | None, dropout: float, batch_size: int, generator: torch.Generator | None
    ) -> torch.Tensor | None:
        if keep is not None or not self.training:
            return keep
        source = torch.device("cpu") if generator is None else generator.device
        return torch.rand(batch_size, generator=generator, device=source, dtype=torch.float32) < 1 - dropout

    def _tokens(self, values: torch.Tensor) -> torch.Tensor:
        return values.reshape(values.shape[0], *self.token_shape)


class MindEyeLowLevelModel(MindEyePreTrainedModel):
    """The low-level branch: from voxels to the latent of a blurry picture.

    A residual MLP makes a small map, and the decoder of a variational autoencoder upsamples it.

    Args:
        config: Needs a `latent_space`.
    """

    _can_record_outputs = {"hidden_states": _recorder_of_layers(ResidualBlock, "low_level_num_hidden_layers")}

    def __init__(self, config: MindEyeConfig) -> None:
        super().__init__(config)
        channels = config.low_level_start_channels
        self.start_shape = (channels, *config.low_level_start_size)
        self.encoder = ResidualMLP(
            config.num_voxels,
            config.low_level_hidden_size,
            config.low_level_num_hidden_layers,
            channels * self.start_shape[1] * self.start_shape[2],
            input_dropout=config.low_level_input_dropout,
            hidden_dropout=config.low_level_hidden_dropout,
            activation="silu",
            bias=False,
            output_bias=False,
        )
        self.norm = nn.GroupNorm(1, channels)
        self.upsampler = Decoder(
            in_channels=channels,
            out_channels=config.latent_shape[0],
            up_block_types=("UpDecoderBlock2D",) * len(config.low_level_block_out_channels),
            block_out_channels=tuple(config.low_level_block_out_channels),
            layers_per_block=config.low_level_layers_per_block,
            norm_num_groups=config.low_level_norm_num_groups,
        )
        size = config.low_level_feature_size
        self.maps_projector = None if size is None else _maps_projector(channels, size)
        self.post_init()

    @classmethod
    def from_original(cls, checkpoint: Checkpoint, **config_overrides: Any) -> "MindEyeLowLevelModel":
        """Reads a published low-level checkpoint; the upsampling (4, 8 or 16 times) is inferred.

        Args:
            checkpoint: Path, whole checkpoint or state dict.
            **config_overrides: Fields of [`MindEyeConfig`] with or without `low_level_`, such as `norm_num_groups=`, or
                `subject_names=["subj02"]`.

        Returns:
            The model in eval mode.

        Raises:
            FmriModelsError: The file is unreadable, or keys are missing or unknown.
        """
        return cast(MindEyeLowLevelModel, load_low_level(cls, checkpoint, config_overrides))

    @capture_outputs
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        latents: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> MindEyeLowLevelOutput:
        """Maps processed voxels.

        Args:
            fmri: (B, V) processed voxels, zero-padded to the widest subject.
            subject_ids: (B,) indices or names; may be left out with one subject.
            latents: (B, C, h, w) targets, for the loss.
            output_hidden_states: Whether to return what is between the blocks; left out, the configuration's.
            output_attentions: Changes nothing but for a warning: none are computed here.
            return_loss: Whether the loss is computed where there are targets.

        Returns:
            [`MindEyeLowLevelOutput`] with `latents` (B, C, h, w); the loss is the mean absolute error. With
            `return_dict=False`, here or in the configuration, a tuple of what is not None.
        """
        self.check_fmri(fmri)
        self.warn_of_no_attentions(output_attentions)
        latents = latents if return_loss else None
        indices = self.subject_indices(subject_ids, fmri.shape[0])
        start = self.encoder(fmri.to(self.dtype), indices).reshape(fmri.shape[0], *self.start_shape)
        start = self.norm(start)
        decoded = self._upsampled(start)
        maps = start if self.maps_projector is None else self.maps_projector(start)
        loss = None if latents is None else F.l1_loss(decoded.float(), latents.float())
        return MindEyeLowLevelOutput(
            loss=loss,
            losses=None if loss is None else {"low_level": loss},
            latents=decoded,
            feature_maps=maps.flatten(2).transpose(1, 2),
        )

    def _upsampled(self, start: torch.Tensor) -> torch.Tensor:
        if becomes_a_graph() or start.shape[0]:
            return cast(torch.Tensor, self.upsampler(start))
        # The decoder's attention takes no empty batch.
        return cast(torch.Tensor, self.upsampler(start.new_zeros(1, *self.start_shape))[:0])

    @property
    def samples(self) -> bool:
        return False

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: Generators = None,
    ) -> FmriDecoding:
        """Decodes latents; nothing is sampled."""
        output = self(fmri, subject_ids, output_hidden_states=False, return_dict=True)
        return FmriDecoding(latents=output.latents)


class MindEyeModel(MindEyePreTrainedModel):
    """Backbone, projector and prior for image embeddings, and a low-level branch for latents, as far as the
    configuration has these spaces.

    Example:
        >>> output = model(torch.randn(2, 15724))
        >>> output.projected_embeds.shape
        torch.Size([2, 257, 768])
        >>> model.decode(torch.randn(2, 15724), num_candidates=16).image_embeds.shape
        torch.Size([32, 257, 768])
    """

    _can_record_outputs = {"hidden_states": OutputRecorder(ResidualBlock, layer_name="backbone")}

    def __init__(self, config: MindEyeConfig) -> None:
        super().__init__(config)
        self.backbone: ResidualMLP | None = None
        self.components: TokenComponents | None = None
        self.projector: nn.Sequential | None = None
        self.prior: MindEyePrior | None = None
        self.low_level: MindEyeLowLevelModel | None = None
        if config.image_embedding_space is not None:
            # Read once: a compiled graph can't read a space from its configuration.
            self.token_shape = num_tokens, size = config.token_shape
            if config.token_components is not None:
                self.components = TokenComponents(num_tokens * size, config.token_components)
            self.backbone = ResidualMLP(
                config.num_voxels,
                config.hidden_size,
                config.num_hidden_layers,
                num_tokens * size if self.components is None else self.components.num_components,
                input_dropout=config.input_dropout,
                hidden_dropout=config.hidden_dropout,
                norm=config.norm,
                activation="relu" if config.norm == "batch" else "gelu",
                activation_first=config.activation_first,
            )
            self.projector = _projector(size, config.projector_size) if config.use_projector else None
            self.prior = MindEyePrior(config) if config.use_prior else None
        if config.latent_space is not None:
            self.low_level = MindEyeLowLevelModel(config)
        if self.backbone is None and self.low_level is None:
            raise FmriModelsError(
                "A MindEyeModel needs an image_embedding_space or a latent_space in its configuration; it has neither."
            )
        self.post_init()

    @classmethod
    def from_original(
        cls,
        checkpoint: Checkpoint,
        low_level_checkpoint: Checkpoint | None = None,
        **config_overrides: Any,
    ) -> "MindEyeModel":
        """Reads published checkpoints.

        Args:
            checkpoint: Path, whole checkpoint or state dict of backbone, projector and prior, or of the backbone
                alone (without the prefix `voxel2clip.`).
            low_level_checkpoint: The same of the low-level branch, which was published apart.
            **config_overrides: Fields of [`MindEyeConfig`], such as `subject_names=["subj02"]`.

        Returns:
            The model in eval mode, with those parts that the checkpoints have.

        Raises:
            FmriModelsError: A file is unreadable, or keys are missing or unknown.
        """
        return cast(MindEyeModel, load_model(cls, checkpoint, low_level_checkpoint, config_overrides))

    @can_return_tuple
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        image_embeds: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> MindEyeOutput:
        """Maps processed voxels; the prior takes part in the loss and is not sampled.

        Args:
            fmri: (B, V) processed voxels, zero-padded to the widest subject.
            subject_ids: (B,) indices or names; may be left out with one subject.
            image_embeds: (B, T, D) targets, for the contrastive loss and the prior's; at least two rows.
            latents: (B, C, h, w) targets, for the low-level loss.
            output_hidden_states: Whether to return what is between the backbone's blocks (without one, the low-level
                branch's); None is the configuration's.
            output_attentions: Changes nothing but for a warning: none are computed here; `prior` computes some.
            return_loss: Whether the loss is computed where there are targets.

        Returns:
            [`MindEyeOutput`]; `losses` holds `contrastive` (soft CLIP), `prior` (weighted by 30) and `low_level` as far
            as there are targets, `loss` their sum. With `return_dict=False`, here or in the configuration, a tuple of
            what is not None.
        """
        self.check_fmri(fmri)
        self.warn_of_no_attentions(output_attentions)
        image_embeds, latents = (image_embeds, latents) if return_loss else (None, None)
        indices = self.subject_indices(subject_ids, fmri.shape[0])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        tokens, projected, hidden_states, low_level = None, None, None, None
        if self.backbone is not None:
            embedded = self._embedded(fmri, indices, output_hidden_states=output_hidden_states, return_dict=True)
            tokens, projected, hidden_states = embedded.token_embeds, embedded.projected_embeds, embedded.hidden_states
            output_hidden_states = False
        if self.low_level is not None:
            low_level = self.low_level(
                fmri, indices, latents, output_hidden_states=output_hidden_states, return_dict=True
            )
            hidden_states = low_level.hidden_states if self.backbone is None else hidden_states
        losses: dict[str, torch.Tensor] = {}
        if image_embeds is not None and tokens is not None and projected is not None:
            losses["contrastive"] = soft_clip_loss(normalised(projected), normalised(image_embeds), _TEMPERATURE)
            if self.prior is not None:
                losses["prior"] = _PRIOR_WEIGHT * self.prior.loss(image_embeds, tokens)
        if low_level is not None:
            losses |= low_level.losses or {}
        return MindEyeOutput(
            loss=torch.stack(list(losses.values())).sum() if losses else None,
            losses=losses or None,
            latents=None if low_level is None else low_level.latents,
            feature_maps=None if low_level is None else low_level.feature_maps,
            retrieval_embeds=projected,
            token_embeds=tokens,
            projected_embeds=projected,
            hidden_states=hidden_states,
        )

    @capture_outputs
    def _embedded(
        self, fmri: torch.Tensor, subject_ids: torch.Tensor, output_hidden_states: bool | None
    ) -> MindEyeOutput:
        """The backbone's part of the output, with its hidden states if they are wanted."""
        tokens, projected = self.embed(fmri, subject_ids)
        return MindEyeOutput(token_embeds=tokens, projected_embeds=projected)

    def embed(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The backbone's tokens and the projected ones, both (B, T, D), from voxels and (B,) indices of subjects."""
        tokens = self.tokens_from(self.encode(fmri, subject_ids))
        return tokens, self.project(tokens)

    def encode(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """The backbone's output, (B, T·D) tokens or (B, K) scores of their components."""
        assert self.backbone is not None
        return cast(torch.Tensor, self.backbone(fmri.to(self.dtype), subject_ids))

    def tokens_from(self, encoded: torch.Tensor) -> torch.Tensor:
        """The backbone's output as tokens (B, T, D)."""
        tokens = encoded if self.components is None else self.components(encoded)
        return tokens.reshape(tokens.shape[0], *self.token_shape)

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) as what is compared with pictures."""
        return tokens if self.projector is None else cast(torch.Tensor, self.projector(tokens))

    @property
    def samples(self) -> bool:
        return self.prior is not None

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: Generators = None,
    ) -> FmriDecoding:
        """Decodes processed voxels, sampling the prior `num_candidates` times for each trial.

        Args:
            fmri: (B, V) processed voxels, zero-padded to the widest subject.
            subject_ids: (B,) indices or names; may be left out with one subject.
            num_candidates: K samples of the prior a trial.
            generator: Source of their noise, one for all trials or one a trial. A sample's noise depends on its place
                in this sequence alone, not on how many are drawn together.

        Returns:
            [`FmriDecoding`]: `image_embeds` (B·K, …), in spaces normalised by the first token divided by its norm;
            `latents` and `retrieval_embeds` (B, …), which are computed and not sampled.
        """
        output = self(fmri, subject_ids, output_hidden_states=False, return_dict=True)
        embeds = None
        if self.prior is not None:
            embeds = self._sample_prior(output.token_embeds, num_candidates, generator)
        elif output.projected_embeds is not None:
            embeds = output.projected_embeds
        return FmriDecoding(
            image_embeds=None if embeds is None else self._in_space(embeds),
            latents=output.latents,
            retrieval_embeds=self._shaped(output.projected_embeds),
        )

    @torch.no_grad()
    def retrieval_embeds(self, fmri: torch.Tensor, subject_ids: SubjectIds = None) -> torch.Tensor:
        """The projector's output (B, …), without sampling the prior or running the low-level branch."""
        if self.backbone is None:
            return super().retrieval_embeds(fmri, subject_ids)
        self.check_fmri(fmri)
        _, projected = self.embed(fmri, self.subject_indices(subject_ids, fmri.shape[0]))
        shaped = self._shaped(projected)
        assert shaped is not None
        return shaped

    def _sample_prior(self, tokens: torch.Tensor, num_candidates: int, generator: Generators) -> torch.Tensor:
        assert self.prior is not None
        sources = _sample_generators(generator, len(tokens), num_candidates)
        if not sources:
            return tokens[:0].float()
        samples = []
        size = max(1, _VALUES_A_CHUNK // tokens[0].numel())
        for start in range(0, len(sources), size):
            chunk = range(start, min(start + size, len(sources)))
            trials = torch.tensor([index // num_candidates for index in chunk], device=tokens.device)
            samples.append(
                self.prior.sample(
                    tokens[trials],
                    num_inference_steps=self.config.prior_num_inference_steps,
                    guidance_scale=self.config.prior_guidance_scale,
                    generator=sources[chunk.start : chunk.stop],
                )
            )
        return torch.cat(samples)

    def _in_space(self, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings as the space has them: divided by the norm of their first token where it says so."""
        space = self.config.space("image_embedding_space")
        assert space is not None
        if space.normalisation == "cls_norm":
            embeds = embeds / (embeds[:, :1].norm(dim=-1, keepdim=True) + _CLS_EPS)
        return embeds.reshape(embeds.shape[0], *space.shape)

    def _shaped(self, embeds: torch.Tensor | None) -> torch.Tensor | None:
        space = self.config.space("image_embedding_space")
        return None if embeds is None or space is None else embeds.reshape(embeds.shape[0], *space.shape)


def _projector(size: int, hidden_size: int) -> nn.Sequential:
    """Tokens (…, size) ▶ (…, size): norm, GELU and linear, three times."""
    sizes = [size, hidden_size, hidden_size, size]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.LayerNorm(before), nn.GELU(), nn.Linear(before, after)]
    return nn.Sequential(*layers)


def _maps_projector(channels: int, size: int) -> nn.Sequential:
    """(B, channels, h, w) ▶ (B, size, h, w), position by position."""
    return nn.Sequential(
        nn.Conv2d(channels, size, 1, bias=False),
        nn.GroupNorm(1, size),
        nn.ReLU(),
        nn.Conv2d(size, size, 1, bias=False),
        nn.GroupNorm(1, size),
        nn.ReLU(),
        nn.Conv2d(size, size, 1),
    )


def _sample_generators(generator: Generators, num_trials: int, num_candidates: int) -> list[torch.Generator]:
    """A source of noise for each sample, seeded from the trial's or the common one."""
    generator = checked_generators(generator, num_trials, "trials")
    sources = []
    for index in range(num_trials * num_candidates):
        origin = generator[index // num_candidates] if isinstance(generator, Sequence) else generator
        device = "cpu" if origin is None else origin.device
        seed = int(torch.randint(2**62, (), generator=origin, device=device))
        sources.append(torch.Generator(device).manual_seed(seed))
    return sources


def _standard_normal(shape: torch.Size, generator: Generators, device: torch.device) -> torch.Tensor:
    if isinstance(generator, Sequence):
        return torch.stack([_standard_normal(shape[1:], each, device) for each in generator])
    source = "cpu" if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=source, dtype=torch.float32).to(device)
