"""What the experiments share: cells, each trained and measured once, and tables of what they came to.

A cell is what is done at one level of each factor: one training, or several, and a report. Its results are kept in a
file of their own, so that a script that is started again goes on where it was interrupted, and one that measures more
adds to what there is. Several cells run at once in processes of their own.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_fewer
from fmri_models.data.table import TrialTable
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.process_threads import brief_waiting
from fmri_models.saving import write_text

Levels = Mapping[str, Any]
Measure = Callable[[Levels, Path], Mapping[str, float]]
RESULTS = Path(__file__).parent / "results"
METRICS = {
    "two_way_efficientnet_lite0": "two-way EfficientNet-Lite0",
    "factor_accuracy_colour": "colour right",
    "factor_accuracy_place": "place right",
}


def parser(description: str) -> argparse.ArgumentParser:
    """Options that all experiments have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--out", type=Path, required=True, help="folder of tables, models and the results of cells")
    made.add_argument("--seeds", type=int, default=3, help="from 0 (default: 3)")
    made.add_argument("--processes", type=int, default=1, help="cells at once, which share the cores (default: 1)")
    made.add_argument("--small", action="store_true", help="few trials and steps: whether it runs at all")
    return made


def measured(cells: Sequence[Levels], measure: Measure, out: Path, processes: int = 1) -> list[dict[str, Any]]:
    """The results of all cells, in their order; those that are there already are not measured again.

    Args:
        cells: Factor ▶ level, of each cell.
        measure: Cell and folder ▶ what was measured, a module's function. It writes into the folder what it likes.
        out: Where results are kept.
        processes: How many run at once.

    Returns:
        Levels, `seconds`, and what was measured, of each cell.
    """
    paths = [_kept(cell, measure, out) for cell in cells]
    jobs = [
        (dict(cell), measure, out, path, processes)
        for cell, path in zip(cells, paths, strict=True)
        if not path.is_file()
    ]
    # They begin after this and read it, as `fmri-models` does where it begins.
    os.environ.update(brief_waiting())
    # A process each, so that its largest memory is the cell's own.
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        pool.map(_measure, jobs, chunksize=1)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _kept(levels: Levels, measure: Measure, out: Path) -> Path:
    """Where the results of a cell are kept."""
    name = "-".join(str(level) for level in levels.values())
    content = json.dumps([measure.__name__, dict(levels)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return out / "cells" / f"{measure.__name__}-{name}-{digest}.json"


def _measure(job: tuple[dict[str, Any], Measure, Path, Path, int]) -> None:
    levels, measure, out, path, processes = job
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    started = time.perf_counter()
    found = dict(measure(levels, out))
    result = {**levels, "seconds": round(time.perf_counter() - started, 1), **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result))
    print(json.dumps(result), flush=True)


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fewer_trials(data: Path, num_trials: int, seed: int) -> str:
    """Name of a split of a table with so many training trials a subject, which is made where it isn't there."""
    name = f"fewer{num_trials}"
    table = TrialTable.open(data)
    if name not in table.split_names():
        drawn = split_fewer(SplitTrials.of_table(table), table.split_rows(), num_trials, seed)
        add_split(table, name, drawn)
    return name


def brain_scores(model: Path, data: Path, out: Path, seed: int, subject: str | None = None) -> dict[str, float]:
    """What a pipeline's reconstructions of the test trials score: the row `brain` of a report without controls."""
    report = evaluate(model, data, out, rows=[], overwrite=True, seed=seed)
    brain = report.results["brain"] if subject is None else report.per_subject[subject]["brain"]
    return {name: brain[name]["value"] for name in METRICS if brain.get(name)}


def mean_and_spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds."""
    text = f"{statistics.fmean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def markdown_table(
    results: Sequence[Mapping[str, Any]], rows: str, columns: str, metric: str, title: str, digits: int = 3
) -> str:
    """One metric by two factors, mean and standard deviation over all else."""
    of_rows = list(dict.fromkeys(result[rows] for result in results))
    of_columns = list(dict.fromkeys(result[columns] for result in results))
    lines = [f"| {title} | {' | '.join(map(str, of_columns))} |", "|---" * (1 + len(of_columns)) + "|"]
    for row in of_rows:
        cells = []
        for column in of_columns:
            values = [
                result[metric]
                for result in results
                if (result[rows], result[columns]) == (row, column) and metric in result
            ]
            cells.append(mean_and_spread(values, digits) if values else "")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_results(
    name: str, about: Mapping[str, Any], results: Sequence[Mapping[str, Any]], tables: Sequence[str]
) -> None:
    """`results/<name>.json` and `.md`, beside the script, which the documentation quotes."""
    versions = {package: version(package) for package in ("torch", "transformers", "diffusers", "peft")}
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    content = {**about, "versions": versions, "machine": machine, "cells": list(results)}
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_text(RESULTS / f"{name}.md", "\n\n".join(tables) + "\n")
