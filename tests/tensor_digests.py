"""Loads a saved model or pipeline in this (new) process and prints a digest of every tensor as JSON.

python -m tests.tensor_digests model fmri_models:LinearModel FOLDER
python -m tests.tensor_digests pipeline fmri_models:FmriToImagePipeline FOLDER
"""

import hashlib
import json
import sys
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from torch import nn


def digests(module: nn.Module) -> dict[str, str]:
    """Name ▶ digest of each parameter and buffer, those that are not saved included."""
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: _digest(tensor) for name, tensor in named}


def pipeline_digests(pipeline: Any) -> dict[str, str]:
    """The same for all networks of a pipeline and of its image generator, and for the processor's statistics."""
    found = {}
    for name, component in pipeline.components.items():
        if isinstance(component, nn.Module):
            found |= {f"{name}.{key}": value for key, value in digests(component).items()}
        elif hasattr(component, "components"):
            found |= {f"{name}.{key}": value for key, value in pipeline_digests(component).items()}
    if hasattr(pipeline, "processor"):
        for subject in pipeline.processor.subject_names:
            statistics = pipeline.processor.subject(subject)
            for key in ("mean", "std", "selected"):
                found[f"processor.{subject}.{key}"] = _digest(torch.from_numpy(getattr(statistics, key)))
    return found


def _digest(tensor: torch.Tensor) -> str:
    content = (
        f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
        + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    )
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    kind, path, folder = sys.argv[1:]
    module_name, class_name = path.split(":")
    loaded = getattr(import_module(module_name), class_name).from_pretrained(folder)
    print(json.dumps(digests(loaded) if kind == "model" else pipeline_digests(loaded)))
