"""MindEye's diffusion prior: from a backbone's tokens to embeddings of pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch.nn import functional as F
from transformers.utils import ModelOutput, logging
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...alignment.diffusion_prior import (
    AttentionImplementation,
    AttentionWeights,
    DiffusionPriorNetwork,
    PriorLayer,
    PriorPositions,
)
from ...alignment.prior_scheduler import CosinePriorScheduler
from ...draws import drawn_by_row
from ...errors import FmriModelsError
from ...original_checkpoint import Checkpoint
from ...seeds import checked_generators
from .base_mindeye import Generators, MindEyePreTrainedModel, recorder_of_layers
from .configuration_mindeye import MindEyeConfig
from .convert_mindeye import load_prior

logger = logging.get_logger(__name__)


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


class MindEyePrior(MindEyePreTrainedModel):
    """The diffusion prior: from the backbone's tokens to embeddings of pictures.

    The network works on embeddings times the square root of their width, so that noise of variance one suits them.

    Args:
        config: Needs an `image_embedding_space`.
    """

    main_input_name = "sample"
    _can_record_outputs = {
        "hidden_states": recorder_of_layers(PriorLayer, "prior_num_layers"),
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
            draw = partial(torch.randint, self.config.prior_num_timesteps)
            timesteps = drawn_by_row(draw, (batch_size,), generator, device=source).to(device)
        if noise is None:
            noise = drawn_by_row(torch.randn, target.shape, generator, device=source, dtype=torch.float32)
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
            guidance_scale: 1 is without guidance, which saves the work of one example.
            noises: (B, T, D) each: the initial sample, then the noise of each step. Given or drawn.
            generator: Source of the noise; one for all examples, or one an example.

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
        # Without picture and brain, all examples are alike: one more tells for all.
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
        return drawn_by_row(torch.rand, (batch_size,), generator, device=source, dtype=torch.float32) < 1 - dropout

    def _tokens(self, values: torch.Tensor) -> torch.Tensor:
        return values.reshape(values.shape[0], *self.token_shape)


def _standard_normal(shape: torch.Size, generator: Generators, device: torch.device) -> torch.Tensor:
    if isinstance(generator, Sequence):
        return torch.stack([_standard_normal(shape[1:], each, device) for each in generator])
    source = "cpu" if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=source, dtype=torch.float32).to(device)
