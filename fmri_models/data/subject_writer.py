"""Writing the trials of one subject: betas are checked as they come, and written once their precision is known."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import FmriModelsError
from ..in_memory import unmasked
from . import schema
from .table_files import ROW_GROUP, TableFiles

TRIALS_PER_FILE = 4096
_COLUMNS = (*(name for name in schema.TRIAL_COLUMNS if name != "subject"), *schema.OPTIONAL_TRIAL_COLUMNS)


class SubjectWriter:
    """Takes the trials of one subject; betas wait in files until all of them have been seen.

    Args:
        subject: The subject's id.
        num_voxels: How many voxels each trial has.
        files: Of the table.

    Attributes:
        columns: Part of the default split ▶ everything but the betas, column by column.
        voxels: What the file of voxels says; None where nothing was given.
        noise_free: Stimuli of the noise-free responses.
    """

    def __init__(self, subject: str, num_voxels: int, files: TableFiles) -> None:
        self.subject = subject
        self.num_voxels = num_voxels
        self.columns: dict[str, dict[str, list]] = {part: {name: [] for name in _COLUMNS} for part in schema.FILE_PARTS}
        self.voxels: pa.Table | None = None
        self.noise_free: list[str] = []
        self._files = files
        # Nothing is rounded: float32 for the sake of trials that a split holds out changes no other trial.
        self._fits_float16 = True
        self._next_trial = 0
        self._buffers: dict[str, Path] = {}
        self._seen_trials: set[int] = set()
        self._shown: dict[str, int] = defaultdict(int)
        # Which of the optional columns somebody knew something of; the others are not written.
        self._optional: set[str] = set()

    def add(
        self,
        part: str,
        stimulus_ids: Sequence[str],
        chunks: Iterable[np.ndarray],
        sessions: Sequence[int] | None,
        runs: Sequence[int] | None,
        trials: Sequence[int] | None,
        repetitions: Sequence[int] | None,
        blocks: Sequence[int] | None = None,
        imagery: Sequence[bool] | None = None,
    ) -> None:
        """Takes trials of a part of the default split; the other arguments are those of `TrialTableWriter.add_trials`.

        Raises:
            FmriModelsError: Lengths or widths differ, a value is NaN or infinite, or a trial number is there twice.
        """
        count, subject = len(stimulus_ids), self.subject
        written = self._append(part, chunks)
        if written != count:
            raise FmriModelsError(f"{subject}, {part}: {written} rows of betas for {count} stimulus ids.")
        columns = self.columns[part]
        counted = list(range(self._next_trial, self._next_trial + count))
        columns["stimulus_id"].extend(stimulus_ids)
        columns["session"].extend(_integers(sessions, count, 1, f"sessions of {subject}"))
        columns["run"].extend(_integers(runs, count, 1, f"runs of {subject}"))
        numbers = counted if trials is None else _integers(trials, count, 0, f"trial numbers of {subject}")
        self._claim_trials(numbers)
        columns["trial"].extend(numbers)
        columns["repetition"].extend(
            self._count_repetitions(stimulus_ids)
            if repetitions is None
            else _integers(repetitions, count, 0, f"repetitions of {subject}")
        )
        given = {schema.BLOCK: blocks, schema.IMAGERY: imagery}
        self._optional |= {name for name, values in given.items() if values is not None}
        columns[schema.BLOCK].extend(_integers(blocks, count, 0, f"blocks of {subject}"))
        columns[schema.IMAGERY].extend(_imagery(imagery, stimulus_ids, subject))

    def add_noise_free(self, stimulus_ids: list[str], fmri: np.ndarray) -> None:
        """Writes the responses without noise, (stimuli, voxels) float32."""
        self.noise_free = stimulus_ids
        columns = {"stimulus_id": stimulus_ids, schema.FMRI: schema.fmri_array(fmri)}
        table = pa.table(columns, schema=schema.noise_free_schema(self.num_voxels))
        self._files.write(table, f"{schema.NOISE_FREE_FOLDER}/{self.subject}.parquet")

    def finish(self) -> None:
        """Writes the files of the trials and of the voxels."""
        for part in schema.FILE_PARTS:
            count = len(self.columns[part]["trial"])
            num_files = -(-count // TRIALS_PER_FILE)
            for index in range(num_files):
                name = f"{schema.TRIALS_FOLDER}/{self.subject}/{part}-{index:05d}-of-{num_files:05d}.parquet"
                self._write(name, part, range(index * TRIALS_PER_FILE, min((index + 1) * TRIALS_PER_FILE, count)))
            if part in self._buffers:
                self._buffers[part].unlink()
        self._files.write(self.voxels, f"{schema.VOXELS_FOLDER}/{self.subject}.parquet")

    def _append(self, part: str, chunks: Iterable[np.ndarray]) -> int:
        """Writes betas behind those that the part has already; returns of how many trials."""
        written = 0
        path = self._buffers.setdefault(part, self._files.buffer / f"{self.subject}-{part}")
        # Written, not memory-mapped: a full disk is an error then, and not a killed process.
        with path.open("ab") as out:
            for chunk in chunks:
                if chunk.shape[1] != self.num_voxels:
                    raise FmriModelsError(
                        f"A block of betas of {self.subject} has {chunk.shape[1]} voxels; expected {self.num_voxels}."
                    )
                for start in range(0, len(chunk), ROW_GROUP):
                    what = f"the betas of {self.subject} ({part}, from row {written + start} on)"
                    betas = finite_betas(chunk[start : start + ROW_GROUP], what)
                    self._fits_float16 = self._fits_float16 and _fits_float16(betas)
                    out.write(betas.tobytes())
                written += len(chunk)
        return written

    def _read(self, part: str, start: int, stop: int) -> np.ndarray:
        """Betas `start` to `stop` of a part, (n, voxels) float32."""
        with self._buffers[part].open("rb") as file:
            file.seek(start * self.num_voxels * 4)
            values = np.fromfile(file, dtype=np.float32, count=(stop - start) * self.num_voxels)
        return values.reshape(stop - start, self.num_voxels)

    def _write(self, name: str, part: str, span: range) -> None:
        dtype = np.float16 if self._fits_float16 else np.float32
        left_out = set(schema.OPTIONAL_TRIAL_COLUMNS) - self._optional
        with self._files.opened(name, schema.trials_schema(self.num_voxels, dtype, self._optional)) as out:
            for start in range(span.start, span.stop, ROW_GROUP):
                stop = min(start + ROW_GROUP, span.stop)
                columns = {key: values[start:stop] for key, values in self.columns[part].items() if key not in left_out}
                fmri = schema.fmri_array(self._read(part, start, stop).astype(dtype, copy=False))
                columns = {"subject": [self.subject] * (stop - start), **columns, schema.FMRI: fmri}
                out.write_table(pa.table(columns, schema=out.schema), row_group_size=ROW_GROUP)

    def _claim_trials(self, numbers: list[int]) -> None:
        again = [n for n in numbers if n in self._seen_trials]
        self._seen_trials.update(numbers)
        if again or len(set(numbers)) != len(numbers):
            twice = again or [n for n in numbers if numbers.count(n) > 1]
            raise FmriModelsError(f"{self.subject} has the trial number {twice[0]} twice; expected each once.")
        self._next_trial = max([self._next_trial, *(n + 1 for n in numbers)])

    def _count_repetitions(self, stimulus_ids: Sequence[str]) -> list[int]:
        counted = []
        for stimulus in stimulus_ids:
            counted.append(self._shown[stimulus])
            self._shown[stimulus] += stimulus != ""
        return counted


def finite_betas(betas: np.ndarray, what: str) -> np.ndarray:
    """Betas (n, voxels) as float32.

    Raises:
        FmriModelsError: One is NaN, or infinite as float32.
    """
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(betas, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        row, voxel = np.argwhere(~finite)[0]
        raise FmriModelsError(
            f"{values.size - finite.sum()} values are NaN or infinite in {what} (first: row {row}, voxel {voxel}); "
            "expected finite float32 numbers. Drop such voxels or trials first."
        )
    return values


def _fits_float16(values: np.ndarray) -> bool:
    """Whether float32 numbers stay what they are in float16."""
    with np.errstate(over="ignore", under="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def _imagery(values: Sequence[bool] | None, stimulus_ids: Sequence[str], subject: str) -> list[bool]:
    """Whether each stimulus was imagined; none was where nobody says so."""
    count = len(stimulus_ids)
    if values is None:
        return [False] * count
    array = np.asarray(values)
    if array.shape != (count,):
        raise FmriModelsError(f"There are {array.size} marks of imagery of {subject} for {count} trials.")
    if array.dtype != bool and count:
        raise FmriModelsError(f"The marks of imagery of {subject} have the type {array.dtype}; expected True or False.")
    if any(imagined and not stimulus for imagined, stimulus in zip(array.tolist(), stimulus_ids, strict=True)):
        raise FmriModelsError(f"An imagery trial of {subject} has no stimulus; say what was imagined.")
    return array.tolist()


def _integers(values: Sequence[int] | None, count: int, missing: int, what: str) -> list[int]:
    if values is None:
        return [missing] * count
    array = np.asarray(unmasked(values, f"The {what}"))
    if array.shape != (count,):
        raise FmriModelsError(f"There are {array.size} {what} for {count} trials.")
    if array.dtype.kind not in "iu" and count:
        raise FmriModelsError(f"The {what} have the type {array.dtype}; expected whole numbers.")
    if count and (array.min() < 0 or array.max() > schema.MAX_INT32):
        raise FmriModelsError(f"The {what} go from {array.min()} to {array.max()}; expected 0 to {schema.MAX_INT32}.")
    return array.tolist()
