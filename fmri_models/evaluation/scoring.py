"""From rows of pictures to item scores: every metric of a protocol, for every row."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import progress
from ..errors import FmriModelsError
from ..names import listed
from .bootstrap import PERMUTATIONS
from .compared_rows import ComparedRow, RowContent, Stratum
from .extractors import FeatureExtractor, load_extractor
from .guessing import Guessing
from .metrics import checked_picture_set
from .named_metrics import Metric, ShownPictures
from .networks_that_measure import described_networks, notes_on_networks
from .pairings import stimulus_pairings, within
from .picture_features import PictureFeatures, TrueFeatures
from .preparation import Preparation, PreparedNetwork
from .protocols import Protocol
from .row_data import RowData
from .scene_factors import SceneFactorClassifier
from .scored_items import ScoredItems, as_saved, same_pictures
from .scores import Scores
from .similarities import is_constant
from .usable_metrics import usable_metrics

_NAMED = 5


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
    weights: str | PathLike | None = None,
    blocks: Sequence[str] | None = None,
    responses: Sequence[str] | None = None,
    categories: Sequence[str | None] | None = None,
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
        weights: Folder with weights of extractors.
        blocks: N names of where each item was recorded, for a protocol that exchanges stimuli inside sessions, runs or
            blocks alone (`exchange_within`); an item of several has a name of them all.
        responses: N names of the response that each item is a picture of, for a protocol that averages the correlations
            of its pictures (`sample_average`); each item is one of its own if None.
        categories: N names of what the stimuli are of, for identification of categories; a stimulus without one is a
            category of its own.

    Raises:
        FmriModelsError: Lengths, shapes or values do not fit together.
    """
    if not rows:
        raise FmriModelsError("There is no row to score; give at least the row 'brain'.")
    truth = as_saved(checked_picture_set(truth, "The true pictures"))
    count = len(truth)
    items = ScoredItems(
        ids=np.asarray(stimulus_ids, dtype=str),
        truth=truth,
        subjects=np.asarray(["subj01"] * count if subjects is None else subjects, dtype=str),
        seeds=np.asarray([seed] * count if seeds is None else seeds, dtype=np.int64),
        folds=np.asarray([0] * count if folds is None else folds),
        gallery=gallery_embeds,
        backgrounds=backgrounds,
        factors=factors,
        responses=_averaged(protocol, responses),
        categories=categories,
    )
    checked = {name: _checked_row(name, row, truth, protocol.preparation) for name, row in rows.items()}
    positions = items.strata()
    constant = is_constant(truth).numpy()
    guessing = Guessing.of(
        items, positions, constant, protocol.pool_size, among_reconstructions=protocol.distractors == "reconstruction"
    )
    metrics, chances, notes = usable_metrics(protocol.measured(), _shown(items, protocol), guessing)
    notes += [
        *_on_same_pictures(same_pictures(items.ids.tolist(), items.pictures.tolist())),
        *_on_constant_pictures(items.ids, constant, metrics),
    ]
    with progress.phase("Loading the networks that measure"):
        networks = _networks(metrics, extractors, weights, protocol.preparation)
        classifier = _classifier(metrics, factor_classifier)
    true_features = {name: TrueFeatures(network, truth) for name, network in networks.items()}
    strata = [
        Stratum.of_items(each, items, true_features, protocol.preparation, protocol.distractors, protocol.pool_size)
        for each in positions
    ]
    permuted = permutations if "brain" in rows else 0
    inside = within(positions, _blocks(protocol, blocks, count))
    pairings, exhaustive = stimulus_pairings(items.stimuli, inside, permuted, seed)
    scores = Scores(
        values={name: dict.fromkeys([*protocol.metrics, *(metric.name for metric in metrics)]) for name in rows},
        subjects=items.subjects,
        stimulus_ids=items.ids,
        seeds=items.seeds,
        exhaustive=exhaustive,
        exchanged_within=protocol.exchange_within,
        num_folds=len(np.unique(items.folds)),
        pictures=items.pictures,
        pool_size=float(np.average([len(s.truth) for s in strata], weights=[len(s.positions) for s in strata])),
        chances=chances,
        extractors=described_networks([network.extractor for network in networks.values()])
        | ({} if classifier is None else {"scene_factors": {"sha256": classifier.sha256}}),
        notes=notes,
    )
    for name, row in progress.bar(checked.items(), "Scoring each row", unit="row", delay=1):
        # One row's pictures after the other go through the networks, so that one row's features are in memory.
        content = RowContent.of(row, networks, classifier)
        for stratum in strata:
            drawn = pairings if name == "brain" else pairings[:0]
            _score_stratum(scores, name, ComparedRow(stratum, content.at(stratum.positions)), metrics, drawn)
    notes += _without_score(scores, metrics)
    notes += notes_on_networks([network.extractor for network in networks.values()])
    return scores


def _score_stratum(
    scores: Scores, name: str, row: ComparedRow, metrics: Sequence[Metric], pairings: np.ndarray
) -> None:
    """Fills in the scores of one row's items in one stratum, and those of its other pairings.

    Args:
        scores: Where they go.
        name: Of the row.
        row: Its items in the stratum.
        metrics: By which they are scored, as far as the row has what they need.
        pairings: (pairings, N) number of the stimulus that each of all items is paired with.
    """
    positions = row.stratum.positions.numpy()
    others = row.stratum.index_of(pairings[:, positions])
    paired = np.concatenate([row.stratum.truth_index.numpy()[None], others])
    # Every pair that occurs is scored once.
    pairs, where = np.unique(paired * len(positions) + np.arange(len(positions)), return_inverse=True)
    i, j = torch.from_numpy(pairs // len(positions)), torch.from_numpy(pairs % len(positions))
    for metric in metrics:
        found = None if row.get(metric.needs) is None else metric.scores(row, i, j)
        if found is None:
            continue
        true, *permuted = found.numpy()[where].reshape(paired.shape)
        values = scores.values[name][metric.name]
        if values is None:
            values = scores.values[name][metric.name] = np.full(len(scores), np.nan)
        values[positions] = true
        if permuted and not metric.of_whole_set:
            all_items = scores.permuted.setdefault(metric.name, np.full((len(permuted), len(scores)), np.nan))
            all_items[:, positions] = permuted


def _averaged(protocol: Protocol, responses: Sequence[str] | None) -> np.ndarray | None:
    if protocol.sample_average == "scores" or responses is None:
        return None
    return np.asarray(responses, dtype=str)


def _blocks(protocol: Protocol, blocks: Sequence[str] | None, count: int) -> np.ndarray | None:
    """(N,) names of where items were recorded; None where the protocol does not ask for them."""
    if protocol.exchange_within is None:
        return None
    if blocks is None or len(blocks) != count:
        known = "nobody says of which each item is" if blocks is None else f"{len(blocks)} of {count} items have one"
        raise FmriModelsError(
            f"The permutation test is to exchange stimuli inside a {protocol.exchange_within} alone, and {known}; give "
            "it for each item, or let all be exchanged."
        )
    return np.asarray(blocks, dtype=str)


def _shown(items: ScoredItems, protocol: Protocol) -> ShownPictures:
    height, width = items.truth.shape[-2:]
    compared = protocol.preparation.of_pixels(items.truth[:1]).shape[-2:]
    return ShownPictures(
        height,
        width,
        items.truth.shape[1],
        min(compared),
        frozenset.intersection(*map(frozenset, items.factors)) if items.factors else frozenset(),
        items.backgrounds is not None,
    )


def _networks(
    metrics: Sequence[Metric],
    extractors: Mapping[str, FeatureExtractor] | None,
    weights: str | PathLike | None,
    preparation: Preparation,
) -> dict[str, PictureFeatures]:
    needed = dict.fromkeys(name for metric in metrics for name in metric.needs.extractors)
    given = extractors or {}
    networks = {name: given.get(name) or load_extractor(name, weights) for name in needed}
    return {name: PictureFeatures(PreparedNetwork(network, preparation)) for name, network in networks.items()}


def _classifier(metrics: Sequence[Metric], classifier: Any) -> Any:
    if not any(metric.needs.of_scenes for metric in metrics):
        return None
    return SceneFactorClassifier.load_default() if classifier is None else classifier


def _checked_row(name: str, row: RowData, truth: Tensor, preparation: Preparation) -> RowData:
    """The row with pictures as they are saved and everything on the CPU."""
    embeds, images = row.retrieval_embeds, row.images
    if embeds is not None:
        embeds = torch.as_tensor(embeds).detach().cpu()
        if len(embeds) != len(truth):
            raise FmriModelsError(
                f"The row {name} has {len(embeds)} embeddings for {len(truth)} items; expected one for each."
            )
    if images is not None:
        images = as_saved(checked_picture_set(images, f"The pictures of the row {name}"))
        compared = [preparation.size_of_pixels(*pictures.shape[-2:]) for pictures in (images, truth)]
        if images.shape[:2] != truth.shape[:2] or compared[0] != compared[1]:
            raise FmriModelsError(
                f"The pictures of the row {name} have the shape {tuple(images.shape)} and the true ones "
                f"{tuple(truth.shape)}; resize them first."
            )
    return RowData(images, embeds)


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


def _on_constant_pictures(ids: np.ndarray, constant: np.ndarray, metrics: Sequence[Metric]) -> list[str]:
    """What is not said of pictures that correlate with nothing."""
    if not constant.any():
        return []
    names = sorted(set(ids[constant].tolist()))
    few = "1 test picture has" if len(names) == 1 else f"{len(names)} test pictures have"
    shown = listed(names, _NAMED)
    having = {
        score: " and ".join(metric.name for metric in metrics if metric.score_of_constant == score)
        for score in ("no score", "0")
    }
    compared = {"no score": ", where others are not compared with them either", "0": ""}
    effects = [f"{score} in {named}{compared[score]}" for score, named in having.items() if named]
    told = f": {'; '.join(effects)}" if effects else ""
    return [f"{few} one value throughout ({shown}) and can't be correlated with anything{told}."]


def _without_score(scores: Scores, metrics: Sequence[Metric]) -> list[str]:
    """A sentence about the metrics that no row has a score in, although the pictures allow them."""
    rows = scores.values.values()
    found: dict[str, list[str]] = {}
    for metric in metrics:
        if not any(_has_score(values[metric.name]) for values in rows):
            found.setdefault(metric.without_needs, []).append(metric.name)
    return [f"{', '.join(names)}: left out, because {reason}." for reason, names in found.items()]


def _has_score(values: np.ndarray | None) -> bool:
    return values is not None and bool(np.isfinite(values).any())
