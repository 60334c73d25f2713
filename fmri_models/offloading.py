"""Weights that Accelerate keeps elsewhere and brings for a forward: here for every other method that computes, too.

Hooks of CPU and disk offload sit on `forward`. A method beside it (`decode`, a module that is called by itself) would
find weights on the CPU, or on the device "meta", where there are none.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook
from accelerate.utils import find_device, named_module_tensors, send_to_device, set_module_tensor_to_device
from torch import nn

from .errors import FmriModelsError

_Method = TypeVar("_Method", bound=Callable[..., Any])


def execution_device(module: nn.Module) -> torch.device | None:
    """Where a module computes if hooks move its weights; None if none do."""
    for each in module.modules():
        for hook in _hooks(each):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                return torch.device(device)
    return None


def place_of(module: nn.Module) -> torch.device:
    """Where a module takes its inputs: where hooks bring its weights, or where these are."""
    device = execution_device(module)
    return next(module.parameters()).device if device is None else device


def without_index_of_cpu(module: nn.Module) -> None:
    """Makes hooks work that compute on "cpu:0", which diffusers makes of "cpu": a weight is no parameter any more after
    it was sent there.
    """
    for each in module.modules():
        for hook in _hooks(each):
            if getattr(hook, "execution_device", None) == torch.device("cpu", 0):
                hook.execution_device = torch.device("cpu")


def check_can_be_sent_by_layer(network: nn.Module, what: str) -> None:
    """Refuses PEFT adapters that read weights past the calls of layers, which are what brings them one by one.

    Args:
        network: The network.
        what: What it is called, for the sentence.

    Raises:
        FmriModelsError: Names the adapter and its layer, and says what to do instead.
    """
    # Whoever has an adapter has imported PEFT.
    if "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in network.named_modules():
        if not isinstance(layer, BaseTunerLayer) or _is_called_by_layer(layer):
            continue
        merge = f"{what}.fuse_lora() and {what}.unload_lora()" if hasattr(network, "unload_lora") else "PEFT"
        raise FmriModelsError(
            f"The {what} has an adapter of PEFT that reads its weights past the calls of its layers (in "
            f"{name}), so that enable_sequential_cpu_offload() can't bring them; merge it into the "
            f"weights first, with {merge}, or call enable_model_cpu_offload() instead."
        )


@contextmanager
def onloaded(module: nn.Module) -> Iterator[None]:
    """Brings what a forward of the module would bring, for code that calls the modules inside it one by one."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)


@contextmanager
def weights_in_place(*modules: nn.Module) -> Iterator[None]:
    """Puts all weights that hooks keep elsewhere in their places on the CPU, as saving needs them.

    What a `device_map` has put elsewhere is left there, as transformers brings it itself.
    """
    placed: list[tuple[nn.Module, str]] = []
    try:
        for module in modules:
            if not hasattr(module, "hf_device_map"):
                for each in module.modules():
                    placed += _put_in_place(each)
        yield
    finally:
        for each, name in placed:
            set_module_tensor_to_device(each, name, "meta")


def _put_in_place(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for hook in _hooks(module):
        if not isinstance(hook, AlignDevicesHook) or not hook.offload or hook.weights_map is None:
            continue
        tensors = named_module_tensors(
            module, include_buffers=hook.offload_buffers, recurse=hook.place_submodules, remove_non_persistent=True
        )
        for name, values in list(tensors):
            if values.device.type == "meta":
                set_module_tensor_to_device(module, name, "cpu", value=hook.weights_map[name])
                yield module, name


def offloaded_like(layer: nn.Module, others: nn.Module) -> nn.Module:
    """Keeps a layer's weights elsewhere where those of others are kept so, layer by layer; gives the layer."""
    hooks = (hook for each in others.modules() for hook in _hooks(each))
    hook = next((each for each in hooks if isinstance(each, AlignDevicesHook) and each.offload), None)
    if hook is not None:
        cpu_offload(layer, hook.execution_device, offload_buffers=hook.offload_buffers)
    return layer


def with_hooks(method: _Method) -> _Method:
    """Makes a method of a module heed the hooks that its `forward` has.

    Tensors among the arguments go where the weights are brought to; the result comes back if that of a forward does.
    """

    @functools.wraps(method)
    def wrapper(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # Hooks are none of a graph's business, and looking for them would break it.
        if torch.compiler.is_compiling():
            return method(module, *args, **kwargs)
        device = execution_device(module)
        if device is None:
            with onloaded(module):
                return method(module, *args, **kwargs)
        origin = find_device([args, kwargs])
        with onloaded(module):
            moved, named = send_to_device((args, kwargs), device)
            result = method(module, *moved, **named)
        comes_back = any(getattr(hook, "io_same_device", False) for hook in _hooks(module))
        return send_to_device(result, origin) if comes_back and origin is not None else result

    return cast(_Method, wrapper)


def _is_called_by_layer(layer: Any) -> bool:
    """Whether everything that a layer of PEFT computes with belongs to a module that it calls."""
    from peft.tuners.ln_tuning.layer import LNTuningLayer
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper
    from peft.tuners.oft.layer import OFTLayer

    tensors = (getattr(layer, name, None) for name in layer.adapter_layer_names)
    own = [each for each in tensors if isinstance(each, nn.Module) and len(list(each.parameters())) > 0]
    if not own or (layer.merged and not layer.disable_adapters):
        return True
    if any(isinstance(each, nn.ParameterDict) for each in own):
        return False
    if isinstance(layer, LoraLayer):
        # Variants such as DoRA, and attention as a whole, compute with the weights of the layer that they change.
        changes_weights = isinstance(layer, ParamWrapper) or isinstance(layer.get_base_layer(), nn.MultiheadAttention)
        return not changes_weights and not layer.lora_variant
    return isinstance(layer, LNTuningLayer | OFTLayer)


def _hooks(module: nn.Module) -> list[Any]:
    hook = getattr(module, "_hf_hook", None)
    return list(getattr(hook, "hooks", [hook]))
