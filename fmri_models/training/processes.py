"""Several processes that train one model."""

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

# Gradients are averaged in pieces of this size.
_BUCKET_BYTES = 2**26


def processes() -> Any:
    """Accelerate's state of this process among the others; one process where nobody started several."""
    from accelerate import PartialState

    # On a CPU, Accelerate connects the processes of torchrun only if it is told to use no GPU.
    return PartialState(cpu=True) if uses_cpu_processes() else PartialState()


def uses_cpu_processes() -> bool:
    """Whether torchrun started this process on a machine without a GPU."""
    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def gather_examples(tensor: torch.Tensor) -> torch.Tensor:
    """Joins (B, …) tensors of all processes to (processes · B, …), with gradient; the tensor itself with one process.

    The same loss is computed from the joined tensor in every process; with gradients averaged over processes the result
    is the gradient of that loss in one process.
    """
    if not _several():
        return tensor
    return _GatherExamples.apply(tensor)


@torch.no_grad()
def join_examples(tensor: torch.Tensor) -> torch.Tensor:
    """Joins (B, …) tensors of all processes to (processes · B, …), without gradient."""
    return _all_rows(tensor) if _several() else tensor


class _GatherExamples(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        ctx.num_examples = len(tensor)
        return _all_rows(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.num_examples
        return gradient[start : start + ctx.num_examples]


def _all_rows(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.contiguous()
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    return torch.cat(gathered)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over processes.

    Objectives call the modules of a model in any order and as often as they like, and a subject's own layers may be
    used by one process alone; both are beyond DistributedDataParallel, which follows one call of one module.
    """
    if not _several():
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=parameters[0].device)
    dist.all_reduce(used)
    bucket: list[torch.Tensor] = []
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if count == 0:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (bucket[0].dtype != parameter.grad.dtype or _num_bytes(bucket) >= _BUCKET_BYTES):
            _average(bucket)
            bucket = []
        bucket.append(parameter.grad)
    if bucket:
        _average(bucket)


@torch.no_grad()
def copy_from_main(model: nn.Module) -> None:
    """Gives every process the main process' parameters and buffers."""
    if _several():
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.data, src=0)


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Which of some flags are set in any process."""
    if not _several():
        return list(flags)
    joined = torch.tensor(flags, dtype=torch.float32, device=device)
    dist.all_reduce(joined)
    return [count > 0 for count in joined.tolist()]


def from_all(value: Any) -> list[Any]:
    """A small Python value of every process, in their order."""
    if not _several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def leave() -> None:
    """Ends the connection between processes; the last thing that a program does with them."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _num_bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _average(gradients: list[torch.Tensor]) -> None:
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    joined /= dist.get_world_size()
    for gradient, averaged in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))
