"""What a fit in closed form costs: arithmetic, over this machine's measured speed in matrix products."""

import time

import torch

from ..configuration_fmri import SPACES
from ..data.table import TrialTable
from ..modeling_fmri import FmriPreTrainedModel
from .building import WEIGHTS_IN_MEMORY, image_generator_for, planned_model, processor_for
from .recipe import Recipe
from .stage_examples import num_examples
from .stage_memory import gibibytes
from .stage_objectives import closed_form_objective

# Penalties that a closed-form method tries for each of some two groups of targets.
_PENALTIES = 30


def cost_in_closed_form(recipe: Recipe, table: TrialTable) -> tuple[FmriPreTrainedModel, list[tuple[str, str]]]:
    """The model, without weights, and what is to be said of the memory, disk and time that its fit takes.

    Raises:
        FmriModelsError: The recipe does not fit the data, or the method is not fitted in closed form.
    """
    for stage in recipe.stages:
        closed_form_objective(recipe, stage)
    processor = processor_for(recipe, table)
    model = planned_model(recipe, processor, image_generator_for(recipe, table))
    subjects = zip(processor.subject_names, processor.num_voxels, strict=True)
    sizes = [(num_examples(recipe, table, name, recipe.train_parts), width) for name, width in subjects]
    spaces = [space for name in SPACES if (space := model.config.space(name)) is not None]
    guides = model.config.guides
    num_values = sum(space.size for space in [*spaces, *guides.values()])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    gram = max(min(size) ** 2 for size in sizes)
    seconds = sum(_operations(*size, num_values) for size in sizes) / _matrix_speed()
    memory = min(4 * parameters, WEIGHTS_IN_MEMORY) + 3 * 4 * gram
    cache = len(table.stimuli) * num_values * 4
    told = [("guides", ", ".join(f"{name} ({space.size:,})" for name, space in guides.items()))] if guides else []
    return model, [
        *told,
        ("memory", f"{gibibytes(memory)} for weights and equations"),
        ("disk", f"{gibibytes(4 * parameters + cache)} for the pipeline and the cache of targets"),
        ("steps", "0 (closed form)"),
        ("time", f"about {max(seconds, 1):,.0f} s on this machine"),
    ]


def _operations(num_examples: int, num_voxels: int, num_values: int) -> float:
    """Multiply-adds ×2 of the Gram matrix, a Cholesky factorisation a penalty, and the weights."""
    small = min(num_examples, num_voxels)
    products = 2.0 * small * num_examples * num_voxels + 4.0 * num_examples * num_voxels * num_values
    return products + _PENALTIES * small**3 / 3


def _matrix_speed() -> float:
    """Operations a second of a product of 1,024² matrices here."""
    matrix = torch.rand(1024, 1024)
    matrix @ matrix
    started = time.perf_counter()
    for _ in range(5):
        matrix @ matrix
    return 5 * 2 * 1024**3 / (time.perf_counter() - started)
