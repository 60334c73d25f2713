"""The pipeline that a training starts from: its weights."""

from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..names import one_line
from ..processing_fmri import FmriProcessor
from .recipe import Recipe
from .restoring import check_spaces
from .same_voxels import check_same_voxels


def check_initial_model_is_used(recipe: Recipe) -> None:
    """Refuses an initial model whose weights are replaced as a whole.

    Raises:
        FmriModelsError: All stages of the recipe are in closed form.
    """
    if recipe.initial_model is not None and not recipe.trains_by_gradient:
        raise FmriModelsError(
            f"The recipe has initial_model={one_line(recipe.initial_model, 120)}, and its stages are fitted in closed "
            f"form, which replaces all weights of the method {recipe.method!r}: it would have no effect. Leave "
            "initial_model out, or train a method by gradient (a stage with training:)."
        )


def load_initial_weights(model: FmriPreTrainedModel, source: str, processor: FmriProcessor) -> None:
    """Starts a model from the weights of a pipeline's brain model.

    Args:
        model: The model that the recipe builds.
        source: The pipeline: a folder or a Hub repository.
        processor: What selects the voxels that the model will read.

    Raises:
        FmriModelsError: The pipeline is of another method, or has other subjects, voxels or spaces.
    """
    initial = read_initial_model(type(model), source)
    if model.has_subject_layers:
        check_spaces(initial.config, model, f"the initial model {source}")
        _check_subjects(initial, model, source)
        check_same_voxels(source, FmriProcessor.from_pretrained(source, subfolder="processor"), processor)
    try:
        model.take_weights(initial)
    except RuntimeError as error:
        raise FmriModelsError(
            f"The initial model {source} has other parts or sizes than the recipe's model; use the options that it was "
            "trained with under model:."
        ) from error


def read_initial_model(model_class: type[FmriPreTrainedModel], source: str) -> FmriPreTrainedModel:
    """The brain model of a pipeline.

    Args:
        model_class: What it has to be.
        source: The pipeline: a folder or a Hub repository.

    Raises:
        FmriModelsError: There is none, or it is of another method.
    """
    try:
        model: FmriPreTrainedModel = model_class.from_pretrained(source, subfolder="brain_model")
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(source, model_class, error) from error
    return model


def _check_subjects(initial: FmriPreTrainedModel, model: FmriPreTrainedModel, source: str) -> None:
    for name in ("subject_names", "num_voxels"):
        found, expected = getattr(initial.config, name), getattr(model.config, name)
        if found != expected:
            raise FmriModelsError(
                f"The initial model {source} has {name} {found} and the recipe's model {expected}; train on the same "
                "subjects and voxels in the same order."
            )


def unreadable(source: str, model_class: type, error: Exception) -> FmriModelsError:
    """The error on an initial model that can't be read."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return FmriModelsError(
        f"The initial model {source} can't be read as a {model_class.__name__} ({first}); give the folder or Hub "
        "repository of a pipeline of the same method."
    )
