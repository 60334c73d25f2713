"""What a pipeline that was converted remembers of the published checkpoints it was made of."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from .saved_record import SavedRecord
from .version import __version__

_Text = Annotated[str, Field(max_length=1000)]


@dataclass
class ConversionRecord(SavedRecord):
    """Which files became the weights.

    Args:
        method: Name of the method.
        checkpoints: Names of the files, without their folders.
        may_be_shared: Whether what was made of them may be passed on, as far as is known; see `PretrainedRecord`.
    """

    file = "conversion.json"
    newest_schema = 1
    what = "record of conversion"
    mend = "convert the checkpoint again"

    method: _Text
    checkpoints: list[_Text]
    may_be_shared: bool = True
    schema: int = newest_schema
    fmri_models_version: _Text = __version__
