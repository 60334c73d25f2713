"""Figures of an audit in tables and sentences: values, differences, and which metric is named first."""

from collections.abc import Iterable, Mapping
from typing import Any

from ...names import listed
from ..named_metrics import Metric, get_metric

Figures = Mapping[str, Mapping[str, Any] | None]
"""Metric ▶ what [`report_figures`] makes of it."""


def measured(figures: Figures) -> list[Metric]:
    """Metrics that have a figure for each item, in the order of reports."""
    found = [get_metric(name) for name, figure in figures.items() if figure is not None]
    return [metric for metric in found if not metric.of_whole_set]


def first_metric(figures: Figures) -> Metric | None:
    """What plots and sentences speak of: the first metric that does not reward blur, else the first one."""
    metrics = measured(figures)
    return next((metric for metric in metrics if not metric.rewards_blur), metrics[0] if metrics else None)


def value(figure: Mapping[str, Any] | None) -> str:
    """A value with its interval; a dash where there is none."""
    if figure is None:
        return "–"
    bounds = "" if figure.get("ci95") is None else " [{:.3f}, {:.3f}]".format(*figure["ci95"])
    return f"{figure['value']:.3f}{bounds}"


def difference(figure: Mapping[str, Any] | None) -> str:
    """A difference with its interval; a dash where there is none."""
    if figure is None:
        return "–"
    bounds = "" if figure.get("ci95") is None else " [{:+z.3f}, {:+z.3f}]".format(*figure["ci95"])
    return f"{figure['difference']:+z.3f}{bounds}"


def with_direction(metric: Metric) -> str:
    """A metric in a table."""
    return f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"


def labels(metrics: Iterable[Metric]) -> str:
    """Metrics in a sentence."""
    return listed([metric.label for metric in metrics], 12)


def by_verdict(differences: Figures) -> tuple[list[Metric], list[Metric], list[Metric]]:
    """Metrics in which a difference is beyond doubt above 0, beyond doubt below it, and neither."""
    above, below, open_ = [], [], []
    for metric in measured(differences):
        bounds = (differences[metric.name] or {}).get("ci95")
        if bounds is not None and bounds[0] > 0:
            above.append(metric)
        elif bounds is not None and bounds[1] < 0:
            below.append(metric)
        else:
            open_.append(metric)
    return above, below, open_


def error_bar(figure: Mapping[str, Any]) -> tuple[float, float]:
    """How far an interval reaches below and above its value; nothing where there is none."""
    if figure.get("ci95") is None:
        return 0.0, 0.0
    low, high = figure["ci95"]
    return max(0.0, figure["value"] - low), max(0.0, high - figure["value"])
