"""Gradients of a loss over the rows of many batches, with the activations of one batch in memory at a time.

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
from .processes import gather_rows


class JoinedBatches:
    """Joins what an objective gathers over the micro-batches of one step, as `gather_rows` does over processes.

    Every micro-batch but one is first read without gradient, which gives its rows. Then each is learned from: its own
    rows have a gradient, those of the others are constants. With the loss of each divided by the number of them, the
    gradients sum to that of one batch with all rows. Let J be the terms of the loss that compare joined rows; every
    micro-batch computes the same J, but only its own rows x carry dJ/dx, which is therefore multiplied by their number.
    Terms that compare nothing are averaged, as in a large batch.

    Args:
        num_batches: Micro-batches of the step, all of the same number of examples.
        num_processes: Processes that train together.
    """

    def __init__(self, num_batches: int, num_processes: int = 1) -> None:
        self._num_batches = num_batches
        self._num_processes = num_processes
        self._rows: list[list[torch.Tensor]] = [[] for _ in range(num_batches)]

    def reading(self, number: int) -> Gather:
        """The `gather` with which micro-batch `number` is read: notes its rows, and repeats them for the others."""
        repeats = self._num_batches * self._num_processes

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            self._rows[number].append(tensor.detach())
            return torch.cat([tensor] * repeats)

        return gather

    def learning(self, number: int) -> Gather:
        """The `gather` with which micro-batch `number` is learned from; all others are read or learned from by then."""
        calls = count()
        was_read = bool(self._rows[number])

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            if not was_read:
                self._rows[number].append(tensor.detach())
            rows = self._rows_of_call(next(calls))
            return gather_rows(_Join.apply(tensor, number, rows))

        return gather

    def _rows_of_call(self, call: int) -> list[torch.Tensor]:
        if any(call >= len(rows) for rows in self._rows):
            numbers = ", ".join(str(len(rows)) for rows in self._rows)
            raise FmriModelsError(
                f"The objective gathers different numbers of tensors in the batches of a step ({numbers}), which "
                "gradient_accumulation: cached can't join; choose gradient_accumulation: separate."
            )
        return [rows[call] for rows in self._rows]


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, number: int, rows: list[torch.Tensor]) -> torch.Tensor:
        ctx.place, ctx.num_batches, ctx.num_rows = number * len(own), len(rows), len(own)
        return torch.cat([*rows[:number], own, *rows[number + 1 :]])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.num_batches * gradients[0][ctx.place : ctx.place + ctx.num_rows], None, None


@contextmanager
def only_reading(model: nn.Module) -> Iterator[None]:
    """Without gradient and without a trace: buffers, such as a batch norm's running statistics, are put back."""
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        yield
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
