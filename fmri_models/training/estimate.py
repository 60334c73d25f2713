"""What a recipe will cost, before it costs anything."""

import time
from statistics import median

import torch

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from .checkpoints import KEPT_CHECKPOINTS
from .gradient import GradientStage, check_precision, check_trackers
from .loop import parts_of_a_stage
from .recipe import Recipe
from .stages import StageRunner
from .trainer import (
    WEIGHTS_IN_MEMORY,
    build_model,
    image_generator_for,
    processor_for,
    recipe_subjects,
    target_kinds,
)

# Penalties that a closed-form method tries for each of some two groups of targets.
_PENALTIES = 30
# The first step is slower than those after it and is not counted.
_TIMED_STEPS = 5


def estimate(recipe: Recipe) -> str:
    """Parameters, memory, disk, steps and time of a recipe, as a text of one line each.

    The time of a closed-form fit is its arithmetic over this machine's measured speed in matrix products; that of a
    stage that is trained by gradient comes from a few real steps on real batches, whose results are thrown away.

    Raises:
        FmriModelsError: The recipe does not fit the data or the machine.
    """
    if not recipe.data:
        raise FmriModelsError("The recipe has no data; add data=FOLDER.")
    check_trackers(recipe.trackers)
    table = TrialTable.open(recipe.data)
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
    return "\n".join(f"{key:<11}{value}" for key, value in lines)


def _in_closed_form(recipe: Recipe, table: TrialTable) -> list[tuple[str, str]]:
    processor = processor_for(recipe, table, recipe_subjects(recipe, table))
    generator = image_generator_for(recipe, table)
    with torch.device("meta"):
        model = build_model(recipe, processor, generator)
    rows = {name: _num_rows(recipe, table, name) for name in processor.subject_names}
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
    for stage in recipe.stages:
        if stage.training is not None:
            check_precision(stage.training)
    torch.manual_seed(recipe.seed)
    processor = processor_for(recipe, table, recipe_subjects(recipe, table))
    generator = image_generator_for(recipe, table)
    model = build_model(recipe, processor, generator)
    runner = StageRunner(recipe, table, model, processor, generator, target_kinds(recipe, generator))
    lines = _what(recipe, table, model)
    for number, stage in enumerate(recipe.stages):
        if stage.training is None:
            lines.append(("stage", f"{stage.name}: closed form, not estimated"))
            continue
        trained = runner.gradient_stage(number)
        lines += [("stage", stage.name), *_stage_lines(trained)]
        trained.close()
    return lines


def _stage_lines(stage: GradientStage) -> list[tuple[str, str]]:
    options, model = stage.options, stage.model
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    trained = sum(parameter.numel() * parameter.element_size() for parameter in stage.parameters)
    average = trained if stage.ema is not None else 0
    # Gradients and AdamW's two moments.
    memory = weights + 3 * trained + average
    checkpoint = weights + 2 * trained + average
    # The one being written beside those that are kept, and a best one for each.
    disk = (KEPT_CHECKPOINTS + 1) * checkpoint
    if stage.held_out is not None and options.keep_best:
        disk += (KEPT_CHECKPOINTS + 1) * weights
    steps = stage.num_steps
    a_step, a_validation = _timed(stage)
    validations = parts_of_a_stage(steps, options.validate_every) if stage.held_out is not None else 0
    seconds = steps * a_step + validations * a_validation
    lines = [
        ("parameters", f"{sum(p.numel() for p in stage.parameters):,} are trained"),
        ("memory", f"{_gibibytes(memory)} for weights, gradients, AdamW and moving average; activations come on top"),
        ("disk", f"{_gibibytes(disk)} for checkpoints while it trains"),
        ("steps", f"{steps:,} of {_rows_a_step(stage):,} rows ({steps / _steps_an_epoch(stage):,.1f} epochs)"),
        (
            "time",
            f"about {_duration(seconds)} on this machine: {_TIMED_STEPS} real steps took {a_step:.3g} s each, and a "
            f"validation, of which there are {validations}, takes {a_validation:.3g} s",
        ),
    ]
    if torch.cuda.is_available():
        lines.insert(
            2, ("", f"{_gibibytes(torch.cuda.max_memory_allocated())} were in use on the GPU, activations too")
        )
    return lines


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
    subjects = [f"{n} ({v:,} voxels, {_num_rows(recipe, table, n):,} rows)" for n, v in _widths(model)]
    return [
        ("method", recipe.method),
        ("subjects", ", ".join(subjects)),
        ("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}"),
    ]


def _widths(model: FmriPreTrainedModel) -> list[tuple[str, int]]:
    return list(zip(model.config.subject_names, model.config.num_voxels, strict=True))


def _rows_a_step(stage: GradientStage) -> int:
    return stage.order.rows_a_batch * stage.options.gradient_accumulation_steps


def _steps_an_epoch(stage: GradientStage) -> float:
    return stage.order.batches_an_epoch / stage.options.gradient_accumulation_steps


def _gibibytes(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 1):,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _num_rows(recipe: Recipe, table: TrialTable, subject: str) -> int:
    trials = table.trials(subject, recipe.train_parts, recipe.split, recipe.fold)
    return len(set(trials.stimulus_ids.tolist())) if recipe.repetitions == "average" else len(trials)


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
