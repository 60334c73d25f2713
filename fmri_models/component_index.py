"""An index of components names classes of known libraries and nothing else, so that no code of a folder is run."""

import inspect
import re
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from .adapters import has_adapter_layers
from .errors import FmriModelsError
from .known_classes import component_libraries, find_path, is_method_class
from .names import did_you_mean, one_line
from .reading import read_object, read_text

logger = logging.get_logger(__name__)

CARD_FILE = "README.md"

# As the template of the cards has it.
_PACKAGE_ON_CARD = re.compile(r"of the package `([A-Za-z0-9][A-Za-z0-9._-]{0,79})`, which has to be installed")
_OTHER_MARKS = (("preprocessor_config.json", "feature_extractor_type"), ("adapter_config.json", "peft_type"))


def what_lies_in(folder: Path) -> str | None:
    """What a folder holds and who loads it, for a sentence of somebody who expected something else.

    Returns:
        Such as `"is a whole pipeline, which FmriToImagePipeline.from_pretrained loads"`; None if nothing is known of.
    """
    for file, key in (("model_index.json", "_class_name"), ("config.json", "architectures"), *_OTHER_MARKS):
        if (folder / file).is_file():
            try:
                named = read_object(folder / file, "file", "").get(key)
            except FmriModelsError:
                return None
            break
    else:
        return None
    name = named[0] if isinstance(named, list) and named else named
    shown = one_line(name, 80) if isinstance(name, str) else ""
    if file == "model_index.json":
        if is_method_class(shown):
            return f"is a whole pipeline ({shown}), which FmriToImagePipeline.from_pretrained loads"
        return f"is an image generator or another pipeline ({shown}), which {shown}.from_pretrained loads"
    if file == "config.json":
        by = f"{shown}.from_pretrained" if is_method_class(shown) else "AutoModel.from_pretrained"
        return f"is a network ({shown or 'of no stated class'}), which {by} loads"
    return "is a processor, which FmriProcessor.from_pretrained loads" if "processor" in file else "is a PEFT adapter"


def package_on_card(folder: Path) -> str:
    """Which package the card of a saved pipeline says has to be installed, for a sentence; nothing is imported for it.

    Args:
        folder: The pipeline's folder, or that of one of its components.

    Returns:
        Such as `" (fmri-shallow, says README.md)"`; empty where no card names one.
    """
    for file in (folder / CARD_FILE, folder.absolute().parent / CARD_FILE):
        try:
            named = _PACKAGE_ON_CARD.search(read_text(file, "card", "")) if file.is_file() else None
        # It matters to nobody but for this hint.
        except FmriModelsError:
            named = None
        if named is not None:
            return f" ({named[1]}, says {CARD_FILE})"
    return ""


def check_index_keys(index: Mapping[str, Any], pipeline_class: type, what: str, mend: str) -> None:
    """Refuses a key of an index that is misspelt, and names others that the pipeline does not have.

    Args:
        index: What `model_index.json` says.
        pipeline_class: The class that will be loaded.
        what: What it is, as the beginning of a sentence that goes on with "has".
        mend: What to do, as the end of one.

    Raises:
        FmriModelsError: A key that is not known is spelt almost as one that is.
    """
    parameters = inspect.signature(pipeline_class).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for key in index:
        if key.startswith("_") or key in parameters:
            continue
        if hint := did_you_mean(key, [name for name in parameters if name not in index]):
            raise FmriModelsError(f"{what} has {one_line(repr(key), 80)}, which is not known; {mend}.{hint}")
        logger.warning(f"{what} has {one_line(repr(key), 80)}, which is not known and changes nothing.")


def check_component_index(index: dict[str, Any], what: str, mend: str, components: Iterable[str] | None = None) -> None:
    """Refuses an index that names something else than classes of known libraries, so that nothing of a folder is run.

    Args:
        index: What `model_index.json` says.
        what: What it is, as the beginning of a sentence.
        mend: What to do, as the end of one.
        components: Names that may be components; None allows any.

    Raises:
        FmriModelsError: Names the first entry that is refused.
    """
    if not isinstance(index.get("_class_name"), str):
        raise FmriModelsError(f"{what} has {one_line(repr(index.get('_class_name')), 80)} as its class; {mend}.")
    allowed = component_libraries()
    known = None if components is None else set(components)
    for name, value in index.items():
        if name.startswith("_") or not _is_component(value, name, known):
            continue
        if known is not None and name not in known:
            raise FmriModelsError(f"{what} has the component {one_line(name, 80)!r}, which is not known; {mend}.")
        if value == [None, None]:
            continue
        library, class_name = value if isinstance(value, list) and len(value) == 2 else (None, None)
        are_names = isinstance(library, str) and isinstance(class_name, str) and class_name.isidentifier()
        if not are_names or library not in allowed:
            raise FmriModelsError(
                f"{what} has {one_line(repr(value), 80)} as {name}; expected a class of {', '.join(sorted(allowed))}: "
                f"code of other places is not run; if a package of a method is meant, install it; else {mend}."
            )


def check_component_classes(
    index: Mapping[str, Any], pipeline_class: type, what: str, mend: str, given: Collection[str] = ()
) -> None:
    """Refuses an index of a pipeline that names other classes than its components may have.

    Nothing is imported but libraries whose classes are components anyway; a class has to be what the pipeline's
    signature says. Schedulers, tokenizers and image processors may be any of their library's.

    Args:
        index: What `model_index.json` says.
        pipeline_class: The class that will be loaded.
        what: What it is, as the beginning of a sentence that goes on with "has".
        mend: What to do, as the end of one.
        given: Components that a caller gives, so that their entries do not matter.

    Raises:
        FmriModelsError: Names the first entry that is refused, or that is missing.
    """
    class_name = index.get("_class_name")
    if not isinstance(class_name, str):
        raise FmriModelsError(f"{what} has {one_line(repr(class_name), 80)} as its class; expected one name; {mend}.")
    optional = set(getattr(pipeline_class, "_optional_components", ()))
    for name, allowed in component_classes(pipeline_class).items():
        if name in given:
            continue
        value = index.get(name, [None, None])
        if value == [None, None]:
            if name not in optional:
                raise FmriModelsError(f"{what} has no {name}, without which it can't work; {mend}.")
            continue
        found = component_class(value, allowed, f"{what} has {one_line(repr(value), 80)} as {name}", mend)
        if not issubclass(found, allowed):
            names = " or ".join(each.__name__ for each in allowed)
            raise FmriModelsError(f"{what} has {one_line(repr(value), 80)} as {name}; expected a {names}; {mend}.")


def check_can_be_saved(components: Mapping[str, Any], owner: str) -> None:
    """Refuses components that diffusers would leave out of a saved folder, as if there were none.

    Args:
        components: The components by name.
        owner: What they are components of, for the sentence.

    Raises:
        FmriModelsError: Names the first one and its class.
    """
    for name, component in components.items():
        if component is None:
            continue
        found = type(_without_compilation(component))
        if not _can_be_saved(found):
            raise FmriModelsError(
                f"The {name} of the {owner} is a {type(component).__name__}, which could not be loaded again, so that "
                f"it can't be saved; expected a class of diffusers, transformers or this package: take it out of what "
                "is wrapped around it."
            )
        if not _can_be_found(found):
            raise FmriModelsError(
                f"The {name} of the {owner} is a {found.__name__} of the package {found.__module__.partition('.')[0]}, "
                "which no loader would find, so that it can't be saved; name the class in the package's Method or "
                "GeneratorRecord (as one of its components), and offer that by an entry point."
            )


def check_without_adapters(components: Mapping[str, Any], owner: str, note: str = "") -> None:
    """Refuses networks with layers of PEFT, whose weights nobody finds again under the names that they have then.

    Args:
        components: The components by name.
        owner: What they are components of, for the sentence.
        note: A sentence that is added.

    Raises:
        FmriModelsError: Names the first one, and says how to merge the adapter or to save it apart.
    """
    for name, component in components.items():
        network = _without_compilation(component)
        if not isinstance(network, torch.nn.Module) or not has_adapter_layers(network):
            continue
        # PEFT's wrapper passes this on to the method that has changed the layers.
        if hasattr(network, "merge_and_unload"):
            mend = (
                f"put {name}.merge_and_unload() in its place, or save the adapter by itself with "
                f"{name}.save_pretrained(folder) and put {name}.unload() in its place"
            )
        elif hasattr(network, "unload_lora"):
            mend = (
                f"merge the adapter with {name}.fuse_lora() and {name}.unload_lora(), or save it by itself with "
                f"{name}.save_lora_adapter(folder) before {name}.unload_lora()"
            )
        else:
            mend = f"save the adapter by itself with {name}.save_pretrained(folder), and load {name} without it"
        raise FmriModelsError(
            f"The {name} of the {owner} ({type(network).__name__}) has layers of a PEFT adapter and could not be "
            f"loaded again; {mend}.{note}"
        )


def _can_be_saved(found: type) -> bool:
    from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

    bases = [
        getattr(sys.modules[library], name, None)
        for library, names in LOADABLE_CLASSES.items()
        if library in sys.modules
        for name in names
    ]
    return any(issubclass(found, base) for base in bases if base is not None)


def _can_be_found(found: type) -> bool:
    from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

    library = found.__module__.partition(".")[0]
    if library in LOADABLE_CLASSES:
        return True
    path = find_path(found.__name__)
    return path is not None and path.startswith((f"{library}:", f"{library}."))


def _without_compilation(component: Any) -> Any:
    """A network itself, of what `torch.compile` has made of it."""
    return getattr(component, "_orig_mod", component) if isinstance(component, torch.nn.Module) else component


def component_classes(pipeline_class: Any) -> dict[str, tuple[type, ...]]:
    """The components of a pipeline class, each with the classes that it may be (or be derived from)."""
    names, _ = pipeline_class._get_signature_keys(pipeline_class)
    hints = typing.get_type_hints(pipeline_class.__init__)
    return {name: _base_classes(hints[name]) for name in names}


def component_class(value: Any, allowed: Iterable[type], start: str, mend: str) -> type:
    """The class that an entry `[library, class]` of an index names.

    Args:
        value: The entry.
        allowed: What the component may be; their own modules may be named, too.
        start: Beginning of a sentence on the entry.
        mend: End of one.

    Raises:
        FmriModelsError: It has another form, or names something else than a class of a known library.
    """
    import diffusers
    from diffusers.pipelines.pipeline_loading_utils import _fetch_class_library_tuple
    from diffusers.utils.deprecation_utils import _maybe_remap_transformers_class

    libraries = component_libraries()
    library, class_name = value if isinstance(value, list) and len(value) == 2 else (None, None)
    if not isinstance(library, str) or not isinstance(class_name, str):
        raise FmriModelsError(f"{start}; expected the name of a library and that of a class; {mend}.")
    # Some of diffusers' pipelines have components of their own, which are named by the pipeline's module.
    own_libraries = {_fetch_class_library_tuple(each)[0] for each in allowed}
    if library in libraries:
        module: Any = sys.modules.get(library)
    elif library in own_libraries:
        module = getattr(diffusers.pipelines, library, None)
    else:
        raise FmriModelsError(
            f"{start}; expected a class of {', '.join(sorted(libraries))}: code of other places is not run; {mend}."
        )
    if library == "transformers":
        class_name = _maybe_remap_transformers_class(class_name) or class_name
    found = getattr(module, class_name, None) if class_name.isidentifier() else None
    if not isinstance(found, type):
        raise FmriModelsError(f"{start}, and {library} has no such class; {mend}.")
    return found


def _is_component(value: Any, name: str, known: set[str] | None) -> bool:
    """Lists of numbers are values of the configuration, everything else that is a list names a class."""
    if known is not None and name in known:
        return True
    return isinstance(value, list) and len(value) == 2 and not all(isinstance(v, int | float) for v in value)


def _base_classes(hint: Any) -> tuple[type, ...]:
    """The classes that an annotation means; broader where a library's classes stand for each other."""
    alternatives = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(_base_class(each) for each in alternatives if each is not types.NoneType)


def _base_class(stated: type) -> type:
    from diffusers import SchedulerMixin
    from diffusers.schedulers import KarrasDiffusionSchedulers
    from transformers import ImageProcessingMixin, PreTrainedTokenizerBase

    if stated is KarrasDiffusionSchedulers:
        return SchedulerMixin
    bases = (SchedulerMixin, PreTrainedTokenizerBase, ImageProcessingMixin)
    return next((base for base in bases if issubclass(stated, base)), stated)
