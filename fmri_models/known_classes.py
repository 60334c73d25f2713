"""The classes of methods and image generators by their bare names, as saved folders name them, and no others."""

import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from .entry_points import OWN_PACKAGE
from .errors import FmriModelsError
from .names import listed
from .records import bare_name, import_path, load_or_warn
from .registry import GENERATORS, METHODS, own_class_paths

_KNOWN_LIBRARIES = ("diffusers", "transformers", OWN_PACKAGE)


def find_class(class_name: str) -> Any | None:
    """A public class of any method or image generator by its bare name, or None.

    Raises:
        FmriModelsError: Packages of others have several of that name.
    """
    path = find_path(class_name)
    return None if path is None else import_path(path)


def find_path(class_name: str) -> str | None:
    """Where a public class of any method or image generator is, as `"module:Class"`; it is not imported for it.

    Raises:
        FmriModelsError: Packages of others have several of that name.
    """
    for path in own_class_paths():
        if bare_name(path) == class_name:
            return path
    if _is_loader_base(class_name):
        return None
    found = sorted({path for path in _class_paths() if bare_name(path) == class_name})
    if len(found) > 1:
        raise FmriModelsError(
            f"There are several classes named {class_name}: {listed(found)}; uninstall one of these packages, or load "
            "with the class itself."
        )
    return found[0] if found else None


def find_model(model_type: str) -> Any | None:
    """The brain model whose configuration is of some `model_type`, or None."""
    for method in METHODS.in_order():
        config = load_or_warn(method.config)
        if config is not None and config.model_type == model_type:
            return method.load("model")
    return None


def class_names() -> list[str]:
    """Bare names of the public classes of all methods, without those of packages that nobody has used yet."""
    return sorted({bare_name(path) for method in METHODS.at_hand() for path in method.class_paths})


def is_method_class(class_name: object) -> bool:
    """Whether a public class of a method has that name."""
    # No package of others is imported for what is of this one.
    for methods in (METHODS.own(), METHODS.in_order()):
        if any(bare_name(path) == class_name for method in methods for path in method.class_paths):
            return True
        if any(bare_name(path) == class_name for path in own_class_paths()):
            return False
    return False


def is_pipeline_class(class_name: str) -> bool:
    """Whether a saved folder may be of that class: a pipeline, or an image generator."""
    if class_name == "FmriToImagePipeline":
        return True
    if _is_loader_base(class_name):
        return False
    for methods, generators in ((METHODS.own(), GENERATORS.own()), (METHODS.in_order(), GENERATORS.in_order())):
        of_methods = (method.pipeline for method in methods)
        of_generators = (record.generator for record in generators)
        if any(bare_name(path) == class_name for path in chain(of_methods, of_generators)):
            return True
    return False


def component_libraries() -> set[str]:
    """Libraries whose classes may be components of a saved pipeline: nothing else is imported for one."""
    return {*_KNOWN_LIBRARIES, *METHODS.modules(), *GENERATORS.modules()}


def entries_of_index(values: Mapping[str, Any]) -> dict[str, Any]:
    """How an index of components names classes of others' methods and generators: as those of this package.

    A loader looks a class, and the base class that says how it is loaded, up in the package that the index names.

    Args:
        values: What a pipeline notes: (package, class name) of components, and other values.
    """
    return {name: _entry_of_index(value) for name, value in values.items()}


def _entry_of_index(value: Any) -> Any:
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(each, str) for each in value):
        return value
    library, class_name = value
    path = None if library in _KNOWN_LIBRARIES else find_path(class_name)
    if path is None:
        return value
    # diffusers calls it by its package, by its module, or by the folder that it is in.
    package, *within = path.partition(":")[0].split(".")
    return (OWN_PACKAGE, class_name) if library.partition(".")[0] == package or library in within else value


def _is_loader_base(class_name: str) -> bool:
    """Whether the loader of diffusers asks each library for a class of that name, whatever it loads."""
    table = sys.modules.get("diffusers.pipelines.pipeline_loading_utils")
    return any(class_name in classes for classes in getattr(table, "LOADABLE_CLASSES", {}).values())


def _class_paths() -> Iterator[str]:
    for registry in (METHODS, GENERATORS):
        for record in registry.in_order():
            yield from record.class_paths
