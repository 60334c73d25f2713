"""A person's own betas: arrays, a table of events and a folder of pictures become a trial table."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import FmriModelsError
from ..in_memory import as_numbers
from ..names import check_line, check_name, did_you_mean, listed, one_line
from ..output_folders import TRIAL_TABLE, check_output_folder
from ..progress import bar
from ..reading import read_array
from ..seeds import check_seed
from . import schema
from .array_files import Events, VoxelInfo, read_events, read_voxels, without_spelling
from .noise_ceiling import estimate_ncsnr, usual_repetitions
from .picture_files import is_picture_name
from .pictures import content_sha256
from .splits import (
    FEWEST_TEST_STIMULI,
    SplitRows,
    check_fraction,
    draw_validation,
    few_tested_sentence,
    split_by_stimulus,
)
from .stimuli import StimulusSource, pixels_of, read_stimuli
from .writer import TrialTableWriter

DEFAULT_SUBJECT = "subj01"
_BLOCK = 256


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
            betas = as_numbers(self.fmri[self.file_rows[rows]], "Betas")
            return np.asarray(betas, dtype=np.float32)[:, self.voxels]

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
    size: int | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Writes a trial table from arrays.

    Args:
        fmri: A `.npy` file of (trials, voxels) numbers, or one a subject. Files are memory-mapped, never read whole.
        events: A CSV or TSV file with a row a trial in the order of the array (of each subject's array), with
            `stimulus_id` and, where known, `subject, session, run, repetition, split`.
        stimuli: A folder (or zip file) with `<stimulus_id>.png` or another picture; see `read_stimuli`.
        out: The folder to be written.
        voxels: A CSV file, or one a subject, with a row a voxel and any of `roi, x, y, z, ncsnr`.
        drop_bad_voxels: Leave out voxels that have NaN or infinite values in any trial, or never change.
        seed: Draws the split where the events have none.
        name: The table's name; by default that of the folder.
        test_fraction: Share of the stimuli that are tested, where the events have no split.
        validation_fraction: Share of the training stimuli for validation, where the events have none.
        overwrite: Replace a folder that has content.
        size: Crop pictures to their central square and resize it to `size` x `size`; as they are by default.
        report: Takes sentences that a person should read, also of what training would refuse.

    Raises:
        FmriModelsError: Anything about the files is not as described; nothing is written then.
    """
    for option, value in (("drop_bad_voxels", drop_bad_voxels), ("overwrite", overwrite)):
        if not isinstance(value, bool | np.bool_):
            raise FmriModelsError(f"{option} is {one_line(repr(value), 60)}; expected True or False.")
    seed = check_seed(seed)
    check_fraction(test_fraction, "test fraction")
    check_fraction(validation_fraction, "validation fraction", or_none=True)
    out = Path(out)
    name = check_line(name or out.absolute().name, "table's name (of --name, or of the folder)", most=200)
    inputs = [*_paths(fmri), events, stimuli, *_paths(voxels)]
    check_output_folder(out, overwrite, TRIAL_TABLE, inputs)
    known = read_events(Path(events), report)
    subjects = _match_subjects(fmri, known, Path(events))
    source = read_stimuli(stimuli, size)
    shown = set(known.stimulus_id)
    _check_pictures(shown, source)
    for note in source.notes():
        report(note)
    _check_voxel_names(voxels, [subject.name for subject in subjects])
    infos = {subject.name: _voxel_info(voxels, subject, report) for subject in subjects}
    for subject in subjects:
        _choose_voxels(subject, drop_bad_voxels, report)
    # Only what was shown: a folder may have thousands of other pictures.
    groups = {
        record["stimulus_id"]: content_sha256(pixels_of(record))
        for record in bar(source, "Comparing pictures", unit="picture", delay=1)
        if record["stimulus_id"] in shown
    }
    repeated = _tested_again(known, groups)
    parts = _split_parts(known, subjects, groups, repeated, seed, test_fraction, validation_fraction, report)
    _say_unseen_sessions(known, subjects, parts, report)
    with TrialTableWriter(
        out,
        name,
        overwrite=overwrite,
        repeats_stimuli=_repeats_sentence(repeated) if repeated else "",
        created_by="fmri-models prepare arrays",
        inputs=inputs,
    ) as writer:
        pictures = bar(source, "Writing pictures", unit="picture", delay=1)
        writer.add_stimuli(record for record in pictures if record["stimulus_id"] in shown)
        for subject in bar(subjects, "Writing subjects", unit="subject", delay=1):
            _add_voxels(writer, subject, infos[subject.name], known, parts, report)
            _add_trials(writer, subject, known, parts)
        writer.extra["split"] = {"drawn": known.split is None, "seed": seed}
        if size is not None:
            writer.extra["pictures"] = {"central_square_resized_to": source.size}
    for sentence in [*writer.findings, *writer.notes]:
        report(sentence)


def _paths(files: str | Path | Mapping[str, str | Path] | None) -> list[str | Path]:
    if files is None:
        return []
    return list(files.values()) if isinstance(files, Mapping) else [files]


def _match_subjects(fmri: str | Path | Mapping[str, str | Path], events: Events, events_path: Path) -> list[_Subject]:
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


def _check_pictures(shown: set[str], source: StimulusSource) -> None:
    """Refuses stimuli without a picture, and says what may have been meant."""
    missing = sorted(shown - set(source.ids))
    if not missing:
        return
    of_stem: dict[str, list[str]] = {}
    alike: dict[str, str] = {}
    for file, stimulus in zip(source.files, source.ids, strict=False):
        of_stem.setdefault(PurePosixPath(file).stem, []).append(file)
        alike.setdefault(_without_spelling(stimulus), stimulus)
    for stimulus in missing:
        if len(files := of_stem.get(stimulus, [])) > 1:
            raise FmriModelsError(
                f"The stimulus {stimulus} has {len(files)} pictures in {one_line(source.path)} "
                f"({listed(files)}); leave one of them there, or say in an index.csv with the columns file and "
                "stimulus_id which it is."
            )
    near = alike.get(_without_spelling(missing[0]))
    hint = f": the picture {near} is there, so write {near} for {missing[0]} in the events" if near else ""
    leads_nowhere = {PurePosixPath(file).stem: file for file in source.unreadable}
    if lost := [leads_nowhere[stimulus] for stimulus in missing if stimulus in leads_nowhere]:
        hint = f": {one_line(lost[0])} is a pipe or a link to no file, so put the picture itself there"
    raise FmriModelsError(
        f"{len(missing)} of {len(shown)} stimuli have no picture in {one_line(source.path)} "
        f"({listed(missing)}); expected <stimulus_id>.png or .jpg{hint}."
    )


def _without_spelling(stimulus: str) -> str:
    """An id without its ending, upper case, leading zeros, and what is no letter or digit."""
    name = PurePosixPath(stimulus).stem if is_picture_name(stimulus) else stimulus
    return re.sub(r"(?<![0-9])0+(?=[0-9])|[^a-z0-9]", "", name.casefold())


def _choose_voxels(subject: _Subject, drop: bool, report: Callable[[str], None]) -> None:
    """Finds voxels that are not finite or never change, and refuses, keeps or drops them."""
    lowest = np.full(subject.fmri.shape[1], np.inf, dtype=np.float32)
    highest, finite = -lowest, np.ones(len(lowest), dtype=bool)
    empty_trials: list[int] = []
    infinite = False
    for start in range(0, len(subject.file_rows), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(subject.file_rows)))
        block = subject.read(rows)
        is_finite = np.isfinite(block)
        empty_trials += subject.event_rows[rows[~is_finite.any(axis=1)]].tolist()
        finite &= is_finite.all(axis=0)
        infinite = infinite or bool(np.isinf(block).any())
        np.fmin(lowest, block.min(axis=0), out=lowest)
        np.fmax(highest, block.max(axis=0), out=highest)
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


def _split_parts(
    events: Events,
    subjects: Sequence[_Subject],
    groups: Mapping[str, str],
    repeated: set[str],
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
    tested = {groups[s] for s, part in zip(events.stimulus_id, events.split, strict=True) if part == schema.TEST}
    if 0 < len(tested) < FEWEST_TEST_STIMULI and not repeated:
        report(few_tested_sentence(len(tested)))
    if schema.TEST not in parts:
        report("No trial of the events is in the split 'test': the table can be learned from, but not evaluated on.")
    if repeated:
        report(_repeats_sentence(repeated))
    if schema.VALIDATION not in parts and validation_fraction:
        parts = _draw_validation(parts, events, groups, repeated, seed, validation_fraction, report)
    return parts


def _tested_again(events: Events, groups: Mapping[str, str]) -> set[str]:
    """Stimuli that the design tests in runs of their own and learns from in others.

    None where that may be a mistake: where a run is in several parts, or some tested stimuli are new and others not.
    """
    if events.split is None or events.run is None:
        return set()
    parts_of_run: dict[tuple[int, int], set[str]] = {}
    shown: dict[str, set[str]] = {part: set() for part in schema.SPLITS}
    for stimulus, run, part in zip(events.stimulus_id, _runs(events), events.split, strict=True):
        parts_of_run.setdefault(run, set()).add(part)
        shown[part].add(groups[stimulus])
    by_run = all(len(parts) == 1 for parts in parts_of_run.values())
    return shown[schema.TEST] if by_run and shown[schema.TEST] <= shown[schema.TRAIN] else set()


def _repeats_sentence(repeated: Collection[str]) -> str:
    return (
        f"The {len(repeated)} tested stimuli are learned from in other runs, as the events' split by run says: scores "
        "say how well responses generalise over runs, not to new pictures."
    )


def _draw_validation(
    parts: np.ndarray,
    events: Events,
    groups: Mapping[str, str],
    repeated: set[str],
    seed: int,
    fraction: float,
    report: Callable[[str], None],
) -> np.ndarray:
    subjects = events.subject or [DEFAULT_SUBJECT] * len(events)
    rows = SplitRows(subjects, range(len(events)), events.stimulus_id, _runs(events), groups)
    training = np.flatnonzero(parts == schema.TRAIN)
    drawn = draw_validation(rows, training, fraction, np.random.default_rng(seed), repeated)
    if not len(drawn):
        why = "No training run can be spared" if repeated else "No training stimulus can be spared"
        report(f"{why}, so that none is left for validation.")
        return parts
    what = "runs" if repeated else "training stimuli"
    of_row = [rows.runs[row] if repeated else rows.group_of(rows.stimulus_ids[row]) for row in range(len(events))]
    count, total = len({of_row[row] for row in drawn}), len({of_row[row] for row in training})
    report(f"No validation trials are given: {count} of {total} {what} drawn from seed {seed}.")
    return np.where(np.isin(np.arange(len(parts)), drawn), schema.VALIDATION, parts)


def _runs(events: Events) -> list[tuple[int, int]]:
    """A run is a session's run."""
    count = len(events)
    return list(zip(events.session or [1] * count, events.run or [1] * count, strict=True))


def _say_unseen_sessions(
    events: Events, subjects: Sequence[_Subject], parts: np.ndarray, report: Callable[[str], None]
) -> None:
    """Tells of test trials for whose session there are no statistics, which has to be said in evaluation."""
    if events.session is None:
        return
    sessions = np.array(events.session)
    for subject in subjects:
        of_part = {part: sessions[subject.event_rows[parts[subject.event_rows] == part]] for part in schema.SPLITS}
        unseen = np.setdiff1d(of_part[schema.TEST], of_part[schema.TRAIN])
        if len(unseen):
            count = int(np.isin(of_part[schema.TEST], unseen).sum())
            report(
                f"{subject.name}: {count} test trials are of sessions without training trials "
                f"({listed(unseen.tolist())}); evaluate with `--unseen-session pooled`, or train with "
                "`processor.statistics=pooled`."
            )


def _rows(events: Events, subjects: Sequence[_Subject], groups: Mapping[str, str]) -> SplitRows:
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
    info: VoxelInfo,
    events: Events,
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


def _add_trials(writer: TrialTableWriter, subject: _Subject, events: Events, parts: np.ndarray) -> None:
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


def _repetitions(events: Events, event_rows: np.ndarray, stimuli: Sequence[str]) -> list[int]:
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


def _check_voxel_names(voxels: str | Path | Mapping[str, str | Path] | None, subjects: Sequence[str]) -> None:
    """Refuses files of voxels that are nobody's."""
    if not isinstance(voxels, Mapping):
        return
    if unknown := next((name for name in voxels if name not in subjects), None):
        near = [name for name in subjects if without_spelling(name) == without_spelling(str(unknown))]
        hint = f" Did you mean {near[0]!r}?" if near else did_you_mean(unknown, subjects)
        raise FmriModelsError(
            f"A file of voxels is given for {one_line(repr(unknown))}, of whom there are no betas; there are those of "
            f"{listed(sorted(subjects), 20)}.{hint}"
        )


def _voxel_info(
    voxels: str | Path | Mapping[str, str | Path] | None, subject: _Subject, report: Callable[[str], None]
) -> VoxelInfo:
    if isinstance(voxels, Mapping):
        voxels = voxels.get(subject.name)
    return VoxelInfo() if voxels is None else read_voxels(Path(voxels), subject.name, subject.fmri.shape[1], report)
