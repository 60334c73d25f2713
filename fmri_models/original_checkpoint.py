"""Reads the tensors of a published checkpoint: nothing in the file is run, and only the weights reach memory."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .errors import FmriModelsError
from .names import one_line
from .reading import check_regular_file

Checkpoint = str | os.PathLike | Mapping[str, Any]
State = dict[str, torch.Tensor]

_ZIP_MAGIC = b"PK\x03\x04"
# Values that are looked at together, so that a look at a large tensor takes no memory of its size.
_VALUES_A_CHUNK = 2**24
_MEND = "give a published checkpoint, such as last.pth"
# The description of the objects beside the tensors' values; that of MindEye's largest checkpoint has 1 MB.
_MAX_PICKLE_BYTES = 256 * 2**20
# What lies in the place of a file that was not downloaded.
_NO_FILE = {
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; download it with `git lfs pull`",
    b"<!doctype html": "a web page and not the file that it is about; download that",
    b"<html": "a web page and not the file that it is about; download that",
}
_MOST_SHARED = 4
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
# refers to a function, and rates that were logged may be scalars of numpy; neither is needed.
_STATE_OF_TRAINING = (
    "builtins.getattr",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "torch.optim.lr_scheduler.OneCycleLR",
)


def read_state(checkpoint: Checkpoint) -> State:
    """The state dict in a file, a whole checkpoint or a state dict, without the prefix of distributed training.

    The tensors of a file in torch's format since 1.6 are mapped and not read: what is never looked at, such as the
    state of an optimiser, takes no memory.

    Args:
        checkpoint: Path of a file of torch or safetensors, or what such a file holds.

    Raises:
        FmriModelsError: The file can't be read, there is no state dict in it, or a tensor is not what it seems.
    """
    values: Any = checkpoint if isinstance(checkpoint, Mapping) else _read_file(Path(checkpoint))
    for key in ("model_state_dict", "model"):
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    if not isinstance(values, Mapping) or not values or not all(torch.is_tensor(value) for value in values.values()):
        raise FmriModelsError(
            f"{_named(checkpoint)} holds no state dict; expected tensors by name, or these as 'model_state_dict'."
        )
    _check_tensors(values, checkpoint)
    state = {key: value.detach() for key, value in values.items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    # A dictionary stays its owner's: training the model must not change it.
    return {key: value.clone() for key, value in state.items()} if isinstance(checkpoint, Mapping) else state


def check_finite(state: Mapping[str, torch.Tensor]) -> None:
    """Refuses weights that no model can compute with.

    Raises:
        FmriModelsError: Names the first tensor with values that are NaN or infinite.
    """
    for key, values in state.items():
        if not values.is_floating_point():
            continue
        bad = sum(int((~chunk.isfinite()).sum()) for chunk in values.reshape(-1).split(_VALUES_A_CHUNK))
        if bad:
            raise FmriModelsError(
                f"{one_line(key, 80)} of the checkpoint has {bad} values that are NaN or infinite, of "
                f"{values.numel()}; the training that wrote it had failed, so take an earlier checkpoint."
            )


def listed(keys: list[str]) -> str:
    """The first five of some keys, and how many more there are."""
    return ", ".join(one_line(key, 80) for key in keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _read_file(path: Path) -> Any:
    if path.is_dir():
        raise FmriModelsError(f"{path} is a folder; give the file of a published checkpoint in it, such as last.pth.")
    check_regular_file(path, "file", _MEND)
    try:
        start = _first_bytes(path)
        for beginning, found in _NO_FILE.items():
            if start.lower().startswith(beginning):
                raise FmriModelsError(f"{path} is {found}.")
        if path.suffix == ".safetensors":
            return load_file(path)
        is_zip = start.startswith(_ZIP_MAGIC)
        if is_zip:
            _check_members(path)
        # Only files in torch's newer format can be mapped.
        with torch.serialization.safe_globals([(_LeftOut, name) for name in _STATE_OF_TRAINING]):
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except FmriModelsError:
        raise
    except pickle.UnpicklingError as error:
        raise FmriModelsError(
            f"{path} holds more than tensors, or is no checkpoint at all, and code from a file is not run; save its "
            "model_state_dict alone."
        ) from error
    # Torch's reader of objects follows whatever the file says, and raises what comes of it.
    except Exception as error:
        raise FmriModelsError(
            f"{path} is incomplete or no checkpoint ({_first_line(error)}); download it again."
        ) from error


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(64).lstrip()


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
