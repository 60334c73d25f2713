"""Low-level pictures of anything: the latent is a small copy of the picture, and nothing is invented."""

from dataclasses import replace
from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from .image_generator import Generators, ImageGenerator
from .pixels import PixelsImageGenerator


class ThumbnailImageGenerator(ImageGenerator):
    """Gives pictures back as thumbnails of themselves, enlarged: for stimuli that no generator here has learned.

    Its latents are the thumbnail's pixels. Its embeddings are the same pixels in patches, as those of
    [`PixelsImageGenerator`], but they serve retrieval alone: no picture is drawn from them. Thumbnails are enlarged by
    bicubic interpolation; told nothing, it draws uniform noise. Strength, guidance and steps are without effect.

    Args:
        channels: 1 (grey) or 3 (RGB).
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
        thumbnail_size: Height and width of the thumbnail in pixels.

    Raises:
        FmriModelsError: The thumbnail is larger than the picture.
    """

    used_settings = ()
    limits = (
        "The image generator has learned no pictures: it shows the low-level picture, some pixels a side and enlarged, "
        "and draws nothing from embeddings."
    )

    @register_to_config
    def __init__(self, channels: int = 3, height: int = 64, width: int = 64, thumbnail_size: int = 16) -> None:
        super().__init__()
        if not 1 <= thumbnail_size <= min(height, width):
            raise FmriModelsError(
                f"The pictures have {height}x{width} pixels and their thumbnails {thumbnail_size}x{thumbnail_size}; "
                "such small pictures go with the generator pixels."
            )

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int], **options: Any) -> Self:
        return cls(*image_size)

    @property
    def image_size(self) -> tuple[int, int, int]:
        return (self.config.channels, self.config.height, self.config.width)

    @property
    def latent_space(self) -> EmbeddingSpace:
        return self._of_thumbnails(self._pixels.latent_space)

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        return self._of_thumbnails(self._pixels.image_embedding_space)

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Reduces pictures.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1].

        Returns:
            (N, C, thumbnail_size, thumbnail_size) float32 in [0, 1], means over the areas of the thumbnail's pixels.
        """
        self.check_images(pixel_values)
        return F.adaptive_avg_pool2d(pixel_values.float(), self.config.thumbnail_size).clamp(0, 1)

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cuts the thumbnails of pictures (N, C, H, W) in [0, 1] into patches (N, 16, values)."""
        return self._pixels.embed_images(self.encode_images(pixel_values))

    def accept(self, conditions: Conditions) -> Conditions:
        if not conditions.told_nothing:
            raise FmriModelsError(
                "The thumbnail generator draws nothing from embeddings; pass latents, or choose a generator with a "
                "diffusion model that was trained on such pictures."
            )
        return super().accept(conditions)

    def draw(self, conditions: Conditions, settings: DrawingSettings, generators: Generators) -> torch.Tensor:
        latents = conditions.latents
        if latents is None:
            # The normal distribution's own function turns normal draws into uniform ones.
            latents = torch.special.ndtr(self.draw_latents(len(conditions), generators))
        return self.in_one_step(latents, conditions)

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        return F.interpolate(latents.float().clamp(0, 1), self.image_size[1:], mode="bicubic")

    @property
    def _pixels(self) -> PixelsImageGenerator:
        """The generator to which the thumbnail is the whole picture."""
        return PixelsImageGenerator(self.config.channels, self.config.thumbnail_size, self.config.thumbnail_size)

    def _of_thumbnails(self, space: EmbeddingSpace) -> EmbeddingSpace:
        return replace(
            space, encoder="thumbnail", preprocessing=f"means over areas of {self.config.height}x{self.config.width}"
        )
