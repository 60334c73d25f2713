"""What metrics compare: a row's items with what was shown, and what is made of both once for all metrics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from .distributions import frechet_distance
from .metrics import finite_features
from .picture_features import OnDemand, TrueFeatures
from .preparation import Preparation
from .row_data import RowData
from .scored_items import ScoredItems
from .similarities import (
    correlated,
    correlation_matrix,
    cosine_matrix,
    losses_in_columns,
    losses_in_rows,
    not_exceeded_in_columns,
    squared_distances,
)

T = TypeVar("T")


@dataclass
class RowContent:
    """A row's pictures, embeddings and what networks say about them.

    Args:
        images: (N, C, H, W).
        embeds: (N, …).
        networks: Name to what makes features of pictures.
        factors: What the classifier of built-in scenes says.
    """

    images: Tensor | None
    embeds: Tensor | None
    networks: Mapping[str, Callable[[Tensor], Tensor]]
    factors: dict[str, np.ndarray]

    @classmethod
    def of(cls, row: RowData, networks: Mapping[str, Callable[[Tensor], Tensor]], classifier: Any) -> "RowContent":
        """The row with networks that may look at its pictures; the classifier of scenes, if there is one, does now."""
        if row.images is None:
            return cls(None, row.retrieval_embeds, {}, {})
        labels = {} if classifier is None else classifier.predict(row.images)
        factors = {factor: np.asarray(values, dtype=str) for factor, values in labels.items()}
        return cls(row.images, row.retrieval_embeds, networks, factors)

    @property
    def features(self) -> Mapping[str, Tensor]:
        """Network to (N, F) of the pictures, computed when they are asked for and not held here."""
        if self.images is None:
            return {}
        return OnDemand({name: partial(network, self.images) for name, network in self.networks.items()})

    def at(self, positions: Tensor) -> "RowContent":
        """That of some items."""
        return RowContent(
            None if self.images is None else self.images[positions],
            None if self.embeds is None else self.embeds[positions],
            self.networks,
            {name: labels[positions.numpy()] for name, labels in self.factors.items()},
        )


@dataclass
class Stratum:
    """The items of one subject, seed and fold, with the T stimuli that they are identified among.

    Args:
        positions: (N,) of these items among all.
        stimuli: (T,) numbers of the stimuli.
        truth_index: (N,) which of the T stimuli each item shows.
        truth: (T, C, H, W) their pictures.
        features: Extractor ▶ (T, F) of the pictures, read when they are asked for.
        gallery: (T, ...) embeddings of the pictures.
        backgrounds: T labels.
        factors: T dictionaries.
        preparation: Of pictures whose pixels are compared.
        distractors: Of two-way identification: `"truth"` or `"reconstruction"`.
        pool_size: Of retrieval; None for all that there are.
        responses: (N,) number of the response that each item is a picture of, over whose pictures the correlations of
            features are averaged; None for no average.
        categories: (T,) number of what each stimulus is of.
    """

    positions: Tensor
    stimuli: np.ndarray
    truth_index: Tensor
    truth: Tensor
    features: Mapping[str, Tensor]
    gallery: Tensor | None
    backgrounds: list[str] | None
    factors: list[Mapping[str, str]] | None
    preparation: Preparation
    distractors: str
    pool_size: int | None
    responses: Tensor | None = None
    categories: Tensor | None = None

    @classmethod
    def of_items(
        cls,
        positions: np.ndarray,
        items: ScoredItems,
        features: Mapping[str, TrueFeatures],
        preparation: Preparation,
        distractors: str,
        pool_size: int | None,
    ) -> "Stratum":
        """The items at these positions; `features` are those of all items' true pictures."""
        numbers, first, truth_index = np.unique(items.stimuli[positions], return_index=True, return_inverse=True)
        shown = positions[first]
        return cls(
            torch.from_numpy(positions),
            numbers,
            torch.from_numpy(truth_index),
            items.truth[shown],
            OnDemand({name: partial(values.at, shown) for name, values in features.items()}),
            None if items.gallery is None else torch.as_tensor(items.gallery).cpu()[shown],
            None if items.backgrounds is None else [items.backgrounds[i] for i in shown],
            None if items.factors is None else [items.factors[i] for i in shown],
            preparation,
            distractors,
            pool_size,
            None
            if items.responses is None
            else torch.from_numpy(np.unique(items.responses[positions], return_inverse=True)[1]),
            _categories([None if items.categories is None else items.categories[i] for i in shown]),
        )

    def index_of(self, stimuli: np.ndarray) -> np.ndarray:
        """Which of the T stimuli these are, by their numbers."""
        return np.searchsorted(self.stimuli, stimuli)


def _categories(names: Sequence[str | None]) -> Tensor:
    """A number for each name, and one of its own for what has none."""
    own = [(str(place), "") if name is None else ("", name) for place, name in enumerate(names)]
    return torch.from_numpy(np.unique(np.asarray(own), axis=0, return_inverse=True)[1].reshape(-1))


def _of_true_pictures(extractor: str) -> str:
    return f"The features of the true pictures by {extractor}"


class Need(ABC, Generic[T]):
    """What a metric needs of a row; equal needs of several metrics are made once.

    A subclass is a frozen dataclass.
    """

    @property
    def extractors(self) -> tuple[str, ...]:
        """Names of the networks whose features it takes."""
        return ()

    @property
    def of_scenes(self) -> bool:
        """Whether it takes what the classifier of built-in scenes says of pictures."""
        return False

    @abstractmethod
    def of(self, row: "ComparedRow") -> T | None:
        """Makes it; None if the row, or what is known of the stimuli, has nothing to make it of."""


class ComparedRow:
    """A row's items in one stratum, with what metrics have needed so far.

    Args:
        stratum: Which items, and what they showed.
        content: What the row has for them.
    """

    def __init__(self, stratum: Stratum, content: RowContent) -> None:
        self.stratum, self.content = stratum, content
        self._made: dict[Need[Any], Any] = {}

    def get(self, need: Need[T]) -> T | None:
        """What is needed; None where there is nothing to make it of."""
        if need not in self._made:
            self._made[need] = need.of(self)
        return self._made[need]

    def __getitem__(self, need: Need[T]) -> T:
        """What is needed, of a row that has it."""
        found = self.get(need)
        if found is None:
            raise KeyError(need)
        return found


@dataclass
class Correlations:
    """What is shown and what was reconstructed, compared.

    Attributes:
        values: (T, N), NaN in the row or column of what is constant.
        constant: (T,) which of what is shown is.
    """

    values: Tensor
    constant: Tensor

    @classmethod
    def of(cls, shown: Tensor, reconstructed: Tensor) -> "Correlations":
        found = correlated(shown, reconstructed)
        return cls(found.values, found.constant)

    def averaged(self, responses: Tensor) -> "Correlations":
        """Those of each item in its mean over the pictures of its response (Takagi & Nishimoto 2023).

        A constant picture correlates with 0; a response all of whose pictures are constant stays NaN.

        Args:
            responses: (N,) numbers.
        """
        count = int(responses.max()) + 1
        defined = (~self.values.isnan()).double()
        known = torch.zeros(len(self.values), count, dtype=torch.float64).index_add_(1, responses, defined)
        total = torch.zeros_like(known).index_add_(1, responses, self.values.nan_to_num(nan=0.0))
        pictures = torch.bincount(responses, minlength=count)
        means = (total / pictures).masked_fill(known == 0, torch.nan)
        return Correlations(means[:, responses], self.constant)


@dataclass(frozen=True)
class Pixels(Need[tuple[Tensor, Tensor]]):
    """True (T, C, H, W) and reconstructed (N, C, H, W) pictures in float64 as the protocol prepares them."""

    def of(self, row: ComparedRow) -> tuple[Tensor, Tensor] | None:
        if row.content.images is None:
            return None
        prepared = row.stratum.preparation.of_pixels
        return prepared(row.stratum.truth.double()), prepared(row.content.images.double())


@dataclass(frozen=True)
class PixelCorrelations(Need[Correlations]):
    """Of the pictures' pixels."""

    def of(self, row: ComparedRow) -> Correlations | None:
        pictures = row.get(Pixels())
        return None if pictures is None else Correlations.of(*pictures)


@dataclass(frozen=True)
class FeatureCorrelations(Need[Correlations]):
    """Of what a network makes of the pictures."""

    extractor: str

    @property
    def extractors(self) -> tuple[str, ...]:
        return (self.extractor,)

    def of(self, row: ComparedRow) -> Correlations | None:
        if self.extractor not in row.content.features:
            return None
        # What fails on a reconstruction is a failure of it, and what fails on a true picture is none of anybody's.
        shown = finite_features(row.stratum.features[self.extractor], _of_true_pictures(self.extractor))
        found = Correlations.of(shown, row.content.features[self.extractor])
        return found if row.stratum.responses is None else found.averaged(row.stratum.responses)


@dataclass(frozen=True)
class FeatureDistances(Need[Tensor]):
    """(T, N) squared distances of what a network makes of the pictures."""

    extractor: str

    @property
    def extractors(self) -> tuple[str, ...]:
        return (self.extractor,)

    def of(self, row: ComparedRow) -> Tensor | None:
        if self.extractor not in row.content.features:
            return None
        shown, recon = row.stratum.features[self.extractor], row.content.features[self.extractor]
        return squared_distances(
            finite_features(shown, _of_true_pictures(self.extractor)),
            finite_features(recon, f"The features of the reconstructions by {self.extractor}"),
        )


@dataclass(frozen=True)
class SetDistance(Need[float]):
    """The Fréchet distance of what a network makes of the items' true pictures and of their reconstructions."""

    extractor: str

    @property
    def extractors(self) -> tuple[str, ...]:
        return (self.extractor,)

    def of(self, row: ComparedRow) -> float | None:
        if self.extractor not in row.content.features or len(row.stratum.positions) < 2:
            return None
        shown = row.stratum.features[self.extractor][row.stratum.truth_index]
        return frechet_distance(shown, row.content.features[self.extractor])


@dataclass
class ClassRanks:
    """How a classifier ranks the class of what was shown.

    Attributes:
        not_below: (T, N) number of other classes that item j has no lower a value in than in that of stimulus i; of an
            item with NaN as many as there are classes.
        classes: How many there are.
    """

    not_below: Tensor
    classes: int

    @classmethod
    def of(cls, shown: Tensor, reconstructed: Tensor) -> "ClassRanks":
        reconstructed, classes = reconstructed.double(), reconstructed.shape[1]
        failed = reconstructed.isnan().any(1)
        target = shown.nan_to_num(nan=-torch.inf).argmax(1)
        in_order = reconstructed.sort(dim=1).values
        below = torch.searchsorted(in_order, reconstructed[:, target].contiguous())
        return cls((classes - 1 - below).masked_fill(failed[:, None], classes).T, classes)


@dataclass(frozen=True)
class RanksOfClasses(Need[ClassRanks]):
    """What a classifier makes of the pictures."""

    extractor: str

    @property
    def extractors(self) -> tuple[str, ...]:
        return (self.extractor,)

    def of(self, row: ComparedRow) -> ClassRanks | None:
        if self.extractor not in row.content.features:
            return None
        shown = finite_features(row.stratum.features[self.extractor], _of_true_pictures(self.extractor))
        return ClassRanks.of(shown, row.content.features[self.extractor])


@dataclass(frozen=True)
class EmbeddingCosines(Need[Tensor]):
    """(T, N) of true and decoded embeddings."""

    def of(self, row: ComparedRow) -> Tensor | None:
        if row.stratum.gallery is None or row.content.embeds is None:
            return None
        gallery = finite_features(row.stratum.gallery, "The embeddings of the true pictures")
        return cosine_matrix(gallery, finite_features(row.content.embeds, "The decoded embeddings"))


@dataclass(frozen=True)
class CategoriesBeaten(Need[Tensor]):
    """(T, N): share of the other categories that are not more similar to what item j was decoded as than the category
    of stimulus i is, by the correlation with the mean embedding of a category's pictures.
    """

    def of(self, row: ComparedRow) -> Tensor | None:
        gallery, decoded, categories = row.stratum.gallery, row.content.embeds, row.stratum.categories
        if gallery is None or decoded is None or categories is None or int(categories.max()) < 1:
            return None
        shown = finite_features(gallery, "The embeddings of the true pictures").double()
        means = torch.stack([shown[categories == each].mean(dim=0) for each in range(int(categories.max()) + 1)])
        found = correlation_matrix(means, finite_features(decoded, "The decoded embeddings"))
        return not_exceeded_in_columns(found)[categories]


@dataclass(frozen=True)
class StimuliNotBeaten(Need[Tensor]):
    """(T, N): number of other stimuli that are at least as similar to item j as stimulus i is."""

    def of(self, row: ComparedRow) -> Tensor | None:
        cosines = row.get(EmbeddingCosines())
        return None if cosines is None else losses_in_columns(cosines)


@dataclass(frozen=True)
class ItemsNotBeaten(Need[tuple[Tensor, Tensor]]):
    """(T, N): number of items of other stimuli at least as similar to stimulus i as item j is; and (N,) of how many."""

    def of(self, row: ComparedRow) -> tuple[Tensor, Tensor] | None:
        cosines = row.get(EmbeddingCosines())
        return None if cosines is None else losses_in_rows(cosines, row.stratum.truth_index)


@dataclass(frozen=True)
class FactorLabels(Need[tuple[np.ndarray, np.ndarray]]):
    """(T,) true and (N,) recognised values of a factor of built-in scenes."""

    factor: str

    @property
    def of_scenes(self) -> bool:
        return True

    def of(self, row: ComparedRow) -> tuple[np.ndarray, np.ndarray] | None:
        recognised, factors = row.content.factors.get(self.factor), row.stratum.factors
        if recognised is None or factors is None:
            return None
        return np.asarray([scene[self.factor] for scene in factors]), recognised
