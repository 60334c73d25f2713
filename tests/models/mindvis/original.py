"""What the original classes computed: see tests/fixtures/mindvis/README.md."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "mindvis"


def original(name: str, folder: Path = FOLDER) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of a fixture; large ones are not part of the tests and lie in another folder."""
    return load_file(folder / f"mindvis_{name}.safetensors"), json.loads((folder / f"mindvis_{name}.json").read_text())


def state_dict(tensors: dict[str, torch.Tensor], prefix: str = "sd.") -> dict[str, torch.Tensor]:
    """The weights among the tensors of a fixture, by the published names."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


HEADS = {"num_attention_heads": 4, "decoder_num_attention_heads": 4}
