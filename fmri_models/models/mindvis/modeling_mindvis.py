"""MinD-Vis: masked brain modelling, and conditions that a diffusion model learns to read (Chen et al., 2023)."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers.utils import can_return_tuple

from ...conditions import Conditions
from ...errors import FmriModelsError
from ...modeling_fmri import SubjectIds
from ...modeling_outputs import FmriDecoding, FmriModelOutput
from ...original_checkpoint import Checkpoint
from .base_mindvis import MindVisPreTrainedModel
from .configuration_mindvis import MindVisConfig
from .convert_mindvis import load_model, with_positions_for
from .encoder_mindvis import MindVisEncoder
from .layers_mindvis import DefaultLinear
from .pretraining_mindvis import MindVisDecoder, masked_modelling


@dataclass
class MindVisOutput(FmriModelOutput):
    """Output of [`MindVisModel`]; see [`FmriModelOutput`].

    Args:
        encoder_hidden_states: (B, T, C) what the generator's cross-attention reads.
        time_condition: (B, W) what is added to its time embedding; None where the generator reads none.
        hidden_states: (B, patches, hidden_size) each, of the encoder, if they were asked for.
        attentions: (B, heads, patches, patches) each, of the encoder, if they were asked for.
    """

    encoder_hidden_states: torch.Tensor | None = None
    time_condition: torch.Tensor | None = None


class TokenMapper(nn.Module):
    """Mixes N tokens into M by two linear maps over their places (1x1 convolutions), without anything in between."""

    def __init__(self, num_tokens: int, between: int, num_outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(num_tokens, between, 1)
        self.second = nn.Conv1d(between, num_outputs, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, D) ▶ (B, M, D)."""
        return cast(torch.Tensor, self.second(self.first(tokens)))


class MindVisConditioner(nn.Module):
    """Tokens of the encoder as what a generator's cross-attention reads and what its time embedding is told."""

    def __init__(self, config: MindVisConfig) -> None:
        super().__init__()
        num_tokens, width = config.context_shape
        time_space = config.space("time_embeds_space")
        pooled = config.global_pool
        self.channel_mapper = None if pooled else _mapper(config.num_patches, num_tokens)
        self.dim_mapper = DefaultLinear(config.hidden_size, width)
        self.time_mapper: TokenMapper | None = None
        self.time_projection: nn.Linear | None = None
        if time_space is not None:
            self.time_mapper = None if pooled or num_tokens == 1 else _mapper(num_tokens, 1)
            self.time_projection = DefaultLinear(width, time_space.shape[0])

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, patches or 1, hidden_size) ▶ (B, T, C) and (B, W) or None."""
        context = self.dim_mapper(tokens if self.channel_mapper is None else self.channel_mapper(tokens))
        if self.time_projection is None:
            return context, None
        pooled = context if self.time_mapper is None else self.time_mapper(context)
        return context, self.time_projection(pooled).squeeze(1)


def _mapper(num_tokens: int, num_outputs: int) -> TokenMapper:
    return TokenMapper(num_tokens, max(1, num_tokens // 2), num_outputs)


class MindVisModel(MindVisPreTrainedModel):
    """The encoder and what makes conditions of its tokens, which an image generator learns to read.

    With `use_decoder` it also has the decoder of masked modelling, so that one model is pretrained and fine-tuned.
    Without an `encoder_hidden_states_space` in its configuration it makes no conditions, and others begin with it.

    Example:
        >>> output = model(torch.randn(2, 4656))
        >>> output.encoder_hidden_states.shape, output.time_condition.shape
        (torch.Size([2, 77, 512]), torch.Size([2, 768]))
    """

    def __init__(self, config: MindVisConfig) -> None:
        super().__init__(config)
        self.encoder = MindVisEncoder(config)
        self.decoder = MindVisDecoder(config) if config.use_decoder else None
        has_conditions = config.encoder_hidden_states_space is not None
        self.conditioner = MindVisConditioner(config) if has_conditions else None
        if self.decoder is None and self.conditioner is None:
            raise FmriModelsError(
                "A MindVisModel needs use_decoder=true, or an encoder_hidden_states_space in its configuration, that "
                "of an image generator that learns to read it; it has neither."
            )
        self.post_init()

    @classmethod
    def from_original(cls, checkpoint: Checkpoint, **config_overrides: Any) -> "MindVisModel":
        """Reads a fine-tuned checkpoint (`finetuned.pth`, `checkpoint_best.pth`) without its diffusion model, or one of
        masked modelling (`fmri_encoder.pth`).

        Args:
            checkpoint: Path, whole checkpoint or state dict, or that of `cond_stage_model` alone.
            **config_overrides: Fields of [`MindVisConfig`], such as `num_attention_heads=`, which no shape tells.

        Returns:
            The model in eval mode, with those parts that the checkpoint has: of a fine-tuned one without decoder, of
            one of masked modelling without conditioner.

        Raises:
            FmriModelsError: The file is unreadable, or keys are missing or unknown.
        """
        return cast(MindVisModel, load_model(cls, checkpoint, config_overrides))

    @can_return_tuple
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        noise: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> MindVisOutput:
        """Maps processed voxels to conditions.

        Args:
            fmri: (B, V) processed voxels.
            subject_ids: (B,) indices or names; only checked, for all subjects are read by the same weights.
            noise: (B, patches) decides what masked modelling hides, whose loss is then computed besides; needs the
                decoder. (The loss of the conditions is the image generator's.)
            output_hidden_states: Whether to return what is between the encoder's layers.
            output_attentions: Whether to return the encoder's attention weights.
            return_loss: Whether the loss is computed where there is noise.

        Returns:
            [`MindVisOutput`].

        Raises:
            FmriModelsError: There is noise and no decoder.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        encoded = self.encoder(
            fmri,
            subject_ids,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        context, time_condition = self._conditions_of(encoded.last_hidden_state)
        masked = None
        if noise is not None and return_loss:
            masked = masked_modelling(self.encoder, self.needed_decoder, fmri, noise)
        return MindVisOutput(
            loss=None if masked is None else masked.loss,
            losses=None if masked is None else masked.losses,
            encoder_hidden_states=context,
            time_condition=time_condition,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    @property
    def needed_decoder(self) -> MindVisDecoder:
        """The decoder of masked modelling.

        Raises:
            FmriModelsError: The model has none.
        """
        if self.decoder is None:
            raise FmriModelsError(
                "This MindVisModel has no decoder of masked modelling, as one from a fine-tuned checkpoint; build it "
                "with use_decoder=true to pretrain it, or read fmri_encoder.pth."
            )
        return self.decoder

    def conditions(self, fmri: torch.Tensor) -> Conditions:
        """What the image generator is told of processed voxels (B, V), with gradient."""
        context, time_condition = self._conditions_of(self.encoder(fmri, return_dict=True).last_hidden_state)
        return Conditions(encoder_hidden_states=context, time_embeds=time_condition)

    def _conditions_of(self, tokens: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return (None, None) if self.conditioner is None else self.conditioner(tokens)

    @torch.no_grad()
    def take_weights(self, initial: "MindVisModel") -> None:
        """Begins with the weights of another one, whose subjects may be others: no weight belongs to a subject.

        Codes of places are interpolated to the nearest where patterns are of another length. What makes conditions is
        taken where it was trained with the same image generator, and begins anew otherwise.
        """
        state = with_positions_for(self.config.num_patches, initial.state_dict())
        own = self.state_dict()
        spaces = ("encoder_hidden_states_space", "time_embeds_space")
        same_generator = all(getattr(self.config, name) == getattr(initial.config, name) for name in spaces)
        for name in own:
            if name.startswith("conditioner.") and not same_generator:
                state.pop(name, None)
            state.setdefault(name, own[name])
        self.load_state_dict({name: state[name] for name in own})

    @property
    def attended_columns(self) -> int:
        """Columns of a patch."""
        return self.config.patch_size

    @property
    def samples(self) -> bool:
        return False

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> FmriDecoding:
        """Decodes conditions (B, …), which are computed and not sampled: candidates differ by the generator's noise."""
        self.check_subjects(fmri, subject_ids)
        conditions: dict[str, Any] = self.conditions(fmri).given
        return FmriDecoding(**{name: values.float() for name, values in conditions.items()})
