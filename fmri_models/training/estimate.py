"""What a recipe will cost, before it costs anything."""

from collections.abc import Iterable

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..terminal_text import voxels_read
from .before_training import check_captions_are_there, check_guides_are_there, check_machine, few_stimuli_sentence
from .building import recipe_subjects
from .cost_by_gradient import cost_by_gradient
from .cost_in_closed_form import cost_in_closed_form
from .earlier_trainings import warn_of_seen_test_pictures, warn_of_test_fmri
from .initial_model import check_initial_model_is_used
from .recipe import Recipe
from .settling import settled_recipe
from .sources import refuse_tested_pictures
from .stage_examples import num_examples


def as_text(lines: Iterable[tuple[str, str]]) -> str:
    """An estimate for a terminal, a line each."""
    return "\n".join(f"{key:<11}{value}" for key, value in lines)


def estimate(recipe: Recipe) -> str:
    """What [`estimated`] finds, as a text of one line each."""
    return as_text(estimated(recipe))


def estimated(recipe: Recipe) -> list[tuple[str, str]]:
    """Parameters, memory, disk, steps and time of a recipe: names and what is to be said of them.

    All but time is counted on a model without weights. The time of a closed-form fit is its arithmetic over this
    machine's measured speed in matrix products; that of a stage that is trained by gradient comes from a few real steps
    on real batches, whose results are thrown away. Steps are not timed where the model would fill the memory, or where
    the image generator has weights of gigabytes, which an estimate does not load.

    Raises:
        FmriModelsError: The recipe does not fit the data or the machine.
    """
    if not recipe.data:
        raise FmriModelsError("The recipe has no data; add data=FOLDER.")
    check_machine(recipe)
    check_guides_are_there(recipe)
    check_initial_model_is_used(recipe)
    table = TrialTable.open(recipe.data)
    check_captions_are_there(recipe, table)
    recipe = settled_recipe(recipe, table, recipe_subjects(recipe, table))
    if recipe.initial_model is not None:
        warn_of_seen_test_pictures(recipe, table, recipe_subjects(recipe, table))
    warn_of_test_fmri(recipe, table, recipe_subjects(recipe, table))
    refuse_tested_pictures(recipe, table, recipe_subjects(recipe, table))
    counted = cost_by_gradient if recipe.trains_by_gradient else cost_in_closed_form
    model, lines = counted(recipe, table)
    lines = [*_what(recipe, table, model), *lines]
    if described := recipe.target_options.described:
        lines.append(("targets", "; ".join(described)))
    if recipe.selection is not None:
        candidates, folds = len(recipe.selection.candidates), recipe.selection.folds
        lines.append(
            (
                "selection",
                f"{candidates} candidates on {folds} inner folds before that: {candidates * folds} trainings on "
                f"{1 - 1 / folds:.0%} of the stimuli each",
            )
        )
    if sentence := few_stimuli_sentence(recipe, table, recipe_subjects(recipe, table)):
        lines.append(("note", sentence))
    return lines


def _what(recipe: Recipe, table: TrialTable, model: FmriPreTrainedModel) -> list[tuple[str, str]]:
    widths = zip(model.config.subject_names, model.config.num_voxels, strict=True)
    own = recipe_subjects(recipe, table)
    subjects = [
        f"{name} ({voxels_read(table.num_voxels(name), width)}, "
        f"{num_examples(recipe, table, name, recipe.train_parts):,} rows)"
        if name in own
        else f"{name} ({width:,} columns, not of this table)"
        for name, width in widths
    ]
    return [
        ("method", recipe.method),
        ("subjects", ", ".join(subjects)),
        ("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}"),
    ]
