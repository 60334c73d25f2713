"""What a saved folder may hold: weights that are whole, and an index of components that names no code."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from .errors import FmriModelsError
from .names import is_name, one_line
from .reading import check_regular_file, read_object
from .registry import component_libraries

_BASES = ("model", "diffusion_pytorch_model")
_MEND = "save or download the model again"
# Values that are looked at together, so that a look at a large tensor takes no memory of its size.
_VALUES_A_CHUNK = 2**24


def check_weights(module: nn.Module, folder: Path, variant: str | None = None, any_shape: bool = False) -> None:
    """Compares saved weights with those that a network needs, before any of them is loaded.

    Args:
        module: The network, on the meta device.
        folder: Holds its safetensors, whole or in shards with an index.
        variant: Part of the files' names, such as `"fp16"`.
        any_shape: Whether shapes may differ (`ignore_mismatched_sizes`).

    Raises:
        FmriModelsError: Names the first tensor that is missing, unexpected, of another shape or type, or not finite.
    """
    expected = module.state_dict()
    found: set[str] = set()
    for path in weights_files(folder, variant):
        found |= _check_file(path, expected, _ignored(module, "unexpected"), any_shape)
    tied = _tied_keys(module)
    ignored = _ignored(module, "missing")
    missing = [
        key for key in expected if key not in found and key not in tied and not any(p.search(key) for p in ignored)
    ]
    if missing:
        raise FmriModelsError(
            f"The weights in {folder} lack {one_line(missing[0], 120)} ({len(missing)} of {len(expected)} tensors are "
            f"missing); {_MEND}."
        )


def weights_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of a folder: one, or the shards of its index.

    Raises:
        FmriModelsError: There are none, or the index names something else.
    """
    dotted = f".{variant}" if variant else ""
    for base in _BASES:
        whole = folder / f"{base}{dotted}.safetensors"
        if whole.exists():
            return [check_regular_file(whole, "weights file", _MEND)]
        index = folder / f"{base}.safetensors.index{dotted}.json"
        if index.exists():
            return _shards(index)
    raise FmriModelsError(
        f"{folder} has no weights ({_BASES[0]}{dotted}.safetensors); other formats are not read, as they could run "
        f"code: {_MEND}."
    )


def _shards(index: Path) -> list[Path]:
    weight_map = read_object(index, "index of weights", _MEND).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise FmriModelsError(f"The index of weights {index} has no weight_map of file names; {_MEND}.")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not is_name(name) or not name.endswith(".safetensors"):
            raise FmriModelsError(f"The index of weights {index} names {one_line(name, 80)!r}, no shard; {_MEND}.")
    return [check_regular_file(index.parent / name, "weights file", _MEND) for name in names]


def _check_file(
    path: Path, expected: dict[str, torch.Tensor], unexpected_allowed: Sequence[re.Pattern], any_shape: bool
) -> set[str]:
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            for key in keys:
                if key in expected:
                    _check_tensor(path, key, file, expected[key], any_shape)
                elif not any(pattern.search(key) for pattern in unexpected_allowed):
                    raise FmriModelsError(
                        f"The weights {path} hold {one_line(key, 120)}, which this model does not have; {_MEND}."
                    )
    except (SafetensorError, OSError) as error:
        raise FmriModelsError(f"The weights {path} can't be read ({one_line(error)}); {_MEND}.") from error
    return set(keys)


def _check_tensor(path: Path, key: str, file: Any, expected: torch.Tensor, any_shape: bool) -> None:
    view = file.get_slice(key)
    shape = tuple(view.get_shape())
    if shape != tuple(expected.shape) and not any_shape:
        raise FmriModelsError(
            f"{one_line(key, 120)} in the weights {path} has the shape {one_line(shape, 80)}; this model needs "
            f"{tuple(expected.shape)}; {_MEND}."
        )
    floating = view.get_dtype() in ("F64", "F32", "F16", "BF16")
    if floating != expected.is_floating_point():
        raise FmriModelsError(
            f"{one_line(key, 120)} in the weights {path} has the type {view.get_dtype()}; this model needs "
            f"{str(expected.dtype).removeprefix('torch.')}; {_MEND}."
        )
    if floating and not all(bool(chunk.isfinite().all()) for chunk in _chunks(view, shape)):
        raise FmriModelsError(
            f"{one_line(key, 120)} in the weights {path} has values that are NaN or infinite; {_MEND}."
        )


def _chunks(view: Any, shape: Sequence[int]) -> Iterable[torch.Tensor]:
    """A tensor in blocks of rows of bounded size."""
    if not shape:
        yield view[...]
        return
    row = max(1, int(torch.Size(shape[1:]).numel()))
    rows = max(1, _VALUES_A_CHUNK // row)
    for start in range(0, shape[0], rows):
        yield view[start : start + rows]


def _ignored(module: nn.Module, which: str) -> list[re.Pattern]:
    return [re.compile(p) for p in getattr(module, f"_keys_to_ignore_on_load_{which}", None) or []]


def _tied_keys(module: nn.Module) -> set[str]:
    """Keys whose tensors are another one's too, and are not saved twice."""
    tied = getattr(module, "all_tied_weights_keys", None) or getattr(module, "_tied_weights_keys", None) or {}
    return set(tied)


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
        if library not in allowed or not isinstance(class_name, str) or not class_name.isidentifier():
            raise FmriModelsError(
                f"{what} has {one_line(repr(value), 80)} as {name}; expected a class of {', '.join(sorted(allowed))}: "
                f"code of other places is not run; {mend}."
            )


def _is_component(value: Any, name: str, known: set[str] | None) -> bool:
    """Lists of numbers are values of the configuration, everything else that is a list names a class."""
    if known is not None and name in known:
        return True
    return isinstance(value, list) and len(value) == 2 and not all(isinstance(v, int | float) for v in value)
