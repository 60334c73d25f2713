"""What a method gives the trainer, and what it gets: objectives hold what depends on training and not on the network.

The objective of a method is a dataclass whose fields are the `objective:` of a recipe's stage. It derives from
[`GradientObjective`], from [`ClosedFormObjective`], or from both, if a recipe may have stages of both.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import new_class
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np
import torch
from torch import nn

from .batch import Batch as Batch
from .closed_form_trials import ClosedFormTrials, Selection
from .deprecation import Deprecation
from .errors import FmriModelsError
from .modeling_fmri import FmriPreTrainedModel
from .option_types import check_fields

_WITHOUT_BASE = Deprecation("Objectives that derive from no base class; please derive them from one", since="0.1")

# The method's model.
Model = TypeVar("Model", bound=FmriPreTrainedModel)

# --8<-- [start:contract]
# Joins a tensor (B, …) of all processes, and with `gradient_accumulation: cached` of all batches of a step, along the
# first dimension, with gradient. What a loss compares within a batch goes through it.
Gather = Callable[[torch.Tensor], torch.Tensor]

# What a JSON file can hold.
PlainValues: TypeAlias = "str | float | bool | Sequence[PlainValues] | Mapping[str, PlainValues] | None"


class ParameterGroup(TypedDict):
    """A group of the optimiser."""

    params: list[nn.Parameter]
    weight_decay: float


class Examples(Protocol):
    """What a stage learns from, as far as an objective may look at all of it before the first step."""

    def distinct_targets(self, name: str) -> np.ndarray | None:
        """(pictures, values) targets of each picture once; None where they are made anew in each step."""


class Objective:
    """Base of both kinds of objectives.

    Fields of a dataclass are checked by their types when it is made, also by ranges in annotations
    (`fmri_models.option_types`).
    """

    def __post_init__(self) -> None:
        check_fields(vars(self), type(self), "objective.", "correct it")


class ClosedFormObjective(Objective, ABC, Generic[Model]):
    """An objective that sets the weights at once, in stages without `training:`."""

    @abstractmethod
    def fit(
        self,
        model: Model,
        trials: Mapping[str, ClosedFormTrials],
        validation: Mapping[str, ClosedFormTrials] | None = None,
    ) -> PlainValues:
        """Sets the model's weights.

        Args:
            model: The model.
            trials: Subject ▶ what is learned from.
            validation: Subject ▶ what choices are made on; None where the stage has none.

        Returns:
            What `training.json` keeps of it.
        """

    def settled(self, num_stimuli: int, num_validation: int, repeats_stimuli: bool) -> Selection:
        """What an option `selection: auto` comes to, if the objective has one. Validation trials on which nothing is
        chosen are learned from.

        Args:
            num_stimuli: Training stimuli of the subject that has the fewest.
            num_validation: Validation trials of the subject that has the fewest.
            repeats_stimuli: Whether the design tests stimuli that are learned from.
        """
        return "validation" if num_validation and not repeats_stimuli else "leave_one_stimulus_out"


class GradientObjective(Objective, ABC, Generic[Model]):
    """An objective that is minimised by gradient, in stages with `training:`. Only `losses` has to be written.

    Attributes:
        takes_repetitions: Whether a recipe may say `repetitions: all`, with which `fmri` is (B, R, V) in training.
        few_stimuli: With fewer training stimuli than these, the trainer says that ridge regression was better.
        few_stimuli_with_simulation: The same in a stage with `simulation:`.
        ask_for_generator: Gives the image generator, ready; set before the first step.
    """

    # Of no dataclass, and so no option of an objective.
    ask_for_generator: Callable[[], Any] | None = None
    takes_repetitions: ClassVar[bool] = False
    few_stimuli: ClassVar[int] = 0
    few_stimuli_with_simulation: ClassVar[int] = 0

    @property
    def image_generator(self) -> Any:
        """The generator of the recipe, on the device, whose `training_loss` a method minimises that trains its
        generator, or trains through it. Its parameters that do not learn in the stage have no gradient. One that does
        not learn at all is brought to the device, in eval mode, when it is first asked for.
        """
        return None if self.ask_for_generator is None else self.ask_for_generator()

    @image_generator.setter
    def image_generator(self, generator: Any) -> None:
        self.ask_for_generator = None if generator is None else lambda: generator

    @property
    def targets(self) -> Sequence[str] | None:
        """Names of the targets that are learned from; None stands for all that the recipe has."""
        return None

    @property
    def drops_conditions(self) -> bool:
        """Whether an image generator that it trains also learns to draw from no condition, by dropout of the condition;
        reports then draw their floor from none.
        """
        return False

    def prepare(self, model: Model, examples: Examples) -> None:
        """Is called before the first step, for statistics that the model keeps as buffers."""

    def trainable(self, model: Model) -> list[nn.Parameter]:
        """The parameters that the stage trains; the others are frozen while it lasts."""
        return list(model.parameters())

    def parameter_groups(self, model: Model, weight_decay: float) -> Sequence[ParameterGroup]:
        """The optimiser's groups with `weight_decay_groups: method`; what is not trained is left out of them later."""
        return groups_by_decay(model.named_parameters(), weight_decay, is_matrix)

    @abstractmethod
    def losses(
        self, model: Model, batch: Batch, progress: float, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The losses of a batch of training examples.

        Args:
            model: In train mode. Any of its modules may be called, as often as it takes.
            batch: On the model's device.
            progress: Share of the stage's steps that are done, from 0 to 1.
            gather: Joins what is compared over processes and batches. It is to be called for the same tensors in each
                batch of a step, and what is computed from them has to be the same in each, without draws of its own.
            generator: Source of all draws but PyTorch's own, such as dropout; on the CPU. It draws the same in all
                processes that share a batch; what is drawn for each example is drawn with
                [`drawn_by_row`], so that a step does not depend on the number of processes.

        Returns:
            Name ▶ scalar: `loss` is minimised, the others are logged.
        """

    def validation_metrics(self, model: Model, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """What is measured on held-out examples, without gradient; averaged over batches, weighted by their examples.

        Left as it is, the losses at the end of the stage. Metrics of different steps can be compared if nothing in
        them is annealed, mixed or dropped.

        Args:
            model: In eval mode.
            batch: On the model's device, with one pattern an example.
            generator: Source of all draws, the same in each validation; on the CPU.

        Returns:
            Name ▶ scalar; the recipe's `monitor`, which is `loss` if it says nothing, chooses the best weights.
        """
        return self.losses(model, batch, 1.0, lambda tensor: tensor, generator)


# --8<-- [end:contract]


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix, or something of more dimensions."""
    return parameter.ndim >= 2


def has_no_bias_in_its_name(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is called something without "bias", as gains of norms are, too."""
    return "bias" not in name


def groups_by_decay(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    decays: Callable[[str, nn.Parameter], bool],
) -> list[ParameterGroup]:
    """Two groups for an optimiser: what a rule says decays, and the rest, which does not."""
    named = [(decays(name, parameter), parameter) for name, parameter in named_parameters]
    return [
        {"params": [parameter for decayed, parameter in named if decayed], "weight_decay": weight_decay},
        {"params": [parameter for decayed, parameter in named if not decayed], "weight_decay": 0.0},
    ]


def derived_objective(found: Any) -> type[Objective]:
    """The class of a method's objective; one that was written before there were base classes gets their defaults.

    Raises:
        FmriModelsError: It is no objective.
    """
    if isinstance(found, type) and issubclass(found, Objective):
        return found
    contracts: dict[type[Objective], str] = {GradientObjective: "losses", ClosedFormObjective: "fit"}
    bases = [base for base, method in contracts.items() if callable(getattr(found, method, None))]
    name = getattr(found, "__name__", type(found).__name__)
    if not isinstance(found, type) or not bases:
        raise FmriModelsError(
            f"The objective {name} has neither losses nor fit; derive it from GradientObjective or from "
            "ClosedFormObjective (fmri_models.objectives)."
        )
    _WITHOUT_BASE.warn(
        what=f"The objective {name} derives from no base class; please derive it from "
        f"{' and '.join(base.__name__ for base in bases)} (fmri_models.objectives)"
    )
    return _completed(found, tuple(bases))


@cache
def _completed(found: Any, bases: tuple[type[Objective], ...]) -> type[Objective]:
    content: dict[str, Any] = {"__module__": found.__module__, "__qualname__": found.__qualname__}
    content["__reduce_ex__"] = _reduced
    if GradientObjective in bases and (hasattr(found, "target_kinds") or not hasattr(found, "targets")):
        content["targets"] = property(_former_targets)
    return new_class(found.__name__, (found, *bases), exec_body=lambda namespace: namespace.update(content))


def _former_targets(objective: Any) -> Sequence[str] | None:
    """What objectives called their targets before; it may be an attribute of the object alone."""
    found: Sequence[str] | None = getattr(objective, "target_kinds", None)
    return found


def _reduced(objective: Any, protocol: Any) -> tuple[Any, ...]:
    """For copying and pickling: by the author's class, since that is what its name stands for."""
    completed, found = type(objective), type(objective).__mro__[1]
    _, _, *state = super(completed, objective).__reduce_ex__(2)
    return (_empty, (found, completed.__bases__[1:]), *state)


def _empty(found: Any, bases: tuple[type[Objective], ...]) -> Any:
    completed = _completed(found, bases)
    return completed.__new__(completed)
