"""What a saved pipeline remembers of its training, so that evaluation keeps to the trials that it did not see."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from .reading import checked, read_object
from .saving import check_schema, json_text, write_text
from .version import __version__

TRAINING_FILE = "training.json"
RECORD_SCHEMA = 1
_WHAT, _MEND = "record of training", "save the pipeline again, or take training.json from where it was trained"

_Text = Annotated[str, Field(max_length=1000)]


@dataclass
class TrainingRecord:
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
    """

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
    schema: int = RECORD_SCHEMA
    fmri_models_version: _Text = __version__

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `training.json`."""
        write_text(Path(folder) / TRAINING_FILE, json_text(asdict(self)))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "TrainingRecord | None":
        """Reads `training.json`; None if the folder has none, as a converted checkpoint.

        Raises:
            FmriModelsError: It is damaged, or was written by a newer version.
        """
        path = Path(folder) / TRAINING_FILE
        # What is there and no file must not pass for a pipeline without a record, which may be evaluated on anything.
        if not os.path.lexists(path):
            return None
        return cls.from_dict(read_object(path, _WHAT, _MEND), str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str) -> "TrainingRecord":
        """The record that the values of a `training.json` make.

        Args:
            values: What was read.
            source: Where it was read, for messages.

        Raises:
            FmriModelsError: A value is missing, unknown or of another type, or a newer version has written it.
        """
        check_schema(values.get("schema"), RECORD_SCHEMA, source)
        return checked(values, cls, f"The {_WHAT} {source}", _MEND)
