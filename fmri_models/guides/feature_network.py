"""A network whose layers are guides: how pictures are prepared for it, which modules are read, and in which space."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..names import did_you_mean, listed, one_line
from ..tensor_digest import add_tensors
from .layers_of_networks import outputs_of

Normalisation = Literal["none", "l2"]
_PICTURES_A_PASS = 8
_SIDE_OF_A_TEST_PICTURE = 224
_DIGITS_OF_REVISION = 12
_SEED_OF_UNITS = 0
_SOME_UNITS = re.compile(r", ([0-9]{1,9}) of [0-9]{1,9} units$")


@dataclass(eq=False)
class FeatureNetwork:
    """A network with its weights.

    Args:
        name: As in names of guides.
        encoder: What its spaces call it.
        network: In eval mode, float32, without gradients; called with prepared pictures.
        nodes: Layer ▶ name of the module whose output it is.
        prepare: Pictures (N, 3, H, W) in [0, 1] ▶ what the network takes.
        preprocessing: What `prepare` does, as the spaces say it.
        normalisation: `"l2"` divides each picture's features by their norm.
        settings: What else than the weights features depend on; part of the digest.
    """

    name: str
    encoder: str
    network: nn.Module
    nodes: Mapping[str, str]
    prepare: Callable[[torch.Tensor], torch.Tensor]
    preprocessing: str
    normalisation: Normalisation = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False)

    @property
    def layers(self) -> list[str]:
        """Names of the layers, from the first to the last."""
        return list(self.nodes)

    @cached_property
    def revision(self) -> str:
        """Digest of the weights, and of settings with which the same weights make other features."""
        digest = hashlib.sha256()
        add_tensors(digest, self.network.state_dict(), None)
        if self.settings:
            digest.update(json.dumps(self.settings, sort_keys=True).encode())
        return digest.hexdigest()[:_DIGITS_OF_REVISION]

    def spaces(self, layers: Sequence[str], units: int | None = None) -> dict[str, EmbeddingSpace]:
        """Layer ▶ space of its features, of larger layers those of so many units.

        Raises:
            FmriModelsError: There is no such layer.
        """
        self.check_layers(layers)
        unknown = [layer for layer in layers if layer not in self._shapes]
        if unknown:
            # Sizes of feature maps depend on how pictures are prepared, which nothing says better than a picture.
            side = _SIDE_OF_A_TEST_PICTURE
            values = self.features(torch.full((1, 3, side, side), 0.5), unknown)
            self._shapes.update({layer: tuple(each.shape[1:]) for layer, each in values.items()})
        return {
            layer: EmbeddingSpace(
                encoder=self.encoder,
                revision=self.revision,
                layer=layer,
                shape=self._shape(layer, units),
                normalisation=self._told(layer, units),
                preprocessing=self.preprocessing,
            )
            for layer in layers
        }

    @torch.no_grad()
    def features(
        self, pixel_values: torch.Tensor, layers: Sequence[str], units: int | None = None
    ) -> dict[str, torch.Tensor]:
        """What layers make of pictures.

        Args:
            pixel_values: (N, 3 or 1, H, W) float in [0, 1]; one channel is repeated.
            layers: Names.
            units: Of larger layers so many units, always the same; None for all.

        Returns:
            Layer ▶ (N, *shape) float32.

        Raises:
            FmriModelsError: There is no such layer, or the pictures have another shape.
        """
        self.check_layers(layers)
        if pixel_values.ndim != 4 or pixel_values.shape[1] not in (1, 3) or not pixel_values.is_floating_point():
            raise FmriModelsError(
                f"The network {self.name} takes float pictures of shape (N, 3, height, width); got "
                f"{pixel_values.dtype} of {tuple(pixel_values.shape)}."
            )
        pixels = pixel_values.float().expand(-1, 3, -1, -1)
        nodes = {layer: self.nodes[layer] for layer in layers}
        passes = [outputs_of(self.network, nodes, self.prepare(each)) for each in pixels.split(_PICTURES_A_PASS)]
        whole = {layer: self._normalised(torch.cat([each[layer] for each in passes]).float()) for layer in layers}
        return {layer: _some_units(values, units) for layer, values in whole.items()}

    def _shape(self, layer: str, units: int | None) -> tuple[int, ...]:
        shape = self._shapes[layer]
        return shape if units is None or math.prod(shape) <= units else (units,)

    def _told(self, layer: str, units: int | None) -> str:
        size = math.prod(self._shapes[layer])
        return (
            self.normalisation if units is None or size <= units else f"{self.normalisation}, {units} of {size} units"
        )

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuses layers that the network does not have.

        Raises:
            FmriModelsError: Names the first one.
        """
        for layer in layers:
            if layer not in self.nodes:
                raise FmriModelsError(
                    f"The network {self.name} has no layer {one_line(repr(layer), 80)}; it has "
                    f"{listed(self.layers, 40, 1000)}.{did_you_mean(str(layer), self.layers)}"
                )

    def _normalised(self, values: torch.Tensor) -> torch.Tensor:
        # A pooled map is a vector.
        values = values.flatten(1) if values.shape[2:] == (1, 1) else values
        if self.normalisation == "none":
            return values
        norms = values.flatten(1).norm(dim=1).clamp(min=torch.finfo(values.dtype).tiny)
        return values / norms.reshape(-1, *[1] * (values.ndim - 1))


def _some_units(values: torch.Tensor, units: int | None) -> torch.Tensor:
    """(N, units) of a larger layer, the same for all pictures; smaller layers as they are."""
    size = values[0].numel()
    if units is None or size <= units:
        return values
    chosen = np.sort(np.random.default_rng(_SEED_OF_UNITS).permutation(size)[:units])
    return values.flatten(1)[:, torch.from_numpy(chosen)]


def units_of(space: EmbeddingSpace) -> int | None:
    """How many units of a larger layer a space has; None where it has them all."""
    found = _SOME_UNITS.search(space.normalisation)
    return None if found is None else int(found[1])
