"""In how many directions predictions vary, and what part of the test targets lies where no training target does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...data.targets import Target, cached_targets
from ...modeling_fmri import FmriPreTrainedModel
from ...modeling_outputs import FmriDecoding
from ..bootstrap import DRAWS, interval
from ..effective_rank import EffectiveRank, effective_rank, gram, rank_ratio
from ..rank_correlation import difference_of_samples
from ..report_schema import Bounds, Count, Difference, Name, Number, Result
from ..rows import get_row
from ..scored_items import picture_ids
from ..table import Table
from ..target_span import MOST_DIMENSIONS, MOST_STIMULI, Projected, Targets, TargetSpan, span_of
from .figures import difference, value
from .part import AuditedItems, AuditPart, Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluated_subject import EvaluatedSubject

What = Literal["image_embeds", "latents", "reconstructions"]

_LEVELS = (0.95, 0.99, 1.0)
_SUBSETS = 10
# Training stimuli that are held out from the space, as a control: a fifth at most.
_HELD_OUT_SHARE, _FEWEST_HELD_OUT, _LEAST_ASKED, _MOST_HELD_OUT = 5, 5, 50, 1000
_MOST_POINTS = 30
_REFERENCES = ("permuted_training", "ridge")
_NAMES = {
    "predictions": "predictions",
    "truth": "true targets of the same test stimuli",
    "training": "training targets, as many",
}
_WORDS = {
    "image_embeds": "decoded embeddings",
    "latents": "decoded latents",
    "reconstructions": "features of the reconstructions",
}
# What is less than this share is rounding.
_NOTHING = 1e-6


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
        values = cached_targets(of.table, generator, target)
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
    names = ["predictions", "truth", *(row for row in _REFERENCES if all(row in each.products for each in subjects))]
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
    for name in ("truth", *_REFERENCES):
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
    dimensions = np.unique(np.geomspace(1, most, _MOST_POINTS).round().astype(int)).tolist()
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


# ------------------------------------------------------------------------------------------------------------- reading


def _name(of_set: str) -> str:
    return _NAMES.get(of_set) or f"predictions of {get_row(of_set).label}"


def _ranks_table(of: Content) -> Table:
    lines = []
    for name in ("predictions", "truth", "training", *_REFERENCES):
        if name not in of["ranks"]:
            continue
        rank, ratio = of["ranks"][name], of["ratios"].get(name)
        figures = ["–", "–"] if rank is None else [f"{rank['participation']:.1f}", f"{rank['entropy']:.1f}"]
        lines.append([_name(name), *figures, _ratio(ratio)])
    caption = (
        f"In how many directions vectors of {_span(of['pictures'])} test stimuli vary: by the participation ratio "
        "(Σλ)²/Σλ² and by exp of the entropy of λ/Σλ, where λ are the eigenvalues of their covariance. Both depend on "
        "how many vectors there are, so that all lines have as many, and noise raises them: predictions of ridge on "
        "exchanged pairs are noise alone. The last column is how many times as many directions the predictions have by "
        "the participation ratio, with the 95 % interval of a jackknife over groups of stimuli."
    )
    return Table("Span: effective rank", caption, ["", "participation", "entropy", "predictions over it"], lines)


def _ratio(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    bounds = "" if found["ci95"] is None else " [{:.2f}, {:.2f}]".format(*found["ci95"])
    return f"{found['ratio']:.2f}{bounds}"


def _span(numbers: Sequence[int]) -> str:
    least, most = numbers
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _outside_table(of: Content) -> Table:
    lines = []
    for level in of["outside"]:
        lines.append(
            [
                _level(level["variance"]),
                _span(level["dimensions"]),
                value(level["truth"]),
                f"{level['without_direction']:.3f}",
                value(level["predictions"]),
            ]
        )
    caption = (
        "Share of variance, about the mean of the training targets, that lies outside of their principal directions: "
        "of as many as hold 95 % and 99 % of the training targets' variance, and of all that there are. Training "
        "stimuli that are fewer than values leave directions out by their number alone: the column beside the test "
        "targets is what a vector without preferred direction would have outside. Predictions of a linear decoder lie "
        "in the space of its training targets by construction, unless its values are scaled one by one afterwards."
    )
    header = [
        "training variance held",
        "directions",
        "test targets outside",
        "without direction",
        "predictions outside",
    ]
    return Table("Span: what lies outside the training targets", caption, header, lines)


def _level(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:g} %"


def _held_out_tables(of: Content) -> list[Table]:
    control = of["held_out"]
    if control is None:
        return []
    lines = [
        [_level(each["variance"]), value(each["truth"]), value(each["held_out"]), difference(each["difference"])]
        for each in control["levels"]
    ]
    caption = (
        f"The same of the space of {_span(control['spanning'])} training stimuli alone, from which "
        f"{_span(control['stimuli'])} others were held out: what training stimuli have outside that did not span it. "
        "Test targets that have more than these are of another kind; as much says that their number leaves it out."
    )
    header = ["variance held", "test targets", "held-out training targets", "test less held-out"]
    return [Table("Span: beside held-out training stimuli", caption, header, lines)]


def tables(of: Content) -> list[Table]:
    """Of a report's page; the first one has the plot."""
    return [_outside_table(of), *_held_out_tables(of), _ranks_table(of)]


def notes(of: Content) -> list[str]:
    """What a reviewer would conclude."""
    return [*_on_ranks(of), _on_outside(of), *_on_held_out(of)]


def _on_ranks(of: Content) -> list[str]:
    ranks, words = of["ranks"], _WORDS[of["what"]]
    if of["what"] == "reconstructions":
        words += " (the method decodes nothing that pictures have targets of)"
    if ranks["predictions"] is None or ranks["truth"] is None:
        which = "predictions" if ranks["predictions"] is None else "true targets"
        return [
            f"Span: the {which} are the same for all test stimuli, so that they have no rank: nothing was told apart."
        ]
    own, true = ranks["predictions"]["participation"], ranks["truth"]["participation"]
    sentence = (
        f"Span: the {words} of {_span(of['pictures'])} test stimuli vary in {own:.1f} directions (participation ratio) "
        f"and the true ones in {true:.1f}"
    )
    ratio = of["ratios"].get("truth")
    if ratio is not None and ratio["ci95"] is not None:
        sentence += f"; a ratio of {_ratio(ratio)}"
        if ratio["ci95"][1] < 1:
            sentence += (
                ", so that predictions differ in fewer ways than pictures do: what tells pictures apart along the rest "
                "is not in them, and is the generator's where a reconstruction shows it"
            )
        elif ratio["ci95"][0] > 1:
            sentence += ", so that predictions scatter in more ways than pictures do, as noise does"
        else:
            sentence += ", which may be 1"
    found = [f"{sentence}."]
    noise = ranks.get("permuted_training")
    if noise is not None:
        found.append(
            "Span: ridge that was fitted to exchanged pairs, which knows nothing, predicts in "
            f"{noise['participation']:.1f} directions: a rank says how predictions scatter, and not that they are "
            "right."
        )
    return found


def _on_outside(of: Content) -> str:
    everything = of["outside"][-1]
    truth, predictions = everything["truth"], everything["predictions"]
    used = _span(of["spanning"])
    if of["spanning"] != of["training"]:
        used += f" of {_span(of['training'])}"
    space = f"{used} training stimuli span {_span(of['dimensions'])} of {of['values']:,} directions"
    if of["dimensions"][0] >= of["values"]:
        held = of["outside"][0]
        rest = (
            ""
            if held["truth"] is None
            else (
                f"; outside of the {_span(held['dimensions'])} that hold 95 % of their variance lie "
                f"{value(held['truth'])} of that of the test targets"
            )
        )
        return f"Span: {space}, all there are, so that nothing can lie outside{rest}."
    if truth is None:
        return f"Span: {space}; the test targets do not vary."
    if truth["value"] < _NOTHING:
        return f"Span: {space}, and no variance of the test targets lies outside."
    sentence = (
        f"Span: {space}. Of the test targets' variance a share of {value(truth)} lies outside (of a vector without "
        f"preferred direction {everything['without_direction']:.3f}): no decoder whose predictions are sums of "
        "training targets can tell it"
    )
    if predictions is None:
        return f"{sentence}."
    if predictions["value"] < _NOTHING:
        return f"{sentence}, and none of the predictions' variance does, as that of linear decoders by construction."
    return (
        f"{sentence}. Of the predictions' variance {value(predictions)} does, as of a decoder that is not linear, or "
        "scales values one by one."
    )


def _on_held_out(of: Content) -> list[str]:
    control = of["held_out"]
    if control is None:
        return ["Span: there are too few training stimuli to hold some out beside the test stimuli (25 at least)."]
    # The widest space that leaves anything out.
    known = [
        each for each in control["levels"] if each["held_out"] is not None and each["held_out"]["value"] > _NOTHING
    ]
    if not known:
        return []
    level = known[-1]
    bounds = (level["difference"] or {}).get("ci95")
    figures = (
        f"outside of {'the space' if level['variance'] == 1 else _level(level['variance']) + ' of the variance'} of "
        f"{_span(control['spanning'])} training stimuli lie {value(level['truth'])} of test targets and "
        f"{value(level['held_out'])} of {_span(control['stimuli'])} held-out training targets"
    )
    if bounds is None:
        return [f"Span: {figures}, without an interval of the difference."]
    if bounds[0] > 0:
        verdict = "test stimuli differ in ways in which training stimuli do not"
    elif bounds[1] < 0:
        verdict = "test stimuli differ in fewer ways than training stimuli do among themselves"
    else:
        verdict = (
            "as far as these tell, test stimuli lie outside as new stimuli of the training's own kind do, and are of "
            "no other kind"
        )
    return [f"Span: {figures} (difference {difference(level['difference'])}): {verdict}."]


def plot(of: Content, axes: "Axes") -> None:
    """Share of variance that the first so many directions of the training targets leave out."""
    from ..plots import COLOURS

    curves = of["curves"]
    for name, colour, style in (
        ("training", COLOURS[4], "--"),
        ("truth", COLOURS[2], "-"),
        ("predictions", COLOURS[0], "-"),
    ):
        label = {"training": "training targets", "truth": "test targets"}.get(name, name)
        axes.plot(curves["dimensions"], curves[name], color=colour, linestyle=style, label=label)
    level = of["outside"][-1]["variance"]
    control = of["held_out"]
    if control is not None and control["levels"][-1]["held_out"] is not None and level == 1:
        axes.axhline(
            control["levels"][-1]["held_out"]["value"],
            color=COLOURS[1],
            linestyle=":",
            label="held-out training, all",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("principal directions of the training targets")
    axes.set_ylabel("variance outside of them")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


# ------------------------------------------------------------------------------------------------------------- schema


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


Share = Annotated[Number, Field(ge=0, le=1)]
FromTo = Annotated[list[Count], Field(min_length=2, max_length=2)]
Positive = Annotated[Number, Field(gt=0)]


class _Rank(_Content):
    participation: Positive
    entropy: Positive


class _Ratio(_Content):
    ratio: Positive
    ci95: Bounds | None
    stimuli: Count


class _Level(_Content):
    variance: Annotated[Number, Field(gt=0, le=1)]
    dimensions: FromTo
    without_direction: Share
    truth: Result | None
    predictions: Result | None


class _HeldOutLevel(_Content):
    variance: Annotated[Number, Field(gt=0, le=1)]
    truth: Result | None
    held_out: Result | None
    difference: Difference | None


class _HeldOut(_Content):
    spanning: FromTo
    stimuli: FromTo
    levels: Annotated[list[_HeldOutLevel], Field(min_length=1, max_length=10)]


class _Curves(_Content):
    dimensions: Annotated[list[Count], Field(min_length=1, max_length=_MOST_POINTS)]
    training: list[Share]
    truth: list[Share]
    predictions: list[Share]

    @model_validator(mode="after")
    def _of_the_same_dimensions(self) -> "_Curves":
        if {len(each) for each in (self.training, self.truth, self.predictions)} != {len(self.dimensions)}:
            raise ValueError("a share for each number of dimensions in every curve")
        return self


class _Ranks(_Content):
    predictions: _Rank | None
    truth: _Rank | None
    training: _Rank | None
    permuted_training: _Rank | None = None
    ridge: _Rank | None = None


class SpanContent(_Content):
    """What the part has found."""

    what: Literal["image_embeds", "latents", "reconstructions"]
    values: Count
    pictures: FromTo
    training: FromTo
    spanning: FromTo
    dimensions: FromTo
    ranks: _Ranks
    ratios: dict[Name, _Ratio | None]
    outside: Annotated[list[_Level], Field(min_length=1, max_length=10)]
    held_out: _HeldOut | None
    curves: _Curves


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
