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
    """The weights that a `_recipe` fixture was computed with."""
    state = {}
    for key, (shape, total, absolute) in description["weight_sums"].items():
        draw = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
        values = draw.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
        if len(shape) >= 2:
            values = values / np.float32(np.sqrt(np.prod(shape[1:])))
        else:
            values = 1 + np.float32(0.1) * values if key.endswith(".weight") else np.float32(0.1) * values
        np.testing.assert_allclose(
            [values.sum(dtype=np.float64), np.abs(values).sum(dtype=np.float64)], [total, absolute]
        )
        state[key] = torch.from_numpy(values)
    return state
