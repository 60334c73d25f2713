"""Reads the tensors of a published checkpoint: nothing in the file is run, and only the weights reach memory."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .errors import FmriModelsError

Checkpoint = str | os.PathLike | Mapping[str, Any]
State = dict[str, torch.Tensor]

_ZIP_MAGIC = b"PK\x03\x04"
# Values that are looked at together, so that a look at a large tensor takes no memory of its size.
_VALUES_A_CHUNK = 2**24


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
        FmriModelsError: The file can't be read, or there is no state dict in it.
    """
    values: Any = checkpoint if isinstance(checkpoint, Mapping) else _read_file(Path(checkpoint))
    for key in ("model_state_dict", "model"):
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    if not isinstance(values, Mapping) or not values or not all(torch.is_tensor(value) for value in values.values()):
        raise FmriModelsError(
            f"{_named(checkpoint)} holds no state dict; expected tensors by name, or these as 'model_state_dict'."
        )
    state = {str(key): value for key, value in values.items()}
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
                f"{key} of the checkpoint has {bad} values that are NaN or infinite, of {values.numel()}; the training "
                "that wrote it had failed, so take an earlier checkpoint."
            )


def listed(keys: list[str]) -> str:
    """The first five of some keys, and how many more there are."""
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _read_file(path: Path) -> Any:
    if path.is_dir():
        raise FmriModelsError(f"{path} is a folder; give the file of a published checkpoint in it, such as last.pth.")
    if not path.is_file():
        raise FmriModelsError(f"There is no file {path}; give a published checkpoint, such as last.pth.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only files in torch's newer format can be mapped.
        with torch.serialization.safe_globals([(_LeftOut, name) for name in _STATE_OF_TRAINING]):
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise FmriModelsError(
            f"{path} holds more than tensors, or is no checkpoint at all, and code from a file is not run; save its "
            "model_state_dict alone."
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, SafetensorError) as error:
        raise FmriModelsError(
            f"{path} is incomplete or no checkpoint ({_first_line(error)}); download it again."
        ) from error


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def _named(checkpoint: Checkpoint) -> str:
    return "The checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
