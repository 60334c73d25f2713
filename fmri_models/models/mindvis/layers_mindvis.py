"""The transformer's layers of MinD-Vis, which encoder and decoder share, and the code of a patch's place."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ...traced import becomes_a_graph
from .configuration_mindvis import MindVisConfig


def sincos_positions(num_patches: int, width: int) -> torch.Tensor:
    """Codes of places (1, num_patches + 1, width), float64; that of the class token, the first one, is zero.

    Computed in float64, as the published tables were: sines of all frequencies, then cosines.
    """
    frequencies = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = torch.arange(num_patches, dtype=torch.float64)[:, None] * frequencies
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, 0, 1, 0))[None]


class DefaultLinear(nn.Linear):
    """A linear layer that begins as PyTorch's do: those that are new in fine-tuning did."""


class PatchEmbedding(nn.Linear):
    """Makes tokens of patches; its weights begin as those of the published convolution."""


def patches_of(fmri: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Neighbouring voxels, (B, V) ▶ (B, V / patch_size, patch_size)."""
    return fmri.unflatten(1, (fmri.shape[1] // patch_size, patch_size))


class MindVisAttention(nn.Module):
    """Attention of all tokens to all; queries, keys and values by one linear layer."""

    is_causal = False

    def __init__(self, config: MindVisConfig, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = num_heads, hidden_size // num_heads
        self.scaling = self.head_dim**-0.5
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends.

        Args:
            hidden_states: (B, N, hidden_size).
            output_attentions: Whether the weights are returned, which only the plain computation has.

        Returns:
            (B, N, hidden_size) and (B, heads, N, N) or None.
        """
        heads = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, self.head_dim))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        # PyTorch's fused attention takes no empty batch.
        by_steps = output_attentions or not (becomes_a_graph() or len(hidden_states))
        name = "eager" if by_steps else self.config._attn_implementation
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        attended, weights = attend(self, queries, keys, values, None, scaling=self.scaling)
        return self.proj(attended.flatten(2)), weights


def eager_attention(
    module: nn.Module,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention step by step, (B, heads, N, D) ▶ (B, N, heads, D), with its weights."""
    weights = ((queries * scaling) @ keys.transpose(-2, -1)).softmax(dim=-1, dtype=torch.float32).to(values.dtype)
    return (weights @ values).transpose(1, 2), weights


class MindVisLayer(GradientCheckpointingLayer):
    """Norm and attention, norm and two linear layers, each pair added to its input."""

    def __init__(self, config: MindVisConfig, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        between = int(hidden_size * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = MindVisAttention(config, hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(hidden_size, between)
        self.fc2 = nn.Linear(between, hidden_size)

    def forward(self, hidden_states: torch.Tensor, output_attentions: bool = False) -> torch.Tensor:
        """(B, N, hidden_size) ▶ the same shape."""
        attended, _ = self.attention(self.norm1(hidden_states), output_attentions=output_attentions)
        hidden_states = hidden_states + attended
        return hidden_states + cast(torch.Tensor, self.fc2(F.gelu(self.fc1(self.norm2(hidden_states)))))
