"""The layers of one subject of MindBridge: what reads its responses, and what makes some."""

from typing import cast

import torch
from torch import nn
from transformers import initialization as init

from ...encoders.wide_linear import WideLinear


class AdapterDownLinear(nn.Linear):
    """Begins with PyTorch's weights, and with biases of zero."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        init.zeros_(self.bias)


class AdapterUpLinear(nn.Linear):
    """Begins with zeros, so that an adapter begins as the identity."""

    def reset_parameters(self) -> None:
        init.zeros_(self.weight)
        init.zeros_(self.bias)


class BottleneckAdapter(nn.Module):
    """x + up(relu(down(x))).

    Args:
        size: Width of x.
        bottleneck: Width between.
    """

    def __init__(self, size: int, bottleneck: int) -> None:
        super().__init__()
        self.down_proj = AdapterDownLinear(size, bottleneck)
        self.up_proj = AdapterUpLinear(bottleneck, size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, size) ▶ (B, size)."""
        return features + self.up_proj(self.down_proj(features).relu())


class FmriEmbedder(nn.Module):
    """Reads a subject's responses: adapter, linear layer, norm, GELU, dropout.

    Args:
        num_voxels: Voxels of the subject.
        hidden_size: Width of what all subjects have in common.
        adapter_size: Width inside of the adapter.
        dropout: Probability of a feature to be dropped in training.
    """

    def __init__(self, num_voxels: int, hidden_size: int, adapter_size: int, dropout: float) -> None:
        super().__init__()
        self.adapter = BottleneckAdapter(num_voxels, adapter_size)
        self.linear = WideLinear(num_voxels, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, fmri: torch.Tensor) -> torch.Tensor:
        """(B, num_voxels) ▶ (B, hidden_size)."""
        features = self.norm(self.linear(self.adapter(fmri)))
        return cast(torch.Tensor, self.dropout(self.activation(features)))


class FmriBuilder(nn.Module):
    """Makes a subject's responses: linear layer, norm, GELU, adapter.

    Args:
        hidden_size: Width of what all subjects have in common.
        num_voxels: Voxels of the subject.
        adapter_size: Width inside of the adapter.
    """

    def __init__(self, hidden_size: int, num_voxels: int, adapter_size: int) -> None:
        super().__init__()
        self.linear = WideLinear(hidden_size, num_voxels)
        self.norm = nn.LayerNorm(num_voxels)
        self.activation = nn.GELU()
        self.adapter = BottleneckAdapter(num_voxels, adapter_size)

    def forward(self, fmri_embeds: torch.Tensor) -> torch.Tensor:
        """(B, hidden_size) ▶ (B, num_voxels)."""
        return cast(torch.Tensor, self.adapter(self.activation(self.norm(self.linear(fmri_embeds)))))
