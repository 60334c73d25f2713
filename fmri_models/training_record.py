"""What a saved pipeline remembers of its training, so that evaluation keeps to the trials that it did not see."""

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from .plain_values import ShortRepr
from .reading import checked
from .saved_record import SavedRecord
from .saving import json_text
from .version import __version__

TRAINING_FILE = "training.json"
# 2: what the stimuli of the split's parts were, and which pictures were learned from, also by initial models.
# 3: curve, hardware, what was counted, and the table's licence and source.
RECORD_SCHEMA = 3
# What an adapter has learned from is recorded nowhere.
WITH_ADAPTER = "with the adapter in brain_model/"
CHANGED_LATER = "whose weights were changed after it was loaded"
GIVEN_LATER = "given as brain_model="
_LATER_SUBJECT = "with the layers of {}, which was added later"
_MORE_TRAININGS = "with layers of a training on {}, of which not all is recorded"
LATER_WEIGHTS = (WITH_ADAPTER, CHANGED_LATER, GIVEN_LATER)
# Trainings that lie behind a pipeline, its own among them.
MAX_TRAININGS = 64
# `/data/scenes`, `~/scenes`, `file:///data/scenes`, `C:\data` and `\\\\server\\data`.
_FROM_A_ROOT = re.compile(r"/|~[\w.-]*[/\\]|file:|[A-Za-z]:[/\\]|\\\\")
# Of whom an unpaired source may be.
MAX_SUBJECTS = 2**16
# Beyond this the record would be larger than the JSON that is read.
MAX_PICTURES = 2**20
# Of the SHA-256 of a picture's pixels: two of a million pictures share them with a chance of 1 in 500.
_BYTES_A_PICTURE = 6

# A stage has some 40 points in the curve.
MAX_CURVE = 2**14
MAX_TEXT = 1000

_Text = Annotated[str, Field(max_length=MAX_TEXT)]
_Count = Annotated[int, Field(ge=0, lt=2**62)]
_Loss = Annotated[float, Field(allow_inf_nan=False)]


class CurvePoint(TypedDict):
    """A point of the training curve; a loss that was not measured there is None.

    Args:
        stage: Name of the stage.
        step: Steps of the stage that were done.
        train_loss: Mean training loss of the steps since the point before.
        validation_loss: The loss on all held-out examples.
    """

    stage: _Text
    step: _Count
    train_loss: _Loss | None
    validation_loss: _Loss | None


class Hardware(TypedDict):
    """What a training ran on.

    Args:
        device: `"cpu"`, `"cuda"` or `"mps"`.
        name: Of the GPU, or of the processor's architecture.
        processes: Processes that trained one model together.
        threads: Threads of each.
        precision: What stages by gradient computed in; None for a closed form.
    """

    device: _Text
    name: _Text
    processes: _Count
    threads: _Count
    precision: _Text | None


class Learned(TypedDict):
    """How much was learned from: different subjects, sessions of all of them, trials and different pictures."""

    subjects: _Count
    sessions: _Count
    trials: _Count
    pictures: _Count


def later_subject(name: str) -> str:
    """What a record says of a subject that was added to a pipeline after its training."""
    return _LATER_SUBJECT.format(name)


def without_places(values: Any) -> Any:
    """Values in which each text that is a path from a machine's root is the path's last name alone."""
    if isinstance(values, Mapping):
        return {key: without_places(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_places(value) for value in values]
    if isinstance(values, str) and _FROM_A_ROOT.match(values):
        return re.split(r"[/\\]", values.rstrip("/\\"))[-1] or "a folder"
    return values


def encoded_pictures(hashes: Iterable[str]) -> str:
    """The pictures with these SHA-256 hashes of their pixels, in any order, as one compact text."""
    return base64.b64encode(b"".join(sorted({_short(each) for each in hashes}))).decode()


def _short(digest: str) -> bytes:
    return bytes.fromhex(digest)[:_BYTES_A_PICTURE]


def _check_pictures(text: str) -> str:
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError("hashes of pictures in base64") from error
    if size % _BYTES_A_PICTURE:
        raise ValueError(f"hashes of {_BYTES_A_PICTURE} bytes in base64")
    return text


@dataclass(repr=False)
class LearnedFrom(ShortRepr):
    """What one training has learned from, and what it held out.

    Args:
        table: Name of the trial table.
        table_fingerprint: Its fingerprint.
        split: Name of the split.
        fold: Fold of the split.
        parts: Parts that were learned from, or on which choices were made.
        part_fingerprints: Part ▶ SHA-256 over its subjects, trials and stimuli in that fold.
        pictures: The pictures in `parts`, see [`encoded_pictures`]; None where they are too many to be listed.
        fmri_of: Subjects of whom the fMRI alone was learned from, without what was shown; None for pairs of both.
        table_license: The licence that the trial table states; empty if it states none, or in earlier records.
        table_source: Where the trial table says that its data come from; likewise.
    """

    table: _Text
    table_fingerprint: _Text
    split: _Text
    fold: Annotated[int, Field(ge=0)]
    parts: Annotated[list[_Text], Field(min_length=1)]
    part_fingerprints: Annotated[dict[_Text, _Text], Field(max_length=10)]
    pictures: Annotated[str, Field(max_length=8 * MAX_PICTURES), AfterValidator(_check_pictures)] | None = None
    fmri_of: Annotated[list[_Text], Field(max_length=MAX_SUBJECTS)] | None = None
    table_license: _Text = ""
    table_source: _Text = ""

    def knows(self, hashes: Sequence[str | None]) -> list[bool]:
        """Which of the pictures with these hashes were learned from; one without a hash is not known of."""
        return [digest is not None and _short(digest) in self._pictures for digest in hashes]

    @cached_property
    def _pictures(self) -> frozenset[bytes]:
        data = base64.b64decode(self.pictures or "")
        return frozenset(data[start : start + _BYTES_A_PICTURE] for start in range(0, len(data), _BYTES_A_PICTURE))


@dataclass(repr=False)
class TrainingRecord(ShortRepr, SavedRecord):
    """How a pipeline was trained.

    Args:
        method: Name of the method.
        table: Name of the trial table.
        table_fingerprint: Its fingerprint.
        split: Name of the split.
        fold: Fold of the split.
        train_parts: Parts of the split that were learned from.
        repetitions: `"average"`, `"single"` or `"all"`.
        simulated: Whether the brain activity was simulated; None if that was not recorded.
        recipe: The whole recipe.
        stages: What each stage reported.
        selection: How the recipe's setting was chosen among its candidates; None without a choice.
        seconds: Wall time.
        learned_from: What was learned from: in this training, in that of the initial model, in that of its initial
            model ... None in records of earlier versions.
        unknown_initial_models: Those among them of which nobody knows what they have learned from.
        reserved_initial_models: Those among them that were converted from published weights whose authors have reserved
            all rights.
        hardware: What it ran on; None in records of earlier versions.
        curve: How the losses went, some 40 points a stage; without any for stages in closed form.
        learned: How much was learned from; None in records of earlier versions.
        table_license: The licence that the trial table states; empty if it states none.
        table_source: Where the trial table says that its data come from.
    """

    file = TRAINING_FILE
    newest_schema = RECORD_SCHEMA
    what = "record of training"
    mend = "save the pipeline again, or take training.json from where it was trained"

    method: _Text
    table: _Text
    table_fingerprint: _Text
    split: _Text
    fold: Annotated[int, Field(ge=0)]
    train_parts: Annotated[list[_Text], Field(min_length=1)]
    repetitions: Literal["average", "single", "all"]
    simulated: bool | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    selection: dict[str, Any] | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    learned_from: Annotated[list[LearnedFrom], Field(min_length=1, max_length=MAX_TRAININGS)] | None = None
    unknown_initial_models: Annotated[list[_Text], Field(max_length=MAX_TRAININGS)] = field(default_factory=list)
    reserved_initial_models: Annotated[list[_Text], Field(max_length=MAX_TRAININGS)] = field(default_factory=list)
    hardware: Hardware | None = None
    curve: Annotated[list[CurvePoint], Field(max_length=MAX_CURVE)] = field(default_factory=list)
    learned: Learned | None = None
    table_license: _Text = ""
    table_source: _Text = ""
    schema: int = RECORD_SCHEMA
    fmri_models_version: _Text = __version__

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Self | None:
        """Reads `training.json`; None if the folder has none, as a converted checkpoint.

        Raises:
            FmriModelsError: It is damaged, or was written by a newer version.
        """
        record = super().load(folder)
        if record is not None and (Path(folder) / "brain_model" / "adapter_config.json").is_file():
            record.add_unknown(WITH_ADAPTER)
        return record

    @classmethod
    def checked_entries(cls, values: Mapping[str, Any], named: str) -> dict[str, Any]:
        """The trainings that lie behind it."""
        if not isinstance(values.get("learned_from"), list):
            return {}
        each_named = f"A training in {named}"
        trainings = values["learned_from"][: MAX_TRAININGS + 1]
        return {"learned_from": [checked(each, LearnedFrom, each_named, cls.mend) for each in trainings]}

    def to_json(self) -> str:
        """What the file holds, whichever version wrote the record that was read; it names no path of a machine."""
        values = without_places(asdict(self))
        return json_text({**values, "schema": RECORD_SCHEMA})

    @property
    def names_places(self) -> bool:
        """Whether it names a path of the machine that trained, as records of earlier versions may."""
        values = asdict(self)
        return bool(without_places(values) != values)

    @property
    def trains_generator(self) -> bool:
        """Whether a stage trained the image generator, too."""
        stages = self.recipe.get("stages")
        return isinstance(stages, list) and any(
            isinstance(each, dict) and each.get("image_generator") for each in stages
        )

    @property
    def drops_conditions(self) -> bool:
        """Whether a stage that trained the image generator left out its conditions at times, so that it knows none."""
        return any(each.get("drops_conditions") is True for each in self.stages)

    def add_trainings(self, other: "TrainingRecord") -> None:
        """Notes what another pipeline has learned from, a part of which came into this one."""
        known = self.learned_from or []
        further = [each for each in other.learned_from or [] if each not in known]
        if self.learned_from is not None:
            self.learned_from = [*known, *further][:MAX_TRAININGS]
        if self.learned_from is None or other.learned_from is None or len(known) + len(further) > MAX_TRAININGS:
            self.add_unknown(_MORE_TRAININGS.format(other.table[: MAX_TEXT // 2]))
        for name in other.unknown_initial_models:
            self.add_unknown(name)
        self.reserved_initial_models = list(
            dict.fromkeys([*self.reserved_initial_models, *other.reserved_initial_models])
        )[:MAX_TRAININGS]

    def add_unknown(self, name: str) -> None:
        """Notes weights of which nobody knows what they have learned from."""
        if name not in self.unknown_initial_models:
            # The record holds so many at most, and the last one is known to be there.
            self.unknown_initial_models = [*self.unknown_initial_models[: MAX_TRAININGS - 1], name]
