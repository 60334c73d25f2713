"""What a pipeline that was converted remembers of the published checkpoints it was made of."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import FmriModelsError
from ..saving import check_schema
from ..version import __version__

CONVERSION_FILE = "conversion.json"
RECORD_SCHEMA = 1


@dataclass
class ConversionRecord:
    """Which files became the weights.

    Args:
        method: Name of the method.
        checkpoints: Names of the files, without their folders.
    """

    method: str
    checkpoints: list[str]
    schema: int = RECORD_SCHEMA
    fmri_models_version: str = __version__

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `conversion.json`."""
        (Path(folder) / CONVERSION_FILE).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ConversionRecord | None":
        """Reads `conversion.json`; None if the folder has none, as a pipeline that was trained.

        Raises:
            FmriModelsError: It is damaged, or was written by a newer version.
        """
        path = Path(folder) / CONVERSION_FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            check_schema(values.get("schema"), RECORD_SCHEMA, str(path))
            return cls(**values)
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise FmriModelsError(f"{path} is damaged ({error}); convert the checkpoint again.") from error
