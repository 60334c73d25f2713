"""The transformer's layers of MinD-Vis, which encoder and decoder share, and the code of a patch's place."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ...traced import becomes_a_graph
from .configuration_mindvis import MindVisConfig

# On a CPU, PyTorch's fused attention takes a third longer for narrower heads than for these, of which the rest is zero.
_NARROWEST_FAST_HEAD = 16


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
        self,
        hidden_states: torch.Tensor,
        output_attentions: bool = False,
        reading: AbstractContextManager[None] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends.

        Args:
            hidden_states: (B, N, hidden_size).
            output_attentions: Whether the weights are returned, which only the plain computation has.
            reading: In which the input is read.

        Returns:
            (B, N, hidden_size) and (B, heads, N, N) or None.
        """
        # PyTorch's fused attention takes no empty batch.
        by_steps = output_attentions or not (becomes_a_graph() or len(hidden_states))
        name = "eager" if by_steps else self.config._attn_implementation
        with reading or nullcontext():
            heads = self.qkv(hidden_states).unflatten(-1, (3 * self.num_heads, self.head_dim))
        if name == "sdpa" and heads.device.type == "cpu" and self.head_dim < _NARROWEST_FAST_HEAD:
            heads = F.pad(heads, (0, _NARROWEST_FAST_HEAD - self.head_dim))
        # Neighbours on one axis: their gradients are joined where they belong, without being moved afterwards.
        queries, keys, values = (each.transpose(1, 2) for each in heads.chunk(3, dim=2))
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        attended, weights = attend(self, queries, keys, values, None, scaling=self.scaling)
        return self.proj(attended[..., : self.head_dim].flatten(2)), weights


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
        normed = self.norm1(hidden_states)
        again = self._again(normed, self.norm1, hidden_states, self.attention.qkv)
        attended, _ = self.attention(normed, output_attentions=output_attentions, reading=again)
        hidden_states = hidden_states + attended
        normed = self.norm2(hidden_states)
        with self._again(normed, self.norm2, hidden_states, self.fc1):
            between = self.fc1(normed)
        activated = F.gelu(between)
        with self._again(activated, F.gelu, between, self.fc2):
            return hidden_states + cast(torch.Tensor, self.fc2(activated))

    def _again(
        self, values: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], source: torch.Tensor, reader: Any
    ) -> AbstractContextManager[None]:
        """[`computed_again`], where `reader` may be called so: another's layer may keep what it has computed itself."""
        # Checkpointed layers keep nothing as it is.
        if (
            becomes_a_graph()
            or self.gradient_checkpointing
            or not (torch.is_grad_enabled() and isinstance(reader, nn.Linear))
        ):
            return nullcontext()
        return computed_again(values, function, source)


@contextmanager
def computed_again(
    values: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], source: torch.Tensor
) -> Iterator[None]:
    """A linear layer that is called inside keeps no `values` for its gradient: `function(source)` is computed again.

    Norms and activations take a hundredth of a layer's time and a third of the memory that it keeps, and their own
    gradients need the source anyway. Under autocast a linear layer keeps what was cast, and not the values.
    """
    # PyTorch keeps the function too, which must not keep the values.
    identity = id(values)

    def pack(kept: torch.Tensor) -> torch.Tensor | torch.Size:
        return kept.shape if identity in (id(kept), id(kept._base)) else kept

    def unpack(packed: torch.Tensor | torch.Size) -> torch.Tensor:
        return packed if isinstance(packed, torch.Tensor) else function(source).view(packed)

    with ExitStack() as stack:
        # Functional gradients (torch.func) allow none.
        with suppress(RuntimeError):
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, unpack))
        yield
