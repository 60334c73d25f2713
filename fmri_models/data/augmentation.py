"""Random changes of pictures, for targets that are computed anew in each step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch

from ..errors import FmriModelsError

# What is cut out is this much wider than high, at most and at least.
_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_TRIALS = 10
_BLUR_SIZE = 7
_BLUR_SIGMA = (0.1, 2.0)
# Solarising adds the shift first and then inverts what is brighter than the threshold.
_SOLARIZE_SHIFT = (-0.1, 0.1)
_SOLARIZE_THRESHOLD = (0.4, 0.6)

_PROBABILITIES = (
    "crop_probability",
    "flip_probability",
    "jitter_probability",
    "grey_probability",
    "solarize_probability",
    "blur_probability",
)
_STRENGTHS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class PictureAugmentation:
    """Changes every picture of a batch in its own way; the defaults are those of MindEye's published training.

    What is drawn comes from a generator on the CPU and from nothing else, whatever device the pictures are on.

    Args:
        crop_probability: Probability to cut something out and enlarge it to the picture's size.
        crop_scale: Least and greatest share of the picture's area that is cut out.
        crop_first: Whether cutting and mirroring come before colours are changed, or after.
        flip_probability: Probability to mirror left and right.
        jitter_probability: Probability to change brightness, contrast, saturation and hue, in random order.
        brightness: Factors are drawn from 1 - brightness to 1 + brightness.
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Hue is turned by at most this share of the circle in either direction.
        grey_probability: Probability to take the colour away.
        solarize_probability: Probability to invert the bright parts.
        blur_probability: Probability to blur, with a kernel of 7 pixels and a sigma from .1 to 2.

    Raises:
        FmriModelsError: A probability or a range is impossible.
    """

    crop_probability: float = 0.3
    crop_scale: tuple[float, float] = (0.6, 1.0)
    crop_first: bool = True
    flip_probability: float = 0.5
    jitter_probability: float = 0.3
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey_probability: float = 0.3
    solarize_probability: float = 0.0
    blur_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            self._check_number(name, 0.0, 1.0)
        for name in _STRENGTHS:
            self._check_number(name, 0.0, 0.5 if name == "hue" else 1.0)
        if not isinstance(self.crop_first, bool):
            raise FmriModelsError(f"augmentation.crop_first is {self.crop_first!r}; expected true or false.")
        scale = self.crop_scale
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise FmriModelsError(
                f"augmentation.crop_scale is {list(scale)}; expected two shares of the area such as [0.6, 1], the "
                "smaller one first."
            )

    def __call__(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Changes pictures.

        Args:
            pictures: (N, C, H, W) float in [0, 1].
            generator: Source of all draws; on the CPU.

        Returns:
            (N, C, H, W) float in [0, 1], on the same device.
        """
        geometry: list[_Change] = [self._cropped, self._flipped]
        colours: list[_Change] = [self._jittered, self._greyed, self._solarized, self._blurred]
        steps = [*geometry, *colours] if self.crop_first else [*colours, *geometry]
        return torch.stack([_in_turn(picture, steps, _Draws(generator)) for picture in pictures])

    def _cropped(self, picture: torch.Tensor, draws: "_Draws") -> torch.Tensor:
        from torchvision.transforms.v2 import functional

        if not draws.happens(self.crop_probability):
            return picture
        height, width = picture.shape[-2:]
        high, wide = self._size_of_crop(height, width, draws)
        top, left = draws.below(height - high + 1), draws.below(width - wide + 1)
        return functional.resized_crop(picture, top, left, high, wide, [height, width]).clamp(0, 1)

    def _size_of_crop(self, height: int, width: int, draws: "_Draws") -> tuple[int, int]:
        """Height and width in pixels; of the whole picture where nothing that was drawn lies inside of it."""
        for _ in range(_CROP_TRIALS):
            area = height * width * draws.between(*self.crop_scale)
            ratio = math.exp(draws.between(*(math.log(each) for each in _CROP_RATIO)))
            high, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < high <= height and 0 < wide <= width:
                return high, wide
        return height, width

    def _flipped(self, picture: torch.Tensor, draws: "_Draws") -> torch.Tensor:
        return picture.flip(-1) if draws.happens(self.flip_probability) else picture

    def _jittered(self, picture: torch.Tensor, draws: "_Draws") -> torch.Tensor:
        from torchvision.transforms.v2 import functional

        if not draws.happens(self.jitter_probability):
            return picture
        brightness, contrast, saturation = (
            draws.between(1 - strength, 1 + strength) for strength in (self.brightness, self.contrast, self.saturation)
        )
        hue = draws.between(-self.hue, self.hue)
        changes: list[Callable[[torch.Tensor], torch.Tensor]] = [
            lambda each: functional.adjust_brightness(each, brightness),
            lambda each: functional.adjust_contrast(each, contrast),
            lambda each: functional.adjust_saturation(each, saturation),
            lambda each: functional.adjust_hue(each, hue),
        ]
        for number in draws.order(len(changes)):
            picture = changes[number](picture)
        return picture

    def _greyed(self, picture: torch.Tensor, draws: "_Draws") -> torch.Tensor:
        from torchvision.transforms.v2 import functional

        if not draws.happens(self.grey_probability):
            return picture
        return functional.rgb_to_grayscale(picture, num_output_channels=picture.shape[0])

    def _solarized(self, picture: torch.Tensor, draws: "_Draws") -> torch.Tensor:
        if not draws.happens(self.solarize_probability):
            return picture
        shifted = (picture + draws.between(*_SOLARIZE_SHIFT)).clamp(0, 1)
        return torch.where(shifted < draws.between(*_SOLARIZE_THRESHOLD), shifted, 1 - shifted)

    def _blurred(self, picture: torch.Tensor, draws: "_Draws") -> torch.Tensor:
        from torchvision.transforms.v2 import functional

        if not draws.happens(self.blur_probability):
            return picture
        return functional.gaussian_blur(picture, [_BLUR_SIZE, _BLUR_SIZE], [draws.between(*_BLUR_SIGMA)])

    def _check_number(self, name: str, lowest: float, highest: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise FmriModelsError(
                f"augmentation.{name} is {value!r}; expected a number from {lowest:g} to {highest:g}."
            )


# What MindEye's low-level branch compares with the plain picture: colours first, then a part of it.
TEACHER_VIEW = PictureAugmentation(
    crop_probability=1.0,
    crop_scale=(0.5, 1.0),
    crop_first=False,
    flip_probability=0.0,
    jitter_probability=0.8,
    grey_probability=0.2,
    solarize_probability=0.2,
    blur_probability=0.1,
)


def picture_augmentation(value: str | dict[str, Any]) -> PictureAugmentation | None:
    """What a recipe means by its `augmentation`.

    Args:
        value: `"none"`, `"published"` (MindEye's), or a mapping of what differs from `"published"`.

    Returns:
        The augmentation; None where pictures stay as they are.

    Raises:
        FmriModelsError: It is none of these, or has a key or a value that there is not.
    """
    if value == "none":
        return None
    if value == "published":
        return PictureAugmentation()
    known = [item.name for item in fields(PictureAugmentation)]
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise FmriModelsError(
            f"augmentation is {value!r}; expected none, published, or a mapping with some of {', '.join(known)}."
        )
    scale = value.get("crop_scale", PictureAugmentation.crop_scale)
    if not isinstance(scale, list | tuple) or not all(isinstance(each, int | float) for each in scale):
        raise FmriModelsError(f"augmentation.crop_scale is {scale!r}; expected two numbers such as [0.6, 1].")
    return PictureAugmentation(**{**value, "crop_scale": tuple(scale)})


@dataclass
class _Draws:
    """Random numbers of the kinds that an augmentation needs."""

    generator: torch.Generator

    def happens(self, probability: float) -> bool:
        """True with this probability; a number is drawn in any case."""
        return self.between(0.0, 1.0) < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def below(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def order(self, count: int) -> list[int]:
        return torch.randperm(count, generator=self.generator).tolist()


_Change = Callable[[torch.Tensor, _Draws], torch.Tensor]


def _in_turn(picture: torch.Tensor, steps: list[_Change], draws: _Draws) -> torch.Tensor:
    for step in steps:
        picture = step(picture, draws)
    return picture
