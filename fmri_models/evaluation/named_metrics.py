"""What is measured, under which name: a metric is one object, and one class here.

A metric gives scores to pairs (i, j): what item j of a row would have if stimulus i were the one shown. The true
pairing and all others of the permutation test are scored by one call of it, in float64.

A class with fields is a family of metrics, one for each value of them: `{extractor}` in a class's `name` is its field.
A new metric is a class here and its place in [`METRICS`]; what it compares is a [`Need`], of which it may take one that
is there. Protocols list metrics by their names.
"""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import FmriModelsError
from ..names import did_you_mean, one_line
from .compared_rows import (
    CategoriesBeaten,
    ClassRanks,
    ComparedRow,
    Correlations,
    FactorLabels,
    FeatureCorrelations,
    FeatureDistances,
    ItemsNotBeaten,
    Need,
    PixelCorrelations,
    Pixels,
    RanksOfClasses,
    SetDistance,
    StimuliNotBeaten,
)
from .guessing import Guessing
from .metrics import SsimPairs, Window, grey
from .network_labels import network_label
from .ranks import hits_from_ranks
from .scene_factors import FACTOR_VALUES
from .similarities import best_of_all, identification_shares, wins_in_rows

# An ImageNet network says nothing about pictures smaller than this.
SMALLEST_NETWORK_PICTURE = 32
# Identification that is of pixels, whatever networks there are.
_BY_PIXELS = ("pairwise_pixcorr", "identification_top1")
CLASSIFIERS = ("vit_h14", "efficientnet_lite0_classes")
"""Extractors whose features are a value for each class, by which n-way accuracy ranks them."""
# Networks with layers weighted by people's judgements: `lpips_<network>` is the extractor's name, too.
_PERCEPTUAL = ("alexnet",)
OF_OWN_SIZE = tuple(f"lpips_{network}" for network in _PERCEPTUAL)
"""Extractors that see pictures in their own size, and compare those of one size alone."""
# Features of those layers of FID's Inception that extractors read.
_DIMS_OF_INCEPTION = (64, 2048)
# How the values of a family's fields are written in names: a number in one way alone.
_NUMBER, _WORD = "0|[1-9][0-9]{0,8}", r"\w+"
# Bounds of shares of successes.
_SHARE = (0.0, 1.0)
# Differences of pixels that are held at a time; what stays in the processor's cache is three times as fast.
_VALUES_AT_ONCE = 2**17


@dataclass(frozen=True)
class ShownPictures:
    """What of the true pictures decides which metrics they allow.

    Args:
        height: In pixels.
        width: In pixels.
        channels: 1 or 3.
        resolution: Of the shorter side, as they are compared.
        factors: Those of built-in scenes that are known of every picture.
        have_backgrounds: Whether it is known which of them have the same background.
    """

    height: int
    width: int
    channels: int
    resolution: int
    factors: frozenset[str] = frozenset()
    have_backgrounds: bool = False

    @property
    def size(self) -> str:
        """As sentences have it."""
        return f"{self.height}x{self.width}"

    @property
    def are_small(self) -> bool:
        """Whether a network trained on photographs has nothing to say about them."""
        return min(self.height, self.width) < SMALLEST_NETWORK_PICTURE


class Obstacle(NamedTuple):
    """Why pictures do not allow a metric.

    Attributes:
        reason: As the end of a sentence, after "because".
        instead: Names of the metrics that take its place.
        of_one: Whether it is said of each metric in a sentence of its own.
    """

    reason: str
    instead: tuple[str, ...] = ()
    of_one: bool = False


@dataclass(frozen=True)
class Metric(ABC):
    """A metric: how it is called and read, what it needs, and the scores that it gives to pairs.

    Attributes:
        name: As in report.json.
        label: Short, for tables.
        description: One sentence.
        higher_is_better: Direction.
        chance: What guessing scores; None if it depends on the pictures, as for pixel metrics, or on their number.
        bounds: The smallest and the largest score that is possible. Shares of successes say (0, 1), and no others do:
            their intervals are those of the binomial distribution where scores have no spread to tell anything by.
        is_search: Whether an item is searched among many, which says nothing where guessing finds it.
        chance_is_upper_bound: Whether no way of guessing is better than chance on average.
        of_whole_set: Whether it is one number for all items of a subject, seed and fold, which each of them then has:
            it does not change when reconstructions are re-paired, and there is no permutation test.
        rewards_blur: Whether a blurry average is good in it without saying anything about what was shown.
        score_of_constant: What a true picture of one value throughout has, in words; None for what others have, too.
        without_needs: Why no row may have a score in it, as the end of a sentence.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    description: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    chance: ClassVar[float | None] = None
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    is_search: ClassVar[bool] = False
    chance_is_upper_bound: ClassVar[bool] = True
    of_whole_set: ClassVar[bool] = False
    rewards_blur: ClassVar[bool] = False
    score_of_constant: ClassVar[str | None] = None
    without_needs: ClassVar[str] = "no row has what they are computed from"

    def __post_init__(self) -> None:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        labels = {name: network_label(value) if isinstance(value, str) else value for name, value in values.items()}
        for text, known in (("name", values), ("label", labels), ("description", labels)):
            object.__setattr__(self, text, getattr(type(self), text).format(**known))

    @classmethod
    def named(cls, name: str) -> Self | None:
        """The metric of this class that has the name; None if there is none. Whole numbers in it are from 0."""
        numbers = {each.name for each in fields(cls) if each.type is int}
        pattern = re.sub(r"\{(\w+)\}", lambda it: f"(?P<{it[1]}>{_NUMBER if it[1] in numbers else _WORD})", cls.name)
        match = re.fullmatch(pattern, name)
        if match is None:
            return None
        return cls(**{field: int(text) if field in numbers else text for field, text in match.groupdict().items()})

    @property
    @abstractmethod
    def needs(self) -> Need[Any]:
        """What it compares."""

    @abstractmethod
    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor | None:
        """Scores of pairs, of a row that has what the metric needs.

        Args:
            row: Items of one subject, seed and fold; `row[self.needs]` is what is compared.
            i: (pairs,) which of the stratum's T stimuli.
            j: (pairs,) which of its N items.

        Returns:
            (pairs,) float64, NaN for a pair without score; None if the stratum can have none.
        """

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        """Why it can't be measured on such pictures; None if it can."""
        return None

    def has_rivals(self, among: Guessing) -> bool:
        """Whether any item has another one that it can be told from, where the metric tells items apart."""
        return True

    def chance_among(self, among: Guessing) -> float | None:
        """What guessing scores with so many stimuli; None if that depends on the pictures."""
        return self.chance

    def described(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "name": self.name,
            "label": self.label,
            "higher_is_better": self.higher_is_better,
            "description": self.description,
            "chance": self.chance,
        }


# ------------------------------------------------------------------------------------------------------------- pixels


class PixCorr(Metric):
    """How much the pixels vary together."""

    name = "pixcorr"
    label = "PixCorr"
    description = "Pearson correlation over all pixels and channels; blurry pictures win."
    bounds = (-1.0, 1.0)
    rewards_blur = True
    score_of_constant = "0"

    @property
    def needs(self) -> Need[Correlations]:
        return PixelCorrelations()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        return row[self.needs].values[i, j].nan_to_num(nan=0.0)


class _Ssim(Metric):
    window: ClassVar[Window]
    side: ClassVar[int]
    bounds = (-1.0, 1.0)
    rewards_blur = True

    @property
    def needs(self) -> Need[tuple[Tensor, Tensor]]:
        return Pixels()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        truth, recon = (grey(pictures) for pictures in row[self.needs])
        return SsimPairs(truth, recon, self.window)(i, j)

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        if shown.resolution >= self.side:
            return None
        return Obstacle(f"its window of {self.side}x{self.side} is larger than the pictures ({shown.size})")


class Ssim(_Ssim):
    """The SSIM that published evaluations have."""

    name = "ssim"
    label = "SSIM"
    description = "Structural similarity, Gaussian window (sigma 1.5), of grey pictures."
    window = "gaussian"
    side = 11


class SsimUniform(_Ssim):
    """The SSIM that scikit-image has by default."""

    name = "ssim_uniform"
    label = "SSIM 7x7"
    description = "Structural similarity, uniform 7x7 window, of grey pictures."
    window = "uniform"
    side = 7


class Mse(Metric):
    """How far the pixels are apart."""

    name = "mse"
    label = "MSE"
    description = "Mean squared difference of pixels in [0, 1]."
    higher_is_better = False
    bounds = (0.0, math.inf)
    rewards_blur = True

    @property
    def needs(self) -> Need[tuple[Tensor, Tensor]]:
        return Pixels()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        truth, recon = (pictures.flatten(1) for pictures in row[self.needs])
        size = max(1, _VALUES_AT_ONCE // truth.shape[1])
        chunks = zip(i.split(size), j.split(size), strict=True)
        return torch.cat([(truth[one] - recon[other]).square().mean(1) for one, other in chunks])


# ------------------------------------------------------------------------------------------------------ identification


class PairwisePixCorr(Metric):
    """Whether pixels tell the shown picture from another one."""

    name = "pairwise_pixcorr"
    label = "two-way pixels"
    description = (
        "Two-way identification by pixel correlation: how often the right pair correlates more than a wrong one."
    )
    chance = 0.5
    bounds = _SHARE
    score_of_constant = "no score"

    @property
    def needs(self) -> Need[Correlations]:
        return PixelCorrelations()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor | None:
        return _shares_beaten(row, row[self.needs], i, j)

    def has_rivals(self, among: Guessing) -> bool:
        return bool(among.correlated.max() > 1)


class IdentificationTop1(Metric):
    """Whether pixels tell the shown picture from all others at once."""

    name = "identification_top1"
    label = "top-1 pixels"
    description = "The shown picture correlates most among the whole test set."
    bounds = _SHARE
    is_search = True
    score_of_constant = "no score"

    @property
    def needs(self) -> Need[Correlations]:
        return PixelCorrelations()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor | None:
        shares = _shares_beaten(row, row[self.needs], i, j)
        return None if shares is None else best_of_all(shares)

    def has_rivals(self, among: Guessing) -> bool:
        # Among one, guessing is always right, which is said of a search anyway.
        return bool(among.correlated.max() > 1 or among.stimuli.max() < 2)

    def chance_among(self, among: Guessing) -> float:
        candidates = among.items if among.among_reconstructions else among.correlated
        return among.chance(np.where(among.correlated > 0, candidates, np.nan), 1)


@dataclass(frozen=True)
class _OfNetwork(Metric):
    extractor: str

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        return _too_small(shown)


class _OfCorrelations(_OfNetwork):
    @property
    def needs(self) -> Need[Correlations]:
        return FeatureCorrelations(self.extractor)


class TwoWay(_OfCorrelations):
    """Whether a network tells the shown picture from another one."""

    name = "two_way_{extractor}"
    label = "two-way {extractor}"
    description = (
        "Two-way identification by {extractor} features: how often the right pair correlates more than a wrong one."
    )
    chance = 0.5
    bounds = _SHARE

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor | None:
        return _shares_beaten(row, row[self.needs], i, j)

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        found = super().obstacle(shown)
        return found and found._replace(reason=f"{found.reason}; identification by pixels takes their place")

    def has_rivals(self, among: Guessing) -> bool:
        return bool(among.stimuli.max() > 1)


class TwoWaySameBackground(TwoWay):
    """Whether a network tells it from another one of equal background."""

    name = "two_way_{extractor}_same_background"
    label = "two-way {extractor}, same background"
    description = "Two-way identification by {extractor} features against pictures with the same background."
    without_needs = "no picture has another one of its subject and fold with the same background"

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor | None:
        compared = row[self.needs]
        if len(compared.values) < 2:
            return None
        return identification_shares(compared.values, row.stratum.backgrounds, compared.constant)[i, j]

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        unknown = Obstacle("backgrounds are not known for these pictures", of_one=True)
        return super().obstacle(shown) or (None if shown.have_backgrounds else unknown)


class Distance(_OfCorrelations):
    """How far the pictures are apart for a network."""

    name = "distance_{extractor}"
    label = "distance {extractor}"
    description = "Correlation distance of {extractor} features."
    higher_is_better = False
    bounds = (0.0, 2.0)

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        return 1 - row[self.needs].values[i, j].nan_to_num(nan=0.0)


@dataclass(frozen=True)
class NWay(_OfNetwork):
    """Whether a classifier knows what was shown among some classes (MinD-Vis)."""

    n_way: int
    top_k: int
    name = "n_way_{n_way}_top{top_k}_{extractor}"
    label = "{n_way}-way top-{top_k} {extractor}"
    description = (
        "The class that {extractor} gives to the shown picture is among the first {top_k} of {n_way}, the others drawn "
        "at random (the exact expectation)."
    )
    bounds = _SHARE
    # Classes need not be equally frequent in a test set, so that always the same one can be above chance.
    chance_is_upper_bound = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "chance", self.top_k / self.n_way)

    @classmethod
    def named(cls, name: str) -> Self | None:
        metric = super().named(name)
        return metric if metric is not None and metric.is_defined else None

    @property
    def is_defined(self) -> bool:
        """Whether anybody can score it: features of other networks are no classes."""
        return 1 <= self.top_k < self.n_way and self.extractor in CLASSIFIERS

    @property
    def needs(self) -> Need[ClassRanks]:
        return RanksOfClasses(self.extractor)

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        ranks = row[self.needs]
        if self.n_way > ranks.classes:
            raise FmriModelsError(
                f"{self.name} compares {self.n_way} classes and {self.extractor} tells {ranks.classes}; choose fewer."
            )
        return hits_from_ranks(ranks.not_below[i, j], ranks.classes - 1, self.top_k, self.n_way)


@dataclass(frozen=True)
class Lpips(Metric):
    """How far the pictures are apart for a network whose layers were weighted by people's judgements."""

    network: str
    name = "lpips_{network}"
    label = "LPIPS {network}"
    description = "Learned perceptual distance (LPIPS 0.1) by {network}."
    higher_is_better = False
    bounds = (0.0, math.inf)

    @classmethod
    def named(cls, name: str) -> Self | None:
        metric = super().named(name)
        return metric if metric is not None and metric.network in _PERCEPTUAL else None

    @property
    def needs(self) -> Need[Tensor]:
        return FeatureDistances(self.name)

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        return row[self.needs][i, j]

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        return _too_small(shown)


@dataclass(frozen=True)
class NWayOfMindVis(NWay):
    """The same by the classifier that the published evaluation has, which names without one mean."""

    extractor: str = field(init=False, default="vit_h14")
    name = "n_way_{n_way}_top{top_k}"


class Fid(_OfNetwork):
    """How far the set of reconstructions is from the set of pictures that were shown."""

    name = "fid_{extractor}"
    label = "FID {extractor}"
    description = (
        "Fréchet distance of the reconstructions of a subject and fold to what was shown, by {extractor}; it says "
        "nothing of single pictures, and falls with their number."
    )
    higher_is_better = False
    bounds = (0.0, math.inf)
    of_whole_set = True
    without_needs = "a Fréchet distance needs two pictures of a subject and fold"

    @classmethod
    def named(cls, name: str) -> Self | None:
        metric = super().named(name)
        # A number is the width of a layer of FID's own network.
        return metric if metric is not None and metric.extractor.isidentifier() else None

    @property
    def needs(self) -> Need[float]:
        return SetDistance(self.extractor)

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        return torch.full((len(i),), row[self.needs], dtype=torch.float64)


@dataclass(frozen=True)
class FidOfInception(Fid):
    """The same by the network that the distance is defined with, of whose layers a number of features names one."""

    extractor: str = field(init=False, default="")
    dims: int
    name = "fid_{dims}"
    label = "FID {dims}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "extractor", f"inception_fid{self.dims}")
        super().__post_init__()

    @classmethod
    def named(cls, name: str) -> Self | None:
        metric = super().named(name)
        return metric if metric is not None and metric.dims in _DIMS_OF_INCEPTION else None


def _too_small(shown: ShownPictures) -> Obstacle | None:
    if not shown.are_small:
        return None
    return Obstacle(
        f"a network trained on photographs says nothing about pictures of {shown.size} pixels", instead=_BY_PIXELS
    )


def _shares_beaten(row: ComparedRow, compared: Correlations, i: Tensor, j: Tensor) -> Tensor | None:
    """Two-way identification against what the protocol says; None among fewer than two stimuli."""
    if len(compared.values) < 2:
        return None
    if row.stratum.distractors == "reconstruction":
        return _among_reconstructions(compared, row.stratum.truth_index)[i, j]
    return identification_shares(compared.values, None, compared.constant)[i, j]


def _among_reconstructions(compared: Correlations, truth_index: Tensor) -> Tensor:
    """(T, N) share of the reconstructions of other stimuli that item j beats if stimulus i is the one shown."""
    wins, rivals = wins_in_rows(compared.values, truth_index)
    shares = (wins / rivals).masked_fill(compared.values.isnan(), 0.0)
    alone = (truth_index[:, None] == truth_index).all(0)
    return shares.masked_fill(compared.constant[:, None] | alone, torch.nan)


# ----------------------------------------------------------------------------------------------------------- retrieval


@dataclass(frozen=True)
class _Retrieval(Metric):
    top_k: int
    bounds = _SHARE
    is_search = True
    without_needs = "there are no embeddings of brain responses and pictures to compare"

    @classmethod
    def named(cls, name: str) -> Self | None:
        metric = super().named(name)
        # Nothing is among the first none.
        return metric if metric is not None and metric.top_k > 0 else None


class RetrievalOfImages(_Retrieval):
    """Whether the decoded embedding finds the shown picture."""

    name = "retrieval_query_brain_top{top_k}"
    label = "brain to image top-{top_k}"
    description = (
        "Given a brain response, its picture is among the {top_k} most similar of the test set (the papers' column "
        "Brain)."
    )

    @property
    def needs(self) -> Need[Tensor]:
        return StimuliNotBeaten()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        others = len(row.stratum.truth) - 1
        return hits_from_ranks(row[self.needs][i, j], others, self.top_k, row.stratum.pool_size)

    def chance_among(self, among: Guessing) -> float:
        return among.chance(among.stimuli, self.top_k, among.pool_size)


class RetrievalOfResponses(_Retrieval):
    """Whether a picture's embedding finds the one decoded from its response."""

    name = "retrieval_query_image_top{top_k}"
    label = "image to brain top-{top_k}"
    description = (
        "Given a picture, its brain response is among the {top_k} most similar of the test set (the papers' column "
        "Image)."
    )

    @property
    def needs(self) -> Need[tuple[Tensor, Tensor]]:
        return ItemsNotBeaten()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        not_beaten, others = row[self.needs]
        found, rivals = not_beaten[i, j].double(), others[j]
        # Items of a stimulus with more repetitions have fewer others.
        for number in rivals.unique().tolist():
            alike = rivals == number
            found[alike] = hits_from_ranks(found[alike], number, self.top_k, row.stratum.pool_size)
        return found

    def chance_among(self, among: Guessing) -> float:
        return among.chance(among.items, self.top_k, among.pool_size)


class CategoryIdentification(Metric):
    """Whether the decoded embedding tells the shown category from another one (Horikawa & Kamitani, 2017)."""

    name = "category_identification"
    label = "two-way category"
    description = (
        "Given a brain response, how often its category's mean embedding over the test pictures correlates at least as "
        "much with the decoded one as another category's; a picture without category is one of its own."
    )
    chance = 0.5
    bounds = _SHARE
    without_needs = "there are no embeddings of brain responses and pictures of two categories to compare"

    @property
    def needs(self) -> Need[Tensor]:
        return CategoriesBeaten()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        return row[self.needs][i, j]

    def has_rivals(self, among: Guessing) -> bool:
        return bool(among.stimuli.max() > 1)


# -------------------------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class FactorAccuracy(Metric):
    """Whether a fact about a built-in scene is seen in its reconstruction."""

    factor: str
    name = "factor_accuracy_{factor}"
    label = "{factor} right"
    description = "An independent classifier finds the shown {factor} in the reconstruction."
    bounds = _SHARE
    # A factor's values need not be equally frequent, so that always the same answer can be above chance.
    chance_is_upper_bound = False

    @property
    def needs(self) -> Need[tuple[np.ndarray, np.ndarray]]:
        return FactorLabels(self.factor)

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        shown, recognised = row[self.needs]
        return torch.from_numpy((shown[i.numpy()] == recognised[j.numpy()]).astype(np.float64))

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        if not shown.factors or (shown.channels, shown.height, shown.width) != (3, 64, 64):
            return Obstacle("these pictures are not the built-in scenes")
        if self.factor not in shown.factors:
            return Obstacle("this factor is not known for every picture", of_one=True)
        return None

    def chance_among(self, among: Guessing) -> float | None:
        labels = FACTOR_VALUES.get(self.factor)
        return None if labels is None else 1 / len(labels)


# -------------------------------------------------------------------------------------------------------------- labels


class LabelAccuracy(Metric):
    """Whether a classifier names what was shown."""

    name = "label_accuracy"
    label = "label right"
    description = "The predicted label is the true one."
    bounds = _SHARE
    # Labels need not be equally frequent, so that always the same answer can be above chance.
    chance_is_upper_bound = False

    @property
    def needs(self) -> Need[tuple[np.ndarray, np.ndarray]]:
        return FactorLabels("label")

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> Tensor:
        shown, predicted = row[self.needs]
        return torch.from_numpy((shown[i.numpy()] == predicted[j.numpy()]).astype(np.float64))

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        return Obstacle("labels are predicted by classifiers, and not seen in pictures")


# ----------------------------------------------------------------------------------------------------- scored elsewhere


class _ScoredElsewhere(Metric):
    """What is not computed of pictures: reports get it from where it is scored."""

    @property
    def needs(self) -> Need[tuple[Tensor, Tensor]]:
        return Pixels()

    def scores(self, row: ComparedRow, i: Tensor, j: Tensor) -> None:
        return None


# -------------------------------------------------------------------------------------------------------------- guides


class _OfGuides(_ScoredElsewhere):
    """Of decoded layers, the mean over all that are decoded; scored where they are decoded, and not of pictures."""

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        return Obstacle("it is of layers that a model decodes, and not of pictures")


class GuideIdentification(_OfGuides):
    """Whether decoded layers are more like those of what was shown than like those of another picture."""

    name = "guide_identification"
    label = "identification by layers"
    description = (
        "Share of the other tested pictures whose layer is less correlated with the decoded one than that of the shown "
        "picture; mean over layers."
    )
    chance = 0.5
    bounds = _SHARE


class GuidePatternCorrelation(_OfGuides):
    """How much decoded layers correlate with those of what was shown, over units."""

    name = "guide_pattern_correlation"
    label = "correlation of layers"
    description = (
        "Correlation over a layer's units of decoded and true values, each unit standardised by its mean and spread "
        "over training pictures; mean over layers."
    )


# -------------------------------------------------------------------------------------------------------------- people


class _OfPeople(_ScoredElsewhere):
    """What raters of a pack have chosen; their answers are added to a report that is there."""

    chance = 0.5
    bounds = _SHARE

    def obstacle(self, shown: ShownPictures) -> Obstacle | None:
        return Obstacle("people have to be asked, with `evaluate --rater-pack`")


class PeopleTwoWay(_OfPeople):
    """Whether people tell the reconstruction of what was shown from that of another stimulus."""

    name = "people_two_way"
    label = "two-way people"
    description = (
        "Share of raters' choices in which the reconstruction of the shown picture, and not that of another stimulus, "
        "was found more like it; the interval is for other people and other stimuli."
    )


@dataclass(frozen=True)
class PeopleOver(_OfPeople):
    """Whether people find a reconstruction more like what was shown than a row of the report."""

    name = "people_over_{row}"
    label = "people: brain over {row}"
    description = (
        "Share of raters' choices in which the brain row's picture, and not that of the row {row}, was found more like "
        "the shown one; the interval is for other people and other stimuli."
    )

    row: str


# ------------------------------------------------------------------------------------------------------------ by name

METRICS: tuple[type[Metric], ...] = (
    TwoWaySameBackground,
    TwoWay,
    Distance,
    NWay,
    NWayOfMindVis,
    Lpips,
    FidOfInception,
    Fid,
    PixCorr,
    Ssim,
    SsimUniform,
    Mse,
    PairwisePixCorr,
    IdentificationTop1,
    RetrievalOfImages,
    RetrievalOfResponses,
    CategoryIdentification,
    FactorAccuracy,
    LabelAccuracy,
    GuideIdentification,
    GuidePatternCorrelation,
    PeopleTwoWay,
    PeopleOver,
)
"""All that can be measured. A name is looked for from the first to the last, and notes speak of them in this order."""


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        FmriModelsError: No metric has that name.
    """
    for family in METRICS:
        if (metric := family.named(name)) is not None:
            return metric
    names = [family.name for family in METRICS]
    raise FmriModelsError(
        f"There is no metric {one_line(repr(name), 80)}; there are {', '.join(names)}.{did_you_mean(name, names)}"
    )
