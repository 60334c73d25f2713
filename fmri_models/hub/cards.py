"""The model card: README.md of a saved pipeline, whose figures come from a report and from nowhere else."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from ..configuration_fmri import FmriConfig
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..evaluation.held_out import unknown_initial_note
from ..evaluation.items import ITEMS_FILE
from ..evaluation.picture_files import earlier_pictures
from ..evaluation.report import REPORT_FILE, Report
from ..evaluation.report_facts import WARNINGS_TITLE
from ..evaluation.report_schema import ReportContent
from ..evaluation.report_tables import chances, scores_caption
from ..generation.loading import image_generator_class, image_generator_name, parse_source
from ..generation.source import GeneratorSource
from ..licenses import HUB_LICENSES, NOT_STATED, license_fields
from ..names import markdown, markdown_code, one_line
from ..pipeline_folder import INDEX_FILE, read_index, saved_settings
from ..processing_fmri import FmriProcessor
from ..reading import checked, parse_yaml, read_text
from ..registry import METHODS, Method
from ..saving import merged_folder
from ..shipped import shipped_folder
from ..swapping import recover
from ..training_record import LATER_WEIGHTS, TrainingRecord
from ..version import __version__
from .conversion_record import ConversionRecord

CARD_FILE = "README.md"
LIBRARY = "fmri_models"
# Of the Hub's list of tasks none takes brain activity.
PIPELINE_TAG = "other"
TASK = "image reconstruction from fMRI"
# What people read of a report, published with the pipeline that it measured.
_REPORT_PAGES = ("report.md", "report.html", "grid.png")
_HEADER = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---[\r\n]", re.DOTALL)
_LICENSE_KEYS = ("license", "license_name", "license_link")
_SPACES = {
    "image_embedding_space": "image embeddings",
    "text_embedding_space": "text embeddings",
    "latent_space": "latents",
}


@dataclass
class _SavedPipeline:
    """What a card says of a pipeline, read without its weights."""

    folder: Path
    method: Method
    generator: str | None
    generator_source: GeneratorSource | None
    drawing_settings: DrawingSettings
    version: str
    config: FmriConfig
    processor: FmriProcessor
    record: TrainingRecord | None
    conversion: ConversionRecord | None

    @classmethod
    def read(cls, folder: Path) -> "_SavedPipeline":
        index = _read_index(folder)
        method = _method_of(folder, index)
        if absent := [part for part in ("brain_model", "processor") if not (folder / part).is_dir()]:
            raise FmriModelsError(
                f"The pipeline in {one_line(folder)} is not whole: it has no {absent[0]}/; save or download it again."
            )
        try:
            config = method.load("config").from_pretrained(str(folder / "brain_model"))
            processor = FmriProcessor.from_pretrained(str(folder / "processor"))
        except FmriModelsError as error:
            raise FmriModelsError(f"The pipeline in {one_line(folder)} is not whole: {error}") from error
        # Configurations are made by each method's own constructor, which raises whatever it does on wrong values.
        except Exception as error:
            raise FmriModelsError(
                f"The configuration of the brain model in {one_line(folder)} can't be read ({one_line(error)}); save "
                "or download the pipeline again."
            ) from error
        source = index.get("image_generator_source")
        return cls(
            folder,
            method,
            generator=(index.get("image_generator") or [None, None])[1],
            generator_source=None if source is None else parse_source(source),
            drawing_settings=saved_settings(index, folder) or DrawingSettings(),
            version=str(index.get("fmri_models_version", "unknown")),
            config=config,
            processor=processor,
            record=TrainingRecord.load(folder),
            conversion=ConversionRecord.load(folder),
        )

    @property
    def name(self) -> str:
        return self.method.name if self.record is None else f"{self.method.name}-{self.record.table}"

    @property
    def settings_used(self) -> dict[str, Any]:
        """The drawing settings that change something, as far as the generator's class tells."""
        source = self.generator_source
        name = image_generator_name(self.generator or "") if source is None else source.name
        values = self.drawing_settings.to_dict()
        if name is None:
            return values
        used = {*image_generator_class(name).used_settings}
        # The method may sample what is drawn from.
        used |= {"num_candidates", "selection"} if used else set()
        return {name: value for name, value in values.items() if name in used}

    @property
    def draws(self) -> bool:
        """Whether there is an image generator, in the folder or by name."""
        return self.generator is not None or self.generator_source is not None

    @property
    def generator_limits(self) -> str | None:
        """What the image generator's pictures are not, for a generator of this package."""
        name = None if self.generator is None else image_generator_name(self.generator)
        return None if name is None else image_generator_class(name).limits


def write_card(pipeline_dir: str | os.PathLike, report: Report | None = None) -> Path:
    """Writes the model card of a saved pipeline, replacing an earlier one, and its report beside it.

    Args:
        pipeline_dir: Folder of the pipeline. The license that an earlier card states is kept.
        report: What was measured of this pipeline; without it the card says that nothing was measured, and an earlier
            report in the folder is removed. Pages and grid come along from where the report was read or written.

    Returns:
        The card's path.

    Raises:
        FmriModelsError: The folder is no pipeline, it has a README.md that is no card of this package, or the report
            measures another model.
    """
    recover(pipeline_dir)
    pipeline = _SavedPipeline.read(Path(pipeline_dir))
    if report is not None:
        _check_report(report, pipeline)
    text = _rendered(pipeline, report)
    in_place = report is not None and _is_report_of(pipeline.folder, report)
    earlier = [] if in_place else report_files(pipeline.folder)
    with merged_folder(pipeline.folder, lambda folder, written: earlier) as partial:
        (partial / CARD_FILE).write_text(text, encoding="utf-8")
        if report is not None and not in_place:
            _place_report(report, partial)
    return pipeline.folder / CARD_FILE


def write_card_of_folder(pipeline_dir: str | os.PathLike) -> Path:
    """Writes the model card of a saved pipeline with the figures of the report that lies beside it, if there is one.

    Raises:
        FmriModelsError: As [`write_card`]; the report is damaged, or measures another model.
    """
    recover(pipeline_dir)
    beside = Path(pipeline_dir) / REPORT_FILE
    return write_card(pipeline_dir, Report.load(beside) if beside.is_file() else None)


def report_files(folder: Path) -> list[str]:
    """Names of the files that lie in a folder of a report of ours; none where the report is none."""
    try:
        Report.load(folder / REPORT_FILE)
    except FmriModelsError:
        return []
    files = [name for name in (REPORT_FILE, *_REPORT_PAGES, ITEMS_FILE) if (folder / name).is_file()]
    return [*files, *earlier_pictures(folder)]


def _place_report(report: Report, folder: Path) -> None:
    """Writes a report, and copies its pages and grid, if those that lie where it comes from are its own."""
    report.save(folder / REPORT_FILE)
    if report.folder is None or not _is_report_of(report.folder, report):
        return
    for name in _REPORT_PAGES:
        if (report.folder / name).is_file():
            shutil.copyfile(report.folder / name, folder / name)


def _is_report_of(folder: Path, report: Report) -> bool:
    try:
        return Report.load(folder / REPORT_FILE).to_dict() == report.to_dict()
    except FmriModelsError:
        return False


def _rendered(pipeline: _SavedPipeline, report: Report | None) -> str:
    stated = _stated_license(pipeline.folder / CARD_FILE)
    data = _card_data(pipeline, report, stated)
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"markdown": markdown, "code": markdown_code}
    template = environment.from_string((shipped_folder("model_cards") / "template.md").read_text(encoding="utf-8"))
    return template.render(
        card_data=_header(data),
        license=stated.get("license"),
        pipeline=pipeline,
        record=pipeline.record,
        simulated=_is_simulated(pipeline, report),
        spaces={label: pipeline.config.space(kind) for kind, label in _SPACES.items()},
        penalties=_penalties(pipeline),
        example=_example(pipeline),
        published=[markdown_code(name) for name in pipeline.conversion.checkpoints] if pipeline.conversion else [],
        report=report,
        measured=None if report is None else _content(report),
        rows={} if report is None else _rows_by_kind(report),
        caption="" if report is None else scores_caption(report),
        warnings_title=WARNINGS_TITLE,
        chances={} if report is None else chances(report),
        version=__version__,
    )


class _HeaderDumper(yaml.SafeDumper):
    """Writes text that may look like HTML in quotes, so that it can be escaped there."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        quoted = any(character in _HTML for character in text)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


_HTML = {"<": "\\x3C", ">": "\\x3E", "&": "\\x26"}
_HeaderDumper.add_representer(str, _HeaderDumper.represent_text)


def _header(data: ModelCardData) -> str:
    """The card's header in YAML. Not everybody who shows a card knows that it is none of the text."""
    header = yaml.dump(data.to_dict(), Dumper=_HeaderDumper, sort_keys=False, allow_unicode=True, width=2**20)
    return "".join(_HTML.get(character, character) for character in header).strip()


def _content(report: Report) -> dict[str, Any]:
    """All that a report says, with defaults for what it does not say."""
    values = {name: value for name, value in report.to_dict().items() if name != "schema"}
    return checked(values, ReportContent, "The report", "write it again with `fmri-models evaluate`").model_dump()


def _penalties(pipeline: _SavedPipeline) -> dict[str, dict[str, float]]:
    found = getattr(pipeline.config, "penalties", None) or {}
    what = f"The configuration of {one_line(pipeline.folder / 'brain_model')}, in its penalties,"
    return checked(found, dict[str, dict[str, float]], what, "download or save the pipeline again")


def has_card(pipeline_dir: str | os.PathLike) -> bool:
    """Whether a pipeline has a model card.

    Raises:
        FmriModelsError: It has a README.md that is no card of this package.
    """
    path = Path(pipeline_dir) / CARD_FILE
    if not path.is_file():
        return False
    _stated_license(path)
    return True


def _read_index(folder: Path) -> dict[str, Any]:
    if not (folder / INDEX_FILE).is_file():
        raise FmriModelsError(
            f"{one_line(folder)} has no readable {INDEX_FILE}, so it is no saved pipeline; pass the folder that "
            "training wrote (with folds, one of fold00, fold01 …)."
        )
    return read_index(folder)


def _method_of(folder: Path, index: dict[str, Any]) -> Method:
    class_name = index.get("_class_name")
    for method in METHODS.in_order():
        if method.pipeline.endswith(f":{class_name}"):
            return method
    raise FmriModelsError(
        f"{one_line(folder)} holds a {one_line(repr(class_name))}, which is no pipeline of this package; check the "
        "name."
    )


def _check_report(report: Report, pipeline: _SavedPipeline) -> None:
    """Refuses a report of another model.

    Folders are renamed and copied, so their name tells nothing; data, method, subjects and training time do.
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


def _stated_license(path: Path) -> dict[str, Any]:
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


def _license_of_header(stated: dict[str, Any]) -> dict[str, Any]:
    """What the Hub takes: one of its own ids, or `other` with a name."""
    if not stated:
        return dict(NOT_STATED)
    if stated.get("license") in HUB_LICENSES:
        return stated
    return {**license_fields(stated.get("license", "")), **{key: stated[key] for key in stated if key != "license"}}


def _is_simulated(pipeline: _SavedPipeline, report: Report | None) -> bool | None:
    """Whether the brain activity was simulated; None if neither the report nor the training record says so."""
    if report is not None:
        return report.data.get("simulated")
    return None if pipeline.record is None else pipeline.record.simulated


def _card_data(pipeline: _SavedPipeline, report: Report | None, stated_license: dict[str, Any]) -> ModelCardData:
    tags = ["fmri", "brain-decoding", "image-reconstruction", pipeline.method.name]
    if _is_simulated(pipeline, report):
        tags.append("simulated")
    results = [] if report is None else _eval_results(report)
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=PIPELINE_TAG,
        tags=tags,
        model_name=pipeline.name,
        eval_results=results or None,
        **_license_of_header(stated_license),
    )


def _eval_results(report: Report) -> list[EvalResult]:
    """The row `brain`, unrounded."""
    kind = " (simulated)" if report.data.get("simulated") else ""
    # Whoever lists figures of many models reads the name of the data and no text of the card.
    kind += f" ({WARNINGS_TITLE[0].lower()}{WARNINGS_TITLE[1:]})" if report.warnings else ""
    brain = report.results.get("brain", {})
    measured = {info: brain.get(info.name) for info in report.metrics()}
    return [
        EvalResult(
            task_type=PIPELINE_TAG,
            task_name=TASK,
            dataset_type=str(report.data.get("name")),
            dataset_name=f"{report.data.get('name')}{kind}",
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


def _rows_by_kind(report: Report) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {"brain": [], "part": [], "control": [], "reference": []}
    for row in report.results:
        rows[report.row(row)["kind"]].append(row)
    return rows


def _example(pipeline: _SavedPipeline) -> dict[str, Any]:
    """Subject, recorded voxels and arguments of the card's lines of Python."""
    subject = pipeline.config.subject_names[0]
    if not pipeline.processor.is_fitted:
        return {"num_voxels": pipeline.config.num_voxels[0], "arguments": f"subject={json.dumps(subject)}"}
    statistics = pipeline.processor.subject(subject)
    session = f", session={statistics.sessions[0]}" if pipeline.processor.statistics == "session" else ""
    return {"num_voxels": statistics.num_voxels, "arguments": f"subject={json.dumps(subject)}{session}"}
