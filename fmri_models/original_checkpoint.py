"""Reads the tensors of a published checkpoint: nothing in the file is run, and only the weights reach memory."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from .errors import FmriModelsError
from .names import listed, one_line
from .reading import check_regular_file

Checkpoint = str | os.PathLike | Mapping[str, Any]
State = dict[str, torch.Tensor]

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80\x02"
_HEADER_LENGTH_BYTES = 8
# Values that are looked at together, so that a look at a large tensor takes no memory of its size.
_VALUES_A_CHUNK = 2**24
_MEND = "give a published checkpoint, such as last.pth"
# The description of the objects beside the tensors' values; that of MindEye's largest checkpoint has 1 MB.
_MAX_PICKLE_BYTES = 256 * 2**20
_MOST_SHARED = 4
# Where trainers put the network's state dict, and how deep in each other.
_STATE_KEYS = ("model_state_dict", "state_dict", "model", "module")
_MOST_WRAPPERS = 5
_AVERAGED = re.compile("ema|average|swa|shadow")
# What comes into names from torch.compile, fully sharded training and checkpointed activations.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_SEVERAL_FILES = {
    "*.index.json": "weights in several files",
    "*.distcp": "torch's distributed checkpoints",
    "*_model_states.pt": "DeepSpeed, whose zero_to_fp32.py merges its parts",
    "*/*_model_states.pt": "DeepSpeed, whose zero_to_fp32.py merges its parts",
}
_FOREIGN = re.compile(r"GLOBAL ([A-Za-z_][\w.]*) was not")
_NUMBERS = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool,
)  # fmt: skip


class _LeftOut:
    """What the objects in `_STATE_OF_TRAINING` become: it takes any arguments and does nothing with them."""

    def __new__(cls, *args: Any) -> "_LeftOut":
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Whole checkpoints have the state of the schedule beside the weights. Up to torch 2.0 that of the one-cycle schedule
# refers to a function, what was logged may be numbers or arrays of numpy, and arguments are objects of the trainer;
# nothing of it is needed.
_STATE_OF_TRAINING = (
    "argparse.Namespace",
    "builtins.getattr",
    # MinD-Vis' configurations.
    "config.Config_Generative_Model",
    "config.Config_MAE_fMRI",
    "config.Config_MBM_fMRI",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "torch.optim.lr_scheduler.OneCycleLR",
)
# Lightning's arguments, a dictionary of a class of its own.
_DICTIONARIES = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


def read_values(path: str | os.PathLike) -> Any:
    """What a file of torch or safetensors holds, of which nothing is run and what is unknown is left out.

    Args:
        path: The file; in torch's format since 1.6 its tensors are mapped and not read.

    Raises:
        FmriModelsError: It can't be read, or holds more than tensors and plain values.
    """
    return _read_file(Path(path))


def read_state(checkpoint: Checkpoint) -> State:
    """The state dict in a file, a whole checkpoint or a state dict, without what trainers wrap it in.

    A state dict may lie inside of others (Lightning's `state_dict`, DeepSpeed's `module` ...), and its names may have
    parts that `DataParallel`, `torch.compile` and the like put into them.

    The tensors of a file in torch's format since 1.6 are mapped and not read: what is never looked at, such as the
    state of an optimiser, takes no memory.

    Args:
        checkpoint: Path of a file of torch or safetensors, or what such a file holds.

    Raises:
        FmriModelsError: The file can't be read, there is no state dict in it, or a tensor is not what it seems.
    """
    found: Any = checkpoint if isinstance(checkpoint, Mapping) else _read_file(Path(checkpoint))
    values = _state_inside(found, _named(checkpoint))
    if values is None:
        if isinstance(found, Mapping) and _has_arrays(found):
            raise FmriModelsError(
                f"{_named(checkpoint)} holds arrays of NumPy by name, and no tensors; make tensors of them with "
                "torch.from_numpy and save these."
            )
        raise FmriModelsError(
            f"{_named(checkpoint)} holds no state dict; expected tensors by name, or these as 'model_state_dict'."
        )
    _check_tensors(values, checkpoint)
    state = _unwrapped({key: value.detach() for key, value in values.items()}, _named(checkpoint))
    # A dictionary stays its owner's: training the model must not change it.
    return {key: value.clone() for key, value in state.items()} if isinstance(checkpoint, Mapping) else state


def check_tensors(
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    layout: str,
    original_key: Callable[[str], str] = lambda key: key,
    what: str = "checkpoint",
) -> None:
    """Refuses tensors that are not those of a network: the one place for what converters find wrong.

    Args:
        state: What was found, by the names of the checkpoint.
        expected: The network's own, by its names.
        layout: Whose layout it should be.
        original_key: Name of the network's ▶ name in the checkpoint.
        what: Which part of the checkpoint it is.

    Raises:
        FmriModelsError: Names tensors that are missing, unknown, of another shape or kind, or not finite.
    """
    originals = {key: original_key(key) for key in expected}
    missing = [key for key in originals.values() if key not in state]
    unknown = sorted(state.keys() - set(originals.values()))
    if missing or unknown:
        problems = [f"lacks {listed_keys(missing)}"] if missing else []
        problems += [f"has the unknown {listed_keys(unknown)}"] if unknown else []
        raise FmriModelsError(f"The {what} {' and '.join(problems)}; it is damaged or not of {layout}'s layout.")
    for key, original in originals.items():
        if state[original].shape != expected[key].shape:
            raise FmriModelsError(
                f"{original} of the {what} has shape {tuple(state[original].shape)}, and the configuration asks "
                f"for {tuple(expected[key].shape)}; leave out overrides that contradict the checkpoint."
            )
        if expected[key].is_floating_point() and not state[original].is_floating_point():
            raise FmriModelsError(
                f"{original} of the {what} holds {state[original].dtype}; expected floating-point numbers: it is "
                "damaged or of another layout."
            )
    check_finite({original: state[original] for original in originals.values()}, what)


def check_finite(state: Mapping[str, torch.Tensor], what: str = "checkpoint") -> None:
    """Refuses weights that no model can compute with.

    Args:
        state: The weights.
        what: What they are of.

    Raises:
        FmriModelsError: Names the first tensor with values that are NaN or infinite.
    """
    for key, values in state.items():
        if not values.is_floating_point():
            continue
        bad = sum(int((~chunk.isfinite()).sum()) for chunk in values.reshape(-1).split(_VALUES_A_CHUNK))
        if bad:
            raise FmriModelsError(
                f"{one_line(key, 80)} of the {what} has {bad} values that are NaN or infinite, of "
                f"{values.numel()}; the training that wrote it had failed, so take an earlier checkpoint."
            )


def listed_keys(keys: list[str]) -> str:
    """The first five of some keys, and how many more there are."""
    return listed(keys, 5, 80)


def _read_file(path: Path) -> Any:
    if path.is_dir():
        raise FmriModelsError(
            f"{path} is a folder{_folder_format(path)}; give the file of a published checkpoint in it, such as "
            "last.pth, or one into which its parts were merged."
        )
    check_regular_file(path, "file", _MEND)
    try:
        # What a file is, it says itself: endings change when it is renamed.
        is_zip, is_torch, is_safetensors = _begins_as(path)
        if is_safetensors or (path.suffix == ".safetensors" and not is_torch):
            return load_file(path)
        if is_zip:
            _check_members(path)
        # Only files in torch's newer format can be mapped.
        stand_ins = [(_LeftOut, name) for name in _STATE_OF_TRAINING] + [(dict, name) for name in _DICTIONARIES]
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            if path.suffix == ".safetensors":
                # By its name torch would take it for what it is not; without a name nothing is mapped.
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except FmriModelsError:
        raise
    except pickle.UnpicklingError as error:
        found = _FOREIGN.search(str(error))
        named = f" ({one_line(found[1], 120)})" if found else ""
        raise FmriModelsError(
            f"{path} holds more than tensors{named}, or is no checkpoint at all, and code from a file is not run; save "
            "its model_state_dict alone."
        ) from error
    # Torch's reader of objects follows whatever the file says, and raises what comes of it.
    except Exception as error:
        raise FmriModelsError(
            f"{path} is incomplete or no checkpoint ({_first_line(error)}); download it again."
        ) from error


def _folder_format(path: Path) -> str:
    """What is known of folders into which trainers save one checkpoint in several files."""
    for pattern, named in _SEVERAL_FILES.items():
        if next(path.glob(pattern), None) is not None:
            return f" of {named}"
    return ""


def _begins_as(path: Path) -> tuple[bool, bool, bool]:
    """Whether a file begins as an archive, as any of torch's formats, and as safetensors (a length, and JSON)."""
    with open(path, "rb") as file:
        beginning = file.read(_HEADER_LENGTH_BYTES + 1)
    length = int.from_bytes(beginning[:_HEADER_LENGTH_BYTES], "little")
    is_safetensors = beginning[_HEADER_LENGTH_BYTES:] == b"{" and length < path.stat().st_size
    is_zip = beginning.startswith(_ZIP_MAGIC)
    return is_zip, is_zip or beginning.startswith(_PICKLE_MAGIC), is_safetensors


def _state_inside(values: Any, named: str) -> Mapping[Any, Any] | None:
    """The state dict in what a file holds; None if there is none.

    Raises:
        FmriModelsError: There are several, of which none is known to be the model's.
    """
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(values, Mapping) or not values:
            return None
        if all(torch.is_tensor(value) for value in values.values()):
            return values
        inside = {str(key): each for key, each in values.items() if _may_hold_state(each)}
        known = [key for key in inside if key in _STATE_KEYS]
        averages = [key for key in inside if key not in known and _AVERAGED.search(key.lower())]
        chosen = known or list(inside)
        if len(chosen) > 1 or (chosen and averages and chosen != averages):
            several = " and ".join(one_line(repr(key), 40) for key in dict.fromkeys([*chosen, *averages]))
            raise FmriModelsError(
                f"{named} holds several state dicts, {several}; save the one that is meant alone with torch.save."
            )
        values = inside[chosen[0]] if chosen else None
    return None


def _has_arrays(values: Mapping[Any, Any]) -> bool:
    """Whether arrays lie where a state dict would have tensors; those of a file have become stand-ins."""
    inside = [values, *(values[key] for key in _STATE_KEYS if isinstance(values.get(key), Mapping))]
    return any(
        isinstance(key, str) and "." in key and isinstance(each, np.ndarray | _LeftOut)
        for mapping in inside
        for key, each in mapping.items()
    )


def _may_hold_state(value: Any, depth: int = _MOST_WRAPPERS) -> bool:
    """Whether a value is tensors by name, or a wrapper of these; the state of an optimiser has numbers for names."""
    if depth == 0 or not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        return False
    return all(map(torch.is_tensor, value.values())) or any(
        key in _STATE_KEYS and _may_hold_state(each, depth - 1) for key, each in value.items()
    )


def _unwrapped(state: State, named: str) -> State:
    """A state dict without the parts of names that wrappers of a network or of its parts have added.

    Raises:
        FmriModelsError: Two tensors have one name then.
    """
    names = {key: ".".join(word for word in key.split(".") if word not in _WRAPPERS) for key in state}
    # The average that torch.optim.swa_utils keeps counts its updates beside the network, which it calls `module`.
    counted = [key for key in names if key != "n_averaged"]
    while counted and all(names[key].startswith("module.") for key in counted):
        names = {key: names[key].removeprefix("module.") for key in counted}
    if len(set(names.values())) < len(names):
        raise FmriModelsError(
            f"{named} has tensors whose names differ only in {', '.join(sorted(_WRAPPERS))}; save the state dict "
            "of the network itself."
        )
    return {name: state[key] for key, name in names.items()}


def _check_members(path: Path) -> None:
    """Refuses an archive that grows when it is read; torch writes all parts as they are.

    Raises:
        FmriModelsError: A part is compressed, or what describes the objects is larger than any description.
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise FmriModelsError(
                    f"{path} has the compressed part {one_line(member.filename, 80)}, which torch does not write; save "
                    "the checkpoint with torch.save."
                )
            if member.filename.endswith(".pkl") and member.file_size > _MAX_PICKLE_BYTES:
                raise FmriModelsError(
                    f"{path} describes its objects in {member.file_size} bytes, which no state dict needs; save its "
                    "model_state_dict alone."
                )


def _check_tensors(values: Mapping[Any, torch.Tensor], checkpoint: Checkpoint) -> None:
    """Refuses what only seems to be a tensor, and files whose tensors have more values than the file."""
    for key, value in values.items():
        found = None
        if not isinstance(key, str) or not key:
            found = "a name that is no text"
        elif value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
            found = f"values as {value.layout} on {value.device}"
        elif value.dtype not in _NUMBERS:
            found = f"values of {value.dtype}"
        if found is not None:
            raise FmriModelsError(
                f"{one_line(repr(key), 80)} of {_named(checkpoint)} has {found}; expected plain tensors by name, as "
                "torch.save writes a state dict."
            )
    if isinstance(checkpoint, Mapping):
        return
    claimed = sum(value.numel() * value.element_size() for value in values.values())
    found_bytes = os.stat(checkpoint).st_size
    # Tensors may share their values, as tied weights do.
    if claimed > _MOST_SHARED * found_bytes:
        raise FmriModelsError(
            f"{_named(checkpoint)} has {found_bytes} bytes and tensors of {one_line(claimed, 40)}, which repeat each "
            "other; save a state dict of plain tensors."
        )


def _named(checkpoint: Checkpoint) -> str:
    return "The checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)


def _first_line(error: BaseException) -> str:
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."), 200)
