"""What the original classes computed: see tests/fixtures/mindbridge/README.md."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "mindbridge"
TEST_DATA = os.environ.get("FMRI_MODELS_TEST_DATA")
LARGE = Path(TEST_DATA or "") / "fixtures" / "mindbridge"
needs_fixtures = pytest.mark.skipif(TEST_DATA is None, reason="FMRI_MODELS_TEST_DATA is not set")

# Tokens of the tiny heads.
SPACES = {
    "image_embedding_space": {"encoder": "tiny", "layer": "tokens", "shape": [9, 16]},
    "text_embedding_space": {"encoder": "tiny/text", "layer": "tokens", "shape": [5, 16]},
}


def original(name: str, folder: Path = FOLDER) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of a fixture; large ones are not part of the tests and lie in another folder."""
    return load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text())


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, without it: `sd/` are weights by the published names."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
