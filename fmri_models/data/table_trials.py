"""The trials of a table: what was shown when, and the betas."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..deprecation import renamed_argument
from ..errors import FmriModelsError
from ..names import listed, one_line
from . import parquet, schema
from .matrix import FmriMatrix
from .parquet import MEND, read_parquet
from .parquet_columns import check_names, text_array, text_list, whole_numbers

if TYPE_CHECKING:
    from .table import TrialTable


class Trials:
    """Trials of one subject: what was shown when, and the betas, read from a memory-mapped matrix.

    Attributes:
        table: The trial table.
        subject: The subject's id.
        stimulus_ids: (n,) str array.
        sessions: (n,) int32.
        runs: (n,) int32.
        trials: (n,) int32 trial numbers, unique within the subject.
        repetitions: (n,) int32, from 0.
        blocks: (n,) int32 block of its run; 0 where the table does not know.
        imagery: (n,) bool, whether the stimulus was imagined and not shown.
    """

    def __init__(self, table: "TrialTable", files: "TrialFiles", positions: np.ndarray) -> None:
        self.table = table
        self.subject = files.subject
        self._files = files
        self._positions = positions
        self.stimulus_ids = files.columns["stimulus_id"][positions]
        self.sessions = files.columns["session"][positions]
        self.runs = files.columns["run"][positions]
        self.trials = files.columns["trial"][positions]
        self.repetitions = files.columns["repetition"][positions]
        self.blocks = files.columns[schema.BLOCK][positions]
        self.imagery = files.columns[schema.IMAGERY][positions]

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return f"Trials({self.subject!r}, {len(self)} trials, {self.num_voxels} voxels)"

    @property
    def num_voxels(self) -> int:
        """How many voxels the subject has."""
        return self._files.num_voxels

    @renamed_argument("rows", "positions", since="0.1")
    def fmri(self, positions: int | Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Betas of some trials, (n, V) float32, in the order asked for; of all trials without `positions`.

        Args:
            positions: Which of these trials, from 0; a boolean mask, or a slice. A number alone gives (1, V).

        Raises:
            FmriModelsError: Positions are no whole numbers.
        """
        chosen = self._positions if positions is None else self._positions[_indices(positions)]
        return self._files.matrix.gather(chosen)

    @property
    def window_shape(self) -> tuple[int, int] | None:
        """Shape of each trial that is a window, (time, voxels) or (channels, time); None where trials are patterns."""
        return self.table.window_shape(self.subject)

    def windows(self, positions: int | Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Windows of some trials, (n, *window_shape) float32, as [`fmri`] gives them flat.

        Args:
            positions: As of [`fmri`].

        Raises:
            FmriModelsError: The trials are patterns, not windows.
        """
        shape = self.window_shape
        if shape is None:
            raise FmriModelsError(
                f"The trials of {self.subject} are patterns of {self.num_voxels} voxels, not windows; take fmri()."
            )
        return self.fmri(positions).reshape(-1, *shape)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All trials in order: their positions (b,) here and their betas (b, V) float32."""
        for start in range(0, len(self), size):
            positions = np.arange(start, min(start + size, len(self)))
            yield positions, self.fmri(positions)

    @renamed_argument("rows", "positions", since="0.1")
    def subset(self, positions: int | Sequence[int] | np.ndarray | slice) -> "Trials":
        """Some of these trials, by their positions, as of [`fmri`]."""
        return Trials(self.table, self._files, self._positions[_indices(positions)])


class TrialFiles:
    """All trials of one subject as their files have them.

    Args:
        folder: The table's.
        subject: The subject's id.
        metadata: What `table.json` says.
        fingerprint: The table's.
    """

    def __init__(self, folder: Path, subject: str, metadata: Mapping[str, Any], fingerprint: str) -> None:
        self.subject = subject
        self.num_voxels: int = metadata["num_voxels"][subject]
        self._folder = folder
        self._recorded: Mapping[str, Mapping] = metadata["files"]
        self._counts: Mapping[str, int] = metadata["trials"][subject]
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.columns["trial"])

    @property
    def paths(self) -> list[Path]:
        """Train, validation, test, unlabelled, each in order."""
        prefix = f"{schema.TRIALS_FOLDER}/{self.subject}/"
        names = [name for name in self._recorded if name.startswith(prefix)]

        def order(name: str) -> tuple[int, str]:
            file = name.removeprefix(prefix)
            return schema.FILE_PARTS.index(file.split("-")[0]), file

        return [self._folder / name for name in sorted(names, key=order)]

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """(trials,) each: everything but the betas.

        Raises:
            FmriModelsError: A file is damaged, or has other trials than `table.json` says.
        """
        names = (*schema.TRIAL_COLUMNS, *schema.OPTIONAL_TRIAL_COLUMNS)
        chunks: dict[str, list[np.ndarray]] = {name: [] for name in names}
        counts = dict.fromkeys(schema.FILE_PARTS, 0)
        for path in self.paths:
            found = self._read(path)
            counts[path.name.split("-")[0]] += len(found["trial"])
            for name, values in found.items():
                chunks[name].append(values)
        for part, expected in self._counts.items():
            if counts[part] != expected:
                raise FmriModelsError(
                    f"{self.subject} has {counts[part]} trials in {part}; {schema.TABLE_FILE} says {expected}; {MEND}."
                )
        columns = {name: np.concatenate(values) if values else np.zeros(0) for name, values in chunks.items()}
        numbers, times = np.unique(columns["trial"], return_counts=True)
        if (times > 1).any():
            raise FmriModelsError(
                f"{self.subject} has {(times > 1).sum()} trial numbers more than once "
                f"({listed(numbers[times > 1])}) in {self._folder}; {MEND}."
            )
        return columns

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        optional = parquet.columns_there(path, schema.OPTIONAL_TRIAL_COLUMNS)
        expected = schema.trials_schemas(self.num_voxels, optional)
        columns = (*schema.TRIAL_COLUMNS, *optional)
        rows = read_parquet(path, *expected, columns=columns, most_rows=schema.MAX_TRIALS)
        if others := sorted(set(text_list(rows["subject"])) - {self.subject}, key=str):
            raise FmriModelsError(
                f"{one_line(path)} has trials of {listed(others)}; expected {self.subject} only; {MEND}."
            )
        if path.name.split("-")[0] != schema.UNLABELLED:
            check_names(rows["stimulus_id"], path, "stimulus id")
        elif named := sorted(set(text_list(rows["stimulus_id"])) - {""}, key=str):
            raise FmriModelsError(
                f"{one_line(path)} has unlabelled trials of the stimulus {one_line(repr(named[0]), 80)}; expected an "
                f"empty stimulus id; {MEND}."
            )
        found = {
            name: text_array(rows[name], f"{one_line(path)}: the column {name}")
            if name in ("subject", "stimulus_id")
            else whole_numbers(rows[name], path, f"{name} numbers")
            for name in schema.TRIAL_COLUMNS
        }
        found[schema.BLOCK] = np.zeros(len(found["trial"]), dtype=np.int32)
        if schema.BLOCK in optional:
            found[schema.BLOCK] = whole_numbers(rows[schema.BLOCK], path, "block numbers")
        found[schema.IMAGERY] = np.zeros(len(found["trial"]), dtype=bool)
        if schema.IMAGERY in optional:
            found[schema.IMAGERY] = rows[schema.IMAGERY].to_numpy().astype(bool)
        if (found[schema.IMAGERY] & (found["stimulus_id"] == "")).any():
            raise FmriModelsError(
                f"{one_line(path)} has imagery trials without a stimulus; expected what was imagined; {MEND}."
            )
        return found

    @property
    def labelled(self) -> np.ndarray:
        """(trials,) bool, whether a trial has a stimulus; those that have none come last."""
        return self.columns["stimulus_id"] != ""

    def unlabelled(self, parts: Sequence[str]) -> np.ndarray:
        """(trials,) bool, whether a trial has no stimulus and is of one of some parts, such as `unlabelled_rest`."""
        chosen = np.zeros(len(self), dtype=bool)
        for part in parts:
            kind = part.removeprefix(f"{schema.UNLABELLED}_")
            runs = schema.UNLABELLED_RUNS.get(kind)
            chosen |= part == schema.UNLABELLED if runs is None else np.isin(self.columns["run"], runs)
        return chosen & ~self.labelled

    def with_exchanged_stimuli(self, partners: Mapping[str, str]) -> "TrialFiles":
        """The same betas, said to be those of other stimuli.

        Args:
            partners: Stimulus ▶ the one that its trials are of; one that isn't there keeps its trials.
        """
        other = copy.copy(self)
        ids = [partners.get(stimulus, stimulus) for stimulus in self.columns["stimulus_id"].tolist()]
        other.columns = {**self.columns, "stimulus_id": np.array(ids, dtype=str)}
        return other

    def fmri_chunks(self) -> Iterator[np.ndarray]:
        """All betas in the order of the files, as (trials, V) float16 or float32 chunks, as stored."""
        for path in self.paths:
            yield from parquet.fmri_chunks(path, self.num_voxels, *self._schemas, most_rows=schema.MAX_TRIALS)

    @cached_property
    def matrix(self) -> FmriMatrix:
        """The betas as a memory-mapped matrix, written to the cache when it is first asked for."""
        return FmriMatrix.materialize(
            self._fingerprint,
            self.subject,
            (len(self), self.num_voxels),
            self._checked_chunks,
            np.float32 if self._needs_float32() else np.float16,
        )

    def _checked_chunks(self) -> Iterator[np.ndarray]:
        """Betas on their way to the cache, where they are found by the hashes that `table.json` says."""
        for path in self.paths:
            name = path.relative_to(self._folder).as_posix()
            if parquet.file_sha256(path) != self._recorded[name]["sha256"]:
                raise FmriModelsError(
                    f"{one_line(path)} was changed: its SHA-256 is not the one in {schema.TABLE_FILE}; {MEND}."
                )
        yield from self.fmri_chunks()

    def _needs_float32(self) -> bool:
        for path in self.paths:
            with parquet.open_parquet(path, *self._schemas, columns=[schema.FMRI], most_rows=schema.MAX_TRIALS) as file:
                if file.schema_arrow.field(schema.FMRI).type.value_type != pa.float16():
                    return True
        return False

    @property
    def _schemas(self) -> list[pa.Schema]:
        return schema.trials_schemas(self.num_voxels)


def _indices(positions: int | Sequence[int] | np.ndarray | slice) -> np.ndarray | slice:
    if isinstance(positions, slice):
        return positions
    array = np.atleast_1d(np.asarray(positions))
    # An empty list is float64 to NumPy.
    if array.size and array.dtype.kind not in "biu":
        raise FmriModelsError(
            f"Rows of trials are {one_line(repr(positions), 80)}; expected whole numbers from 0, a boolean mask, "
            "or a slice."
        )
    return array if array.dtype == bool else array.astype(np.int64)
