"""What a recipe leaves to the data, settled before anything else happens, so that the record says what was done."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers.utils import logging

from ..configuration_fmri import FmriConfig
from ..data.closed_form import settled_fit
from ..data.processed import training_repetitions
from ..data.table import TrialTable
from .recipe import Recipe, Stage
from .stage_objectives import closed_form_objective, gradient_objective

logger = logging.get_logger(__name__)


def settled_recipe(recipe: Recipe, table: TrialTable, subjects: Sequence[str]) -> Recipe:
    """The recipe with values in the place of what depends on the table and its split.

    A stage in closed form whose objective has `selection: auto` gets what that comes to, and learns from validation
    trials that it chooses nothing on. Repetitions that would be averaged over runs, although the design tests the same
    stimuli in other runs, are examples of their own.

    Args:
        recipe: Of one fold.
        table: The trial table.
        subjects: Names of the subjects.
    """
    repetitions = training_repetitions(table, recipe.split, recipe.repetitions)
    if repetitions != recipe.repetitions:
        logger.warning_once(
            f"The split {recipe.split!r} tests stimuli that are learned from in other runs: each trial is learned from "
            "(repetitions=single), because averages over runs would be one pattern a stimulus."
        )
    stages = [_settled_stage(recipe, stage, table, subjects) for stage in recipe.stages]
    return replace(recipe, repetitions=repetitions, stages=stages)


def settled_drawing(recipe: Recipe, config: FmriConfig) -> dict[str, Any]:
    """What the pipeline draws with: what the recipe says, and no guidance where there is nothing to lead away from.

    A generator that learns to read a condition draws without one only if the condition was dropped at times in
    training. Where no stage drops it, guidance is 1 unless the recipe says otherwise.

    Args:
        recipe: The recipe.
        config: Of the model, which says what is decoded.
    """
    learned = any(getattr(config, name, None) is not None for name in config.learned_conditions)
    by_gradient = (stage for stage in recipe.stages if stage.training is not None)
    if not learned or any(gradient_objective(recipe, stage).drops_conditions for stage in by_gradient):
        return recipe.drawing
    return {"guidance_scale": 1.0, **{name: value for name, value in recipe.drawing.items() if value is not None}}


def _settled_stage(recipe: Recipe, stage: Stage, table: TrialTable, subjects: Sequence[str]) -> Stage:
    if stage.training is not None or stage.objective.get("selection") != "auto":
        return stage
    objective = closed_form_objective(recipe, stage)
    selection, parts = settled_fit(
        objective, table, subjects, stage.train_on, stage.validate_on, recipe.split, recipe.fold
    )
    return replace(stage, objective={**stage.objective, "selection": selection}, train_on=parts)
