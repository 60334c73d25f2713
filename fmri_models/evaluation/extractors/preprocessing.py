"""What is done to a picture before a network sees it, each step as the published evaluations have it."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Interpolation = Literal["bilinear", "bicubic", "tensorflow"]


@dataclass(frozen=True)
class Preprocessing:
    """Resizing, cropping and normalising.

    Args:
        size: Of the shorter side in pixels, or of both.
        interpolation: `"tensorflow"` is bilinear interpolation as TensorFlow 1 had it, whose pixels lie half a pixel
            off; FID is defined with it.
        antialias: Whether a smaller picture is made of all pixels of the larger one. Tensors were resized without until
            torchvision 0.17, and the published evaluations with them.
        square: Give both sides this size, whatever they were; otherwise their proportion stays.
        crop: Side of the central square that is kept; None keeps all.
        mean: Of each channel in [0, 1].
        std: Of each channel.
    """

    size: int
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    square: bool = False
    crop: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(self, images: Tensor) -> Tensor:
        """Network input (N, 3, h, w) float32 of pictures (N, 3 or 1, H, W) in [0, 1]."""
        resized = self._resized(images.float().expand(-1, 3, -1, -1)).clamp(0, 1)
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (self._cropped(resized) - mean) / std

    @property
    def description(self) -> str:
        """One line that tells it from every other preprocessing."""
        steps = [f"{self.size}{'x' + str(self.size) if self.square else ''} {self.interpolation}"]
        steps[0] += " antialias" if self.antialias else ""
        steps += [] if self.crop is None else [f"centre crop {self.crop}"]
        named = {IMAGENET_MEAN + IMAGENET_STD: "ImageNet's normalisation", CLIP_MEAN + CLIP_STD: "CLIP's normalisation"}
        own = f"mean {_numbers(self.mean)} std {_numbers(self.std)}"
        return ", ".join([*steps, named.get(self.mean + self.std, own)])

    def _resized(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        scale = self.size / min(height, width)
        sides = (self.size, self.size) if self.square else (_side(height, scale), _side(width, scale))
        if sides == (height, width):
            return images
        if self.interpolation == "tensorflow":
            return _resized_as_tensorflow(images, sides)
        return F.interpolate(images, sides, mode=self.interpolation, antialias=self.antialias, align_corners=False)

    def _cropped(self, images: Tensor) -> Tensor:
        if self.crop is None:
            return images
        top, left = (round((side - self.crop) / 2) for side in images.shape[2:])
        return images[:, :, top : top + self.crop, left : left + self.crop]


def _side(length: int, scale: float) -> int:
    # The shorter side comes out exactly, the longer one is cut off, as torchvision does.
    return int(length * scale + 1e-9)


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _resized_as_tensorflow(images: Tensor, sides: tuple[int, int]) -> Tensor:
    """Bilinear interpolation in which pixel i of the result lies at i times the ratio of the sides."""
    for dimension, side in zip((2, 3), sides, strict=True):
        length = images.shape[dimension]
        places = torch.arange(side, dtype=torch.float32, device=images.device) * (length / side)
        lower = places.long().clamp(max=length - 1)
        upper = (lower + 1).clamp(max=length - 1)
        share = (places - lower).reshape([-1 if axis == dimension else 1 for axis in range(4)])
        low, high = images.index_select(dimension, lower), images.index_select(dimension, upper)
        images = low + (high - low) * share
    return images
