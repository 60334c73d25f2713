"""Random numbers of a training step, the same however many processes share its batch."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch

# Joins a tensor (B, …) of all processes along the first dimension, in their order, without gradient.
Join = Callable[[torch.Tensor], torch.Tensor]


class StepGenerator(torch.Generator):
    """The source of a batch's draws, which knows which part of the batch its process has.

    It is seeded alike in all processes. What is drawn for the batch as a whole is therefore the same in each, and
    [`drawn_by_row`] gives a process those draws that its own examples have in the whole batch.

    Args:
        process: Which of the processes this is.
        num_processes: Processes that share the batch in equal parts.
        join: Joins tensors of all of them; None where there is one.
    """

    process: int
    num_processes: int

    def __new__(cls, process: int = 0, num_processes: int = 1, join: Join | None = None) -> Self:
        """PyTorch's takes a device and nothing else."""
        return super().__new__(cls)

    def __init__(self, process: int = 0, num_processes: int = 1, join: Join | None = None) -> None:
        super().__init__()
        self.process, self.num_processes, self._join = process, num_processes, join

    def joined(self, tensor: torch.Tensor) -> torch.Tensor:
        """The (B, …) tensors of all processes as one, without gradient; the tensor itself with one process."""
        return tensor if self._join is None or self.num_processes == 1 else self._join(tensor.detach())

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a tensor with a row for each example of the whole batch, the rows of this process."""
        rows = len(tensor) // self.num_processes
        return tensor[self.process * rows : (self.process + 1) * rows]


def drawn_by_row(
    draw: Callable[..., torch.Tensor], size: Sequence[int], generator: torch.Generator | None, **options: Any
) -> torch.Tensor:
    """Draws something for each example of a batch: by its place in the batch of all processes.

    Args:
        draw: Such as `torch.rand` or `torch.randn`: takes a size, `generator` and the options.
        size: (B, …), with the examples of this process first.
        generator: A [`StepGenerator`] in training; any other draws for these examples alone.
        **options: Given on.
    """
    if not isinstance(generator, StepGenerator) or generator.num_processes == 1:
        return draw(tuple(size), generator=generator, **options)
    return generator.own(draw((size[0] * generator.num_processes, *size[1:]), generator=generator, **options))


def joined_rows(tensor: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """(B, …) values of the examples of this process ▶ those of the whole batch, without gradient where it is larger."""
    return generator.joined(tensor) if isinstance(generator, StepGenerator) else tensor


def own_rows(tensor: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Of what was drawn for the whole batch, the rows of this process."""
    return generator.own(tensor) if isinstance(generator, StepGenerator) else tensor
