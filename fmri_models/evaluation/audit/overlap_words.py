"""What a report says of how near test pictures are to the training: tables, sentences, a plot."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..named_metrics import Metric as NamedMetric
from ..named_metrics import get_metric
from ..rank_correlation import smallest_seen
from ..rows import get_row
from ..stimulus_vectors import in_words
from ..table import Table
from .figures import difference, error_bar, first_metric, labels, measured, value, with_direction
from .overlap_schema import LESS, ROWS, SEVERAL
from .part import Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_ALPHA = 0.05


def _nearest_table(of: Content) -> Table:
    nearest = of["nearest"]
    columns = {
        "test picture, to the nearest training picture": nearest["test"],
        f"test picture, to the nearest {SEVERAL}, mean": nearest["test_of_several"],
        "test picture, to the nearest of the rest": nearest["test_to_rest"],
        "held-out training picture, to the nearest of the rest": nearest["held_out_to_rest"],
    }
    lines = [[name, *(f"{number:.3f}" for number in found)] for name, found in columns.items() if found is not None]
    caption = (
        "Distance is one minus the cosine of two pictures' vectors less the mean of the training pictures: 0 for equal "
        "pictures, about 1 for pictures that have no more in common than any two. The rest are the training pictures "
        f"of which {_span(nearest['held_out'])} were held out, as a control: pictures of the training's own kind that "
        "are no part of what they are compared with."
    )
    return Table("Overlap: how near test pictures are", caption, ["", "least", "25 %", "median", "75 %", "most"], lines)


def _span(numbers: Sequence[int]) -> str:
    least, most = numbers
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _closest_table(of: Content) -> Table:
    lines = [[pair["stimulus"], pair["training"], f"{pair['distance']:.3f}"] for pair in of["closest"]]
    return Table(
        "Overlap: the closest pairs",
        "Test pictures and the training pictures nearest to them. Look at them: what is nearly the same picture was "
        "learned by heart.",
        ["test picture", "training picture", "distance"],
        lines,
    )


def _distance_table(of: Content) -> Table:
    """The brain row's scores by distance, and how they go with it, a metric a line."""
    bins = _bin_names(of)
    sides = {"brain": "brain", "ceiling": "ceiling", "brain_less_ceiling": "brain less ceiling"}
    sides = {side: label for side, label in sides.items() if side in of["relation"]}
    lines = []
    for name, found in of["scores"].get("brain", {}).items():
        related = {side: of["relation"][side].get(name) for side in sides}
        holm_p = "–" if related.get("brain") is None else f"{related['brain']['p_holm']:.3f}"
        cells = [*map(value, found), *map(_rho, related.values())]
        lines.append([with_direction(get_metric(name)), *cells, holm_p])
    spans = "; ".join(
        f"{name}: {each['stimuli']} stimuli at {each['from']:.3f} to {each['to']:.3f}"
        for name, each in zip(bins, of["bins"], strict=True)
    )
    parted = (
        f"Scores of the brain row by the distance of a test picture to the nearest training picture ({spans}; parted "
        "inside each subject and fold). Each picture is told from all test pictures, as in the table of scores; "
        "nothing is extrapolated beyond the farthest ones. "
        if bins
        else ""
    )
    caption = (
        f"{parted}r is Spearman's rank correlation of distance and score over stimuli, inside each subject and fold; "
        "negative means that the farther a picture is from the training, the worse it scores, whichever direction the "
        "metric has. p is of stimuli that exchange their distances, two-sided, with Holm's correction for all metrics. "
        "A generator may draw typical pictures better whatever it is told: that is the ceiling's, and the brain row "
        "less the ceiling, picture by picture, is without it."
    )
    header = ["metric", *bins, *(f"r, {label}" for label in sides.values()), "p of the brain's"]
    return Table("Overlap: score against distance", caption, header, lines)


def _rho(related: Mapping[str, Any] | None) -> str:
    if related is None:
        return "–"
    bounds = "" if related["ci95"] is None else " [{:+z.2f}, {:+z.2f}]".format(*related["ci95"])
    return f"{related['rho']:+z.2f}{bounds}"


def _far_table(of: Content) -> list[Table]:
    """What the farthest test pictures score beside controls."""
    others = [row for row in LESS if row in of["scores"]]
    if not of["bins"] or not others:
        return []
    lines = []
    for name, own in of["scores"].get("brain", {}).items():
        cells = [value(own[-1])]
        for row in others:
            found, less = of["scores"][row].get(name), of["less"].get(row, {}).get(name)
            cells += [value(found[-1] if found else None), difference(less[-1] if less else None)]
        lines.append([with_direction(get_metric(name)), *cells])
    header = ["metric", "brain"]
    for row in others:
        header += [get_row(row).label, f"brain better than {get_row(row).label}"]
    caption = (
        f"The {_bin_names(of)[-1]} of the test pictures, which memory helps least, and paired differences on them; "
        "positive means that the brain row is better. report.json has the other ones."
    )
    return [Table(f"Overlap: the {_bin_names(of)[-1]}", caption, header, lines)]


def _bin_names(of: Content) -> list[str]:
    names = ["nearer half", "farther half"] if len(of["bins"]) == 2 else ["nearest third", "middle", "farthest third"]
    return names[: len(of["bins"])]


def tables(of: Content) -> list[Table]:
    """Of a report's page; the first one has the plot."""
    return [_distance_table(of), *_far_table(of), _nearest_table(of), _closest_table(of)]


def notes(of: Content) -> list[str]:
    """What a reviewer would conclude."""
    return [
        f"Overlap: {in_words(of['space'], 'test and training pictures')}",
        _on_nearness(of),
        *_on_relation(of),
        *_on_the_farthest(of),
    ]


def _on_nearness(of: Content) -> str:
    nearest = of["nearest"]
    least, most = of["training"]
    what = (
        f"Overlap: the nearest of {_span([least, most])} training pictures is at a median distance of "
        f"{nearest['test'][2]:.3f} from a test picture"
    )
    if of["without_picture"]:
        what += f" ({of['without_picture']} more have no picture in the table and could not be compared)"
    farther = nearest["farther"]
    if farther is None or nearest["held_out_to_rest"] is None or nearest["test_to_rest"] is None:
        return (
            f"{what}. There are too few training pictures to say how near others of their kind would be (25 at least)."
        )
    what += (
        f". When {_span(nearest['held_out'])} training pictures are held out, a test picture is at "
        f"{nearest['test_to_rest'][2]:.3f} from the rest and a held-out one at {nearest['held_out_to_rest'][2]:.3f}; "
        f"the test picture is the farther one with a probability of {value(farther)} (.5 for pictures of the same kind)"
    )
    bounds = farther.get("ci95")
    if bounds is not None and bounds[0] > 0.5:
        return (
            f"{what}. Test pictures lie farther from the training pictures than others of these do, so that the "
            "scores are, in part, of pictures of another kind."
        )
    if bounds is not None and bounds[1] < 0.5:
        return (
            f"{what}. Test pictures lie nearer to training pictures than others of these do: look for copies, and for "
            "scenes that were shown in both."
        )
    return (
        f"{what}. As far as that tells, test pictures are of the same kind as the training pictures: the scores say "
        "how well new pictures of known kinds are read, and nothing about other kinds."
    )


def _significant(related: Mapping[str, Any] | None, sign: int) -> bool:
    return related is not None and related["p_holm"] < _ALPHA and related["rho"] * sign > 0


def _on_relation(of: Content) -> list[str]:
    relation = of["relation"]
    of_brain = relation.get("brain", {})
    metrics = measured(of_brain)
    if not metrics:
        return ["Overlap: the score can't be set against the distance (fewer than five stimuli, or all alike)."]
    count = max(related["n"] for related in of_brain.values() if related is not None)
    worse = [metric for metric in metrics if _significant(of_brain[metric.name], -1)]
    better = [metric for metric in metrics if _significant(of_brain[metric.name], 1)]
    found = []
    if worse:
        found.append(
            f"Overlap: the farther a test picture is from the training, the worse it is read in {_with_rho(of, worse)}."
            f"{_on_confound(of, worse)}"
        )
    if better:
        found.append(f"Overlap: pictures that are farther from the training score better in {_with_rho(of, better)}.")
    if not found:
        found.append(
            f"Overlap: no metric of the brain row goes with the distance to the training beyond doubt. Of {count} "
            f"stimuli, correlations below some {smallest_seen(count):.2f} are missed more often than one time in five "
            "(and oftener with a correction for several metrics), so that this is no proof that there is none."
        )
    return found


def _with_rho(of: Content, metrics: Sequence[NamedMetric]) -> str:
    named = [
        f"{metric.label} (rank correlation {of['relation']['brain'][metric.name]['rho']:+z.2f})" for metric in metrics
    ]
    return " and ".join(named) if len(named) < 3 else f"{', '.join(named[:-1])} and {named[-1]}"


def limit(of: Content) -> str:
    """That pictures far from the training are read worse, or not seen to be read at all."""
    lead, far = _of_the_farthest(of)
    if lead is not None and lead.chance is not None and not (far.get("ci95") and far["ci95"][0] > lead.chance):
        return f"nothing shows that pictures far from the training are read at all ({lead.label}; Overlap)"
    less = of["relation"].get("brain_less_ceiling", {})
    worse = [
        metric
        for metric in measured(of["relation"].get("brain", {}))
        if _significant(of["relation"]["brain"][metric.name], -1) and _significant(less.get(metric.name), -1)
    ]
    return f"pictures far from the training are read worse ({labels(worse)}; Overlap)" if worse else ""


def _on_confound(of: Content, worse: Sequence[NamedMetric]) -> str:
    """Whether typical pictures are easier for the generator, too."""
    ceiling, less = of["relation"].get("ceiling", {}), of["relation"].get("brain_less_ceiling", {})
    known = [metric for metric in worse if less.get(metric.name) is not None]
    if not known:
        return (
            " There is no ceiling beside it, so that nothing tells whether the generator draws typical pictures better "
            "whatever it is told."
        )
    alike = [metric for metric in known if _significant(ceiling.get(metric.name), -1)]
    kept = [metric for metric in known if _significant(less[metric.name], -1)]
    rest = [metric for metric in known if metric not in kept]
    parts = []
    if alike:
        parts.append(f" So is the ceiling in {labels(alike)}: typical pictures are easier for the generator itself.")
    if kept:
        parts.append(
            f" It falls behind the ceiling there ({labels(kept)}): what is decoded gets worse away from the training, "
            "as it does where a decoder recalls training pictures, and that is not the generator's."
        )
    if rest:
        parts.append(
            f" In {labels(rest)} the difference of brain and ceiling does not go with the distance beyond doubt, so "
            "that the generator's own ease with typical pictures may be all there is."
        )
    return "".join(parts)


def _on_the_farthest(of: Content) -> list[str]:
    if not of["bins"]:
        return [
            "Overlap: there are too few test stimuli, or too many at one distance, for scores of near and far ones "
            "(ten at least)."
        ]
    lead, far = _of_the_farthest(of)
    if lead is None:
        return []
    sentence = (
        f"Overlap: in the {_bin_names(of)[-1]} ({of['bins'][-1]['stimuli']} stimuli) the brain row has {value(far)} in "
        f"{lead.label}"
    )
    chance = lead.chance
    if chance is not None:
        above = far.get("ci95") is not None and far["ci95"][0] > chance
        sentence += (
            f" (chance {chance:g}), so that the score is not of pictures near to the training alone"
            if above
            else f" (chance {chance:g}), so that by this metric nothing shows that pictures far from the training are "
            "read at all"
        )
    memory = (of["less"].get("nearest_train", {}).get(lead.name) or [None])[-1]
    if memory is not None:
        verdict = (
            "more than the nearest training picture does"
            if _is_above(memory)
            else ("no more than the nearest training picture does, as far as these stimuli tell")
        )
        sentence += f"; it says {verdict} ({difference(memory)})"
    return [f"{sentence}."]


def _of_the_farthest(of: Content) -> tuple[NamedMetric | None, Mapping[str, Any]]:
    """The first metric that the farthest test pictures have, and the brain row's value there."""
    scores = of["scores"].get("brain", {})
    lead = first_metric({name: {} for name, found in scores.items() if found and found[-1]})
    return lead, {} if lead is None else scores[lead.name][-1]


def _is_above(found: Mapping[str, Any]) -> bool:
    return found.get("ci95") is not None and found["ci95"][0] > 0


def plot(of: Content, axes: "Axes") -> None:
    """Scores of bins over their distance, with each stimulus behind them."""
    from ..plots import COLOURS

    points = of["points"]
    if points is None:
        axes.set_axis_off()
        return
    metric = get_metric(points["metric"])
    axes.scatter(points["distances"], points["scores"], s=8, color=COLOURS[4], alpha=0.45, linewidths=0)
    middles = [each["mean"] for each in of["bins"]]
    for row, colour in zip(ROWS, (COLOURS[0], COLOURS[2], COLOURS[4]), strict=True):
        shown = [
            (middle, found)
            for middle, found in zip(middles, of["scores"].get(row, {}).get(metric.name) or [], strict=False)
            if found is not None
        ]
        if shown:
            bars = np.array([error_bar(found) for _, found in shown]).T
            heights = [found["value"] for _, found in shown]
            label = get_row(row).label
            axes.errorbar(
                [middle for middle, _ in shown], heights, bars, color=colour, marker="o", capsize=3, label=label
            )
    if metric.chance is not None:
        axes.axhline(metric.chance, color=COLOURS[4], linestyle=":", linewidth=1, label="chance")
    axes.set_xlabel("distance to the nearest training picture")
    axes.set_ylabel(with_direction(metric))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
