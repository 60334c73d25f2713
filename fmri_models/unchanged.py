"""Objects that are as before when a change of several of them fails half way."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def unchanged_on_errors(networks: Iterable[nn.Module], others: Iterable[Any] = ()) -> Iterator[None]:
    """Gives networks their modules, parameters, modes and attributes back when the block fails, whatever the reason.

    Values of tensors are not copied; a block that writes into them is none for this.

    Args:
        networks: The networks, with all modules inside them.
        others: Further objects, such as configurations, whose attributes are given back, too.
    """
    modules = {id(module): module for network in networks for module in network.modules()}
    before = [(each, _attributes(each)) for each in (*modules.values(), *others)]
    learned = [
        (parameter, parameter.requires_grad)
        for module in modules.values()
        for parameter in module.parameters(recurse=False)
    ]
    try:
        yield
    except BaseException:
        for each, attributes in before:
            _give_back(each, attributes)
        for parameter, requires_grad in learned:
            parameter.requires_grad_(requires_grad)
        raise


def _attributes(each: Any) -> dict[str, tuple[Any, Any]]:
    """Attribute ▶ what it is, and a copy of what a container holds."""
    return {name: (value, _held(value)) for name, value in vars(each).items()}


def _held(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list | set) else None


def _give_back(each: Any, attributes: dict[str, tuple[Any, Any]]) -> None:
    for value, held in attributes.values():
        if isinstance(value, list):
            value[:] = held
        elif isinstance(value, dict | set):
            value.clear()
            value.update(held)
    vars(each).clear()
    vars(each).update({name: value for name, (value, _) in attributes.items()})
