"""Residual MLP over subject layers: the brain encoder of MindEye and its descendants."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .subject_linear import SubjectLinear
from .wide_linear import WideLinear

Activation = Literal["gelu", "relu", "silu"]
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class NormActivation(nn.Module):
    """Norm, activation and dropout, or activation, norm and dropout.

    Args:
        size: Number of features.
        norm: `"layer"` or `"batch"`.
        activation: Name of the activation.
        activation_first: Whether the activation comes before the norm.
        dropout: Probability of a feature to be dropped in training.
    """

    def __init__(
        self,
        size: int,
        norm: Literal["layer", "batch"],
        activation: Activation,
        activation_first: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size) if norm == "layer" else nn.BatchNorm1d(size)
        self.activation = _ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.activation_first = activation_first

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, size) ▶ (B, size)."""
        if self.activation_first:
            return self.dropout(self.norm(self.activation(features)))
        return self.dropout(self.activation(self.norm(features)))


class ResidualBlock(GradientCheckpointingLayer):
    """x + dropout(activation(norm(linear(x)))); what is between can be computed again for the gradient."""

    def __init__(self, linear: nn.Linear, norm_activation: NormActivation) -> None:
        super().__init__()
        self.linear = linear
        self.norm_activation = norm_activation

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, size) ▶ (B, size)."""
        return features + self.norm_activation(self.linear(features))


class ResidualMLP(nn.Module):
    """Subject layer, norm and activation, residual blocks, output layer (Scotti et al., 2023).

    Args:
        num_voxels: Subject ▶ number of its voxels; a sequence for subjects without names.
        hidden_size: Width of the blocks.
        num_blocks: Number of residual blocks.
        out_features: Number of outputs.
        input_dropout: Dropout after the subject layer.
        hidden_dropout: Dropout in the blocks.
        norm: `"layer"` or `"batch"`.
        activation: Name of the activation.
        activation_first: Whether activations come before norms.
        bias: Whether the linear layers of input and blocks have biases.
        output_bias: Whether the output layer has one.
    """

    def __init__(
        self,
        num_voxels: Mapping[str, int] | Sequence[int],
        hidden_size: int,
        num_blocks: int,
        out_features: int,
        input_dropout: float,
        hidden_dropout: float,
        norm: Literal["layer", "batch"] = "layer",
        activation: Activation = "gelu",
        activation_first: bool = False,
        bias: bool = True,
        output_bias: bool = True,
    ) -> None:
        super().__init__()
        self.input = SubjectLinear(num_voxels, hidden_size, bias=bias)
        self.input_norm_activation = NormActivation(hidden_size, norm, activation, activation_first, input_dropout)
        self.blocks = nn.ModuleList(
            ResidualBlock(
                nn.Linear(hidden_size, hidden_size, bias=bias),
                NormActivation(hidden_size, norm, activation, activation_first, hidden_dropout),
            )
            for _ in range(num_blocks)
        )
        self.output = WideLinear(hidden_size, out_features, bias=output_bias)

    def forward(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """(B, V) voxels and (B,) indices of subjects ▶ (B, out_features)."""
        features = self.input_norm_activation(self.input(fmri, subject_ids))
        for block in self.blocks:
            features = block(features)
        return cast(torch.Tensor, self.output(features))
