"""How a stage is trained by gradient: its options, and the schedules of the learning rate."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import FmriModelsError
from ..names import one_line

ScheduleName = Literal["one_cycle", "cosine", "cosine_from_zero", "constant"]
Precision = Literal["no", "bf16", "fp16"]
OptimizerName = Literal["adamw", "adafactor"]
ParameterDtype = Literal["float32", "bfloat16"]
DecayGroups = Literal["method", "matrices", "all_but_bias"]
Accumulation = Literal["separate", "cached"]
Sampling = Literal["proportional", "balanced"]
Negatives = Literal["global", "process"]
MonitorMode = Literal["min", "max"]

# No training takes longer, and no machine holds a larger batch.
_MOST = 10**9

# The one-cycle policy (Smith & Topin, 2018) with PyTorch's start and moments.
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_BETA1 = (0.95, 0.85)


@dataclass
class TrainingOptions:
    """How a stage is trained by gradient.

    Args:
        steps: Updates of the weights; give this or `epochs`.
        epochs: Passes over the examples that the stage learns from.
        batch_size: Examples of a batch, over all processes together.
        sampling: Which rows of several subjects a batch has: `"proportional"` shuffles those of all, so that a subject
            with more trials has more rows; `"balanced"` takes as many of each subject, and an epoch is over when the
            subject with the most trials was seen once.
        shared_stimuli: With balanced sampling, share of each subject's rows of a batch that show the same stimuli as
            those of all other subjects, as far as there are stimuli that all have seen.
        source_share: Share of each batch's rows that are of the recipe's `sources`, where it has any.
        negatives: What a loss that compares examples compares in several processes: those of all (`"global"`, with
            gradient), or those of each process alone (`"process"`, as codes that gather nothing do). Which examples
            MixCo mixes follows it.
        learning_rate: The highest one of the schedule.
        optimizer: `"adamw"`, or `"adafactor"`, which keeps next to nothing of each weight; see [`Adafactor`]. A
            learning rate that suits the one is a good one to begin with for the other.
        parameter_dtype: What matrices, their gradients and the optimiser's moments are kept in while the stage is
            trained. `"bfloat16"` takes half of the memory and rounds at random; it needs `mixed_precision="bf16"`.
        weight_decay: Share of a weight that a step takes off, times the learning rate.
        weight_decay_groups: What is decayed: `"matrices"`, `"all_but_bias"` (all whose name has no "bias", the gains of
            norms too, as MindEye was trained), or `"method"`, the objective's own rule, or else matrices.
        schedule: `"one_cycle"` (up and down by cosines, AdamW's first moment the other way round), `"cosine"` (linear
            warm-up, then down to 0 by a cosine), `"cosine_from_zero"` (the same with a rate of 0 in the first step, as
            masked autoencoders are trained), or `"constant"` (linear warm-up, then level).
        warmup: Share of the steps in which the learning rate rises.
        final_div_factor: What the first learning rate of `"one_cycle"` is divided by at the end, by PyTorch's name:
            1000 as MindEye was trained, 100 as MindBridge was.
        gradient_accumulation_steps: Micro-batches of `batch_size` whose gradients make one step.
        gradient_accumulation: What a loss that compares examples sees of them. `"separate"` compares those of each
            micro-batch and averages; `"cached"` compares those of all, with the gradient of one large batch and the
            activations of a small one, at the price of reading each micro-batch but one twice (Gao et al., 2021).
        max_grad_norm: Longer gradients are scaled down to this norm; None leaves them.
        ema_decay: Decay of the moving average of the weights, which is what is validated and saved; None keeps none.
        mixed_precision: `"no"`, `"bf16"`, or `"fp16"` (needs a GPU).
        checkpoint_every: Steps between checkpoints; None takes a tenth of the stage.
        validate_every: Steps between validations; None takes a tenth of the stage. The last step is always validated.
        monitor: The validation metric that chooses the best weights.
        monitor_mode: Whether less (`"min"`) or more (`"max"`) of it is better.
        keep_best: End with the weights of the best validation, not with the last ones.
        log_every: Steps between values given to the trackers.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 32
    sampling: Sampling = "proportional"
    shared_stimuli: float = 0.0
    source_share: float = 0.5
    negatives: Negatives = "global"
    learning_rate: float = 3e-4
    optimizer: OptimizerName = "adamw"
    parameter_dtype: ParameterDtype = "float32"
    weight_decay: float = 0.01
    weight_decay_groups: DecayGroups = "method"
    schedule: ScheduleName = "one_cycle"
    warmup: float = 0.05
    final_div_factor: float = 1000.0
    gradient_accumulation_steps: int = 1
    gradient_accumulation: Accumulation = "separate"
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    mixed_precision: Precision = "no"
    checkpoint_every: int | None = None
    validate_every: int | None = None
    monitor: str = "loss"
    monitor_mode: MonitorMode = "min"
    keep_best: bool = True
    log_every: int = 10

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            found = "neither steps nor epochs" if self.steps is None else "both steps and epochs"
            raise FmriModelsError(f"training has {found}; give one of them and leave the other out (or null).")
        for name in ("steps", "epochs", "checkpoint_every", "validate_every"):
            self._check_count(name, may_be_none=True)
        for name in ("batch_size", "gradient_accumulation_steps", "log_every"):
            self._check_count(name)
        self._check_number("learning_rate", above=0)
        self._check_number("weight_decay", at_least=0)
        self._check_number("warmup", at_least=0, below=1)
        self._check_number("final_div_factor", above=0)
        if self.max_grad_norm is not None:
            self._check_number("max_grad_norm", above=0)
        if self.ema_decay is not None:
            self._check_number("ema_decay", above=0, below=1)
        self._check_number("source_share", above=0, below=1)
        self._check_number("shared_stimuli", at_least=0)
        if self.shared_stimuli > 1:
            raise FmriModelsError(f"training.shared_stimuli is {self.shared_stimuli:g}; expected a share from 0 to 1.")
        _check_choice("sampling", self.sampling, get_args(Sampling))
        _check_choice("negatives", self.negatives, get_args(Negatives))
        if self.shared_stimuli and self.sampling != "balanced":
            raise FmriModelsError(
                f"training.shared_stimuli is {self.shared_stimuli:g} and sampling is {self.sampling!r}; rows are put "
                "together with sampling: balanced."
            )
        _check_choice("schedule", self.schedule, get_args(ScheduleName))
        _check_choice("mixed_precision", self.mixed_precision, get_args(Precision))
        _check_choice("optimizer", self.optimizer, get_args(OptimizerName))
        _check_choice("parameter_dtype", self.parameter_dtype, get_args(ParameterDtype))
        _check_choice("weight_decay_groups", self.weight_decay_groups, get_args(DecayGroups))
        _check_choice("gradient_accumulation", self.gradient_accumulation, get_args(Accumulation))
        if self.parameter_dtype == "bfloat16" and self.mixed_precision != "bf16":
            raise FmriModelsError(
                f"training.parameter_dtype is 'bfloat16' and mixed_precision is {self.mixed_precision!r}; weights in "
                "bfloat16 need mixed_precision: bf16."
            )
        _check_choice("monitor_mode", self.monitor_mode, get_args(MonitorMode))
        if not isinstance(self.monitor, str) or not self.monitor:
            raise FmriModelsError(f"training.monitor is {self.monitor!r}; expected the name of a validation metric.")
        if not isinstance(self.keep_best, bool):
            raise FmriModelsError(f"training.keep_best is {self.keep_best!r}; expected true or false.")

    def num_steps(self, batches_an_epoch: int) -> int:
        """Updates of the weights, where an epoch has so many batches."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return math.ceil(self.epochs * batches_an_epoch / self.gradient_accumulation_steps)

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value of the monitored metric beats the best one so far."""
        if best is None:
            return True
        return value < best if self.monitor_mode == "min" else value > best

    def learning_rate_share(self, step: int, num_steps: int) -> float:
        """Share of `learning_rate` in step `step` (from 0) of `num_steps`."""
        if self.schedule == "one_cycle":
            position, rises = _one_cycle_position(step, num_steps, self.warmup)
            end = _ONE_CYCLE_START / self.final_div_factor
            return _by_cosine(_ONE_CYCLE_START, 1.0, position) if rises else _by_cosine(1.0, end, position)
        warmup = self.warmup * num_steps
        if step < warmup:
            return step / warmup if self.schedule == "cosine_from_zero" else (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return 1.0
        return _by_cosine(1.0, 0.0, (step - warmup) / max(num_steps - warmup, 1))

    def beta1(self, step: int, num_steps: int) -> float | None:
        """AdamW's decay of the first moment in a step; None where the schedule leaves it."""
        if self.schedule != "one_cycle":
            return None
        high, low = _ONE_CYCLE_BETA1
        position, rises = _one_cycle_position(step, num_steps, self.warmup)
        return _by_cosine(high, low, position) if rises else _by_cosine(low, high, position)

    def _check_count(self, name: str, may_be_none: bool = False) -> None:
        value = getattr(self, name)
        if value is None and may_be_none:
            return
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
            raise FmriModelsError(
                f"training.{name} is {one_line(repr(value), 80)}; expected a whole number from 1 to {_MOST}."
            )

    def _check_number(
        self, name: str, above: float | None = None, at_least: float | None = None, below: float | None = None
    ) -> None:
        value = _number(getattr(self, name))
        too_low = value is not None and (
            (above is not None and value <= above) or (at_least is not None and value < at_least)
        )
        if value is None or too_low or (below is not None and value >= below):
            low = f"above {above:g}" if above is not None else f"from {at_least:g}"
            high = f" and below {below:g}" if below is not None else ""
            found = one_line(repr(getattr(self, name)), 80) if value is None else f"{value:g}"
            raise FmriModelsError(f"training.{name} is {found}; expected a number {low}{high}.")
        setattr(self, name, value)


def _number(value: Any) -> float | None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        found = one_line(repr(value), 80)
        raise FmriModelsError(f"training.{name} is {found}; expected {', '.join(map(repr, choices))}.")


def _one_cycle_position(step: int, num_steps: int, warmup: float) -> tuple[float, bool]:
    """How far into the rise or the fall a step is, from 0 to 1, and whether it is the rise."""
    top, last = warmup * num_steps - 1, num_steps - 1
    if step <= top:
        return (step / top if top > 0 else 1.0), True
    return (step - top) / (last - top), False


def _by_cosine(start: float, end: float, position: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * position)) / 2
