"""The header of a model card: what the Hub shows and counts, and the licence that the owner of the weights states."""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from ..errors import FmriModelsError
from ..evaluation.report import Report
from ..evaluation.report_facts import WARNINGS_TITLE
from ..licenses import HUB_LICENSES, NOT_STATED, license_fields
from ..names import one_line
from ..reading import parse_yaml, read_text
from .saved_pipeline import SavedPipeline

LIBRARY = "fmri_models"
# Of the Hub's list of tasks none takes brain activity.
PIPELINE_TAG = "other"
TASK = "image reconstruction from fMRI"
_HEADER = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---[\r\n]", re.DOTALL)
_LICENSE_KEYS = ("license", "license_name", "license_link")
_HTML = {"<": "\\x3C", ">": "\\x3E", "&": "\\x26"}


def card_header(pipeline: SavedPipeline, report: Report | None, stated: dict[str, Any]) -> str:
    """The header in YAML. Not everybody who shows a card knows that it is none of the text.

    Args:
        pipeline: What the card is of.
        report: What was measured of it.
        stated: The licence, see [`stated_license`].
    """
    values = _card_data(pipeline, report, stated).to_dict()
    header = yaml.dump(values, Dumper=_HeaderDumper, sort_keys=False, allow_unicode=True, width=2**20)
    return "".join(_HTML.get(character, character) for character in header).strip()


def stated_license(path: Path) -> dict[str, Any]:
    """The license in the card that is there, which only the owner of the weights can have written."""
    if not path.is_file():
        return {}
    header = _HEADER.match(read_text(path, "model card", "move it away first"))
    try:
        stated = parse_yaml(_without_placeholder(header[1]), f"The header of {one_line(path)}") if header else None
    except FmriModelsError:
        stated = None
    if not isinstance(stated, dict) or stated.get("library_name") != LIBRARY:
        raise FmriModelsError(f"{one_line(path)} is no model card of {LIBRARY} and would be lost; move it away first.")
    found = {key: stated[key] for key in _LICENSE_KEYS if isinstance(stated.get(key), str) and stated[key]}
    return {} if found == NOT_STATED else found


def _without_placeholder(header: str) -> str:
    """A header in which somebody has stated a licence above what stands there as long as nobody has."""
    if len(re.findall(r"^license:", header, re.MULTILINE)) < 2:
        return header
    return re.sub(r"^license: other\n(license_name: not-stated\n)?", "", header, count=1, flags=re.MULTILINE)


def is_simulated(pipeline: SavedPipeline, report: Report | None) -> bool | None:
    """Whether the brain activity was simulated; None if neither the report nor the training record says so."""
    if report is not None:
        return report.data.get("simulated")
    return None if pipeline.record is None else pipeline.record.simulated


def _card_data(pipeline: SavedPipeline, report: Report | None, stated: dict[str, Any]) -> ModelCardData:
    tags = ["fmri", "brain-decoding", "image-reconstruction", pipeline.method.name]
    if is_simulated(pipeline, report):
        tags.append("simulated")
    results = [] if report is None else _eval_results(report)
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=PIPELINE_TAG,
        tags=tags,
        model_name=pipeline.name,
        eval_results=results or None,
        **_license_of_header(stated),
    )


def _eval_results(report: Report) -> list[EvalResult]:
    """The row `brain`, unrounded."""
    remarks = " (simulated)" if report.data.get("simulated") else ""
    # Whoever lists figures of many models reads the name of the data and no text of the card.
    remarks += f" ({WARNINGS_TITLE[0].lower()}{WARNINGS_TITLE[1:]})" if report.warnings else ""
    brain = report.results.get("brain", {})
    measured = {info: brain.get(info.name) for info in report.metrics()}
    return [
        EvalResult(
            task_type=PIPELINE_TAG,
            task_name=TASK,
            dataset_type=str(report.data.get("name")),
            dataset_name=f"{report.data.get('name')}{remarks}",
            dataset_config=report.data.get("split"),
            dataset_split="test",
            dataset_revision=report.data.get("fingerprint"),
            metric_type=info.name,
            metric_name=info.label,
            metric_value=found["value"],
            metric_args={"protocol": report.protocol.get("name"), "ci95": found.get("ci95"), "n": found.get("n")}
            | ({"warnings": report.warnings} if report.warnings else {}),
        )
        for info, found in measured.items()
        if found is not None and found.get("value") is not None
    ]


def _license_of_header(stated: dict[str, Any]) -> dict[str, Any]:
    """What the Hub takes: one of its own ids, or `other` with a name."""
    if not stated:
        return dict(NOT_STATED)
    if stated.get("license") in HUB_LICENSES:
        return stated
    return {**license_fields(stated.get("license", "")), **{key: stated[key] for key in stated if key != "license"}}


class _HeaderDumper(yaml.SafeDumper):
    """Writes text that may look like HTML in quotes, so that it can be escaped there."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        quoted = any(character in _HTML for character in text)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


_HeaderDumper.add_representer(str, _HeaderDumper.represent_text)
