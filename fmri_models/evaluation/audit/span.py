"""In how many directions predictions vary, and what part of the test targets lies where no training target does."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...data.target_options import TargetOptions
from ...data.targets import Target, cached_targets
from ...modeling_fmri import FmriPreTrainedModel
from ...modeling_outputs import FmriDecoding
from ..bootstrap import DRAWS, interval
from ..effective_rank import EffectiveRank, effective_rank, gram, rank_ratio
from ..rank_correlation import difference_of_samples
from ..scored_items import picture_ids
from ..target_span import MOST_DIMENSIONS, MOST_STIMULI, Projected, Targets, TargetSpan, span_of
from .part import AuditedItems, AuditPart
from .span_schema import MOST_POINTS, REFERENCES, SpanContent, What
from .span_words import notes, plot, tables

if TYPE_CHECKING:
    from ..evaluated_subject import EvaluatedSubject

_LEVELS = (0.95, 0.99, 1.0)
_SUBSETS = 10
# Training stimuli that are held out from the space, as a control: a fifth at most.
_HELD_OUT_SHARE, _FEWEST_HELD_OUT, _LEAST_ASKED, _MOST_HELD_OUT = 5, 5, 50, 1000


@dataclass
class SubjectSpan:
    """The predictions of one subject on one fold, beside the true targets and those of the training.

    Args:
        what: What was predicted.
        width: Its number of values.
        units: (n,) the picture of each prediction, one of each.
        products: Set ▶ (n, n) scalar products.
        of_training: Effective ranks of as many training targets, of several draws.
        training: Number of training stimuli.
        span: Of the training targets, with truth and predictions in this order.
        without: The same of those that were not held out, with truth and those held out.
        held_out: Names of those that were held out.
    """

    what: What
    width: int
    units: np.ndarray
    products: dict[str, np.ndarray]
    of_training: list[EffectiveRank]
    training: int
    span: TargetSpan
    without: TargetSpan | None
    held_out: list[str]


@dataclass
class _Sets:
    """Targets of one kind: of the training, of the test, and what was predicted."""

    what: What
    training: Targets
    training_ids: list[str]
    truth: Targets
    predictions: dict[str, np.ndarray] = field(default_factory=dict)


def measure(of: "EvaluatedSubject") -> SubjectSpan | str:
    """Ranks and spaces of one subject on one fold; a sentence where there are none."""
    units, first = np.unique(picture_ids(of.stimulus_ids, of.truth)[: of.responses], return_index=True)
    if len(units) < 2:
        return f"{of.subject} has one test picture, of which nothing varies."
    sets = _decoded(of, first) or _reconstructed(of, first)
    if sets is None:
        return "Nothing was drawn of which the features could be looked at."
    if len(sets.training) < 2:
        return f"{of.subject} has {len(sets.training)} training pictures in the table, which span no space."
    generator = np.random.default_rng(of.drawn_by.seed)
    predictions = sets.predictions["brain"]
    if not np.isfinite(predictions).all():
        return f"What was predicted of {of.subject} has numbers that are not finite."
    used = np.arange(len(sets.training))
    if sets.training.width > MOST_DIMENSIONS and len(used) > MOST_STIMULI:
        used = np.sort(generator.choice(used, MOST_STIMULI, replace=False))
    spanning = sets.training.at(used)
    span = span_of(spanning, [sets.truth, Targets(predictions, np.arange(len(predictions)))])
    if span is None:
        return f"The training targets of {of.subject} do not vary."
    held, without = np.zeros(0, dtype=np.int64), None
    count = min(len(used) // _HELD_OUT_SHARE, max(_LEAST_ASKED, len(units)), _MOST_HELD_OUT)
    if count >= _FEWEST_HELD_OUT:
        held = np.sort(generator.choice(len(used), count, replace=False))
        kept = np.setdiff1d(np.arange(len(used)), held)
        without = span_of(spanning.at(kept), [sets.truth, spanning.at(held)])
    products = {"truth": gram(sets.truth.read())}
    products |= {"predictions" if row == "brain" else row: gram(found) for row, found in sets.predictions.items()}
    subsets = []
    if len(sets.training) >= len(units):
        for _ in range(_SUBSETS):
            chosen = np.sort(generator.choice(len(sets.training), len(units), replace=False))
            subsets.append(effective_rank(gram(sets.training.at(chosen).read())))
    return SubjectSpan(
        sets.what,
        sets.training.width,
        units,
        products,
        [each for each in subsets if each is not None],
        len(sets.training),
        span,
        without,
        [sets.training_ids[used[position]] for position in held],
    )


def _decoded(of: "EvaluatedSubject", first: np.ndarray) -> _Sets | None:
    """What was decoded of some items, where it lies in a space of the image generator."""
    generator, decoding = of.pipeline.image_generator, of.decoding
    targets: tuple[tuple[What, Target, Any], ...] = (
        ("image_embeds", "image_embeds", generator.image_embedding_space),
        ("latents", "latents", generator.latent_space),
    )
    for what, target, space in targets:
        found = _of_first_candidate(decoding, target, len(of))
        if found is None or space is None or found[0].numel() != space.size:
            continue
        if of.pipeline.brain_model.config.space(_SPACES[target]) is None:
            continue
        ids = _with_pictures(of)
        stimuli = of.table.stimuli
        values = cached_targets(of.table, generator, target, options=TargetOptions.of_recipe(of.record.recipe))
        tested = [of.stimulus_ids[position] for position in first]
        sets = _Sets(
            what,
            Targets(values, np.asarray(stimuli.positions(ids), dtype=np.int64)),
            ids,
            Targets(values, np.asarray(stimuli.positions(tested), dtype=np.int64)),
            {"brain": _array(found, first)},
        )
        for row, model in _references(of).items():
            decoded = _of_first_candidate(of.decode(model, of.features_of_references), target, len(of))
            if decoded is not None and decoded[0].numel() == space.size:
                sets.predictions[row] = _array(decoded, first)
        return sets
    return None


_SPACES: dict[Target, str] = {"image_embeds": "image_embedding_space", "latents": "latent_space"}


def _with_pictures(of: "EvaluatedSubject") -> list[str]:
    """Training stimuli, each picture once, as far as the table has it."""
    ids = list(dict.fromkeys(of.training_trials.stimulus_ids.tolist()))
    first: dict[str, str] = {}
    for name, digest in sorted(zip(ids, of.table.stimuli.content_hashes(ids), strict=True)):
        if digest is not None:
            first.setdefault(digest, name)
    return sorted(first.values())


def _references(of: "EvaluatedSubject") -> dict[str, FmriPreTrainedModel]:
    """Linear decoders of the same targets, whose rows were drawn: of exchanged pairs, and of true ones."""
    if of.references is None or not of.references.drawn_by_evaluated:
        return {}
    models = {}
    if "permuted_training" in of.rows:
        models["permuted_training"] = of.references.permuted
    if "ridge" in of.rows and of.rows["ridge"] is not of.rows.get("brain"):
        models["ridge"] = of.references.ridge
    return models


def _of_first_candidate(decoding: FmriDecoding, target: Target, count: int) -> torch.Tensor | None:
    """(N, …) of what was decoded; of several candidates the first one."""
    found: torch.Tensor | None = getattr(decoding, target)
    if found is None and target == "image_embeds":
        found = decoding.retrieval_embeds
    if found is None or len(found) % count:
        return None
    return found[:: len(found) // count]


def _array(found: torch.Tensor, first: np.ndarray) -> np.ndarray:
    return found[torch.from_numpy(first)].flatten(1).float().cpu().numpy()


def _reconstructed(of: "EvaluatedSubject", first: np.ndarray) -> _Sets | None:
    """Features of what was drawn, of a method that decodes nothing that pictures have targets of."""
    images = of.rows["brain"].images if "brain" in of.rows else None
    if images is None:
        return None
    vectors = of.stimulus_vectors
    return _Sets(
        "reconstructions",
        Targets(vectors.training, np.arange(len(vectors.training))),
        vectors.training_ids,
        Targets(vectors.test, first),
        {"brain": vectors.of_pictures(images[torch.from_numpy(first)])},
    )


def content(of: AuditedItems) -> dict[str, Any]:
    """What goes into report.json."""
    reasons = [each for each in of.measured if isinstance(each, str)]
    if reasons:
        return {"not_defined": reasons[0]}
    subjects: Sequence[SubjectSpan] = of.measured
    if len({(each.what, each.width) for each in subjects}) > 1:
        return {"not_defined": "The folds have predictions of different kinds, whose ranks are not one."}
    widening = of.scores.widening
    return {
        "what": subjects[0].what,
        "values": subjects[0].width,
        "pictures": _range([len(each.units) for each in subjects]),
        "training": _range([each.training for each in subjects]),
        "spanning": _range([each.span.stimuli for each in subjects]),
        "dimensions": _range([each.span.dimensions for each in subjects]),
        "ranks": _ranks(subjects),
        "ratios": _ratios(subjects, of.seed, widening),
        "outside": [_outside(subjects, level, of.seed, widening) for level in _LEVELS],
        "held_out": _held_out(subjects, of.seed, widening),
        "curves": _curves(subjects),
    }


def _range(numbers: Sequence[int]) -> list[int]:
    return [min(numbers), max(numbers)]


def _ranks(subjects: Sequence[SubjectSpan]) -> dict[str, Any]:
    """Geometric means over subjects and folds."""
    found: dict[str, Any] = {}
    names = ["predictions", "truth", *(row for row in REFERENCES if all(row in each.products for each in subjects))]
    for name in names:
        ranks = [effective_rank(each.products[name]) for each in subjects]
        known = [rank for rank in ranks if rank is not None]
        # What does not vary in one of them has no rank there.
        found[name] = _mean_rank(known) if len(known) == len(ranks) else None
    of_training = [_mean_rank(each.of_training) for each in subjects if each.of_training]
    found["training"] = (
        {name: _geometric([each[name] for each in of_training]) for name in of_training[0]}
        if len(of_training) == len(subjects)
        else None
    )
    return found


def _mean_rank(ranks: Sequence[EffectiveRank]) -> dict[str, float]:
    return {name: _geometric([getattr(rank, name) for rank in ranks]) for name in EffectiveRank._fields}


def _geometric(numbers: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(numbers))))


def _ratios(subjects: Sequence[SubjectSpan], seed: int, widening: float) -> dict[str, Any]:
    """How many times as many directions predictions have as other vectors of the same stimuli."""
    found = {}
    for name in ("truth", *REFERENCES):
        if all(name in each.products for each in subjects):
            ratio = rank_ratio(
                [each.products["predictions"] for each in subjects],
                [each.products[name] for each in subjects],
                [each.units for each in subjects],
                seed,
                widening,
            )
            found[name] = None if ratio is None else ratio.to_dict()
    return found


def _share_of_each(outside: np.ndarray, energy: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(stimuli,) values whose mean is the share of all variance, and which scatter as it does; and their names."""
    names, where = np.unique(units, return_inverse=True)
    counts = np.bincount(where)
    rest, total = np.bincount(where, outside) / counts, np.bincount(where, energy) / counts
    mean = total.mean()
    if mean <= 0:
        return np.full(len(names), np.nan), names
    share = rest.mean() / mean
    return share + (rest - share * total) / mean, names


def _shares(sets: Sequence[tuple[Projected, np.ndarray]], dimensions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    outside = np.concatenate([each.outside(count) for (each, _), count in zip(sets, dimensions, strict=True)])
    energy = np.concatenate([each.energy for each, _ in sets])
    return _share_of_each(outside, energy, np.concatenate([units for _, units in sets]))


def _result(shares: np.ndarray, names: np.ndarray, seed: int, widening: float) -> dict[str, Any] | None:
    # Not shares of successes, of which those that are all 0 would have a binomial interval.
    found = interval(shares, names.tolist(), DRAWS, seed, (-np.inf, np.inf), widening=widening)
    if found is None:
        return None
    bounds = None if found.ci95 is None else [float(np.clip(each, 0, 1)) for each in found.ci95]
    return {**asdict(found), "value": float(np.clip(found.value, 0, 1)), "ci95": bounds}


def _outside(subjects: Sequence[SubjectSpan], level: float, seed: int, widening: float) -> dict[str, Any]:
    """Shares of variance outside the directions that hold so much of the training targets' variance."""
    dimensions = [each.span.dimensions_of(level) if level < 1 else each.span.dimensions for each in subjects]
    found: dict[str, Any] = {
        "variance": level,
        "dimensions": _range(dimensions),
        "without_direction": float(
            np.mean([1 - count / each.width for count, each in zip(dimensions, subjects, strict=True)])
        ),
    }
    for place, name in enumerate(("truth", "predictions")):
        sets = [(each.span.vectors[place], each.units) for each in subjects]
        found[name] = _result(*_shares(sets, dimensions), seed, widening)
    return found


def _held_out(subjects: Sequence[SubjectSpan], seed: int, widening: float) -> dict[str, Any] | None:
    """The same share of training stimuli that were held out from the space, and of the test stimuli beside them."""
    spans = [(each, each.without) for each in subjects]
    if any(without is None for _, without in spans):
        return None
    levels = []
    for level in _LEVELS:
        dimensions = [
            (without.dimensions_of(level) if level < 1 else without.dimensions) for _, without in spans if without
        ]
        truth = _shares([(without.vectors[0], each.units) for each, without in spans if without], dimensions)
        held = _shares(
            [(without.vectors[1], np.asarray(each.held_out)) for each, without in spans if without], dimensions
        )
        compared = difference_of_samples(*truth, *held, widening)
        levels.append(
            {
                "variance": level,
                "truth": _result(*truth, seed, widening),
                "held_out": _result(*held, seed, widening),
                "difference": None if compared is None else compared.to_dict(),
            }
        )
    return {
        "spanning": _range([without.stimuli for _, without in spans if without]),
        "stimuli": _range([len(each.held_out) for each in subjects]),
        "levels": levels,
    }


def _curves(subjects: Sequence[SubjectSpan]) -> dict[str, list[float]]:
    """Share of variance outside of the first so many directions, means over subjects and folds."""
    most = min(each.span.dimensions for each in subjects)
    dimensions = np.unique(np.geomspace(1, most, MOST_POINTS).round().astype(int)).tolist()
    curves: dict[str, list[Any]] = {"dimensions": dimensions, "training": [], "truth": [], "predictions": []}
    for count in dimensions:
        shares: dict[str, list[float]] = {"training": [], "truth": [], "predictions": []}
        for each in subjects:
            variances = each.span.variances
            shares["training"].append(float(max(0.0, 1 - variances[:count].sum() / variances.sum())))
            for place, name in enumerate(("truth", "predictions")):
                vectors = each.span.vectors[place]
                total = float(vectors.energy.sum())
                shares[name].append(float(vectors.outside(count).sum()) / total if total > 0 else 0.0)
        for name, found in shares.items():
            curves[name].append(float(np.clip(np.mean(found), 0, 1)))
    return curves


SPAN = AuditPart(
    name="span",
    label="Span",
    question="In how many directions do predictions vary, and what of the test targets lies outside the training's?",
    measure=measure,
    content=content,
    tables=tables,
    notes=notes,
    schema=SpanContent,
    plot=plot,
)
