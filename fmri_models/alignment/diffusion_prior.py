"""The network of the diffusion prior: brain tokens and a noisy embedding in, the clean embedding out.

It is the prior of DALL·E 2 (Ramesh et al., 2022) as Scotti et al. (2023) changed it: without a causal mask, with all
tokens of the picture as its sequence, and brain tokens for its condition.
"""

import math
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

LearnedQueryMode = Literal["pos_emb", "token", "all_pos_emb", "none"]

_ROTARY_DIMS = 32
_COSINE_SCALE = 16.0
_NUM_BUCKETS = 32
_MAX_DISTANCE = 128


class GainNorm(nn.Module):
    """Layer normalisation with a gain and no bias.

    The variance is regularised by 1e-5 for float32 input and by 1e-3 for any other, as in training under autocast.

    Args:
        size: Number of features.
        stable: Divide by the largest feature first.
    """

    def __init__(self, size: int, stable: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.stable = stable

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(…, size) ▶ (…, size)."""
        eps = 1e-5 if features.dtype == torch.float32 else 1e-3
        values = features.float()
        if self.stable:
            # The largest value with its sign, and without gradient.
            largest = values.amax(dim=-1, keepdim=True).detach()
            values = values / torch.where(largest == 0, 1.0, largest)
        normed = F.layer_norm(values, values.shape[-1:], eps=eps)
        return normed.to(features.dtype) * self.weight


class TimestepEmbedding(nn.Module):
    """Sine and cosine features of the time step, then three linear layers.

    Args:
        size: Width of the embedding.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.linear_1 = nn.Linear(size, 2 * size)
        self.linear_2 = nn.Linear(2 * size, 2 * size)
        self.linear_3 = nn.Linear(2 * size, size)

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """(B,) ▶ (B, size)."""
        half = self.size // 2
        rates = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10000) / max(half - 1, 1)))
        angles = timesteps.float()[:, None] * rates
        features = torch.cat([angles.sin(), angles.cos()], dim=-1)
        # An odd width, which the original did not have, leaves one feature at 0.
        features = F.pad(features, (0, self.size - 2 * half)).to(self.linear_1.weight.dtype)
        features = F.silu(self.linear_2(F.silu(self.linear_1(features))))
        return cast(torch.Tensor, self.linear_3(features))


class RelativePositionBias(nn.Module):
    """A bias for each head and distance, T5's buckets (Raffel et al., 2020) in one direction.

    Everything to the right of a token shares the bucket of distance 0.

    Args:
        num_heads: Number of attention heads.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(_NUM_BUCKETS, num_heads)

    def forward(self, num_queries: int, num_keys: int) -> torch.Tensor:
        """Bias (num_heads, num_queries, num_keys)."""
        device = self.table.weight.device
        queries = torch.arange(num_queries, device=device)[:, None]
        keys = torch.arange(num_keys, device=device)[None]
        return cast(torch.Tensor, self.table(self._buckets((queries - keys).clamp(min=0)))).permute(2, 0, 1)

    @staticmethod
    def _buckets(distances: torch.Tensor) -> torch.Tensor:
        exact = _NUM_BUCKETS // 2
        fraction = (distances.clamp(min=exact) / exact).log() / math.log(_MAX_DISTANCE / exact)
        logarithmic = exact + (fraction * (_NUM_BUCKETS - exact)).long()
        return torch.where(distances < exact, distances, logarithmic.clamp(max=_NUM_BUCKETS - 1))


class PriorAttention(nn.Module):
    """Cosine attention: a query for each head, one key and one value for all, and a learned null key and value.

    Args:
        size: Width of the tokens.
        num_heads: Number of heads.
        head_dim: Width of a head.
    """

    def __init__(self, size: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.norm = GainNorm(size)
        self.null_key_value = nn.Parameter(torch.randn(2, head_dim))
        self.to_query = nn.Linear(size, num_heads * head_dim, bias=False)
        self.to_key_value = nn.Linear(size, 2 * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, size, bias=False)
        self.out_norm = GainNorm(size)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.null_key_value)

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor | None, rotations: torch.Tensor) -> torch.Tensor:
        """Attends in both directions.

        Args:
            tokens: (B, N, size).
            bias: (heads, N, N + 1), the null key first; None for none.
            rotations: (2, N, D) cosines and sines of the positions.
        """
        tokens = self.norm(tokens)
        queries = self.to_query(tokens).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        keys, values = self.to_key_value(tokens).chunk(2, dim=-1)
        queries, keys = _rotate(queries, rotations), _rotate(keys, rotations)
        null_key, null_value = self.null_key_value.to(keys.dtype)
        keys = torch.cat([null_key.expand(len(tokens), 1, -1), keys], dim=1)
        values = torch.cat([null_value.expand(len(tokens), 1, -1), values], dim=1)
        queries, keys = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
        attended = F.scaled_dot_product_attention(
            queries,
            keys[:, None].expand(-1, self.num_heads, -1, -1).to(queries.dtype),
            values[:, None].expand(-1, self.num_heads, -1, -1).to(queries.dtype),
            attn_mask=None if bias is None else bias.to(queries.dtype)[None],
            scale=_COSINE_SCALE,
        )
        return cast(torch.Tensor, self.out_norm(self.to_out(attended.transpose(1, 2).flatten(2))))


class PriorFeedForward(nn.Module):
    """Norm, gated linear unit with SiLU (Shazeer, 2020), linear.

    Args:
        size: Width of the tokens.
        multiplier: Hidden width as a multiple of `size`.
    """

    def __init__(self, size: int, multiplier: int) -> None:
        super().__init__()
        self.norm = GainNorm(size)
        self.expand = nn.Linear(size, 2 * multiplier * size, bias=False)
        self.contract = nn.Linear(multiplier * size, size, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, size) ▶ (B, N, size)."""
        values, gates = self.expand(self.norm(tokens)).chunk(2, dim=-1)
        return cast(torch.Tensor, self.contract(values * F.silu(gates)))


class PriorLayer(nn.Module):
    """Attention and feed forward, each added to its input."""

    def __init__(self, size: int, num_heads: int, head_dim: int, multiplier: int) -> None:
        super().__init__()
        self.attention = PriorAttention(size, num_heads, head_dim)
        self.feed_forward = PriorFeedForward(size, multiplier)

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """(B, N, size) ▶ (B, N, size)."""
        tokens = tokens + self.attention(tokens, bias, rotations)
        return tokens + cast(torch.Tensor, self.feed_forward(tokens))


class DiffusionPriorNetwork(nn.Module):
    """Predicts the clean picture tokens from noisy ones, given brain tokens and the time step.

    Args:
        num_tokens: Tokens of a picture, and of the brain.
        size: Width of a token.
        num_layers: Number of layers.
        num_heads: Number of attention heads.
        head_dim: Width of a head.
        multiplier: Hidden width of the feed forward as a multiple of `size`.
        learned_query_mode: `"pos_emb"` adds a learned table to the noisy tokens, `"all_pos_emb"` one to the whole
            sequence, `"token"` appends learned tokens and reads the prediction there, `"none"` has none of these.
    """

    def __init__(
        self,
        num_tokens: int,
        size: int,
        num_layers: int = 6,
        num_heads: int = 12,
        head_dim: int = 64,
        multiplier: int = 4,
        learned_query_mode: LearnedQueryMode = "pos_emb",
    ) -> None:
        super().__init__()
        self.num_tokens, self.size, self.head_dim = num_tokens, size, head_dim
        self.learned_query_mode = learned_query_mode
        self.time_embedding = TimestepEmbedding(size)
        self.relative_position_bias = RelativePositionBias(num_heads)
        self.layers = nn.ModuleList(PriorLayer(size, num_heads, head_dim, multiplier) for _ in range(num_layers))
        self.norm = GainNorm(size, stable=True)
        self.project_out = nn.Linear(size, size, bias=False)
        self.null_brain_embeds = nn.Parameter(torch.randn(num_tokens, size))
        self.null_image_embeds = nn.Parameter(torch.randn(num_tokens, size))
        self.learned_query: nn.Parameter | None = None
        if learned_query_mode != "none":
            length = 2 * num_tokens + 1 if learned_query_mode == "all_pos_emb" else num_tokens
            self.learned_query = nn.Parameter(torch.randn(length, size) * size**-0.5)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.null_brain_embeds)
        nn.init.normal_(self.null_image_embeds)
        if self.learned_query is not None:
            nn.init.normal_(self.learned_query, std=self.size**-0.5)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        brain_embeds: torch.Tensor,
        brain_keep: torch.Tensor | None = None,
        image_keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predicts the clean tokens.

        Args:
            sample: (B, T, D) noisy tokens.
            timestep: (B,) noise level.
            brain_embeds: (B, T, D) condition.
            brain_keep: (B,) bool; where False, the learned null replaces the condition. None keeps all.
            image_keep: (B,) bool; the same for the noisy tokens.

        Returns:
            (B, T, D).
        """
        dtype = self.project_out.weight.dtype
        brain = _or_null(brain_embeds.to(dtype), brain_keep, self.null_brain_embeds)
        noisy = _or_null(sample.to(dtype), image_keep, self.null_image_embeds)
        time = self.time_embedding(timestep)[:, None].to(dtype)
        tokens = self._sequence(brain, time, noisy)
        length = tokens.shape[1]
        bias = self.relative_position_bias(length, length + 1)
        rotations = _rotations(length, min(_ROTARY_DIMS, self.head_dim), tokens.device)
        for layer in self.layers:
            tokens = layer(tokens, bias, rotations)
        return cast(torch.Tensor, self.project_out(self.norm(tokens[:, -self.num_tokens :])))

    def _sequence(self, brain: torch.Tensor, time: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        if self.learned_query is None:
            return torch.cat([brain, time, noisy], dim=1)
        if self.learned_query_mode == "token":
            return torch.cat([brain, time, noisy, self.learned_query.expand(len(noisy), -1, -1)], dim=1)
        if self.learned_query_mode == "all_pos_emb":
            return torch.cat([brain, time, noisy], dim=1) + self.learned_query
        return torch.cat([brain, time, noisy + self.learned_query], dim=1)


def _or_null(tokens: torch.Tensor, keep: torch.Tensor | None, null: torch.Tensor) -> torch.Tensor:
    return tokens if keep is None else torch.where(keep.to(tokens.device)[:, None, None], tokens, null.to(tokens.dtype))


def _rotations(length: int, dims: int, device: torch.device) -> torch.Tensor:
    """(2, length, dims) cosines and sines of the rotary position embedding (Su et al., 2021), neighbours in pairs."""
    rates = 10000.0 ** -(torch.arange(0, dims, 2, device=device) / dims)
    angles = (torch.arange(length, device=device)[:, None] * rates).repeat_interleave(2, dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def _rotate(vectors: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rotates the first dimensions of (…, N, head_dim) by their positions and leaves the others."""
    cosines, sines = rotations.to(vectors.dtype)
    rotated, rest = vectors[..., : cosines.shape[-1]], vectors[..., cosines.shape[-1] :]
    even, odd = rotated[..., 0::2], rotated[..., 1::2]
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return torch.cat([rotated * cosines + turned * sines, rest], dim=-1)
