"""Name ▶ method. Everyone asks here by name; nobody imports a method's folder.

A folder `models/<name>/` describes itself by a `METHOD` in its `__init__.py`; packages of others call
[`register_method`].
"""

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import FmriModelsError
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
    _register_with_transformers(method)


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


def card_writer() -> Callable[..., Path]:
    """What writes a model card into a saved pipeline; by name, because cards stand above pipelines."""
    return _import_class(f"{__package__}.hub.cards:write_card_of_folder")


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


def register_with_libraries() -> None:
    """Tells transformers' Auto classes and diffusers' loader about the package; called before anything is loaded."""
    register_with_diffusers(__name__.split(".")[0])
    for method in _methods().values():
        _register_with_transformers(method)


@cache
def register_with_diffusers(package: str) -> None:
    """Tells diffusers' loader that a package has classes of components; each has to be an attribute of the package."""
    from diffusers.pipelines import pipeline_loading_utils

    # A private table of diffusers 0.42 (hence the upper bound on its version); test_pipeline_common.py notices when it
    # moves. Without the entry, diffusers neither saves nor loads a component class from outside.
    how = ["save_pretrained", "from_pretrained"]
    bases = ("PreTrainedModel", "FeatureExtractionMixin", "DiffusionPipeline", "ModelMixin")
    pipeline_loading_utils.LOADABLE_CLASSES[package] = dict.fromkeys(bases, how)


def component_libraries() -> set[str]:
    """Libraries whose classes may be components of a saved pipeline: nothing else is imported for one."""
    packages = {path.split(":")[0].split(".")[0] for path in _class_paths()}
    return {"diffusers", "transformers", __name__.split(".")[0], *packages}


@cache
def _register_with_transformers(method: Method) -> None:
    from transformers import AutoConfig, AutoModel

    config_class = method.load("config")
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, method.load("model"), exist_ok=True)
