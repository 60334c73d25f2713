"""What the original classes computed: see tests/fixtures/mindeye/README.md."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "mindeye"


def original(name: str, folder: Path = FOLDER) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of a fixture; large ones are not part of the tests and lie in another folder."""
    return load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text())


def state_dict(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}


def recipe_state_dict(description: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights that a `_recipe` fixture was computed with, after a check of their sums."""
    state = recipe_tensors({key: shape for key, (shape, _, _) in description["weight_sums"].items()})
    for key, (_, total, absolute) in description["weight_sums"].items():
        values = state[key].numpy()
        np.testing.assert_allclose(
            [values.sum(dtype=np.float64), np.abs(values).sum(dtype=np.float64)], [total, absolute]
        )
    return state


def recipe_tensors(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Weights as a function of key and shape; a count of batches, which is no weight, is zero."""
    return {key: _recipe_tensor(key, shape) if shape else torch.tensor(0) for key, shape in shapes.items()}


def _recipe_tensor(key: str, shape: list[int]) -> torch.Tensor:
    values = seeded_normal(zlib.crc32(key.encode()) & 0xFFFFFFFF, *shape)
    if len(shape) >= 2:
        return values / float(np.sqrt(np.prod(shape[1:])))
    return 1 + 0.1 * values if key.endswith((".weight", ".g", ".running_var")) else 0.1 * values


def seeded_normal(seed: int | np.random.RandomState, *shape: int) -> torch.Tensor:
    """Standard normal numbers, from a seed or the next ones of a stream."""
    stream = np.random.RandomState(seed) if isinstance(seed, int) else seed
    return torch.from_numpy(stream.standard_normal(shape).astype(np.float32))
