"""What is refused before any work, and what is said before it."""

from collections.abc import Sequence

from ..data import schema
from ..data.splits import untested_sentences
from ..data.table import TrialTable
from ..data.targets import check_captions
from ..errors import FmriModelsError
from .building import recipe_guides, recipe_subjects
from .precision import check_precision
from .recipe import Recipe
from .sources import source_tables
from .stage_objectives import gradient_objective
from .trackers import check_trackers


def check_machine(recipe: Recipe) -> None:
    """Refuses a tracker or a precision that is not to be had on this machine.

    Raises:
        FmriModelsError: Names the first one.
    """
    check_trackers(recipe.trackers)
    for stage in recipe.stages:
        if stage.training is not None:
            check_precision(stage.training)


def check_guides_are_there(recipe: Recipe) -> None:
    """Refuses networks whose weights the recipe does not name, or that are not there.

    Raises:
        FmriModelsError: Says what is needed.
    """
    recipe_guides(recipe).check_weights()


def check_captions_are_there(recipe: Recipe, table: TrialTable) -> None:
    """Refuses pictures without captions where captions are learned from, before pictures are embedded for hours.

    Raises:
        FmriModelsError: Names the table, the recipe's own or one of its sources.
    """
    if "text_embeds" in (recipe.targets or ()):
        for each in (table, *(TrialTable.open(source.data) for source in source_tables(recipe.sources))):
            check_captions(each)


def subjects_without_trials(recipes: Sequence[Recipe], table: TrialTable) -> list[str]:
    """What to know before the work of subjects that folds do not test.

    Raises:
        FmriModelsError: A subject has nothing to learn from in a fold.
    """
    untested: dict[str, list[int]] = {}
    for recipe in recipes:
        for name in recipe_subjects(recipe, table):
            # Validation trials that nothing is chosen on are learned from.
            parts = sorted({part for stage in recipe.stages for part in (*stage.train_on, *stage.validate_on)})
            if len(table.trials(name, parts, recipe.split, recipe.fold)) == 0:
                if len(table.all_trials(name)) == 0:
                    raise FmriModelsError(
                        f"All trials of {name} are without a stimulus (the part {schema.UNLABELLED!r}), and the recipe "
                        f"learns from {', '.join(parts)}; learn from fMRI alone, as the recipe mindvis_pretraining "
                        "does, or leave the subject out with subjects=[...]."
                    )
                raise FmriModelsError(
                    f"{name} has no trials in {', '.join(parts)} of the split {recipe.split!r} (fold {recipe.fold}); "
                    "leave the subject out with subjects=[...], or train on another split."
                )
            trained = len(table.trials(name, recipe.train_parts, recipe.split, recipe.fold))
            if trained == 1 and recipe.trains_by_gradient:
                raise FmriModelsError(
                    f"{name} has one trial in {', '.join(recipe.train_parts)} of the split {recipe.split!r} (fold "
                    f"{recipe.fold}), which has no spread to standardise by; leave the subject out with "
                    "subjects=[...], or train on another split."
                )
            # What has no image generator is evaluated nowhere.
            is_tested = recipe.generator is not None
            if is_tested and len(table.trials(name, schema.TEST, recipe.split, recipe.fold)) == 0:
                untested.setdefault(name, []).append(recipe.fold)
    return untested_sentences(untested, recipes[0].split)


def few_stimuli_sentence(recipe: Recipe, table: TrialTable, subjects: Sequence[str]) -> str:
    """What to know before a method learns by gradient from fewer stimuli than it was good with; else empty.

    A start from another model, which has seen more, is not judged.

    Args:
        recipe: Of one fold.
        table: The trial table.
        subjects: Names of the subjects.
    """
    if recipe.initial_model is not None:
        return ""
    trials = [table.trials(name, recipe.train_parts, recipe.split, recipe.fold) for name in subjects]
    count = len({stimulus for each in trials for stimulus in each.stimulus_ids.tolist() if stimulus})
    for stage in recipe.stages:
        if stage.training is None:
            continue
        objective = gradient_objective(recipe, stage)
        # What learns from no pictures is judged by nothing of the kind.
        if objective.targets is not None and not objective.targets:
            continue
        few = objective.few_stimuli if stage.simulation is None else objective.few_stimuli_with_simulation
        if count < few:
            return (
                f"There are {count} training stimuli. With fewer than {few}, this way to train {recipe.method!r} gave "
                "worse pictures than ridge regression wherever both were measured: train the recipe linear on these "
                "data, or compare with the row ridge of the report."
            )
    return ""
