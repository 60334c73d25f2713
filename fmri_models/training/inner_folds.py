"""Folds inside the training stimuli of a fold, on which a selection tries its candidates."""

from typing import Any

from ..data import schema
from ..data.split_trials import SplitTrials
from ..data.splits import split_by_run, split_kfold
from ..data.table import TrialTable
from .recipe import Recipe

INNER_SPLIT = "selection"


def inner_split(recipe: Recipe, table: TrialTable, folds: int) -> Any:
    """The table of a split into inner folds, over the stimuli of a fold that are not its test stimuli.

    Each stimulus is left out in one inner fold, as its part `test`; each run instead, where the design tests stimuli
    that are learned from in other runs. Where a stage of the recipe makes choices on validation trials, part of the
    others is `validation`.

    Raises:
        FmriModelsError: There are fewer stimuli, or runs, than folds.
    """
    parts = sorted({part for stage in recipe.stages for part in (*stage.train_on, *stage.validate_on)})
    every = SplitTrials.of_table(table)
    chosen = {
        (subject, int(trial))
        for subject in recipe.subjects or table.subjects
        for trial in table.trials(subject, parts, recipe.split, recipe.fold).trials
    }
    keys = zip(every.subjects, every.trials, strict=True)
    kept = [position for position, key in enumerate(keys) if key in chosen]
    inside = SplitTrials(
        [every.subjects[position] for position in kept],
        [every.trials[position] for position in kept],
        [every.stimulus_ids[position] for position in kept],
        [every.runs[position] for position in kept],
        every.groups,
        every.categories,
    )
    draw = split_by_run if table.repeats_stimuli(recipe.split) else split_kfold
    return draw(inside, recipe.seed, folds, _validation_share(recipe, table)).table


def _validation_share(recipe: Recipe, table: TrialTable) -> float:
    """Share of validation among training and validation; 0 where no stage makes choices on it.

    Of the stimuli, or of the trials where stimuli are in both.
    """
    if not any(stage.held_out_parts for stage in recipe.stages):
        return 0.0
    numbers = []
    for part in (schema.TRAIN, schema.VALIDATION):
        subjects = recipe.subjects or table.subjects
        shown = [table.trials(subject, part, recipe.split, recipe.fold).stimulus_ids.tolist() for subject in subjects]
        ids = [stimulus for of_subject in shown for stimulus in of_subject]
        numbers.append(len(ids) if table.repeats_stimuli(recipe.split) else len(set(ids)))
    return numbers[1] / sum(numbers) if all(numbers) else 0.0
