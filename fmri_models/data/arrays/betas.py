"""Whose betas are where in the arrays, and which of their voxels can be learned from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import FmriModelsError
from ...in_memory import as_numbers
from ...names import check_name, listed
from ...reading import read_array
from .. import schema
from .events import DEFAULT_SUBJECT, Events, without_spelling

_TRIALS_A_CHUNK = 256


@dataclass
class SubjectBetas:
    """One subject's betas (memory-mapped), and which trials and voxels of them are taken.

    Attributes:
        name: The subject's id.
        fmri: (rows, V) as the array has them, perhaps those of several subjects.
        in_array: (n,) positions of the subject's trials in the array.
        in_events: (n,) their positions in the events.
        voxels: Positions of the voxels that are taken.
    """

    name: str
    fmri: np.ndarray
    in_array: np.ndarray
    in_events: np.ndarray
    voxels: np.ndarray

    def read(self, trials: np.ndarray) -> np.ndarray:
        """(trials, voxels) float32 of some of the subject's trials, by their positions among these."""
        with np.errstate(over="ignore"):
            betas = as_numbers(self.fmri[self.in_array[trials]], "Betas")
            return np.asarray(betas, dtype=np.float32)[:, self.voxels]

    def chunks(self, trials: np.ndarray) -> Iterator[np.ndarray]:
        """The same, a few at a time."""
        for start in range(0, len(trials), _TRIALS_A_CHUNK):
            yield self.read(trials[start : start + _TRIALS_A_CHUNK])


def match_subjects(
    fmri: str | Path | Mapping[str, str | Path], events: Events, events_path: Path
) -> list[SubjectBetas]:
    """Which rows of which array are whose.

    Raises:
        FmriModelsError: A subject has no array, or an array another number of rows than there are events.
    """
    named = events.subject or []
    if not isinstance(fmri, Mapping):
        array = _open_array(Path(fmri))
        _check_rows(len(array), len(events), Path(fmri), events_path)
        of_row = np.array(named or [DEFAULT_SUBJECT] * len(events))
        return [
            _subject(subject, array, rows, rows)
            for subject in sorted(set(of_row.tolist()))
            for rows in [np.flatnonzero(of_row == subject)]
        ]
    if not named and len(fmri) > 1:
        raise FmriModelsError(
            f"The events file {events_path} has no column 'subject'; expected one, for {len(fmri)} subjects."
        )
    of_row = np.array(named or list(fmri) * len(events))
    if unknown := sorted(set(of_row.tolist()) - set(fmri)):
        near = [name for name in fmri if without_spelling(name) == without_spelling(unknown[0])]
        raise FmriModelsError(
            f"The events file {events_path} has trials of {listed(unknown)}, for whom there is no array; there "
            f"are arrays for {listed(sorted(fmri), 20)}"
            f"{f': write {near[0]} for {unknown[0]}, or the other way round' if near else ''}."
        )
    subjects = []
    for subject, path in sorted(fmri.items()):
        array = _open_array(Path(path))
        rows = np.flatnonzero(of_row == subject)
        _check_rows(len(array), len(rows), Path(path), events_path, subject)
        subjects.append(_subject(subject, array, np.arange(len(rows)), rows))
    return subjects


def _subject(name: str, array: np.ndarray, in_array: np.ndarray, in_events: np.ndarray) -> SubjectBetas:
    check_name(name, "subject")
    return SubjectBetas(name, array, in_array, in_events, np.arange(array.shape[1]))


def _open_array(path: Path) -> np.ndarray:
    array = read_array(path, "file of betas", "save them alone with numpy.save and a float type", memory_map=True)
    if array.ndim != 2 or 0 in array.shape:
        raise FmriModelsError(f"{path} has the shape {array.shape}; expected (trials, voxels).")
    if array.shape[1] > schema.MAX_VOXELS:
        raise FmriModelsError(f"{path} has {array.shape[1]} voxels; expected {schema.MAX_VOXELS} at most.")
    return array


def _check_rows(found: int, expected: int, path: Path, events: Path, subject: str = "") -> None:
    if found != expected:
        whose = f" of {subject}" if subject else ""
        raise FmriModelsError(
            f"{path} has {found} rows, the events file {events} has {expected} trials{whose}; expected one row a "
            "trial, in the same order."
        )


def choose_voxels(subject: SubjectBetas, drop: bool, report: Callable[[str], None]) -> None:
    """Finds voxels that are not finite or never change, and refuses, keeps or drops them.

    Raises:
        FmriModelsError: A voxel is not finite and none is to be dropped, or nothing is left.
    """
    lowest = np.full(subject.fmri.shape[1], np.inf, dtype=np.float32)
    highest, finite = -lowest, np.ones(len(lowest), dtype=bool)
    empty_trials: list[int] = []
    infinite = False
    for start in range(0, len(subject.in_array), _TRIALS_A_CHUNK):
        trials = np.arange(start, min(start + _TRIALS_A_CHUNK, len(subject.in_array)))
        chunk = subject.read(trials)
        is_finite = np.isfinite(chunk)
        empty_trials += subject.in_events[trials[~is_finite.any(axis=1)]].tolist()
        finite &= is_finite.all(axis=0)
        infinite = infinite or bool(np.isinf(chunk).any())
        np.fmin(lowest, chunk.min(axis=0), out=lowest)
        np.fmax(highest, chunk.max(axis=0), out=highest)
    if empty_trials:
        raise FmriModelsError(
            f"{len(empty_trials)} trials of {subject.name} have no finite value at all (rows "
            f"{listed(row + 1 for row in empty_trials)} of the events); leave them out of both files."
        )
    constant = finite & (lowest == highest)
    bad, dead, total = int((~finite).sum()), int(constant.sum()), len(finite)
    if bad and not drop:
        raise FmriModelsError(
            f"{bad} of {total} voxels of {subject.name} have NaN or infinite values"
            f"{_overflow(subject.fmri, infinite)}; pass --drop-bad-voxels to leave them out."
        )
    if drop:
        subject.voxels = np.flatnonzero(finite & ~constant)
        report(f"{subject.name}: {bad + dead} of {total} voxels dropped ({bad} not finite, {dead} constant).")
    elif dead:
        report(f"{subject.name}: {dead} of {total} voxels never change; they are kept, and the processor makes them 0.")
    if not len(subject.voxels) or dead == total:
        raise FmriModelsError(f"No voxel of {subject.name} has finite values that change; nothing can be decoded.")


def _overflow(fmri: np.ndarray, infinite: bool) -> str:
    """Where infinite values may come from, for a message."""
    if not infinite or fmri.dtype.kind not in "fiu":
        return ""
    if fmri.dtype.itemsize == 2:
        return " (the file is float16, which ends at 65504: larger numbers were lost when it was saved)"
    return " (infinite, or beyond float32, which ends at 3.4e38)" if fmri.dtype.itemsize > 4 else ""
