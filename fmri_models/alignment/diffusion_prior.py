"""The network of the diffusion prior: brain tokens and a noisy embedding in, the clean embedding out.

It is the prior of DALL·E 2 (Ramesh et al., 2022) as Scotti et al. (2023) changed it: without a causal mask, with all
tokens of the picture as its sequence, and brain tokens for its condition.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from ..offloading import place_of
from ..traced import becomes_a_graph

LearnedQueryMode = Literal["pos_emb", "token", "all_pos_emb", "none"]
AttentionImplementation = Literal["sdpa", "eager"]

_ROTARY_DIMS = 32
_COSINE_SCALE = 16.0
_NUM_BUCKETS = 32
_MAX_DISTANCE = 128
_EPS, _EPS_OF_HALF_PRECISION = 1e-5, 1e-3
# Rows of attention, and scores of short sequences, that a CPU computes together: they stay in its cache.
_ROWS_A_CHUNK = 512
_SCORES_A_CHUNK = 2**18


class GainNorm(nn.Module):
    """Layer normalisation with a gain and no bias, computed in float32.

    The variance is regularised by 1e-5, and by 1e-3 in a model that was cast to half precision as a whole, as in the
    original. Under autocast it stays 1e-5. There, the original switched with the dtype that an input happened to have,
    so one norm a layer was trained with 1e-3 and used with 1e-5; here, training under autocast is training of the model
    that is used in float32.

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
        """(…, size) ▶ (…, size) of the input's or the gain's dtype, whichever is wider."""
        values = features.float()
        if self.stable:
            # The largest value with its sign, and without gradient.
            largest = values.amax(dim=-1, keepdim=True).detach()
            values = values / torch.where(largest == 0, 1.0, largest)
        normed = F.layer_norm(values, values.shape[-1:], self.weight.float(), eps=_regulariser(features))
        return normed.to(torch.promote_types(features.dtype, self.weight.dtype))


def _regulariser(features: torch.Tensor) -> float:
    is_cast = features.dtype != torch.float32 and not torch.is_autocast_enabled(features.device.type)
    return _EPS_OF_HALF_PRECISION if is_cast else _EPS


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
        places = torch.arange(half, dtype=torch.float32, device=timesteps.device)
        rates = torch.exp(places * (-math.log(10000) / max(half - 1, 1)))
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
        # Every row of a head is a window on one list, which makes the gradient of the table a short sum.
        device = self.table.weight.device
        if device.type == "meta":
            # Where weights are kept elsewhere, there are none before the table is called.
            device = place_of(self.table)
        distances = torch.arange(num_queries - 1, -num_keys, -1, device=device).clamp(min=0)
        of_distances = cast(torch.Tensor, self.table(self._buckets(distances))).T
        return of_distances.unfold(-1, num_keys, 1).flip(1)

    @staticmethod
    def _buckets(distances: torch.Tensor) -> torch.Tensor:
        exact = _NUM_BUCKETS // 2
        fraction = (distances.clamp(min=exact).float() / exact).log() / math.log(_MAX_DISTANCE / exact)
        logarithmic = exact + (fraction * (_NUM_BUCKETS - exact)).long()
        return torch.where(distances < exact, distances, logarithmic.clamp(max=_NUM_BUCKETS - 1))


class PriorPositions(NamedTuple):
    """What depends on the length of a sequence and not on its tokens: the same for all layers, and for all steps of
    sampling.

    Args:
        bias: (N·heads, N + 1) what is added to the scores of a query and a head, the null key first.
        rotations: (N, head_dim / 2) complex rotary position embedding (Su et al., 2021) of neighbouring features.
    """

    bias: torch.Tensor
    rotations: torch.Tensor


class AttentionWeights(nn.Module):
    """The weights of cosine attention as a module, so that they can be recorded where they are computed."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(B, Q·heads, D), (B, K, D), (Q·heads, K) ▶ (B, heads, Q, K), the null key first."""
        scores = _COSINE_SCALE * queries @ keys.transpose(1, 2) + bias
        return scores.softmax(dim=-1).unflatten(1, (-1, self.num_heads)).transpose(1, 2)


class PriorAttention(nn.Module):
    """Cosine attention: a query for each head, one key and one value for all, and a learned null key and value.

    Args:
        size: Width of the tokens.
        num_heads: Number of heads.
        head_dim: Width of a head, an even number.
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
        self.weights = AttentionWeights(num_heads)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.null_key_value)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: PriorPositions,
        num_queries: int | None = None,
        attn_implementation: AttentionImplementation = "sdpa",
    ) -> torch.Tensor:
        """Attends in both directions.

        Since keys and values are shared, the queries of all heads are rows of one attention.

        Args:
            tokens: (B, N, size).
            positions: Of length N.
            num_queries: Q, to compute only the last Q tokens' outputs; None for all.
            attn_implementation: `"sdpa"` never keeps the weights of all queries, `"eager"` computes them.

        Returns:
            (B, Q, size).
        """
        num_queries = tokens.shape[1] if num_queries is None else num_queries
        tokens = self.norm(tokens)
        queries = self.to_query(tokens[:, -num_queries:]).unflatten(-1, (self.num_heads, self.head_dim))
        keys, values = self.to_key_value(tokens).chunk(2, dim=-1)
        rotations = positions.rotations
        # A rotation keeps the length, so vectors of length one may be rotated as well as rotated ones normalised.
        queries = _rotate(_unit(queries), rotations[-num_queries:, None]).flatten(1, 2)
        keys = _rotate(_unit(keys), rotations)
        null_key, null_value = self.null_key_value
        keys = torch.cat([_unit(null_key).expand(tokens.shape[0], 1, -1), keys], dim=1)
        values = torch.cat([null_value.to(values.dtype).expand(tokens.shape[0], 1, -1), values], dim=1)
        bias = positions.bias[-num_queries * self.num_heads :]
        if attn_implementation == "eager":
            weights = self.weights(queries, keys, bias.float()).transpose(1, 2).flatten(1, 2)
            attended = (weights @ values.float()).to(values.dtype)
        else:
            attended = _attend(queries, keys, values, bias)
        attended = attended.unflatten(1, (num_queries, self.num_heads)).flatten(2)
        return cast(torch.Tensor, self.out_norm(self.to_out(attended)))


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
        expanded = self.expand(self.norm(tokens))
        return cast(torch.Tensor, self.contract(_gated(expanded)))


class PriorLayer(GradientCheckpointingLayer):
    """Attention and feed forward, each added to its input; what is between can be computed again for the gradient."""

    def __init__(self, size: int, num_heads: int, head_dim: int, multiplier: int) -> None:
        super().__init__()
        self.attention = PriorAttention(size, num_heads, head_dim)
        self.feed_forward = PriorFeedForward(size, multiplier)

    # Positions come as tensors of their own: only those pass gradients through a checkpoint that is re-entrant.
    def forward(
        self,
        tokens: torch.Tensor,
        bias: torch.Tensor,
        rotations: torch.Tensor,
        num_outputs: int | None = None,
        attn_implementation: AttentionImplementation = "sdpa",
    ) -> torch.Tensor:
        """(B, N, size) ▶ (B, N, size), or only the last `num_outputs` tokens of it; the rest as for the attention."""
        attended = self.attention(tokens, PriorPositions(bias, rotations), num_outputs, attn_implementation)
        tokens = tokens[:, -attended.shape[1] :] + attended
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
        positions: PriorPositions | None = None,
        attn_implementation: AttentionImplementation = "sdpa",
        computes_all: bool = False,
    ) -> torch.Tensor:
        """Predicts the clean tokens.

        Args:
            sample: (B, T, D) noisy tokens.
            timestep: (B,) noise level.
            brain_embeds: (B, T, D) condition.
            brain_keep: (B,) bool; where False, the learned null replaces the condition. None keeps all.
            image_keep: (B,) bool; the same for the noisy tokens.
            positions: What [`~DiffusionPriorNetwork.positions`] returned, if several calls share it.
            attn_implementation: `"sdpa"` or `"eager"`; see [`PriorAttention`].
            computes_all: Whether the last layer computes tokens that nobody reads, for those who look into it.

        Returns:
            (B, T, D).
        """
        dtype = self.project_out.weight.dtype
        brain = _or_null(brain_embeds.to(dtype), brain_keep, self.null_brain_embeds)
        noisy = _or_null(sample.to(dtype), image_keep, self.null_image_embeds)
        time = self.time_embedding(timestep)[:, None].to(dtype)
        tokens = self._sequence(brain, time, noisy)
        positions = self.positions() if positions is None else positions
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            # Nobody reads what the last layer would make of the other tokens.
            num_outputs = self.num_tokens if index == last and not computes_all else None
            tokens = layer(tokens, *positions, num_outputs, attn_implementation)
        return cast(torch.Tensor, self.project_out(self.norm(tokens[:, -self.num_tokens :])))

    def positions(self) -> PriorPositions:
        """Biases and rotations; with gradient for the table of biases."""
        length = self.num_tokens * (3 if self.learned_query_mode == "token" else 2) + 1
        # Windows on a list have unusual strides, which would slow down every layer.
        bias = self.relative_position_bias(length, length + 1).transpose(0, 1).flatten(0, 1).contiguous()
        return PriorPositions(bias, _rotations(length, self.head_dim, bias.device))

    def _sequence(self, brain: torch.Tensor, time: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        if self.learned_query is None:
            return torch.cat([brain, time, noisy], dim=1)
        if self.learned_query_mode == "token":
            return torch.cat([brain, time, noisy, self.learned_query.expand(noisy.shape[0], -1, -1)], dim=1)
        if self.learned_query_mode == "all_pos_emb":
            return torch.cat([brain, time, noisy], dim=1) + self.learned_query
        return torch.cat([brain, time, noisy + self.learned_query], dim=1)


def _or_null(tokens: torch.Tensor, keep: torch.Tensor | None, null: torch.Tensor) -> torch.Tensor:
    return tokens if keep is None else torch.where(keep.to(tokens.device)[:, None, None], tokens, null.to(tokens.dtype))


def _rotations(length: int, head_dim: int, device: torch.device) -> torch.Tensor:
    """(length, head_dim / 2) complex numbers; pairs of features beyond the rotary ones are left alone."""
    dims = min(_ROTARY_DIMS, head_dim)
    rates = torch.zeros(head_dim // 2, dtype=torch.float32, device=device)
    rates[: dims // 2] = 10000.0 ** -(torch.arange(0, dims, 2, dtype=torch.float32, device=device) / dims)
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.polar(torch.ones_like(angles), angles)


def _rotate(vectors: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring features of (…, head_dim) float32 vectors."""
    pairs = torch.view_as_complex(vectors.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations).flatten(-2)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of length one, in float32 also where the network is not."""
    return F.normalize(vectors.float(), dim=-1)


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Cosine attention of one head.

    Args:
        queries: (B, Q, D) float32 of length one.
        keys: (B, K, D) float32 of length one.
        values: (B, K, D).
        bias: (Q, K) added to the scores.

    Returns:
        (B, Q, D) in the dtype of `values`.
    """
    if queries.device.type != "cpu" or becomes_a_graph():
        return _fused_attention(queries, keys, values, bias)
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in (queries, keys, values, bias))
    attention = _ChunkedAttention.apply if learns else _fused_attention
    # Autocast would compute a part of it in half precision, which takes longer on a CPU and needs conversions.
    with torch.autocast("cpu", enabled=False):
        attended = cast(torch.Tensor, attention(queries, keys, values.float(), bias.float()))
    return attended.to(values.dtype)


def _fused_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    queries, keys, bias = (each.to(values.dtype) for each in (queries, keys, bias))
    attended = F.scaled_dot_product_attention(
        queries[:, None], keys[:, None], values[:, None], attn_mask=bias[None, None], scale=_COSINE_SCALE
    )
    return attended[:, 0]


class _ChunkedAttention(torch.autograd.Function):
    """Attention in float32, a chunk of scores at a time; the probabilities are computed again for the gradient.

    PyTorch's own attention keeps all scores on a CPU where the bias needs a gradient, and takes 3 times as long.
    """

    @staticmethod
    def forward(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        attended = torch.empty_like(queries)
        chunks = list(_chunks(queries, keys))
        memory = _memory(queries, keys, chunks)
        for samples, rows in chunks:
            weights = _attention_weights(queries[samples, rows], keys[samples], bias[rows], memory)
            torch.bmm(weights, values[samples], out=attended[samples, rows])
        return attended

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        queries, keys, values, bias = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_queries, of_bias = torch.empty_like(queries), torch.zeros_like(bias)
        of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
        chunks = list(_chunks(queries, keys))
        memory, more_memory = (_memory(queries, keys, chunks) for _ in range(2))
        for samples, rows in chunks:
            weights = _attention_weights(queries[samples, rows], keys[samples], bias[rows], memory)
            of_values[samples].baddbmm_(weights.transpose(1, 2), gradient[samples, rows])
            change = more_memory[: weights.numel()].view_as(weights)
            torch.bmm(gradient[samples, rows], values[samples].transpose(1, 2), out=change).mul_(weights)
            change.addcmul_(weights, change.sum(dim=-1, keepdim=True), value=-1)
            torch.bmm(change, keys[samples], out=of_queries[samples, rows])
            of_keys[samples].baddbmm_(change.transpose(1, 2), queries[samples, rows])
            # A sum over one sample would be a copy.
            of_bias[rows].add_(change.sum(dim=0) if len(change) > 1 else change[0])
        return of_queries.mul_(_COSINE_SCALE), of_keys.mul_(_COSINE_SCALE), of_values, of_bias


def _chunks(queries: torch.Tensor, keys: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and rows that are computed together: many short sequences, or a part of a long one."""
    num_samples, num_rows, _ = queries.shape
    samples = max(1, _SCORES_A_CHUNK // (min(num_rows, _ROWS_A_CHUNK) * keys.shape[1]))
    for first in range(0, num_samples, samples):
        for start in range(0, num_rows, _ROWS_A_CHUNK):
            yield (
                slice(first, min(first + samples, num_samples)),
                slice(start, min(start + _ROWS_A_CHUNK, num_rows)),
            )


def _memory(queries: torch.Tensor, keys: torch.Tensor, chunks: Sequence[tuple[slice, slice]]) -> torch.Tensor:
    """For the scores of the largest chunk."""
    scores = ((each.stop - each.start) * (rows.stop - rows.start) * keys.shape[1] for each, rows in chunks)
    return queries.new_empty(max(scores, default=0))


def _attention_weights(
    queries: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor, memory: torch.Tensor
) -> torch.Tensor:
    """(b, q, K) in memory that is there already, from (b, q, D), (b, K, D) and (q, K)."""
    shape = (*queries.shape[:2], keys.shape[1])
    scores = memory[: math.prod(shape)].view(shape)
    torch.baddbmm(bias.expand(shape), queries, keys.transpose(1, 2), alpha=_COSINE_SCALE, out=scores)
    return torch.softmax(scores, dim=-1, out=scores)


def _gated(features: torch.Tensor) -> torch.Tensor:
    """(…, 2·size) ▶ (…, size): the first half times SiLU of the second."""
    if becomes_a_graph():
        values, gates = features.chunk(2, dim=-1)
        return F.silu(gates) * values
    return cast(torch.Tensor, _GatedUnit.apply(features))


class _GatedUnit(torch.autograd.Function):
    """First half of the features times SiLU of the second; keeps nothing but its input for the gradient."""

    @staticmethod
    def forward(features: torch.Tensor) -> torch.Tensor:
        values, gates = features.chunk(2, dim=-1)
        return F.silu(gates).mul_(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (features,) = ctx.saved_tensors
        values, gates = features.chunk(2, dim=-1)
        # Both halves are written where they belong, instead of being joined afterwards.
        result = torch.empty_like(features)
        of_values, of_gates = result.chunk(2, dim=-1)
        torch.mul(gradients[0], F.silu(gates), out=of_values)
        torch.ops.aten.silu_backward(gradients[0] * values, gates, grad_input=of_gates)
        return result
