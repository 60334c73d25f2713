"""A person's own betas: arrays, a table of events and a folder of pictures become a trial table."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..errors import FmriModelsError
from ..names import check_line, check_name, one_line
from ..output_folders import TRIAL_TABLE, check_output_folder
from ..reading import read_array, read_bytes
from ..seeds import check_seed
from . import schema
from .noise_ceiling import estimate_ncsnr, usual_repetitions
from .pictures import content_sha256, read_picture
from .splits import SplitRows, split_by_stimulus
from .stimuli import read_csv, read_number, read_stimuli
from .writer import TrialTableWriter

DEFAULT_SUBJECT = "subj01"
_BLOCK = 256
_MOST_EVENTS = 2**20
_MOST_MM = 1e6
# A ratio of 100 is a noise ceiling of .9997.
_MOST_NCSNR = 1e6


@dataclass
class _Events:
    """Columns of EVENTS.csv; what it doesn't have is None."""

    subject: list[str] | None
    stimulus_id: list[str]
    session: list[int] | None
    run: list[int] | None
    repetition: list[int] | None
    split: list[str] | None

    def __len__(self) -> int:
        return len(self.stimulus_id)


@dataclass
class _VoxelInfo:
    """Columns of VOXELS.csv; what it doesn't have is None."""

    roi: list[str] | None
    coordinates: np.ndarray | None
    ncsnr: np.ndarray | None


@dataclass
class _Subject:
    """One subject's betas (memory-mapped), and which rows and voxels of them are taken."""

    name: str
    fmri: np.ndarray
    file_rows: np.ndarray
    event_rows: np.ndarray
    voxels: np.ndarray

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(rows, voxels) float32 of some of the subject's trials."""
        with np.errstate(over="ignore"):
            return np.asarray(self.fmri[self.file_rows[rows]], dtype=np.float32)[:, self.voxels]

    def blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), _BLOCK):
            yield self.read(rows[start : start + _BLOCK])


def prepare_arrays(
    fmri: str | Path | Mapping[str, str | Path],
    events: str | Path,
    stimuli: str | Path,
    out: str | Path,
    voxels: str | Path | Mapping[str, str | Path] | None = None,
    drop_bad_voxels: bool = False,
    seed: int = 0,
    name: str = "",
    test_fraction: float = 0.1,
    validation_fraction: float = 0.1,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Writes a trial table from arrays.

    Args:
        fmri: A `.npy` file of (trials, voxels) numbers, or one a subject. Files are memory-mapped, never read whole.
        events: A CSV file with a row a trial in the order of the array (of each subject's array), with `stimulus_id`
            and, where known, `subject, session, run, repetition, split`.
        stimuli: A folder (or zip file) with `<stimulus_id>.png` or `.jpg`; see `read_stimuli`.
        out: The folder to be written.
        voxels: A CSV file, or one a subject, with a row a voxel and any of `roi, x, y, z, ncsnr`.
        drop_bad_voxels: Leave out voxels that have NaN or infinite values in any trial, or never change.
        seed: Draws the split where the events have none.
        name: The table's name; by default that of the folder.
        test_fraction: Share of the stimuli that are tested, where the events have no split.
        validation_fraction: Share of the training stimuli for validation, where the events have none.
        overwrite: Replace a folder that has content.
        report: Takes sentences that a person should read.

    Raises:
        FmriModelsError: Anything about the files is not as described; nothing is written then.
    """
    out = Path(out)
    name = check_line(name or out.absolute().name, "table's name (of --name, or of the folder)", most=200)
    inputs = [*_paths(fmri), events, stimuli, *_paths(voxels)]
    check_output_folder(out, overwrite, TRIAL_TABLE, inputs)
    check_seed(seed)
    known = _read_events(Path(events))
    subjects = _match_subjects(fmri, known, Path(events))
    source = read_stimuli(stimuli)
    shown = set(known.stimulus_id)
    _check_pictures(shown, source.ids, stimuli)
    infos = {subject.name: _read_voxels(voxels, subject) for subject in subjects}
    for subject in subjects:
        _choose_voxels(subject, drop_bad_voxels, report)
    # Only what was shown: a folder may have thousands of other pictures.
    groups = {
        record["stimulus_id"]: content_sha256(read_picture(record["image"], f"stimulus {record['stimulus_id']}"))
        for record in tqdm(source, "comparing pictures", delay=1)
        if record["stimulus_id"] in shown
    }
    parts = _split_parts(known, subjects, groups, seed, test_fraction, validation_fraction, report)
    with TrialTableWriter(
        out, name, created_by="fmri-models prepare arrays", overwrite=overwrite, inputs=inputs
    ) as writer:
        pictures = tqdm(source, "writing pictures", delay=1)
        writer.add_stimuli(record for record in pictures if record["stimulus_id"] in shown)
        for subject in tqdm(subjects, "writing subjects", delay=1):
            _add_voxels(writer, subject, infos[subject.name], known, parts, report)
            _add_trials(writer, subject, known, parts)
        writer.extra["split"] = {"drawn": known.split is None, "seed": seed}


def _paths(files: str | Path | Mapping[str, str | Path] | None) -> list[str | Path]:
    if files is None:
        return []
    return list(files.values()) if isinstance(files, Mapping) else [files]


def _read_events(path: Path) -> _Events:
    data = read_bytes(path, "events file", "give a CSV file")
    columns = read_csv(data, f"The events file {path}", ["stimulus_id"], _MOST_EVENTS)
    if not columns["stimulus_id"]:
        raise FmriModelsError(f"The events file {path} has no rows; expected one a trial.")

    def text(column: str) -> list[str] | None:
        values = columns.get(column)
        if values is not None and "" in values:
            raise FmriModelsError(
                f"The events file {path} has no {column} in row {values.index('') + 1}; fill the column, or "
                "leave it out."
            )
        return values

    def numbers(column: str) -> list[int] | None:
        values = text(column)
        return None if values is None else [_whole(value, column, path, i + 1) for i, value in enumerate(values)]

    splits = text("split")
    if unknown := sorted(set(splits or []) - set(schema.SPLITS)):
        raise FmriModelsError(
            f"The events file {path} has the split {unknown[0]!r}; expected {', '.join(schema.SPLITS)}."
        )
    stimuli = text("stimulus_id") or []
    for stimulus in sorted(set(stimuli)):
        check_name(stimulus, "stimulus id")
    return _Events(text("subject"), stimuli, numbers("session"), numbers("run"), numbers("repetition"), splits)


def _match_subjects(fmri: str | Path | Mapping[str, str | Path], events: _Events, events_path: Path) -> list[_Subject]:
    """Which rows of which array are whose."""
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
        raise FmriModelsError(
            f"The events file {events_path} has trials of {schema.listed(unknown)}, for whom there is no array; there "
            f"are arrays for {schema.listed(sorted(fmri), 20)}."
        )
    subjects = []
    for subject, path in sorted(fmri.items()):
        array = _open_array(Path(path))
        rows = np.flatnonzero(of_row == subject)
        _check_rows(len(array), len(rows), Path(path), events_path, subject)
        subjects.append(_subject(subject, array, np.arange(len(rows)), rows))
    return subjects


def _subject(name: str, array: np.ndarray, file_rows: np.ndarray, event_rows: np.ndarray) -> _Subject:
    check_name(name, "subject")
    return _Subject(name, array, file_rows, event_rows, np.arange(array.shape[1]))


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


def _check_pictures(shown: set[str], ids: Sequence[str], stimuli: str | Path) -> None:
    if missing := sorted(shown - set(ids)):
        raise FmriModelsError(
            f"{len(missing)} of {len(shown)} stimuli have no picture in {stimuli} ({schema.listed(missing)}); expected "
            "<stimulus_id>.png or .jpg."
        )


def _choose_voxels(subject: _Subject, drop: bool, report: Callable[[str], None]) -> None:
    """Finds voxels that are not finite or never change, and refuses, keeps or drops them."""
    lowest = np.full(subject.fmri.shape[1], np.inf, dtype=np.float32)
    highest, finite = -lowest, np.ones(len(lowest), dtype=bool)
    empty_trials: list[int] = []
    for start in range(0, len(subject.file_rows), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(subject.file_rows)))
        block = subject.read(rows)
        is_finite = np.isfinite(block)
        empty_trials += subject.event_rows[rows[~is_finite.any(axis=1)]].tolist()
        finite &= is_finite.all(axis=0)
        np.fmin(lowest, block.min(axis=0), out=lowest)
        np.fmax(highest, block.max(axis=0), out=highest)
    if empty_trials:
        raise FmriModelsError(
            f"{len(empty_trials)} trials of {subject.name} have no finite value at all (rows "
            f"{schema.listed(row + 1 for row in empty_trials)} of the events); leave them out of both files."
        )
    constant = finite & (lowest == highest)
    bad, dead, total = int((~finite).sum()), int(constant.sum()), len(finite)
    if bad and not drop:
        raise FmriModelsError(
            f"{bad} of {total} voxels of {subject.name} have NaN or infinite values; pass --drop-bad-voxels to leave "
            "them out."
        )
    if drop:
        subject.voxels = np.flatnonzero(finite & ~constant)
        report(f"{subject.name}: {bad + dead} of {total} voxels dropped ({bad} not finite, {dead} constant).")
    elif dead:
        report(f"{subject.name}: {dead} of {total} voxels never change; they are kept, and the processor makes them 0.")
    if not len(subject.voxels) or dead == total:
        raise FmriModelsError(f"No voxel of {subject.name} has finite values that change; nothing can be decoded.")


def _split_parts(
    events: _Events,
    subjects: Sequence[_Subject],
    groups: Mapping[str, str],
    seed: int,
    test_fraction: float,
    validation_fraction: float,
    report: Callable[[str], None],
) -> np.ndarray:
    """Which part of the split each event is in."""
    if events.split is None:
        drawn = split_by_stimulus(_rows(events, subjects, groups), seed, test_fraction, validation_fraction)
        parts = _in_event_order(drawn.table["split"].to_pylist(), subjects, len(events))
        counts = Counter(parts.tolist())
        report(
            f"The events have no split: drawn by stimulus from seed {seed}, "
            + ", ".join(f"{counts[part]} trials {part}" for part in schema.SPLITS)
            + "."
        )
        for note in drawn.notes:
            report(note)
        return parts
    parts = np.array(events.split)
    if schema.TRAIN not in parts:
        raise FmriModelsError("No trial of the events is in the split 'train'; expected some to learn from.")
    if schema.TEST not in parts:
        report("No trial of the events is in the split 'test': the table can be learned from, but not evaluated on.")
    if schema.VALIDATION not in parts and validation_fraction:
        parts = _draw_validation(parts, events, groups, seed, validation_fraction, report)
    return parts


def _draw_validation(
    parts: np.ndarray,
    events: _Events,
    groups: Mapping[str, str],
    seed: int,
    fraction: float,
    report: Callable[[str], None],
) -> np.ndarray:
    training = sorted({groups[s] for s, part in zip(events.stimulus_id, parts, strict=True) if part == schema.TRAIN})
    if len(training) < 2:
        report("There is one training stimulus only, so that none is left for validation.")
        return parts
    count = min(max(1, round(fraction * len(training))), len(training) - 1)
    chosen = {training[i] for i in np.random.default_rng(seed).permutation(len(training))[:count]}
    inside = np.array([groups[stimulus] in chosen for stimulus in events.stimulus_id])
    report(f"No validation trials are given: {count} of {len(training)} training stimuli drawn from seed {seed}.")
    return np.where(inside & (parts == schema.TRAIN), schema.VALIDATION, parts)


def _rows(events: _Events, subjects: Sequence[_Subject], groups: Mapping[str, str]) -> SplitRows:
    order = np.concatenate([subject.event_rows for subject in subjects])
    names = [subject.name for subject in subjects for _ in subject.event_rows]
    trials = [trial for subject in subjects for trial in range(len(subject.event_rows))]
    return SplitRows(names, trials, [events.stimulus_id[row] for row in order], groups=groups)


def _in_event_order(parts: list[str], subjects: Sequence[_Subject], count: int) -> np.ndarray:
    out = np.empty(count, dtype="U10")
    out[np.concatenate([subject.event_rows for subject in subjects])] = parts
    return out


def _add_voxels(
    writer: TrialTableWriter,
    subject: _Subject,
    info: _VoxelInfo,
    events: _Events,
    parts: np.ndarray,
    report: Callable[[str], None],
) -> None:
    chosen, width = subject.voxels, subject.fmri.shape[1]
    stimuli = np.array(events.stimulus_id)[subject.event_rows]
    subject_parts = parts[subject.event_rows]
    ncsnr, source = (None, None) if info.ncsnr is None else (info.ncsnr[chosen], schema.RELEASE)
    if ncsnr is None:
        sessions = np.array(events.session or [1] * len(events))[subject.event_rows]
        training = np.flatnonzero(subject_parts == schema.TRAIN)

        def read(rows: np.ndarray) -> np.ndarray:
            return subject.read(training[rows])

        ncsnr = estimate_ncsnr(read, stimuli[training], sessions[training], len(chosen))
        source = None if ncsnr is None else schema.TRAINING_REPETITIONS
        if ncsnr is None:
            report(f"{subject.name}: no noise ceilings, because no training stimulus is repeated.")
    writer.add_voxels(
        subject.name,
        len(chosen),
        roi=None if info.roi is None else [info.roi[voxel] for voxel in chosen],
        coordinates=None if info.coordinates is None else info.coordinates[chosen],
        ncsnr=ncsnr,
        source=source,
        repetitions=usual_repetitions(stimuli[subject_parts == schema.TEST]),
        source_columns=chosen if len(chosen) < width else None,
        source_width=width,
    )


def _add_trials(writer: TrialTableWriter, subject: _Subject, events: _Events, parts: np.ndarray) -> None:
    stimuli = [events.stimulus_id[row] for row in subject.event_rows]
    repetitions = _repetitions(events, subject.event_rows, stimuli)

    def pick(values: list[int] | None, rows: np.ndarray) -> list[int] | None:
        return None if values is None else [values[row] for row in subject.event_rows[rows]]

    for part in schema.SPLITS:
        rows = np.flatnonzero(parts[subject.event_rows] == part)
        if len(rows):
            writer.add_trials(
                subject.name,
                part,
                stimulus_ids=[stimuli[row] for row in rows],
                sessions=pick(events.session, rows),
                runs=pick(events.run, rows),
                trials=rows.tolist(),
                repetitions=[repetitions[row] for row in rows],
                fmri=subject.blocks(rows),
            )


def _repetitions(events: _Events, event_rows: np.ndarray, stimuli: Sequence[str]) -> list[int]:
    """From 0: as given (which may count from 1), or counted per stimulus in the order of the events."""
    if events.repetition is not None:
        first = min(events.repetition)
        return [events.repetition[row] - min(first, 1) for row in event_rows]
    seen: Counter[str] = Counter()
    counted = []
    for stimulus in stimuli:
        counted.append(seen[stimulus])
        seen[stimulus] += 1
    return counted


def _read_voxels(voxels: str | Path | Mapping[str, str | Path] | None, subject: _Subject) -> _VoxelInfo:
    if isinstance(voxels, Mapping):
        voxels = voxels.get(subject.name)
    if voxels is None:
        return _VoxelInfo(None, None, None)
    path = Path(voxels)
    data = read_bytes(path, "voxels file", "give a CSV file")
    columns = read_csv(data, f"The voxels file {path}", [], schema.MAX_VOXELS)
    count, rows = subject.fmri.shape[1], len(next(iter(columns.values()), []))
    if rows != count:
        raise FmriModelsError(
            f"The voxels file {path} has {rows} rows, {subject.name} has {count} voxels; expected one row a voxel."
        )
    if not columns.keys() & {"roi", "x", "y", "z", "ncsnr"}:
        raise FmriModelsError(f"The voxels file {path} has none of the columns roi, x, y, z, ncsnr.")
    axes = [_floats(columns[axis], axis, path, -_MOST_MM, _MOST_MM) for axis in "xyz" if axis in columns]
    if axes and len(axes) != 3:
        raise FmriModelsError(
            f"The voxels file {path} has only some of the columns x, y, z; expected all three or none."
        )
    return _VoxelInfo(
        columns.get("roi"),
        np.stack(axes, axis=1) if axes else None,
        _floats(columns["ncsnr"], "ncsnr", path, 0, _MOST_NCSNR) if "ncsnr" in columns else None,
    )


def _floats(texts: Sequence[str], column: str, path: Path, least: float, most: float) -> np.ndarray:
    """A column of numbers; NaN where a field is empty."""
    values = np.empty(len(texts), dtype=np.float32)
    for index, text in enumerate(texts):
        try:
            number = read_number(text) if text else np.nan
        except ValueError as error:
            raise FmriModelsError(
                f"The voxels file {path} has {one_line(repr(text), 60)} as {column} in row {index + 1}; expected a "
                "number, or nothing where it is unknown."
            ) from error
        if not (least <= number <= most or np.isnan(number)):
            raise FmriModelsError(
                f"The voxels file {path} has {one_line(text, 60)} as {column} in row {index + 1}; expected a number "
                f"from {least:g} to {most:g}."
            )
        values[index] = number
    return values


def _whole(text: str, column: str, path: Path, row: int) -> int:
    try:
        number = read_number(text)
    except ValueError:
        number = float("nan")
    # Spreadsheets write whole numbers as 1.0.
    if not number.is_integer() or not 0 <= number <= schema.MAX_INT32:
        raise FmriModelsError(
            f"The events file {path} has {one_line(repr(text), 60)} as {column} in row {row}; expected a whole number "
            f"from 0 to {schema.MAX_INT32}."
        )
    return int(number)
