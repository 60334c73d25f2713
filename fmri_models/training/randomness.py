"""Random numbers of a stage: a function of seed, stage and what they are for, so that resuming needs no state."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch


class Draw(IntEnum):
    """What random numbers are for."""

    ORDER = 0
    STEP = 1
    VALIDATION = 2
    ROUNDING = 3


class StageIdentity(NamedTuple):
    """What a stage's random numbers depend on besides the step, and how messages call it."""

    name: str
    number: int
    seed: int

    def seeded(self, draw: Draw, *numbers: int) -> torch.Generator:
        """Seeds PyTorch, and gives a generator of its own beside that.

        Args:
            draw: What it is for.
            *numbers: Such as those of the step, the micro-batch and the process.
        """
        own, general = self._sequence(draw, *numbers).generate_state(2, np.uint64)
        torch.manual_seed(int(general))
        return torch.Generator().manual_seed(int(own))

    @property
    def order_seed(self) -> int:
        """Seed of the order of the examples."""
        return int(self._sequence(Draw.ORDER).generate_state(1)[0])

    def _sequence(self, *numbers: int) -> np.random.SeedSequence:
        # SeedSequence takes no negative numbers, PyTorch and recipes do.
        return np.random.SeedSequence([self.seed % 2**64, self.number, *map(int, numbers)])
