"""How much of the brain is used: decoders fitted anew to a few dimensions of the voxels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ... import progress
from ...encoders.reduced_rank import reduced_rank_map
from ...encoders.ridge import RidgeSolver
from ...errors import FmriModelsError
from ..bottleneck_curve import (
    CEILING,
    FLOOR,
    FULL,
    NOTHING,
    BottleneckContent,
    curve_content,
    curve_notes,
    is_below,
    leading_metrics,
    numbers_of_dimensions,
)
from ..evaluated_subject import EvaluatedSubject
from ..kept_rows import joined, kept
from ..named_metrics import Metric, get_metric
from ..plots import COLOURS
from ..row_data import RowData
from ..table import Table
from .figures import difference, error_bar, value, with_direction
from .part import AuditedItems, AuditPart, Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOT_LINEAR = (
    "decoders are fitted anew here where that takes no training by gradient, which is the linear method as it was "
    "fitted; `python scripts/bottleneck_curve.py` trains the recipe of any other for each number of dimensions."
)
_UNINFORMED = "decodes the mean of the training pictures for every stimulus"


@dataclass
class _SubjectRows:
    """Rows of one subject on one fold.

    Args:
        rows: Number of dimensions ▶ what a decoder of so many draws.
        rank: How many dimensions there are.
    """

    rows: dict[int, RowData]
    rank: int


def _measure(of: EvaluatedSubject) -> _SubjectRows | str:
    references = of.references
    if references is None or not references.ridge_is_evaluated:
        return _NOT_LINEAR
    trials = references.trials[of.subject]
    penalties = references.ridge.config.penalties[of.subject]
    try:
        found = reduced_rank_map(RidgeSolver(trials.fmri), trials, penalties)
    except FmriModelsError as error:
        return f"the voxels of {of.subject} have no dimensions that decode anything: {error}"
    dimensions = found(of.features_of_references.numpy()).float()
    decoders = [(NOTHING, references.uninformed(of.subject), torch.zeros(len(of), 1))]
    learned = found.training.float().numpy()
    for k in numbers_of_dimensions(found.rank):
        of_k = replace(trials, fmri=learned[:, :k])
        decoders.append((k, references.refitted(of.subject, of_k, k), dimensions[:, :k]))
    rows, doing = {}, of.doing
    for k, decoder, features in decoders:
        of.doing = f"Drawing {of.subject} from {k} dimension{'' if k == 1 else 's'} of its voxels"
        with progress.named(of.pipeline, of.doing, of.pipeline.image_generator):
            rows[k] = kept(of.row(of.decode(decoder, features), references.drawn_by))
    of.doing = doing
    return _SubjectRows(rows, found.rank)


def _content(of: AuditedItems) -> dict[str, Any]:
    if reason := next((each for each in of.measured if isinstance(each, str)), None):
        return {"not_defined": reason}
    measured: Sequence[_SubjectRows] = of.measured
    dimensions = [k for k in measured[0].rows if all(k in each.rows for each in measured)]
    values = {name: of.scores.values[row] for name, row in _GIVEN.items() if row in of.scores.values}
    with progress.phase("Scoring decoders of a few dimensions"):
        for k in dimensions:
            row = joined([each.rows[k] for each in measured])
            scored = of.items.with_rows({str(k): row}).scores(of.protocol, of.seed, permutations=0, weights=of.weights)
            values[str(k)] = scored.values[str(k)]
    return curve_content(
        replace(of.scores, values=values, permuted={}),
        dimensions,
        "linear",
        _UNINFORMED,
        min(each.rank for each in measured),
        "reduced_rank",
        of.seed,
    )


# A share of the full decoder's advantage that is more than the rest together.
_MOST = 0.5
_GIVEN = {FLOOR: "floor", FULL: "brain", CEILING: "ceiling"}


# ------------------------------------------------------------------------------------------------------------- tables


def _tables(content: Content) -> list[Table]:
    metrics = [get_metric(name) for name, found in content["results"][FULL].items() if found is not None]
    return [_summary(content, metrics), _every_number(content, metrics)]


def _summary(content: Content, metrics: Sequence[Metric]) -> Table:
    first = next((k for k in content["dimensions"] if k), None)
    lines = [
        [
            with_direction(metric),
            *(value(content["results"].get(key, {}).get(metric.name)) for key in (FLOOR, str(NOTHING), FULL, CEILING)),
            "–" if first is None else _share(content["shares"][str(first)].get(metric.name)),
            _smallest(content, metric.name),
        ]
        for metric in metrics
    ]
    caption = (
        f"How much of the brain the score needs. {_how(content)} Nothing of the brain: a decoder that "
        f"{content['nothing']}. Floor and ceiling are the rows of the report: the generator without any embedding, and "
        "with the true ones. The share is that of the full decoder's advantage over nothing of the brain; it is stated "
        "where that advantage is beyond doubt. Enough: the number of dimensions from which on no score is beyond doubt "
        "below the full decoder's (paired over stimuli, without correction for the number of looks), which is not the "
        "same as being equal."
    )
    one = "share, 1 dimension" if first == 1 else f"share, {first} dimensions"
    header = ["metric", "floor", "nothing of the brain", "full decoder", "ceiling", one, "enough"]
    return Table("Bottleneck", caption, header, lines)


def _how(content: Content) -> str:
    if content["map"] == "principal_components":
        which = "their principal components, chosen without the pictures,"
    else:
        which = "those that decode most (reduced-rank regression),"
    return (
        f"On training trials the voxels are mapped to k dimensions, {which} and the decoder (method: "
        f"{content['method']}) is fitted anew to these, for each k up to {content['dimensions'][-1]} of "
        f"{content['most_possible']} that there are."
    )


def _every_number(content: Content, metrics: Sequence[Metric]) -> Table:
    lines = [
        [
            metric.label,
            str(k),
            value(content["results"][str(k)].get(metric.name)),
            difference(content["below_full"][str(k)].get(metric.name)),
            _share(content["shares"].get(str(k), {}).get(metric.name)),
        ]
        for metric in metrics
        for k in content["dimensions"]
    ]
    caption = (
        "Each number of dimensions. Below full: by how much the full decoder is better on the same stimuli. Share: of "
        "the full decoder's advantage over nothing of the brain (0 dimensions), with the wider interval of Fieller's "
        "and a bootstrap."
    )
    return Table("Bottleneck by dimensions", caption, ["metric", "k", "score", "below full", "share"], lines)


def _share(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    return f"{found['value']:.2f}" + (" [{:.2f}, {:.2f}]".format(*found["ci95"]) if found.get("ci95") else "")


def _smallest(content: Content, metric: str) -> str:
    smallest, last = content["smallest"].get(metric), content["dimensions"][-1]
    if smallest is not None:
        return str(smallest)
    below = content["below_full"][str(last)].get(metric)
    return f"more than {last}" if below and below.get("ci95") and is_below(below) else "–"


def _limit(content: Content) -> str:
    """That a single dimension has most of what the decoder gained."""
    metric = next(iter(leading_metrics(content, most=1)), None)
    share = None if metric is None else content["shares"].get("1", {}).get(metric.name)
    if not share or not share.get("ci95") or share["ci95"][0] <= _MOST:
        return ""
    return f"one dimension of the voxels has {share['value']:.0%} of what the decoder gained (Bottleneck)"


# --------------------------------------------------------------------------------------------------------------- plot


def _plot(content: Content, axes: "Axes") -> None:
    leading = leading_metrics(content, most=1)
    if not leading:
        return
    name, keys = leading[0].name, [str(k) for k in content["dimensions"]]
    found = [(place, content["results"][key].get(name)) for place, key in enumerate(keys)]
    known = [(place, each) for place, each in found if each is not None]
    if not known:
        return
    places, values = [place for place, _ in known], [each["value"] for _, each in known]
    below, above = zip(*(error_bar(each) for _, each in known), strict=True)
    axes.errorbar(places, values, yerr=[below, above], color=COLOURS[0], marker="o", capsize=3, label="k dimensions")
    lines = ((FULL, "full decoder", COLOURS[1]), (CEILING, "ceiling", COLOURS[2]), (FLOOR, "floor", COLOURS[4]))
    for key, label, colour in lines:
        row = content["results"].get(key, {}).get(name)
        if row is not None:
            axes.axhline(row["value"], color=colour, linestyle="--" if key == FULL else ":", label=label)
    axes.set_xticks(range(len(keys)), ["none" if key == str(NOTHING) else key for key in keys])
    axes.set_xlabel("dimensions of the voxels that the decoder reads")
    axes.set_ylabel(leading[0].label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=2)


BOTTLENECK = AuditPart(
    name="bottleneck",
    label="Bottleneck",
    question="How many dimensions of the brain does the score need, and how much has a decoder that reads one?",
    measure=_measure,
    content=_content,
    tables=_tables,
    notes=curve_notes,
    schema=BottleneckContent,
    plot=_plot,
    limit=_limit,
)
