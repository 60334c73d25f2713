"""What a saved pipeline remembers of its training, so that evaluation keeps to the trials that it did not see."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import FmriModelsError
from .saving import check_schema
from .version import __version__

TRAINING_FILE = "training.json"
RECORD_SCHEMA = 1


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

    method: str
    table: str
    table_fingerprint: str
    split: str
    fold: int
    train_parts: list[str]
    repetitions: str
    simulated: bool | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    selection: dict[str, Any] | None = None
    seconds: float = 0.0
    schema: int = RECORD_SCHEMA
    fmri_models_version: str = __version__

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `training.json`."""
        (Path(folder) / TRAINING_FILE).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "TrainingRecord | None":
        """Reads `training.json`; None if the folder has none, as a converted checkpoint.

        Raises:
            FmriModelsError: It is damaged, or was written by a newer version.
        """
        path = Path(folder) / TRAINING_FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            check_schema(values.get("schema"), RECORD_SCHEMA, str(path))
            return cls(**values)
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise FmriModelsError(f"{path} is damaged ({error}); save the pipeline again.") from error
