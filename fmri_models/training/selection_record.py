"""What `training.json` says of a selection: what was chosen among, and what was chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from ..errors import FmriModelsError
from ..reading import checked
from .recipe import Selection, published_candidates


class _Candidate(TypedDict):
    """What `training.json` holds of a candidate, as far as it is read again."""

    values: dict[str, Any]


class _Choice(TypedDict):
    """What `training.json` holds of a selection, as far as it is read again."""

    metric: str
    inner_folds: int
    chosen: Annotated[int, Field(ge=0)]
    candidates: list[_Candidate]


def described(selection: Selection | None) -> dict[str, Any]:
    """What makes a selection the same as another one: its metric, its inner folds and its candidates."""
    if selection is None:
        return {}
    return {
        "metric": selection.metric,
        "folds": selection.folds,
        "candidates": published_candidates(selection.candidates),
    }


def recorded(record: Mapping[str, Any] | None, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What [`described`] says of the selection in a `training.json`, and the values that it chose.

    Args:
        record: What the file holds of it; None if nothing was chosen.
        source: The pipeline, for messages.

    Raises:
        FmriModelsError: It is damaged.
    """
    if record is None:
        return {}, {}
    what, mend = f"The record of the selection of {source}", "take training.json from where it was trained"
    choice = checked(dict(record), _Choice, what, mend)
    candidates = [each["values"] for each in choice["candidates"]]
    if choice["chosen"] >= len(candidates):
        raise FmriModelsError(f"{what} chose number {choice['chosen']} of {len(candidates)} candidates; {mend}.")
    described = {"metric": choice["metric"], "folds": choice["inner_folds"], "candidates": candidates}
    return described, candidates[choice["chosen"]]
