"""report.md and report.html: the same page in two formats."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..names import markdown, markdown_code, one_line
from .audit import audit_answers
from .leading_rows import controls
from .overall_verdict import verdict
from .page_plots import PageFigure, training_figures
from .picture_groups import PictureGroup
from .report import Report
from .report_facts import WARNINGS_TITLE, facts, how_to_read, in_labels, metrics_explained, protocol_fields
from .report_tables import tables
from .score_bars import HOW_TO_READ_BARS, leading_caption, leading_table, score_lines
from .table import Table

# Values with their intervals, in which nothing is markup.
_FIGURES = re.compile(r"(≈ )?[-+]?[0-9.]+( (± [0-9.]+|\[[-+]?[0-9.]+, [-+]?[0-9.]+\]))?|–")

# Around what a page has of single items.
_START, _END = Markup("<!-- of items -->"), Markup("<!-- end of items -->")


def to_markdown(report: Report, has_grid: bool = True) -> str:
    """report.md.

    Args:
        report: The report.
        has_grid: Whether a grid.png lies beside it.
    """
    protocol = report.protocol
    title = markdown_code(protocol.get("name")) + (" (not as published)" if protocol.get("deviations") else "")
    found = verdict(report)
    lines = [f"# Report: protocol {title}", ""]
    if report.warnings:
        lines += [f"**{WARNINGS_TITLE}:**", "", *(f"- {markdown(warning)}" for warning in report.warnings), ""]
    lines += [f"**{markdown(found.headline)}** {markdown(' '.join(found.sentences))}", ""]
    lines += [markdown(how_to_read(report)), ""]
    lines += ["![Shown and reconstructed pictures](grid.png)", ""] if has_grid else []
    for table in (leading_table(report), *tables(report)):
        answers = [f"- {markdown(in_labels(report, answer))}" for answer in table.answers]
        lines += [f"## {markdown(table.title)}", "", *answers, *([""] if answers else [])]
        lines += [table.caption, "", *markdown_table(table), ""]
    if notes := _notes(report):
        lines += ["## Notes", "", *(f"- {markdown(note)}" for note in notes), ""]
    lines += ["## What was measured", ""]
    lines += [f"- {markdown(name)}: {markdown(value)}" for name, value in facts(report)]
    lines += ["", "## Protocol", ""]
    lines += [f"- {markdown(name)}: {markdown(value)}" for name, value in protocol_fields(report)]
    lines += ["", "## Metrics", ""]
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
    elsewhere = {*report.missing_rows.values(), *audit_answers(report.audit)}
    notes = [note for note in report.further_notes if note not in elsewhere]
    return [in_labels(report, note) for note in notes]


def markdown_table(table: Table) -> list[str]:
    """Lines of a table in Markdown, without its title and caption."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    texts = [[_markdown_cell(cell) for cell in line] for line in (table.header, *table.lines)]
    return [f"| {' | '.join(cells)} |" for cells in (texts[0], rule, *texts[1:])]


def _markdown_cell(cell: str) -> str:
    return cell if _FIGURES.fullmatch(cell) else markdown(cell)


def to_html(
    report: Report,
    groups: Sequence[PictureGroup] = (),
    distributions: Sequence[PageFigure] = (),
    kept: Markup | None = None,
) -> str:
    """report.html: one file without any link to elsewhere.

    Args:
        report: The report.
        groups: Pictures of some stimuli; none where there are no pictures.
        distributions: Plots of item scores, which report.json does not have.
        kept: Both as an earlier page of the report has them ([`of_items`]), in their place.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_html_text,
    )
    environment.filters["columns_of_figures"] = _columns_of_figures
    lines = score_lines(report)
    return environment.get_template("report_page.html").render(
        report=report,
        verdict=verdict(report),
        warnings_title=WARNINGS_TITLE,
        how_to_read=how_to_read(report),
        lines=lines,
        has_controls=bool(controls(report)),
        leading_caption=f"{leading_caption(report)} {HOW_TO_READ_BARS}",
        sections=_sections(tables(report)),
        groups=groups,
        distributions=distributions,
        kept=kept,
        has_pictures=bool(groups) or '<h2 id="pictures">' in (kept or ""),
        has_distributions=bool(distributions) or '<h2 id="distributions">' in (kept or ""),
        start_of_items=_START,
        end_of_items=_END,
        training=training_figures(report),
        notes=_notes(report),
        in_labels=partial(in_labels, report),
        facts=facts(report),
        subtitle=_subtitle(report),
        protocol=protocol_fields(report),
        metrics=metrics_explained(report),
        rows=[(row, _about_row(row)) for row in report.rows.values()],
    )


def of_items(page: str) -> Markup:
    """What a page shows of single items: pictures and distributions, for a page that is made of report.json again."""
    start, end = page.find(_START), page.rfind(_END)
    return Markup(page[start : end + len(_END)] if 0 <= start < end else "")


def _subtitle(report: Report) -> str:
    """What was measured in a few words."""
    known = dict(facts(report))
    return " · ".join(known[name] for name in ("model", "files", "data", "test set") if known.get(name))


def _sections(tables: Iterable[Table]) -> list[tuple[str, list[Table]]]:
    """Tables with the heading of those that stand together; one that stands alone has none."""
    return [(section, list(found)) for section, found in groupby(tables, key=lambda table: table.section)]


def _columns_of_figures(table: Table) -> list[bool]:
    """Which columns have figures: they stand to the right and in one line, and text is broken where it has to be."""
    return [all(_FIGURES.fullmatch(line[place]) for line in table.lines) for place in range(len(table.header))]


def _html_text(value: object) -> object:
    """Text without control characters; what is markup stays."""
    return value if isinstance(value, Markup) else one_line(value, most=10_000)
