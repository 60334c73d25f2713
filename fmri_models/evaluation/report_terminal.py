"""A report on the terminal: its scores, warnings and notes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..names import one_line
from ..terminal_text import terminal_width, text_table, wrapped
from .named_metrics import Metric
from .report import Report
from .report_facts import WARNINGS_TITLE, in_labels
from .report_tables import chance_cell, metric_cell, scores_table, value_cell


def results_table(report: Report, all_rows: bool = False, width: int | None = None) -> str:
    """The values of a report for a terminal, metrics down and rows across, with chance.

    Args:
        report: The report.
        all_rows: Every row, instead of the brain, ridge, the best control of each metric and the ceiling.
        width: As of [`text_table`].
    """
    if all_rows:
        scores = scores_table(report, with_interval=False)
        return text_table(scores.header, scores.lines, width)
    controls = [row for row in report.results if report.row(row)["kind"] == "control"]
    shown: list[str] = [row for row in ("brain", "ridge") if row in report.results]
    best = "best control" if len(controls) != 1 else report.row(controls[0])["label"]
    every: dict[str, list[str]] = {row: [row] for row in shown} | {best: controls, "ceiling": ["ceiling"]}
    columns = [(name, rows) for name, rows in every.items() if any(row in report.results for row in rows)]
    lines = [
        [
            metric_cell(metric),
            chance_cell(report, metric.name),
            *(value_cell(_best(report, rows, metric), with_interval=False) for _, rows in columns),
        ]
        for metric in report.metrics()
    ]
    table = text_table(["metric", "chance", *(name for name, _ in columns)], lines, width)
    left_out = [row for row in report.results if row not in (*shown, *controls, "ceiling")]
    notes = []
    if len(controls) > 1:
        names = ", ".join(report.row(row)["label"] for row in controls)
        notes.append(f"best control: in each metric the best of {names}")
    if left_out or len(controls) > 1:
        notes.append(f"all {len(report.results)} rows: --all-rows, report.md or report.html")
    width = terminal_width(width)
    return "\n".join([table, *(line for note in notes for line in wrapped(one_line(note, most=2000), width))])


def _best(report: Report, rows: Sequence[str], metric: Metric) -> Mapping[str, Any] | None:
    """The best of some rows' values in a metric; None where none has one."""
    found = [report.results.get(row, {}).get(metric.name) for row in rows]
    there = [each for each in found if each and each.get("value") is not None]
    return (max if metric.higher_is_better else min)(there, key=lambda each: each["value"]) if there else None


def warnings_text(report: Report) -> str:
    """The report's warnings for a terminal, a line each; empty without any."""
    return "\n".join(f"{WARNINGS_TITLE}: {one_line(warning, most=2000)}" for warning in report.warnings)


def notes_text(report: Report, width: int | None = None) -> str:
    """The notes that are no warnings for a terminal, with the names of rows and metrics that its tables have.

    Args:
        report: The report.
        width: As of [`text_table`].
    """
    width = terminal_width(width)
    lines = []
    for note in report.further_notes:
        lines += wrapped(one_line(in_labels(report, note), most=2000), width, "- ", "  ")
    return "\n".join(lines)
