"""From rows of pictures to item scores: every metric of a protocol, for every row, by one pair function each.

A metric is a function of a row and of pairs (i, j): the score of reconstruction j if stimulus i were the one shown.
The true pairing and all others of the permutation test are scored by one call of it, in float64.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from .. import progress
from ..errors import FmriModelsError
from ..names import listed
from ..plain_values import ShortRepr
from .bootstrap import PERMUTATIONS, WIDENING_OF_FOLDS
from .features import FeatureExtractor, load_extractor
from .metrics import (
    SsimPairs,
    Window,
    best_of_all,
    checked_features,
    checked_picture_set,
    correlation_matrix,
    cosine_matrix,
    grey,
    identification_shares,
    is_constant,
    losses_in_columns,
    resize_pictures,
    wins_in_columns,
)
from .protocols import Protocol, metric_info
from .retrieval import hits_from_ranks
from .scene_factors import FACTOR_VALUES, SceneFactorClassifier

# An ImageNet network says nothing about pictures smaller than this.
SMALLEST_NETWORK_PICTURE = 32
# Being among the first k says little where guessing has it more often than not.
HIGHEST_CHANCE = 0.5
# Identification that is of pixels, whatever networks there are.
_BY_PIXELS = ("pairwise_pixcorr", "identification_top1")
_NAMED = 5
# Differences of pixels that are held at a time; what stays in the processor's cache is three times as fast.
_VALUES_AT_ONCE = 2**17


@dataclass
class RowData:
    """What one row of a report has for each item.

    Args:
        images: (N, C, H, W) float in [0, 1], of the size of the true pictures; None for a row without pictures.
        retrieval_embeds: (N, ...) predicted embeddings; None for a row that retrieves nothing.
    """

    images: Tensor | None = None
    retrieval_embeds: Tensor | None = None


@dataclass(repr=False)
class Scores(ShortRepr):
    """Item scores of all rows.

    Args:
        values: row -> metric -> (N,) float64 with NaN for an item without score; None where the row has no such metric.
        subjects: N names.
        stimulus_ids: N ids.
        seeds: N numbers.
        permuted: metric -> (pairings, N) scores of the row `brain` when stimuli are re-paired.
        exhaustive: Whether these are all pairings that there are, the true one among them.
        num_folds: Number of folds that were merged.
        pictures: N ids of what is shown, see [`picture_ids`]; the stimulus ids if None.
        pool_size: Mean number of stimuli among which an item is identified.
        chances: metric -> what guessing scores, where that follows from the number of stimuli or of labels.
        extractors: name -> {"sha256": ...} of the networks that were used.
        notes: Sentences about what was left out, and why.
    """

    values: dict[str, dict[str, np.ndarray | None]]
    subjects: np.ndarray
    stimulus_ids: np.ndarray
    seeds: np.ndarray
    permuted: dict[str, np.ndarray] = field(default_factory=dict)
    exhaustive: bool = False
    num_folds: int = 1
    pictures: np.ndarray | None = None
    pool_size: float = 0.0
    chances: dict[str, float] = field(default_factory=dict)
    extractors: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    @property
    def widening(self) -> float:
        """How much farther than for independent stimuli the bounds of intervals are from the means."""
        return WIDENING_OF_FOLDS if self.num_folds > 1 else 1.0

    @property
    def units(self) -> np.ndarray:
        """(N,) what counts once: ids of stimuli, of which those that show the very same picture are one."""
        return self.stimulus_ids if self.pictures is None else self.pictures

    @property
    def rows(self) -> list[str]:
        """Row names in order."""
        return list(self.values)

    def table(self) -> pa.Table:
        """The items as columns row, metric, subject, stimulus_id, seed, value; a row for each item that has a score."""
        parts = []
        for row, metrics in self.values.items():
            for metric, values in metrics.items():
                if values is not None:
                    present = np.isfinite(values)
                    parts.append(self._part(row, metric, values, present))
        return pa.concat_tables(parts) if parts else ITEM_SCHEMA.empty_table()

    def _part(self, row: str, metric: str, values: np.ndarray, present: np.ndarray) -> pa.Table:
        count = int(present.sum())
        columns = [
            [row] * count,
            [metric] * count,
            self.subjects[present].tolist(),
            self.stimulus_ids[present].tolist(),
            self.seeds[present].tolist(),
            values[present].tolist(),
        ]
        return pa.table(columns, schema=ITEM_SCHEMA)

    @classmethod
    def concatenate(cls, parts: Sequence["Scores"]) -> "Scores":
        """The items of several evaluations (folds) as one; a row or metric that one of them lacks is NaN there.

        Args:
            parts: Scores of disjoint test sets under one protocol.
        """
        rows = list(dict.fromkeys(row for part in parts for row in part.values))
        metrics = list(dict.fromkeys(m for part in parts for row in part.values.values() for m in row))
        values = {
            row: {m: _joined([part.values.get(row, {}).get(m) for part in parts], parts) for m in metrics}
            for row in rows
        }
        weights = [len(part) for part in parts]
        chances = {
            metric: float(np.average([part.chances[metric] for part in parts], weights=weights))
            for metric in parts[0].chances
            if all(metric in part.chances for part in parts)
        }
        return cls(
            values=values,
            subjects=np.concatenate([part.subjects for part in parts]),
            stimulus_ids=np.concatenate([part.stimulus_ids for part in parts]),
            pictures=_joined_pictures(parts),
            seeds=np.concatenate([part.seeds for part in parts]),
            permuted=_joined_permutations(parts),
            num_folds=sum(part.num_folds for part in parts),
            pool_size=float(np.average([part.pool_size for part in parts], weights=weights)),
            chances=chances,
            extractors={name: info for part in parts for name, info in part.extractors.items()},
            notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        )


ITEM_SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("metric", pa.string()),
        ("subject", pa.string()),
        ("stimulus_id", pa.string()),
        ("seed", pa.int64()),
        ("value", pa.float64()),
    ]
)


def score_rows(
    rows: Mapping[str, RowData],
    truth: Tensor,
    stimulus_ids: Sequence[str],
    protocol: Protocol,
    subjects: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    gallery_embeds: Tensor | None = None,
    backgrounds: Sequence[str] | None = None,
    factors: Sequence[Mapping[str, str]] | None = None,
    extractors: Mapping[str, FeatureExtractor] | None = None,
    factor_classifier: Any = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Scores:
    """Scores every row by every metric of a protocol.

    Pictures are scored as they are saved, with 8 bits a channel, so that whoever has the PNGs finds the same numbers.
    Identification and retrieval happen among the stimuli of one subject, seed and fold; several trials of a stimulus
    are never each other's distractors. Stimuli that show the very same picture are one. Success among the first k is
    left out where guessing has it more often than not.

    The permutation test exchanges stimuli, with all items of each: whatever subject, trial, seed or fold they are of,
    the items of a stimulus go to the same other one, and stimuli are exchanged that the same subjects, seeds and folds
    have. Where there are no more pairings than `permutations`, all of them are scored.

    Args:
        rows: Name -> what it has for each of the N items, all in the same order. `brain` is the one that is permuted.
        truth: (N, C, H, W) float in [0, 1]; the picture of each item.
        stimulus_ids: N ids.
        protocol: Names the metrics.
        subjects: N names; one subject if None.
        seeds: N seeds of the reconstructions; `seed` for all if None.
        folds: N fold numbers; one fold if None.
        gallery_embeds: (N, ...) true embeddings of each item's picture, for retrieval.
        backgrounds: N labels, for identification among equal backgrounds.
        factors: N dictionaries with the scene's factors.
        extractors: Name -> extractor, instead of those that are installed.
        factor_classifier: Has `predict(images) -> {factor: labels}` and `sha256`; the package's own if None.
        permutations: Largest number of pairings of the row `brain`; 0 for no test.
        seed: Of the pairings that are drawn.

    Raises:
        FmriModelsError: Lengths, shapes or values do not fit together.
    """
    if not rows:
        raise FmriModelsError("There is no row to score; give at least the row 'brain'.")
    truth = _as_saved(checked_picture_set(truth, "The true pictures"))
    count = len(truth)
    items = _Items(
        ids=np.asarray(stimulus_ids, dtype=str),
        truth=truth,
        subjects=np.asarray(["subj01"] * count if subjects is None else subjects, dtype=str),
        seeds=np.asarray([seed] * count if seeds is None else seeds, dtype=np.int64),
        folds=np.asarray([0] * count if folds is None else folds),
        gallery=gallery_embeds,
        backgrounds=backgrounds,
        factors=factors,
    )
    items.check_lengths(count)
    checked = {name: _checked_row(name, row, truth) for name, row in rows.items()}
    positions = items.blocks()
    metrics, notes = _usable_metrics(protocol, truth, factors, backgrounds)
    constant = is_constant(truth).numpy()
    chances = _known_chances(metrics, _Guessing.of(items, positions, protocol, constant), notes)
    notes += [
        *_on_same_pictures(same_pictures(items.ids.tolist(), items.pictures.tolist())),
        *_on_constant_pictures(items.ids, constant, metrics),
    ]
    with progress.phase("Loading the networks that measure"):
        networks = _networks(metrics, extractors)
        classifier = _classifier(metrics, factor_classifier)
    seen = progress.bar(checked.items(), "Looking at the pictures of each row", unit="row", delay=1)
    contents = {name: _RowContent.of(row, networks, classifier) for name, row in seen}
    truth_features = {name: network(truth) for name, network in networks.items()}
    blocks = [_Block.of_items(each, truth, items, truth_features, protocol) for each in positions]
    pairings, exhaustive = _pairings(items, blocks, permutations if "brain" in rows else 0, seed)
    scores = Scores(
        values={name: dict.fromkeys([*protocol.metrics, *metrics]) for name in rows},
        subjects=items.subjects,
        stimulus_ids=items.ids,
        seeds=items.seeds,
        exhaustive=exhaustive,
        num_folds=len(np.unique(items.folds)),
        pictures=items.pictures,
        pool_size=float(np.average([len(b.truth) for b in blocks], weights=[len(b.positions) for b in blocks])),
        chances=chances,
        extractors={name: {"sha256": network.sha256} for name, network in networks.items()}
        | ({} if classifier is None else {"scene_factors": {"sha256": classifier.sha256}}),
        notes=notes,
    )
    for name, content in progress.bar(contents.items(), "Scoring each row", unit="row", delay=1):
        for block in blocks:
            drawn = pairings if name == "brain" else pairings[:0]
            _score_block(scores, name, _RowInBlock(block, content.at(block.positions)), metrics, drawn)
    notes += _without_score(scores, metrics)
    return scores


def picture_ids(stimulus_ids: Sequence[str], truth: Tensor) -> np.ndarray:
    """(N,) for each item the first, by its name, of the stimuli that show the very same picture as its own.

    Args:
        stimulus_ids: N ids; the picture of a stimulus is that of its first item.
        truth: (N, C, H, W) float in [0, 1]; compared with the 256 levels that are saved.
    """
    content_of: dict[str, bytes] = {}
    for name, picture in zip(map(str, stimulus_ids), truth, strict=True):
        if name not in content_of:
            content_of[name] = hashlib.sha256(_as_saved(picture).contiguous().numpy().tobytes()).digest()
    first: dict[bytes, str] = {}
    for name in sorted(content_of):
        first.setdefault(content_of[name], name)
    return np.asarray([first[content_of[str(name)]] for name in stimulus_ids], dtype=str)


def same_pictures(stimulus_ids: Sequence[str], pictures: Sequence[str]) -> list[list[str]]:
    """Groups of stimuli that show the very same picture, each of two or more ids, all in the order of names.

    Args:
        stimulus_ids: N ids.
        pictures: Those of [`picture_ids`].
    """
    groups: dict[str, list[str]] = {}
    for name, picture in sorted(set(zip(map(str, stimulus_ids), map(str, pictures), strict=True))):
        groups.setdefault(picture, []).append(name)
    return sorted(group for group in groups.values() if len(group) > 1)


def _score_block(scores: Scores, name: str, row: "_RowInBlock", metrics: Sequence[str], pairings: np.ndarray) -> None:
    """Fills in the scores of one row's items in one block, and those of its other pairings.

    Args:
        scores: Where they go.
        name: Of the row.
        row: Its items in the block.
        metrics: Names.
        pairings: (pairings, N) number of the stimulus that each of all items is paired with.
    """
    positions = row.block.positions.numpy()
    others = row.block.index_of(pairings[:, positions])
    paired = np.concatenate([row.block.truth_index.numpy()[None], others])
    # Every pair that occurs is scored once.
    pairs, where = np.unique(paired * len(positions) + np.arange(len(positions)), return_inverse=True)
    i, j = torch.from_numpy(pairs // len(positions)), torch.from_numpy(pairs % len(positions))
    for metric in metrics:
        found = _pair_function(metric)(row, i, j)
        if found is None:
            continue
        true, *permuted = found.numpy()[where].reshape(paired.shape)
        values = scores.values[name][metric]
        if values is None:
            values = scores.values[name][metric] = np.full(len(scores), np.nan)
        values[positions] = true
        if permuted:
            all_items = scores.permuted.setdefault(metric, np.full((len(permuted), len(scores)), np.nan))
            all_items[:, positions] = permuted


# -------------------------------------------------------------------------------------------------- what is scored


@dataclass
class _Items:
    """What is known of each item."""

    ids: np.ndarray
    truth: Tensor
    subjects: np.ndarray
    seeds: np.ndarray
    folds: np.ndarray
    gallery: Tensor | None
    backgrounds: Sequence[str] | None
    factors: Sequence[Mapping[str, str]] | None

    def check_lengths(self, count: int) -> None:
        names = {"ids": "stimulus ids", "gallery": "gallery embeddings"}
        for attribute, values in [(each.name, getattr(self, each.name)) for each in fields(self)]:
            if values is not None and len(values) != count:
                what = names.get(attribute, attribute)
                raise FmriModelsError(
                    f"There are {len(values)} {what} for {count} true pictures; expected one for each."
                )

    @cached_property
    def pictures(self) -> np.ndarray:
        """(N,) see [`picture_ids`]."""
        return picture_ids(self.ids.tolist(), self.truth)

    @cached_property
    def stimuli(self) -> np.ndarray:
        """(N,) number of what each item shows, in the order of names."""
        return np.unique(self.pictures, return_inverse=True)[1]

    def blocks(self) -> list[np.ndarray]:
        """Positions of the items of each subject, seed and fold."""
        positions: dict[tuple[Any, ...], list[int]] = {}
        labels = zip(self.subjects.tolist(), self.seeds.tolist(), self.folds.tolist(), strict=True)
        for position, label in enumerate(labels):
            positions.setdefault(label, []).append(position)
        return [np.asarray(block) for block in positions.values()]


@dataclass
class _RowContent:
    """A row's pictures, embeddings and what networks say about them."""

    images: Tensor | None
    embeds: Tensor | None
    features: dict[str, Tensor]
    factors: dict[str, np.ndarray]

    @classmethod
    def of(cls, row: RowData, networks: Mapping[str, "_Remembering"], classifier: Any) -> "_RowContent":
        if row.images is None:
            return cls(None, row.retrieval_embeds, {}, {})
        labels = {} if classifier is None else classifier.predict(row.images)
        return cls(
            row.images,
            row.retrieval_embeds,
            {name: network(row.images) for name, network in networks.items()},
            {factor: np.asarray(values, dtype=str) for factor, values in labels.items()},
        )

    def at(self, positions: Tensor) -> "_RowContent":
        return _RowContent(
            None if self.images is None else self.images[positions],
            None if self.embeds is None else self.embeds[positions],
            {name: features[positions] for name, features in self.features.items()},
            {name: labels[positions.numpy()] for name, labels in self.factors.items()},
        )


@dataclass
class _Block:
    """The items of one subject, seed and fold, with the stimuli that they are identified among."""

    positions: Tensor
    stimuli: np.ndarray
    truth_index: Tensor
    truth: Tensor
    features: dict[str, Tensor]
    gallery: Tensor | None
    backgrounds: list[str] | None
    factors: list[Mapping[str, str]] | None
    protocol: Protocol

    @classmethod
    def of_items(
        cls,
        positions: np.ndarray,
        truth: Tensor,
        items: _Items,
        features: dict[str, Tensor],
        protocol: Protocol,
    ) -> "_Block":
        numbers, first, truth_index = np.unique(items.stimuli[positions], return_index=True, return_inverse=True)
        shown = positions[first]
        return cls(
            torch.from_numpy(positions),
            numbers,
            torch.from_numpy(truth_index),
            truth[shown],
            {name: values[shown] for name, values in features.items()},
            None if items.gallery is None else torch.as_tensor(items.gallery).cpu()[shown],
            None if items.backgrounds is None else [items.backgrounds[i] for i in shown],
            None if items.factors is None else [items.factors[i] for i in shown],
            protocol,
        )

    def index_of(self, stimuli: np.ndarray) -> np.ndarray:
        """Rows of this block's stimuli, for numbers of stimuli that it has."""
        return np.searchsorted(self.stimuli, stimuli)


class _RowInBlock:
    """A row's items in one block, with the comparisons that several metrics share."""

    def __init__(self, block: _Block, content: _RowContent) -> None:
        self.block, self.content = block, content

    @cached_property
    def pictures(self) -> tuple[Tensor, Tensor] | None:
        """True and reconstructed pictures in float64 at the protocol's resolution."""
        if self.content.images is None:
            return None
        both = self.block.truth.double(), self.content.images.double()
        resolution = self.block.protocol.resolution
        if resolution is None:
            return both
        return resize_pictures(both[0], resolution), resize_pictures(both[1], resolution)

    @cached_property
    def pixel_comparison(self) -> "_Comparison | None":
        return None if self.pictures is None else _Comparison.of(*self.pictures)

    def feature_comparison(self, extractor: str) -> "_Comparison | None":
        if extractor not in self.content.features:
            return None
        if extractor not in self._feature_comparisons:
            self._feature_comparisons[extractor] = _Comparison.of(
                self.block.features[extractor], self.content.features[extractor]
            )
        return self._feature_comparisons[extractor]

    @cached_property
    def _feature_comparisons(self) -> "dict[str, _Comparison]":
        return {}

    @cached_property
    def embedding_cosine(self) -> Tensor | None:
        if self.block.gallery is None or self.content.embeds is None:
            return None
        gallery, embeds = self.block.gallery.flatten(1), self.content.embeds.flatten(1)
        checked_features(embeds, embeds)
        return cosine_matrix(gallery, embeds)

    @cached_property
    def not_beaten_by_column(self) -> Tensor | None:
        """(T, N): number of other stimuli that are at least as similar to item j as stimulus i is."""
        if self.embedding_cosine is None:
            return None
        return losses_in_columns(self.embedding_cosine)

    @cached_property
    def not_beaten_by_row(self) -> tuple[Tensor, Tensor] | None:
        """(T, N): number of items of other stimuli at least as similar to stimulus i as item j is; and of how many."""
        return None if self.embedding_cosine is None else losses_in_rows(self.embedding_cosine, self.block.truth_index)


@dataclass
class _Comparison:
    """What is shown and what was reconstructed, compared.

    Attributes:
        correlation: (T, N), NaN in the row or column of what is constant.
        constant: (T,) which of what is shown is.
    """

    correlation: Tensor
    constant: Tensor

    @classmethod
    def of(cls, shown: Tensor, reconstructed: Tensor) -> "_Comparison":
        return cls(correlation_matrix(shown, reconstructed), is_constant(shown))


def losses_in_rows(similarity: Tensor, truth_index: Tensor) -> tuple[Tensor, Tensor]:
    """How many items of other stimuli each entry of a row does not beat; an undefined one (NaN) is better than none.

    Args:
        similarity: (T, N) of stimuli and items.
        truth_index: (N,) the stimulus of each item; items of one stimulus are not compared with each other.

    Returns:
        (T, N) numbers of items not beaten, of an undefined entry more than there are, and (N,) numbers of items of
        other stimuli.
    """
    wins, rivals = wins_in_rows(similarity, truth_index)
    others = (truth_index[:, None] != truth_index).sum(0)
    return (rivals - wins).masked_fill(similarity.isnan(), float(similarity.shape[1])), others


def wins_in_rows(similarity: Tensor, truth_index: Tensor) -> tuple[Tensor, Tensor]:
    """How many items of other stimuli each entry of a row beats, and how many of them are defined (NaN is not).

    Args:
        similarity: (T, N) of stimuli and items.
        truth_index: (N,) the stimulus of each item.

    Returns:
        Two (T, N) of numbers.
    """
    defined = (~similarity.isnan()).double()
    wins = wins_in_columns(similarity.T).T.clone()
    rivals = defined.sum(1, keepdim=True).repeat(1, similarity.shape[1])
    for stimulus in truth_index.unique():
        same = (truth_index == stimulus).nonzero()[:, 0]
        wins[:, same] -= wins_in_columns(similarity[:, same].T).T
        rivals[:, same] -= defined[:, same].sum(1, keepdim=True)
    return wins, rivals


# ------------------------------------------------------------------------------------------------- metrics of pairs

_PairFunction = Callable[[_RowInBlock, Tensor, Tensor], Tensor | None]


def _pair_function(metric: str) -> _PairFunction:
    for pattern, make in _PAIR_FUNCTIONS:
        if match := re.fullmatch(pattern, metric):
            return make(*match.groups())
    raise FmriModelsError(f"The metric {metric!r} cannot be computed from rows of pictures.")


def _mse(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
    if row.pictures is None:
        return None
    truth, recon = (pictures.flatten(1) for pictures in row.pictures)
    size = max(1, _VALUES_AT_ONCE // truth.shape[1])
    parts = zip(i.split(size), j.split(size), strict=True)
    return torch.cat([(truth[one] - recon[other]).square().mean(1) for one, other in parts])


def _pixcorr(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
    compared = row.pixel_comparison
    return None if compared is None else compared.correlation[i, j].nan_to_num(nan=0.0)


def _ssim(window: Window) -> _PairFunction:
    def score(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
        if row.pictures is None:
            return None
        truth, recon = (grey(pictures) for pictures in row.pictures)
        return SsimPairs(truth, recon, window)(i, j)

    return score


def _two_way(comparison: Callable[[_RowInBlock], "_Comparison | None"], same_background: bool = False) -> _PairFunction:
    def score(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
        compared = comparison(row)
        if compared is None or len(compared.correlation) < 2:
            return None
        if row.block.protocol.distractors == "reconstruction" and not same_background:
            return _among_reconstructions(compared, row.block.truth_index)[i, j]
        groups = row.block.backgrounds if same_background else None
        return identification_shares(compared.correlation, groups, compared.constant)[i, j]

    return score


def _among_reconstructions(compared: "_Comparison", truth_index: Tensor) -> Tensor:
    """(T, N) share of the reconstructions of other stimuli that item j beats if stimulus i is the one shown."""
    wins, rivals = wins_in_rows(compared.correlation, truth_index)
    shares = (wins / rivals).masked_fill(compared.correlation.isnan(), 0.0)
    alone = (truth_index[:, None] == truth_index).all(0)
    return shares.masked_fill(compared.constant[:, None] | alone, torch.nan)


def _identification_top1(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
    shares = _two_way(lambda row: row.pixel_comparison)(row, i, j)
    return None if shares is None else best_of_all(shares)


def _distance(extractor: str) -> _PairFunction:
    def score(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
        compared = row.feature_comparison(extractor)
        return None if compared is None else 1 - compared.correlation[i, j].nan_to_num(nan=0.0)

    return score


def _retrieval(query: str, top_k: str) -> _PairFunction:
    def score(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
        pool_size = row.block.protocol.pool_size
        if query == "brain" and row.not_beaten_by_column is not None:
            others = len(row.block.truth) - 1
            return hits_from_ranks(row.not_beaten_by_column[i, j], others, int(top_k), pool_size)
        if query == "image" and row.not_beaten_by_row is not None:
            not_beaten, others_of_item = row.not_beaten_by_row
            return hits_from_ranks(not_beaten[i, j], int(others_of_item.max()), int(top_k), pool_size)
        return None

    return score


def _factor(factor: str) -> _PairFunction:
    def score(row: _RowInBlock, i: Tensor, j: Tensor) -> Tensor | None:
        if factor not in row.content.factors or row.block.factors is None:
            return None
        shown = np.asarray([scene[factor] for scene in row.block.factors])
        return torch.from_numpy((shown[i.numpy()] == row.content.factors[factor][j.numpy()]).astype(np.float64))

    return score


def _named(value: _PairFunction) -> Callable[[], _PairFunction]:
    return lambda: value


_PAIR_FUNCTIONS: tuple[tuple[str, Callable[..., _PairFunction]], ...] = (
    (r"pixcorr", _named(_pixcorr)),
    (r"mse", _named(_mse)),
    (r"ssim", _named(_ssim("gaussian"))),
    (r"ssim_uniform", _named(_ssim("uniform"))),
    (r"pairwise_pixcorr", _named(_two_way(lambda row: row.pixel_comparison))),
    (r"identification_top1", _named(_identification_top1)),
    (r"two_way_(\w+)_same_background", lambda name: _two_way(lambda row: row.feature_comparison(name), True)),
    (r"two_way_(\w+)", lambda name: _two_way(lambda row: row.feature_comparison(name))),
    (r"distance_(\w+)", _distance),
    (r"retrieval_query_(brain|image)_top(\d+)", _retrieval),
    (r"factor_accuracy_(\w+)", _factor),
)


# ------------------------------------------------------------------------------------------------- re-paired stimuli


def _pairings(items: _Items, blocks: Sequence[_Block], permutations: int, seed: int) -> tuple[np.ndarray, bool]:
    """Which stimulus each item is paired with in each permutation, and whether these are all that there are.

    Returns:
        (pairings, N) numbers of stimuli. All of them are few where stimuli are; they then include the true pairing.
    """
    stimuli = np.arange(items.stimuli.max() + 1)
    classes = _exchangeable(stimuli, blocks)
    number = math.prod(math.factorial(len(each)) for each in classes)
    exhaustive = number <= permutations
    partners = np.tile(stimuli, (number if exhaustive else permutations, 1))
    orders = _all_orders(classes) if exhaustive else _random_orders(classes, np.random.default_rng(seed))
    for row, order in zip(partners, orders, strict=False):
        for own, other in zip(classes, order, strict=True):
            row[own] = other
    return partners[:, items.stimuli], exhaustive


def _all_orders(classes: Sequence[np.ndarray]) -> Iterator[Sequence[Any]]:
    return itertools.product(*(itertools.permutations(each.tolist()) for each in classes))


def _random_orders(classes: Sequence[np.ndarray], generator: np.random.Generator) -> Iterator[Sequence[Any]]:
    while True:
        yield [generator.permutation(each) for each in classes]


def _exchangeable(stimuli: np.ndarray, blocks: Sequence[_Block]) -> list[np.ndarray]:
    """Groups of stimuli that the same subjects, seeds and folds have."""
    present = np.zeros((len(stimuli), len(blocks)), dtype=bool)
    for number, block in enumerate(blocks):
        present[block.stimuli, number] = True
    _, group = np.unique(present, axis=0, return_inverse=True)
    return [stimuli[group.ravel() == number] for number in range(group.max() + 1)]


def _joined_pictures(parts: Sequence[Scores]) -> np.ndarray:
    """(N,) the first of all stimuli of which some part says that they show the same picture."""
    first: dict[str, str] = {}

    def found(name: str) -> str:
        while (other := first.setdefault(name, name)) != name:
            name = other
        return name

    for part in parts:
        for one, other in set(zip(part.stimulus_ids.tolist(), part.units.tolist(), strict=True)):
            low, high = sorted((found(one), found(other)))
            first[high] = low
    return np.asarray([found(name) for part in parts for name in part.stimulus_ids.tolist()], dtype=str)


def _joined_permutations(parts: Sequence[Scores]) -> dict[str, np.ndarray]:
    """Random pairings of all parts together; those of a part that has scored all of its own are drawn from these."""
    metrics = [metric for metric in parts[0].permuted if all(metric in part.permuted for part in parts)]
    joined = {}
    for metric in metrics:
        most = max(PERMUTATIONS, *(len(part.permuted[metric]) for part in parts))
        chosen = []
        for number, part in enumerate(parts):
            scores = part.permuted[metric]
            drawn = len(scores) == most and not part.exhaustive
            rows = np.arange(most) if drawn else np.random.default_rng(number).integers(len(scores), size=most)
            chosen.append(scores[rows])
        joined[metric] = np.concatenate(chosen, axis=1)
    return joined


# ---------------------------------------------------------------------------------------------------------- guessing


@dataclass
class _Guessing:
    """Among how many each item is searched.

    Attributes:
        stimuli: (N,) stimuli of its subject, seed and fold.
        items: (N,) items of other stimuli there, and itself.
        correlated: (N,) stimuli there whose picture is not constant; 0 of an item whose own picture is.
        protocol: May draw smaller pools.
    """

    stimuli: np.ndarray
    items: np.ndarray
    correlated: np.ndarray
    protocol: Protocol

    @classmethod
    def of(cls, items: _Items, blocks: Sequence[np.ndarray], protocol: Protocol, constant: np.ndarray) -> "_Guessing":
        stimuli, others, correlated = (np.empty(len(items.ids)) for _ in range(3))
        for positions in blocks:
            _, own, counts = np.unique(items.stimuli[positions], return_inverse=True, return_counts=True)
            stimuli[positions] = len(counts)
            others[positions] = len(positions) - counts[own] + 1
            varied = len(np.unique(items.stimuli[positions][~constant[positions]]))
            correlated[positions] = np.where(constant[positions], 0, varied)
        return cls(stimuli, others, correlated, protocol)

    def chance(self, metric: str) -> float | None:
        """What guessing scores; None where that depends on the pictures."""
        if match := re.fullmatch(r"retrieval_query_(brain|image)_top(\d+)", metric):
            candidates = self.stimuli if match[1] == "brain" else self.items
            return self._among(candidates, int(match[2]), self.protocol.pool_size)
        if metric == "identification_top1":
            from_truth = self.protocol.distractors == "truth"
            scored = self.correlated > 0
            return self._among((self.correlated if from_truth else self.items)[scored], 1, None)
        if metric.startswith("factor_accuracy_"):
            labels = FACTOR_VALUES.get(metric.removeprefix("factor_accuracy_"))
            return None if labels is None else 1 / len(labels)
        return metric_info(metric).chance

    def _among(self, candidates: np.ndarray, top_k: int, pool_size: int | None) -> float:
        pool = candidates if pool_size is None else np.minimum(candidates, pool_size)
        return float(np.minimum(1.0, top_k / pool).mean())


def _known_chances(metrics: list[str], guessing: _Guessing, notes: list[str]) -> dict[str, float]:
    """What guessing scores in each metric; those that say nothing with so few stimuli are taken out of `metrics`."""
    compared = [
        name
        for name in metrics
        if (name.startswith("two_way_") and guessing.stimuli.max() < 2)
        or (name in _BY_PIXELS and guessing.correlated.max() < 2)
    ]
    # Among one, guessing is always right, which the next note says.
    compared = [name for name in compared if name != "identification_top1" or guessing.stimuli.max() > 1]
    if compared:
        varied = " whose picture is not constant" if guessing.stimuli.max() > 1 else ""
        notes.append(
            f"{', '.join(compared)}: left out, because no test stimulus has another one of its subject and fold"
            f"{varied} to be told from."
        )
        metrics[:] = [name for name in metrics if name not in compared]
    chances = {name: chance for name in metrics if (chance := guessing.chance(name)) is not None}
    easy = {
        name: chance
        for name, chance in chances.items()
        if chance > HIGHEST_CHANCE and (name.startswith("retrieval_") or name == "identification_top1")
    }
    if easy:
        shown = ", ".join(f"{name} ({chance:.2f})" for name, chance in easy.items())
        notes.append(
            f"{shown}: left out, because with so few stimuli guessing (in brackets) succeeds more often than not."
        )
    metrics[:] = [name for name in metrics if name not in easy]
    return {name: chance for name, chance in chances.items() if name not in easy}


def _on_same_pictures(groups: Sequence[Sequence[str]]) -> list[str]:
    """What is made of stimuli that nobody can tell apart."""
    if not groups:
        return []
    count = sum(map(len, groups))
    named = [" = ".join(group[:_NAMED]) + (" = …" if len(group) > _NAMED else "") for group in groups]
    what = "the very same picture" if len(groups) == 1 else f"{len(groups)} pictures"
    return [
        f"{count} test stimuli show {what} under different ids ({listed(named, _NAMED, 400)}): those of one "
        "picture count as one stimulus, so that they are not told from each other, nor exchanged, nor independent in "
        "an interval."
    ]


def _on_constant_pictures(ids: np.ndarray, constant: np.ndarray, metrics: Sequence[str]) -> list[str]:
    """What is not said of pictures that correlate with nothing."""
    if not constant.any():
        return []
    names = sorted(set(ids[constant].tolist()))
    few = "1 test picture has" if len(names) == 1 else f"{len(names)} test pictures have"
    shown = listed(names, _NAMED)
    left = [name for name in metrics if name in _BY_PIXELS]
    effects = [f"no score in {' and '.join(left)}, where others are not compared with them either"] if left else []
    effects += ["0 in pixcorr"] if "pixcorr" in metrics else []
    told = f": {'; '.join(effects)}" if effects else ""
    return [f"{few} one value throughout ({shown}) and can't be correlated with anything{told}."]


def _has_score(values: np.ndarray | None) -> bool:
    return values is not None and bool(np.isfinite(values).any())


def _without_score(scores: Scores, metrics: Sequence[str]) -> list[str]:
    """A sentence about the metrics that no row has a score in, although the pictures allow them."""
    rows = scores.values.values()
    empty = [name for name in metrics if not any(_has_score(values[name]) for values in rows)]
    reasons = {
        "retrieval_": "there are no embeddings of brain responses and pictures to compare",
        "same_background": "no picture has another one of its subject and fold with the same background",
        "": "no row has what they are computed from",
    }
    found: dict[str, list[str]] = {}
    for name in empty:
        part = next(part for part in reasons if part in name)
        found.setdefault(reasons[part], []).append(name)
    return [f"{', '.join(names)}: left out, because {reason}." for reason, names in found.items()]


# ---------------------------------------------------------------------------------------------- what can be scored


def _usable_metrics(
    protocol: Protocol,
    truth: Tensor,
    factors: Sequence[Mapping[str, str]] | None,
    backgrounds: Sequence[str] | None,
) -> tuple[list[str], list[str]]:
    """The protocol's metrics that these pictures allow, and a sentence about each group that they do not."""
    metrics, notes = list(protocol.metrics), []
    side = protocol.resolution or min(truth.shape[-2:])
    size = f"{truth.shape[-2]}x{truth.shape[-1]}"

    def leave_out(prefix: str, reason: str) -> None:
        left = [name for name in metrics if name == prefix or (prefix.endswith("_") and name.startswith(prefix))]
        if left:
            metrics[:] = [name for name in metrics if name not in left]
            notes.append(f"{', '.join(left)}: left out, because {reason}.")

    if min(truth.shape[-2:]) < SMALLEST_NETWORK_PICTURE:
        reason = f"a network trained on photographs says nothing about pictures of {size} pixels"
        if protocol.extractors:
            leave_out("two_way_", f"{reason}; identification by pixels takes their place")
            metrics += [name for name in ("pairwise_pixcorr", "identification_top1") if name not in metrics]
        leave_out("distance_", reason)
    elif truth.shape[1] == 1 and protocol.extractors:
        notes.append("Grey pictures were given to the evaluation networks with the one channel repeated three times.")
    if side < 11:
        leave_out("ssim", f"its window of 11x11 is larger than the pictures ({size})")
    if side < 7:
        leave_out("ssim_uniform", f"its window of 7x7 is larger than the pictures ({size})")
    if backgrounds is None:
        for name in [name for name in metrics if name.endswith("_same_background")]:
            leave_out(name, "backgrounds are not known for these pictures")
    known = set.intersection(*(set(scene) for scene in factors)) if factors else set()
    if not known or truth.shape[1:] != (3, 64, 64):
        leave_out("factor_accuracy_", "these pictures are not the built-in scenes")
    for name in [name for name in metrics if name.startswith("factor_accuracy_")]:
        if name.removeprefix("factor_accuracy_") not in known:
            leave_out(name, "this factor is not known for every picture")
    return metrics, notes


class _Remembering:
    """An extractor that computes a picture once, since rows such as the mean image repeat one."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor, self.sha256 = extractor, extractor.sha256
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        keys = [hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in images]
        new = {key: position for position, key in enumerate(keys) if key not in self._known}
        if new:
            features = self.extractor(images[list(new.values())].float())
            self._known.update(zip(new, features, strict=True))
        return torch.stack([self._known[key] for key in keys])


def _networks(metrics: list[str], extractors: Mapping[str, FeatureExtractor] | None) -> dict[str, _Remembering]:
    needed = Protocol("", "", tuple(metrics)).extractors
    return {name: _Remembering((extractors or {}).get(name) or load_extractor(name)) for name in needed}


def _classifier(metrics: list[str], classifier: Any) -> Any:
    if not any(name.startswith("factor_accuracy_") for name in metrics):
        return None
    return SceneFactorClassifier.load_default() if classifier is None else classifier


def _as_saved(pictures: Tensor) -> Tensor:
    """Pictures on the CPU with the 256 levels that a PNG keeps."""
    return (pictures.cpu().float().clamp(0, 1) * 255).round() / 255


def _checked_row(name: str, row: RowData, truth: Tensor) -> RowData:
    """The row with pictures as they are saved and everything on the CPU."""
    embeds, images = row.retrieval_embeds, row.images
    if embeds is not None:
        embeds = torch.as_tensor(embeds).detach().cpu()
        if len(embeds) != len(truth):
            raise FmriModelsError(
                f"The row {name} has {len(embeds)} embeddings for {len(truth)} items; expected one for each."
            )
    if images is not None:
        images = _as_saved(checked_picture_set(images, f"The pictures of the row {name}"))
        if images.shape != truth.shape:
            raise FmriModelsError(
                f"The pictures of the row {name} have the shape {tuple(images.shape)} and the true ones "
                f"{tuple(truth.shape)}; resize them first."
            )
    return RowData(images, embeds)


def _joined(values: Sequence[np.ndarray | None], parts: Sequence[Scores]) -> np.ndarray | None:
    if all(value is None for value in values):
        return None
    filled = [np.full(len(part), np.nan) if v is None else v for v, part in zip(values, parts, strict=True)]
    return np.concatenate(filled)
