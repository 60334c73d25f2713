"""`fmri-models compare`: reports side by side, with paired differences where they share stimuli."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FmriModelsError
from ..names import one_line
from ..progress import phase

if TYPE_CHECKING:
    from ..evaluation.report import Report
    from ..evaluation.report_comparison import ReportComparison
    from ..evaluation.table import Table

_EXAMPLE = """examples:
  fmri-models compare outputs/demo/report.json outputs/other/report.json
  fmri-models compare outputs/a outputs/b outputs/c --format latex > tables.tex
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="reports side by side",
        description="Prints the brain (and ridge) rows of several reports side by side. Where items.parquet lies "
        "beside the reports, each report is compared with the first on the stimuli that both have, with a 95 % "
        "interval and a p-value that is corrected for the number of comparisons (Holm).",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reports", nargs="+", metavar="REPORT.json", help="report.json, or the folder that has it")
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "csv", "latex"),
        default="text",
        help="text for the terminal (default), tables in Markdown or LaTeX, or one CSV file with a line a figure",
    )
    parser.add_argument(
        "--across-protocols", action="store_true", help="print reports of different protocols all the same, marked"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="print reports of different protocols, data or test splits all the same, marked",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    paths = [Path(path) for path in args.reports]
    _check_paths(paths)
    # Seconds the first time; no model is loaded here.
    with phase("Loading PyTorch", disable="torch" in sys.modules):
        from ..evaluation.report import Report

    reports = [(path, Report.load(path)) for path in paths]
    compared = _compared(reports, args.force, args.across_protocols)
    print(_printed(compared, args.format))
    return _result(compared, paths)


def _check_paths(paths: list[Path]) -> None:
    """Refuses what has nothing to be compared, before anything is loaded.

    Raises:
        FmriModelsError: There is one report only, one is missing, or the same one is given twice.
    """
    if len(paths) < 2:
        raise FmriModelsError("One report has nothing to be compared with; give at least two.")
    if missing := next((path for path in paths if not path.exists()), None):
        raise FmriModelsError(
            f"There is no report {one_line(missing)}; give a report.json or its folder, from `fmri-models evaluate`."
        )
    places = [os.path.realpath(path / "report.json" if path.is_dir() else path) for path in paths]
    if twice := next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None):
        raise FmriModelsError(f"{one_line(twice)} is given twice, and does not differ from itself; give each once.")


def compare(
    reports: list[tuple[Path, "Report"]], force: bool = False, across_protocols: bool = False, format: str = "text"
) -> str:
    """The text that the command prints.

    Args:
        reports: Where each was read, and the report.
        force: Print reports of different protocols, data or test splits all the same, marked.
        across_protocols: The same of different protocols alone.
        format: `"text"`, `"markdown"`, `"csv"` or `"latex"`.

    Raises:
        FmriModelsError: Fewer than two reports, or their protocols, data or test splits differ.
    """
    return _printed(_compared(reports, force, across_protocols), format)


def _compared(reports: list[tuple[Path, "Report"]], force: bool, across_protocols: bool) -> "ReportComparison":
    from ..evaluation.report_comparison import ReportComparison

    if len(reports) < 2:
        raise FmriModelsError("One report has nothing to be compared with; give at least two.")
    paths = [path for path, _ in reports]
    compared = ReportComparison(_names(paths), [str(path) for path in paths], [report for _, report in reports])
    refused = [each for each in compared.hindrances if not (across_protocols and each.kind == "protocol")]
    if refused and not force:
        option = "--across-protocols" if all(each.kind == "protocol" for each in refused) else "--force"
        raise FmriModelsError(
            f"{refused[0].sentence} Such figures are not comparable; pass {option} to see them all the same."
        )
    return compared


def _printed(compared: "ReportComparison", format: str) -> str:
    from ..evaluation.table_formats import check_format, to_csv, to_latex, to_markdown

    check_format(format)
    if format == "csv":
        return to_csv(*compared.values())
    marked = [f"Not comparable: {each.sentence}" for each in compared.hindrances]
    tables = [compared.scores_table(), *compared.difference_tables()]
    tables += filter(None, [compared.subjects_table(), compared.reports_table()])
    if format == "text":
        return _as_text(compared, marked, tables)
    warnings = [
        f"{name}: {warning}"
        for name, report in zip(compared.shown_names, compared.reports, strict=True)
        for warning in report.warnings
    ]
    paragraphs = [*marked, *warnings, *compared.sentences()]
    return to_latex(paragraphs, tables) if format == "latex" else to_markdown(paragraphs, tables)


def _as_text(compared: "ReportComparison", marked: list[str], tables: list["Table"]) -> str:
    from ..evaluation.report_terminal import warnings_text
    from ..terminal_text import terminal_width, text_table, wrapped

    scores, *others = tables
    warnings = [
        f"{name}\n{warnings_text(report)}"
        for name, report in zip(compared.shown_names, compared.reports, strict=True)
        if report.warnings
    ]
    paragraphs = [*marked, *warnings, text_table(scores.header, scores.lines), *compared.sentences()]
    for table in others:
        about = [one_line(table.title), *wrapped(one_line(table.caption, 1000), terminal_width())]
        paragraphs.append("\n".join([*about, text_table(table.header, table.lines)]))
    return "\n\n".join(paragraphs)


def _result(compared: "ReportComparison", paths: list[Path]) -> dict[str, Any]:
    """What [`compare`] prints, by name."""
    from ..evaluation.report_comparison import shown_rows

    return {
        "not_comparable": [each.sentence for each in compared.hindrances],
        "reports": [
            {
                "name": name,
                "path": path,
                "protocol": report.protocol_title,
                "warnings": report.warnings,
                "results": {row: report.results[row] for row in shown_rows(report)},
            }
            for name, path, report in zip(compared.names, paths, compared.reports, strict=True)
        ],
        "differences_from_first": {
            name: {metric: each.to_dict() for metric, each in found.items()}
            for name, found in compared.differences.items()
        },
    }


def _names(paths: list[Path]) -> list[str]:
    """The shortest ends of the folders' paths that tell the reports apart."""
    folders = [(path if path.is_dir() else path.parent).absolute() for path in paths]
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = [one_line("/".join(folder.parts[-depth:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [one_line(path) for path in paths]
