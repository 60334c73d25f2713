"""What training by gradient costs, stage by stage: counted before anything is allocated, and timed where that fits."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from ..data.batches import BatchOrder
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import parse_source
from ..modeling_fmri import FmriPreTrainedModel
from .adaptation import learning_parameters
from .building import NamesSpaces, image_generator_for, planned_training, training_subjects
from .checkpoints import KEPT_CHECKPOINTS
from .learning_generator import check_can_learn, planned_parameters
from .planned_generators import planned_generator
from .recipe import Recipe, Stage
from .sampling import order_of_sizes
from .stage_examples import num_examples, num_examples_of
from .stage_memory import StageMemory, available_memory, gibibytes
from .stage_objectives import closed_form_objective, gradient_objective
from .step_timing import timings
from .training_subjects import TrainingSubjects

# Weights, gradients and moments beyond this are large, and what makes them smaller is said.
_LARGE = 2**32
# Steps are timed if all of that takes at most this share of the memory; activations come on top.
_SHARE_FOR_TIMING = 0.5


class _OfGenerator(NamedTuple):
    """What a stage trains of the image generator: parameters, bytes of its other weights, and both in words."""

    parameters: list[nn.Parameter]
    read: int
    told: str


class _Plan(NamedTuple):
    """What is known of a stage before anything is allocated."""

    memory: StageMemory
    generator: _OfGenerator
    is_validated: bool
    order: BatchOrder


def cost_by_gradient(recipe: Recipe, table: TrialTable) -> tuple[FmriPreTrainedModel, list[tuple[str, str]]]:
    """The model, without weights, and what is to be said of each stage.

    Raises:
        FmriModelsError: The recipe does not fit the data.
    """
    subjects = training_subjects(recipe, table)
    generator = None if recipe.generator is None else planned_generator(recipe.generator)
    spaces = image_generator_for(recipe, table) if generator is None else generator
    model = planned_training(recipe, subjects, spaces)
    plans = {
        number: _planned(recipe, table, stage, model, subjects, spaces) for number, stage in enumerate(recipe.stages)
    }
    times: dict[int, str] = dict.fromkeys(plans, _why_not_timed(recipe, plans.values(), loaded=generator is None))
    if not any(times.values()):
        assert isinstance(spaces, ImageGenerator)
        times = timings(recipe, table, subjects, spaces)
    lines: list[tuple[str, str]] = []
    for number, stage in enumerate(recipe.stages):
        plan = plans[number]
        if plan is None:
            lines.append(("stage", f"{stage.name}: closed form, not estimated"))
        else:
            lines += [("stage", stage.name), *_stage_lines(plan, number), ("time", times[number])]
    return model, lines


def _planned(
    recipe: Recipe,
    table: TrialTable,
    stage: Stage,
    model: FmriPreTrainedModel,
    subjects: TrainingSubjects,
    generator: NamesSpaces,
) -> _Plan | None:
    """None for a stage in closed form."""
    if stage.training is None:
        closed_form_objective(recipe, stage)
        return None
    objective = gradient_objective(recipe, stage)

    def counts(parts: list[str]) -> list[int]:
        found = (num_examples(recipe, table, name, parts) for name in subjects.own.subject_names)
        return [count for count in found if count]

    if not (own := counts(stage.train_on)):
        raise FmriModelsError(f"The stage {stage.name!r} has no trials to learn from in {', '.join(stage.train_on)}.")
    is_validated = bool(stage.held_out_parts) and bool(counts(stage.held_out_parts))
    others = [num_examples_of(source, recipe.repetitions, name) for source in subjects.sources for name in source.names]
    order = order_of_sizes([*own, *(count for count in others if count)], len(own), stage.training)
    among = learning_parameters(recipe, model, subjects)
    trained = _of_generator(stage, generator)
    memory = StageMemory.of(model, objective, stage.training, among, trained.parameters, trained.read)
    return _Plan(memory, trained, is_validated, order)


def _of_generator(stage: Stage, generator: NamesSpaces) -> _OfGenerator:
    training = stage.generator_training
    if training is None:
        return _OfGenerator([], 0, "")
    if not isinstance(generator, ImageGenerator):
        return _OfGenerator([], 0, "; those of the image generator are not counted, because it is not loaded here")
    check_can_learn(generator, training)
    parameters = planned_parameters(generator, training)
    own = {id(parameter) for parameter in parameters}
    networks = [each for each in generator.components.values() if isinstance(each, nn.Module)]
    others = (p for network in networks for p in network.parameters() if id(p) not in own)
    which = [", ".join(training.train)] if training.train else []
    if training.lora is not None:
        which.append(f"LoRA of rank {training.lora.r} on {', '.join(training.lora.groups_of(generator))}")
    told = f", and {sum(p.numel() for p in parameters):,} of the image generator ({' and '.join(which)})"
    return _OfGenerator(parameters, sum(p.numel() * p.element_size() for p in others), told)


def _why_not_timed(recipe: Recipe, plans: Iterable[_Plan | None], loaded: bool) -> str:
    """Empty where steps can be timed."""
    instead = "a short training (steps=20) shows it"
    if not loaded and recipe.generator is not None:
        return (
            f"not measured, because the targets come from the image generator {parse_source(recipe.generator)}, which "
            f"is not loaded for an estimate; {instead}"
        )
    needed = max((plan.memory.total for plan in plans if plan is not None), default=0)
    if needed > _SHARE_FOR_TIMING * available_memory():
        return f"not measured, so that a model of this size does not fill the memory; {instead}"
    return ""


def _stage_lines(plan: _Plan, number: int) -> list[tuple[str, str]]:
    memory, options = plan.memory, plan.memory.options
    steps = options.num_steps(plan.order.batches_an_epoch)
    # The checkpoint being written beside those that are kept, and the best weights of each.
    disk = (KEPT_CHECKPOINTS + 1) * memory.checkpoint
    if plan.is_validated and options.keep_best:
        disk += (KEPT_CHECKPOINTS + 1) * memory.weights
    own = memory.num_trained - sum(parameter.numel() for parameter in plan.generator.parameters)
    examples_a_step = plan.order.examples_a_batch * options.gradient_accumulation_steps
    epochs = steps * options.gradient_accumulation_steps / plan.order.batches_an_epoch
    return [
        ("parameters", f"{own:,} are trained{plan.generator.told}"),
        *_memory_lines(memory, number),
        ("disk", f"{gibibytes(disk)} for checkpoints while it trains"),
        ("steps", f"{steps:,} of {examples_a_step:,} rows ({epochs:,.1f} epochs)"),
    ]


def _memory_lines(memory: StageMemory, number: int) -> list[tuple[str, str]]:
    available = available_memory()
    needs = f"{gibibytes(memory.total)} for {memory.keeps}; activations come on top"
    if memory.total > available:
        needs += f"; MORE THAN THE {gibibytes(available)} that are free here"
    lines = [("memory", needs)]
    if memory.total > min(_LARGE, available):
        smaller = [f"{gibibytes(other.total)} with {options}" for options, other in memory.smaller()]
        if (fewer := memory.fewer_activations()) is not None:
            smaller.append(f"a quarter of the activations, and as many rows compared, with {fewer}")
        smaller.append(f"(on the command line: stages.{number}.training.KEY=VALUE)")
        lines += [("" if place else "smaller", text) for place, text in enumerate(smaller)]
    return lines
