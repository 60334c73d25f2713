"""Pipelines that an earlier run has finished: which are complete, and whether this recipe and these data gave them."""

from pathlib import Path

from ..data.split_files import part_fingerprints
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..pipeline_folder import INDEX_FILE
from ..training_record import TrainingRecord
from .building import recipe_subjects
from .checkpoints import Checkpoints
from .recipe import Recipe
from .run_folder import differences
from .selection_record import described, recorded
from .settling import settled_recipe


def is_complete(folder: Path) -> bool:
    """Whether there is a pipeline, and nothing that a training would go on from."""
    return (folder / INDEX_FILE).is_file() and not Checkpoints(folder).exists


def check_same_training(recipe: Recipe, table: TrialTable, folder: Path) -> None:
    """Refuses to keep a pipeline that another recipe, or other data, have given.

    Args:
        recipe: Of one fold.
        table: The trial table.
        folder: The pipeline's.

    Raises:
        FmriModelsError: Names the first difference.
    """
    mend = "resume with the same recipe and data, train it again with --overwrite, or choose another folder with out="
    record = TrainingRecord.load(folder)
    if record is None:
        raise FmriModelsError(f"{folder} holds a pipeline without a record of its training (training.json); {mend}.")
    subjects = recipe_subjects(recipe, table)
    settled = settled_recipe(recipe, table, subjects)
    selection, chosen = recorded(record.selection, folder)
    now = described(recipe.selection)
    if selection and selection == now:
        settled = settled_recipe(settled.with_values(chosen), table, subjects)
    before = {"table_fingerprint": record.table_fingerprint, "selection": selection, "recipe": record.recipe}
    today = {"table_fingerprint": table.fingerprint, "selection": now, "recipe": settled.published()}
    if record.learned_from is not None:
        before["split_fingerprint"] = str(sorted(record.learned_from[0].part_fingerprints.items()))
        today["split_fingerprint"] = str(sorted(part_fingerprints(table.split_rows(recipe.split), recipe.fold).items()))
    for difference in differences(before, today):
        raise FmriModelsError(f"The finished training in {folder} {difference}; {mend}.")
