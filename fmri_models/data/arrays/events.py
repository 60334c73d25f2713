"""EVENTS.csv: what a person says of their own betas, trial by trial."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import FmriModelsError
from ...names import check_name, closest, is_name, listed, one_line
from ...plain_values import ShortRepr
from ...reading import read_bytes
from .. import schema
from ..csv_files import UNKNOWN, check_columns, read_csv, read_number

# Of whom events are that say nothing of it.
DEFAULT_SUBJECT = "subj01"
_MOST_EVENTS = 2**20

_COLUMNS = ("subject", "stimulus_id", "session", "run", "repetition", "split", "block", "imagery")
# What others call these columns; a file that has them is asked to rename them, because they could mean something else.
_OTHER_NAMES = {
    "sub": "subject", "subj": "subject", "subject_id": "subject", "participant": "subject", "participant_id": "subject",
    "ses": "session", "sess": "session", "session_id": "session", "run_id": "run", "rep": "repetition",
    "stimulus": "stimulus_id", "stim": "stimulus_id", "stim_id": "stimulus_id", "stim_file": "stimulus_id",
    "image": "stimulus_id", "image_id": "stimulus_id", "picture": "stimulus_id", "part": "split", "set": "split",
    "block_id": "block", "imagined": "imagery",
}  # fmt: skip
# `ses-01` and `run-2` of BIDS, and `session 3`.
_LABELS = {
    column: re.compile(rf"(?:{names})[-_ ]?([0-9]+)", re.IGNORECASE)
    for column, names in (
        ("session", "ses|sess|session"), ("run", "run"), ("repetition", "rep|repetition"), ("block", "block")
    )
}  # fmt: skip
_YES_OR_NO = {**dict.fromkeys(("yes", "true", "1", "1.0"), True), **dict.fromkeys(("no", "false", "0", "0.0"), False)}
_PARTS = {
    **dict.fromkeys(("train", "training"), schema.TRAIN),
    **dict.fromkeys(("validation", "val", "valid", "dev"), schema.VALIDATION),
    **dict.fromkeys(("test", "testing"), schema.TEST),
    **dict.fromkeys(("unlabelled", "unlabeled"), schema.UNLABELLED),
}


@dataclass(repr=False)
class Events(ShortRepr):
    """Columns of EVENTS.csv; what it doesn't have is None. The stimulus id of a trial that has no stimulus is empty."""

    subject: list[str] | None
    stimulus_id: list[str]
    session: list[int] | None
    run: list[int] | None
    repetition: list[int] | None
    split: list[str] | None
    block: list[int] | None = None
    imagery: list[bool] | None = None

    def __len__(self) -> int:
        return len(self.stimulus_id)

    @property
    def labelled(self) -> np.ndarray:
        """(n,) bool, whether a trial has a stimulus."""
        return np.array(self.stimulus_id, dtype=str) != ""

    @property
    def shown(self) -> set[str]:
        """The stimuli."""
        return set(self.stimulus_id) - {""}


def read_events(path: Path, report: Callable[[str], None]) -> Events:
    """Reads EVENTS.csv.

    Args:
        path: The file, with commas, tabs or semicolons between fields.
        report: Takes a sentence about columns that are not used.

    Raises:
        FmriModelsError: It has no column `stimulus_id` or a misspelt one, a field is empty that can't be, an id can't
            be a file's name, a number or a part of the split is none, or a trial without a stimulus is in a part whose
            trials have some.
    """
    what = f"The events file {one_line(path)}"
    columns = read_csv(
        read_bytes(path, "events file", "give a CSV file"), what, ["stimulus_id"], _MOST_EVENTS, known=_COLUMNS
    )
    if not columns["stimulus_id"]:
        raise FmriModelsError(f"{what} has no rows; expected one a trial.")
    if unused := check_columns(columns, _COLUMNS, _OTHER_NAMES, what):
        report(unused)

    # BIDS writes that nothing was shown as n/a, which is no name of a file.
    stimuli = ["" if stimulus.casefold() == "n/a" else stimulus for stimulus in columns["stimulus_id"]]

    def text(column: str, unlabelled: str = "") -> list[str] | None:
        """The column; an empty field of a trial without a stimulus is what `unlabelled` says."""
        values = columns.get(column)
        if values is None:
            return None
        values = [value or ("" if shown else unlabelled) for value, shown in zip(values, stimuli, strict=True)]
        if "" in values:
            raise FmriModelsError(
                f"{what} has no {column} in row {values.index('') + 1}; fill the column, or leave it out."
            )
        return values

    def numbers(column: str, unlabelled: str = "") -> list[int] | None:
        values = text(column, unlabelled)
        return None if values is None else [_whole(value, column, what, i + 1) for i, value in enumerate(values)]

    parts = text("split", unlabelled=schema.UNLABELLED)
    for stimulus in sorted(set(stimuli) - {""}):
        _check_stimulus(stimulus)
    subjects = text("subject")
    _check_known(subjects or (), what)
    _check_subjects(set(subjects or ()), what)
    splits = None if parts is None else _parts(parts, what)
    if splits is not None:
        _check_labels(stimuli, splits, what)
    marks = text("imagery", unlabelled="no")
    imagery = None
    if marks is not None:
        imagery = [_imagined(*each, what, row) for row, each in enumerate(zip(marks, stimuli, strict=True), 1)]
    return Events(
        subjects,
        stimuli,
        numbers("session"),
        numbers("run"),
        numbers("repetition", unlabelled="0"),
        splits,
        numbers("block", unlabelled="0"),
        imagery,
    )


def _imagined(mark: str, stimulus: str, what: str, row: int) -> bool:
    """Whether a trial's stimulus was imagined."""
    imagined = _YES_OR_NO.get(mark.casefold())
    if imagined is None:
        raise FmriModelsError(f"{what} has {one_line(repr(mark), 60)} as imagery in row {row}; expected yes or no.")
    if imagined and not stimulus:
        raise FmriModelsError(
            f"{what} has no stimulus_id in row {row}, which is imagery; say what was imagined, or write no."
        )
    return imagined


def _check_stimulus(stimulus: str) -> None:
    try:
        check_name(stimulus, "stimulus id")
    except FmriModelsError as error:
        stem = PurePosixPath(stimulus.replace("\\", "/")).stem
        if stem == stimulus or not is_name(stem):
            raise
        raise FmriModelsError(
            f"{str(error).rstrip('.')}: an id is the name of a picture's file without folder and ending, here {stem}."
        ) from error


def without_spelling(subject: str) -> str:
    """A subject's name as its number alone where it has one: `subj01`, `sub-1`, `01` and `1.0` look like one person."""
    return re.sub(r"(sub-|subj|sub)?0*([0-9]+)(\.0)?", r"\2", subject.casefold())


def _check_known(subjects: Sequence[str], what: str) -> None:
    """Refuses a subject that is no name but how programs write that there is none."""
    row = next((row for row, name in enumerate(subjects, 1) if name.casefold() in UNKNOWN), None)
    if row is not None:
        raise FmriModelsError(
            f"{what} has {subjects[row - 1]} as subject in row {row}, which says that it is unknown; write whose trial "
            "it is, or leave the column out."
        )


def _check_subjects(subjects: set[str], what: str) -> None:
    """Refuses names by which one person would become two."""
    seen: dict[str, str] = {}
    for name in sorted(subjects):
        alike = without_spelling(name)
        if alike in seen:
            raise FmriModelsError(
                f"{what} has the subjects {one_line(seen[alike], 60)} and {one_line(name, 60)}, which look like one; "
                "write each subject alike in all rows."
            )
        seen[alike] = name


def _parts(written: Sequence[str], what: str) -> list[str]:
    """The parts of the split, of which `Train` and `val` leave no doubt."""
    parts = [_PARTS.get(value.casefold(), "") for value in written]
    if "" in parts:
        value = written[parts.index("")]
        near = closest(value.casefold(), _PARTS)
        hint = f": write {_PARTS[near]}" if near else ""
        raise FmriModelsError(
            f"{what} has the split {one_line(repr(value), 60)} in row {parts.index('') + 1}; expected "
            f"{', '.join(schema.SPLITS)}{hint}."
        )
    if schema.TRAIN not in parts and set(parts) != {schema.UNLABELLED}:
        raise FmriModelsError(
            f"No trial of the events is in the split {schema.TRAIN!r} ({what} has the split "
            f"{listed(map(repr, sorted(set(written))))}); expected some to learn from."
        )
    return parts


def _check_labels(stimuli: Sequence[str], parts: Sequence[str], what: str) -> None:
    """Refuses a trial without a stimulus anywhere but among those that have none, and one with a stimulus there."""
    for row, (stimulus, part) in enumerate(zip(stimuli, parts, strict=True), 1):
        if not stimulus and part != schema.UNLABELLED:
            raise FmriModelsError(
                f"{what} has no stimulus_id in row {row}, which is in the split {part!r}; say what was shown, or write "
                f"{schema.UNLABELLED} as its split."
            )
        if stimulus and part == schema.UNLABELLED:
            raise FmriModelsError(
                f"{what} has the stimulus {one_line(stimulus, 60)} in row {row}, which is in the split {part!r}, whose "
                "trials have none; leave its stimulus_id empty, or write another split."
            )


def _whole(text: str, column: str, what: str, row: int) -> int:
    label = _LABELS[column].fullmatch(text)
    try:
        number = read_number(label[1] if label else text)
    except ValueError:
        number = float("nan")
    # Spreadsheets write whole numbers as 1.0.
    if not number.is_integer() or not 0 <= number <= schema.MAX_INT32:
        example = {"session": " or a label such as ses-01", "run": " or a label such as run-01"}.get(column, "")
        raise FmriModelsError(
            f"{what} has {one_line(repr(text), 60)} as {column} in row {row}; expected a whole number from 0 to "
            f"{schema.MAX_INT32}{example}."
        )
    return int(number)
