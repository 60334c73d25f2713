"""What a few real steps of training take, and with them all of it: their results are thrown away."""

import time
from dataclasses import replace
from statistics import median

import torch

from ..data.table import TrialTable
from ..generation.image_generator import ImageGenerator
from .building import build_model
from .gradient import GradientStage
from .loop import times_in_a_stage
from .recipe import Recipe
from .stage_memory import gibibytes
from .stages import StageRunner
from .training_subjects import TrainingSubjects

# The first step is slower than those after it and is not counted.
_TIMED_STEPS = 5


def timings(recipe: Recipe, table: TrialTable, subjects: TrainingSubjects, generator: ImageGenerator) -> dict[int, str]:
    """Number of each stage that is trained by gradient ▶ how long it will take, in words."""
    torch.manual_seed(recipe.seed)
    # Weights of an initial model take as long as others, unless there is more of them.
    started = recipe if recipe.adaptation is not None else replace(recipe, initial_model=None)
    model = build_model(started, subjects, generator)
    runner = StageRunner(recipe, table, model, subjects.own, generator, subjects=subjects)
    found = {}
    for number, stage in enumerate(recipe.stages):
        if stage.training is not None:
            timed = runner.gradient_stage(number)
            found[number] = _timing(timed)
            timed.close()
    return found


def _timing(stage: GradientStage) -> str:
    a_step, a_validation = _seconds(stage)
    validations = 0
    if stage.held_out is not None:
        validations = times_in_a_stage(stage.num_steps, stage.options.validate_every)
    text = (
        f"about {_duration(stage.num_steps * a_step + validations * a_validation)} on this machine: {_TIMED_STEPS} "
        f"real steps took {a_step:.3g} s each, and a validation, of which there are {validations}, takes "
        f"{a_validation:.3g} s"
    )
    if torch.cuda.is_available():
        text += f"; {gibibytes(torch.cuda.max_memory_allocated())} were in use on the GPU, activations too"
    return text


def _seconds(stage: GradientStage) -> tuple[float, float]:
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


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 1):,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
