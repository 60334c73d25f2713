"""The table that a page begins with: brain, ridge, the best control and the ceiling in each metric, with bars."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from .leading_rows import best_row, controls, is_ridge_the_brain, value_of
from .named_metrics import Metric
from .report import Report
from .report_tables import chance_cell, difference_cell, metric_cell, value_cell
from .table import Table

# Height of a bar; its width is a hundred.
_HEIGHT = 12
Certainty = Literal["better", "worse", "open"]
_BEST_CONTROL = "best control"
HOW_TO_READ_BARS = (
    "A longer bar is better in every metric, also where a lower value is; the thin line is the interval, the upright "
    "line is chance where that is known. Each metric has a scale of its own."
)
"""For pages that show them."""


@dataclass(frozen=True)
class ScoreCell:
    """A row's score in a metric.

    Args:
        column: Heading of its column.
        kind: Of the row, which gives the bar its colour.
        row: Label of the row, where the column has another one in each line; else empty.
        value: As text.
        interval: As text; empty where there is none.
        bar: SVG; the better the score, the longer; None where there is no score.
    """

    column: str
    kind: str
    row: str
    value: str
    interval: str
    bar: Markup | None


@dataclass(frozen=True)
class ScoreLine:
    """A metric with the scores of the leading rows.

    Args:
        metric: Label with its direction.
        about: A sentence about the metric.
        chance: As text.
        cells: Brain, ridge, the best control, the ceiling, as far as there are any.
        difference: Of brain and the best control, as text.
        interval: Of the difference.
        certainty: What that says: `"better"` or `"worse"` beyond doubt, or `"open"`.
    """

    metric: str
    about: str
    chance: str
    cells: list[ScoreCell]
    difference: str
    interval: str
    certainty: Certainty


def score_lines(report: Report) -> list[ScoreLine]:
    """The leading rows in every metric."""
    return [_line(report, metric) for metric in report.metrics()]


def leading_table(report: Report) -> Table:
    """The same as a table of text, for pages that have no bars."""
    lines = score_lines(report)
    columns = [cell.column for cell in lines[0].cells] if lines else []
    number = len(controls(report))
    header = ["metric", "chance", *columns, *(["brain − best control"] if number else [])]
    header += ["the best control is"] if number > 1 else []
    cells = [
        [
            line.metric.replace("\u00a0", " "),
            line.chance,
            *(f"{cell.value} {cell.interval}".strip() for cell in line.cells),
            *([f"{line.difference} {line.interval}".strip()] if number else []),
            *([next((cell.row for cell in line.cells if cell.row), "–")] if number > 1 else []),
        ]
        for line in lines
    ]
    return Table("Scores", leading_caption(report), header, cells)


def leading_caption(report: Report) -> str:
    """What the table of leading rows shows."""
    told = ["Means over stimuli with 95 % intervals; the arrow says which direction is better."]
    found = controls(report)
    if len(found) > 1:
        names = ", ".join(report.row(row)["label"] for row in found)
        told.append(f"The best control is in each metric the best of {names}.")
    return " ".join(told)


def _line(report: Report, metric: Metric) -> ScoreLine:
    best = best_row(report, controls(report), metric)
    rows = _columns(report, best)
    chance = next(
        (each.get("chance") for each in report.protocol.get("metrics", []) if each["name"] == metric.name), None
    )
    shown = [found for _, row in rows if (found := _found(report, row, metric))]
    scale = _scale(metric, shown, chance)
    difference = report.comparisons.get(best or "", {}).get(metric.name)
    value, interval = _parts(difference_cell(difference))
    return ScoreLine(
        # Its arrow stays with its last word.
        "\u00a0".join(metric_cell(metric).rsplit(" ", 1)),
        metric.description,
        chance_cell(report, metric.name),
        [_cell(report, column, row, metric, scale, chance) for column, row in rows],
        value,
        interval,
        _certainty(difference),
    )


def _certainty(difference: Mapping[str, Any] | None) -> Certainty:
    bounds = difference.get("ci95") if difference else None
    if not bounds or bounds[0] <= 0 <= bounds[1]:
        return "open"
    return "better" if bounds[0] > 0 else "worse"


def _columns(report: Report, best: str | None) -> list[tuple[str, str | None]]:
    """Heading and row of each column."""
    ridge = "ridge" in report.results and not is_ridge_the_brain(report)
    named = ["brain", *(["ridge"] if ridge else [])]
    columns: list[tuple[str, str | None]] = [(str(report.row(row)["label"]), row) for row in named]
    if controls(report):
        columns.append((_control_column(report), best))
    if "ceiling" in report.results:
        columns.append((str(report.row("ceiling")["label"]), "ceiling"))
    return columns


def _control_column(report: Report) -> str:
    found = controls(report)
    return _BEST_CONTROL if len(found) > 1 else str(report.row(found[0])["label"])


def _found(report: Report, row: str | None, metric: Metric) -> dict[str, Any] | None:
    return None if row is None or value_of(report, row, metric) is None else report.results[row][metric.name]


def _cell(
    report: Report,
    column: str,
    row: str | None,
    metric: Metric,
    scale: tuple[float, float],
    chance: float | None,
) -> ScoreCell:
    found = _found(report, row, metric)
    value, interval = _parts(value_cell(found))
    kind = "control" if row is None else report.row(row)["kind"]
    kind = row if row in ("ridge", "ceiling") else kind
    label = str(report.row(row)["label"]) if row is not None and column == _BEST_CONTROL else ""
    bar = None if found is None else score_bar(found["value"], found.get("ci95"), chance, scale)
    return ScoreCell(column, str(kind), label, value, interval, bar)


def _parts(cell: str) -> tuple[str, str]:
    value, _, interval = cell.partition(" ")
    return value, interval


def _scale(metric: Metric, results: Sequence[dict[str, Any]], chance: float | None) -> tuple[float, float]:
    """The value at which a bar has no length, and the one at which it is as long as can be."""
    seen = [each["value"] for each in results]
    seen += [bound for each in results for bound in each.get("ci95") or ()]
    seen += [] if chance is None else [chance]
    low, high = metric.bounds
    if metric.higher_is_better:
        worst, best = min([0.0, *seen]), high if math.isfinite(high) else max([0.0, *seen])
    else:
        # Nothing is farther from the best than the worst that is shown, and a little more, so that it has a bar, too.
        worst, best = 1.05 * max([0.0, *seen]), low if math.isfinite(low) else min([0.0, *seen])
    return (worst, best) if worst != best else (best - 1, best)


def score_bar(value: float, ci95: Sequence[float] | None, chance: float | None, scale: tuple[float, float]) -> Markup:
    """A bar as SVG that is as wide as its place; what it shows stands beside it in figures.

    Args:
        value: Of a row in a metric.
        ci95: Its interval.
        chance: A line across the bar; None for none.
        scale: Values at its left and right end.
    """
    parts = [_box("value", 0, _place(value, scale), 0, _HEIGHT)]
    if ci95:
        low, high = sorted(_place(bound, scale) for bound in ci95)
        parts.append(_box("interval", low, max(high, low + 0.8), _HEIGHT / 2 - 1.25, 2.5))
    if chance is not None:
        # As wide on a long bar as on a short one.
        line = Markup('<line class="chance" x1="{0}" x2="{0}" y1="0" y2="{1}" vector-effect="non-scaling-stroke"/>')
        parts.append(line.format(f"{_place(chance, scale):.2f}", _HEIGHT))
    opening = Markup('<svg class="bar" viewBox="0 0 100 {}" preserveAspectRatio="none" aria-hidden="true">')
    return opening.format(_HEIGHT) + Markup("").join(parts) + Markup("</svg>")


def _place(value: float, scale: tuple[float, float]) -> float:
    worst, best = scale
    return min(100.0, max(0.0, 100 * (value - worst) / (best - worst)))


def _box(name: str, left: float, right: float, top: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        name, f"{left:.2f}", f"{top:g}", f"{right - left:.2f}", f"{height:g}"
    )
