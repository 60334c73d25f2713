"""A linear layer with so many weights and so few rows that it takes as long as reading the weights does.

MindEye's last layer is one: 4,096 features become 197,376 values, four fifths of all its weights. So is the first layer
of a whole brain.
"""

import weakref
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..traced import becomes_a_graph

# Below it, a weight is small enough for PyTorch's own layer.
_MIN_WEIGHT_VALUES = 2**24
# Values of the weight that a thread multiplies together: some megabytes, which stay in a cache.
_VALUES_A_CHUNK = 2**19


class WideLinear(nn.Linear):
    """`torch.nn.Linear` that takes less time on a CPU where its weight is large.

    The weight is multiplied chunk by chunk, each of which stays in a cache while it is packed and used. The memory of
    its gradient is kept and used again: fresh memory costs the operating system more time than computing what is
    stored in it. Under autocast, in half precision, for inputs of more dimensions, on other devices and in a compiled
    graph it is PyTorch's layer.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self._gradient_memory = ReusedMemory()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(…, in_features) ▶ (…, out_features)."""
        if not self._takes_chunks(features):
            return super().forward(features)
        return cast(torch.Tensor, _ChunkedLinear.apply(features, self.weight, self.bias, self._gradient_memory))

    def train(self, mode: bool = True) -> "WideLinear":
        """As for any module; who does not learn needs no memory for gradients."""
        if not mode:
            self._gradient_memory = ReusedMemory()
        return super().train(mode)

    def _takes_chunks(self, features: torch.Tensor) -> bool:
        return (
            not becomes_a_graph()
            and self.weight.numel() >= _MIN_WEIGHT_VALUES
            and features.ndim == 2
            and features.dtype == self.weight.dtype == torch.float32
            and features.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
        )


class ReusedMemory:
    """Memory for one large tensor, given out again as soon as nobody holds that tensor any more."""

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None
        self._loan: weakref.ref[np.ndarray] | None = None

    def empty(self, shape: torch.Size) -> torch.Tensor:
        """A float32 tensor on the CPU with any content; fresh memory while the last one is still somebody's."""
        if self._loan is not None and self._loan() is not None:
            return torch.empty(shape)
        if self._memory is None or self._memory.numel() < shape.numel():
            self._memory = torch.empty(shape.numel())
        # A tensor's storage keeps the array alive that it was made from, whoever has views of it.
        loan = self._memory[: shape.numel()].numpy()
        self._loan = weakref.ref(loan)
        return torch.from_numpy(loan).view(shape)

    def __reduce__(self) -> tuple[type["ReusedMemory"], tuple[()]]:
        # A copy, or what is read from a file, has none yet.
        return ReusedMemory, ()


class _ChunkedLinear(torch.autograd.Function):
    """A linear layer and its gradient, a chunk of outputs at a time."""

    @staticmethod
    def forward(
        features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, memory: ReusedMemory
    ) -> torch.Tensor:
        result = features.new_empty(len(features), len(weight))
        for chunk in _chunks(weight):
            torch.mm(features, weight[chunk].T, out=result[:, chunk])
        return result if bias is None else result.add_(bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        features, weight, _, ctx.memory = inputs
        ctx.save_for_backward(features, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        of_features: torch.Tensor | None = None
        of_weight: torch.Tensor | None = None
        of_bias: torch.Tensor | None = None
        if ctx.needs_input_grad[0]:
            of_features = gradients[0] @ weight
        if ctx.needs_input_grad[1]:
            of_weight = ctx.memory.empty(weight.shape)
            of_results = gradients[0].T.contiguous()
            for chunk in _chunks(weight):
                torch.mm(of_results[chunk], features, out=of_weight[chunk])
        if ctx.needs_input_grad[2]:
            of_bias = gradients[0].sum(dim=0)
        return of_features, of_weight, of_bias, None


def _chunks(weight: torch.Tensor) -> list[slice]:
    size = max(1, _VALUES_A_CHUNK * torch.get_num_threads() // weight.shape[1])
    return [slice(start, start + size) for start in range(0, len(weight), size)]
