"""What a pipeline that was converted remembers of the published checkpoints it was made of."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..reading import checked, read_object
from ..saving import check_schema, json_text, write_text
from ..version import __version__

CONVERSION_FILE = "conversion.json"
RECORD_SCHEMA = 1
_WHAT, _MEND = "record of conversion", "convert the checkpoint again"

_Text = Annotated[str, Field(max_length=1000)]


@dataclass
class ConversionRecord:
    """Which files became the weights.

    Args:
        method: Name of the method.
        checkpoints: Names of the files, without their folders.
    """

    method: _Text
    checkpoints: list[_Text]
    schema: int = RECORD_SCHEMA
    fmri_models_version: _Text = __version__

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `conversion.json`."""
        write_text(Path(folder) / CONVERSION_FILE, json_text(asdict(self)))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ConversionRecord | None":
        """Reads `conversion.json`; None if the folder has none, as a pipeline that was trained.

        Raises:
            FmriModelsError: It is damaged, or was written by a newer version.
        """
        path = Path(folder) / CONVERSION_FILE
        if not os.path.lexists(path):
            return None
        values: dict[str, Any] = read_object(path, _WHAT, _MEND)
        check_schema(values.get("schema"), RECORD_SCHEMA, str(path))
        return checked(values, cls, f"The {_WHAT} {path}", _MEND)
