"""What the models of MindEye share."""

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import nn
from transformers.utils.output_capturing import OutputRecorder

from ...modeling_fmri import FmriPreTrainedModel
from .configuration_mindeye import MindEyeConfig

Generators = torch.Generator | Sequence[torch.Generator] | None


class MindEyePreTrainedModel(FmriPreTrainedModel):
    """How the modules of MindEye are initialised: as torch does by default, as in the published training."""

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


def recorder_of_layers(layer_class: type[nn.Module], count_field: str) -> OutputRecorder:
    """Records what leaves layers; the configuration's field of their number is for those who count from the end."""
    # Older transformers do not let anybody do so.
    takes_it = any(each.name == "num_hidden_layers_key" for each in fields(OutputRecorder))
    return OutputRecorder(layer_class, **({"num_hidden_layers_key": count_field} if takes_it else {}))
