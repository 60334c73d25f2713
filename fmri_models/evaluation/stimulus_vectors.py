"""Where an audit compares pictures: as vectors, by a network that the decoder was not trained against if there is one.

All that compares is less the mean of the training pictures first: what all pictures have in common says nothing about
which of them are alike, and is most of a network's features.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from ..conditions import CONDITION_SPACES
from ..data.targets import cached_targets
from ..generation.image_generator import ImageGenerator
from ..generation.weights_digest import weights_digest
from .extractors import EXTRACTORS, FeatureExtractor, load_extractor
from .named_metrics import SMALLEST_NETWORK_PICTURE
from .picture_features import PictureFeatures, TrueFeatures
from .training_pictures import TrainingPictures

if TYPE_CHECKING:
    from .evaluated_subject import EvaluatedSubject

Kind = Literal["network", "generator", "pixels"]

MOST_VALUES = 4096
"""Wider vectors are projected at random to so many values, which moves a cosine by some 1/64."""
# Rows of training vectors that are compared at a time.
_ROWS = 2048
# Distances are those of float32: equal pictures are 1e-7 apart, in an order that means nothing.
_DECIMALS = 6
# What is closer to the mean than this times the mean's length is rounding.
_ROUNDING = 1e-5


class Nearest(NamedTuple):
    """The nearest training pictures of some vectors.

    Attributes:
        distances: (Q, k) one minus cosine, the nearest first; NaN for a vector that is the mean itself.
        positions: (Q,) of the nearest one.
    """

    distances: np.ndarray
    positions: np.ndarray


class StimulusSpace(ABC):
    """What makes vectors of pictures.

    Attributes:
        kind: What it is.
        name: Of the network or generator, or `"pixels"`.
        trained_against: Whether the evaluated model has learned to decode these vectors.
    """

    kind: Kind
    name: str
    trained_against: bool

    @property
    @abstractmethod
    def digest(self) -> str | None:
        """Of the weights; None where there are none."""

    @abstractmethod
    def of_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, values) of pictures (N, C, H, W) in [0, 1], of the size that the generator draws."""

    def of_stimuli(self, pictures: TrainingPictures) -> Iterator[np.ndarray]:
        """(n, values) float32 of pictures of the table, some at a time."""
        for batch in pictures.batches():
            yield self.of_pictures(batch).flatten(1).float().cpu().numpy()


class NetworkSpace(StimulusSpace):
    """Features of a network that measures.

    Args:
        name: Of the extractor.
        weights: Folder with weights.
        trained_against: As of [`StimulusSpace`].
    """

    kind: Kind = "network"

    def __init__(self, name: str, weights: str | PathLike | None, trained_against: bool) -> None:
        self.name, self._weights, self.trained_against = name, weights, trained_against

    @cached_property
    def _network(self) -> FeatureExtractor:
        return load_extractor(self.name, self._weights)

    @property
    def digest(self) -> str | None:
        return self._network.sha256

    def of_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        return self._network(pictures)

    def of_stimuli(self, pictures: TrainingPictures) -> Iterator[np.ndarray]:
        network = PictureFeatures(self._network, most_bytes=0)
        # Kept on disk a batch each, so that an interrupted audit of many pictures goes on where it was.
        for batch in pictures.batches():
            yield TrueFeatures(network, batch).at(np.arange(len(batch))).numpy()


class GeneratorSpace(StimulusSpace):
    """Embeddings of pictures by an image generator.

    Args:
        generator: Embeds them.
        trained_against: As of [`StimulusSpace`].
    """

    kind: Kind = "generator"

    def __init__(self, generator: ImageGenerator, trained_against: bool) -> None:
        self._generator, self.trained_against = generator, trained_against
        space = generator.image_embedding_space
        assert space is not None
        self.name = f"{type(generator).__name__} ({space.encoder})"

    @cached_property
    def digest(self) -> str | None:
        # A UNet only draws, and is the largest of all.
        parts = [
            (name, part)
            for name, part in sorted(vars(self._generator).items())
            if isinstance(part, torch.nn.Module) and "unet" not in name
        ]
        return weights_digest(part for _, part in parts) if parts else None

    def of_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        return self._generator.embed_images(pictures).flatten(1)

    def of_stimuli(self, pictures: TrainingPictures) -> Iterator[np.ndarray]:
        values = cached_targets(pictures.table, self._generator, "image_embeds")
        positions = pictures.table.stimuli.positions(pictures.ids)
        for start in range(0, len(positions), _ROWS):
            yield np.asarray(values[positions[start : start + _ROWS]], dtype=np.float32)


class PixelSpace(StimulusSpace):
    """The pixels themselves.

    Args:
        trained_against: As of [`StimulusSpace`].
    """

    kind: Kind = "pixels"
    name = "pixels"
    digest = None

    def __init__(self, trained_against: bool) -> None:
        self.trained_against = trained_against

    def of_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1)


class RandomProjection:
    """Brings wide vectors to [`MOST_VALUES`]; scalar products stay what they were on average (Weinberger et al. 2009).

    Args:
        size: Values of a vector.
    """

    def __init__(self, size: int) -> None:
        from scipy.sparse import csr_matrix

        generator = np.random.default_rng(size)
        signs = generator.choice(np.array([-1, 1], dtype=np.float32), size)
        places = (np.arange(size), generator.integers(MOST_VALUES, size=size))
        self._matrix = csr_matrix((signs, places), shape=(size, MOST_VALUES))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(vectors @ self._matrix, dtype=np.float32)


class StimulusVectors:
    """The vectors of one subject's test and training pictures on one fold.

    Args:
        of: The subject.

    Attributes:
        space: What makes them.
        training_ids: M stimuli that were learned from, each picture once, as far as the table has it.
        training: (M, F) float32.
        without_picture: How many of those that were learned from have no picture in the table.
        mean: (F,) float32, of the training.
    """

    def __init__(self, of: "EvaluatedSubject") -> None:
        self.space = stimulus_space(of)
        self._projection: RandomProjection | None = None
        self._table, self._size = of.table, of.pipeline.image_generator.image_size
        self._tested = of.stimulus_ids
        ids = list(dict.fromkeys(of.training_trials.stimulus_ids.tolist()))
        hashes = of.table.stimuli.content_hashes(ids)
        first: dict[str, str] = {}
        for name, digest in sorted(zip(ids, hashes, strict=True)):
            if digest is not None:
                first.setdefault(digest, name)
        self.without_picture = sum(digest is None for digest in hashes)
        self.training_ids = sorted(first.values())
        self.training = self._of_stimuli(self.training_ids)
        total = np.zeros(self.training.shape[1], dtype=np.float64)
        for start in range(0, len(self.training), _ROWS):
            total += self.training[start : start + _ROWS].sum(axis=0, dtype=np.float64)
        self.mean = (total / max(1, len(self.training))).astype(np.float32)

    def _of_stimuli(self, ids: Sequence[str]) -> np.ndarray:
        """(stimuli, F) float32 of pictures of the table."""
        pictures = TrainingPictures(self._table, ids, self._size)
        collected, at = np.zeros((0, 0), dtype=np.float32), 0
        for batch in self.space.of_stimuli(pictures):
            narrow = self._narrow(batch)
            if at == 0:
                collected = np.empty((len(pictures.ids), narrow.shape[1]), dtype=np.float32)
            collected[at : at + len(narrow)] = narrow
            at += len(narrow)
        return collected

    def _narrow(self, vectors: np.ndarray) -> np.ndarray:
        if vectors.shape[1] <= MOST_VALUES:
            return vectors
        if self._projection is None:
            self._projection = RandomProjection(vectors.shape[1])
        return self._projection(vectors)

    def of_pictures(self, pictures: torch.Tensor) -> np.ndarray:
        """(N, F) float32 of pictures (N, C, H, W) in [0, 1]."""
        return self._narrow(self.space.of_pictures(pictures).flatten(1).float().cpu().numpy())

    @cached_property
    def test(self) -> np.ndarray:
        """(N, F) of what each item showed."""
        ids = list(dict.fromkeys(self._tested))
        place = {name: number for number, name in enumerate(ids)}
        return self._of_stimuli(ids)[[place[name] for name in self._tested]]

    def directions(self, vectors: np.ndarray, mean: np.ndarray | None = None) -> np.ndarray:
        """(n, F) of length 1, less a mean, that of the training pictures if None; NaN for the mean itself."""
        mean = self.mean if mean is None else mean
        centred = vectors - mean
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        known = norms > _ROUNDING * max(1e-6, float(np.linalg.norm(mean)))
        return np.where(known, centred / np.where(known, norms, 1), np.nan).astype(np.float32)

    def nearest(self, vectors: np.ndarray, count: int, without: np.ndarray | None = None) -> Nearest:
        """The nearest training pictures.

        Args:
            vectors: (Q, F).
            count: How many of each; fewer where there are fewer.
            without: Positions of training pictures that do not count.
        """
        queries = torch.from_numpy(self.directions(vectors))
        counts = np.ones(len(self.training), dtype=bool)
        if without is not None:
            counts[without] = False
        count = min(count, int(counts.sum()))
        best = torch.full((len(queries), count), -torch.inf)
        places = torch.zeros((len(queries), count), dtype=torch.long)
        for start in range(0, len(self.training), _ROWS):
            block = torch.from_numpy(self.directions(self.training[start : start + _ROWS]))
            similarity = (queries @ block.T).nan_to_num(nan=-torch.inf)
            similarity[:, torch.from_numpy(~counts[start : start + _ROWS])] = -torch.inf
            merged = torch.cat([best, similarity], dim=1)
            where = torch.cat([places, torch.arange(start, start + len(block)).expand(len(queries), -1)], dim=1)
            best, chosen = merged.topk(count, dim=1)
            places = where.gather(1, chosen)
        distances = (1 - best.double()).clamp(0, 2).numpy().round(_DECIMALS)
        distances[torch.isinf(best).numpy()] = np.nan
        return Nearest(distances, places[:, 0].numpy() if count else np.zeros(len(queries), dtype=np.int64))

    def described(self) -> dict[str, Any]:
        """What a report says of it."""
        width = self.test.shape[1]
        return {
            "kind": self.space.kind,
            "name": self.space.name,
            "digest": self.space.digest,
            "values": int(width),
            "projected": self._projection is not None,
            "trained_against": self.space.trained_against,
        }


def stimulus_space(of: "EvaluatedSubject") -> StimulusSpace:
    """By what pictures are compared: the protocol's networks first, then the generator's embeddings, then pixels.

    Among networks and embeddings, the first that the evaluated model has not learned to decode comes before others.
    """
    generator, config = of.pipeline.image_generator, of.pipeline.brain_model.config
    own = generator.image_embedding_space
    # Of pixels, embeddings and latents are the same values.
    learned = {space.encoder for name in CONDITION_SPACES.values() if (space := config.space(name)) is not None}
    learns_own = own is not None and own.encoder in learned
    found: list[StimulusSpace] = []
    if min(generator.image_size[1:]) >= SMALLEST_NETWORK_PICTURE:
        found += [
            NetworkSpace(name, of.weights, learns_own and _is_network(name, own.encoder))
            for name in of.extractors
            if name in EXTRACTORS and not EXTRACTORS[name].has_many_features
        ]
    if own is not None:
        found.append(GeneratorSpace(generator, learns_own))
    found = found or [PixelSpace("pixels" in learned)]
    return next((space for space in found if not space.trained_against), found[0])


def in_words(space: dict[str, Any], pictures: str = "pictures") -> str:
    """A sentence on what compares, with what has to be known of it.

    Args:
        space: What [`StimulusVectors.described`] says.
        pictures: What is compared.
    """
    digest = f", weights {str(space['digest'])[:12]}" if space["digest"] else ""
    what = {
        "network": f"the features of {space['name']}",
        "generator": f"the embeddings of {space['name']}",
        "pixels": "their pixels",
    }[space["kind"]]
    projected = ", projected at random" if space["projected"] else ""
    role = (
        "the model has learned to decode these very vectors, so that what is near in them may be near to it alone"
        if space["trained_against"]
        else "the model was not trained to decode these"
    )
    return f"{pictures} are compared by {what} ({space['values']:,} values{projected}{digest}); {role}."


def _is_network(extractor: str, encoder: str) -> bool:
    return any(network in encoder for network in EXTRACTORS[extractor].networks)


def spaces_agree(spaces: Sequence[dict[str, Any]]) -> bool:
    """Whether pictures of all subjects and folds were compared alike."""
    return all(space == spaces[0] for space in spaces)
