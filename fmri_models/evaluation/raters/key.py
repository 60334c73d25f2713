"""The key of a pack: what each trial shows, which nobody who answers may see."""

from os import PathLike
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...names import one_line
from ...reading import checked, read_object
from ...saving import check_schema, json_text, write_text
from ..report_schema import Count, Line, Metric, Name, Whole

KEY_SCHEMA = 1
_MEND = "give the file …-key.json that was written with the pack"
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Choice = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow")


class KeyTrial(_Strict):
    """A trial with what its pictures are of.

    Attributes:
        id: As the page names it; None for a trial that is not shown, because its pictures are the same.
        kind: See [`Trial`].
        group: Trials of different groups share no stimulus.
        subject: Whose reconstruction.
        stimulus: What is shown.
        other: The stimulus of the other picture.
        row: The row of the other picture.
        own: Name of the file with the own picture (in a catch trial: with the one shown).
        beside: Name of the file with the other one.
        own_first: Whether the own one is the first of the two on the page, before a rater's own exchange of sides.
        again: `id` of the trial that it repeats.
        chosen_by: Metric ▶ 1 where it finds the own picture more like, 0 the other one, .5 neither.
    """

    id: Token | None
    kind: Literal["own_or_other", "own_or_row", "catch", "repeat"]
    group: Annotated[Whole, Field(ge=0)]
    subject: Name
    stimulus: Name
    other: Name
    row: Name
    own: Token | None
    beside: Token | None
    own_first: bool
    again: Token | None = None
    chosen_by: dict[Metric, Choice] = {}

    @model_validator(mode="after")
    def _is_shown_or_not(self) -> "KeyTrial":
        if len({self.id is None, self.own is None, self.beside is None}) > 1 or (self.again is None) == (
            self.kind == "repeat"
        ):
            raise ValueError("id and both pictures or none of them, and for a repeated trial which one it repeats")
        return self


class Key(_Strict):
    """The content of a key.

    Attributes:
        pack: What page, answers and key have in common.
        items_sha256: Of the report that the pack was made with.
        seed: Of the choice of trials.
        catch_needed: A rater with fewer right answers in the catch trials does not count. Decided with the pack, before
            anybody has answered.
        trials: All of them.
    """

    format: Literal["fmri_models.rater_key"] = "fmri_models.rater_key"
    pack: Token
    items_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    protocol: Line = ""
    seed: Whole
    catch_needed: Count
    trials: Annotated[list[KeyTrial], Field(min_length=1, max_length=100_000)]

    @model_validator(mode="after")
    def _names_are_of_one_trial(self) -> "Key":
        shown = [each for each in self.trials if each.id is not None]
        names = [name for each in shown for name in (each.id, each.own, each.beside)]
        ids = {each.id for each in shown if each.kind in ("own_or_other", "own_or_row")}
        if len(set(names)) < len(names) or not ids.issuperset(it.again for it in shown if it.again is not None):
            raise ValueError("names that are of one trial or picture each, and repeated trials that are there")
        if self.catch_needed > sum(each.kind == "catch" for each in shown):
            raise ValueError("as many catch trials as are needed")
        return self

    @property
    def shown(self) -> dict[str, KeyTrial]:
        """The trials that are shown, by their ids."""
        return {each.id: each for each in self.trials if each.id is not None}

    def save(self, path: str | PathLike) -> None:
        """Writes the key."""
        write_text(path, json_text({"schema": KEY_SCHEMA, **self.model_dump()}) + "\n")

    @classmethod
    def load(cls, path: str | PathLike) -> "Key":
        """Reads a key.

        Raises:
            FmriModelsError: It is none, or of a newer version.
        """
        path = Path(path)
        content = read_object(path, "key of a rater pack", _MEND)
        check_schema(content.pop("schema", None), KEY_SCHEMA, one_line(path))
        return checked(content, cls, f"The key {one_line(path)}", _MEND)
