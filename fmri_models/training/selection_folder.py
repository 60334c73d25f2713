"""Where a selection keeps its scores and what it trains, beside the output folder, until the pipeline is saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field
from typing_extensions import TypedDict

from ..errors import FmriModelsError
from ..reading import checked, read_object
from ..saving import json_text, write_text
from .run_folder import RunFolder


class _Score(TypedDict):
    """What an inner training gave."""

    score: Annotated[float, Field(allow_inf_nan=False)]
    items: Annotated[int, Field(ge=1, lt=2**53)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SelectionFolder(RunFolder):
    """The folder of one selection.

    Args:
        out: The output folder of the training; the selection is in the hidden folder `.<name>.selection` beside it.
    """

    purpose = "selection"

    @property
    def exists(self) -> bool:
        """Whether there is anything to go on from."""
        return self._scores_file.is_file() or any(self.folder.glob(".*.training/stage*/*"))

    def scores(self) -> dict[str, Any]:
        """Name of an inner training ▶ its score, number of items, and seconds; of those that are finished.

        Raises:
            FmriModelsError: The file is damaged.
        """
        if not self._scores_file.is_file():
            return {}
        mend = "delete it, and --resume selects again"
        try:
            scores = checked(read_object(self._scores_file, "record of scores", mend), dict[str, _Score], "It", mend)
        except FmriModelsError as error:
            raise FmriModelsError(f"{self._scores_file} is damaged ({str(error).rstrip('.')}).") from error
        return cast(dict[str, Any], scores)

    def save_scores(self, scores: Mapping[str, Any]) -> None:
        """Replaces the scores."""
        write_text(self._scores_file, json_text(scores))

    @property
    def _scores_file(self) -> Path:
        return self.folder / "scores.json"
