"""The guides of a recipe: their names, spaces and networks."""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..names import listed, one_line
from .feature_network import FeatureNetwork, units_of
from .guide_sources import GuideSource
from .named_networks import named_network


def guide_name(network: str, layer: str) -> str:
    """What the guide of a layer is called."""
    return f"{network}.{layer}"


def network_and_layer(guide: str) -> tuple[str, str]:
    """Network and layer of a guide."""
    network, _, layer = guide.partition(".")
    return network, layer


class GuideSet:
    """Guides of some networks, each of which is loaded when it is first needed.

    Args:
        sources: The networks.
    """

    def __init__(self, sources: Sequence[GuideSource]) -> None:
        self.sources = list(sources)

    @classmethod
    def of_model(cls, spaces: Mapping[str, EmbeddingSpace], weights: Mapping[str, str] | None = None) -> "GuideSet":
        """The guides that a model states, whose networks are loaded again where something is not kept.

        Args:
            spaces: Guide ▶ space.
            weights: Network ▶ file or folder of its weights.

        Raises:
            FmriModelsError: Weights are of no network of these.
        """
        layers: dict[str, list[str]] = {}
        units: dict[str, int | None] = {}
        for guide, space in spaces.items():
            network, layer = network_and_layer(guide)
            layers.setdefault(network, []).append(layer)
            units[network] = units_of(space) or units.get(network)
        if unknown := sorted((weights or {}).keys() - layers.keys()):
            raise FmriModelsError(
                f"There are weights of {one_line(unknown[0], 80)}, and the model decodes layers of "
                f"{listed(list(layers), 10)}; name one of these."
            )
        return cls(
            [GuideSource(name, (weights or {}).get(name), chosen, units[name]) for name, chosen in layers.items()]
        )

    @property
    def names(self) -> list[str]:
        """Names of the guides."""
        return [guide_name(source.network, layer) for source in self.sources for layer in source.layers_read]

    @cached_property
    def spaces(self) -> dict[str, EmbeddingSpace]:
        """Guide ▶ space.

        Raises:
            FmriModelsError: Weights can't be read, or there is no such layer.
        """
        return {
            guide_name(source.network, layer): space
            for source in self.sources
            for layer, space in self.network(source.network).spaces(source.layers_read, source.units).items()
        }

    def features(self, network: str, pixel_values: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """Layer ▶ (N, *shape) float32 of pictures (N, 3 or 1, H, W) in [0, 1]."""
        return self.network(network).features(pixel_values, layers, self._source(network).units)

    def check_weights(self) -> None:
        """Refuses weights that are not there, before any work.

        Raises:
            FmriModelsError: Says what is needed.
        """
        for source in self.sources:
            named_network(source.network).check_weights(source.weights)

    def network(self, name: str) -> FeatureNetwork:
        """A network with its weights."""
        source = self._source(name)
        return _loaded(name, source.weights, _state_of(source.weights))

    def _source(self, name: str) -> GuideSource:
        return next(each for each in self.sources if each.network == name)

    def check_spaces(self, stated: Mapping[str, EmbeddingSpace]) -> None:
        """Refuses networks that are not those that a model was trained with.

        Raises:
            FmriModelsError: Names the guide and what differs.
        """
        for guide, space in stated.items():
            mend = f"give the weights of {network_and_layer(guide)[0]} that the model was trained with"
            space.require_equal(self.spaces[guide], f"the model's guide {guide}", "the network that is here", mend)


@lru_cache(maxsize=2)
def _loaded(name: str, weights: str | None, state: tuple[tuple[str, int, int], ...]) -> FeatureNetwork:
    """Read once, although model, targets and estimate ask for it one after the other; `state` tells a replaced file."""
    return named_network(name).load(weights)


def _state_of(weights: str | None) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of each file."""
    if weights is None:
        return ()
    place = Path(weights)
    files = [place] if place.is_file() else sorted(place.glob("*"))
    found = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, each.st_size, each.st_mtime_ns) for name, each in found)
