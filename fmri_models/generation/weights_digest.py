"""Which weights a network has, as a short text."""

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

from ..tensor_digest import add_tensors


def weights_digest(modules: Iterable[nn.Module], dtype: torch.dtype | None = None) -> str:
    """SHA-256 (first 12 digits) of names, shapes, dtypes and values of all parameters and saved buffers.

    Two networks with the same digest give the same embeddings; where their files lie and how these are split doesn't
    matter. A gigabyte takes about a second.

    Args:
        modules: The networks, in an order that is always the same.
        dtype: What floating-point values are rounded to before; None takes them as they are.
    """
    digest = hashlib.sha256()
    for module in modules:
        add_tensors(digest, module.state_dict(), dtype)
    return digest.hexdigest()[:12]
