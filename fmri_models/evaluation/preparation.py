"""How pictures are prepared before they are measured: published evaluations differ here, and so do their figures."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .extractors import FeatureExtractor
from .metrics import sides_with_shorter
from .protocols import Crop, Interpolation


@dataclass(frozen=True)
class Preparation:
    """What a protocol does with shown and reconstructed pictures before they are measured.

    Args:
        size: Side of the square to which all are resized first; None leaves them.
        resolution: Of the shorter side for metrics of pixels, after that; None leaves it.
        interpolation: Of both.
        antialias: Whether pictures are smoothed before they become smaller. Evaluations of earlier years did not, since
            torchvision did not by itself then: of a noisy picture PixCorr differs by .005.
        crop: `"centre"` takes the central square first.
    """

    size: int | None = None
    resolution: int | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    crop: Crop = "none"

    def of_network(self, pictures: Tensor) -> Tensor:
        """Pictures (N, C, H, W) as networks are shown them, before each prepares them in its own way."""
        if self.crop == "centre":
            pictures = _central_square(pictures)
        if self.size is None:
            return pictures
        return self._resized(pictures, self.size, self.size)

    def of_pixels(self, pictures: Tensor) -> Tensor:
        """Pictures (N, C, H, W) as their pixels are compared."""
        pictures = self.of_network(pictures)
        height, width = pictures.shape[-2:]
        if self.resolution is None or min(height, width) == self.resolution:
            return pictures
        return self._resized(pictures, *sides_with_shorter(height, width, self.resolution))

    def size_of_pixels(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of pictures as their pixels are compared, of those that they have."""
        if self.crop == "centre":
            height = width = min(height, width)
        if self.size is not None:
            height = width = self.size
        if self.resolution is None:
            return height, width
        return sides_with_shorter(height, width, self.resolution)

    def _resized(self, pictures: Tensor, height: int, width: int) -> Tensor:
        if pictures.shape[-2:] == (height, width):
            return pictures
        resized = F.interpolate(
            pictures, size=(height, width), mode=self.interpolation, align_corners=False, antialias=self.antialias
        )
        # Bicubic weights reach below 0 and above 1.
        return resized.clamp(0, 1)


class PreparedNetwork:
    """A network that is shown pictures as a protocol prepares them.

    Args:
        network: From pictures to features.
        preparation: The protocol's.
    """

    def __init__(self, network: FeatureExtractor, preparation: Preparation) -> None:
        self._network, self._preparation = network, preparation
        self.name, self.sha256 = network.name, network.sha256

    def __call__(self, images: Tensor) -> Tensor:
        return self._network(self._preparation.of_network(images))

    def described(self) -> dict[str, str]:
        """What the network says of itself."""
        own: Any = getattr(self._network, "described", dict)
        return own()

    @property
    def cache_key(self) -> dict[str, str] | None:
        """What features depend on beside the pictures; None where that is not known."""
        own = getattr(self._network, "cache_key", None)
        return None if own is None else {**own, "preparation": repr(self._preparation)}


def _central_square(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pictures[..., top : top + side, left : left + side]
