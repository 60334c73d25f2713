"""From a recipe to saved pipelines: all of its folds, checked before the work and trained one after the other."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging

from .. import progress
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..output_folders import PIPELINE, check_output_folder
from ..pipeline_folder import INDEX_FILE
from .before_training import (
    check_captions_are_there,
    check_guides_are_there,
    check_machine,
    few_stimuli_sentence,
    subjects_without_trials,
)
from .building import recipe_subjects
from .checkpoints import Checkpoints
from .earlier_trainings import warn_of_seen_test_pictures, warn_of_test_fmri
from .finished import check_same_training, is_complete
from .fold import refuse_interrupted, train_fold
from .initial_model import check_initial_model_is_used
from .processes import processes
from .recipe import Recipe
from .selection_folder import SelectionFolder
from .sources import refuse_tested_pictures

logger = logging.get_logger(__name__)


def train(
    recipe: Recipe,
    resume: bool = False,
    overwrite: bool = False,
    recipe_file: str | os.PathLike | None = None,
    saved: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Trains what a recipe says.

    Args:
        recipe: The recipe, with `data` and `out`.
        resume: Keep folds and models that are complete, go on with an interrupted one, train the others.
        overwrite: Replace a pipeline in the output folder, and start an interrupted training again.
        recipe_file: Where the recipe was read, which is therefore not replaced; None for one of the package's.
        saved: Called by the main process with the folder of each pipeline that was trained, once it is there.

    Returns:
        The folder of each pipeline: `out`, or `out/fold00` … with `folds="all"`; also those that were complete.

    Raises:
        FmriModelsError: The recipe does not fit the data, or an output folder exists, is no pipeline, is, contains or
            lies in something that is read, or can't be written; or what is to be kept was trained with another recipe
            or on other data.
        TrainingInterrupted: After SIGINT or SIGTERM in training by gradient, when a checkpoint is saved.
    """
    if not recipe.data or not recipe.out:
        missing = "data" if not recipe.data else "out"
        raise FmriModelsError(f"The recipe has no {missing}; add {missing}=FOLDER.")
    check_machine(recipe)
    check_guides_are_there(recipe)
    inputs = recipe.places_read(recipe_file)
    table = TrialTable.open(recipe.data)
    out = Path(recipe.out)
    runs = list(_folds(recipe, table, out))
    _check_outputs(recipe, out, [folder for _, folder in runs], resume, overwrite, inputs)
    check_captions_are_there(recipe, table)
    check_initial_model_is_used(recipe)
    complete = [folder for _, folder in runs if resume and is_complete(folder)]
    for fold_recipe, folder in runs:
        if folder in complete:
            check_same_training(fold_recipe, table, folder)
    for sentence in subjects_without_trials([fold_recipe for fold_recipe, _ in runs], table):
        logger.warning(sentence)
    for fold_recipe, _ in runs:
        if recipe.initial_model is not None:
            warn_of_seen_test_pictures(fold_recipe, table, recipe_subjects(recipe, table))
        warn_of_test_fmri(fold_recipe, table, recipe_subjects(recipe, table))
        refuse_tested_pictures(fold_recipe, table, recipe_subjects(recipe, table))
    first, _ = runs[0]
    if sentence := few_stimuli_sentence(first, table, recipe_subjects(first, table)):
        logger.warning(sentence)
    for number, (fold_recipe, folder) in enumerate(runs, start=1):
        if folder in complete:
            logger.warning(f"{folder} is complete, of this recipe and these data: nothing to do there.")
            continue
        if len(runs) > 1:
            progress.say(f"Training fold {fold_recipe.fold}, {number} of {len(runs)}")
        train_fold(fold_recipe, table, folder, overwrite=overwrite or resume, resume=resume)
        if saved is not None and processes().is_main_process:
            saved(folder)
    return [folder for _, folder in runs]


def _check_outputs(
    recipe: Recipe, out: Path, folders: Sequence[Path], resume: bool, overwrite: bool, inputs: Sequence[Path]
) -> None:
    """Finds out before the work what can't be written or replaced at its end."""
    if recipe.folds == "all":
        check_output_folder(out, overwrite or resume)
        if (out / INDEX_FILE).exists():
            raise FmriModelsError(
                f"{out} holds a pipeline, and folds are to be written into it; choose another folder."
            )
    for folder in folders:
        if not resume:
            refuse_interrupted(folder, overwrite)
        check_output_folder(folder, overwrite or resume, PIPELINE, inputs)
        for beside in (Checkpoints(folder), SelectionFolder(folder)):
            beside.check_own()


def _folds(recipe: Recipe, table: TrialTable, out: Path) -> Iterator[tuple[Recipe, Path]]:
    if recipe.folds != "all":
        yield recipe, out
        return
    for fold in range(table.num_folds(recipe.split)):
        yield replace(recipe, fold=fold, folds=None), out / f"fold{fold:02d}"
