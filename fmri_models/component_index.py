"""An index of components names classes of known libraries and nothing else, so that no code of a folder is run."""

import inspect
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from transformers.utils import logging

from .errors import FmriModelsError
from .hub_repository import FETCH_OPTIONS
from .names import did_you_mean, one_line
from .registry import component_libraries

logger = logging.get_logger(__name__)

# What `DiffusionPipeline.from_pretrained` takes besides components and arguments of the constructor; of others it only
# notes in the log that it passes over them.
DIFFUSERS_LOAD_OPTIONS = (
    *FETCH_OPTIONS, "custom_pipeline", "custom_revision", "device_map", "disable_mmap", "dtype", "from_flax",
    "load_connected_pipeline", "low_cpu_mem_usage", "max_memory", "mirror", "offload_folder", "offload_state_dict",
    "output_loading_info", "provider", "provider_options", "proxies", "quantization_config", "resume_download",
    "sess_options", "torch_dtype", "trust_remote_code", "use_flashpack", "use_onnx", "use_safetensors", "variant",
)  # fmt: skip
DIFFUSERS_SAVE_OPTIONS = ("max_shard_size", "save_peft_format", "use_flashpack", "variant")


def check_loading_options(pipeline_class: type, given: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuses arguments of `from_pretrained` that diffusers would pass over.

    Args:
        pipeline_class: The class that will be loaded.
        given: Names of the arguments.
        others: Names that the class takes besides, for the hint.

    Raises:
        FmriModelsError: Names the first one, and the one that is closest to it.
    """
    own = [name for name in inspect.signature(pipeline_class).parameters if name not in ("args", "kwargs")]
    known = [*own, *DIFFUSERS_LOAD_OPTIONS, *others]
    for name in given:
        if name not in known and not name.startswith("_"):
            raise FmriModelsError(
                f"{pipeline_class.__name__}.from_pretrained takes no {name!r}.{did_you_mean(name, known)}"
            )


def checked_dtype(dtype: Any, what: str) -> Any:
    """What weights are computed in, for `from_pretrained`; of others diffusers says in its log that it takes float32.

    Args:
        dtype: A floating type of torch or its name, None, or a mapping of such by component, as diffusers takes it.
        what: Who takes it, as the beginning of a sentence.

    Raises:
        FmriModelsError: It is something else.
    """
    if isinstance(dtype, Mapping):
        return {name: checked_dtype(each, what) for name, each in dtype.items()}
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found is not None and isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    if dtype is None:
        return None
    raise FmriModelsError(
        f"{what} got {one_line(repr(dtype), 80)} as dtype; expected torch.float32, torch.bfloat16 or torch.float16."
    )


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
                f"code of other places is not run; {mend}."
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
    for name, kinds in component_kinds(pipeline_class).items():
        if name in given:
            continue
        value = index.get(name, [None, None])
        if value == [None, None]:
            if name not in optional:
                raise FmriModelsError(f"{what} has no {name}, without which it can't work; {mend}.")
            continue
        found = component_class(value, kinds, f"{what} has {one_line(repr(value), 80)} as {name}", mend)
        if not issubclass(found, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise FmriModelsError(f"{what} has {one_line(repr(value), 80)} as {name}; expected a {names}; {mend}.")


def component_kinds(pipeline_class: Any) -> dict[str, tuple[type, ...]]:
    """The components of a pipeline class, each with the classes that it may be (or be derived from)."""
    names, _ = pipeline_class._get_signature_keys(pipeline_class)
    hints = typing.get_type_hints(pipeline_class.__init__)
    return {name: _base_classes(hints[name]) for name in names}


def component_class(value: Any, kinds: Iterable[type], start: str, mend: str) -> type:
    """The class that an entry `[library, class]` of an index names.

    Args:
        value: The entry.
        kinds: What the component may be; their own modules may be named, too.
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
    own_libraries = {_fetch_class_library_tuple(kind)[0] for kind in kinds}
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
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(_base_class(part) for part in parts if part is not types.NoneType)


def _base_class(kind: type) -> type:
    from diffusers import SchedulerMixin
    from diffusers.schedulers import KarrasDiffusionSchedulers
    from transformers import ImageProcessingMixin, PreTrainedTokenizerBase

    if kind is KarrasDiffusionSchedulers:
        return SchedulerMixin
    bases = (SchedulerMixin, PreTrainedTokenizerBase, ImageProcessingMixin)
    return next((base for base in bases if issubclass(kind, base)), kind)
