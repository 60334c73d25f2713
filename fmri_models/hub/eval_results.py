"""A report's figures as the Hub's leaderboards read them: a file of YAML in the folder `.eval_results`."""

import re

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from ..evaluation.report import Report
from ..evaluation.report_facts import WARNINGS_TITLE
from ..hub_repository import is_repository_id
from ..names import one_line

_MOST_OF_AN_ID = 96


def eval_results_text(report: Report) -> str:
    """The file's text: an entry for each metric of the row `brain`, unrounded."""
    return yaml.safe_dump(
        eval_result_entries_to_yaml(_entries(report)), sort_keys=False, allow_unicode=True, width=2**20
    )


def dataset_id(table: str) -> str:
    """A trial table's name as an id that the Hub takes: itself where it is one, else `-` for what an id can't have."""
    if is_repository_id(table):
        return table
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", table)
    return re.sub(r"([-.])[-.]+", r"\1", name)[:_MOST_OF_AN_ID].strip("-.") or "unnamed"


def _entries(report: Report) -> list[EvalResultEntry]:
    brain = report.results.get("brain", {})
    measured = {info: brain.get(info.name) for info in report.metrics()}
    return [
        EvalResultEntry(
            dataset_id=dataset_id(str(report.data.get("name"))),
            task_id=info.name,
            value=found["value"],
            notes=_notes(report, found),
        )
        for info, found in measured.items()
        if found is not None and found.get("value") is not None
    ]


def _notes(report: Report, found: dict) -> str:
    """What a figure of brain decoding has to be read with."""
    notes = ["simulated brain activity"] if report.data.get("simulated") else []
    notes += [WARNINGS_TITLE[0].lower() + WARNINGS_TITLE[1:]] if report.warnings else []
    notes += [f"protocol {one_line(report.protocol_title, 100)}", "row brain"]
    if interval := found.get("ci95"):
        notes.append(f"95 % interval {interval[0]:.4g} to {interval[1]:.4g}")
    return "; ".join([*notes, f"{found['n']} items"] if found.get("n") is not None else notes)
