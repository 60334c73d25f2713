"""Name ▶ method. Everyone asks here by name; nobody imports a method's folder.

A folder `models/<name>/` describes itself by a `METHOD` in its `__init__.py`; packages of others call
[`register_method`].
"""

import pkgutil
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import FmriModelsError
from .late import CompletedDict, when_imported
from .names import did_you_mean, one_line


@dataclass(frozen=True)
class Method:
    """Where the parts of a method are, as `"module:Class"` strings, so that listing methods imports none of them.

    Args:
        name: Name in recipes and on the command line.
        title: Name for people, with authors and year.
        config: The `FmriConfig` subclass.
        model: The `FmriPreTrainedModel` subclass.
        output: The `ModelOutput` subclass that the model's forward returns.
        pipeline: The `FmriToImagePipeline` subclass.
        objective: What training needs beyond the network.
        converter: The function that reads published checkpoints, as `"module:function"`: it takes the checkpoint,
            `low_level_checkpoint=` and fields of the configuration, and returns a [`Conversion`]. None where no
            checkpoints were published.
    """

    name: str
    title: str
    config: str
    model: str
    output: str
    pipeline: str
    objective: str
    converter: str | None = None

    @property
    def class_paths(self) -> tuple[str, ...]:
        """The parts that are public classes of the package."""
        return (self.config, self.model, self.output, self.pipeline)

    def find(self, class_name: str) -> Any:
        """Imports a part by the name of its class, for the `__getattr__` of the method's folder.

        Raises:
            AttributeError: No part has that name.
        """
        for path in (*self.class_paths, self.objective):
            if path.endswith(f":{class_name}"):
                return _import_class(path)
        raise AttributeError(f"method {self.name!r} has no part {class_name!r}")

    def load(self, part: str) -> Any:
        """Imports one part: `"config"`, `"model"`, `"output"`, `"pipeline"`, `"objective"` or `"converter"`."""
        return _import_class(getattr(self, part))


@dataclass(frozen=True)
class Conversion:
    """What a method's converter makes of published checkpoints.

    Args:
        model: The brain model.
        expects: Which betas it takes, in words, since published checkpoints come without statistics.
        image_generator: The generator that it was published with, by the fields of `GeneratorSource`; None if the
            model does not decode what that generator takes.
        drawing_settings: What it was published with, as far as that differs from the settings of the generator's class.
    """

    model: Any
    expects: str
    image_generator: Mapping[str, Any] | None = None
    drawing_settings: Mapping[str, Any] | None = None


_registered: dict[str, Method] = {}


def register_method(method: Method) -> None:
    """Adds a method from another package, which then works by name like the built-in ones.

    Raises:
        FmriModelsError: Another method has that name.
    """
    if _methods().get(method.name, method) != method:
        raise FmriModelsError(f"A method named {method.name!r} is registered already; choose another name.")
    _registered[method.name] = method
    for path in method.class_paths:
        register_with_diffusers(path.split(".")[0].split(":")[0])


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(_methods())


def get_method(name: str) -> Method:
    """Finds a method by name.

    Raises:
        FmriModelsError: There is none; the message names those that are.
    """
    methods = _methods()
    if name not in methods:
        shown = one_line(repr(name), 80)
        raise FmriModelsError(
            f"There is no method {shown}; those there are: {', '.join(sorted(methods))}.{did_you_mean(name, methods)}"
        )
    return methods[name]


def find_class(class_name: str) -> Any | None:
    """A public class of any method by its bare name, or None."""
    for path in _class_paths():
        if path.endswith(f":{class_name}"):
            return _import_class(path)
    return None


def find_model(model_type: str) -> Any | None:
    """The brain model whose configuration is of some `model_type`, or None."""
    for method in _methods().values():
        if method.load("config").model_type == model_type:
            return method.load("model")
    return None


def card_writer() -> Callable[..., Path]:
    """What writes a model card into a saved pipeline; by name, because cards stand above pipelines."""
    return _import_class(f"{__package__}.hub.cards:write_card_of_folder")


def report_finder() -> Callable[[Path], list[str]]:
    """What names the files of a report that lie in a folder; by name, too."""
    return _import_class(f"{__package__}.hub.cards:report_files")


def class_names() -> list[str]:
    """Bare names of the public classes of all methods."""
    return sorted(path.split(":")[1] for path in _class_paths())


def _class_paths() -> Iterator[str]:
    for method in _methods().values():
        yield from method.class_paths


def _methods() -> dict[str, Method]:
    return {**_built_in_methods(), **_registered}


@cache
def _built_in_methods() -> dict[str, Method]:
    # Found by folder, so that nothing below the models imports one of them.
    names = [info.name for info in pkgutil.iter_modules([str(Path(__file__).parent / "models")])]
    found = (import_module(f".models.{name}", __package__).METHOD for name in names)
    return {method.name: method for method in found}


def _import_class(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


@cache
def register_with_libraries() -> None:
    """Tells transformers' Auto classes and diffusers' loaders about the package, as soon as they are imported.

    Nothing is imported here. Classes of ours are when one of these libraries asks for something that it does not know.
    """
    package = __name__.split(".")[0]
    for module, mapping in _AUTO_MAPPINGS.items():
        when_imported(module, partial(_complete_auto_mapping, mapping))
    register_with_diffusers(package)
    when_imported("diffusers", _add_pipeline_classes)


# The dictionaries behind AutoConfig, AutoModel, AutoFeatureExtractor and AutoProcessor.
_AUTO_MAPPINGS = {
    "transformers.models.auto.configuration_auto": "CONFIG_MAPPING",
    "transformers.models.auto.modeling_auto": "MODEL_MAPPING",
    "transformers.models.auto.feature_extraction_auto": "FEATURE_EXTRACTOR_MAPPING",
    "transformers.models.auto.processing_auto": "PROCESSOR_MAPPING",
}


def _complete_auto_mapping(name: str, module: ModuleType) -> None:
    """Lets transformers' mapping ask for our classes where it has none of its own.

    `register` of the Auto classes wants classes, which would be imported in the middle of transformers' own imports.
    """
    mapping = getattr(module, name)
    native = getattr(mapping, "_mapping", ())
    mapping._extra_content = CompletedDict(
        mapping._extra_content,
        register_with_transformers,
        lambda key: (
            key in native if isinstance(key, str) else str(getattr(key, "__module__", "")).startswith("transformers.")
        ),
    )


def register_with_transformers() -> None:
    """Registers the configuration, the model and the processor of every method, by transformers' own means."""
    for method in _methods().values():
        _register_method_with_transformers(method)


@cache
def _register_method_with_transformers(method: Method) -> None:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

    config_class, processor_class = method.load("config"), _import_class(f"{__package__}.processing_fmri:FmriProcessor")
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, method.load("model"), exist_ok=True)
    AutoFeatureExtractor.register(config_class, processor_class, exist_ok=True)
    AutoProcessor.register(config_class, processor_class, exist_ok=True)


@cache
def register_with_diffusers(package: str) -> None:
    """Tells diffusers' loader that a package has classes of components; each has to be an attribute of the package."""
    # A private table of diffusers 0.42 (hence the upper bound on its version); test_pipeline_common.py notices when it
    # moves. Without the entry, diffusers neither saves nor loads a component class from outside.
    how = ["save_pretrained", "from_pretrained"]
    bases = ("PreTrainedModel", "FeatureExtractionMixin", "DiffusionPipeline", "ModelMixin")

    def add(module: Any) -> None:
        module.LOADABLE_CLASSES[package] = dict.fromkeys(bases, how)

    when_imported("diffusers.pipelines.pipeline_loading_utils", add)


def _add_pipeline_classes(diffusers: Any) -> None:
    """Lets `DiffusionPipeline.from_pretrained` find our pipelines, which it looks up as attributes of diffusers."""
    # A plain module, with everything imported, where diffusers was told to be one.
    if isinstance(getattr(diffusers, "_objects", None), dict):
        diffusers._objects = _PipelineClasses(diffusers._objects, diffusers._class_to_module)


class _PipelineClasses(dict[str, Any]):
    """Objects of diffusers by name, and the pipelines and image generators of this package under names that it lacks.

    Args:
        objects: What diffusers has there itself.
        own: Names of diffusers' own classes, which go first.
    """

    def __init__(self, objects: Mapping[str, Any], own: Container[str]) -> None:
        super().__init__(objects)
        self._own = own

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        return isinstance(name, str) and name not in self._own and name in pipeline_class_names()

    def __getitem__(self, name: str) -> Any:
        if super().__contains__(name):
            return super().__getitem__(name)
        return getattr(import_module(__package__ or ""), name)


def pipeline_class_names() -> set[str]:
    """Names of the classes of pipelines and image generators that a saved folder may be of."""
    generators = {name for name in import_module(__package__ or "").__all__ if name.endswith("ImageGenerator")}
    of_methods = {method.pipeline.split(":")[1] for method in _methods().values()}
    return {"FmriToImagePipeline", "ClipTargets", *generators, *of_methods} - {"ImageGenerator"}


def component_libraries() -> set[str]:
    """Libraries whose classes may be components of a saved pipeline: nothing else is imported for one."""
    packages = {path.split(":")[0].split(".")[0] for path in _class_paths()}
    return {"diffusers", "transformers", __name__.split(".")[0], *packages}
