"""Betas of all recordings as one matrix a subject on disk: read once, continued after an interruption.

Reading is what takes hours (a general linear model, gigabytes in HDF5). It goes recording by recording into a folder
beside the table to come, which knows how far it has got; whatever is asked of the trials later (statistics, ceilings,
averages, parts) reads the matrix in blocks, so that memory stays constant.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ... import progress
from ...errors import FmriModelsError, system_errors_as_sentences
from ...names import one_line
from ...processing.image_grid import positions_sha256
from ...reading import read_json
from ...saving import remove_folder, write_text
from ...swapping import held_alone
from .dataset import KnownVoxels, PublishedDataset, PublishedSubject, Recording

_PROGRESS = "progress.json"
ROWS_AT_ONCE = 256
_BYTES = 4


@dataclass
class ExtractedSubject:
    """One subject's betas on disk.

    Args:
        subject: What was read.
        path: The matrix, float32 in C order.
        rows: How many trials it has.
    """

    subject: PublishedSubject
    path: Path
    rows: int

    @property
    def name(self) -> str:
        return self.subject.name

    @cached_property
    def matrix(self) -> np.ndarray:
        """(trials, voxels) float32, memory-mapped."""
        return np.memmap(self.path, np.float32, "r", shape=(self.rows, self.subject.voxels.count))

    def labels(self, value: Any) -> np.ndarray:
        """(trials,) what `value(recording)` says of the trials of each recording."""
        return np.concatenate([np.asarray(value(each)) for each in self.subject.recordings])

    @cached_property
    def stimulus_ids(self) -> np.ndarray:
        """(trials,) str."""
        return self.labels(lambda each: np.asarray(list(each.stimulus_ids), dtype=str)).astype(str)

    @cached_property
    def sessions(self) -> np.ndarray:
        """(trials,) numbers."""
        return self.labels(lambda each: np.full(len(each.stimulus_ids), each.session, dtype=np.int64))

    @cached_property
    def runs(self) -> np.ndarray:
        """(trials,) numbers."""
        return self.labels(lambda each: np.asarray(each.run_numbers, dtype=np.int64))

    @cached_property
    def imagery(self) -> np.ndarray:
        """(trials,) whether the stimulus was imagined."""
        return self.labels(lambda each: np.full(len(each.stimulus_ids), each.imagery))

    @cached_property
    def parts(self) -> np.ndarray:
        """(trials,) the part that the release says; empty where it doesn't."""
        return self.labels(lambda each: np.full(len(each.stimulus_ids), each.part or "", dtype=object))

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows and betas, so many at a time as are held in memory."""
        for start in range(0, self.rows, ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, self.rows))
            yield rows, np.asarray(self.matrix[rows])


def work_folder(out: Path) -> Path:
    """Where recordings wait until all are read; beside the table to come."""
    return out.absolute().parent / f".{out.name}.preparing"


@contextmanager
def working_alone(out: Path) -> Iterator[None]:
    """Keeps another call for the same table out of the folder in which this one reads and writes.

    Args:
        out: Folder of the table to come.

    Raises:
        FmriModelsError: One is at it.
    """
    folder = work_folder(out)
    with system_errors_as_sentences(folder):
        if folder.is_symlink():
            raise FmriModelsError(f"{one_line(folder)} is a link, and what lies there would be removed; remove it.")
        folder.mkdir(parents=True, exist_ok=True)
        stack = ExitStack()
        is_free = stack.enter_context(held_alone(folder))
    with stack:
        if not is_free:
            raise FmriModelsError(
                f"Another call is preparing {one_line(out)} at this moment (in {one_line(folder)}); wait until it has "
                "ended, or give another --out."
            )
        yield


def extract(
    dataset: PublishedDataset, subjects: Sequence[PublishedSubject], out: Path, options: Mapping[str, Any]
) -> list[ExtractedSubject]:
    """Reads all recordings that an earlier, interrupted call has not read from the same files.

    Args:
        dataset: Of which script.
        subjects: Whose recordings.
        out: Folder of the table to come.
        options: Of the reader, which change what it reads.

    Raises:
        FmriModelsError: A recording has another width or number of trials than it says, or nothing but NaN.
    """
    folder = work_folder(out)
    known = _earlier(folder, _fingerprint(dataset, subjects, options))
    extracted = []
    for subject in subjects:
        done = known["subjects"].setdefault(subject.name, [])
        path = folder / f"{subject.name}.f32"
        rows = _resumed(path, done, subject)
        left = subject.recordings[len(done) :]
        for recording in progress.bar(left, f"Reading {subject.name}", unit="recording"):
            rows += _append(path, recording, subject)
            done.append([recording.name, len(recording.stimulus_ids)])
            write_text(folder / _PROGRESS, json.dumps(known))
        extracted.append(ExtractedSubject(subject, path, rows))
    return extracted


def discard(out: Path) -> None:
    """Removes what was read, once the table is there."""
    remove_folder(work_folder(out))


def _fingerprint(
    dataset: PublishedDataset, subjects: Sequence[PublishedSubject], options: Mapping[str, Any]
) -> dict[str, Any]:
    """By which what was read is known to be the same: script, options, recordings, and their files' sizes and times."""
    files = {str(path) for subject in subjects for each in subject.recordings for path in each.files}
    return {
        "script": [dataset.script, dataset.script_version],
        "options": {name: str(value) for name, value in options.items()},
        "recordings": {
            subject.name: [[each.name, list(each.stimulus_ids)] for each in subject.recordings] for subject in subjects
        },
        "voxels": {subject.name: _voxels_sha256(subject.voxels) for subject in subjects},
        "files": {name: [os.stat(name).st_size, os.stat(name).st_mtime_ns] for name in sorted(files)},
    }


def _voxels_sha256(voxels: KnownVoxels) -> str:
    """By which a mask that was changed is noticed, wherever it comes from: what is known of the voxels, in order."""
    known = hashlib.sha256(str(voxels.count).encode())
    known.update("\0".join(voxels.roi or ()).encode())
    for name, inside in sorted(voxels.regions.items()):
        known.update(name.encode() + np.packbits(np.asarray(inside, dtype=bool)).tobytes())
    if voxels.coordinates is not None:
        known.update(np.ascontiguousarray(voxels.coordinates, dtype="<f4").tobytes())
    if voxels.grid is not None:
        known.update(positions_sha256(voxels.grid.indices).encode())
    return known.hexdigest()


def _earlier(folder: Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call has read of the same; nothing of anything else."""
    if (folder / _PROGRESS).is_file():
        found = read_json(folder / _PROGRESS, "record of what was read", "remove its folder")
        if isinstance(found, dict) and found.get("fingerprint") == fingerprint:
            return found
    # The folder itself stays: it is held.
    with system_errors_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return {"fingerprint": fingerprint, "subjects": {}}


def _resumed(path: Path, done: list[Any], subject: PublishedSubject) -> int:
    """How many trials are there; what a killed call has written of the next recording is cut off."""
    rows = sum(count for _, count in done)
    length = rows * subject.voxels.count * _BYTES
    there = path.stat().st_size if path.is_file() else 0
    if there < length:
        del done[:]
        rows = length = 0
    with path.open("ab") as file:
        file.truncate(length)
    return rows


def _append(path: Path, recording: Recording, subject: PublishedSubject) -> int:
    count, width = len(recording.stimulus_ids), subject.voxels.count
    written, finite = 0, 0
    lowest, highest = np.full(width, np.inf), np.full(width, -np.inf)
    where = f"{subject.name}, {recording.name}"
    # Written, not memory-mapped: a full disk is an error then, and not a killed process.
    with path.open("ab") as file:
        for block in recording.read():
            values = np.asarray(block)
            if values.dtype.kind not in "biuf":
                raise FmriModelsError(f"{where}: betas of the type {values.dtype}; expected numbers{_of(recording)}.")
            values = np.ascontiguousarray(values, dtype=np.float32)
            if values.ndim != 2 or values.shape[1] != width:
                raise FmriModelsError(
                    f"{where}: betas of the shape {values.shape}; expected (trials, {width}), a column for each voxel "
                    f"of the mask{_of(recording)}."
                )
            if len(values):
                finite += int(np.isfinite(values).sum())
                # Those of the values that are numbers.
                lowest = np.fmin(lowest, np.fmin.reduce(values, axis=0))
                highest = np.fmax(highest, np.fmax.reduce(values, axis=0))
            with system_errors_as_sentences(path):
                file.write(values.tobytes())
            written += len(values)
        with system_errors_as_sentences(path):
            file.flush()
            os.fsync(file.fileno())
    if written != count:
        raise FmriModelsError(f"{where}: {written} trials of betas for {count} stimuli{_of(recording)}.")
    if count and not finite:
        raise FmriModelsError(
            f"{where} has nothing but NaN or infinite values{_of(recording)}; replace the file, or leave the run out."
        )
    if count > 1 and (lowest >= highest).all():
        raise FmriModelsError(
            f"{where} has the same pattern in all of its {count} trials{_of(recording)}, which no brain has; replace "
            "the file, or leave the run out."
        )
    return written


def _of(recording: Recording) -> str:
    return f" ({one_line(recording.files[0])})" if recording.files else ""
