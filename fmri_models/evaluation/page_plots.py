"""The plots of report.html that are no audit's: how scores are distributed over stimuli, and how training went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ..names import one_line
from .bootstrap import FEWEST_STIMULI, stimulus_means
from .leading_rows import controls, deciding_metrics, is_ridge_the_brain
from .named_metrics import Metric
from .plots import COLOURS, plotted
from .report import Report
from .scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_METRICS = 6
# Dots of a row; of more stimuli, evenly spaced quantiles are shown.
_MOST_DOTS = 60
# Scores with fewer different values are told by their mean.
_FEWEST_VALUES = 6
_MOST_STAGES = 6
_LONGEST_LABEL = 30
# Losses that fall farther than this are drawn on a scale of decades.
_LARGE_FALL = 30
_WIDTH, _ROW, _AROUND = 3.9, 0.26, 0.8


@dataclass(frozen=True)
class PageFigure:
    """A plot of a page.

    Args:
        title: Above it.
        svg: The plot.
    """

    title: str
    svg: Markup


# ------------------------------------------------------------------------------------------------------ distributions


def distribution_figures(report: Report, scores: Scores) -> list[PageFigure]:
    """Each stimulus' score of the brain row, ridge, all controls and the ceiling, a plot a metric.

    Of the metrics that decide first, then pixels; those with a few different values have no plot.

    Args:
        report: Of the scores.
        scores: Of all items.
    """
    deciding = deciding_metrics(report)
    others = [metric for metric in report.metrics() if metric not in deciding and not metric.of_whole_set]
    figures: list[PageFigure] = []
    for metric in [*deciding, *others]:
        content = _distribution(report, scores, metric)
        if content is None or len(figures) == _MOST_METRICS:
            continue
        size = (_WIDTH, _AROUND + _ROW * len(content["rows"]))
        svg = plotted(draw_distribution, content, size, _told_distribution(content))
        if svg is not None:
            figures.append(PageFigure(metric.label, svg))
    return figures


def _distribution(report: Report, scores: Scores, metric: Metric) -> dict[str, Any] | None:
    leading = ["brain", *([] if is_ridge_the_brain(report) else ["ridge"]), *controls(report), "ceiling"]
    rows: list[dict[str, Any]] = []
    for row in leading:
        values = scores.values.get(row, {}).get(metric.name)
        if values is None or not np.isfinite(values).any():
            continue
        means = np.sort(stimulus_means(values, scores.units))
        kind = row if row in ("ridge", "ceiling") else report.row(row)["kind"]
        rows.append(
            {
                "label": one_line(report.row(row)["label"], _LONGEST_LABEL),
                "kind": kind,
                "mean": float(means.mean()),
                "median": float(np.median(means)),
                "dots": _quantiles(means),
                "stimuli": len(means),
            }
        )
    brain = next((row for row in rows if row["kind"] == "brain"), None)
    if brain is None or brain["stimuli"] < FEWEST_STIMULI or len(set(brain["dots"])) < _FEWEST_VALUES:
        return None
    return {
        "metric": metric.label,
        "better": metric.higher_is_better,
        "chance": scores.chances.get(metric.name),
        "rows": rows,
    }


def _quantiles(values: np.ndarray) -> list[float]:
    if len(values) <= _MOST_DOTS:
        return values.tolist()
    return np.quantile(values, (np.arange(_MOST_DOTS) + 0.5) / _MOST_DOTS).tolist()


def draw_distribution(content: Mapping[str, Any], axes: "Axes") -> None:
    """A line of dots for each row, with its mean."""
    colours = dict(zip(("brain", "ridge", "control", "part", "ceiling"), COLOURS, strict=True))
    rows = content["rows"]
    for place, row in enumerate(rows):
        colour = colours.get(row["kind"], COLOURS[-1])
        dots = np.asarray(row["dots"])
        # Beside each other where they would cover each other, in an order that is the same each time.
        shift = 0.3 * np.sin(np.arange(len(dots)) * 2.4)
        axes.plot(dots, place + shift, "o", color=colour, markersize=3.4, markeredgewidth=0, alpha=0.55)
        axes.plot([row["mean"]] * 2, [place - 0.42, place + 0.42], color=colour, linewidth=2.5, solid_capstyle="butt")
    if content["chance"] is not None:
        axes.axvline(content["chance"], color=COLOURS[-1], linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("higher is better →" if content["better"] else "← lower is better")


def _told_distribution(content: Mapping[str, Any]) -> str:
    medians = ", ".join(f"{row['label']} {row['median']:.3f}" for row in content["rows"])
    return f"{content['metric']} of {content['rows'][0]['stimuli']} stimuli; medians: {medians}"


# ----------------------------------------------------------------------------------------------------------- training


def training_figures(report: Report) -> list[PageFigure]:
    """The losses of each stage over its steps, a line a fold, as the training record has them."""
    stages: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for fold, points in report.training_curve.items():
        for point in points:
            stages.setdefault(point["stage"], {}).setdefault(fold, []).append(point)
    figures = []
    for stage, folds in list(stages.items())[:_MOST_STAGES]:
        content = {"stage": stage, "folds": list(folds.values())}
        svg = plotted(draw_training, content, (_WIDTH, 2.4), _told_training(content))
        if svg is not None and any(_losses(points, which) for points in folds.values() for which in _LOSSES):
            figures.append(PageFigure(f"Stage {stage.replace('_', ' ')}", svg))
    return figures


_LOSSES = {"train_loss": "training", "validation_loss": "held out"}


def _losses(points: list[Mapping[str, Any]], which: str) -> list[tuple[int, float]]:
    return [(point["step"], point[which]) for point in points if point.get(which) is not None]


def draw_training(content: Mapping[str, Any], axes: "Axes") -> None:
    """Both losses of one stage."""
    seen: list[float] = []
    for number, points in enumerate(content["folds"]):
        for (which, label), colour in zip(_LOSSES.items(), COLOURS, strict=False):
            if found := _losses(points, which):
                steps, losses = zip(*found, strict=True)
                alpha = 1.0 if len(content["folds"]) == 1 else 0.6
                named = label if number == 0 else None
                axes.plot(steps, losses, ".-", color=colour, linewidth=1.8, markersize=4, alpha=alpha, label=named)
                seen += losses
    if seen and min(seen) > 0 and max(seen) > _LARGE_FALL * min(seen):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _told_training(content: Mapping[str, Any]) -> str:
    told = []
    for which, label in _LOSSES.items():
        if found := _losses(content["folds"][0], which):
            told.append(f"{label} from {found[0][1]:.3g} to {found[-1][1]:.3g}")
    return f"Loss of the stage {content['stage']} over its steps: {', '.join(told)}"
