"""The cache of decoded pictures in the size in which a generator embeds them, for what looks at them in each step."""

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FmriModelsError
from ..progress import batches
from ..reading import read_array
from ..saving import atomic_file
from .cache import cache_folder, make_cache_folder, write_array
from .generator_pictures import pictures_to_embed
from .table import TrialTable

if TYPE_CHECKING:
    from ..generation.image_generator import ImageGenerator

_PICTURES_A_BATCH = 64


def cached_pictures(table: TrialTable, generator: "ImageGenerator") -> np.ndarray:
    """All pictures of a table as a generator embeds them, decoded and resized once.

    Args:
        table: The trial table.
        generator: Says how large the pictures are, and whether they are grey.

    Returns:
        (stimuli, C, H, W) uint8 memory map, in the order of `table.stimuli.ids`.

    Raises:
        FmriModelsError: A picture is missing or does not fit the generator, or the disk is full.
    """
    ids = table.stimuli.ids
    shape = (len(ids), *pictures_to_embed(table.stimuli.images(ids[:1]), generator).shape[1:])
    content = json.dumps([table.stimuli.content_hashes(), list(shape)])
    path = cache_folder() / "pictures" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"
    if not path.is_file():
        make_cache_folder(path.parent)
        with atomic_file(path) as partial:
            write_array(partial, shape, np.dtype(np.uint8), _resized(table, generator))
    pictures = read_array(path, "cache of pictures", "delete it", memory_map=True)
    if pictures.shape != shape or pictures.dtype != np.uint8:
        raise FmriModelsError(
            f"The cached pictures {path} are {pictures.dtype} of the shape {pictures.shape}; expected uint8 of "
            f"{shape}: delete them."
        )
    return pictures


def _resized(table: TrialTable, generator: "ImageGenerator") -> Iterator[np.ndarray]:
    """(n, C, H, W) uint8 pictures, a few at a time, in the table's order."""
    ids = table.stimuli.ids
    for chosen in batches(len(ids), _PICTURES_A_BATCH, "Decoding pictures"):
        images = table.stimuli.images(ids[chosen.start : chosen.stop])
        pictures = (pictures_to_embed(images, generator) * 255).round()
        yield pictures.numpy().astype(np.uint8)
