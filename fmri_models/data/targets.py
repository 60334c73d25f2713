"""The cache of embeddings and latents, computed once for each picture, encoder and preprocessing."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..saving import atomic_file
from .matrix import cache_folder
from .table import TrialTable

TargetKind = Literal["image_embeds", "latents"]
TARGET_SPACES: dict[TargetKind, str] = {"image_embeds": "image_embedding_space", "latents": "latent_space"}
_IMAGES_A_BATCH = 128
# Larger target matrices are stored in half precision, as 9,000 pictures × 257 × 768 values are 7 GB in single.
_SINGLE_PRECISION_BYTES = 2**31


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
        images = np.stack([_resized(image, width, height) for image in images])
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


def cached_targets(table: TrialTable, generator: ImageGenerator, kind: TargetKind) -> np.ndarray:
    """Embeddings or latents of all pictures of a table.

    Args:
        table: The trial table.
        generator: Embeds or encodes the pictures.
        kind: `"image_embeds"` or `"latents"`.

    Returns:
        (stimuli, values) memory map, in the order of `table.stimuli.ids`; float32, or float16 beyond 2 GiB.

    Raises:
        FmriModelsError: The generator has no such space, a picture is missing, or the disk is full.
    """
    space: EmbeddingSpace | None = getattr(generator, TARGET_SPACES[kind])
    if space is None:
        raise FmriModelsError(f"{type(generator).__name__} has no {kind}; choose another generator.")
    path = cache_folder() / "targets" / f"{_key(table, space)}.npy"
    shape = (len(table.stimuli), space.size)
    if not _is_complete(path, shape):
        encode = generator.embed_images if kind == "image_embeds" else generator.encode_images
        dtype = np.float32 if shape[0] * shape[1] * 4 <= _SINGLE_PRECISION_BYTES else np.float16
        with atomic_file(path) as partial:
            values = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
            for start in tqdm(range(0, shape[0], _IMAGES_A_BATCH), desc=f"Encoding pictures ({kind})"):
                ids = table.stimuli.ids[start : start + _IMAGES_A_BATCH]
                pictures = prepare_pictures(table.stimuli.images(ids), generator.image_size)
                values[start : start + len(ids)] = encode(pictures).flatten(1).cpu().numpy()
            values.flush()
            del values
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _key(table: TrialTable, space: EmbeddingSpace) -> str:
    content = {"pictures": table.stimuli.content_hashes(), "space": space.to_dict()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _is_complete(path: Path, shape: tuple[int, int]) -> bool:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape == shape
    except (OSError, ValueError):
        return False


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return resized[..., None] if resized.ndim == 2 else resized
