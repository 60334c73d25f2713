"""The cache of embeddings and latents, computed once for each picture or caption, encoder and preprocessing."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import filelock
import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image
from torch import nn

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError, system_errors_as_sentences
from ..generation.image_generator import ImageGenerator
from ..generation.weights_digest import weights_digest
from ..progress import bar
from ..reading import read_array
from ..swapping import PARTIAL_PREFIX
from .matrix import cache_folder, make_cache_folder
from .table import TrialTable

TargetKind = Literal["image_embeds", "latents", "text_embeds"]
TARGET_SPACES: dict[TargetKind, str] = {
    "image_embeds": "image_embedding_space",
    "latents": "latent_space",
    "text_embeds": "text_embedding_space",
}
# What a model learns unless its recipe names targets. Captions are for recipes that ask for them: a table need not have
# any, and no shipped method gets better by them unasked.
DEFAULT_TARGETS: tuple[TargetKind, ...] = ("image_embeds", "latents")
_STIMULI_A_BATCH = 128
# Larger target matrices are stored in half precision, as 9,000 pictures × 257 × 768 values are 7 GB in single.
_SINGLE_PRECISION_BYTES = 2**31

_Encode = Callable[[range], torch.Tensor]


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


def pictures_to_embed(images: np.ndarray, generator: ImageGenerator) -> torch.Tensor:
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


def cached_targets(
    table: TrialTable, generator: ImageGenerator, kind: TargetKind, stimulus_ids: Sequence[str] | None = None
) -> np.ndarray:
    """Embeddings or latents of the stimuli of a table.

    They are kept by what they were made from: the content of pictures or captions, the generator's weights, and what
    its space states. An interrupted computation goes on where it was; several processes may ask at once.

    Args:
        table: The trial table.
        generator: Embeds or encodes the stimuli.
        kind: `"image_embeds"`, `"latents"`, or `"text_embeds"` (of the first caption of each stimulus).
        stimulus_ids: Of these stimuli alone; None takes all, `table.stimuli.ids`.

    Returns:
        (stimuli, values) memory map, in the order of the ids; float32, or float16 beyond 2 GiB.

    Raises:
        FmriModelsError: The generator has no such space or gives no finite numbers, a picture or caption is missing, or
            the cache can't be written.
    """
    space: EmbeddingSpace | None = getattr(generator, TARGET_SPACES[kind])
    if space is None:
        raise FmriModelsError(f"{type(generator).__name__} has no {kind}; choose another generator.")
    ids = list(table.stimuli.ids if stimulus_ids is None else stimulus_ids)
    of_kind = _captions(table, generator, ids) if kind == "text_embeds" else _pictures(table, generator, kind, ids)
    content, encode = of_kind
    described = {"content": content, "space": space.to_dict(), "weights": _weights_of(generator, kind)}
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / "targets" / f"{key}.npy"
    shape = (len(ids), space.size)
    dtype = np.dtype(np.float32 if shape[0] * shape[1] * 4 <= _SINGLE_PRECISION_BYTES else np.float16)
    if not _is_complete(path, shape, dtype):
        make_cache_folder(path.parent)
        with filelock.FileLock(path.with_suffix(".lock")):
            if not _is_complete(path, shape, dtype):
                _write(path, shape, dtype, encode, kind)
    return read_array(path, "cached targets", "delete them", memory_map=True)


def _pictures(
    table: TrialTable, generator: ImageGenerator, kind: TargetKind, ids: list[str]
) -> tuple[dict[str, object], _Encode]:
    """What tells these pictures from others, and how some rows of them are encoded."""
    stimuli = table.stimuli

    def embed(rows: range) -> torch.Tensor:
        return generator.embed_images(pictures_to_embed(stimuli.images(ids[rows.start : rows.stop]), generator))

    def encode(rows: range) -> torch.Tensor:
        images = stimuli.images(ids[rows.start : rows.stop])
        return generator.encode_images(prepare_pictures(images, generator.image_size))

    embeds = kind == "image_embeds"
    resized = None if embeds and generator.embeds_any_size else list(generator.image_size)
    return {"pictures": stimuli.content_hashes(ids), "resized": resized}, embed if embeds else encode


def _captions(table: TrialTable, generator: ImageGenerator, ids: list[str]) -> tuple[dict[str, object], _Encode]:
    """What tells these captions from others, and how some rows of them are embedded."""
    every = table.stimuli.captions(ids)
    if missing := [stimulus for stimulus, captions in zip(ids, every, strict=True) if not captions]:
        raise FmriModelsError(
            f"{len(missing)} of {len(every)} stimuli have no caption (such as {missing[0]}); add captions to the "
            "table, or leave text_embeds out of the recipe's targets."
        )
    first = [captions[0] for captions in every]
    return {"captions": first}, lambda rows: generator.embed_texts(first[rows.start : rows.stop])


def _weights_of(generator: ImageGenerator, kind: TargetKind) -> str:
    """Digest of the networks that may have part in targets; UNets, the largest of all, only draw."""
    unused = ("unet",) if kind == "text_embeds" else ("unet", "text_encoder")
    networks = {name: part for name, part in vars(generator).items() if isinstance(part, nn.Module)}
    return weights_digest(networks[name] for name in sorted(networks) if not any(word in name for word in unused))


def _write(path: Path, shape: tuple[int, int], dtype: np.dtype, encode: _Encode, kind: TargetKind) -> None:
    """Writes all rows; the lock is held. What an interruption leaves is gone on with, what an error leaves is removed.

    Written, not memory-mapped: a full disk is an error then, and not a killed process.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    try:
        with system_errors_as_sentences(path), partial.open("r+b" if partial.is_file() else "w+b") as out:
            first = _go_on(out, shape, dtype)
            progress = bar(name=f"Embedding stimuli ({kind})", total=shape[0], initial=first, unit="picture")
            for start in range(first, shape[0], _STIMULI_A_BATCH):
                rows = range(start, min(start + _STIMULI_A_BATCH, shape[0]))
                values = encode(rows).flatten(1).float().cpu().numpy().astype(dtype)
                _check_finite(values, kind)
                out.write(values.tobytes())
                out.flush()
                os.fsync(out.fileno())
                progress.update(len(rows))
            progress.close()
        partial.replace(path)
    except Exception:
        partial.unlink(missing_ok=True)
        raise


def _go_on(out: BinaryIO, shape: tuple[int, int], dtype: np.dtype) -> int:
    """The row to begin with, at which the file is positioned; an empty file gets its header.

    The last batch that the file has may not have reached the disk, so it is computed again.
    """
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    row_bytes = shape[1] * dtype.itemsize
    size = out.seek(0, os.SEEK_END)
    out.seek(0)
    npy.write_array_header_1_0(out, header)
    batches = max(0, size - out.tell()) // (row_bytes * _STIMULI_A_BATCH)
    first = max(0, batches - 1) * _STIMULI_A_BATCH
    out.seek(out.tell() + first * row_bytes)
    out.truncate()
    return first


def _check_finite(values: np.ndarray, kind: TargetKind) -> None:
    if not np.isfinite(values).all():
        raise FmriModelsError(
            f"The image generator gives {kind} that are not finite in {values.dtype}; load it in float32 or bfloat16."
        )


def _is_complete(path: Path, shape: tuple[int, int], dtype: np.dtype) -> bool:
    try:
        found = read_array(path, "cached targets", "delete them", memory_map=True)
    except FmriModelsError:
        return False
    return found.shape == shape and found.dtype == dtype
