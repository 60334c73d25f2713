"""Weights that Accelerate keeps elsewhere and brings for a forward: here for every other method that computes, too.

Hooks of CPU and disk offload sit on `forward`. A method beside it (`decode`, a part that is called by itself) would
find weights on the CPU, or on the device "meta", where there are none.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from accelerate.utils import find_device, send_to_device
from torch import nn

_Method = TypeVar("_Method", bound=Callable[..., Any])


def execution_device(module: nn.Module) -> torch.device | None:
    """Where a module computes if hooks move its weights; None if none do."""
    for part in module.modules():
        for hook in _hooks(part):
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
    for part in module.modules():
        for hook in _hooks(part):
            if getattr(hook, "execution_device", None) == torch.device("cpu", 0):
                hook.execution_device = torch.device("cpu")


@contextmanager
def onloaded(module: nn.Module) -> Iterator[None]:
    """Brings what a forward of the module would bring, for code that calls the module's parts one by one."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)


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


def _hooks(module: nn.Module) -> list[Any]:
    hook = getattr(module, "_hf_hook", None)
    return list(getattr(hook, "hooks", [hook]))
