"""Pictures of a table as an image generator takes them: its size and channels, numbers from 0 to 1."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ..errors import FmriModelsError

if TYPE_CHECKING:
    from ..generation.image_generator import ImageGenerator


def prepare_pictures(images: np.ndarray, image_size: tuple[int, int, int]) -> torch.Tensor:
    """Pictures as a generator takes them: bicubic with antialiasing where the size differs, grey repeated to RGB.

    Args:
        images: uint8 (N, H, W, C) with C of 1 or 3.
        image_size: Channels, height and width of the generator's pictures.

    Returns:
        (N, C, H, W) float32 in [0, 1].

    Raises:
        FmriModelsError: The generator is grey and the pictures are coloured.
    """
    channels, height, width = image_size
    if images.shape[3] == 3 and channels == 1:
        raise FmriModelsError(
            "The pictures are coloured and the image generator draws grey ones; choose a generator for colour."
        )
    if images.shape[3] == 1 and channels == 3:
        images = images.repeat(3, axis=3)
    if images.shape[1:3] != (height, width):
        images = np.stack([resized_picture(image, width, height) for image in images])
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


def resized_picture(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture, uint8 (H, W, C), in another size (bicubic, antialiased); itself where it has that already."""
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return resized[..., None] if resized.ndim == 2 else resized


def pictures_to_embed(images: np.ndarray, generator: "ImageGenerator") -> torch.Tensor:
    """Pictures as a generator embeds them: of their own size where it resizes by itself, else of the generator's.

    Args:
        images: uint8 (N, H, W, C) with C of 1 or 3.
        generator: Embeds the pictures.

    Returns:
        (N, C, H, W) float32 in [0, 1].

    Raises:
        FmriModelsError: The generator is grey and the pictures are coloured.
    """
    if not generator.embeds_any_size:
        return prepare_pictures(images, generator.image_size)
    return prepare_pictures(images, (generator.image_size[0], images.shape[1], images.shape[2]))
