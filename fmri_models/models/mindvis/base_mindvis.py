"""What the models of MinD-Vis share."""

import torch
from torch import nn
from transformers import initialization as init

from ...modeling_fmri import FmriPreTrainedModel, SubjectIds
from .configuration_mindvis import MindVisConfig
from .layers_mindvis import DefaultLinear, PatchEmbedding, sincos_positions


class MindVisPreTrainedModel(FmriPreTrainedModel):
    """How the modules of MinD-Vis are initialised, as in the published training."""

    config: MindVisConfig
    config_class = MindVisConfig
    has_subject_layers = False
    supports_gradient_checkpointing = True
    _no_split_modules = ["MindVisLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and not isinstance(module, DefaultLinear | PatchEmbedding):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        if isinstance(module, PatchEmbedding):
            init.normal_(module.weight, std=self.config.initializer_range)

    def check_subjects(self, fmri: torch.Tensor, subject_ids: SubjectIds) -> None:
        """Refuses voxels of another width, and ids that are none; what is computed depends on none of them."""
        self.check_fmri(fmri)
        if subject_ids is not None:
            self.subject_indices(subject_ids, fmri.shape[0])


@torch.no_grad()
def reset_positions(positions: nn.Parameter) -> None:
    """Puts the code of each place into (1, patches + 1, width)."""
    init.copy_(positions, sincos_positions(positions.shape[1] - 1, positions.shape[2]).to(positions))
