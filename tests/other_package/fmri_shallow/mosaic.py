"""Pictures of a few cells, each of one colour."""

from typing import Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from fmri_models import DrawingSettings, EmbeddingSpace, ImageGenerator
from fmri_models.conditions import Conditions
from fmri_models.generation.image_generator import Generators


class Palette(ModelMixin, ConfigMixin):
    """The colours: a network of the generator's own, so small that it learns nothing."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.brightness = torch.nn.Parameter(torch.ones(1))


class MosaicImageGenerator(ImageGenerator):
    """A picture of cells: its latent is their colours.

    Args:
        palette: The colours.
        channels: 1 (grey) or 3 (RGB).
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
        cells: Cells a side.
    """

    used_settings = ()

    @register_to_config
    def __init__(self, palette: Palette, channels: int = 1, height: int = 12, width: int = 12, cells: int = 4) -> None:
        super().__init__()
        self.register_modules(palette=palette)

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int]) -> Self:
        return cls(Palette(), *image_size)

    @property
    def image_size(self) -> tuple[int, int, int]:
        return (self.config.channels, self.config.height, self.config.width)

    @property
    def latent_space(self) -> EmbeddingSpace:
        shape = (self.config.channels, self.config.cells, self.config.cells)
        return EmbeddingSpace(encoder="mosaic", layer="cells", shape=shape, normalisation="[0, 1]")

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.check_images(pixel_values)
        return F.adaptive_avg_pool2d(pixel_values.float(), self.config.cells)

    def draw(self, conditions: Conditions, settings: DrawingSettings, generators: Generators) -> torch.Tensor:
        cells = conditions.latents
        if cells is None:
            cells = self.draw_latents(len(conditions), generators)
        return self.in_one_step(cells, conditions)

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        colours = latents.float() * self.palette.brightness.float()
        return F.interpolate(colours, self.image_size[1:], mode="nearest")
