"""The model card: README.md of a saved pipeline, whose figures come from a report and from nowhere else."""

import json
import os
from pathlib import Path
from typing import Any

from ..evaluation.overall_verdict import verdict
from ..evaluation.report import REPORT_FILE, Report
from ..evaluation.report_facts import WARNINGS_TITLE
from ..evaluation.report_schema import ReportContent
from ..evaluation.report_tables import chances, scores_caption
from ..names import markdown_code, one_line
from ..project import install_lines
from ..provenance import may_show_stimuli, terms_of_training
from ..reading import checked
from ..saving import merged_folder
from ..swapping import EVAL_RESULTS_FILE, recover
from ..version import __version__
from .card_facts import (
    citations,
    consent,
    generator_training,
    hardware,
    papers,
    published_weights,
    responsible_use,
    shown_curve,
)
from .card_header import card_header, is_simulated
from .card_template import rendered
from .eval_results import eval_results_text
from .owner_statements import OwnerStatements, card_header_of, kept_license
from .report_beside import check_report, is_report_of, place_report, report_files
from .saved_pipeline import SavedPipeline

CARD_FILE = "README.md"
_SPACES = {
    "image_embedding_space": "image embeddings",
    "text_embedding_space": "text embeddings",
    "latent_space": "latents",
}


def write_card(
    pipeline_dir: str | os.PathLike, report: Report | None = None, statements: OwnerStatements | None = None
) -> Path:
    """Writes the model card of a saved pipeline, replacing an earlier one, and its report beside it.

    Args:
        pipeline_dir: Folder of the pipeline. What the owner has stated in an earlier card is kept.
        report: What was measured of this pipeline; without it the card says that nothing was measured, and an earlier
            report in the folder is removed. Pages and grid come along from where the report was read or written.
        statements: What the owner of the weights states; it replaces what an earlier card says.

    Returns:
        The card's path.

    Raises:
        FmriModelsError: The folder is no pipeline, it has a README.md that is no card of this package, or the report
            measures another model.
    """
    recover(pipeline_dir)
    pipeline = SavedPipeline.read(Path(pipeline_dir))
    if report is not None:
        check_report(report, pipeline)
    in_place = report is not None and is_report_of(pipeline.folder, report)
    text = _rendered(pipeline, report, statements)
    earlier = [] if in_place else report_files(pipeline.folder)
    with merged_folder(pipeline.folder, lambda folder, written: earlier) as partial:
        (partial / CARD_FILE).write_text(text, encoding="utf-8")
        if report is not None:
            (partial / EVAL_RESULTS_FILE).parent.mkdir()
            (partial / EVAL_RESULTS_FILE).write_text(eval_results_text(report), encoding="utf-8")
            if not in_place:
                place_report(report, partial)
    return pipeline.folder / CARD_FILE


def write_card_of_folder(pipeline_dir: str | os.PathLike, statements: OwnerStatements | None = None) -> Path:
    """Writes the model card of a saved pipeline with the figures of the report that lies beside it, if there is one.

    Raises:
        FmriModelsError: As [`write_card`]; the report is damaged, or measures another model.
    """
    recover(pipeline_dir)
    beside = Path(pipeline_dir) / REPORT_FILE
    return write_card(pipeline_dir, Report.load(beside) if beside.is_file() else None, statements)


def has_card(pipeline_dir: str | os.PathLike) -> bool:
    """Whether a pipeline has a model card.

    Raises:
        FmriModelsError: It has a README.md that is no card of this package.
    """
    path = Path(pipeline_dir) / CARD_FILE
    if not path.is_file():
        return False
    card_header_of(path)
    return True


def _rendered(pipeline: SavedPipeline, report: Report | None, given: OwnerStatements | None) -> str:
    card = pipeline.folder / CARD_FILE
    stated = OwnerStatements.of_card(card).replaced_by(given)
    kept = kept_license(card_header_of(card)) if given is None or given.license is None else {}
    simulated, record = is_simulated(pipeline, report), pipeline.record
    return rendered(
        "template.md",
        card_data=card_header(pipeline, report, stated.header_fields(kept)),
        license=stated.license,
        consent=consent(stated, simulated),
        permission=stated.permission,
        pipeline=pipeline,
        record=record,
        terms=terms_of_training(record),
        curve=shown_curve(record),
        hardware=hardware(record),
        generator_training=generator_training(record),
        simulated=simulated,
        spaces={label: pipeline.config.space(name) for name, label in _SPACES.items()},
        penalties=_penalties(pipeline),
        example=_example(pipeline),
        published=[markdown_code(name) for name in pipeline.conversion.checkpoints] if pipeline.conversion else [],
        published_weights=published_weights(pipeline),
        report=report,
        measured=None if report is None else _content(report),
        rows={} if report is None else _rows_by_role(report),
        caption="" if report is None else scores_caption(report),
        warnings_title=WARNINGS_TITLE,
        verdict="" if report is None else verdict(report).text,
        chances={} if report is None else chances(report),
        has_grid=report is not None and _shows_grid(pipeline, report),
        install_lines=install_lines(),
        notice=responsible_use(simulated),
        citations=citations(papers(pipeline), __version__),
        version=__version__,
    )


def _shows_grid(pipeline: SavedPipeline, report: Report) -> bool:
    """Whether the grid is beside the card wherever that is read: where the pictures that it shows may be published."""
    beside = report.folder if report.folder is not None and is_report_of(report.folder, report) else pipeline.folder
    return may_show_stimuli(pipeline.record) and (beside / "grid.png").is_file()


def _content(report: Report) -> dict[str, Any]:
    """All that a report says, with defaults for what it does not say."""
    values = {name: value for name, value in report.to_dict().items() if name != "schema"}
    return checked(values, ReportContent, "The report", "write it again with `fmri-models evaluate`").model_dump()


def _penalties(pipeline: SavedPipeline) -> dict[str, dict[str, float]]:
    found = getattr(pipeline.config, "penalties", None) or {}
    what = f"The configuration of {one_line(pipeline.folder / 'brain_model')}, in its penalties,"
    return checked(found, dict[str, dict[str, float]], what, "download or save the pipeline again")


def _rows_by_role(report: Report) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {"brain": [], "part": [], "control": [], "reference": []}
    for row in report.results:
        rows[report.row(row)["kind"]].append(row)
    return rows


def _example(pipeline: SavedPipeline) -> dict[str, Any]:
    """Subject, recorded voxels and arguments of the card's lines of Python."""
    subject = pipeline.config.subject_names[0]
    if not pipeline.processor.is_fitted:
        return {"num_voxels": pipeline.config.num_voxels[0], "arguments": f"subject={json.dumps(subject)}"}
    statistics = pipeline.processor.subject(subject)
    session = f", session={statistics.sessions[0]}" if statistics.sessions else ""
    return {"num_voxels": statistics.num_voxels, "arguments": f"subject={json.dumps(subject)}{session}"}
