"""MindEye's low-level branch: from voxels to the latent of a blurry picture."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import nn
from transformers.utils.output_capturing import capture_outputs

from ...encoders.residual_mlp import ResidualBlock, ResidualMLP
from ...modeling_fmri import SubjectIds
from ...modeling_outputs import FmriDecoding, FmriModelOutput
from ...original_checkpoint import Checkpoint
from ...traced import becomes_a_graph
from .base_mindeye import Generators, MindEyePreTrainedModel, recorder_of_layers
from .configuration_mindeye import MindEyeConfig
from .convert_mindeye import load_low_level
from .objective_mindeye import DEFAULT_OBJECTIVE


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


class MindEyeLowLevelModel(MindEyePreTrainedModel):
    """The low-level branch: from voxels to the latent of a blurry picture.

    A residual MLP makes a small map, and the decoder of a variational autoencoder upsamples it.

    Args:
        config: Needs a `latent_space`.
    """

    _can_record_outputs = {"hidden_states": recorder_of_layers(ResidualBlock, "low_level_num_hidden_layers")}

    def __init__(self, config: MindEyeConfig) -> None:
        super().__init__(config)
        channels = config.low_level_start_channels
        self.start_shape = (channels, *config.low_level_start_size)
        self.encoder = ResidualMLP(
            config.voxels_by_subject,
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
        loss = None if latents is None else DEFAULT_OBJECTIVE.latent_error(decoded, latents)
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
