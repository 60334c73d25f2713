"""Which options a recipe takes, with all that it configures, as they are declared where they are used."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ..configuration_fmri import FmriConfig
from ..data.augmentation import PictureAugmentation
from ..drawing_settings import DrawingSettings
from ..generation.loading import image_generator_class, image_generator_classes
from ..generation.source import GeneratorSource
from ..guides import GuideSource
from ..processing_fmri import FmriProcessor
from ..registry import GENERATORS, get_method
from ..typed_values import Candidates, OneOf, Options, check_key, list_of, opened, options_of, typed
from .adaptation_options import SubjectLora
from .learning_generator import GeneratorLora, GeneratorTraining
from .options import TrainingOptions
from .sources import SourceTable
from .trial_simulation import TrialSimulation
from .unpaired import UnpairedSource

# What a recipe may say of its generator in place of a name.
GENERATOR_KEYS = ("name", "repository", "revision", "subfolder", "dtype", "options")
# What the processor is told by the recipe's own keys.
OWN_PROCESSOR_KEYS = ("subjects", "parts", "split", "fold", "table", "needed")
# What the settings of a selection may change.
SELECTABLE = ("model", "processor", "stages")


def declared_options(
    values: Mapping[str, Any], recipe_class: type, stage_class: type, selection_class: type
) -> Options:
    """The options of a recipe.

    Args:
        values: Name the method, and the generator if they say anything of it.
        recipe_class: The dataclass whose fields are a recipe's keys.
        stage_class: The same of a stage.
        selection_class: The same of a selection.

    Raises:
        FmriModelsError: There is no such method.
    """
    method = get_method(typed(values["method"], str, "method"))
    lora = options_of(GeneratorLora)
    stage = {
        "objective": options_of(method.load("objective")),
        "training": OneOf((options_of(TrainingOptions), None, Any)),
        "augmentation": OneOf((str, options_of(PictureAugmentation), Any)),
        "simulation": OneOf((options_of(TrialSimulation), None)),
        "image_generator": OneOf((_changed(GeneratorTraining, {"lora": OneOf((lora, None))}), None)),
        "unpaired": OneOf((list_of(options_of(UnpairedSource)), None)),
    }
    recipe = {
        "lora": OneOf((options_of(SubjectLora), None)),
        "sources": OneOf((list_of(OneOf((str, options_of(SourceTable)))), None)),
        "stages": OneOf((list_of(OneOf((_changed(stage_class, stage), Any))), Any)),
        "guides": OneOf((options_of(GuideSource), list_of(options_of(GuideSource)), None, Any)),
        "generator": OneOf((str, _generator_options(values.get("generator")), None, Any)),
        "processor": _processor_options(),
        "model": _model_options(method.load("config")),
        "drawing": _each_or_none(options_of(DrawingSettings)),
    }
    selectable = _changed(recipe_class, recipe)
    candidates = list_of(Candidates(selectable, SELECTABLE))
    selection = OneOf((_changed(selection_class, {"candidates": OneOf((candidates, Any))}), None, Any))
    return _changed(recipe_class, {**recipe, "selection": selection})


def _changed(dataclass: type, changes: Mapping[str, Any]) -> Options:
    """The options of a dataclass, with more said of some of them."""
    return Options({**options_of(dataclass).types, **changes})


def _each_or_none(options: Options) -> Options:
    """Options of which each may also be null, which leaves it as it is."""
    return Options({name: OneOf((declared, None)) for name, declared in options.types.items()})


def _model_options(config_class: type[FmriConfig]) -> Options:
    """All fields of the configuration, of which those are offered that a recipe may set."""
    options: Options = options_of(config_class)
    return replace(options, offered=config_class.free_fields())


def _processor_options() -> Options:
    # The constructor takes any name for what files of other versions may hold.
    known = options_of(FmriProcessor, without=("subject_names",)).types
    return Options({**known, **dict.fromkeys(OWN_PROCESSOR_KEYS, Any)})


def _generator_options(generator: Any) -> Options:
    """What may be said of the generator; those of its own are refused by name where the generator is known."""
    found = opened(generator)
    own: dict[str, Any] = {}
    if isinstance(found, dict) and "options" in found:
        name = str(found.get("name"))
        is_known = name in GENERATORS.names()
        for each in [image_generator_class(name)] if is_known else image_generator_classes():
            own |= options_of(each.options).types
    known = {**options_of(GeneratorSource).types, "options": Options(own, closed=False)}
    return Options({name: known[name] for name in GENERATOR_KEYS}, closed=False)


def check_keys(values: Mapping[str, Any], dataclass: type, what: str) -> None:
    """Refuses keys that are no field of a dataclass.

    Raises:
        FmriModelsError: Names the first one, and the field that is closest to it.
    """
    for key in values:
        check_key(key, [item.name for item in fields(dataclass)], what)
