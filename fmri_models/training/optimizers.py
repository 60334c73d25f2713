"""Optimisers with small states: factored second moments, and weights and moments in bfloat16.

A weight that is trained by AdamW in float32 takes 16 bytes: the weight, its gradient and two moments. Both optimisers
here work on chunks of rows, so that nothing of the size of a whole matrix comes on top of what they keep.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from ..objectives import ParameterGroup
from .options import TrainingOptions

# Values that are updated together.
_VALUES_A_CHUNK = 2**22
_MOMENTS = {"adamw": 2, "adafactor": 0}


class Adafactor(torch.optim.Optimizer):
    """Adafactor (Shazeer & Stern, 2018) with absolute step sizes and without a first moment.

    The second moments of a matrix are its rows' and columns' means of squares (algorithm 4 of the paper); tensors of
    more dimensions are matrices with the first one as rows, and vectors keep all their second moments. Updates are
    clipped to a root mean square of one, so that a weight moves by about the learning rate, as with AdamW. Weight
    decay is decoupled, as AdamW's. There is no β₁ for a schedule to move.

    Weights may be in bfloat16, and are then rounded at random; see [`round_at_random`].

    Args:
        parameters: Parameters or groups of them.
        lr: Learning rate.
        weight_decay: Share of a weight that is taken off in each step, times the learning rate.
        decay_exponent: Step t weighs past squares by 1 - t to the power of minus this.
        clip_threshold: Longest root mean square of an update before the learning rate.
        eps: Is added to squares.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        decay_exponent: float = 0.8,
        clip_threshold: float = 1.0,
        eps: float = 1e-30,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "decay_exponent": decay_exponent,
            "clip_threshold": clip_threshold,
            "eps": eps,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Updates every parameter that has a gradient."""
        for group, parameter in _with_gradient(self):
            state = self.state[parameter]
            if not state:
                state.update(_factored_state(parameter))
            state["step"] += 1
            share = float(state["step"]) ** -group["decay_exponent"]
            weights, gradients = _as_matrix(parameter), _gradient(parameter)
            factors = _Factors.of(state, gradients, share, group["eps"])
            rms = math.sqrt(sum(_sum_of_squares(factors.scale(gradients, rows)) for rows in _chunks(weights)))
            rms /= math.sqrt(weights.numel())
            rate = group["lr"] / max(1.0, rms / group["clip_threshold"])
            kept = 1 - group["lr"] * group["weight_decay"]
            for rows in _chunks(weights):
                _store(weights[rows], kept * weights[rows].float() - rate * factors.scale(gradients, rows))


class RoundedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter, 2019) whose moments have the dtype of their weights.

    Weights and moments in bfloat16 are rounded at random; see [`round_at_random`]. For weights in float32 it is
    PyTorch's AdamW.

    Args:
        parameters: Parameters or groups of them.
        lr: Learning rate.
        betas: Decays of the two moments.
        eps: Is added to the root of the second moment.
        weight_decay: Share of a weight that is taken off in each step, times the learning rate.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Updates every parameter that has a gradient."""
        for group, parameter in _with_gradient(self):
            state = self.state[parameter]
            if not state:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                state.update({"step": torch.zeros(()), **moments})
            state["step"] += 1
            beta1, beta2 = group["betas"]
            corrections = [1 - beta ** float(state["step"]) for beta in (beta1, beta2)]
            weights, gradients = _as_matrix(parameter), _gradient(parameter)
            firsts, seconds = _as_matrix(state["exp_avg"]), _as_matrix(state["exp_avg_sq"])
            kept = 1 - group["lr"] * group["weight_decay"]
            for rows in _chunks(weights):
                gradient = gradients[rows].float()
                first = firsts[rows].float().lerp(gradient, 1 - beta1)
                second = (beta2 * seconds[rows].float()).addcmul_(gradient, gradient, value=1 - beta2)
                update = first / corrections[0] / ((second / corrections[1]).sqrt_() + group["eps"])
                _store(firsts[rows], first)
                _store(seconds[rows], second)
                _store(weights[rows], kept * weights[rows].float() - group["lr"] * update)


def round_at_random(values: torch.Tensor) -> torch.Tensor:
    """Float32 values in bfloat16, up or down with the probabilities that keep their mean.

    A step of training changes a weight by less than the distance of two numbers in bfloat16. Rounded to the nearest,
    all such changes are lost; rounded at random, they come about as often as they should (Zamirai et al., 2020,
    "Revisiting BFloat16 training").

    Args:
        values: float32 of any shape.

    Returns:
        The same shape in bfloat16, a function of the values and of PyTorch's global generator.
    """
    # A bfloat16 is the upper half of a float32. A random number is added to the lower half before that is cut off, and
    # carries over as often as the lower half is large.
    bits = values.contiguous().view(torch.int32)
    carried = bits + torch.randint_like(bits, 2**16)
    return carried.bitwise_and_(-(2**16)).view(torch.float32).bfloat16()


def make_optimizer(groups: Sequence[ParameterGroup], options: TrainingOptions, fused: bool) -> torch.optim.Optimizer:
    """The optimiser that the options name.

    Args:
        groups: Parameters with their weight decay; one that a group lists twice takes its step twice, one after the
            other.
        options: Names the optimiser.
        fused: Whether PyTorch's AdamW takes its fused form, in which each is listed once.
    """
    parameters = cast(list[dict[str, Any]], list(groups))
    rates: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    with warnings.catch_warnings():
        # An objective means what it lists twice.
        warnings.filterwarnings("ignore", "optimizer contains a parameter group with duplicate parameters")
        if options.optimizer == "adafactor":
            return Adafactor(parameters, **rates)
        if options.parameter_dtype == "bfloat16":
            return RoundedAdamW(parameters, **rates)
        is_twice = any(len(set(map(id, group["params"]))) < len(group["params"]) for group in groups)
        return torch.optim.AdamW(parameters, **rates, fused=fused, foreach=False if is_twice else None)


def may_be_rounded(parameter: nn.Parameter) -> bool:
    """Whether `parameter_dtype` applies to a parameter: to matrices, which have nearly all weights.

    Biases and gains stay in float32, where norms expect theirs.
    """
    return parameter.ndim >= 2


def weight_bytes(parameter: nn.Parameter, options: TrainingOptions) -> int:
    """Bytes of a parameter while it is trained."""
    rounded = options.parameter_dtype == "bfloat16" and may_be_rounded(parameter)
    return (2 if rounded else 4) * parameter.numel()


def num_bytes(parameter: nn.Parameter, options: TrainingOptions) -> int:
    """Bytes of a parameter in training: itself, its gradient, and what the optimiser keeps of it.

    Args:
        parameter: May be on the meta device.
        options: Name the optimiser and the dtype.
    """
    values = parameter.numel()
    total = (2 + _MOMENTS[options.optimizer]) * weight_bytes(parameter, options)
    if options.optimizer == "adafactor":
        kept = parameter.shape[0] + math.prod(parameter.shape[1:]) if parameter.ndim >= 2 else values
        total += 4 * kept
    return total


class _Factors(NamedTuple):
    """What a gradient is multiplied by: (rows, 1) and (columns,) for a matrix, (1, 1) and all for a vector."""

    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def of(cls, state: dict[str, torch.Tensor], gradients: torch.Tensor, share: float, eps: float) -> "_Factors":
        """Updates the means of squares by a share of the newest ones."""
        if "square" in state:
            state["square"].lerp_(gradients.flatten().float().square() + eps, share)
            return cls(gradients.new_ones(1, 1, dtype=torch.float32), state["square"].rsqrt())
        of_rows, of_columns = torch.empty_like(state["row"]), torch.zeros_like(state["column"])
        for rows in _chunks(gradients):
            squares = gradients[rows].float().square() + eps
            of_rows[rows] = squares.mean(dim=1)
            of_columns += squares.sum(dim=0)
        state["row"].lerp_(of_rows, share)
        state["column"].lerp_(of_columns / len(gradients), share)
        return cls((state["row"] / state["row"].mean()).rsqrt_()[:, None], state["column"].rsqrt())

    def scale(self, gradients: torch.Tensor, rows: slice) -> torch.Tensor:
        return gradients[rows].float() * self.rows[rows] * self.columns


def _factored_state(parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    step = torch.zeros(())
    if parameter.ndim < 2:
        return {"step": step, "square": parameter.new_zeros(parameter.numel(), dtype=torch.float32)}
    num_rows, num_columns = _as_matrix(parameter).shape
    return {
        "step": step,
        "row": parameter.new_zeros(num_rows, dtype=torch.float32),
        "column": parameter.new_zeros(num_columns, dtype=torch.float32),
    }


def _with_gradient(optimizer: torch.optim.Optimizer) -> Iterator[tuple[dict[str, Any], nn.Parameter]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter


def _as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a weight or of what is kept of it, with its first dimension as rows; a vector is one row."""
    return tensor.view(len(tensor), -1) if tensor.ndim >= 2 else tensor.view(1, -1)


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return _as_matrix(parameter.grad.contiguous())


def _chunks(matrix: torch.Tensor) -> Iterator[slice]:
    """Rows of a matrix, some at a time."""
    rows = max(1, _VALUES_A_CHUNK // matrix.shape[1])
    for start in range(0, len(matrix), rows):
        yield slice(start, start + rows)


def _sum_of_squares(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values)) ** 2


def _store(place: torch.Tensor, values: torch.Tensor) -> None:
    place.copy_(values if place.dtype == torch.float32 else round_at_random(values))
