"""The model card: README.md of a saved pipeline, whose figures come from a report and from nowhere else."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from ..configuration_fmri import FmriConfig
from ..errors import FmriModelsError
from ..evaluation.report import Report
from ..generation.loading import IMAGE_GENERATORS, image_generator_class, parse_source
from ..generation.source import GeneratorSource
from ..pipeline_fmri import INDEX_FILE, PIPELINE_SCHEMA
from ..processing_fmri import FmriProcessor
from ..registry import Method, get_method, method_names
from ..saving import check_schema, write_text
from ..shipped import shipped_folder
from ..training_record import TrainingRecord
from ..version import __version__
from .conversion_record import ConversionRecord

CARD_FILE = "README.md"
LIBRARY = "fmri_models"
# Of the Hub's list of tasks none takes brain activity.
PIPELINE_TAG = "other"
TASK = "image reconstruction from fMRI"
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
    version: str
    config: FmriConfig
    processor: FmriProcessor
    record: TrainingRecord | None
    conversion: ConversionRecord | None

    @classmethod
    def read(cls, folder: Path) -> "_SavedPipeline":
        index = _read_index(folder)
        method = _method_of(folder, index)
        try:
            config = method.load("config").from_pretrained(str(folder / "brain_model"))
            processor = FmriProcessor.from_pretrained(str(folder / "processor"))
        except (OSError, ValueError) as error:
            raise FmriModelsError(
                f"The pipeline in {folder} is incomplete or damaged (its brain_model/ or processor/ cannot be read); "
                "download or save it again."
            ) from error
        source = index.get("image_generator_source")
        return cls(
            folder,
            method,
            generator=(index.get("image_generator") or [None, None])[1],
            generator_source=None if source is None else parse_source(source),
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
    def draws(self) -> bool:
        """Whether there is an image generator, in the folder or by name."""
        return self.generator is not None or self.generator_source is not None

    @property
    def generator_limits(self) -> str | None:
        """What the image generator's pictures are not, for a generator of this package."""
        names = {class_name: name for name, (_, class_name) in IMAGE_GENERATORS.items()}
        return image_generator_class(names[self.generator]).limits if self.generator in names else None


def write_card(pipeline_dir: str | os.PathLike, report: Report | None = None) -> Path:
    """Writes the model card of a saved pipeline, replacing an earlier one.

    Args:
        pipeline_dir: Folder of the pipeline. The license that an earlier card states is kept.
        report: What was measured of this pipeline; without it the card says that nothing was measured.

    Returns:
        The card's path.

    Raises:
        FmriModelsError: The folder is no pipeline, it has a README.md that is no card of this package, or the report
            measures another model.
    """
    pipeline = _SavedPipeline.read(Path(pipeline_dir))
    if report is not None:
        _check_report(report, pipeline)
    path = pipeline.folder / CARD_FILE
    data = _card_data(pipeline, report, _stated_license(path))
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string((shipped_folder("model_cards") / "template.md").read_text(encoding="utf-8"))
    text = template.render(
        card_data=data.to_yaml(),
        license=data.license,
        pipeline=pipeline,
        record=pipeline.record,
        simulated=_is_simulated(pipeline, report),
        spaces={label: pipeline.config.space(kind) for kind, label in _SPACES.items()},
        penalties=getattr(pipeline.config, "penalties", None) or {},
        example=_example(pipeline),
        published=[f"`{name}`" for name in pipeline.conversion.checkpoints] if pipeline.conversion else [],
        report=report,
        rows={} if report is None else _rows_by_kind(report),
        chances={} if report is None else _chances(report),
        version=__version__,
    )
    write_text(path, text)
    return path


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
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FmriModelsError(
            f"{folder} has no readable {INDEX_FILE}, so it is no saved pipeline; pass the folder that training wrote "
            "(with folds, one of fold00, fold01 …)."
        ) from error
    check_schema(index.get("fmri_schema", 1), PIPELINE_SCHEMA, f"The pipeline in {folder}")
    return index


def _method_of(folder: Path, index: dict[str, Any]) -> Method:
    class_name = index.get("_class_name")
    for method in map(get_method, method_names()):
        if method.pipeline.endswith(f":{class_name}"):
            return method
    raise FmriModelsError(f"{folder} holds a {class_name!r}, which is no pipeline of this package; check the name.")


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
        "training time in seconds": (report.model.get("training_seconds"), record.seconds),
    }
    for what, (measured, own) in compared.items():
        if measured != own:
            raise FmriModelsError(
                f"The report does not belong to {pipeline.folder}: its {what} is {measured!r}, the pipeline's is "
                f"{own!r}; measure this pipeline with `fmri-models evaluate` and give that report."
            )


def _stated_license(path: Path) -> dict[str, Any]:
    """The license in the card that is there, which only the owner of the weights can have written."""
    if not path.is_file():
        return {}
    try:
        stated = ModelCard(path.read_text(encoding="utf-8")).data.to_dict()
    except ValueError:
        stated = {}
    if stated.get("library_name") != LIBRARY:
        raise FmriModelsError(f"{path} is no model card of {LIBRARY} and would be lost; move it away first.")
    return {key: stated[key] for key in _LICENSE_KEYS if stated.get(key)}


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
        **stated_license,
    )


def _eval_results(report: Report) -> list[EvalResult]:
    """The row `brain`, unrounded."""
    kind = " (simulated)" if report.data.get("simulated") else ""
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
            metric_args={"protocol": report.protocol.get("name"), "ci95": found.get("ci95"), "n": found.get("n")},
        )
        for info, found in measured.items()
        if found is not None and found.get("value") is not None
    ]


def _rows_by_kind(report: Report) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {"brain": [], "part": [], "control": [], "reference": []}
    for row in report.results:
        rows[report.rows[row]["kind"]].append(row)
    return rows


def _chances(report: Report) -> dict[str, float]:
    """What guessing scores in the metrics where that is known."""
    metrics = report.protocol.get("metrics", [])
    return {metric["name"]: metric["chance"] for metric in metrics if metric.get("chance") is not None}


def _example(pipeline: _SavedPipeline) -> dict[str, Any]:
    """Subject, recorded voxels and arguments of the card's lines of Python."""
    subject = pipeline.processor.subject_names[0]
    statistics = pipeline.processor.subject(subject)
    session = f", session={statistics.sessions[0]}" if pipeline.processor.statistics == "session" else ""
    return {"num_voxels": statistics.num_voxels, "arguments": f'subject="{subject}"{session}'}
