"""What a recipe will cost, before it costs anything."""

import time
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

import torch

from ..data.loading import SeededBatches
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import parse_source
from ..modeling_fmri import FmriPreTrainedModel
from ..processing_fmri import FmriProcessor
from .building import (
    WEIGHTS_IN_MEMORY,
    image_generator_for,
    planned_model,
    processor_for,
    recipe_subjects,
    untrained_model,
)
from .checkpoints import KEPT_CHECKPOINTS
from .earlier_trainings import warn_of_seen_test_pictures
from .gradient import GradientStage
from .initial_model import check_initial_model_is_used
from .loop import times_in_a_stage
from .planned_generators import planned_generator
from .precision import check_precision
from .recipe import Recipe, Stage
from .settling import few_stimuli_sentence, settled_recipe
from .stage_memory import StageMemory, available_memory
from .stage_objectives import closed_form_objective, gradient_objective
from .stages import StageRunner
from .trackers import check_trackers

# Penalties that a closed-form method tries for each of some two groups of targets.
_PENALTIES = 30
# The first step is slower than those after it and is not counted.
_TIMED_STEPS = 5
# Weights, gradients and moments beyond this are large, and what makes them smaller is said.
_LARGE = 2**32
# Steps are timed if all of that takes at most this share of the memory; activations come on top.
_SHARE_FOR_TIMING = 0.5


def as_text(lines: Iterable[tuple[str, str]]) -> str:
    """An estimate for a terminal, a line each."""
    return "\n".join(f"{key:<11}{value}" for key, value in lines)


def estimate(recipe: Recipe) -> str:
    """What [`estimated`] finds, as a text of one line each."""
    return as_text(estimated(recipe))


def estimated(recipe: Recipe) -> list[tuple[str, str]]:
    """Parameters, memory, disk, steps and time of a recipe: names and what is to be said of them.

    All but time is counted on a model without weights. The time of a closed-form fit is its arithmetic over this
    machine's measured speed in matrix products; that of a stage that is trained by gradient comes from a few real steps
    on real batches, whose results are thrown away. Steps are not timed where the model would fill the memory, or where
    the image generator has weights of gigabytes, which an estimate does not load.

    Raises:
        FmriModelsError: The recipe does not fit the data or the machine.
    """
    if not recipe.data:
        raise FmriModelsError("The recipe has no data; add data=FOLDER.")
    check_trackers(recipe.trackers)
    check_initial_model_is_used(recipe)
    table = TrialTable.open(recipe.data)
    recipe = settled_recipe(recipe, table, recipe_subjects(recipe, table))
    if recipe.initial_model is not None:
        warn_of_seen_test_pictures(recipe, table, recipe_subjects(recipe, table))
    lines = _by_gradient(recipe, table) if recipe.trains_by_gradient else _in_closed_form(recipe, table)
    if recipe.selection is not None:
        candidates, folds = len(recipe.selection.candidates), recipe.selection.folds
        lines.append(
            (
                "selection",
                f"{candidates} candidates on {folds} inner folds before that: {candidates * folds} trainings on "
                f"{1 - 1 / folds:.0%} of the stimuli each",
            )
        )
    if sentence := few_stimuli_sentence(recipe, table, recipe_subjects(recipe, table)):
        lines.append(("note", sentence))
    return lines


def _in_closed_form(recipe: Recipe, table: TrialTable) -> list[tuple[str, str]]:
    processor = processor_for(recipe, table)
    generator = image_generator_for(recipe, table)
    model = planned_model(recipe, processor, generator)
    rows = {name: _num_rows(recipe, table, name, recipe.train_parts) for name in processor.subject_names}
    num_targets = sum(space.size for space in model.spaces.values())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    gram = max(min(rows[n], v) ** 2 for n, v in zip(processor.subject_names, processor.num_voxels, strict=True))
    operations = sum(
        _operations(rows[n], v, num_targets) for n, v in zip(processor.subject_names, processor.num_voxels, strict=True)
    )
    seconds = operations / _matrix_speed()
    memory = min(4 * parameters, WEIGHTS_IN_MEMORY) + 3 * 4 * gram
    cache = len(table.stimuli) * num_targets * 4
    return [
        *_what(recipe, table, model),
        ("memory", f"{_gibibytes(memory)} for weights and equations"),
        ("disk", f"{_gibibytes(4 * parameters + cache)} for the pipeline and the cache of targets"),
        ("steps", "0 (closed form)"),
        ("time", f"about {max(seconds, 1):,.0f} s on this machine"),
    ]


def _by_gradient(recipe: Recipe, table: TrialTable) -> list[tuple[str, str]]:
    trainings = [stage.training for stage in recipe.stages if stage.training is not None]
    for training in trainings:
        check_precision(training)
    processor = processor_for(recipe, table)
    generator = planned_generator(recipe.generator)
    spaces = image_generator_for(recipe, table) if generator is None else generator
    model = planned_model(recipe, processor, spaces)
    plans = {number: _planned(recipe, table, stage, model) for number, stage in enumerate(recipe.stages)}
    timings: dict[int, str] = dict.fromkeys(plans, _why_not_timed(recipe, plans.values(), loaded=generator is None))
    if not any(timings.values()):
        assert isinstance(spaces, ImageGenerator)
        timings = _timings(recipe, table, processor, spaces)
    lines = _what(recipe, table, model)
    for number, stage in enumerate(recipe.stages):
        plan = plans[number]
        if plan is None:
            lines.append(("stage", f"{stage.name}: closed form, not estimated"))
        else:
            lines += [("stage", stage.name), *_stage_lines(plan, number), ("time", timings[number])]
    return lines


class _Plan(NamedTuple):
    """What is known of a stage before anything is allocated."""

    memory: StageMemory
    num_rows: int
    num_held_out: int
    order: SeededBatches

    @property
    def num_steps(self) -> int:
        return self.memory.options.num_steps(self.order.batches_an_epoch)

    @property
    def num_validations(self) -> int:
        return times_in_a_stage(self.num_steps, self.memory.options.validate_every) if self.num_held_out else 0


def _planned(recipe: Recipe, table: TrialTable, stage: Stage, model: FmriPreTrainedModel) -> _Plan | None:
    """None for a stage in closed form."""
    if stage.training is None:
        closed_form_objective(recipe, stage)
        return None
    objective = gradient_objective(recipe, stage)
    names = model.config.subject_names
    num_rows = sum(_num_rows(recipe, table, name, stage.train_on) for name in names)
    if num_rows == 0:
        raise FmriModelsError(f"The stage {stage.name!r} has no trials to learn from in {', '.join(stage.train_on)}.")
    held_out = stage.held_out_parts
    num_held_out = sum(_num_rows(recipe, table, name, held_out) for name in names) if held_out else 0
    order = SeededBatches(num_rows, stage.training.batch_size, seed=0)
    return _Plan(StageMemory.of(model, objective, stage.training), num_rows, num_held_out, order)


def _why_not_timed(recipe: Recipe, plans: Iterable[_Plan | None], loaded: bool) -> str:
    """Empty where steps can be timed."""
    instead = "a short training (steps=20) shows it"
    if not loaded:
        return (
            f"not measured, because the targets come from the image generator {parse_source(recipe.generator)}, which "
            f"is not loaded for an estimate; {instead}"
        )
    needed = max((plan.memory.total for plan in plans if plan is not None), default=0)
    if needed > _SHARE_FOR_TIMING * available_memory():
        return f"not measured, so that a model of this size does not fill the memory; {instead}"
    return ""


def _stage_lines(plan: _Plan, number: int) -> list[tuple[str, str]]:
    memory, options, steps = plan.memory, plan.memory.options, plan.num_steps
    # The checkpoint being written beside those that are kept, and the best weights of each.
    disk = (KEPT_CHECKPOINTS + 1) * memory.checkpoint
    if plan.num_held_out and options.keep_best:
        disk += (KEPT_CHECKPOINTS + 1) * memory.weights
    rows_a_step = plan.order.rows_a_batch * options.gradient_accumulation_steps
    epochs = steps * options.gradient_accumulation_steps / plan.order.batches_an_epoch
    return [
        ("parameters", f"{memory.num_trained:,} are trained"),
        *_memory_lines(memory, number),
        ("disk", f"{_gibibytes(disk)} for checkpoints while it trains"),
        ("steps", f"{steps:,} of {rows_a_step:,} rows ({epochs:,.1f} epochs)"),
    ]


def _memory_lines(memory: StageMemory, number: int) -> list[tuple[str, str]]:
    available = available_memory()
    needs = f"{_gibibytes(memory.total)} for {memory.keeps}; activations come on top"
    if memory.total > available:
        needs += f"; MORE THAN THE {_gibibytes(available)} that are free here"
    lines = [("memory", needs)]
    if memory.total > min(_LARGE, available):
        smaller = [f"{_gibibytes(other.total)} with {options}" for options, other in memory.smaller()]
        if (fewer := memory.fewer_activations()) is not None:
            smaller.append(f"a quarter of the activations, and as many rows compared, with {fewer}")
        smaller.append(f"(on the command line: stages.{number}.training.KEY=VALUE)")
        lines += [("" if place else "smaller", text) for place, text in enumerate(smaller)]
    return lines


def _timings(recipe: Recipe, table: TrialTable, processor: FmriProcessor, generator: ImageGenerator) -> dict[int, str]:
    """What a few real steps of each stage took; empty for a stage in closed form."""
    torch.manual_seed(recipe.seed)
    model = untrained_model(recipe, processor, generator)
    runner = StageRunner(recipe, table, model, processor, generator)
    timings = {}
    for number, stage in enumerate(recipe.stages):
        if stage.training is not None:
            trained = runner.gradient_stage(number)
            timings[number] = _timing(trained)
            trained.close()
    return timings


def _timing(stage: GradientStage) -> str:
    a_step, a_validation = _timed(stage)
    validations = 0
    if stage.held_out is not None:
        validations = times_in_a_stage(stage.num_steps, stage.options.validate_every)
    seconds = stage.num_steps * a_step + validations * a_validation
    text = (
        f"about {_duration(seconds)} on this machine: {_TIMED_STEPS} real steps took {a_step:.3g} s each, and a "
        f"validation, of which there are {validations}, takes {a_validation:.3g} s"
    )
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        text += f"; {_gibibytes(peak)} were in use on the GPU, activations too"
    return text


def _timed(stage: GradientStage) -> tuple[float, float]:
    """Seconds of a step (the median of a few) and of a validation (one batch, times the batches)."""
    batches = stage.batches(0)
    durations = []
    for step in range(_TIMED_STEPS + 1):
        started = time.perf_counter()
        stage.update(min(step, stage.num_steps - 1), batches)
        durations.append(time.perf_counter() - started)
    if stage.held_out is None:
        return median(durations[1:]), 0.0
    started = time.perf_counter()
    stage.monitored(stage.validate(max_batches=1))
    num_batches = -(-len(stage.held_out) // stage.options.batch_size)
    return median(durations[1:]), (time.perf_counter() - started) * num_batches


def _what(recipe: Recipe, table: TrialTable, model: FmriPreTrainedModel) -> list[tuple[str, str]]:
    rows = {name: _num_rows(recipe, table, name, recipe.train_parts) for name in model.config.subject_names}
    subjects = [f"{name} ({width:,} voxels, {rows[name]:,} rows)" for name, width in _widths(model)]
    return [
        ("method", recipe.method),
        ("subjects", ", ".join(subjects)),
        ("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}"),
    ]


def _widths(model: FmriPreTrainedModel) -> list[tuple[str, int]]:
    return list(zip(model.config.subject_names, model.config.num_voxels, strict=True))


def _gibibytes(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 1):,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _num_rows(recipe: Recipe, table: TrialTable, subject: str, parts: list[str]) -> int:
    trials = table.trials(subject, parts, recipe.split, recipe.fold)
    return len(trials) if recipe.repetitions == "single" else len(set(trials.stimulus_ids.tolist()))


def _operations(num_rows: int, num_voxels: int, num_targets: int) -> float:
    """Multiply-adds ×2 of the Gram matrix, a Cholesky factorisation a penalty, and the weights."""
    small = min(num_rows, num_voxels)
    return 2.0 * small * num_rows * num_voxels + _PENALTIES * small**3 / 3 + 4.0 * num_rows * num_voxels * num_targets


def _matrix_speed() -> float:
    """Operations a second of a product of 1,024² matrices here."""
    matrix = torch.rand(1024, 1024)
    matrix @ matrix
    started = time.perf_counter()
    for _ in range(5):
        matrix @ matrix
    return 5 * 2 * 1024**3 / (time.perf_counter() - started)
