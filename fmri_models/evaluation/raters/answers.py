"""What raters send back: a file of each, as the page of a pack writes it."""

import os
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...errors import FmriModelsError
from ...names import listed, one_line
from ...reading import MEBIBYTE, checked, read_object
from ..report_schema import Name, Whole
from .key import Key, Token

_FORMAT = "fmri_models.rater_answers"
_SCHEMA = 1
_MEND = "give the files that raters have downloaded from the page"
_MOST_BYTES = 16 * MEBIBYTE
_FNV_PRIME, _FNV_STARTS = 0x01000193, (0x811C9DC5, 0x01234567)


class Answer(BaseModel):
    """One choice.

    Attributes:
        trial: `id` of the trial.
        chosen: Name of the chosen picture.
        side: Where it was.
        milliseconds: From when the pictures were there to the choice.
    """

    model_config = ConfigDict(extra="forbid")
    trial: Token
    chosen: Token
    side: Literal["left", "right"]
    milliseconds: Annotated[Whole, Field(ge=0)]


class RaterAnswers(BaseModel):
    """All choices of a rater.

    Attributes:
        pack: Of which pack.
        rater: What the rater is called, a name or an alias.
        session: Random; two files of one session are of one rater.
        answers: In the order in which they were given.
        checksum: Of all that, by which a change after the download is noticed. It is no signature: who means to deceive
            can write it, too.
    """

    model_config = ConfigDict(extra="allow")
    format: Literal["fmri_models.rater_answers"]
    pack: Token
    rater: Name
    session: Token
    answers: Annotated[list[Answer], Field(max_length=100_000)]
    checksum: Token

    @property
    def choices(self) -> dict[str, Answer]:
        """By trial."""
        return {each.trial: each for each in self.answers}

    def is_unchanged(self) -> bool:
        """Whether the checksum is that of the content."""
        lines = [self.pack, self.rater, self.session]
        lines += [f"{each.trial},{each.chosen},{each.side},{each.milliseconds}" for each in self.answers]
        return checksum("\n".join(lines)) == self.checksum


def checksum(text: str) -> str:
    """Two FNV-1a hashes of 32 bits each, as the page computes them."""
    parts = []
    for value in _FNV_STARTS:
        for byte in text.encode("utf-8"):
            value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
        parts.append(f"{value:08x}")
    return "".join(parts)


def read_all_answers(paths: Sequence[str | PathLike], key: Key) -> list[RaterAnswers]:
    """The answers of several raters to one pack.

    Args:
        paths: Files, or folders whose files of JSON are taken.
        key: Of the pack.

    Raises:
        FmriModelsError: A file is none of answers, is of another pack, is not finished or was changed, or two files are
            of one rater.
    """
    found: list[tuple[Path, RaterAnswers]] = []
    for path in _files(paths):
        answers = read_answers(path, key)
        for earlier_path, earlier in found:
            names = f"{one_line(earlier_path)} and {one_line(path)}"
            if earlier.session == answers.session:
                raise FmriModelsError(f"{names} are of one session of one rater; leave one of them out.")
            if earlier.rater.strip().casefold() == answers.rater.strip().casefold():
                raise FmriModelsError(
                    f"{names} both have the rater {one_line(repr(answers.rater), 80)}, and nobody counts twice; leave "
                    "one of them out, or, if these are two people, have one answer again under another alias."
                )
        found.append((path, answers))
    return [answers for _, answers in found]


def read_answers(path: str | PathLike, key: Key) -> RaterAnswers:
    """The answers of one rater; see [`read_all_answers`]."""
    what = f"The file of answers {one_line(path)}"
    content = read_object(path, "file of answers", _MEND, _MOST_BYTES)
    if content.get("format") != _FORMAT:
        raise FmriModelsError(f"{one_line(path)} holds no answers of a rater; {_MEND}.")
    if content.pop("schema", None) != _SCHEMA:
        raise FmriModelsError(f"{what} is of another version than {_SCHEMA}, which is read here; {_MEND}.")
    answers = checked(content, RaterAnswers, what, _MEND)
    if answers.pack != key.pack:
        raise FmriModelsError(
            f"{what} is of another pack ({answers.pack}) than the key ({key.pack}); give the key of the pack that was "
            "answered."
        )
    if not answers.is_unchanged():
        raise FmriModelsError(
            f"{what} was changed after it was downloaded (its checksum is another); take the file as the rater sent it."
        )
    _check_against(answers, key, what)
    return answers


def _check_against(answers: RaterAnswers, key: Key, what: str) -> None:
    shown, seen = key.shown, set()
    for each in answers.answers:
        trial = shown.get(each.trial)
        if trial is None:
            raise FmriModelsError(f"{what} answers the trial {each.trial}, which the pack does not have; {_MEND}.")
        if each.chosen not in (trial.own, trial.beside):
            raise FmriModelsError(
                f"{what} has the picture {each.chosen} chosen, which is none of the two of trial {each.trial}; {_MEND}."
            )
        if each.trial in seen:
            raise FmriModelsError(f"{what} answers the trial {each.trial} twice; {_MEND}.")
        seen.add(each.trial)
    if missing := len(shown) - len(seen):
        raise FmriModelsError(
            f"{what} is not finished: {missing} of {len(shown)} trials have no answer. On the same device, the page "
            "goes on where it was left; or leave the file out."
        )


def _files(paths: Sequence[str | PathLike]) -> Iterator[Path]:
    seen: set[str] = set()
    for path in map(Path, paths):
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise FmriModelsError(f"{one_line(path)} has no file of answers (*.json); {_MEND}.")
        for file in files:
            place = os.path.realpath(file)
            if place in seen:
                raise FmriModelsError(f"The file of answers {one_line(file)} is given twice; give each once.")
            seen.add(place)
            yield file
    if not seen:
        raise FmriModelsError(f"There are no files of answers in {listed(paths)}; {_MEND}.")
