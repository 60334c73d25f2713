"""What modules of a network put out, as they put it out, and torchvision's networks without weights."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import FmriModelsError


def outputs_of(network: nn.Module, nodes: Mapping[str, str], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Runs a network up to the last of some modules.

    Nothing behind them is computed. What they have put out is copied, as torchvision's ReLUs change it in place.

    Args:
        network: Any.
        nodes: Name ▶ name of a module in the network, such as `"features.4"`.
        pixels: Preprocessed pictures.

    Returns:
        Name ▶ what the module puts out.

    Raises:
        FmriModelsError: There is no such module, the network does not run it, or it gives no tensor.
    """
    modules = dict(network.named_modules())
    found: dict[str, Any] = {}
    handles = []
    names_at: dict[str, list[str]] = {}
    for name, node in nodes.items():
        if not node or node not in modules:
            raise FmriModelsError(
                f"{type(network).__name__} has no layer {node!r}; it has {', '.join(each for each in modules if each)}."
            )
        names_at.setdefault(node, []).append(name)
    try:
        for node, names in names_at.items():

            def keep(module: nn.Module, inputs: Any, output: Any, node: str = node, names: Any = names) -> None:
                found.update(dict.fromkeys(names, tensor_of(output, network, node).clone()))
                if len(found) == len(nodes):
                    raise _ReachedError

            handles.append(modules[node].register_forward_hook(keep))
        network(pixels)
    except _ReachedError:
        return {name: found[name] for name in nodes}
    finally:
        for handle in handles:
            handle.remove()
    missing = next(node for node, names in names_at.items() if names[0] not in found)
    raise FmriModelsError(
        f"{type(network).__name__} does not run its layer {missing!r}; name one that pictures go through."
    )


def tensor_of(output: Any, network: nn.Module, node: str) -> torch.Tensor:
    """What a layer puts out, if it is a tensor.

    Raises:
        FmriModelsError: It is something else.
    """
    if not isinstance(output, torch.Tensor):
        raise FmriModelsError(
            f"The layer {node!r} of {type(network).__name__} gives {type(output).__name__}; expected a tensor: name "
            "another layer."
        )
    return output


class _ReachedError(Exception):
    """Ends the computation where the features are."""


def torchvision_models() -> Any:
    """`torchvision.models`.

    Raises:
        FmriModelsError: torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision.models")
    except ImportError as error:
        raise FmriModelsError(
            'The network needs the package torchvision, which is not installed; pip install "fmri_models[demo]".'
        ) from error
