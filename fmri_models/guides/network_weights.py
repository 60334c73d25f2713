"""Every tensor of a network is read from one file; nothing of it is ever random."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from ..names import one_line
from ..original_checkpoint import check_tensors, read_state

_COUNTER = ".num_batches_tracked"


def network_from(
    build: Callable[[], nn.Module], path: Path, own_name: Callable[[str], str | None], layout: str
) -> nn.Module:
    """A network whose every tensor is read from a file; nothing of it is ever random.

    Args:
        build: Makes the network, of parameters without memory.
        path: Safetensors, or a checkpoint of plain tensors.
        own_name: Name of a tensor in the file to the network's own; None for one of another part of the model.
        layout: Whose layout it should be, for the message.

    Returns:
        The network in float32, in eval mode, without gradients.

    Raises:
        FmriModelsError: The file is damaged, or lacks a tensor, or has an unknown one, or one of another shape.
    """
    return _filled(build, read_state(path), own_name, layout, f"weights file {one_line(path)}")


def network_of_sizes(
    build: Callable[[], nn.Module], path: Path, own_name: Callable[[str], str | None], layout: str
) -> nn.Module:
    """As [`network_from`], of a network whose sizes somebody's configuration says: memory is taken for no others than
    those of the tensors in the file.

    Raises:
        FmriModelsError: As [`network_from`].
    """
    state, what = read_state(path), f"weights file {one_line(path)}"
    with torch.device("meta"):
        expected = build().state_dict()
    check_tensors(_own_tensors(state, own_name), expected, layout, what=what)
    return _filled(build, state, own_name, layout, what)


def _filled(
    build: Callable[[], nn.Module],
    state: Mapping[str, torch.Tensor],
    own_name: Callable[[str], str | None],
    layout: str,
    what: str,
) -> nn.Module:
    # Late, because reading batches imports this module and needs no network.
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    return with_tensors(network, state, own_name, layout, what)


def with_tensors(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    own_name: Callable[[str], str | None],
    layout: str,
    what: str,
) -> nn.Module:
    """Puts all tensors of a state dict into a network; the arguments are those of [`network_from`].

    Raises:
        FmriModelsError: As [`network_from`].
    """
    expected = network.state_dict()
    found = _own_tensors(state, own_name)
    # Counters of training steps, which older files lack and which nothing computed here reads.
    found |= {key: torch.tensor(0) for key in expected if key.endswith(_COUNTER) and key not in found}
    check_tensors(found, expected, layout, what=what)
    network.load_state_dict(found, strict=True, assign=True)
    return network.float().eval().requires_grad_(False)


def _own_tensors(state: Mapping[str, torch.Tensor], own_name: Callable[[str], str | None]) -> dict[str, torch.Tensor]:
    return {own: tensor for key, tensor in state.items() if (own := own_name(key)) is not None}
