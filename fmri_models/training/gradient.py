"""One stage of training by gradient: what happens in a step and in a validation. The loop around it is `loop.py`."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from ..data.loading import SeededBatches, TrialDataset, ordered_batches, training_batches
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..names import did_you_mean
from .cached_gradient import Gather, JoinedBatches, only_reading
from .optimizers import make_optimizer, may_be_rounded
from .options import TrainingOptions
from .precision import computed_precision
from .processes import any_process, average_gradients, copy_from_main, from_all, gather_rows, uses_cpu_processes


class _Draw(IntEnum):
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


class NotFiniteError(FmriModelsError):
    """A loss, a gradient or a batch has NaN or infinite values; the message says which."""


class TargetsOfBatch(Protocol):
    """Makes targets of a batch when it is learned from, such as embeddings of augmented pictures."""

    def __call__(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """The batch, on its device, with these targets.

        Args:
            batch: What the data gives.
            generator: Source of all draws; on the CPU.
        """


class _Part(NamedTuple):
    """One of the batches of a step, and from which state of its generator the objective draws."""

    number: int
    batch: dict[str, Any]
    draws: torch.Tensor


class GradientStage:
    """Model, optimiser and data of a stage.

    Everything random in a step is a function of seed, stage, step and process: the order of the rows, what the
    objective draws from its generator, and dropout, for which PyTorch is seeded anew in each step. Going on from a
    checkpoint therefore needs no state of any random generator.

    Args:
        model: Is moved to the device and trained in place.
        objective: Has `losses` and `validation_metrics`; `prepare`, if it has one, is called with model and rows before
            the first step.
        options: How to train.
        data: Rows to learn from.
        held_out: Rows to validate on; None does not validate.
        identity: Name, number and seed.
        trackers: Accelerate's names of trackers.
        log_folder: Where trackers write that need a folder.
        online_targets: Makes targets of each batch that is learned from; None takes those of the data.

    Attributes:
        num_steps: Updates in the whole stage.

    Raises:
        FmriModelsError: The options do not fit the machine or the data.
    """

    def __init__(
        self,
        model: FmriPreTrainedModel,
        objective: Any,
        options: TrainingOptions,
        data: TrialDataset,
        held_out: TrialDataset | None,
        identity: StageIdentity,
        trackers: list[str] | None = None,
        log_folder: Path | None = None,
        online_targets: TargetsOfBatch | None = None,
    ) -> None:
        self.accelerator = _accelerator(options, trackers or [], log_folder)
        self.model = model.to(self.accelerator.device)
        self.objective = objective
        self.options = options
        self.data = data
        self.held_out = held_out
        self.identity = identity
        self.online_targets = online_targets
        self.order = self._order()
        self.num_steps = options.num_steps(self.order.batches_an_epoch)
        if hasattr(objective, "prepare"):
            objective.prepare(self.model, data)
        copy_from_main(model)
        self._frozen = freeze_others(model, objective)
        groups = parameter_groups(model, objective, options)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        if not self.parameters:
            raise FmriModelsError(f"The stage {identity.name!r} trains no parameter; check its objective.")
        if options.parameter_dtype == "bfloat16":
            _convert_matrices(self.parameters, torch.bfloat16)
        # The fused form is the fastest by far, but has rules of its own for scaled gradients.
        optimizer = make_optimizer(groups, options, fused=self.accelerator.scaler is None)
        self._highest_rates = [group["lr"] for group in optimizer.param_groups]
        self._betas = [group.get("betas") for group in optimizer.param_groups]
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.ema = _moving_average(self.parameters, options)

    def batches(self, step: int) -> Iterator[dict[str, Any]]:
        """Batches from the first one of a step on, without end."""
        order = self._order(step * self.options.gradient_accumulation_steps)
        return training_batches(self.data, order, pin_memory=self.accelerator.device.type == "cuda")

    def update(self, step: int, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
        """One step: losses and gradients of its batches, and the optimiser's update.

        Args:
            step: Number of the step, from 0.
            batches: Gives the step's batches.

        Returns:
            The step's losses, its learning rate, and the norm of the gradient.

        Raises:
            NotFiniteError: A loss, a batch or the gradient is not finite; weights are as before the step.
        """
        self._set_schedule(step)
        self.model.train()
        accumulate = self._join if self.options.gradient_accumulation == "cached" else self._separate
        losses = _means(accumulate(step, batches))
        average_gradients(self.parameters)
        norm = self._clip_gradients()
        # An optimiser that rounds at random has to do so alike in all processes.
        self._seed(_Draw.ROUNDING, step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.parameters)
        return {**losses, "learning_rate": self.optimizer.param_groups[0]["lr"], "gradient_norm": norm}

    @torch.no_grad()
    def validate(self, max_batches: int | None = None) -> dict[str, float]:
        """Metrics on the rows held out: batches weighted by rows, the same random numbers each time.

        Args:
            max_batches: Stop after so many batches of this process.
        """
        assert self.held_out is not None
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        sums: dict[str, float] = {}
        rows = 0
        with self._weights_to_judge():
            for done, batch in enumerate(ordered_batches(self.held_out, self.options.batch_size, rank, world)):
                if done == max_batches:
                    break
                generator = self._seed(_Draw.VALIDATION, batch.pop("number"))
                with self.accelerator.autocast():
                    metrics = self.objective.validation_metrics(self.model, self._to_device(batch), generator)
                rows += len(batch["fmri"])
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(batch["fmri"])
        return _joined_means(from_all((sums, rows)))

    def monitored(self, metrics: Mapping[str, float]) -> float:
        """The metric that chooses the best weights.

        Raises:
            FmriModelsError: The objective does not measure it.
        """
        if self.options.monitor not in metrics:
            raise FmriModelsError(
                f"The stage {self.identity.name!r} monitors {self.options.monitor!r}, which its objective does not "
                f"measure; it measures {', '.join(sorted(metrics))}."
            )
        return metrics[self.options.monitor]

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the moving average into the model for a while; without one, nothing changes."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self.ema.restore(self.parameters)

    def keep_average(self) -> None:
        """Puts the moving average into the model for good; without one, nothing changes."""
        if self.ema is not None:
            self.ema.copy_to(self.parameters)

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """What a checkpoint holds besides the weights: file ▶ name ▶ tensor."""
        state = self.optimizer.optimizer.state_dict()["state"]
        tensors = {
            "optimizer": {f"{number}.{key}": value for number, each in state.items() for key, value in each.items()}
        }
        if self.ema is not None:
            tensors["ema"] = {str(number): value for number, value in enumerate(self.ema.shadow_params)}
        return tensors

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides tensors."""
        extra: dict[str, Any] = {}
        if self.ema is not None:
            extra["ema_step"] = self.ema.optimization_step
        if self.accelerator.scaler is not None:
            extra["scaler"] = self.accelerator.scaler.state_dict()
        return extra

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]], extra: Mapping[str, Any]) -> None:
        """Goes on from [`GradientStage.tensors`] and [`GradientStage.extra_state`]; weights are restored elsewhere."""
        optimizer = self.optimizer.optimizer
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors["optimizer"].items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        # PyTorch has brought all of it to the dtype of the weights, which may be less precise than the state was.
        for place, values in state.items():
            loaded = optimizer.state[self.parameters[place]]
            loaded.update({key: value.to(loaded[key].device) for key, value in values.items()})
        if self.ema is not None:
            for place, shadow in enumerate(self.ema.shadow_params):
                shadow.copy_(tensors["ema"][str(place)])
            self.ema.optimization_step = extra["ema_step"]
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(extra["scaler"])

    def close(self) -> None:
        """Lets go of the device and of what was frozen; the model goes back to the CPU and to float32."""
        _convert_matrices(self.parameters, torch.float32)
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self.accelerator.free_memory()
        self.model.to("cpu").eval()

    def _order(self, first: int = 0) -> SeededBatches:
        seed = int(self._sequence(_Draw.ORDER).generate_state(1)[0])
        accelerator = self.accelerator
        return SeededBatches(
            len(self.data), self.options.batch_size, seed, first, accelerator.process_index, accelerator.num_processes
        )

    def _sequence(self, *path: int) -> np.random.SeedSequence:
        # SeedSequence takes no negative numbers, PyTorch and recipes do.
        return np.random.SeedSequence([self.identity.seed % 2**64, self.identity.number, *map(int, path)])

    def _seed(self, *path: int) -> torch.Generator:
        """Seeds PyTorch, and gives the objective a generator of its own."""
        own, general = self._sequence(*path).generate_state(2, np.uint64)
        torch.manual_seed(int(general))
        return torch.Generator().manual_seed(int(own))

    def _set_schedule(self, step: int) -> None:
        share = self.options.learning_rate_share(step, self.num_steps)
        beta1 = self.options.beta1(step, self.num_steps)
        for group, rate, usual in zip(self.optimizer.param_groups, self._highest_rates, self._betas, strict=True):
            group["lr"] = rate * share
            if usual is not None:
                group["betas"] = (usual[0] if beta1 is None else beta1, usual[1])

    def _separate(self, step: int, batches: Iterator[dict[str, Any]]) -> list[dict[str, float]]:
        """Gradients of the mean loss of a step's batches, each for itself; gives the losses of each."""
        numbers = range(self.options.gradient_accumulation_steps)
        return [self._learn(step, self._part(step, number, batches), gather_rows) for number in numbers]

    def _join(self, step: int, batches: Iterator[dict[str, Any]]) -> list[dict[str, float]]:
        """Gradients of the loss of all of a step's batches together; gives the losses of each."""
        parts = [self._part(step, number, batches) for number in range(self.options.gradient_accumulation_steps)]
        joined = JoinedBatches(len(parts), self.accelerator.num_processes)
        with only_reading(self.model):
            for part in parts[:-1]:
                self._losses(step, part, joined.reading(part.number))
        # The last one needs no reading: the rows of all others are known by then.
        return [self._learn(step, part, joined.learning(part.number)) for part in (parts[-1], *parts[:-1])]

    def _part(self, step: int, number: int, batches: Iterator[dict[str, Any]]) -> _Part:
        batch = self._to_device(next(batches))
        self._stop_all(_not_finite_in(batch))
        generator = self._seed(_Draw.STEP, step, number, self.accelerator.process_index)
        if self.online_targets is not None:
            batch = self.online_targets(batch, generator)
        return _Part(number, {**batch, "step": step}, generator.get_state())

    def _losses(self, step: int, part: _Part, gather: Gather) -> dict[str, torch.Tensor]:
        """The objective's losses, the same each time that they are asked for."""
        generator = self._seed(_Draw.STEP, step, part.number, self.accelerator.process_index)
        generator.set_state(part.draws)
        with self.accelerator.autocast():
            return self.objective.losses(self.model, part.batch, step / self.num_steps, gather, generator)

    def _learn(self, step: int, part: _Part, gather: Gather) -> dict[str, float]:
        """Adds the gradients of a batch's losses; gives the losses."""
        losses = self._losses(step, part, gather)
        values = self._values(losses)
        self._stop_all(_not_finite_among(values))
        self.accelerator.backward(losses["loss"].float() / self.options.gradient_accumulation_steps)
        return values

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = self.accelerator.device
        return {
            key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }

    def _values(self, losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """The losses as numbers, with one copy from the device for all."""
        if "loss" not in losses:
            raise FmriModelsError(
                f"{type(self.objective).__name__}.losses gives no 'loss', which is what is minimised."
            )
        numbers = torch.stack([value.detach().float() for value in losses.values()]).tolist()
        return dict(zip(losses, numbers, strict=True))

    def _clip_gradients(self) -> float:
        """The gradient's norm, before it is clipped."""
        self.accelerator.unscale_gradients()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # Scaled gradients overflow now and then; the scaler leaves out such a step and lowers its scale.
        if self.accelerator.scaler is None and not torch.isfinite(norm):
            self.optimizer.zero_grad()
            # Gradients are averages over all processes by now, so that all see the same.
            raise NotFiniteError(f"the norm of the gradient is {float(norm)}")
        if self.options.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.options.max_grad_norm, norm)
        return float(norm)

    def _stop_all(self, reason: str | None) -> None:
        """Raises in every process if one has a reason."""
        if any_process([reason is not None], self.accelerator.device)[0]:
            self.optimizer.zero_grad()
            raise NotFiniteError(next(each for each in from_all(reason) if each))

    @contextmanager
    def _weights_to_judge(self) -> Iterator[None]:
        self.model.eval()
        with self.averaged_weights():
            yield
        self.model.train()


def check_precision(options: TrainingOptions) -> None:
    """Refuses a precision that this machine lacks.

    Raises:
        FmriModelsError: It is half precision, and there is no GPU.
    """
    if options.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise FmriModelsError("training.mixed_precision is 'fp16', which needs a GPU; choose 'bf16' or 'no'.")


def check_trackers(names: list[str]) -> None:
    """Refuses trackers that Accelerate does not know or that are not installed.

    Raises:
        FmriModelsError: Names the first such tracker.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    available = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise FmriModelsError(
                f"There is no tracker {name!r}; Accelerate knows {', '.join(known)}.{did_you_mean(name, known)}"
            )
        if name not in available:
            raise FmriModelsError(f"The tracker {name!r} is not installed; run `pip install {name}`.")


def _accelerator(options: TrainingOptions, trackers: list[str], log_folder: Path | None) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate keeps the precision of the first Accelerator in a process, but each stage has its own.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=computed_precision(options, uses_cpu_processes() or not torch.cuda.is_available()),
        cpu=uses_cpu_processes(),
        log_with=trackers or None,
        project_dir=None if log_folder is None else str(log_folder),
    )


def freeze_others(model: nn.Module, objective: Any) -> list[nn.Parameter]:
    """Takes out of training what the objective does not name.

    Args:
        model: The whole model.
        objective: Names what is trained in `trainable`; without that, all is.

    Returns:
        What was taken out.
    """
    if not hasattr(objective, "trainable"):
        return []
    chosen = {id(parameter) for parameter in objective.trainable(model)}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def parameter_groups(model: nn.Module, objective: Any, options: TrainingOptions) -> list[dict[str, Any]]:
    """The optimiser's groups of the parameters that require a gradient: those with weight decay and those without.

    Args:
        model: The whole model.
        objective: May have a rule of its own.
        options: Name the rule.
    """
    if options.weight_decay_groups == "method" and hasattr(objective, "parameter_groups"):
        groups = objective.parameter_groups(model, options.weight_decay)
    else:
        by_name = options.weight_decay_groups == "all_but_bias"
        named = [(("bias" not in name) if by_name else p.ndim >= 2, p) for name, p in model.named_parameters()]
        groups = [
            {"params": [p for decayed, p in named if decayed], "weight_decay": options.weight_decay},
            {"params": [p for decayed, p in named if not decayed], "weight_decay": 0.0},
        ]
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    return [group for group in groups if group["params"]]


def _moving_average(parameters: list[nn.Parameter], options: TrainingOptions) -> Any:
    if options.ema_decay is None:
        return None
    from diffusers.training_utils import EMAModel

    average = EMAModel(parameters, decay=options.ema_decay)
    # What a step adds to the average would be lost in half precision.
    average.shadow_params = [shadow.float() for shadow in average.shadow_params]
    return average


def _convert_matrices(parameters: list[nn.Parameter], dtype: torch.dtype) -> None:
    for parameter in parameters:
        if may_be_rounded(parameter):
            parameter.data = parameter.data.to(dtype)
            parameter.grad = None


def _not_finite_in(batch: Mapping[str, Any]) -> str | None:
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and not _is_finite(value):
            return f"{name} of the batch has values that are not finite"
    return None


def _is_finite(values: torch.Tensor) -> bool:
    # A sum is not finite where a value isn't, and takes a part of the time; that of large finite values may overflow.
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def _not_finite_among(losses: Mapping[str, float]) -> str | None:
    return next((f"the loss {name!r} is {value}" for name, value in losses.items() if not math.isfinite(value)), None)


def _means(parts: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) / len(parts) for name in names}


def _joined_means(parts: list[tuple[dict[str, float], int]]) -> dict[str, float]:
    """Means over all rows from each process' sums and rows."""
    sums: dict[str, float] = {}
    for part, _ in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    rows = sum(count for _, count in parts)
    return {name: value / rows for name, value in sums.items()}
