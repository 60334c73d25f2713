"""What a card says besides its figures: terms of the data, consent, how training went, what to cite, the notice."""

from collections.abc import Sequence
from itertools import groupby

from pydantic import BaseModel

from ..generation.loading import image_generator_name
from ..names import one_line
from ..project import repository
from ..reading import checked
from ..records import Paper, PretrainedRecord
from ..registry import GENERATORS
from ..training_record import CurvePoint, TrainingRecord
from .owner_statements import OwnerStatements
from .saved_pipeline import SavedPipeline

RESPONSIBLE_USE = "docs/responsible_use.md"
# A card shows so many points of a stage.
_MOST_POINTS = 6
_CITATION = """@software{fmri_models,
  title = {fmri_models: a model zoo for image reconstruction from fMRI},
  author = {{The fmri_models authors}},
  version = {VERSION},ADDRESS
}"""
_RECORDED = (
    "This model reads what people saw only from the subjects it was trained on, who lay in a scanner for hours and "
    "took part of their own will; it reads no thoughts, and a sharp picture is no evidence of a right one. Layers that "
    "were trained on a person's brain activity are that person's data: publish, pass on and test them only as far as "
    "the person's consent and the terms of the data allow, and do not use them to identify anyone."
)
_SIMULATED = (
    "The brain activity behind this model was simulated, so that it holds nobody's data and says nothing about how "
    "well a person's brain can be read. Trained on a person's brain activity, the same layers are that person's data: "
    "publish and pass them on only as far as the person's consent and the terms of the data allow."
)


class _TrainedLora(BaseModel):
    """LoRA on an image generator, as a record has it."""

    r: int
    alpha: float
    groups: list[str]


class _TrainedGenerator(BaseModel):
    """What a stage has trained of an image generator, as a record has it."""

    train: list[str] = []
    parameters: int = 0
    lora: _TrainedLora | None = None
    lora_parameters: int = 0


def responsible_use(simulated: bool | None) -> str:
    """The notice of every card, in Markdown."""
    address = repository()
    page = f"[{RESPONSIBLE_USE}]({address}/blob/main/{RESPONSIBLE_USE})" if address else f"`{RESPONSIBLE_USE}`"
    notice = _SIMULATED if simulated else _RECORDED
    return f"{notice} What decoding can and cannot do, consent, terms and laws: {page} of fmri_models."


def consent(stated: OwnerStatements, simulated: bool | None) -> str | None:
    """Whose consent covers that the weights are published; None where nobody has said."""
    if stated.consent:
        return stated.consent
    return "nobody's is needed: the brain activity was simulated" if simulated else None


def shown_curve(record: TrainingRecord | None) -> list[CurvePoint]:
    """A few points of the training curve, the first and the last of each stage among them."""
    stages = [] if record is None else [list(points) for _, points in groupby(record.curve, lambda p: p["stage"])]
    return [point for points in stages for point in _spread(points)]


def hardware(record: TrainingRecord | None) -> str | None:
    """What the training ran on, in words."""
    if record is None or record.hardware is None:
        return None
    found = record.hardware
    device = found["name"] if found["device"] == "cuda" else f"{found['device'].upper()} {found['name']}".strip()
    words = [device, _counted(found["processes"], "process", "es"), _counted(found["threads"], "thread", "s")]
    return ", ".join([*words, str(found["precision"])] if found["precision"] else words)


def generator_training(record: TrainingRecord | None) -> list[str]:
    """What was trained of the image generator, a phrase a stage, as the record says it."""
    told = []
    for entry in [] if record is None else record.stages:
        if entry.get("image_generator") is None:
            continue
        what = "What the record of training says of the image generator"
        found = checked(entry["image_generator"], _TrainedGenerator, what, "download or save the pipeline again")
        parts = []
        if found.train:
            parts.append(f"{found.parameters:,} parameters of it learned ({', '.join(found.train)})")
        if found.lora is not None:
            parts.append(
                f"a LoRA adapter of rank {found.lora.r} (alpha {found.lora.alpha:g}) on "
                f"{', '.join(found.lora.groups)} learned, {found.lora_parameters:,} parameters, which lie beside it"
            )
        told.append(f"in the stage {one_line(str(entry.get('stage')), 100)} {' and '.join(parts)}")
    return told


def papers(pipeline: SavedPipeline) -> list[Paper]:
    """Those of the method and of the image generator, each once."""
    source = pipeline.generator_source
    name = image_generator_name(pipeline.generator or "") if source is None else source.name
    generator = GENERATORS.get(name) if name is not None and name in GENERATORS else None
    found = [pipeline.method.paper, None if generator is None else generator.paper]
    return list(dict.fromkeys(paper for paper in found if paper is not None))


def citations(found: Sequence[Paper], version: str) -> str:
    """Entries of a bibliography: the papers, then this package. None of them ends the block of code it stands in."""
    address = f"\n  url = {{{repository()}}}," if repository() else ""
    own = _CITATION.replace("VERSION", version).replace("ADDRESS", address)
    return "\n\n".join([*(paper.bibtex() for paper in found), own]).replace("```", "'''")


def published_weights(pipeline: SavedPipeline) -> list[PretrainedRecord]:
    """What is known of the published checkpoints that a converted pipeline may have been made of."""
    if pipeline.conversion is None:
        return []
    return [record for record in pipeline.method.pretrained if record.state == "converted"]


def _spread(points: list[CurvePoint]) -> list[CurvePoint]:
    last = len(points) - 1
    if last < _MOST_POINTS:
        return points
    return [points[round(i * last / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def _counted(number: int, what: str, plural: str) -> str:
    return f"{number} {what}{'' if number == 1 else plural}"
