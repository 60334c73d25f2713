"""What models, pipelines and training compute, compared with what they computed when it was stored.

Whoever changes how the code is written sees here that the numbers stay. Tensors are stored as a few figures of each,
because processors differ in the last bits. `FMRI_MODELS_STORE_NUMBERS=1 pytest …` stores what a new test computes, or
what one computes that is meant to change.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "numbers"
# Of the root mean square of a tensor: far above the rounding of another processor, far below any other computation.
TOLERANCE = 1e-3


def check_numbers(name: str, tensors: Mapping[str, torch.Tensor], tolerance: float = TOLERANCE) -> None:
    """Compares tensors with those that were stored under a name.

    Args:
        name: Of the file.
        tensors: Name ▶ tensor, all of them.
        tolerance: Share of a tensor's root mean square by which its figures may differ.
    """
    found = {key: figures(values) for key, values in tensors.items()}
    file = FOLDER / f"{name}.json"
    if os.environ.get("FMRI_MODELS_STORE_NUMBERS"):
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(found.items()))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{{\n{lines}\n}}\n")
    assert file.is_file(), f"{name} has no stored numbers; FMRI_MODELS_STORE_NUMBERS=1 stores what it computes"
    stored = json.loads(file.read_text())
    assert found.keys() == stored.keys()
    different = [key for key in found if not _are_alike(found[key], stored[key], tolerance)]
    assert not different, {key: (stored[key], found[key]) for key in different[:5]}


def figures(values: torch.Tensor) -> dict[str, Any]:
    """Shape and dtype of a tensor, and figures that change with any of its values and with their order."""
    flat = values.detach().double().flatten()
    position = torch.arange(len(flat), dtype=torch.float64)
    size = max(len(flat), 1)
    return {
        "dtype": str(values.dtype).removeprefix("torch."),
        "shape": list(values.shape),
        "rms": float(f"{(flat.square().sum() / size).sqrt():.7g}"),
        "mean": float(f"{flat.sum() / size:.7g}"),
        "waves": [float(f"{(flat @ torch.cos(step * (position + 1))) / size**0.5:.7g}") for step in (1.0, 2.7)],
    }


def _are_alike(found: Mapping[str, Any], stored: Mapping[str, Any], tolerance: float) -> bool:
    if (found["dtype"], found["shape"]) != (stored["dtype"], stored["shape"]):
        return False
    figures_of = ([each["rms"], each["mean"], *each["waves"]] for each in (found, stored))
    allowed = tolerance * stored["rms"] + 1e-9
    return all(abs(one - other) <= allowed for one, other in zip(*figures_of, strict=True))
