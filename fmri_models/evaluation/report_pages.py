"""report.md and report.html: the same page in two formats."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..names import markdown, markdown_code, one_line
from .report import Report
from .report_facts import WARNINGS_TITLE, facts, how_to_read, in_labels, metrics_explained
from .report_tables import tables
from .table import Table

# Values with their intervals, in which nothing is markup.
_FIGURES = re.compile(r"[-+]?[0-9.]+( (± [0-9.]+|\[[-+]?[0-9.]+, [-+]?[0-9.]+\]))?|–")


def to_markdown(report: Report, has_grid: bool = True) -> str:
    """report.md.

    Args:
        report: The report.
        has_grid: Whether a grid.png lies beside it.
    """
    protocol = report.protocol
    title = markdown_code(protocol.get("name")) + (" (not as published)" if protocol.get("deviations") else "")
    lines = [f"# Report: protocol {title}", "", markdown(protocol.get("description", ""))]
    if report.warnings:
        lines += ["", f"**{WARNINGS_TITLE}:**", "", *(f"- {markdown(warning)}" for warning in report.warnings)]
    lines += ["", *(f"- {markdown(name)}: {markdown(value)}" for name, value in facts(report)), ""]
    lines += [markdown(how_to_read(report)), ""]
    lines += ["![Shown and reconstructed pictures](grid.png)", ""] if has_grid else []
    for table in tables(report):
        lines += [f"## {markdown(table.title)}", "", table.caption, "", *markdown_table(table), ""]
    if notes := _notes(report):
        lines += ["## Notes", "", *(f"- {markdown(note)}" for note in notes), ""]
    lines += ["## Metrics", ""]
    lines += [
        f"- **{markdown(label)}** ({markdown_code(name)}): {markdown(about)}"
        for label, name, about in metrics_explained(report)
    ]
    lines += ["", "## Rows", ""]
    lines += [
        f"- **{markdown(row.get('label'))}** ({markdown(row.get('kind'))}): {markdown(_about_row(row))}"
        for row in report.rows.values()
    ]
    return "\n".join([*lines, ""])


def _about_row(row: Mapping[str, Any]) -> str:
    made = " Made from the true test pictures." if row.get("uses_test_images") else ""
    return f"{row.get('description', '')}{made}"


def _notes(report: Report) -> list[str]:
    """The notes that stand nowhere else on the page, with the names that its tables have."""
    notes = [note for note in report.further_notes if note not in report.missing_rows.values()]
    return [in_labels(report, note) for note in notes]


def markdown_table(table: Table) -> list[str]:
    """Lines of a table in Markdown, without its title and caption."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    texts = [[_markdown_cell(cell) for cell in line] for line in (table.header, *table.lines)]
    return [f"| {' | '.join(cells)} |" for cells in (texts[0], rule, *texts[1:])]


def _markdown_cell(cell: str) -> str:
    return cell if _FIGURES.fullmatch(cell) else markdown(cell)


def to_html(report: Report, grid_png: bytes | None) -> str:
    """report.html: one file without any link to elsewhere; without a grid where there are no pictures."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_html_text,
    )
    return environment.get_template("report_page.html").render(
        report=report,
        facts=facts(report),
        tables=tables(report),
        notes=_notes(report),
        how_to_read=how_to_read(report),
        metrics=metrics_explained(report),
        rows=[(row, _about_row(row)) for row in report.rows.values()],
        warnings_title=WARNINGS_TITLE,
        grid=None if grid_png is None else Markup(base64.b64encode(grid_png).decode("ascii")),
    )


def _html_text(value: object) -> object:
    """Text without control characters; what is markup stays."""
    return value if isinstance(value, Markup) else one_line(value, most=10_000)
