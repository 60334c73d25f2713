"""Gradients of a loss over the examples of many batches, with the activations of one batch in memory at a time.

The method is that of Gao et al. (2021), "Scaling deep contrastive learning batch size under memory limited setup".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import nn

from ..errors import FmriModelsError
from ..objectives import Gather
from .processes import gather_examples


class JoinedBatches:
    """Joins what an objective gathers over the micro-batches of one step, as `gather_examples` does over processes.

    Every micro-batch but one is first read without gradient, which gives what is gathered of its examples. Then each is
    learned from: its own examples have a gradient, those of the others are constants. With the loss of each divided by
    the number of them, the gradients sum to that of one batch with all examples. Let J be the terms of the loss that
    compare joined examples; every micro-batch computes the same J, but only its own examples x carry dJ/dx, which is
    therefore multiplied by the number of micro-batches. Terms that compare nothing are averaged, as in a large batch.

    Args:
        num_batches: Micro-batches of the step, all of the same number of examples.
        num_processes: Processes whose examples are compared with each other.
        gather: Joins the examples of these.
    """

    def __init__(self, num_batches: int, num_processes: int = 1, gather: Gather = gather_examples) -> None:
        self._num_batches = num_batches
        self._num_processes = num_processes
        self._gather = gather
        self._examples: list[list[torch.Tensor]] = [[] for _ in range(num_batches)]

    def reading(self, number: int) -> Gather:
        """The `gather` with which micro-batch `number` is read: notes its examples, and repeats them for the others."""
        repeats = self._num_batches * self._num_processes

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            self._examples[number].append(tensor.detach())
            return torch.cat([tensor] * repeats)

        return gather

    def learning(self, number: int) -> Gather:
        """The `gather` with which micro-batch `number` is learned from; all others are read or learned from by then."""
        calls = count()
        was_read = bool(self._examples[number])

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            if not was_read:
                self._examples[number].append(tensor.detach())
            examples = self._examples_of_call(next(calls))
            return self._gather(_Join.apply(tensor, number, examples))

        return gather

    def _examples_of_call(self, call: int) -> list[torch.Tensor]:
        if any(call >= len(examples) for examples in self._examples):
            numbers = ", ".join(str(len(examples)) for examples in self._examples)
            raise FmriModelsError(
                f"The objective gathers different numbers of tensors in the batches of a step ({numbers}), which "
                "gradient_accumulation: cached can't join; choose gradient_accumulation: separate."
            )
        return [examples[call] for examples in self._examples]


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, number: int, examples: list[torch.Tensor]) -> torch.Tensor:
        ctx.place, ctx.num_batches, ctx.num_examples = number * len(own), len(examples), len(own)
        return torch.cat([*examples[:number], own, *examples[number + 1 :]])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.num_batches * gradients[0][ctx.place : ctx.place + ctx.num_examples], None, None


@contextmanager
def only_reading(model: nn.Module) -> Iterator[None]:
    """Without gradient and without a trace: buffers, such as a batch norm's running statistics, are put back."""
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        yield
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
