"""Whether the numbers on a card are those of the report and the records beside it, by reading the card."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from huggingface_hub import parse_eval_result_entries

from ..errors import FmriModelsError
from ..evaluation.report import REPORT_FILE, Report
from ..evaluation.report_tables import chances
from ..names import markdown
from ..reading import parse_yaml, read_text
from ..swapping import EVAL_RESULTS_FILE
from ..training_record import TrainingRecord
from .owner_statements import card_header_of
from .saved_pipeline import SavedPipeline

_CARD_FILE = "README.md"
_CELL = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"[\s|:-]+")
_CURVE = ["stage", "step", "training loss", "validation loss"]
_PENALTIES = ["subject", "target", "ridge penalty"]
_VOXELS = ["subject", "voxels recorded", "voxels that the model reads"]

Table = list[list[str]]


def card_differences(pipeline_dir: str | os.PathLike) -> list[str]:
    """What a card says otherwise than the report, the training record and the configurations beside it.

    Every number in the card's tables and header is compared, as is the file for leaderboards.

    Args:
        pipeline_dir: Folder of a saved pipeline with a card.

    Returns:
        A sentence for each difference; empty where there is none.

    Raises:
        FmriModelsError: The folder is no pipeline, has no card of this package, or its report can't be read.
    """
    folder = Path(pipeline_dir)
    pipeline = SavedPipeline.read(folder)
    if not (folder / _CARD_FILE).is_file():
        raise FmriModelsError(f"{folder} has no {_CARD_FILE}; write it with `fmri-models card`.")
    report = Report.load(folder / REPORT_FILE) if (folder / REPORT_FILE).is_file() else None
    header, text = card_header_of(folder / _CARD_FILE), read_text(folder / _CARD_FILE, "model card", "write it again")
    found = [*_in_header(header, report), *_in_leaderboards(folder, report)]
    for table in tables(text):
        found += _in_table(table, pipeline, report)
    if report is not None:
        found += _absent_scores(list(tables(text)), report)
    return found


def tables(text: str) -> Iterator[Table]:
    """The tables of a text in Markdown: lines of cells, the header first."""
    table: Table = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            if not _RULE.fullmatch(line):
                table.append([cell.strip() for cell in _CELL.split(line)[1:-1]])
        elif table:
            yield table
            table = []


def _in_header(header: Mapping[str, Any], report: Report | None) -> Iterator[str]:
    measured = _brain(report)
    stated = {
        metric.get("type"): metric
        for entry in header.get("model-index") or []
        for result in entry.get("results") or []
        for metric in result.get("metrics") or []
    }
    yield from _named_differences("header", {name: each.get("value") for name, each in stated.items()}, measured)
    for name, each in stated.items():
        interval = (each.get("args") or {}).get("ci95")
        own = None if report is None else (report.results.get("brain", {}).get(name) or {}).get("ci95")
        if name in measured and interval != own:
            yield f"The header has the interval {interval} for {name}, the report has {own}."


def _in_leaderboards(folder: Path, report: Report | None) -> Iterator[str]:
    path = folder / EVAL_RESULTS_FILE
    entries = (
        parse_yaml(read_text(path, "file of results", "write the card again"), str(path)) if path.is_file() else []
    )
    stated = {entry.task_id: entry.value for entry in parse_eval_result_entries(entries)}
    yield from _named_differences(EVAL_RESULTS_FILE, stated, _brain(report))


def _named_differences(where: str, stated: Mapping[Any, Any], measured: Mapping[str, float]) -> Iterator[str]:
    for name in {**stated, **measured}:
        if stated.get(name) != measured.get(name):
            yield f"{where}: {name} is {stated.get(name)}, the report has {measured.get(name)}."


def _in_table(table: Table, pipeline: SavedPipeline, report: Report | None) -> Iterator[str]:
    """Differences in a table, by what its header says that it is; one that nothing stands behind is one, too."""
    header, *lines = table
    if header[:2] == ["metric", "chance"] and report is not None:
        yield from _in_scores(header[2:], lines, report)
        return
    if header == _CURVE and pipeline.record is not None:
        known = _points(pipeline.record)
        yield from (f"The training record has no point {' | '.join(line)}." for line in lines if line not in known)
        return
    if header not in (_PENALTIES, _VOXELS):
        yield f"Nothing beside the card stands behind its table {' | '.join(header)}."
        return
    expected = _penalties(pipeline) if header == _PENALTIES else _voxels(pipeline)
    for line, own in zip_longest(lines, expected, fillvalue=["nothing"]):
        if line != own:
            yield f"The table {' | '.join(header)} has {' | '.join(line)}, expected {' | '.join(own)}."


def _penalties(pipeline: SavedPipeline) -> Table:
    return [
        [markdown(subject), markdown(target), f"{penalty:g}"]
        for subject, parts in (getattr(pipeline.config, "penalties", None) or {}).items()
        for target, penalty in parts.items()
    ]


def _in_scores(labels: Sequence[str], lines: Table, report: Report) -> Iterator[str]:
    rows = {markdown(report.row(row)["label"]): row for row in report.results}
    metrics = {
        f"{markdown(each.label)} {'↑' if each.higher_is_better else '↓'}": each.name for each in report.metrics()
    }
    by_chance = chances(report)
    for label, chance, *cells in lines:
        name = metrics.get(label)
        if name is None or len(cells) != len(labels):
            yield f"The report has no metric {label}."
            continue
        expected = f"{by_chance[name]:.3f}" if name in by_chance else "–"
        if chance != expected:
            yield f"The chance of {label} is {chance}, the report has {expected}."
        for row_label, cell in zip(labels, cells, strict=True):
            own = _cell(report.results[rows[row_label]].get(name)) if row_label in rows else "no such row"
            if cell != own:
                yield f"{row_label} has {cell} in {label}, the report has {own}."


def _absent_scores(found: Sequence[Table], report: Report) -> Iterator[str]:
    scores = [table for table in found if table[0][:2] == ["metric", "chance"]]
    shown = {label for table in scores for label in table[0][2:]}
    for row in report.results:
        if markdown(report.row(row)["label"]) not in shown:
            yield f"The card leaves out the row {row} of the report."
    for table in scores:
        if len(table) - 1 != len(report.metrics()):
            yield f"A table of the card has {len(table) - 1} metrics, the report has {len(report.metrics())}."


def _cell(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("value") is None:
        return "–"
    interval = found.get("ci95")
    return f"{found['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _voxels(pipeline: SavedPipeline) -> list[list[str]]:
    processor = pipeline.processor
    recorded = [
        str(processor.subject(name).num_voxels) if processor.is_fitted else "not fitted"
        for name in processor.subject_names
    ]
    read = map(str, pipeline.config.num_voxels)
    return [[markdown(name), *each] for name, *each in zip(processor.subject_names, recorded, read, strict=False)]


def _points(record: TrainingRecord) -> list[list[str]]:
    return [
        [
            markdown(point["stage"]),
            str(point["step"]),
            *("–" if loss is None else f"{loss:.4g}" for loss in (point["train_loss"], point["validation_loss"])),
        ]
        for point in record.curve
    ]


def _brain(report: Report | None) -> dict[str, float]:
    """Metric ▶ what the row `brain` has in it."""
    brain = {} if report is None else report.results.get("brain", {})
    return {name: found["value"] for name, found in brain.items() if found and found.get("value") is not None}
