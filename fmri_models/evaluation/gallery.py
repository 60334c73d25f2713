"""A gallery of pictures or embeddings, and who is most similar to whom in it."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.generator_pictures import pictures_to_embed
from ..data.picture_files import named_pictures
from ..data.pictures import read_picture
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..names import one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..plain_values import ShortRepr
from ..progress import batches
from ..reading import MEBIBYTE
from ..retrieval import DEFAULT_TOP_K, Query, count_duplicates, retrieve
from .patterns import Patterns, load_array

_PATTERNS_A_BATCH = 256
_PICTURES_A_BATCH = 64
_BYTES_A_BATCH = 64 * MEBIBYTE


@dataclass(repr=False)
class Gallery(ShortRepr):
    """Embeddings to search in, with the names of what they are of.

    Args:
        embeds: (M, values) array; a file of embeddings is memory-mapped.
        names: File stem of each picture; None where rows have numbers alone.
        notes: Sentences on what else lies in the folder and is no picture, save hidden and system files.
    """

    embeds: np.ndarray
    names: Sequence[str] | None = None
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.embeds)

    def name(self, row: int) -> str:
        """What a row is called in output."""
        return str(row) if self.names is None else self.names[row]

    def duplicates(self) -> int:
        """How many rows repeat an earlier one."""
        return count_duplicates(self.embeds)


def load_gallery(pipeline: FmriToImagePipeline, gallery: str | os.PathLike) -> Gallery:
    """Opens a gallery: a .npy file of embeddings, or a folder of pictures, which are embedded.

    Args:
        pipeline: Its image generator embeds pictures; embeddings have to be in its space.
        gallery: File (M, …) of any floating type, which may be larger than memory, or folder of pictures.

    Raises:
        FmriModelsError: There are no pictures or one can't be read, the embeddings have another size than the
            pipeline's, or the pipeline decodes none.
    """
    path = Path(gallery)
    space = pipeline.brain_model.config.space("image_embedding_space")
    if space is None:
        raise FmriModelsError("This method decodes no image embeddings, so it can't retrieve.")
    return _from_folder(pipeline, path) if path.is_dir() else _from_file(space, path)


def retrieve_from_gallery(
    pipeline: FmriToImagePipeline,
    patterns: Patterns,
    gallery: Gallery,
    top_k: int | None = None,
    query: Query = "brain",
) -> Iterator[tuple[str, str, int, str, str]]:
    """Rows (trial, stimulus, rank, item, similarity), the best first, for each query.

    With `query="brain"`, each pattern looks for its picture and rows are ordered by pattern; with `"image"`, each item
    of the gallery looks for its pattern and rows are ordered by item. Without `top_k`, five of them are given, or all
    where there are fewer.

    Raises:
        FmriModelsError: The method has no retrieval embeddings, or `top_k` is out of range.
    """
    searched, what = (len(gallery), "pictures") if query == "brain" else (len(patterns.names), "patterns")
    top_k = min(DEFAULT_TOP_K, searched) if top_k is None else top_k
    if not 1 <= top_k <= searched:
        place = "the gallery has" if query == "brain" else "there are"
        raise FmriModelsError(f"top_k is {top_k}; {place} {searched} {what}, so expected 1 to {searched}.")
    embeds = _decoded(pipeline, patterns)
    found = retrieve(embeds, gallery.embeds, top_k) if query == "brain" else retrieve(gallery.embeds, embeds, top_k)
    for row, (similarities, indices) in enumerate(zip(found.similarities, found.indices, strict=True)):
        for rank, (similarity, index) in enumerate(zip(similarities.tolist(), indices.tolist(), strict=True), start=1):
            pattern, item = (row, index) if query == "brain" else (index, row)
            names = patterns.names[pattern], patterns.stimuli[pattern]
            yield *names, rank, gallery.name(item), f"{similarity:.4f}"


def _decoded(pipeline: FmriToImagePipeline, patterns: Patterns) -> torch.Tensor:
    """(N, values) embeddings of all patterns."""
    model, subject = pipeline.brain_model, patterns.subject
    count = len(patterns.features)
    with torch.no_grad():
        embeds = [
            model.retrieval_embeds(patterns.features[positions].to(model.device), subject).flatten(1).float().cpu()
            for positions in batches(count, _PATTERNS_A_BATCH, "Decoding embeddings", unit="pattern", delay=1)
        ]
    return torch.cat(embeds)


def _from_file(space: EmbeddingSpace, path: Path) -> Gallery:
    values = load_array(path, memory_map=True)
    size = math.prod(values.shape[1:])
    if size != space.size:
        raise FmriModelsError(
            f"{one_line(path)} has embeddings of {one_line(size, 40)} values; this pipeline's have {space.size} "
            f"({space.encoder})."
        )
    if len(values) == 0:
        raise FmriModelsError(f"The gallery {one_line(path)} has no rows; give embeddings of at least one picture.")
    return Gallery(values.reshape(len(values), size))


def _from_folder(pipeline: FmriToImagePipeline, path: Path) -> Gallery:
    pictures = named_pictures(path)
    files = list(pictures.files.values())
    generator = pipeline.image_generator
    if generator is None:
        raise FmriModelsError(
            "This pipeline has no image generator to embed the gallery's pictures; give a .npy file of embeddings."
        )
    embeds = []
    for positions in batches(len(files), _PICTURES_A_BATCH, "Embedding the gallery's pictures"):
        for alike in _batches(_picture(files[position], generator) for position in positions):
            prepared = pictures_to_embed(np.stack(alike), generator)
            embeds.append(generator.embed_images(prepared).flatten(1).float().cpu())
    return Gallery(torch.cat(embeds).numpy(), list(pictures.files), pictures.notes(path))


def _batches(pictures: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Neighbours of one size, which go through the encoder together as far as memory allows."""
    batch: list[np.ndarray] = []
    for picture in pictures:
        if batch and (picture.shape != batch[0].shape or (len(batch) + 1) * picture.nbytes > _BYTES_A_BATCH):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def _picture(file: Path, generator: ImageGenerator) -> np.ndarray:
    """uint8 (H, W, C); C is 1 where the generator and the picture are grey, else 3."""
    try:
        values = read_picture(file, one_line(file.name))
    except FmriModelsError as error:
        raise FmriModelsError(f"The picture {one_line(file)} can't be read: {one_line(error)}") from error
    return values if generator.image_size[0] == 1 else np.broadcast_to(values, (*values.shape[:2], 3))
