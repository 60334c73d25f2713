"""Parameters that live in a file instead of memory, for maps from all voxels to hundreds of thousands of targets."""

import json
import mmap
import os
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import nn

_NUMPY_DTYPES = {torch.float32: np.float32, torch.float16: np.float16}
_NUMPY_DTYPES_OF_BUFFERS = {**_NUMPY_DTYPES, torch.float64: np.float64, torch.int32: np.int32, torch.int64: np.int64}
_INDEX_FILE = "model.safetensors.index.json"
_MAPS = "memory_maps"  # the attribute of a module that keeps its files open


def move_to_disk(module: nn.Module, folder: str | os.PathLike, dtype: torch.dtype = torch.float32) -> None:
    """Gives each parameter of a module on the meta device a file of zeros in `folder` as its memory.

    Args:
        module: Built under `torch.device("meta")`. Its buffers get files, too, in their own precision.
        folder: Where the files are made; it has to stay as long as the module is used.
        dtype: float32 or float16.
    """
    for number, owner in enumerate(module.modules()):
        maps = {}
        for name, parameter in owner.named_parameters(recurse=False):
            path = Path(folder) / f"{number}-{name}.bin"
            values = np.memmap(path, dtype=_NUMPY_DTYPES[dtype], mode="w+", shape=tuple(parameter.shape))
            setattr(owner, name, nn.Parameter(torch.from_numpy(values), requires_grad=parameter.requires_grad))
            maps[name] = values
        for name, buffer in owner.named_buffers(recurse=False):
            path = Path(folder) / f"{number}-{name}.bin"
            values = np.memmap(path, dtype=_NUMPY_DTYPES_OF_BUFFERS[buffer.dtype], mode="w+", shape=tuple(buffer.shape))
            setattr(owner, name, torch.from_numpy(values))
            maps[name] = values
        if maps:
            setattr(owner, _MAPS, maps)


def release_memory(module: nn.Module) -> None:
    """Writes a module's file-backed parameters out and gives their pages back; without any, does nothing."""
    for values in getattr(module, _MAPS, {}).values():
        values.flush()
        if hasattr(mmap, "MADV_DONTNEED"):
            values._mmap.madvise(mmap.MADV_DONTNEED)


def is_on_disk(module: nn.Module) -> bool:
    """Whether any parameter of the module is file-backed."""
    return any(hasattr(each, _MAPS) for each in module.modules())


def save_sharded(module: nn.Module, folder: str | os.PathLike, max_shard_size: int | str) -> None:
    """Writes the weights as safetensors in shards and their index, with one shard in memory at a time."""
    state = module.state_dict()
    plan = split_torch_state_dict_into_shards(state, max_shard_size=max_shard_size)
    for name, keys in plan.filename_to_tensors.items():
        save_file({key: state[key] for key in keys}, Path(folder) / name, metadata={"format": "pt"})
        for each in module.modules():
            release_memory(each)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (Path(folder) / _INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")
