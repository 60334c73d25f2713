"""New subjects for a trained model: what their training starts from, and what of the model learns in it."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..adapters import without_adapter_layers
from ..configuration_fmri import FmriConfig
from ..errors import FmriModelsError
from ..hub_repository import NotFetchedError, is_folder, local_folder
from ..modeling_fmri import FmriPreTrainedModel
from ..names import listed, one_line
from ..processing_fmri import FmriProcessor
from ..registry import get_method
from ..subject_adapters import adapted_subjects, put_subject_lora, shared_layers, subject_lora_parameters
from ..subject_modules import subject_modules
from ..swapping import recover
from ..training_record import TRAINING_FILE, TrainingRecord
from .adaptation_options import subject_lora
from .initial_model import read_initial_model, unreadable
from .recipe import Recipe
from .stage_objectives import gradient_objective
from .training_subjects import TrainingSubjects


def base_processor(recipe: Recipe) -> FmriProcessor:
    """The processor of the pipeline that subjects are added to, with the recipe's `unseen_session` if it states one.

    Raises:
        FmriModelsError: There is no such pipeline.
    """
    source = str(recipe.initial_model)
    try:
        processor = FmriProcessor.from_pretrained(source, subfolder="processor")
    except (OSError, ValueError) as error:
        raise unreadable(source, get_method(recipe.method).load("model"), error) from error
    if "unseen_session" in recipe.processor:
        processor.unseen_session = recipe.processor["unseen_session"]
    return processor


def base_configuration(recipe: Recipe) -> FmriConfig:
    """The configuration of the brain model that subjects are added to.

    Raises:
        FmriModelsError: There is no such pipeline, or it is of another method.
    """
    source = str(recipe.initial_model)
    config_class: type[FmriConfig] = get_method(recipe.method).load("config")
    try:
        config: FmriConfig = config_class.from_pretrained(source, subfolder="brain_model")
    except (OSError, ValueError) as error:
        raise unreadable(source, get_method(recipe.method).load("model"), error) from error
    return config


def base_tables(recipe: Recipe) -> list[str]:
    """Fingerprints of the tables that the base was trained on, as its record says; none where there is no record."""
    source = str(recipe.initial_model)
    try:
        folder = local_folder(source, [TRAINING_FILE])
    except NotFetchedError as error:
        raise unreadable(source, get_method(recipe.method).load("model"), error) from error
    if is_folder(source):
        recover(folder)
    record = TrainingRecord.load(folder)
    if record is None:
        return []
    return [
        record.table_fingerprint,
        *(each.table_fingerprint for each in record.learned_from or [] if not each.fmri_of),
    ]


def adapted_model(recipe: Recipe, subjects: TrainingSubjects, generator: Any) -> FmriPreTrainedModel:
    """The base model with layers of the new subjects, as they begin.

    Args:
        recipe: The recipe, with an adaptation.
        subjects: Whom the model will have.
        generator: Names the spaces.

    Raises:
        FmriModelsError: The base is of another method, or has other spaces or no layers of subjects; or it has a
            subject of a new one's name.
    """
    source = str(recipe.initial_model)
    model_class: Any = get_method(recipe.method).load("model")
    model = read_initial_model(model_class, source)
    for name, space in generator_spaces(model, generator).items():
        own = model.config.space(name)
        if own is not None and space is not None:
            own.require_equal(space, f"the initial model {one_line(source, 120)}", "the image generator")
    if not subject_modules(model):
        raise FmriModelsError(
            f"The method {recipe.method!r} has no layers of subjects that could be added; train it with initial_model "
            "and without adaptation."
        )
    if recipe.adaptation == "full" and (adapted := adapted_subjects(model)):
        raise FmriModelsError(
            f"{listed(adapted)} of the initial model have LoRA, which belongs to weights that adaptation: full would "
            "change; choose reset or lora, or merge theirs into a model of their own."
        )
    widths = dict(zip(subjects.own.subject_names, subjects.own.num_voxels, strict=True))
    for name, width in widths.items():
        model.add_subject(name, width)
    return model


def generator_spaces(model: FmriPreTrainedModel, generator: Any) -> dict[str, Any]:
    """Name of a space that the model decodes into ▶ the generator's."""
    names = ("image_embedding_space", "text_embedding_space", "latent_space")
    return {name: getattr(generator, name, None) for name in names if model.config.space(name) is not None}


def put_lora(recipe: Recipe, model: FmriPreTrainedModel, new_subjects: Sequence[str]) -> None:
    """Puts the LoRA of the new subject on the layers that all share and that the recipe's stages train.

    Raises:
        FmriModelsError: There are several new subjects, or no such layer.
    """
    if len(new_subjects) != 1:
        raise FmriModelsError(
            f"adaptation: lora is for one new subject at a time, and the recipe has {listed(list(new_subjects))}; name "
            "one with subjects=[NAME]."
        )
    options = subject_lora(recipe.lora)
    trained = {
        id(parameter) for stage in recipe.stages for parameter in gradient_objective(recipe, stage).trainable(model)
    }
    with without_adapter_layers(model):
        own: dict[str, Any] = dict(model.named_modules())
    layers = [name for name in shared_layers(model, options.parts) if id(own[name].weight) in trained]
    put_subject_lora(model, new_subjects[0], layers, options.r, options.alpha, options.dropout, recipe.seed)


def learning_parameters(
    recipe: Recipe, model: FmriPreTrainedModel, subjects: TrainingSubjects
) -> list[nn.Parameter] | None:
    """What may learn in an adaptation, as far as an objective trains it; None without an adaptation, for all.

    Layers of subjects without rows stay as they are, in `full` too: weight decay would shrink them.

    Args:
        recipe: The recipe.
        model: With the new subjects, and LoRA where there is some.
        subjects: Whom it learns from.
    """
    if recipe.adaptation is None:
        return None
    new = [*subjects.own.subject_names, *subjects.passing]
    own = [parameter for name in new for parameter in subject_parameters(model, name)]
    if recipe.adaptation == "reset":
        return own
    if recipe.adaptation == "lora":
        return [*own, *subject_lora_parameters(model, subjects.own.subject_names[0]).values()]
    resting = {
        id(parameter)
        for name in set(model.config.subject_names) - set(new) - _in_sources(subjects)
        for parameter in subject_parameters(model, name)
    }
    return [parameter for parameter in model.parameters() if id(parameter) not in resting]


def subject_parameters(model: nn.Module, subject: str) -> list[nn.Parameter]:
    """The parameters of a subject's own layers."""
    return [
        parameter
        for layers in subject_modules(model).values()
        if subject in layers
        for parameter in layers[subject].parameters()
    ]


def _in_sources(subjects: TrainingSubjects) -> set[str]:
    return {source.names[name] for source in subjects.sources for name in source.in_base}
