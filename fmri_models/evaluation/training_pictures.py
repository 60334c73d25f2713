"""Training pictures that stand beside reconstructions: their mean, and those nearest to what was decoded or drawn."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np
import torch

from .. import progress
from ..data.generator_pictures import pictures_to_embed, prepare_pictures
from ..data.table import TrialTable
from ..data.targets import TARGET_SPACES, Target, cached_targets, cached_targets_of_pictures
from ..generation.image_generator import ImageGenerator
from .extractors import FeatureExtractor, load_extractor
from .further_pictures import FurtherPictures

_PICTURES_A_BATCH = 512
_FURTHER_A_BATCH = 128
# What is kept of a library on disk at most: 10⁵ pictures of 1,024 values are 0.4 GB, those of 257 tokens 100 GB.
_KEPT_BYTES, _BYTES_A_VALUE = 4 * 2**30, 4


@dataclass(frozen=True)
class TrainingPictures:
    """Pictures that were learned from.

    Args:
        table: The trial table.
        ids: Their stimuli, each once.
        image_size: Channels, height and width that they are shown in.
    """

    table: TrialTable
    ids: Sequence[str]
    image_size: tuple[int, int, int]

    def batches(self) -> Iterator[torch.Tensor]:
        """All of them, (n, C, H, W) in [0, 1]."""
        for start in range(0, len(self.ids), _PICTURES_A_BATCH):
            yield self._of(self.ids[start : start + _PICTURES_A_BATCH])

    def mean(self) -> torch.Tensor:
        """(C, H, W) float32."""
        total = torch.zeros(self.image_size, dtype=torch.float64)
        for pictures in self.batches():
            total += pictures.double().sum(dim=0)
        return (total / len(self.ids)).float()

    def nearest(self, by: "Nearness", drawn: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), for each item the one that is nearest.

        Args:
            by: By what.
            drawn: (N, C, H, W) in [0, 1], the reconstructions.
        """
        values, positions = by.of_training(self)
        found = nearest_training_positions(by.of_items(drawn), values, positions)
        return self._of([self.ids[position] for position in found])

    def _of(self, ids: Sequence[str]) -> torch.Tensor:
        return prepare_pictures(self.table.stimuli.images(ids), self.image_size)


class Nearness(ABC):
    """What training pictures and items are compared by (cosine)."""

    @property
    @abstractmethod
    def of_drawn(self) -> str | None:
        """What it is, as the end of a sentence, where reconstructions are compared; None where decodings are."""

    @abstractmethod
    def of_items(self, drawn: torch.Tensor) -> torch.Tensor:
        """(N, …) of the items, of which reconstructions (N, C, H, W) were drawn."""

    @abstractmethod
    def of_training(self, pictures: TrainingPictures) -> tuple[np.ndarray, Sequence[int]]:
        """(M, values) vectors, and the position of each training picture among them."""

    @abstractmethod
    def of_further(self, pictures: FurtherPictures, image_size: tuple[int, int, int]) -> Iterator[np.ndarray]:
        """(n, values) vectors of pictures that are in no table, a batch after the other.

        Args:
            pictures: All of them.
            image_size: Channels, height and width that the image generator draws.
        """

    def batches_of_training(self, pictures: TrainingPictures) -> Iterator[np.ndarray]:
        """(n, values) vectors of stimuli, a batch after the other, in the order of their ids."""
        values, positions = self.of_training(pictures)
        for start in range(0, len(positions), _PICTURES_A_BATCH):
            yield np.asarray(values[list(positions[start : start + _PICTURES_A_BATCH])], dtype=np.float32)


@dataclass(frozen=True)
class NearEmbeddings(Nearness):
    """Embeddings or latents of an image generator.

    Args:
        generator: Embeds pictures.
        target: Which of the two.
        decoded: (N, …) those that were decoded; None for those of the reconstructions.
    """

    generator: ImageGenerator
    target: Target
    decoded: torch.Tensor | None = None

    @property
    def of_drawn(self) -> str | None:
        what = "embedding" if self.target == "image_embeds" else "latents"
        return f"the {what} of {type(self.generator).__name__}" if self.decoded is None else None

    def of_items(self, drawn: torch.Tensor) -> torch.Tensor:
        if self.decoded is not None:
            return self.decoded
        embed = self.generator.embed_images if self.target == "image_embeds" else self.generator.encode_images
        return embed(drawn)

    def of_training(self, pictures: TrainingPictures) -> tuple[np.ndarray, Sequence[int]]:
        stimuli = pictures.table.stimuli
        return cached_targets(pictures.table, self.generator, self.target), stimuli.positions(pictures.ids)

    def of_further(self, pictures: FurtherPictures, image_size: tuple[int, int, int]) -> Iterator[np.ndarray]:
        space = getattr(self.generator, TARGET_SPACES[self.target])
        if len(pictures) * space.size * _BYTES_A_VALUE <= _KEPT_BYTES:
            values = cached_targets_of_pictures(pictures, self.generator, self.target)
            yield from (values[start : start + _PICTURES_A_BATCH] for start in range(0, len(values), _PICTURES_A_BATCH))
            return
        for images in _batches(pictures):
            if self.target == "image_embeds":
                yield self.generator.embed_images(pictures_to_embed(images, self.generator)).flatten(1).float().numpy()
            else:
                prepared = prepare_pictures(images, self.generator.image_size)
                yield self.generator.encode_images(prepared).flatten(1).float().numpy()


@dataclass(frozen=True)
class NearFeatures(Nearness):
    """Features of a network that measures reconstructions.

    Args:
        extractor: Its name.
        weights: Folder with weights of extractors.
    """

    extractor: str
    weights: str | PathLike | None = None

    @property
    def of_drawn(self) -> str | None:
        return f"the features of {self.extractor}"

    def of_items(self, drawn: torch.Tensor) -> torch.Tensor:
        return self._network(drawn)

    def of_training(self, pictures: TrainingPictures) -> tuple[np.ndarray, Sequence[int]]:
        features = torch.cat([self._network(batch) for batch in pictures.batches()]).numpy()
        return features, range(len(features))

    def of_further(self, pictures: FurtherPictures, image_size: tuple[int, int, int]) -> Iterator[np.ndarray]:
        for images in _batches(pictures):
            yield self._network(prepare_pictures(images, image_size)).numpy()

    def batches_of_training(self, pictures: TrainingPictures) -> Iterator[np.ndarray]:
        # A batch at a time, where no more than the nearest are asked for.
        return (self._network(batch).numpy() for batch in pictures.batches())

    @cached_property
    def _network(self) -> FeatureExtractor:
        return load_extractor(self.extractor, self.weights)


def _batches(pictures: FurtherPictures) -> Iterator[np.ndarray]:
    """All of them, uint8 (n, H, W, C)."""
    with progress.bar(name="Embedding the library", total=len(pictures), unit="picture") as done:
        for start in range(0, len(pictures), _FURTHER_A_BATCH):
            chosen = pictures.ids[start : start + _FURTHER_A_BATCH]
            yield pictures.images(chosen)
            done.update(len(chosen))


def nearest_training_positions(
    decoded: torch.Tensor, values: np.ndarray, positions: Sequence[int], batch: int = _PICTURES_A_BATCH
) -> np.ndarray:
    """For each decoded vector, the index into `positions` of the most similar training vector (cosine).

    Args:
        decoded: (N, …).
        values: (M, size) array or memory map.
        positions: Of `values` that belong to training stimuli.
        batch: Vectors read at a time.
    """
    query = torch.nn.functional.normalize(decoded.flatten(1).float(), dim=1)
    best = torch.full((len(query),), -np.inf)
    nearest = torch.zeros(len(query), dtype=torch.long)
    for start in range(0, len(positions), batch):
        chunk = torch.from_numpy(np.asarray(values[list(positions[start : start + batch])], dtype=np.float32))
        similarity, index = (query @ torch.nn.functional.normalize(chunk, dim=1).T).max(dim=1)
        better = similarity > best
        best[better], nearest[better] = similarity[better], index[better] + start
    return nearest.numpy()
