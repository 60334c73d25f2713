"""The report that lies beside a pipeline: it measures that pipeline and no other one."""

import shutil
from pathlib import Path

from ..errors import FmriModelsError
from ..evaluation.held_out import unknown_initial_note
from ..evaluation.items_file import ITEMS_FILE
from ..evaluation.picture_files import earlier_pictures
from ..evaluation.report import REPORT_FILE, Report
from ..names import one_line
from ..swapping import EVAL_RESULTS_FILE
from ..training_record import LATER_WEIGHTS, TrainingRecord
from .saved_pipeline import SavedPipeline

# What people read of a report, published with the pipeline that it measured.
_REPORT_PAGES = ("report.md", "report.html", "grid.png")


def report_files(folder: Path) -> list[str]:
    """Names of the files that lie in a folder of a report of ours; none where the report is none."""
    try:
        Report.load(folder / REPORT_FILE)
    except FmriModelsError:
        return []
    files = [name for name in (REPORT_FILE, *_REPORT_PAGES, ITEMS_FILE, EVAL_RESULTS_FILE) if (folder / name).is_file()]
    return [*files, *earlier_pictures(folder)]


def place_report(report: Report, folder: Path) -> None:
    """Writes a report, and copies its pages and grid, if those that lie where it comes from are its own."""
    report.save(folder / REPORT_FILE)
    if report.folder is None or not is_report_of(report.folder, report):
        return
    for name in _REPORT_PAGES:
        if (report.folder / name).is_file():
            shutil.copyfile(report.folder / name, folder / name)


def is_report_of(folder: Path, report: Report) -> bool:
    """Whether a folder holds that report."""
    try:
        return Report.load(folder / REPORT_FILE).to_dict() == report.to_dict()
    except FmriModelsError:
        return False


def check_report(report: Report, pipeline: SavedPipeline) -> None:
    """Refuses a report of another model.

    Folders are renamed and copied, so their name tells nothing; data, method, subjects and training time do.

    Raises:
        FmriModelsError: Names the first difference.
    """
    record = pipeline.record
    if record is None:
        # How evaluation describes a pipeline without a record; the table is then any that it was measured on.
        fingerprint = str(report.data.get("fingerprint"))
        record = TrainingRecord("unknown", "", fingerprint, "default", 0, ["train"], "average")
    compared = {
        "fingerprint of the trial table": (report.data.get("fingerprint"), record.table_fingerprint),
        "split": (report.data.get("split"), record.split),
        "list of folds": (report.data.get("folds"), [record.fold]),
        "method": (report.model.get("method"), record.method),
        "list of subjects": (report.model.get("subjects"), pipeline.processor.subject_names),
        "use of repetitions": (report.model.get("repetitions_trained_on"), record.repetitions),
        "weights of unknown training": _later_weights(report, record),
        "training time in seconds": (report.model.get("training_seconds"), record.seconds),
    }
    for what, (measured, own) in compared.items():
        if measured != own:
            raise FmriModelsError(
                f"The report does not belong to {one_line(pipeline.folder)}: its {what} is {one_line(repr(measured))}, "
                f"the pipeline's is {one_line(repr(own))}; measure this pipeline with `fmri-models evaluate` and give "
                "that report."
            )


def _later_weights(report: Report, record: TrainingRecord) -> tuple[list[str], list[str]]:
    """Which weights of unknown training the report speaks of, and which the pipeline has."""
    own = record.unknown_initial_models
    names = list(dict.fromkeys([*own, *LATER_WEIGHTS]))
    return [name for name in names if unknown_initial_note(name) in report.notes], [
        each for each in names if each in own
    ]
