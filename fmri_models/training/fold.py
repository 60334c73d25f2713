"""One fold of a recipe: its settings are chosen, its model is trained, its pipeline is saved with a record."""

from pathlib import Path

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..output_folders import PIPELINE
from ..saving import atomic_folder
from ..training_record import MAX_TEXT, CurvePoint, Learned, TrainingRecord
from .building import recipe_subjects
from .checkpoints import Checkpoints
from .earlier_trainings import EarlierTrainings, earlier_trainings, own_trainings
from .hardware import hardware
from .processes import processes
from .recipe import Recipe
from .selection import Chosen, select
from .selection_folder import SelectionFolder
from .settling import settled_recipe
from .training_run import Trained, trained


def train_fold(recipe: Recipe, table: TrialTable, out: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Trains one model on one fold and saves its pipeline into `out`.

    Args:
        recipe: The recipe.
        table: The trial table.
        out: The pipeline's folder.
        overwrite: Replace a folder that has content, and start an interrupted training again.
        resume: Go on with an interrupted training, if there is one.

    Raises:
        FmriModelsError: The recipe does not fit the data or the interrupted training, or `out` has content.
    """
    if not resume:
        refuse_interrupted(out, overwrite)
    subjects = recipe_subjects(recipe, table)
    earlier = earlier_trainings(recipe, table)
    recipe = settled_recipe(recipe, table, subjects)
    selected = None
    if recipe.selection is not None:
        selected = select(recipe, table, out, resume)
        recipe = settled_recipe(selected.recipe, table, subjects)
    with trained(recipe, table, out, resume) as result:
        if processes().is_main_process:
            record = _record(recipe, table, result, selected, earlier)
            with atomic_folder(out, overwrite, PIPELINE, recipe.places_read()) as partial:
                result.pipeline.save_pretrained(str(partial), max_shard_size=recipe.max_shard_size)
                record.save(partial)
            SelectionFolder(out).remove()


def refuse_interrupted(out: Path, overwrite: bool) -> None:
    """Refuses to begin anew where an interrupted training could go on, unless it may be replaced.

    Raises:
        FmriModelsError: Says what is there, and the two ways on.
    """
    for left in (Checkpoints(out), SelectionFolder(out)):
        if left.exists and not overwrite:
            raise FmriModelsError(
                f"A training into {out} was interrupted and has its checkpoints in {left.folder}; pass --resume to "
                "go on with it, or --overwrite to start again."
            )


def _record(
    recipe: Recipe, table: TrialTable, result: Trained, selected: Chosen | None, earlier: EarlierTrainings
) -> TrainingRecord:
    subjects = recipe_subjects(recipe, table)
    own = own_trainings(recipe, table, subjects)
    curve: list[CurvePoint] = [
        {
            "stage": entry["stage"],
            "step": point["step"],
            "train_loss": point["train_loss"],
            "validation_loss": point["validation_loss"],
        }
        for entry in result.history
        for point in entry.get("curve", [])
    ]
    return TrainingRecord(
        method=recipe.method,
        table=table.name,
        table_fingerprint=table.fingerprint,
        split=recipe.split,
        fold=recipe.fold,
        train_parts=recipe.train_parts,
        repetitions=recipe.repetitions,
        simulated=table.simulated,
        recipe=recipe.published(),
        stages=[{key: value for key, value in entry.items() if key != "curve"} for entry in result.history],
        selection=None if selected is None else selected.record,
        seconds=round(result.seconds + (0.0 if selected is None else selected.seconds), 2),
        learned_from=[*own, *(each for each in earlier.learned_from if each not in own)],
        unknown_initial_models=earlier.unknown,
        reserved_initial_models=earlier.reserved,
        hardware=hardware(recipe),
        curve=curve,
        learned=_learned(recipe, table, subjects),
        table_license=table.metadata.get("license", "")[:MAX_TEXT],
        table_source=table.metadata.get("source", "")[:MAX_TEXT],
    )


def _learned(recipe: Recipe, table: TrialTable, subjects: list[str]) -> Learned:
    """How much any stage learned from."""
    trials = [table.trials(subject, recipe.train_parts, recipe.split, recipe.fold) for subject in subjects]
    return {
        "subjects": len(subjects),
        "sessions": sum(len(set(each.sessions.tolist())) for each in trials),
        "trials": sum(len(each) for each in trials),
        "pictures": len({name for each in trials for name in each.stimulus_ids.tolist() if name}),
    }
