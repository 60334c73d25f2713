"""The stages of the demo's training at its size, on few pictures: what the scripts beside it measure steps of."""

from pathlib import Path

import torch
from transformers.utils import logging

from fmri_models.cli.demo import FULL
from fmri_models.data.table import TrialTable
from fmri_models.simulation import simulate
from fmri_models.training.building import build_model, image_generator_for, processor_for
from fmri_models.training.gradient import GradientStage
from fmri_models.training.recipe import load_recipe
from fmri_models.training.stages import StageRunner

STAGES = ("backbone", "prior", "low_level")
# Two batches of the recipe: what a step takes doesn't depend on how many pictures there are.
_NUM_PICTURES = 256


def make_table(folder: Path) -> Path:
    """Simulates trials of the demo's number of voxels, of few pictures."""
    simulate(
        "builtin:scenes",
        folder / "data",
        num_subjects=1,
        num_voxels=FULL.num_voxels,
        num_train=_NUM_PICTURES,
        num_validation=32,
        num_test=32,
        seed=0,
    )
    return folder / "data"


def demo_stage(data: Path, name: str) -> GradientStage:
    """Model, objective, optimiser and data of a stage, as the demo trains it.

    Args:
        data: What [`make_table`] made.
        name: One of `STAGES`.
    """
    logging.set_verbosity_error()
    recipe = load_recipe("mindeye", [f"data={data}", f"out={data.parent / 'pipeline'}"])
    table = TrialTable.open(data)
    torch.manual_seed(recipe.seed)
    processor = processor_for(recipe, table)
    generator = image_generator_for(recipe, table)
    model = build_model(recipe, processor, generator)
    runner = StageRunner(recipe, table, model, processor, generator)
    # The first stage takes the components of tokens from the pictures.
    runner.gradient_stage(0).close()
    return runner.gradient_stage(STAGES.index(name))
