"""Tensors in files of torch (`.pt`, `.pth`), without running anything that is in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import FmriModelsError
from ...names import listed, one_line
from ...original_checkpoint import read_values


def torch_tensor(path: Path, axes: int, mend: str) -> torch.Tensor:
    """The one tensor of a file, mapped and not read where torch's format allows it.

    Args:
        path: The file.
        axes: How many axes it has.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It can't be read, or holds something else.
    """
    found = read_values(path)
    if not isinstance(found, torch.Tensor) or found.ndim != axes or found.dtype.is_complex:
        what = f"a tensor of the shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else _kind(found)
        raise FmriModelsError(f"{one_line(path)} holds {what}; expected a tensor with {axes} axes; {mend}.")
    return found


def torch_mapping(path: Path, keys: tuple[str, ...], mend: str) -> Mapping[str, Any]:
    """What a file holds by name.

    Args:
        path: The file.
        keys: Which names there have to be.
        mend: As in [`torch_tensor`].

    Raises:
        FmriModelsError: It can't be read, or has no such names.
    """
    found = read_values(path)
    missing = [key for key in keys if key not in found] if isinstance(found, Mapping) else list(keys)
    if missing:
        raise FmriModelsError(f"{one_line(path)} holds {_kind(found)} without {listed(missing)}; {mend}.")
    return found


def _kind(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a dictionary ({listed([one_line(key, 40) for key in found], 5) or 'empty'})"
    return f"a {type(found).__name__}"
