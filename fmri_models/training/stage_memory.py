"""What a stage will need in memory and on disk, counted on a model without weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..modeling_fmri import FmriPreTrainedModel
from ..objectives import GradientObjective
from .optimizers import num_bytes, weight_bytes
from .options import TrainingOptions
from .trained_weights import freeze_others, parameter_groups

# Activations are the larger part of what a batch takes; a quarter of the examples is a quarter of them.
_MICRO_BATCHES = 4


@dataclass(frozen=True)
class StageMemory:
    """Bytes that a stage takes besides activations.

    Args:
        frozen: Parameters that are read and not trained.
        trained: Parameters that are trained; may be on the meta device.
        options: How they are trained.
        read: Bytes of weights of the image generator that are on the device, too, and in no checkpoint.
    """

    frozen: int
    trained: list[nn.Parameter]
    options: TrainingOptions
    read: int = 0

    @classmethod
    def of(
        cls,
        model: FmriPreTrainedModel,
        objective: GradientObjective[Any],
        options: TrainingOptions,
        among: Sequence[nn.Parameter] | None = None,
        further: Sequence[nn.Parameter] = (),
        read: int = 0,
    ) -> "StageMemory":
        """Counts on a model, which is left as it was.

        Args:
            model: May be on the meta device.
            objective: Says what is trained of it.
            options: How.
            among: What may be trained of it; None for all.
            further: Parameters of the image generator that are trained beside it.
            read: Bytes of its other weights.
        """
        others = freeze_others(model, objective, among)
        groups = parameter_groups(model, objective, options)
        for parameter in others:
            parameter.requires_grad_(True)
        # One that is listed twice is there once.
        trained = list(dict.fromkeys(parameter for group in groups for parameter in group["params"]))
        total = sum(parameter.numel() for parameter in model.parameters())
        frozen = total - sum(parameter.numel() for parameter in trained)
        return cls(frozen, [*trained, *further], options, read)

    @property
    def num_trained(self) -> int:
        """Parameters that are trained."""
        return sum(parameter.numel() for parameter in self.trained)

    @property
    def total(self) -> int:
        """Weights, gradients, the optimiser's moments, and the moving average.

        Where gradients are summed over micro-batches, autograd holds that of one parameter beside the sum.
        """
        held = 4 * self.frozen + sum(num_bytes(p, self.options) for p in self.trained) + self._average
        return held + self._largest_addend + self.read

    @property
    def weights(self) -> int:
        """Weights as they are saved with a checkpoint."""
        return 4 * self.frozen + self._trained_weights

    @property
    def checkpoint(self) -> int:
        """A checkpoint: all but the gradients, which take as much as their weights."""
        return self.total - self._trained_weights - self._largest_addend - self.read

    @property
    def keeps(self) -> str:
        """What `total` is for, in words."""
        moments = {"adamw": "AdamW's two moments", "adafactor": "Adafactor's means of rows and columns"}
        kept = ["weights", "gradients", moments[self.options.optimizer]]
        kept += ["a moving average"] if self.options.ema_decay is not None else []
        kept += ["the largest gradient once more"] if self._largest_addend else []
        dtype = " in bfloat16" if self.options.parameter_dtype == "bfloat16" else ""
        return f"{', '.join(kept[:-1])} and {kept[-1]}{dtype}"

    def smaller(self) -> Iterator[tuple[str, "StageMemory"]]:
        """(options that take less, what they take), those that change least first."""
        factored: dict[str, Any] = {"optimizer": "adafactor"}
        half: dict[str, Any] = {"parameter_dtype": "bfloat16", "mixed_precision": "bf16"}
        told = set()
        for changes in (factored, half, {**factored, **half}):
            changed = {name: value for name, value in changes.items() if getattr(self.options, name) != value}
            other = replace(self, options=replace(self.options, **changes))
            text = " ".join(f"{name}={value}" for name, value in changed.items())
            if other.total < self.total and text not in told:
                yield text, other
            told.add(text)

    def fewer_activations(self) -> str | None:
        """Options that compare as many examples with fewer activations; None where the batch does not divide."""
        if self.options.batch_size % _MICRO_BATCHES:
            return None
        steps = self.options.gradient_accumulation_steps * _MICRO_BATCHES
        examples = self.options.batch_size // _MICRO_BATCHES
        return f"batch_size={examples} gradient_accumulation_steps={steps} gradient_accumulation=cached"

    @property
    def _average(self) -> int:
        return 4 * self.num_trained if self.options.ema_decay is not None else 0

    @property
    def _largest_addend(self) -> int:
        if self.options.gradient_accumulation_steps == 1:
            return 0
        return max((weight_bytes(parameter, self.options) for parameter in self.trained), default=0)

    @property
    def _trained_weights(self) -> int:
        return sum(weight_bytes(parameter, self.options) for parameter in self.trained)


def available_memory() -> int:
    """Bytes that are free where training happens: on the GPU, or in memory without one."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    from accelerate.utils import get_max_memory

    return int(get_max_memory()["cpu"])


def gibibytes(size: float) -> str:
    """A number of bytes in words."""
    return f"{size / 2**30:.2f} GiB"
