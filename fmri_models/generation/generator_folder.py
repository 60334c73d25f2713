"""The door of a saved generator's folder: what diffusers would follow without asking is looked at before."""

import copy
import inspect
import os
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from pydantic import ConfigDict, create_model

from ..component_index import check_component_classes, component_class, component_classes
from ..errors import FmriModelsError
from ..hub_repository import local_folder, weights_patterns
from ..known_classes import is_method_class
from ..library_options import dtype_of, take_dtype
from ..names import one_line
from ..reading import MAX_TEXT_BYTES, check_regular_file, checked, read_object
from ..weights import check_configuration, check_model_folder, check_variant, stored_dtype

INDEX_FILE = "model_index.json"
_MEND = "save the generator again, or take another copy of the folder"
# A file of this name is code to diffusers, whether or not an index names it.
_CODE_FILE = "None.py"
# Where diffusers says int, its own files may have 1.0.
_PLAIN_TYPES: dict[Any, str] = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
_TRIED_STEPS = 10
# Published schedules have 1000; each step is a number of several tables.
_MAX_TRAIN_STEPS = 100_000
_TEXT_ENDINGS = (".json", ".txt", ".jinja", ".model")


def check_generator_folder(
    generator_class: type, folder: Path, path: str, given: Mapping[str, Any], mend: str = _MEND
) -> None:
    """Refuses a folder that is none of this generator, or not whole.

    Args:
        generator_class: The class that will be loaded.
        folder: Where it is.
        path: What the caller calls it.
        given: Arguments of `from_pretrained`; components among them are not read from the folder.
        mend: What to do, as the end of a sentence.

    Raises:
        FmriModelsError: Names what is wrong.
    """
    index = check_generator_index(generator_class, folder / INDEX_FILE, path, given)
    if (folder / _CODE_FILE).exists():
        raise FmriModelsError(
            f"The image generator in {one_line(path)} has a file {_CODE_FILE}, which would be taken for code of the "
            "pipeline; code of others is not run: remove it."
        )
    components = _stored_components(generator_class, index, given, f"of the image generator in {one_line(path)}", mend)
    networks = [name for name, (_, found) in components.items() if issubclass(found, torch.nn.Module)]
    if networks and given.get("variant") is not None:
        names = [file.name for name in networks for file in (folder / name).glob("*")]
        check_variant(names, f"The image generator in {one_line(path)}", given["variant"])
    for name, (library, found) in components.items():
        _check_component(found, folder / name, library, f"The {name} of the image generator in {one_line(path)}", given)


def stored_dtypes(generator_class: Any, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The argument `dtype` for diffusers, with what is stored in the place of `"auto"`; nothing where none was given.

    Args:
        generator_class: The class that will be loaded.
        folder: Where it is; it was checked.
        given: Arguments of `from_pretrained`.
    """
    dtype = given.get("dtype")
    if dtype is None:
        return {}
    if dtype != "auto" and not (isinstance(dtype, Mapping) and "auto" in dtype.values()):
        return {"dtype": dtype}
    index = read_object(folder / INDEX_FILE, "index of the image generator", _MEND)
    dtypes = {"default": torch.float32}
    for name, (_, found) in _stored_components(generator_class, index, given, "", _MEND).items():
        wanted = dtype_of(dtype, name)
        if issubclass(found, torch.nn.Module):
            pickled = given.get("use_safetensors") is not True
            dtypes[name] = (
                stored_dtype(folder / name, name, given.get("variant"), pickled) if wanted == "auto" else wanted
            )
    return {"dtype": dtypes}


def take_network_dtype(kwargs: dict[str, Any], place: str | os.PathLike, what: str) -> None:
    """Leaves what a network of ours is loaded in as a type under `dtype`, as diffusers' networks know nothing else.

    Args:
        kwargs: Arguments of `from_pretrained`, which are changed.
        place: Folder, or repository id; `"auto"` is float32 in one that is not here.
        what: Who takes it, as the beginning of a sentence.
    """
    take_dtype(kwargs, what)
    if kwargs.get("dtype") == "auto":
        folder = Path(place) / (kwargs.get("subfolder") or "")
        kwargs["dtype"] = stored_dtype(folder, what, kwargs.get("variant")) if folder.is_dir() else torch.float32


def _stored_components(
    generator_class: type, index: Mapping[str, Any], given: Mapping[str, Any], of: str, mend: str
) -> dict[str, tuple[str, Any]]:
    """Library and class of each component that will be read from the folder."""
    found = {}
    for name, allowed in component_classes(generator_class).items():
        entry = index.get(name, [None, None])
        if name not in given and entry != [None, None]:
            found[name] = (entry[0], component_class(entry, allowed, f"The {name} {of}", mend))
    return found


def check_generator_index(
    generator_class: Any, file: Path, path: str, given: Mapping[str, Any], mend: str = _MEND
) -> dict[str, Any]:
    """What the index of a generator says, if it says nothing but what the class takes.

    Raises:
        FmriModelsError: It names another class, code, an unknown key, or a value of another type.
    """
    what = f"The index of the image generator in {one_line(path)}"
    index = read_object(file, "index of the image generator", mend)
    components = component_classes(generator_class)
    class_name = index.get("_class_name")
    own_names = [base.__name__ for base in generator_class.__mro__]
    is_foreign = isinstance(class_name, str) and class_name not in own_names
    if is_foreign and class_name not in generator_class.diffusers_class_names and class_name not in dir(diffusers):
        where = "; its image generator is there with subfolder='image_generator'" if is_method_class(class_name) else ""
        raise FmriModelsError(
            f"The image generator in {one_line(path)} is a {one_line(class_name, 80)} and no "
            f"{generator_class.__name__}; load it by its own class{where}."
        )
    check_component_classes(index, generator_class, what, mend, given)
    _, option_names = generator_class._get_signature_keys(generator_class)
    unknown = [key for key in index if not key.startswith("_") and key not in {*components, *option_names}]
    # diffusers' own pipelines have components and options that are not needed here, and are not loaded.
    if unknown and not is_foreign:
        raise FmriModelsError(f"{what} has {one_line(unknown[0], 80)!r}, which is not known there; {mend}.")
    options = {key: value for key, value in index.items() if key in option_names and key not in given}
    checked(options, _options_model(generator_class), what, mend)
    return index


def load_network(
    model_class: Any,
    repository: str,
    subfolder: str = "",
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    unused: Collection[str] = (),
    **fetching: Any,
) -> Any:
    """Loads a network of transformers by itself, if its weights are whole.

    Args:
        model_class: The network's class.
        repository: Folder or Hub repository.
        subfolder: Folder inside of it.
        revision: Branch, tag or commit of a Hub repository.
        dtype: Of the weights; `"auto"` for that which they are stored in.
        unused: Patterns of names that may be stored besides, such as those of another tower.
        **fetching: `cache_dir`, `token`, `local_files_only` …

    Raises:
        FmriModelsError: Its configuration is none, or a tensor is missing, unexpected, of another shape or type, or not
            finite.
        NotFetchedError: The repository is not to be had.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    patterns = [f"{prefix}config.json", *weights_patterns(prefix, None)]
    folder = local_folder(repository, patterns, revision=revision, **fetching)
    what = f"The {model_class.__name__} in {one_line(repository)}" + (f"/{subfolder}" if subfolder else "")
    check_model_folder(model_class, folder / subfolder, what, unused=unused)
    return model_class.from_pretrained(str(folder), subfolder=subfolder, dtype=dtype, use_safetensors=True)


def _options_model(generator_class: Any) -> Any:
    """The constructor's arguments that are no components, by their annotations."""
    _, names = generator_class._get_signature_keys(generator_class)
    hints = typing.get_type_hints(generator_class.__init__, include_extras=True)
    parameters = inspect.signature(generator_class.__init__).parameters
    fields: dict[str, Any] = {name: (hints[name], parameters[name].default) for name in names if name in hints}
    config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    return create_model(f"{generator_class.__name__}Index", __config__=config, **fields)


def _check_component(component: Any, folder: Path, library: str, what: str, given: Mapping[str, Any]) -> None:
    # From another place, or from code beside it, diffusers would load without a word.
    if not folder.is_dir():
        raise FmriModelsError(f"{what} is missing: there is no folder {one_line(folder)}; {_MEND}.")
    if (folder / f"{library}.py").exists():
        raise FmriModelsError(f"{what} has a file {library}.py beside it, which would be taken for code; remove it.")
    for file in sorted(folder.iterdir()):
        if not file.is_dir():
            _check_file(file, what)
    if issubclass(component, diffusers.ConfigMixin) and (folder / str(component.config_name)).is_file():
        values = read_object(folder / str(component.config_name), "configuration", _MEND, infinite=True)
        _check_plain_types(component, values, f"{what}, by its {component.config_name},")
        if issubclass(component, diffusers.SchedulerMixin):
            _check_train_steps(component, values, f"{what}, by its {component.config_name},")
    if issubclass(component, torch.nn.Module):
        pickled = given.get("use_safetensors") is not True
        check_model_folder(component, folder, what, variant=given.get("variant"), pickled=pickled)


def _check_plain_types(component: Any, values: Mapping[str, Any], what: str) -> None:
    """Refuses truth values, numbers and texts in each other's place; libraries compute with what comes, somehow."""
    for name, hint in typing.get_type_hints(component.__init__).items():
        value = values.get(name)
        is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        plain = {part for part in (typing.get_args(hint) if is_union else (hint,)) if part is not types.NoneType}
        if value is None or not all(part in _PLAIN_TYPES for part in plain):
            continue
        expected = {_PLAIN_TYPES[part] for part in plain}
        if _PLAIN_TYPES.get(type(value)) not in expected:
            kinds = " or ".join(sorted(expected))
            raise FmriModelsError(f"{what} has {one_line(repr(value), 80)} as {name!r}; expected {kinds}; {_MEND}.")


def _check_train_steps(scheduler_class: Any, values: Mapping[str, Any], what: str) -> None:
    """Refuses a schedule that is long enough to keep a machine busy, or whose betas are not one for each step."""
    parameters = inspect.signature(scheduler_class.__init__).parameters
    steps: Any = {name: values.get(name, parameters[name].default) for name in parameters}.get("num_train_timesteps")
    if isinstance(steps, int | float) and not 1 <= steps <= _MAX_TRAIN_STEPS:
        raise FmriModelsError(
            f"{what} has {one_line(steps, 40)} as 'num_train_timesteps'; expected 1 to {_MAX_TRAIN_STEPS}; {_MEND}."
        )
    betas = values.get("trained_betas")
    if betas is None or steps is None:
        return
    if not isinstance(betas, list) or len(betas) != steps:
        found = f"{len(betas)} values" if isinstance(betas, list) else one_line(repr(betas), 40)
        raise FmriModelsError(
            f"{what} has {found} in 'trained_betas'; expected one for each of its {steps} steps; {_MEND}."
        )


def check_schedule(scheduler: Any, what: str) -> None:
    """Refuses a schedule of noise that is none: betas are shares of variance.

    Raises:
        FmriModelsError: A beta is negative, above 1, or no number; or the schedule gives no steps.
    """
    if not isinstance(scheduler, diffusers.SchedulerMixin):
        return
    betas = getattr(scheduler, "betas", None)
    if isinstance(betas, torch.Tensor) and not bool(((betas >= 0) & (betas <= 1)).all()):
        raise FmriModelsError(f"{what} has betas outside of 0 to 1, so its configuration was changed; {_MEND}.")
    if not hasattr(scheduler, "set_timesteps"):
        return
    steps = min(_TRIED_STEPS, scheduler.config.get("num_train_timesteps", _TRIED_STEPS))
    try:
        copy.deepcopy(scheduler).set_timesteps(steps)
    # Some of a schedule's options are looked at only when it is used, by whatever goes wrong then.
    except Exception as error:
        raise FmriModelsError(f"{what} gives no schedule ({one_line(error, 200)}); {_MEND}.") from error


def _check_file(file: Path, what: str) -> None:
    check_regular_file(file, "file", _MEND)
    size = file.stat().st_size
    if file.suffix in _TEXT_ENDINGS and size > MAX_TEXT_BYTES:
        raise FmriModelsError(
            f"{what} has a {one_line(file.name, 80)} of {size} bytes; expected {MAX_TEXT_BYTES} at most; {_MEND}."
        )
    if file.suffix == ".json" and file.name.endswith("config.json"):
        # Tokenizers state lengths that stand for "unlimited".
        is_network = file.name in ("config.json", "scheduler_config.json")
        values = read_object(file, "configuration", _MEND, infinite=True)
        check_configuration(values, f"{what}, by its {file.name},", sizes=is_network)
