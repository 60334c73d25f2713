"""The objective of a stage: the method's, with the arguments that the recipe gives it."""

from collections.abc import Mapping
from typing import Any

from ..deprecation import RenamedField
from ..errors import FmriModelsError
from ..objectives import ClosedFormObjective, GradientObjective, Objective, derived_objective
from ..option_types import check_fields
from ..registry import get_method, method_names
from .recipe import Recipe, Stage, named_by_stage


def stage_objective(recipe: Recipe, stage: Stage) -> Objective:
    """The objective of a stage, of the one kind or the other.

    Raises:
        FmriModelsError: The arguments do not fit, or the objective is not of the kind that the stage says.
    """
    return closed_form_objective(recipe, stage) if stage.training is None else gradient_objective(recipe, stage)


def closed_form_objective(recipe: Recipe, stage: Stage) -> ClosedFormObjective[Any]:
    """The objective of a stage in closed form; raises as [`stage_objective`]."""
    objective = _made(recipe, stage)
    if not isinstance(objective, ClosedFormObjective):
        raise FmriModelsError(
            f"The stage {stage.name!r} says nothing on training, but the method {recipe.method!r} is trained by "
            "gradient; give the stage training: with at least steps or epochs."
        )
    if recipe.repetitions == "all":
        raise _takes_one_pattern(recipe)
    return objective


def gradient_objective(recipe: Recipe, stage: Stage) -> GradientObjective[Any]:
    """The objective of a stage that is trained by gradient; raises as [`stage_objective`]."""
    objective = _made(recipe, stage)
    if not isinstance(objective, GradientObjective):
        raise FmriModelsError(
            f"The stage {stage.name!r} has training options, but the method {recipe.method!r} is fitted in closed "
            "form; leave training out."
        )
    if recipe.repetitions == "all" and not objective.takes_repetitions:
        raise _takes_one_pattern(recipe)
    return objective


def with_current_names(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it was recorded, whose objectives' options are called what they are called now.

    One of a method that is not there any more is given as it is.
    """
    method, stages = recorded.get("method"), recorded.get("stages")
    if method not in method_names() or not isinstance(stages, list):
        return dict(recorded)
    fields: Mapping[str, RenamedField] = getattr(get_method(str(method)).load("objective"), "renamed_fields", {})
    renamed = {former: field.now for former, field in fields.items()}

    def current(stage: Any) -> Any:
        if not isinstance(stage, dict) or not isinstance(stage.get("objective"), dict):
            return stage
        return {**stage, "objective": {renamed.get(key, key): value for key, value in stage["objective"].items()}}

    return {**recorded, "stages": [current(stage) for stage in stages]}


def _made(recipe: Recipe, stage: Stage) -> Objective:
    objective_class = derived_objective(get_method(recipe.method).load("objective"))
    number = next((index for index, each in enumerate(recipe.stages) if each is stage), 0)
    try:
        with named_by_stage(number):
            check_fields(stage.objective, objective_class, "objective.", "correct the recipe")
            return objective_class(**stage.objective)
    except TypeError as error:
        raise FmriModelsError(f"The stage {stage.name!r} has an objective that does not fit: {error}.") from error


def _takes_one_pattern(recipe: Recipe) -> FmriModelsError:
    return FmriModelsError(
        f"repetitions is 'all', and the method {recipe.method!r} learns from one pattern a row; choose "
        "'average' or 'single'."
    )
