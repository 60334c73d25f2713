"""Split files: reading and building them, and the checks that no picture is learned from and tested on."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field

from ..errors import FmriModelsError
from ..names import is_line, listed, one_line
from ..reading import checked, parse_json
from ..saving import check_schema
from . import schema
from .parquet import read_parquet
from .parquet_columns import check_names, check_texts, text_array, whole_numbers

_SPLITS = schema.splits_schema("", None, "")
_VALUES_A_CHUNK = 2**16


class Split:
    """One split: its rows, and how it was made.

    Args:
        rows: With the columns of a split file.
        path: The file, for messages.
        subjects: Of the table.

    Attributes:
        columns: `fold, subject, trial, stimulus_id, split`, (rows,) each.
        num_folds: How many folds there are; an empty one where the split has no rows, as that of a table whose trials
            have no stimuli.
        repeats_stimuli: Why stimuli are in several parts; empty where none is.
        how: `by` and `seed`, as far as the file says so, and what else decided the split.
    """

    def __init__(self, rows: pa.Table, path: Path, subjects: Sequence[str]) -> None:
        made = _split_how(rows.schema.metadata or {}, path)
        self.repeats_stimuli = made.repeats_stimuli
        self.how: dict[str, str | int | float] = {
            **({"by": made.by} if made.by else {}),
            **({} if made.seed is None else {"seed": made.seed}),
            **made.made_with,
        }
        _check_among(rows["split"], schema.SPLITS, path, "the part")
        _check_among(rows["subject"], subjects, path, "the subject")
        check_names(rows["stimulus_id"], path, "stimulus id")
        self.columns: dict[str, np.ndarray] = {}
        for name in _SPLITS.names:
            if name in ("fold", "trial"):
                most = schema.MAX_FOLDS - 1 if name == "fold" else schema.MAX_INT32
                self.columns[name] = whole_numbers(rows[name], path, f"{name} numbers", most)
            else:
                self.columns[name] = text_array(rows[name], f"{one_line(path)}: the column {name}")
        folds = np.unique(self.columns["fold"])
        self.num_folds = max(1, len(folds))
        if len(folds) and folds[-1] != self.num_folds - 1:
            raise FmriModelsError(
                f"The split {one_line(path)} has the fold {folds[-1]} but {self.num_folds} folds in all; expected them "
                "to count from 0; make the split again."
            )
        self._check_trials_once(path)

    @classmethod
    def read(cls, path: Path, subjects: Sequence[str]) -> "Split":
        """The split of a file.

        Raises:
            FmriModelsError: It is damaged, or names what there is not.
        """
        return cls(read_parquet(path, _SPLITS, most_rows=schema.MAX_SPLIT_ROWS), path, subjects)

    def _check_trials_once(self, path: Path) -> None:
        """Refuses a trial that is twice in a fold, where it could be both learned from and tested."""
        fold, subject, trial = (self.columns[name] for name in ("fold", "subject", "trial"))
        names, numbers = np.unique(subject, return_inverse=True)
        keys = (fold.astype(np.int64) * len(names) + numbers) * (schema.MAX_INT32 + 1) + trial
        order = np.argsort(keys, kind="stable")
        twice = order[1:][np.diff(keys[order]) == 0]
        if len(twice):
            row = twice[0]
            raise FmriModelsError(
                f"The split {one_line(path)} has trial {trial[row]} of {subject[row]} twice in fold {fold[row]}; make "
                "the split again."
            )

    def trials(self, subject: str, parts: Sequence[str], fold: int) -> np.ndarray:
        columns = self.columns
        chosen = (columns["fold"] == fold) & (columns["subject"] == subject) & np.isin(columns["split"], parts)
        return columns["trial"][chosen]

    def fingerprint(self, of_table: str) -> str:
        """SHA-256 over a table's fingerprint and all rows."""
        digest = hashlib.sha256(of_table.encode())
        for values in self.columns.values():
            for text in _list_text(values):
                digest.update(text.encode())
        return digest.hexdigest()


def _one_line(text: str) -> str:
    if not is_line(text):
        raise ValueError("one line without control characters")
    return text


_Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
_Line = Annotated[str, Field(max_length=1000), AfterValidator(_one_line)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_MOST_KEYS = 100


@dataclass(frozen=True)
class _How:
    """How a split was made; other keys say to which table it belongs."""

    by: str = ""
    seed: int | None = None
    repeats_stimuli: str = ""
    made_with: dict[_Key, _Line | int | _Number] = field(default_factory=dict)


def _split_how(about: Mapping[bytes, bytes], path: Path) -> _How:
    what = f"What the split {one_line(path)} says of itself"
    try:
        text = about.get(b"fmri_models", b"{}").decode("utf-8")
    except UnicodeDecodeError as error:
        raise FmriModelsError(f"{what} is no text in UTF-8; make the split again.") from error
    values = parse_json(text, what, "make the split again")
    if not isinstance(values, dict):
        raise FmriModelsError(f"{what} is no JSON object; make the split again.")
    check_schema(values.get("schema"), schema.SCHEMA_VERSION, f"The split {one_line(path)}")
    known = {key: values[key] for key in ("by", "seed", "repeats_stimuli", "made_with") if key in values}
    found = checked(known, _How, what, "make the split again")
    if len(found.made_with) > _MOST_KEYS:
        raise FmriModelsError(f"{what} has {len(found.made_with)} values; expected {_MOST_KEYS} at most.")
    return found


def _check_among(column: pa.ChunkedArray, known: Sequence[str], path: Path, what: str) -> None:
    def check(text: str) -> None:
        if text not in known:
            raise FmriModelsError(
                f"The split {one_line(path)} has {what} {one_line(repr(text))}; expected one of "
                f"{listed(known, 20)}; make the split again."
            )

    check_texts(column, check)


def _list_text(values: np.ndarray) -> Iterator[str]:
    """The text of a list of some values, in chunks: of all at once it would take gigabytes."""
    yield "["
    for start in range(0, len(values), _VALUES_A_CHUNK):
        yield ", " * (start > 0) + repr(values[start : start + _VALUES_A_CHUNK].tolist())[1:-1]
    yield "]"


def split_table(
    rows: Mapping[str, Sequence] | Sequence[Mapping] | pa.Table,
    by: str,
    seed: int | None,
    repeats_stimuli: str,
    made_with: Mapping[str, str | int | float] | None = None,
) -> pa.Table:
    """A split's rows as the Arrow table that is written."""
    of_split = schema.splits_schema(by, seed, repeats_stimuli, made_with)
    if isinstance(rows, pa.Table):
        return rows.select(of_split.names).cast(of_split)
    if isinstance(rows, Mapping):
        return pa.table({name: rows[name] for name in of_split.names}, schema=of_split)
    return pa.Table.from_pylist([dict(row) for row in rows], schema=of_split)


def part_fingerprints(split: pa.Table, fold: int) -> dict[str, str]:
    """Part ▶ SHA-256 over its subjects, trials and stimuli in one fold, in whatever order the file has them.

    Args:
        split: Rows with `fold, subject, trial, stimulus_id, split`.
        fold: Which fold.
    """
    columns = {name: split[name].to_numpy(zero_copy_only=False) for name in ("fold", "split")}
    fingerprints = {}
    for part in schema.SPLITS:
        rows = np.flatnonzero((columns["fold"] == fold) & (columns["split"] == part))
        chosen = (split[name].take(pa.array(rows)).to_pylist() for name in ("subject", "trial", "stimulus_id"))
        digest = hashlib.sha256()
        # Ids have no spaces, so that no two lists of rows make the same text.
        for subject, trial, stimulus in sorted(zip(*chosen, strict=True)):
            digest.update(f"{subject} {trial} {stimulus}\n".encode())
        fingerprints[part] = digest.hexdigest()
    return fingerprints


def parts_by_fold(split: pa.Table) -> Iterator[tuple[int, set[str], set[str]]]:
    """For each fold, what it tests and has not in training or validation by its id, and what it has there.

    Args:
        split: Rows with `fold, stimulus_id, split`.
    """
    stimuli: dict[tuple[int, bool], set[str]] = defaultdict(set)
    columns = (split[name].to_pylist() for name in ("fold", "stimulus_id", "split"))
    for fold, stimulus, part in zip(*columns, strict=True):
        stimuli[fold, part == schema.TEST].add(stimulus)
    for fold in sorted({fold for fold, _ in stimuli}):
        known = stimuli[fold, False]
        yield fold, stimuli[fold, True] - known, known


def check_disjoint(split: pa.Table, contents: Mapping[str, str | None], name: str) -> None:
    """Refuses a split in which a picture is in two parts of the same fold, over all subjects together.

    Args:
        split: Rows with `fold, stimulus_id, split`.
        contents: Stimulus id to the hash of its pixels, None where the picture is not there.
        name: The split's name, for the error.

    Raises:
        FmriModelsError: A picture is in two parts, by its id or by its content.
    """
    seen: dict[tuple[int, str], tuple[str, str]] = {}
    triples = sorted(set(zip(*(split[key].to_pylist() for key in ("fold", "stimulus_id", "split")), strict=True)))
    for fold, stimulus, part in triples:
        for key in (f"id {stimulus}", f"content {contents.get(stimulus) or stimulus}"):
            other, other_part = seen.setdefault((fold, key), (stimulus, part))
            if other_part == part:
                continue
            what = f"The stimulus {stimulus}" if other == stimulus else f"The same picture ({other} and {stimulus})"
            raise FmriModelsError(
                f"{what} is in {other_part} and in {part} of the split {name!r} (fold {fold}); split by stimulus, over "
                "all subjects together."
            )


def check_split_rows(name: str, split: pa.Table, shown: Mapping[tuple[str, int], str]) -> None:
    """Refuses a split that names trials which the table doesn't have, or one trial twice in a fold.

    Args:
        name: The split's name, for the error.
        split: Its rows.
        shown: (subject, trial) to stimulus id, for all trials of the table.

    Raises:
        FmriModelsError: A row is wrong.
    """
    seen = set()
    for row in split.to_pylist():
        trial = (row["subject"], row["trial"])
        if shown.get(trial) != row["stimulus_id"]:
            raise FmriModelsError(
                f"The split {name!r} names trial {row['trial']} of {row['subject']} with the stimulus "
                f"{row['stimulus_id']}, which the table doesn't have."
            )
        if row["split"] not in schema.SPLITS:
            raise FmriModelsError(
                f"The split {name!r} has the part {row['split']!r}; expected one of {', '.join(schema.SPLITS)}."
            )
        if (row["fold"], trial) in seen:
            raise FmriModelsError(
                f"The split {name!r} has trial {row['trial']} of {row['subject']} twice in fold {row['fold']}."
            )
        seen.add((row["fold"], trial))
