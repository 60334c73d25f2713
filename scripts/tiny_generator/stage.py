"""One network to be trained: how it is built, what it loses, how it is measured."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import nn

from .pictures import Data
from .settings import Settings


class Stage(ABC):
    """One network and its loss. Everything random in a step is a function of the seed and the step alone."""

    name: str
    ema_decay: float | None = None
    validate_every: int = 500

    def __init__(self, settings: Settings, data: Data) -> None:
        self.settings = settings
        self.data = data

    @property
    @abstractmethod
    def own(self) -> Any:
        """The settings of this stage."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with fresh weights."""

    @abstractmethod
    def losses(self, model: nn.Module, positions: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        """Named scalars for a batch of training pictures; `loss` is the one to minimize."""

    @abstractmethod
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on the validation pictures."""

    def rate(self, step: int) -> float:
        """The share of the highest learning rate at a step."""
        return one_cycle(step / self.own.steps)

    def positions(self, step: int) -> np.ndarray:
        """The batch of a step: consecutive pieces of a permutation that is new in each epoch."""
        per_epoch = max(1, len(self.data.train) // self.own.batch_size)
        epoch, number = divmod(step, per_epoch)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.data.train))
        return np.sort(order[number * self.own.batch_size : (number + 1) * self.own.batch_size])


def one_cycle(progress: float, warmup: float = 0.08) -> float:
    """The share of the highest learning rate: a cosine up from 4 % and a longer one down to nothing."""
    if progress < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warmup)) / 2
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2
