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
    from ..evaluation.bootstrap import Difference
    from ..evaluation.report import Report

_EXAMPLE = """example:
  fmri-models compare outputs/demo/report.json outputs/other/report.json
"""
# Fields that change values, so reports that differ in them cannot stand in one table.
_PROTOCOL_FIELDS = ("name", "resolution", "trial_average", "distractors", "pool_size", "blend")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="reports side by side",
        description="Prints the brain (and ridge) rows of several reports side by side. Where items.parquet lies "
        "beside the reports, each report is compared with the first on the stimuli that both have, with a 95 % "
        "interval.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reports", nargs="+", metavar="REPORT.json", help="report.json, or the folder that has it")
    parser.add_argument(
        "--force", action="store_true", help="print reports of different protocols or data all the same, marked"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    paths = [Path(path) for path in args.reports]
    _check_paths(paths)
    # Seconds the first time; no model is loaded here.
    with phase("Loading PyTorch", disable="torch" in sys.modules):
        from ..evaluation.report import Report

    reports = [(path, Report.load(path)) for path in paths]
    print(compare(reports, force=args.force))
    return _result(reports)


def _check_paths(paths: list[Path]) -> None:
    """Refuses what has nothing to be compared, before anything is loaded.

    Raises:
        FmriModelsError: There is one report only, or the same one twice.
    """
    if len(paths) < 2:
        raise FmriModelsError("One report has nothing to be compared with; give at least two.")
    places = [os.path.realpath(path / "report.json" if path.is_dir() else path) for path in paths]
    if twice := next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None):
        raise FmriModelsError(f"{one_line(twice)} is given twice, and does not differ from itself; give each once.")


def compare(reports: list[tuple[Path, "Report"]], force: bool = False) -> str:
    """The text that the command prints.

    Raises:
        FmriModelsError: Fewer than two reports, or (without `force`) their protocols or data differ.
    """
    from ..evaluation.report_tables import metric_cell, value_cell
    from ..evaluation.report_terminal import warnings_text
    from ..terminal_text import text_table

    if len(reports) < 2:
        raise FmriModelsError("One report has nothing to be compared with; give at least two.")
    differences = _differences(reports)
    if differences and not force:
        raise FmriModelsError(
            f"{differences[0]} Such figures are not comparable; pass --force to see them all the same."
        )
    names = [
        f"{name} (!)" if report.warnings else name
        for name, (_, report) in zip(_names([path for path, _ in reports]), reports, strict=True)
    ]
    warnings = [
        f"{name}\n{warnings_text(report)}" for name, (_, report) in zip(names, reports, strict=True) if report.warnings
    ]
    columns = [
        (name, row, report) for name, (_, report) in zip(names, reports, strict=True) for row in _shown_rows(report)
    ]
    metrics = list({metric.name: metric for _, report in reports for metric in report.metrics()}.values())
    lines = [
        [
            metric_cell(metric),
            _chance(metric.name, [report for _, report in reports]),
            *(value_cell(report.results.get(row, {}).get(metric.name)) for _, row, report in columns),
        ]
        for metric in metrics
    ]
    header = ["metric", "chance", *(name if row == "brain" else f"{name} ({row})" for name, row, _ in columns)]
    paragraphs = [*(f"Not comparable: {sentence}" for sentence in differences), *warnings, text_table(header, lines)]
    if not differences:
        paragraphs += _paired(reports, names, [metric.name for metric in metrics])
    return "\n\n".join(paragraphs)


def _result(reports: list[tuple[Path, "Report"]]) -> dict[str, Any]:
    """What [`compare`] prints, by name."""
    differences = _differences(reports)
    metrics = list({metric.name: metric for _, report in reports for metric in report.metrics()})
    names = _names([path for path, _ in reports])
    return {
        "not_comparable": differences,
        "reports": [
            {
                "name": name,
                "path": path,
                "warnings": report.warnings,
                "results": {row: report.results[row] for row in _shown_rows(report)},
            }
            for name, (path, report) in zip(names, reports, strict=True)
        ],
        "differences_from_first": {} if differences else _paired_values(reports, names, metrics),
    }


def _differences(reports: list[tuple[Path, "Report"]]) -> list[str]:
    (first_path, first), *others = reports
    sentences = []
    for path, report in others:
        for field in _PROTOCOL_FIELDS:
            one, other = first.protocol.get(field), report.protocol.get(field)
            if one != other:
                sentences.append(
                    f"{one_line(first_path)} has the protocol's {field} {one!r} and {one_line(path)} has {other!r}."
                )
        one, other = first.data.get("fingerprint"), report.data.get("fingerprint")
        if one != other:
            sentences.append(
                f"{one_line(first_path)} and {one_line(path)} were measured on different data (fingerprints "
                f"{one_line(one)}, {one_line(other)})."
            )
    return sentences


def _paired(reports: list[tuple[Path, "Report"]], names: list[str], metrics: list[str]) -> list[str]:
    """A table for each later report: its advantage over the first on the items that both have."""
    from ..evaluation.bootstrap import FEWEST_STIMULI
    from ..evaluation.items_file import brain_items_of
    from ..evaluation.named_metrics import get_metric
    from ..terminal_text import text_table

    tables = [_means(brain_items_of(report)) for _, report in reports]
    paragraphs = [
        f"{name} was written by an earlier version, which did not name its items: that items.parquet beside it is its "
        "own can't be verified."
        for name, (_, report), table in zip(names, reports, tables, strict=True)
        if table is not None and report.items_sha256 is None
    ]
    for name, table in zip(names[1:], tables[1:], strict=True):
        if tables[0] is None or table is None:
            paragraphs.append(
                f"{name} and {names[0]}: no paired difference, because items.parquet is missing beside one."
            )
    for name, found in _paired_values(reports, names, metrics).items():
        lines = [
            [
                get_metric(metric).label,
                f"{each['difference']:+.3f}",
                "–" if each["ci95"] is None else "[{:+.3f}, {:+.3f}]".format(*each["ci95"]),
                str(each["n"]),
            ]
            for metric, each in found.items()
        ]
        title = f"{name} against {names[0]} on the same stimuli (positive: {name} is better)"
        if lines:
            paragraphs.append(f"{title}\n{text_table(['metric', 'difference', '95 % interval', 'n'], lines)}")
            if any(each["stimuli"] < FEWEST_STIMULI for each in found.values()):
                paragraphs.append(
                    f"Differences on fewer than {FEWEST_STIMULI} stimuli have no interval, and none of them is beyond "
                    "doubt."
                )
        else:
            paragraphs.append(f"{name} and {names[0]} have no stimuli in common.")
    return paragraphs


def _paired_values(
    reports: list[tuple[Path, "Report"]], names: list[str], metrics: list[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Name ▶ metric ▶ advantage of a later report over the first, where both have their items."""
    from ..evaluation.items_file import brain_items_of

    tables = [_means(brain_items_of(report)) for _, report in reports]
    same = {name: group[0] for _, report in reports for group in report.same_pictures for name in group}
    values = {}
    for name, table, (_, report) in zip(names[1:], tables[1:], reports[1:], strict=True):
        if tables[0] is None or table is None:
            continue
        merged = any(len(each.data.get("folds") or []) > 1 for each in (reports[0][1], report))
        found = {
            metric: _difference(table.get(metric, {}), tables[0].get(metric, {}), metric, merged, same)
            for metric in metrics
        }
        values[name] = {metric: each.to_dict() for metric, each in found.items() if each is not None}
    return values


def _means(
    items: dict[str, dict[tuple[str, str], list[float]]] | None,
) -> dict[str, dict[tuple[str, str], float]] | None:
    """By metric, subject and stimulus the mean over seeds and trials; None where there are no items."""
    if items is None:
        return None
    return {
        metric: {key: sum(values) / len(values) for key, values in scores.items()} for metric, scores in items.items()
    }


def _difference(
    items: dict[tuple[str, str], float],
    first: dict[tuple[str, str], float],
    metric: str,
    merged: bool,
    same: dict[str, str],
) -> "Difference | None":
    import numpy as np

    from ..evaluation.bootstrap import WIDENING_OF_FOLDS, paired_difference
    from ..evaluation.named_metrics import get_metric

    shared = sorted(items.keys() & first.keys())
    if not shared:
        return None
    values, others = (np.array([side[key] for key in shared]) for side in (items, first))
    return paired_difference(
        values,
        others,
        [same.get(key[1], key[1]) for key in shared],
        get_metric(metric).higher_is_better,
        bounds=get_metric(metric).bounds,
        widening=WIDENING_OF_FOLDS if merged else 1.0,
    )


def _chance(metric: str, reports: list["Report"]) -> str:
    """What guessing scores in a metric; several numbers where the reports' test sets differ in size."""
    from ..evaluation.report_tables import chance_cell

    return ", ".join(dict.fromkeys(cell for report in reports if (cell := chance_cell(report, metric)) != "–")) or "–"


def _shown_rows(report: "Report") -> list[str]:
    return [row for row in ("brain", "ridge") if row in report.results]


def _names(paths: list[Path]) -> list[str]:
    """The shortest ends of the folders' paths that tell the reports apart."""
    folders = [(path if path.is_dir() else path.parent).absolute() for path in paths]
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = [one_line("/".join(folder.parts[-depth:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [one_line(path) for path in paths]
