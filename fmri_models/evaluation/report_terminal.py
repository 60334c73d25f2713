"""A report on the terminal: its scores, warnings and notes."""

from ..names import one_line
from ..terminal_text import terminal_width, text_table, wrapped
from .leading_rows import best_row, controls
from .overall_verdict import verdict
from .report import Report
from .report_facts import WARNINGS_TITLE, in_labels
from .report_tables import chance_cell, guide_tables, metric_cell, scores_table, value_cell


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
    to_beat = controls(report)
    shown: list[str] = [row for row in ("brain", "ridge") if row in report.results]
    best = "best control" if len(to_beat) != 1 else report.row(to_beat[0])["label"]
    every: dict[str, list[str]] = {row: [row] for row in shown} | {best: to_beat, "ceiling": ["ceiling"]}
    columns = [(name, rows) for name, rows in every.items() if any(row in report.results for row in rows)]
    lines = [
        [
            metric_cell(metric),
            chance_cell(report, metric.name),
            *(
                value_cell(report.results.get(best_row(report, rows, metric) or "", {}).get(metric.name), False)
                for _, rows in columns
            ),
        ]
        for metric in report.metrics()
    ]
    table = text_table(["metric", "chance", *(name for name, _ in columns)], lines, width)
    left_out = [row for row in report.results if row not in (*shown, *to_beat, "ceiling")]
    notes = []
    if len(to_beat) > 1:
        names = ", ".join(report.row(row)["label"] for row in to_beat)
        notes.append(f"best control: in each metric the best of {names}")
    if left_out or len(to_beat) > 1:
        notes.append(f"all {len(report.results)} rows: --all-rows, report.md or report.html")
    width = terminal_width(width)
    return "\n".join([table, *(line for note in notes for line in wrapped(one_line(note, most=2000), width))])


def guides_text(report: Report, width: int | None = None) -> str:
    """Decoded layers one by one for a terminal; empty where none are decoded.

    Args:
        report: The report.
        width: As of [`text_table`].
    """
    return "\n\n".join(text_table(table.header, table.lines, width) for table in guide_tables(report))


def verdict_text(report: Report, width: int | None = None) -> str:
    """The verdict for a terminal, as pages begin with it.

    Args:
        report: The report.
        width: As of [`text_table`].
    """
    return "\n".join(wrapped(one_line(verdict(report).text, most=2000), terminal_width(width)))


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
