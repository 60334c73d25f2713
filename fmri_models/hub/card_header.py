"""The header of a model card: what the Hub shows and counts, and what the owner of the weights has stated."""

from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from ..evaluation.report import Report
from ..evaluation.report_facts import WARNINGS_TITLE
from ..hub_repository import is_repository_id
from .eval_results import dataset_id
from .owner_statements import LIBRARY
from .saved_pipeline import SavedPipeline

# Of the Hub's tasks (its list is `PIPELINE_DATA` in @huggingface/tasks) none takes brain activity. Most would promise
# an input that this model does not take ("image-to-image", "any-to-any") and offer a widget that fails; "other" is the
# one of the list that promises none. People find the model by its tags.
PIPELINE_TAG = "other"
TASK = "image reconstruction from fMRI"
_HTML = {"<": "\\x3C", ">": "\\x3E", "&": "\\x26"}


def card_header(pipeline: SavedPipeline, report: Report | None, stated: Mapping[str, Any]) -> str:
    """The header in YAML of a pipeline's card.

    Args:
        pipeline: What the card is of.
        report: What was measured of it.
        stated: The fields of what the owner has stated.
    """
    tags = ["fmri", "brain-decoding", "image-reconstruction", pipeline.method.name]
    if is_simulated(pipeline, report):
        tags.append("simulated")
    results = [] if report is None else _eval_results(report)
    return header_text(
        ModelCardData(
            library_name=LIBRARY,
            pipeline_tag=PIPELINE_TAG,
            tags=tags,
            datasets=_datasets(pipeline, report) or None,
            metrics=[result.metric_type for result in results] or None,
            base_model=_base_models(pipeline) or None,
            model_name=pipeline.name,
            eval_results=results or None,
            **stated,
        )
    )


def header_text(data: ModelCardData) -> str:
    """The YAML of a header. Not everybody who shows a card knows that it is none of the text, so it has no HTML."""
    header = yaml.dump(data.to_dict(), Dumper=_HeaderDumper, sort_keys=False, allow_unicode=True, width=2**20)
    return "".join(_HTML.get(character, character) for character in header).strip()


def is_simulated(pipeline: SavedPipeline, report: Report | None) -> bool | None:
    """Whether the brain activity was simulated; None if neither the report nor the training record says so."""
    if report is not None:
        return report.data.get("simulated")
    return None if pipeline.record is None else pipeline.record.simulated


def _datasets(pipeline: SavedPipeline, report: Report | None) -> list[str]:
    """Ids of what was trained and measured on, each once."""
    tables = [] if pipeline.record is None else [pipeline.record.table]
    tables += [] if report is None or not report.data.get("name") else [str(report.data["name"])]
    return list(dict.fromkeys(map(dataset_id, tables)))


def _base_models(pipeline: SavedPipeline) -> list[str]:
    """Repositories of the Hub that the pipeline draws with and that its training began with."""
    source, record = pipeline.generator_source, pipeline.record
    generator = None if source is None else source.repository
    initial = None if record is None else record.recipe.get("initial_model")
    found = [name for name in (generator, initial) if isinstance(name, str) and is_repository_id(name)]
    return list(dict.fromkeys(found))


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
            metric_args={"protocol": report.protocol_title, "ci95": found.get("ci95"), "n": found.get("n")}
            | ({"warnings": report.warnings} if report.warnings else {}),
        )
        for info, found in measured.items()
        if found is not None and found.get("value") is not None
    ]


class _HeaderDumper(yaml.SafeDumper):
    """Writes text that may look like HTML in quotes, so that it can be escaped there."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        quoted = any(character in _HTML for character in text)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


_HeaderDumper.add_representer(str, _HeaderDumper.represent_text)
