"""What a recipe says of the networks whose layers are guides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import Field

from ..errors import FmriModelsError
from ..names import did_you_mean, one_line
from ..option_types import Line, Names, check_fields, in_words
from .named_networks import named_network

# Of two units all patterns correlate by 1 or -1: most candidates tie, and no score has its chance level.
_FEWEST_UNITS = 3


@dataclass(frozen=True)
class GuideSource:
    """A network of a recipe's `guides`.

    Args:
        network: Name of the network, such as `vgg19`.
        weights: File or folder of its weights; None for a network that comes with the package.
        layers: Layers that are decoded; None takes those that the network's papers take.
        units: Of a larger layer so many units are decoded, always the same ones, drawn at random; None for all.
    """

    network: Line
    weights: Line | None = None
    layers: Names | None = None
    units: (
        Annotated[int, Field(ge=_FEWEST_UNITS, le=2**28), in_words(f"a whole number from {_FEWEST_UNITS}")] | None
    ) = None

    def __post_init__(self) -> None:
        check_fields(vars(self), GuideSource, "guides.", "correct the recipe")
        if self.layers is not None and (not self.layers or len(set(self.layers)) < len(self.layers)):
            raise FmriModelsError(
                f"guides has the layers {one_line(repr(list(self.layers)), 120)} of {self.network}; expected each of "
                "them once, and one at least."
            )
        named_network(self.network)

    @property
    def layers_read(self) -> list[str]:
        """The layers that are decoded."""
        chosen = named_network(self.network).default_layers if self.layers is None else self.layers
        return list(chosen)


def guide_sources(values: Any) -> list[GuideSource]:
    """The networks of a recipe's `guides`: a mapping, or a list of them; weights may have to be named yet.

    Raises:
        FmriModelsError: It is something else, a key is unknown, or a network is named twice.
    """
    if values is None:
        return []
    several = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    known = [each.name for each in fields(GuideSource)]
    found = []
    for each in several:
        if not isinstance(each, Mapping) or not isinstance(each.get("network"), str):
            raise FmriModelsError(
                f"guides is {one_line(repr(values), 120)}; expected a mapping such as {{network: scene_vgg, layers: "
                "[conv3_2]}, or a list of them."
            )
        for key in each:
            if key not in known:
                raise FmriModelsError(
                    f"guides has the unknown key {one_line(repr(key), 80)}; there are {', '.join(known)}."
                    f"{did_you_mean(str(key), known)}"
                )
        found.append(GuideSource(**each))
    names = [each.network for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise FmriModelsError(f"guides names the network {twice[0]} twice; give all of its layers in one place.")
    return found
