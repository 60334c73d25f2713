"""What a pipeline that was converted remembers of the published checkpoints it was made of."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..saved_record import SavedRecord
from ..version import __version__

_Text = Annotated[str, Field(max_length=1000)]


@dataclass
class ConversionRecord(SavedRecord):
    """Which files became the weights.

    Args:
        method: Name of the method.
        checkpoints: Names of the files, without their folders.
    """

    file = "conversion.json"
    newest_schema = 1
    what = "record of conversion"
    mend = "convert the checkpoint again"

    method: _Text
    checkpoints: list[_Text]
    schema: int = newest_schema
    fmri_models_version: _Text = __version__
