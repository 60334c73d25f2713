"""What a report says of the gap of two splits: sentences, a table and a plot."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..names import listed, one_line
from .named_metrics import get_metric
from .plots import COLOURS, plotted
from .rows import get_row
from .table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOLD = 3
# Splits that keep test pictures away from what is learned from.
_HARDER = ("tau", "cluster", "ood", "semantic")


def gap_notes(content: Mapping[str, Any]) -> list[str]:
    """What a reviewer would conclude, a sentence each."""
    if content.get("not_defined") is not None:
        return [f"Split gap: {content['not_defined']}"]
    brain = {name: each for name, each in content["rows"].get("brain", {}).items() if each.get("ci95")}
    telling = [name for name in brain if not get_metric(name).rewards_blur] or list(brain)
    here, there = _split_names(content)
    if not telling:
        return [f"Split gap: no metric is comparable with enough stimuli on both {here} and {there}."]
    shown = [
        f"{get_metric(name).label} {brain[name]['there']:.3f} and {brain[name]['here']:.3f}, "
        f"{_difference_cell(brain[name])}"
        for name in telling[:_TOLD]
    ]
    notes = [f"Split gap ({there} against {here}; positive means better on {there}): {'; '.join(shown)}."]
    notes += [*_verdict(content, telling), *_on_ceiling(content, telling)]
    notes += content["remarks"]
    if (text := _on_training(content)) is not None:
        notes.append(text)
    notes += _on_kinds(content)
    if content["stimuli"]["both"]:
        notes.append(
            f"{content['stimuli']['both']} of the tested pictures are in both tests, whose scores the interval does "
            "not take for independent."
        )
    notes.append(
        "The interval of the split gap is over test stimuli: drawing the splits or training the models again would add "
        "to it."
    )
    return notes


def _verdict(content: Mapping[str, Any], telling: Sequence[str]) -> Iterator[str]:
    """In which metrics one of both splits is better beyond doubt, and what that means."""
    found = content["rows"]["brain"]
    names = dict(zip(("here", "there"), _split_names(content), strict=True))
    ways = {place: content["how"][place].get("by") for place in names}
    better = {
        "there": [name for name in telling if found[name]["ci95"][0] > 0],
        "here": [name for name in telling if found[name]["ci95"][1] < 0],
    }
    of_all = f"{len(telling)} metrics" if len(telling) > 1 else "the one metric"
    if not any(better.values()):
        low, high = found[telling[0]]["ci95"]
        yield (
            f"The split gap is not beyond doubt in any of {of_all}; with so many stimuli, one of "
            f"{max(-low, high):.3f} in {get_metric(telling[0]).label} can't be excluded either."
        )
        return
    for place, worse in (("there", "here"), ("here", "there")):
        if not better[place]:
            continue
        labels = [get_metric(name).label for name in better[place]]
        text = (
            f"In {listed(labels, most=5)} ({len(labels)} of {of_all}), the method is better on {names[place]} than on "
            f"{names[worse]} beyond doubt"
        )
        if ways[worse] in _HARDER and ways[place] not in _HARDER:
            text += (
                f": what these scores have more on {names[place]} is not shown for pictures that are kept away from "
                "those it has learned from"
            )
        elif ways[place] in _HARDER and ways[worse] not in _HARDER:
            text += ": these scores do not come from test pictures that resemble training pictures"
        yield f"{text}."
    if len(telling) > 1:
        yield "Of so many intervals of the split gap, one in twenty would leave 0 out by luck alone."


def _on_ceiling(content: Mapping[str, Any], telling: Sequence[str]) -> list[str]:
    """What the ceiling says of the first metric that has one, of those beyond doubt if there are such."""
    ceiling, brain = content["rows"].get("ceiling", {}), content["rows"]["brain"]
    known = [name for name in telling if (ceiling.get(name) or {}).get("ci95")]
    if not known:
        return []
    doubted = {name: brain[name]["ci95"][0] <= 0 <= brain[name]["ci95"][1] for name in known}
    name = min(known, key=lambda each: doubted[each])
    low, high = ceiling[name]["ci95"]
    told = f"{_difference_cell(ceiling[name])} in {get_metric(name).label}"
    if low <= 0 <= high:
        return [f"The ceiling's gap is {told}: no sign that the pictures themselves are easier on one of the splits."]
    return [
        f"The ceiling, which is told the truth, has a gap as well ({told}): so much of the brain's may be that the "
        "pictures themselves are easier on one of the splits."
    ]


def _on_training(content: Mapping[str, Any]) -> str | None:
    here, there = (content["training_trials"].get(place) for place in ("here", "there"))
    if not here or not there or abs(here - there) <= 0.01 * max(here, there):
        return None
    return (
        f"{here} trials were learned from here and {there} there: part of the gap may be the amount of training "
        "(--by fewer draws a split with as many)."
    )


def _on_kinds(content: Mapping[str, Any]) -> list[str]:
    kinds = {
        "cluster": "alike, because they are of few clusters, so that identification among them is harder",
        "semantic": "alike, because they are of few categories, so that identification among them is harder",
        "ood": "unlike each other and all others, so that identification among them may be easier, and drawing them "
        "harder",
    }
    return [
        f"The test pictures of {one_line(content['split'][place], 60)} are {kinds[by]}, whatever was learned from."
        for place in ("here", "there")
        if (by := content["how"][place].get("by")) in kinds
    ]


def _split_names(content: Mapping[str, Any]) -> tuple[str, str]:
    here, there = (one_line(content["split"][place], 60) for place in ("here", "there"))
    return here, there if there != here else f"{there} (as it was drawn there)"


def _difference_cell(found: Mapping[str, Any]) -> str:
    bounds = "" if not found.get("ci95") else " [{:+z.3f}, {:+z.3f}]".format(*found["ci95"])
    return f"{found['difference']:+z.3f}{bounds}"


def gap_tables(content: Mapping[str, Any]) -> list[Table]:
    """The brain on both splits, the gap, and the gap of the other rows."""
    if not content or content.get("not_defined") is not None:
        return []
    here, there = _split_names(content)
    rows = content["rows"]
    others = [row for row in rows if row != "brain"]
    shared = any(each.get("on_shared") for each in rows.get("brain", {}).values())
    header = [
        "metric",
        f"brain on {there}",
        f"brain on {here}",
        "gap",
        *(f"gap of {get_row(row).label}" for row in others),
    ]
    header += ["gap on shared pictures"] if shared else []
    lines = []
    remarks: dict[str, list[str]] = {}
    for name, found in rows.get("brain", {}).items():
        metric = get_metric(name)
        label = f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"
        if found.get("not_comparable") is not None:
            remarks.setdefault(found["not_comparable"], []).append(metric.label)
            cells = ["–", "–", "not comparable"]
        else:
            label += f" (among {found['pool']})" if found.get("pool") else ""
            cells = [f"{found['there']:.3f}", f"{found['here']:.3f}", _difference_cell(found)]
        cells += [_cell_of(rows[row].get(name)) for row in others]
        cells += [_cell_of(found.get("on_shared"))] if shared else []
        lines.append([label, *cells])
    stimuli = content["stimuli"]
    caption = (
        f"The same method trained and tested on two splits of the table: {there} ({stimuli['there']} test pictures, "
        f"{_how_in_words(content['how']['there'])}) and {here} ({stimuli['here']}, "
        f"{_how_in_words(content['how']['here'])}). The gap is the difference, positive where {there} is better, with "
        "a 95 % interval over the pictures of both. That of the ceiling is how much easier the pictures themselves are."
    )
    caption += "".join(f" {', '.join(labels)}: {why}" for why, labels in remarks.items())
    return [Table(f"Split gap: {there} less {here}", caption, header, lines, plotted(_plot, content))]


def _cell_of(found: Mapping[str, Any] | None) -> str:
    return _difference_cell(found) if found and found.get("difference") is not None else "–"


def _how_in_words(how: Mapping[str, Any]) -> str:
    known = {key: how[key] for key in ("by", "embedder", "clusters", "neighbours", "tau") if key in how}
    if not known:
        return "drawn as nobody knows"
    text = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {one_line(value, 80)}"
        for key, value in known.items()
    ]
    return ", ".join(text)


def _plot(content: Mapping[str, Any], axes: "Axes") -> None:
    """The gap of brain and ceiling in each share of successes or correlation, with intervals."""
    brain = content["rows"].get("brain", {})
    names = [name for name, each in brain.items() if each.get("ci95") and get_metric(name).bounds != (-np.inf, np.inf)]
    names = names or [name for name, each in brain.items() if each.get("ci95")]
    for row, colour, shift in (("brain", COLOURS[0], 0.12), ("ceiling", COLOURS[4], -0.12)):
        found = [(place, content["rows"].get(row, {}).get(name)) for place, name in enumerate(reversed(names))]
        known = [(place, each) for place, each in found if each and each.get("ci95")]
        if known:
            middle = [each["difference"] for _, each in known]
            away = [
                [each["difference"] - each["ci95"][0] for _, each in known],
                [each["ci95"][1] - each["difference"] for _, each in known],
            ]
            heights = [place + shift for place, _ in known]
            axes.errorbar(middle, heights, xerr=away, fmt="o", color=colour, label=row)
    axes.axvline(0, color=COLOURS[4], linewidth=0.8)
    axes.set_yticks(range(len(names)), [get_metric(name).label for name in reversed(names)])
    _, there = _split_names(content)
    axes.set_xlabel(f"better on {there} by")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(bbox_to_anchor=(1, 1), loc="upper left")
