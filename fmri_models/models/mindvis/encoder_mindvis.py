"""The encoder of MinD-Vis: patches of voxels become tokens that have seen each other."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...modeling_fmri import SubjectIds
from ...modeling_outputs import FmriModelOutput
from ...original_checkpoint import Checkpoint
from .base_mindvis import MindVisPreTrainedModel, reset_positions
from .configuration_mindvis import MindVisConfig
from .convert_mindvis import load_encoder
from .layers_mindvis import MindVisAttention, MindVisLayer, PatchEmbedding, patches_of


@dataclass
class MindVisEncoderOutput(FmriModelOutput):
    """Output of [`MindVisEncoder`]; see [`FmriModelOutput`].

    Args:
        last_hidden_state: (B, patches, hidden_size), or (B, 1, hidden_size) with `global_pool`.
        hidden_states: (B, patches, hidden_size) each, if they were asked for.
        attentions: (B, heads, patches, patches) each, if they were asked for; a row of a matrix is what one patch
            attends to.
    """

    last_hidden_state: torch.Tensor | None = None


class MindVisEncoder(MindVisPreTrainedModel):
    """A transformer on patches of voxels, without a mask and without a class token where it conditions a generator.

    Example:
        >>> encoder(torch.randn(2, 4656)).last_hidden_state.shape
        torch.Size([2, 291, 1024])
    """

    _can_record_outputs = {
        "hidden_states": MindVisLayer,
        "attentions": OutputRecorder(MindVisAttention, index=1),
    }

    def __init__(self, config: MindVisConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbedding(config.patch_size, config.hidden_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_patches + 1, config.hidden_size))
        self.layers = nn.ModuleList(
            MindVisLayer(config, config.hidden_size, config.num_attention_heads)
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def reset_parameters(self) -> None:
        """Those of no module of their own."""
        init.normal_(self.cls_token, std=self.config.initializer_range)
        reset_positions(self.position_embeddings)

    @classmethod
    def from_original(
        cls, checkpoint: Checkpoint, keeps_norms: bool = True, **config_overrides: Any
    ) -> "MindVisEncoder":
        """Reads a published checkpoint (`fmri_encoder.pth`), or the conditioning encoder of a fine-tuned one.

        Args:
            checkpoint: Path, whole checkpoint or state dict.
            keeps_norms: False leaves all norms at their initial values, as the original does with `global_pool`.
            **config_overrides: Fields of [`MindVisConfig`]; with another `num_voxels=[…]`, codes of places are
                interpolated to the nearest, and `num_attention_heads=` is what no shape tells.

        Returns:
            The encoder in eval mode.

        Raises:
            FmriModelsError: The file is unreadable, or keys are missing or unknown.
        """
        return cast(MindVisEncoder, load_encoder(cls, checkpoint, keeps_norms, config_overrides))

    @capture_outputs
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> MindVisEncoderOutput:
        """Encodes processed voxels.

        Args:
            fmri: (B, V) processed voxels.
            subject_ids: (B,) indices or names; only checked, for all subjects are read by the same weights.
            output_hidden_states: Whether to return what is between the layers; None is the configuration's.
            output_attentions: Whether to return attention weights, which are computed step by step then.

        Returns:
            [`MindVisEncoderOutput`].
        """
        self.check_subjects(fmri, subject_ids)
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        tokens = self.embed(fmri)
        for layer in self.layers:
            tokens = layer(tokens, output_attentions=bool(output_attentions))
        if self.config.global_pool:
            tokens = tokens.mean(dim=1, keepdim=True)
        return MindVisEncoderOutput(last_hidden_state=self.norm(tokens))

    @property
    def attended_columns(self) -> int:
        """Columns of a patch."""
        return self.config.patch_size

    def embed(self, fmri: torch.Tensor) -> torch.Tensor:
        """Patches with the codes of their places, (B, V) ▶ (B, patches, hidden_size)."""
        patches = patches_of(fmri.to(self.dtype), self.config.patch_size)
        return self.patch_embed(patches) + self.position_embeddings[:, 1:]

    def encode_visible(self, fmri: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        """Encodes the patches that masked modelling leaves visible.

        Args:
            fmri: (B, V) processed voxels.
            ids_keep: (B, kept) long, indices of patches.

        Returns:
            (B, 1 + kept, hidden_size), the class token first.
        """
        tokens = self.embed(fmri)
        visible = tokens.gather(1, ids_keep[..., None].expand(-1, -1, tokens.shape[2]))
        first = self.cls_token + self.position_embeddings[:, :1]
        tokens = torch.cat([first.expand(len(visible), -1, -1), visible], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return cast(torch.Tensor, self.norm(tokens))
