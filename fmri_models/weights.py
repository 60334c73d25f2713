"""The door of saved networks: what is stored is what the network has, tensor by tensor, and no more is allocated.

Libraries fill what a file lacks with random numbers and leave out what a network does not know. Here both are refused
by name, and sizes are compared before anything is allocated: the network is built on the meta device, where it has
shapes and no memory, and what is stored is known from the files' headers.
"""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.overrides import TorchFunctionMode

from .errors import FmriModelsError, system_sentence
from .names import listed, one_line
from .original_checkpoint import read_state
from .reading import check_regular_file, read_object
from .remote_code import without_shim
from .subject_modules import name_today, prefixes_today

MEND = "save the model again, or take another copy of the folder"
CONFIG_FILE = "config.json"

# Base names of weights files: diffusers', transformers', and the latter's before safetensors.
_BASE_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
# Weights in one file or in shards, or the index of shards.
_WEIGHTS_FILE = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.(?P<variant>[^./]+?))?(?:-\d+-of-\d+)?\.safetensors"
    r"(?:\.index(?:\.(?P<of_index>[^./]+))?\.json)?"
)
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WHOLE = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"}
_VALUES_A_CHUNK = 2**22
# What a configuration may say at most of any size; far above those of all published networks.
MAX_SIZE = 2**24
_MAX_LIST = 10_000
# What makes a library import, download or run something, or load other weights than those that are there.
_LOADER_KEYS = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
    "quantization_config",
    "compression_config",
    "custom_pipeline",
    "custom_pipelines",
    "custom_revision",
    "trust_remote_code",
    "kernel_config",
    "use_kernels",
    "transformers_weights",
    "base_model_tp_plan",
    "base_model_pp_plan",
    "distributed_config",
    "tp_plan",
    "device_map",
)  # fmt: skip
_VARIANT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
# What the names of weights files have anyway.
_NO_VARIANTS = ("safetensors", "index", "json", "bin")
# Position ids were saved as weights once; they count from 0 and are made anew.
_NO_LONGER_STORED = (r"(^|\.)position_ids$",)


class NoSuchVariantError(FmriModelsError):
    """There are weights, but of other variants than the one that was asked for."""


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says of a tensor.

    Args:
        file: Where it is.
        shape: Its shape.
        number_type: `"float"`, `"whole"`, `"bool"`, or the name of a type that no network here has.
        dtype: Its type, where it is a floating one.
    """

    file: Path
    shape: tuple[int, ...]
    number_type: str
    dtype: torch.dtype | None = None


def check_model_folder(
    model_class: type[nn.Module],
    folder: str | os.PathLike,
    what: str,
    config: Any = None,
    variant: str | None = None,
    unused: Collection[str] = (),
    any_shape: bool = False,
    pickled: bool = False,
    key_mapping: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Refuses a saved network whose configuration or weights are not whole, before any of it is loaded.

    Args:
        model_class: A class of transformers (`PreTrainedModel`) or diffusers (`ModelMixin`).
        folder: Holds `config.json` and weights, in one file or in several with an index.
        what: What it is, as the beginning of a sentence, such as `"The brain model in runs/a"`.
        config: The configuration, where it was read (and changed) already.
        variant: As in `from_pretrained`; weights without a variant stand in where there are none of it.
        unused: Patterns of names that may be stored although the network has them not.
        any_shape: Whether shapes may differ (`ignore_mismatched_sizes`).
        pickled: Whether files of tensors in torch's own format are looked at where there are no safetensors (they are
            read with `weights_only=True`).
        key_mapping: Pattern ▶ what takes its place in the stored names, as in `from_pretrained` of transformers.

    Returns:
        Beginnings of stored names that are others today ▶ those of today, as of [`prefixes_today`].

    Raises:
        FmriModelsError: Names the first tensor that is missing, unexpected, of another shape or type, or not finite; or
            the configuration's first value that no network has.
    """
    folder = Path(folder)
    values = without_shim(read_object(folder / CONFIG_FILE, "configuration", MEND))
    own_fields = getattr(getattr(model_class, "config_class", None), "own_fields", None)
    check_configuration(values, f"{what}, by its {CONFIG_FILE},", own_fields=own_fields() if own_fields else None)
    stored = stored_tensors(folder, what, variant, pickled)
    module = on_meta(lambda: _built(model_class, folder, values, config), stored, what)
    named = _named_today(_renamed(stored, key_mapping), module)
    prefixes = prefixes_today(module, named)
    try:
        check_weights(
            module, {name_today(name, prefixes): each for name, each in named.items()}, what, unused, any_shape
        )
    except FmriModelsError:
        if not _is_renamed_by_transformers(model_class, folder, config, variant, unused):
            raise
    check_finite(stored, what)
    return prefixes


def _renamed(stored: dict[str, StoredTensor], key_mapping: Mapping[str, str] | None) -> dict[str, StoredTensor]:
    renamed = {}
    for name, tensor in stored.items():
        for pattern, replacement in (key_mapping or {}).items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _named_today(stored: dict[str, StoredTensor], module: nn.Module) -> dict[str, StoredTensor]:
    """Stored tensors under the names that diffusers gives them when it loads attention blocks of its first versions."""
    renamed = dict(stored)
    rename: Any = getattr(module, "_fix_state_dict_keys_on_load", None)
    if rename is not None:
        rename(renamed)
    return renamed


def _is_renamed_by_transformers(
    model_class: Any, folder: Path, config: Any, variant: str | None, unused: Collection[str]
) -> bool:
    """Whether transformers finds everything under the names that one of its networks had in an earlier version."""
    if not model_class.__module__.startswith("transformers."):
        return False
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, "use_safetensors": True}
    try:
        _, found = model_class.from_pretrained(folder, config=config, variant=variant, device_map="meta", **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        return False
    left_out = [*_NO_LONGER_STORED, *unused]
    unexpected = [name for name in found["unexpected_keys"] if not _matches(name, left_out)]
    return not (found["missing_keys"] or unexpected or found["mismatched_keys"] or found["error_msgs"])


def check_configuration(
    values: Mapping[str, Any], what: str, sizes: bool = True, own_fields: Collection[str] | None = None
) -> None:
    """Refuses a network's configuration that tells its library to fetch or run something, or sizes of no network.

    Args:
        values: What was read of a configuration.
        what: What it is, as the beginning of a sentence that goes on with "has".
        sizes: Whether its numbers are sizes.
        own_fields: Whose numbers are sizes (with all that is in them), as what users add besides is theirs; None for
            all.

    Raises:
        FmriModelsError: Names the key and its value.
    """
    for key, value in _flat(values):
        name = key.rsplit(".", 1)[-1]
        if name in _LOADER_KEYS and value is not None:
            raise FmriModelsError(
                f"{what} has {one_line(key, 80)!r}, which tells how to load or run it; such options come from a "
                "caller and never from a file: remove it."
            )
        if not sizes or (own_fields is not None and key.partition(".")[0] not in own_fields):
            continue
        if isinstance(value, list) and len(value) > _MAX_LIST:
            raise FmriModelsError(
                f"{what} has {len(value)} values in {one_line(key, 80)!r}; expected {_MAX_LIST} at most; {MEND}."
            )
        if _is_beyond_sizes(name, value):
            raise FmriModelsError(
                f"{what} has {one_line(value, 40)} as {one_line(key, 80)!r}, which no network has; expected "
                f"{MAX_SIZE} at most; {MEND}."
            )


def stored_tensors(
    folder: str | os.PathLike, what: str, variant: str | None = None, pickled: bool = False
) -> dict[str, StoredTensor]:
    """What the weights files of a folder hold, from their headers.

    Args:
        folder: Holds one weights file, or several and their index.
        what: Whose weights they are, as the beginning of a sentence.
        variant: Take weights of this variant if there are any.
        pickled: Whether files of torch's own format may stand for safetensors.

    Raises:
        FmriModelsError: There are no weights, or two sets of them; the index names files elsewhere or other tensors
            than the files have; a file is cut short or is none. Where there are weights of variants alone, they are
            named.
    """
    folder = Path(folder)
    for wanted in [variant, None] if variant is not None else [None]:
        files = _weights_files(folder, wanted, pickled)
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise FmriModelsError(f"{what} has two sets of weights, {names}; remove the one that is not meant.")
        if files:
            return _indexed(files[0], what) if files[0].suffix == ".json" else stored_tensors_of(files[0], what)
    check_variant(_file_names(folder), what, variant)
    raise FmriModelsError(
        f"{what} has no weights ({_BASE_NAMES[0]}.safetensors or {_BASE_NAMES[1]}.safetensors; other formats are not "
        f"read, as they could run code); {MEND}."
    )


def stored_dtype(
    folder: str | os.PathLike, what: str, variant: str | None = None, pickled: bool = False
) -> torch.dtype:
    """What most of the stored values of a network are, which is what `dtype="auto"` means; float32 without any.

    Args:
        folder: Holds the weights.
        what: Whose weights they are, as the beginning of a sentence.
        variant: As in `stored_tensors`.
        pickled: Likewise.
    """
    counts: Counter[torch.dtype] = Counter()
    for tensor in stored_tensors(folder, what, variant, pickled).values():
        if tensor.dtype is not None:
            counts[tensor.dtype] += math.prod(tensor.shape)
    return counts.most_common(1)[0][0] if counts else torch.float32


def check_variant_name(variant: Any, what: str = "variant") -> Any:
    """Returns a part of the names of weights files, such as `"fp16"`; None stands for none.

    Raises:
        FmriModelsError: It would lead elsewhere, or files with it in their names would not be found again.
    """
    is_name = isinstance(variant, str) and _VARIANT.fullmatch(variant) is not None
    if variant is None or (is_name and variant not in _NO_VARIANTS):
        return variant
    raise FmriModelsError(
        f"The {what} is {one_line(repr(variant), 80)}; expected letters and digits, such as fp16, or None for weights "
        "without a variant."
    )


def variants_in(names: Iterable[str]) -> set[str | None]:
    """Variants of the weights among the names of files of one folder; None stands for weights without a variant."""
    found: set[str | None] = set()
    for name in names:
        if match := _WEIGHTS_FILE.fullmatch(name):
            found.add(match["variant"] or match["of_index"])
    return found


def check_variant(names: Iterable[str], what: str, variant: str | None) -> None:
    """Refuses weights of other variants alone than the one that was asked for.

    Args:
        names: Names of the files of the network's folder.
        what: Whose weights they are, as the beginning of a sentence.
        variant: What was asked for; None for weights without a variant.

    Raises:
        NoSuchVariantError: Names the variants that are there, and what to pass.
    """
    there = variants_in(names)
    if not there or variant in there:
        return
    named = sorted(name for name in there if name is not None)
    wanted = "without a variant" if variant is None else f"of the variant {one_line(repr(variant), 40)}"
    mends = [f"variant={one_line(repr(name), 40)}" for name in named[:3]]
    if None in there:
        mends.append("no variant")
    found = f"of {listed([repr(one_line(name, 40)) for name in named], 3)}" if named else "without a variant"
    also = " and without one" if named and None in there else ""
    raise NoSuchVariantError(
        f"{what} has no weights {wanted}; there are weights {found}{also}: pass {' or '.join(mends)}."
    )


def stored_tensors_of(file: Path, what: str) -> dict[str, StoredTensor]:
    """What one weights file holds.

    Args:
        file: A .safetensors file, or tensors in torch's own format.
        what: Whose weights they are, as the beginning of a sentence.

    Raises:
        FmriModelsError: There is no such file, or it is cut short.
    """
    check_regular_file(file, "weights file", MEND)
    if file.suffix != ".safetensors":
        return {
            name: StoredTensor(
                file,
                tuple(values.shape),
                _number_type(values.dtype),
                values.dtype if values.is_floating_point() else None,
            )
            for name, values in read_state(file).items()
        }
    with _opened(file, what) as opened:
        stored = {}
        for name in opened.keys():  # noqa: SIM118 (no mapping)
            values = opened.get_slice(name)
            dtype = values.get_dtype()
            shape = tuple(values.get_shape())
            stored[name] = StoredTensor(file, shape, _number_type_of_stored(dtype), _FLOATS.get(dtype))
    return stored


def on_meta(build: Callable[[], nn.Module], stored: Mapping[str, StoredTensor], what: str) -> nn.Module:
    """Builds a network without memory, and gives up as soon as it is larger than its weights can be.

    Args:
        build: Makes the network.
        stored: The weights that are meant for it.
        what: What it is, as the beginning of a sentence.

    Raises:
        FmriModelsError: The configuration is of no such network, or of a much larger one.
    """
    try:
        with _quiet_libraries(), torch.random.fork_rng(devices=[]), torch.device("meta"), _Bounded(stored):
            return build()
    except FmriModelsError:
        raise
    except _TooLargeError as error:
        raise FmriModelsError(
            f"{what} has a {CONFIG_FILE} that describes a network of more than {error} and weights of "
            f"{_num_values(stored)} values in {len(stored)} tensors; {MEND}."
        ) from error
    # A network's constructor raises whatever it comes upon in a configuration that is none of its own.
    except Exception as error:
        reason = one_line(error, 200) or type(error).__name__
        raise FmriModelsError(f"{what} has a {CONFIG_FILE} of no such network ({reason}); {MEND}.") from error


def check_weights(
    module: nn.Module,
    stored: Mapping[str, StoredTensor],
    what: str,
    unused: Collection[str] = (),
    any_shape: bool = False,
) -> None:
    """Refuses stored tensors that are not those of the network.

    What a class leaves out on purpose is listed in it (`_keys_to_ignore_on_load_missing`, `…_unexpected`,
    tied weights).

    Args:
        module: The network, which may be on the meta device.
        stored: What is stored.
        what: Whose weights they are, as the beginning of a sentence.
        unused: Patterns of names that may be stored besides.
        any_shape: Whether shapes may differ.

    Raises:
        FmriModelsError: Names the first tensor that is missing, unexpected, or of another shape or type.
    """
    expected = module.state_dict()
    optional = [*_patterns(module, "_keys_to_ignore_on_load_missing"), *_NO_LONGER_STORED]
    # Tensors that are another one's too, and are not saved twice.
    tied = set(getattr(module, "all_tied_weights_keys", None) or getattr(module, "_tied_weights_keys", None) or ())
    missing = [name for name in expected if name not in stored and name not in tied and not _matches(name, optional)]
    if missing:
        raise FmriModelsError(
            f"{what} lacks {one_line(missing[0], 120)}: {len(missing)} of its {len(expected)} tensors are not in its "
            f"weights, and random numbers would stand for them; {MEND}."
        )
    left_out = [*_patterns(module, "_keys_to_ignore_on_load_unexpected"), *_NO_LONGER_STORED, *unused]
    unexpected = [name for name in stored if name not in expected and not _matches(name, left_out)]
    if unexpected:
        raise FmriModelsError(
            f"{what} has weights of another network: it has no {one_line(unexpected[0], 120)}, and so for "
            f"{len(unexpected)} of the {len(stored)} stored tensors; {MEND}."
        )
    for name, values in expected.items():
        if name not in stored:
            continue
        found = stored[name]
        if found.shape != tuple(values.shape) and not any_shape:
            raise FmriModelsError(
                f"{what} has {one_line(name, 120)} of the shape {_shown(found.shape)} in its weights and of "
                f"{_shown(values.shape)} by its {CONFIG_FILE}; {MEND}."
            )
        if found.number_type != _number_type(values.dtype):
            raise FmriModelsError(
                f"{what} has {one_line(name, 120)} as {found.number_type} numbers in its weights; expected "
                f"{_number_type(values.dtype)} ones; {MEND}."
            )


def check_finite(stored: Mapping[str, StoredTensor], what: str) -> None:
    """Refuses weights that no network can compute with; reads them once, chunk by chunk.

    Args:
        stored: What is stored.
        what: Whose weights they are, as the beginning of a sentence.

    Raises:
        FmriModelsError: Names the first tensor with values that are NaN or infinite, and how many it has.
    """
    for file in dict.fromkeys(tensor.file for tensor in stored.values()):
        names = [name for name, tensor in stored.items() if tensor.file == file and tensor.number_type == "float"]
        with _values(file, what) as value_of:
            for name in names:
                _check_tensor_finite(value_of(name), name, what)


def _check_tensor_finite(values: torch.Tensor, name: str, what: str) -> None:
    chunks = values.detach().reshape(-1).split(_VALUES_A_CHUNK)
    # The extremes of values are finite only if all of them are, and take no mask.
    if all(chunk.numel() == 0 or bool(torch.stack(torch.aminmax(chunk)).isfinite().all()) for chunk in chunks):
        return
    bad = sum(int((~chunk.isfinite()).sum()) for chunk in chunks)
    raise FmriModelsError(
        f"{what} has {bad} values that are NaN or infinite, of {values.numel()}, in {one_line(name, 120)}; the "
        "training that wrote them had failed, or the file was changed: take an earlier checkpoint."
    )


def _built(model_class: Any, folder: Path, values: dict[str, Any], config: Any) -> nn.Module:
    """The network that a configuration describes, by the rules of its library."""
    if not hasattr(model_class, "config_class"):
        return model_class.from_config(values if config is None else config)
    # Not from the values: a tower's configuration may be a part of a whole network's.
    return model_class(model_class.config_class.from_pretrained(str(folder)) if config is None else config)


def _weights_files(folder: Path, variant: str | None, pickled: bool) -> list[Path]:
    """Single files and indices of one variant; pickled ones only where there is nothing else."""
    infix = "" if variant is None else f".{variant}"
    safe = [
        folder / name
        for base in _BASE_NAMES[:2]
        for name in (
            f"{base}{infix}.safetensors",
            f"{base}.safetensors.index{infix}.json",
        )
    ]
    found = [file for file in safe if os.path.lexists(file)]
    if found or not pickled:
        return found
    return [file for base in _BASE_NAMES if (file := folder / f"{base}{infix}.bin").exists()]


def _file_names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def _indexed(index_file: Path, what: str) -> dict[str, StoredTensor]:
    index = read_object(index_file, "index of the weights", MEND)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FmriModelsError(f"{what} has a {index_file.name} without a weight_map; {MEND}.")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _PLAIN_FILE.fullmatch(file):
            raise FmriModelsError(
                f"{what} has a {index_file.name} by which {one_line(name, 120)} is in {one_line(repr(file), 120)}; "
                f"expected a .safetensors file of the same folder; {MEND}."
            )
    stored: dict[str, StoredTensor] = {}
    for file in dict.fromkeys(weight_map.values()):
        for name, tensor in stored_tensors_of(index_file.parent / file, what).items():
            if weight_map.get(name) != file:
                raise FmriModelsError(
                    f"{what} has {one_line(name, 120)} in {file}, which its {index_file.name} does not say; {MEND}."
                )
            stored[name] = tensor
    absent = [name for name in weight_map if name not in stored]
    if absent:
        raise FmriModelsError(
            f"{what} lacks {one_line(absent[0], 120)}, which should be in {weight_map[absent[0]]}: {len(absent)} of "
            f"{len(weight_map)} tensors; {MEND}."
        )
    return stored


@contextmanager
def _values(file: Path, what: str) -> Iterator[Callable[[str], torch.Tensor]]:
    """Tensors of a file by name, mapped and not read."""
    if file.suffix != ".safetensors":
        yield read_state(file).__getitem__
        return
    with _opened(file, what) as opened:
        yield opened.get_tensor


@contextmanager
def _opened(file: Path, what: str) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        raise FmriModelsError(
            f"{what} has a {file.name} that is cut short or no safetensors file ({one_line(error, 120)}); {MEND}."
        ) from error
    except (OSError, MemoryError) as error:
        raise FmriModelsError(system_sentence(error, file)) from error


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keeps back what the libraries say of a configuration, as they say it again when they load."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _TooLargeError(Exception):
    pass


class _Bounded(TorchFunctionMode):
    """Counts what is made inside of it, and ends it when weights of that size can't be meant.

    Buffers that are not stored (position ids, masks) and what is only needed for a while come on top of the weights.
    """

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        super().__init__()
        self.values_left = 4 * _num_values(stored) + 2**26
        self.max_values = self.values_left
        self.tensors_left = 20 * len(stored) + 20_000
        self.max_tensors = self.tensors_left

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _FACTORIES and isinstance(made, torch.Tensor):
            self.tensors_left -= 1
            self.values_left -= made.numel()
            if self.values_left < 0:
                raise _TooLargeError(f"{self.max_values} values")
            if self.tensors_left < 0:
                raise _TooLargeError(f"{self.max_tensors} tensors")
        return made


_FACTORIES = {
    "arange",
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "normal",
    "ones",
    "rand",
    "randint",
    "randn",
    "randperm",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
}


def _is_beyond_sizes(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        # Schedules are not clipped by an infinite bound.
        return not math.isfinite(value) and name != "lambda_min_clipped"
    return isinstance(value, int) and abs(value) > MAX_SIZE


def _flat(values: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Every value of a tree with the keys that lead to it, lists and mappings included."""
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    for key, value in pairs:
        place = f"{prefix}{key}"
        yield place, value
        if isinstance(value, Mapping | list):
            yield from _flat(value, f"{place}.")


def _patterns(module: nn.Module, attribute: str) -> list[str]:
    return list(getattr(module, attribute, None) or ())


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _num_values(stored: Mapping[str, StoredTensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in stored.values())


def _number_type_of_stored(dtype: str) -> str:
    if dtype in _FLOATS:
        return "float"
    if dtype in _WHOLE:
        return "whole"
    return "bool" if dtype == "BOOL" else dtype


def _number_type(dtype: torch.dtype) -> str:
    if dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        return "float"
    if dtype == torch.bool:
        return "bool"
    return str(dtype) if dtype.is_floating_point or dtype.is_complex else "whole"


def _shown(shape: Iterable[int]) -> str:
    return "×".join(str(length) for length in shape) or "one number"
