"""Which regions of the brain the score comes from: each one silenced, and each one alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ... import progress
from ...errors import FmriModelsError
from ...names import one_line
from ..bootstrap import DRAWS, FEWEST_STIMULI, paired_difference
from ..bottleneck_curve import leading_metrics
from ..evaluated_subject import EvaluatedSubject
from ..kept_rows import joined, kept
from ..named_metrics import Metric, get_metric
from ..plots import COLOURS
from ..report_figures import results
from ..report_schema import Count, Difference, Line, Name, Number, Result
from ..report_schema import Metric as MetricName
from ..row_data import RowData
from ..scores import Scores
from ..silenced_regions import reference_response, voxels_read
from ..table import Table
from .figures import difference, error_bar, value, with_direction
from .part import AuditedItems, AuditPart, Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Each costs four drawings of all test items, with one random set; the smallest of more are one.
MOST_REGIONS = 8
# Sets of random voxels, beside each region. One tells of few voxels what two do: that nothing is missed; of many, sets
# are alike.
RANDOM_SETS = 1
NO_REGION, OTHER_REGIONS = "no region", "other regions"
_SILENCED, _KEPT = "silenced", "alone"
_RANDOM_SILENCED, _RANDOM_KEPT = "random_silenced", "random_alone"
_IN_WORDS = {
    _SILENCED: "without {}",
    _KEPT: "{} alone",
    _RANDOM_SILENCED: "without as many random voxels as {} has",
    _RANDOM_KEPT: "as many random voxels as {} has alone",
}
_BRAIN = "brain"


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True, eq=False)
class _Region:
    """What is drawn of a region of one subject on one fold.

    Args:
        voxels: How many voxels of it are read.
        rows: What is done to it, and for random voxels which set, ▶ the row.
    """

    voxels: int
    rows: dict[tuple[str, int], RowData]


@dataclass(frozen=True, eq=False)
class _SubjectRegions:
    """The regions of one subject on one fold.

    Args:
        subject: Name.
        items: Number of items.
        read: How many voxels are read.
        reference: What silenced voxels answer, in words.
        regions: Name ▶ region.
    """

    subject: str
    items: int
    read: int
    reference: str
    regions: dict[str, _Region]


def _measure(of: EvaluatedSubject) -> _SubjectRegions | str:
    processor = of.pipeline.processor
    statistics = processor.subject(of.subject)
    labels = np.array([label or "" for label in of.table.voxels(of.subject).roi], dtype=object)
    read = voxels_read(statistics, len(labels))
    regions = _regions(labels, read)
    if not any(name not in (NO_REGION, OTHER_REGIONS) for name in regions):
        return (
            f"the table says of no voxel of {of.subject} that the model reads in which region it is; prepare it with "
            "the column roi of VOXELS.csv."
        )
    if len(regions) == 1:
        return (
            f"all voxels of {of.subject} that the model reads are of one region ({next(iter(regions))}), and nothing "
            "is left without it."
        )
    doing, found = of.doing, {}
    rng = np.random.default_rng([of.drawn_by.seed, of.record.fold])
    try:
        for number, (name, voxels) in enumerate(regions.items(), start=1):
            rows = {}
            for way, silenced in _ways(voxels, read, rng):
                of.doing = f"Drawing {of.subject}, region {number} of {len(regions)}, {_IN_WORDS[way[0]].format(name)}"
                with progress.named(of.pipeline, of.doing, of.pipeline.image_generator):
                    rows[way] = _row(of, silenced)
            found[name] = _Region(int(voxels.sum()), rows)
    except FmriModelsError as error:
        return f"regions of {of.subject} can't be silenced: {error}"
    finally:
        of.doing = doing
    return _SubjectRegions(of.subject, len(of), int(read.sum()), reference_response(processor), found)


def _regions(labels: np.ndarray, read: np.ndarray) -> dict[str, np.ndarray]:
    """Region ▶ (recorded voxels,) bool, those of it that are read; voxels of none last, the smallest of many as one."""
    sizes = {name: int((read & (labels == name)).sum()) for name in dict.fromkeys(labels.tolist())}
    sizes = {name: count for name, count in sizes.items() if count}
    named = [name for name in sizes if name]
    most = MOST_REGIONS - (1 if "" in sizes else 0)
    if len(named) > most:
        largest = sorted(named, key=lambda name: -sizes[name])[: most - 1]
        named = [name for name in named if name in largest]
    found = {one_line(name, 80): read & (labels == name) for name in named}
    if rest := [name for name in sizes if name and name not in named]:
        found[OTHER_REGIONS] = read & np.isin(labels, rest)
    if "" in sizes:
        found[NO_REGION] = read & (labels == "")
    return found


def _ways(
    voxels: np.ndarray, read: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """What is done to a region, and to as many random voxels, ▶ (recorded voxels,) bool which are silenced."""
    yield (_SILENCED, 0), voxels
    yield (_KEPT, 0), read & ~voxels
    for number in range(RANDOM_SETS):
        chosen = np.zeros_like(voxels)
        chosen[rng.choice(np.flatnonzero(read), int(voxels.sum()), replace=False)] = True
        yield (_RANDOM_SILENCED, number), chosen
        yield (_RANDOM_KEPT, number), read & ~chosen


def _row(of: EvaluatedSubject, silenced: np.ndarray) -> RowData:
    return kept(of.row(of.decode(of.pipeline.brain_model, of.features_without(silenced))))


# ----------------------------------------------------------------------------------------------------------- summing up


def _content(of: AuditedItems) -> dict[str, Any]:
    if reason := next((each for each in of.measured if isinstance(each, str)), None):
        return {"not_defined": reason}
    measured: Sequence[_SubjectRegions] = of.measured
    names = list(dict.fromkeys(name for each in measured for name in each.regions))
    names.sort(key=lambda name: (name == NO_REGION, name == OTHER_REGIONS))
    with progress.phase("Scoring silenced regions"):
        regions = [_region_content(name, of, measured) for name in names]
    return {
        "reference": measured[0].reference,
        "random_sets": RANDOM_SETS,
        "voxels": _mean_by_subject([(each.subject, each.read) for each in measured]),
        "intact": results(replace(of.scores, values={_BRAIN: of.scores.values[_BRAIN]}, permuted={}), DRAWS, of.seed)[
            _BRAIN
        ],
        "regions": regions,
    }


def _region_content(name: str, of: AuditedItems, measured: Sequence[_SubjectRegions]) -> dict[str, Any]:
    has_it = np.concatenate([np.full(each.items, name in each.regions) for each in measured])
    positions = np.cumsum([0, *(each.items for each in measured)])
    brain = of.items.rows[_BRAIN]
    intact = [
        kept(RowData(_part(brain.images, start, stop), _part(brain.retrieval_embeds, start, stop)))
        for start, stop in pairwise(positions.tolist())
    ]
    ways = next(each.regions[name].rows for each in measured if name in each.regions)
    by_way: dict[str, list[dict[str, np.ndarray | None]]] = {}
    for way in ways:
        # Subjects without the region fill places, whose scores are taken out again: items are compared with those of
        # their own subject alone.
        rows = [
            each.regions[name].rows[way] if name in each.regions else own
            for each, own in zip(measured, intact, strict=True)
        ]
        scored = of.items.with_rows({way[0]: joined(rows)}).scores(
            of.protocol, of.seed, permutations=0, weights=of.weights
        )
        by_way.setdefault(way[0], []).append(scored.values[way[0]])
    values = {way: _mean_of_sets(each, has_it) for way, each in by_way.items()}
    values[_BRAIN] = _mean_of_sets([of.scores.values[_BRAIN]], has_it)
    scores = replace(of.scores, values=values, permuted={})
    found = results(scores, DRAWS, of.seed)
    return {
        "name": name,
        "voxels": _mean_by_subject(
            [(each.subject, each.regions[name].voxels) for each in measured if name in each.regions]
        ),
        **{way: found[way] for way in (_SILENCED, _KEPT, _RANDOM_SILENCED, _RANDOM_KEPT)},
        "loss": _differences(scores, _BRAIN, _SILENCED, of.seed),
        "loss_alone": _differences(scores, _BRAIN, _KEPT, of.seed),
        "more_than_random": _differences(scores, _RANDOM_SILENCED, _SILENCED, of.seed),
        "alone_more_than_random": _differences(scores, _KEPT, _RANDOM_KEPT, of.seed),
    }


def _part(values: torch.Tensor | None, start: int, stop: int) -> torch.Tensor | None:
    return None if values is None else values[start:stop]


def _mean_of_sets(sets: Sequence[Mapping[str, np.ndarray | None]], has_it: np.ndarray) -> dict[str, np.ndarray | None]:
    """Metric ▶ (N,) mean over random sets of each item's scores; NaN for an item of a subject without the region."""
    found: dict[str, np.ndarray | None] = {}
    for metric in sets[0]:
        values = [each[metric] for each in sets]
        known = [each for each in values if each is not None]
        found[metric] = np.where(has_it, np.mean(known, axis=0), np.nan) if len(known) == len(values) else None
    return found


def _mean_by_subject(counts: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Subject ▶ mean over folds, whose processors may read different voxels."""
    names = list(dict.fromkeys(subject for subject, _ in counts))
    return {name: float(np.mean([count for subject, count in counts if subject == name])) for name in names}


def _differences(scores: Scores, row: str, other: str, seed: int) -> dict[str, dict[str, Any] | None]:
    found: dict[str, dict[str, Any] | None] = {}
    for metric, values in scores.values[row].items():
        others, described = scores.values[other].get(metric), get_metric(metric)
        if values is None or others is None:
            found[metric] = None
            continue
        higher, bounds = described.higher_is_better, described.bounds
        found_difference = paired_difference(
            values, others, scores.units.tolist(), higher, DRAWS, seed, bounds, scores.widening
        )
        whole = {"ci95": None} if described.of_whole_set else {}
        found[metric] = None if found_difference is None else found_difference.to_dict() | whole
    return found


# -------------------------------------------------------------------------------------------------------------- schema

_Voxels = dict[Name, Annotated[Number, Field(ge=0)]]
_Results = dict[MetricName, Result | None]
_Differences = dict[MetricName, Difference | None]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="allow")


class RegionContent(_Checked):
    """One region, silenced and alone, beside as many random voxels."""

    name: Name
    voxels: Annotated[_Voxels, Field(min_length=1, max_length=10_000)]
    silenced: _Results
    alone: _Results
    random_silenced: _Results
    random_alone: _Results
    loss: _Differences
    loss_alone: _Differences
    more_than_random: _Differences
    alone_more_than_random: _Differences


class RegionsContent(_Checked):
    """All regions."""

    reference: Line
    random_sets: Count
    voxels: Annotated[_Voxels, Field(min_length=1, max_length=10_000)]
    intact: _Results
    regions: Annotated[list[RegionContent], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _of_known_subjects(self) -> "RegionsContent":
        if any(set(region.voxels) - set(self.voxels) for region in self.regions):
            raise ValueError("regions of subjects whose voxels are counted")
        return self


# -------------------------------------------------------------------------------------------------- tables, words, plot


def _leading(content: Content, most: int) -> list[Metric]:
    return leading_metrics({"results": {"full": content["intact"]}}, most)


def _share_of_voxels(content: Content, region: Mapping[str, Any]) -> float:
    subjects = region["voxels"]
    return float(sum(subjects.values()) / max(1e-12, sum(content["voxels"][name] for name in subjects)))


def _voxels(region: Mapping[str, Any]) -> str:
    counts = sorted(region["voxels"].values())
    return f"{counts[0]:g}" if counts[0] == counts[-1] else f"{counts[0]:g} to {counts[-1]:g}"


def _tables(content: Content) -> list[Table]:
    metrics = [get_metric(name) for name, found in content["intact"].items() if found is not None]
    leading = _leading(content, 1)
    others = [metric for metric in metrics if metric not in leading]
    tables = [_leading_table(content, metric) for metric in leading]
    return tables + ([_others_table(content, others)] if others else [])


def _leading_table(content: Content, metric: Metric) -> Table:
    lines = [
        [
            region["name"],
            _voxels(region),
            f"{_share_of_voxels(content, region):.0%}",
            *_cells(region, metric),
        ]
        for region in content["regions"]
    ]
    caption = f"The intact brain scores {value(content['intact'][metric.name])}. {_how(content)}"
    return Table(f"Regions: {with_direction(metric)}", caption, ["region", "voxels", "of those read", *_CELLS], lines)


def _others_table(content: Content, metrics: Sequence[Metric]) -> Table:
    lines = [
        [with_direction(metric), region["name"], *_cells(region, metric)]
        for metric in metrics
        for region in content["regions"]
    ]
    return Table("Regions: other metrics", "As above.", ["metric", "region", *_CELLS], lines)


_CELLS = ("lost when silenced", "more than random voxels", "alone", "alone, more than random voxels")


def _cells(region: Mapping[str, Any], metric: Metric) -> list[str]:
    return [
        difference(region["loss"].get(metric.name)),
        difference(region["more_than_random"].get(metric.name)),
        value(region["alone"].get(metric.name)),
        difference(region["alone_more_than_random"].get(metric.name)),
    ]


def _how(content: Content) -> str:
    sets = "one set" if content["random_sets"] == 1 else f"mean of {content['random_sets']} sets"
    return (
        "Lost when silenced: by how much the intact brain is better than one in which the region's voxels answer as "
        f"{content['reference']}, before the model reads them; everything else is the same, the noise of drawing, too. "
        "Alone: all other voxels are silenced. Larger regions matter more by their size alone, so that beside each "
        f"stand as many random ones of the voxels that are read ({sets}); more than random voxels: by how much "
        "silencing these leaves a better score, and by how much the region alone is better than these alone. "
        "Differences are paired, positive where the region matters; their intervals are over stimuli, and not over "
        "other random sets, and allow for no number of looks. Each voxel has the one label that the table gives it, so "
        "that regions do not "
        "overlap here even where those of an atlas do. A region that can be silenced without loss may hold the same as "
        "another one, and the model never saw silenced voxels in training: this is what the decoder uses and not what "
        "a region knows."
    )


def _notes(content: Content) -> list[str]:
    metric = next(iter(_leading(content, 1)), None)
    if metric is None:
        return []
    notes, name = [], metric.name
    regions = [region for region in content["regions"] if region["loss"].get(name)]
    stimuli = max((region["loss"][name].get("stimuli") or 0 for region in regions), default=0)
    if stimuli < FEWEST_STIMULI:
        return [f"Regions, {metric.label}: {stimuli} stimuli are too few to say which region the score comes from."]
    lost = sorted(
        (region for region in regions if _is_beyond_doubt(region["loss"][name])),
        key=lambda region: -region["loss"][name]["difference"],
    )
    if lost:
        named = ", ".join(
            f"{region['name']} ({difference(region['loss'][name])}, {_share_of_voxels(content, region):.0%} of the "
            "voxels)"
            for region in lost
        )
        looks = f"{len(regions)} looks, of which each is wrong in one case of forty by luck"
        notes.append(
            f"Regions, {metric.label}: the score falls beyond doubt when one of these is silenced ({looks}): {named}."
        )
    else:
        notes.append(
            f"Regions, {metric.label}: no region is missed beyond doubt when it alone is silenced ({stimuli} stimuli): "
            "regions may hold the same, or a loss is too small for so few stimuli to show."
        )
    special = [region["name"] for region in lost if _is_beyond_doubt(region["more_than_random"].get(name))]
    if lost:
        notes.append(
            f"Regions, {metric.label}: "
            + (
                f"{', '.join(special)} matter{'s' if len(special) == 1 else ''} more than as many random voxels."
                if special
                else "none of them matters beyond doubt more than as many random voxels, so that its number of voxels "
                "explains the loss."
            )
        )
    alone = [region["name"] for region in regions if _is_beyond_doubt(region["alone_more_than_random"].get(name))]
    if alone:
        notes.append(
            f"Regions, {metric.label}: {', '.join(alone)} alone give{'s' if len(alone) == 1 else ''} beyond doubt a "
            "better score than as many random voxels alone."
        )
    return [*notes, *_on_labels(content)]


def _on_labels(content: Content) -> list[str]:
    notes = []
    unlabelled = next((region for region in content["regions"] if region["name"] == NO_REGION), None)
    if unlabelled is not None:
        notes.append(
            f"Regions: {_share_of_voxels(content, unlabelled):.0%} of the voxels that are read have no label; they are "
            f"{NO_REGION!r} here."
        )
    some = [region["name"] for region in content["regions"] if set(region["voxels"]) != set(content["voxels"])]
    if some:
        notes.append(
            f"Regions: not all subjects have {', '.join(some)}; figures there are of those that have, and are compared "
            "with their intact brains."
        )
    return notes


def _is_beyond_doubt(found: Mapping[str, Any] | None) -> bool:
    return found is not None and found.get("ci95") is not None and bool(found["ci95"][0] > 0)


def _plot(content: Content, axes: "Axes") -> None:
    metric = next(iter(_leading(content, 1)), None)
    if metric is None:
        return
    regions = [region for region in content["regions"] if region["loss"].get(metric.name)]
    for place, region in enumerate(reversed(regions)):
        loss = region["loss"][metric.name]
        below, above = error_bar({"value": loss["difference"], "ci95": loss.get("ci95")})
        errors = [[below], [above]]
        label = "region silenced" if place == 0 else None
        axes.barh(
            place,
            loss["difference"],
            xerr=errors,
            height=0.6,
            color=COLOURS[0],
            capsize=3,
            ecolor=COLOURS[4],
            label=label,
        )
        random, intact = region["random_silenced"].get(metric.name), region["more_than_random"].get(metric.name)
        if random is not None and intact is not None:
            # The same items as of the region: what is lost by random voxels is what is lost less what is lost more.
            lost = loss["difference"] - intact["difference"]
            label = "as many random voxels" if place == 0 else None
            axes.plot([lost, lost], [place - 0.4, place + 0.4], color=COLOURS[1], linewidth=3, label=label)
    axes.axvline(0, color=COLOURS[4], linewidth=0.8)
    names = [f"{region['name']} ({_voxels(region)})" for region in reversed(regions)]
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"{metric.label}: lost when silenced")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=2)


REGIONS = AuditPart(
    name="regions",
    label="Regions",
    question="Which regions of the brain does the score come from, silenced one at a time and each alone?",
    measure=_measure,
    content=_content,
    tables=_tables,
    notes=_notes,
    schema=RegionsContent,
    plot=_plot,
)
