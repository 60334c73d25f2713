"""What a picture loses on its way through an image generator and back: no decoder can do better."""

import math
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..data.generator_pictures import prepare_pictures
from ..generation.image_generator import ImageGenerator
from ..names import as_sentence

# Below this the round trip through a generator visibly changes a picture.
ROUND_TRIP_PSNR = 25.0

logger = logging.get_logger(__name__)


def say_what_is_lost(generator: ImageGenerator, named: str | dict[str, Any], images: np.ndarray) -> None:
    """Warns before the training where a generator can't draw pictures like the stimuli.

    Args:
        generator: The image generator; of one that draws no pictures nothing is said.
        named: How the recipe calls it.
        images: Stimuli, uint8 (N, H, W, C).
    """
    if generator.latent_space is None:
        return
    if generator.advice is not None:
        logger.warning(generator.advice)
    psnr = round_trip_psnr(generator, images)
    if generator.limits is not None:
        logger.warning(f"{as_sentence(generator.limits)} It gives these stimuli back with {psnr:.1f} dB at best.")
    elif psnr < ROUND_TRIP_PSNR:
        logger.warning(
            f"The image generator {named!r} gives these stimuli back with {psnr:.1f} dB only (its own "
            "pictures: 30 dB): they lie outside its domain, and no decoder can do better; small pictures go with "
            "generator=pixels, larger ones with generator=thumbnail."
        )
    else:
        lost = "nothing is lost" if psnr == math.inf else f"little is lost (a PSNR of {psnr:.1f} dB)"
        logger.info(
            f"The image generator {named!r} can draw pictures like the stimuli: of {len(images)} that it "
            f"encoded and drew again, {lost}."
        )


def round_trip_psnr(generator: ImageGenerator, images: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pictures that were encoded and decoded; infinite if nothing is lost."""
    pictures = prepare_pictures(images, generator.image_size)
    decoded = generator(latents=generator.encode_images(pictures), strength=0.0, output_type="pt").images
    assert isinstance(decoded, torch.Tensor)
    error = float(((decoded - pictures) ** 2).mean())
    return float("inf") if error == 0 else float(-10 * np.log10(error))
