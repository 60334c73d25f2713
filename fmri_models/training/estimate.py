"""What a recipe will cost, before it costs anything."""

import time

import torch

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from .recipe import Recipe
from .trainer import WEIGHTS_IN_MEMORY, build_model, image_generator_for, processor_for, recipe_subjects

# Penalties that a closed-form method tries for each of some two groups of targets.
_PENALTIES = 30


def estimate(recipe: Recipe) -> str:
    """Parameters, memory, disk, steps and time of a recipe, as a text of one line each.

    The time is the arithmetic of a closed-form fit over this machine's measured speed in matrix products.
    """
    if not recipe.data:
        raise FmriModelsError("The recipe has no data; add data=FOLDER.")
    table = TrialTable.open(recipe.data)
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
    lines = {
        "method": recipe.method,
        "subjects": ", ".join(f"{n} ({v:,} voxels, {rows[n]:,} rows)" for n, v in _widths(model)),
        "parameters": f"{parameters:,}",
        "memory": f"{memory / 2**30:.2f} GiB for weights and equations",
        "disk": f"{(4 * parameters + cache) / 2**30:.2f} GiB for the pipeline and the cache of targets",
        "steps": "0 (closed form)",
        "time": f"about {max(seconds, 1):,.0f} s on this machine",
    }
    return "\n".join(f"{key:<11}{value}" for key, value in lines.items())


def _widths(model: FmriPreTrainedModel) -> list[tuple[str, int]]:
    return list(zip(model.config.subject_names, model.config.num_voxels, strict=True))


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
