"""The weights that a stage trains: which these are, their optimiser with its schedule, and their moving average."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..modeling_fmri import FmriPreTrainedModel
from ..objectives import GradientObjective, ParameterGroup, groups_by_decay, has_no_bias_in_its_name, is_matrix
from .finite import NotFiniteError
from .optimizers import make_optimizer, may_be_rounded
from .options import TrainingOptions


class TrainedWeights:
    """The weights that a stage trains; all others of the model are frozen as long as it lasts.

    Args:
        model: Is trained in place; on its device.
        objective: Says what is trained.
        options: How it is.
        accelerator: Scales gradients in half precision.
        further: Name ▶ parameter that is trained beside those of the model.
        among: Those of the model's that may be trained; None for all.

    Attributes:
        parameters: What is trained; empty where that is nothing.
        optimizer: As Accelerate has prepared it.
        average: diffusers' moving average; None without one.
    """

    def __init__(
        self,
        model: FmriPreTrainedModel,
        objective: GradientObjective[Any],
        options: TrainingOptions,
        accelerator: Any,
        further: Mapping[str, nn.Parameter] | None = None,
        among: Sequence[nn.Parameter] | None = None,
    ) -> None:
        self._options = options
        self._accelerator = accelerator
        self._frozen = freeze_others(model, objective, among)
        groups = [*parameter_groups(model, objective, options), *further_groups(further or {}, options)]
        # One that is there twice takes its step twice, as in PyTorch.
        self._listed = [parameter for group in groups for parameter in group["params"]]
        self.parameters = list(dict.fromkeys(self._listed))
        if not self.parameters:
            return
        if options.parameter_dtype == "bfloat16":
            _convert_matrices(self.parameters, torch.bfloat16)
        # The fused form is the fastest by far, but has rules of its own for scaled gradients, and updates all at once.
        is_once = len(self.parameters) == len(self._listed)
        optimizer = make_optimizer(groups, options, fused=accelerator.scaler is None and is_once)
        self._highest_rates = [group["lr"] for group in optimizer.param_groups]
        self._betas = [group.get("betas") for group in optimizer.param_groups]
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self.average = _moving_average(self.parameters, options)

    @property
    def learning_rate(self) -> float:
        """That of the step that was begun."""
        return self.optimizer.param_groups[0]["lr"]

    def begin_step(self, step: int, num_steps: int) -> None:
        """Sets what the schedule says of a step, from 0."""
        share = self._options.learning_rate_share(step, num_steps)
        beta1 = self._options.beta1(step, num_steps)
        for group, rate, usual in zip(self.optimizer.param_groups, self._highest_rates, self._betas, strict=True):
            group["lr"] = rate * share
            if usual is not None:
                group["betas"] = (usual[0] if beta1 is None else beta1, usual[1])

    def clip_gradients(self) -> float:
        """Clips gradients, if they are to be; gives their norm before that.

        Raises:
            NotFiniteError: The norm is not finite; the gradients are dropped.
        """
        self._accelerator.unscale_gradients()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # Scaled gradients overflow now and then; the scaler leaves out such a step and lowers its scale.
        if self._accelerator.scaler is None and not torch.isfinite(norm):
            self.drop_gradients()
            # Gradients are averages over all processes by now, so that all see the same.
            raise NotFiniteError(f"the norm of the gradient is {float(norm)}")
        if self._options.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self._options.max_grad_norm, norm)
        return float(norm)

    def end_step(self) -> None:
        """Moves the weights along their gradients, which are dropped then, and the average after them."""
        self.optimizer.step()
        self.drop_gradients()
        if self.average is not None:
            self.average.step(self.parameters)

    def drop_gradients(self) -> None:
        """Leaves the weights as they are."""
        self.optimizer.zero_grad()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the moving average into the model for a while; without one, nothing changes."""
        if self.average is None:
            yield
            return
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            self.average.restore(self.parameters)

    def keep_average(self) -> None:
        """Puts the moving average into the model for good; without one, nothing changes."""
        if self.average is not None:
            self.average.copy_to(self.parameters)

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """What a checkpoint holds besides the weights: file ▶ name ▶ tensor."""
        state = self.optimizer.optimizer.state_dict()["state"]
        tensors = {
            "optimizer": {f"{number}.{key}": value for number, each in state.items() for key, value in each.items()}
        }
        if self.average is not None:
            tensors["ema"] = {str(number): value for number, value in enumerate(self.average.shadow_params)}
        return tensors

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides tensors."""
        extra: dict[str, Any] = {}
        if self.average is not None:
            extra["ema_step"] = self.average.optimization_step
        if self._accelerator.scaler is not None:
            extra["scaler"] = self._accelerator.scaler.state_dict()
        return extra

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]], extra: Mapping[str, Any]) -> None:
        """Goes on from [`TrainedWeights.tensors`] and [`TrainedWeights.extra_state`].

        The weights themselves are restored elsewhere.
        """
        optimizer = self.optimizer.optimizer
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors["optimizer"].items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        # PyTorch has brought all of it to the dtype of the weights, which may be less precise than the state was.
        for place, values in state.items():
            loaded = optimizer.state[self._listed[place]]
            loaded.update({key: value.to(loaded[key].device) for key, value in values.items()})
        if self.average is not None:
            for place, shadow in enumerate(self.average.shadow_params):
                shadow.copy_(tensors["ema"][str(place)])
            self.average.optimization_step = extra["ema_step"]
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(extra["scaler"])

    def close(self) -> None:
        """Lets go of what was frozen; weights are in float32 again."""
        _convert_matrices(self.parameters, torch.float32)
        for parameter in self._frozen:
            parameter.requires_grad_(True)


def freeze_others(
    model: FmriPreTrainedModel, objective: GradientObjective[Any], among: Sequence[nn.Parameter] | None = None
) -> list[nn.Parameter]:
    """Takes out of training what the objective does not train, or is not among what may be; gives what that was."""
    trained = objective.trainable(model)
    if among is not None:
        allowed = {id(parameter) for parameter in among}
        trained = [parameter for parameter in trained if id(parameter) in allowed]
    return freeze_all_but(trained, model.parameters())


def freeze_all_but(trained: Iterable[nn.Parameter], parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Takes parameters out of training that are not among the trained ones; gives what was taken out."""
    chosen = {id(parameter) for parameter in trained}
    frozen = [parameter for parameter in parameters if parameter.requires_grad and id(parameter) not in chosen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def parameter_groups(
    model: FmriPreTrainedModel, objective: GradientObjective[Any], options: TrainingOptions
) -> list[ParameterGroup]:
    """The optimiser's groups of the parameters that require a gradient, by the rule that the options name."""
    if options.weight_decay_groups == "method":
        groups = objective.parameter_groups(model, options.weight_decay)
    else:
        groups = _groups_by_name(model.named_parameters(), options)
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    return [group for group in groups if group["params"]]


def further_groups(further: Mapping[str, nn.Parameter], options: TrainingOptions) -> list[ParameterGroup]:
    """The optimiser's groups of parameters of no brain model, of which no objective has a rule."""
    return [group for group in _groups_by_name(further.items(), options) if group["params"]]


def _groups_by_name(
    named_parameters: Iterable[tuple[str, nn.Parameter]], options: TrainingOptions
) -> list[ParameterGroup]:
    decays = has_no_bias_in_its_name if options.weight_decay_groups == "all_but_bias" else is_matrix
    return groups_by_decay(named_parameters, options.weight_decay, decays)


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
