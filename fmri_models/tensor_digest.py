"""Names, shapes, types and values of tensors in a digest."""

from collections.abc import Mapping
from typing import Any

import torch


def add_tensors(digest: Any, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    """Feeds tensors into a digest of hashlib, sorted by their names.

    Args:
        digest: The digest.
        tensors: Name ▶ tensor.
        dtype: What floating-point values are rounded to before; None takes them as they are.
    """
    for name, values in sorted(tensors.items()):
        if dtype is not None and values.is_floating_point():
            values = values.to(dtype)
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
