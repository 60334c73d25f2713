"""Checking a whole trial table: every file is read, hashed and compared with what it should be."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from ..names import listed, one_line
from ..swapping import is_partial
from . import schema
from .hub import table_folder
from .metadata import read_metadata
from .near_copies import PictureSketches
from .parquet import column_findings, file_sha256, fmri_chunks, is_finite, naming, read_parquet
from .pictures import content_sha256, decode_picture
from .run_checks import RunChecks
from .split_files import check_disjoint, check_split_rows, parts_by_fold
from .table import TrialTable
from .training_checks import Shown, TrainingChecks
from .voxel_checks import voxel_findings, voxel_notes

_MOST_NEAR_COPIES = 20


def validate_table(
    path: str | Path,
    progress: Callable[[str], object] = lambda step: None,
    note: Callable[[str], object] = lambda sentence: None,
) -> list[str]:
    """Checks schema, columns, types, row counts, hashes, widths, voxels, trials, runs, stimuli, pictures and splits.

    Args:
        path: The table's folder, or its repository on the Hub.
        progress: Takes the name of each file before it is read.
        note: Takes sentences on what is worth knowing and nothing wrong.

    Returns:
        What is wrong, one sentence a finding; empty if nothing is.
    """
    try:
        path = table_folder(path)
        metadata = read_metadata(path)
    except FmriModelsError as error:
        return [str(error)]
    findings = list(_file_findings(path, metadata["files"], progress))
    if findings:
        # What is read from changed files would only be the same findings in other words.
        return findings
    table = TrialTable(path, metadata)
    checks = TrainingChecks()
    findings += _stimulus_findings(table, checks, progress)
    if findings:
        # Trials and splits are compared with stimuli that can be read.
        return findings
    if strange := sorted(metadata.get("grids", {}).keys() - set(table.subjects)):
        findings.append(
            f"{schema.TABLE_FILE} has grids of {listed(strange)}, which the table doesn't have as subjects."
        )
    for subject in table.subjects:
        findings += _voxel_findings(table, subject, note)
        findings += _trial_findings(table, subject, checks, progress)
    counts = {name: parts.get(schema.UNLABELLED, 0) for name, parts in metadata["trials"].items()}
    if any(counts.values()):
        told = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
        note(f"Trials without a stimulus (part {schema.UNLABELLED!r}): {told}.")
    for sentence in checks.notes():
        note(sentence)
    findings = findings or [*_split_findings(table), *checks.findings(_shown(table))]
    for sentence in () if findings else _same_pictures(table):
        note(sentence)
    return findings or list(_near_copy_findings(table, progress))


def _file_findings(path: Path, files: dict[str, dict], progress: Callable[[str], object]) -> Iterator[str]:
    for name, recorded in files.items():
        file = path / name
        progress(name)
        if not file.is_file():
            yield f"{name} is missing."
        elif file.stat().st_size != recorded["bytes"]:
            yield f"{name} has {file.stat().st_size} bytes; expected {recorded['bytes']}: it is cut short or changed."
        else:
            yield from _sentences(partial(_check_hash, file, name, recorded["sha256"]))
    for folder in (schema.TRIALS_FOLDER, schema.STIMULI_FOLDER, schema.VOXELS_FOLDER, schema.NOISE_FREE_FOLDER):
        for file in sorted((path / folder).rglob("*.parquet")):
            if (name := file.relative_to(path).as_posix()) not in files:
                yield f"{one_line(name)} does not belong to the table: {schema.TABLE_FILE} doesn't list it."


def _check_hash(file: Path, name: str, recorded: str) -> None:
    with naming(file):
        found = file_sha256(file)
    if found != recorded:
        raise FmriModelsError(f"{name} was changed: its SHA-256 is not the one in {schema.TABLE_FILE}.")
    with naming(file):
        pq.ParquetFile(file).close()


def _stimulus_findings(table: TrialTable, checks: TrainingChecks, progress: Callable[[str], object]) -> Iterator[str]:
    names = [name for name in table.metadata["files"] if name.startswith(f"{schema.STIMULI_FOLDER}/")]
    wrong = [finding for name in names for finding in _schema_findings(table.path, name, schema.stimuli_schema())]
    if wrong := wrong or list(_sentences(lambda: (table.stimuli, table.stimuli.factors(), table.stimuli.clips()))):
        yield from wrong
        return
    hashes = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
    progress("pictures")

    def check(stimulus: str, data: bytes) -> None:
        pixels = decode_picture(data, f"stimulus {stimulus}")
        if content_sha256(pixels) != hashes[stimulus]:
            raise FmriModelsError(f"The picture of stimulus {stimulus} is not the one of its content_sha256.")
        if pixels.shape[2] > table.metadata["image_channels"]:
            raise FmriModelsError(f"The picture of stimulus {stimulus} is coloured; but not the table.")
        checks.add_picture(stimulus, pixels)

    try:
        for stimulus, data in table.stimuli.encoded():
            if data is not None:
                yield from _sentences(partial(check, stimulus, data))
    except FmriModelsError as error:
        yield str(error)
    if table.stimuli.has_clips:
        progress("frames of clips")
        for stimulus in table.stimuli.ids:
            yield from _sentences(partial(_check_frames, table, stimulus))


def _check_frames(table: TrialTable, stimulus: str) -> None:
    clip = table.stimuli.clips([stimulus], frames=True)[0]
    if clip is not None and clip.frames:
        clip.pixels()


def _voxel_findings(table: TrialTable, subject: str, note: Callable[[str], object]) -> Iterator[str]:
    name = f"{schema.VOXELS_FOLDER}/{subject}.parquet"
    wrong = list(_schema_findings(table.path, name, schema.voxels_schema()))
    if wrong := wrong or list(_sentences(partial(table.voxels, subject))):
        yield from wrong
    else:
        voxels = table.voxels(subject)
        yield from voxel_findings(table.path / name, subject, voxels)
        for sentence in voxel_notes(subject, voxels):
            note(sentence)
    if (table.path / schema.NOISE_FREE_FOLDER / f"{subject}.parquet").exists():
        yield from _sentences(partial(_check_noise_free, table, subject))


def _check_noise_free(table: TrialTable, subject: str) -> None:
    ids, _ = table.noise_free(subject) or ([], None)
    if unknown := sorted({stimulus for stimulus in ids if stimulus not in table.stimuli}):
        raise FmriModelsError(
            f"The noise-free responses of {subject} are to {len(unknown)} stimuli that the table doesn't have "
            f"({listed(unknown)})."
        )


def _trial_findings(
    table: TrialTable, subject: str, checks: TrainingChecks, progress: Callable[[str], object]
) -> Iterator[str]:
    width = table.num_voxels(subject)
    expected = schema.trials_schemas(width)
    bad_files = False
    runs = RunChecks()
    for path in table.trial_files(subject):
        name = path.relative_to(table.path).as_posix()
        progress(name)
        if wrong := list(_schema_findings(table.path, name, *expected)):
            bad_files = True
            yield from wrong
            continue
        take = partial(checks.add_trials, subject, path.name.split("-")[0])
        yield from _sentences(partial(_check_values, path, name, width, expected, take, runs))
    if bad_files:
        return
    yield from runs.findings(subject)
    if wrong := list(_sentences(partial(table.all_trials, subject))):
        yield from wrong
        return
    shown = sorted(set(table.all_trials(subject).stimulus_ids.tolist()))
    if unknown := [stimulus for stimulus in shown if stimulus not in table.stimuli]:
        yield f"{subject} was shown {len(unknown)} stimuli that the table doesn't have ({listed(unknown)})."


def _shown(table: TrialTable) -> dict[str, dict[str, Shown]]:
    """Each subject's trials in each part of the default split, in the order of the files."""
    shown = {}
    for subject, counts in table.metadata["trials"].items():
        trials = table.all_trials(subject)
        ends = np.cumsum([counts[part] for part in schema.SPLITS]).tolist()
        spans = zip(schema.SPLITS, [0, *ends[:-1]], ends, strict=True)
        shown[subject] = {
            part: Shown(trials.trials[start:end].tolist(), trials.stimulus_ids[start:end].tolist())
            for part, start, end in spans
        }
        unlabelled = table.unlabelled_trials(subject)
        shown[subject][schema.UNLABELLED] = Shown(unlabelled.trials.tolist(), unlabelled.stimulus_ids.tolist())
    return shown


def _check_values(
    path: Path,
    name: str,
    width: int,
    expected: list[pa.Schema],
    take: Callable[[np.ndarray], object],
    runs: RunChecks,
) -> None:
    bad, position, first = 0, 0, None
    which = read_parquet(path, *expected, columns=["session", "run"], most_rows=schema.MAX_TRIALS)
    sessions, numbers_of_runs = (which[column].to_numpy() for column in ("session", "run"))
    for chunk in fmri_chunks(path, width, *expected, most_rows=schema.MAX_TRIALS, finite=False):
        finite = is_finite(chunk)
        if first is None and not finite.all():
            first = position + int(np.argmin(finite))
        take(chunk)
        end = position + len(chunk)
        runs.add(sessions[position:end], numbers_of_runs[position:end], chunk)
        bad += int((~finite).sum())
        position = end
    if first is not None:
        numbers = read_parquet(path, *expected, columns=["trial"], most_rows=schema.MAX_TRIALS)["trial"]
        raise FmriModelsError(
            f"{name} has NaN or infinite betas in {bad} trials (first: trial {numbers[first].as_py()})."
        )


def _split_findings(table: TrialTable) -> Iterator[str]:
    hashes = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
    names = table.split_names()
    if schema.DEFAULT_SPLIT not in names:
        yield f"The split {schema.DEFAULT_SPLIT!r} is missing."
    for file in sorted((table.path / schema.SPLITS_FOLDER).glob("*.parquet")):
        if file.stem not in names and not is_partial(file.name):
            yield f"{one_line(file.name)} is no split: its name can't be that of one; rename it."
    for name in names:
        wrong = list(_sentences(partial(_check_split, table, name, hashes)))
        yield from wrong
        if name == schema.DEFAULT_SPLIT and not wrong:
            yield from _default_split_findings(table)


def _check_split(table: TrialTable, name: str, hashes: dict[str, str | None]) -> None:
    rows = table.split_rows(name)
    check_split_rows(name, rows, table.shown())
    if not table.repeats_stimuli(name):
        check_disjoint(rows, hashes, name)


def _default_split_findings(table: TrialTable) -> Iterator[str]:
    """Whether the default split is that of the files, of which `table.json` counts the trials."""
    rows = table.split_rows()
    columns = (rows[name].to_pylist() for name in ("subject", "trial", "split"))
    parts = {(subject, trial): part for subject, trial, part in zip(*columns, strict=True)}
    for subject, of_files in _shown(table).items():
        for part in schema.SPLITS:
            found = [parts.get((subject, trial)) for trial in of_files[part].trials]
            if other := sorted({each or "no part" for each in found} - {part}):
                count = sum(each != part for each in found)
                yield (
                    f"The split {schema.DEFAULT_SPLIT!r} has {count} of {len(found)} trials of {subject} in "
                    f"{listed(other)} that the files, and {schema.TABLE_FILE}, have in {part}; prepare the table again."
                )


def _same_pictures(table: TrialTable) -> Iterator[str]:
    """Tested stimuli of a split that show the very same picture; they are in one part and fold, as was checked."""
    contents = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
    for name in table.split_names():
        groups: dict[str, list[str]] = {}
        rows = table.split_rows(name)
        for stimulus in sorted(set(rows.filter(pc.equal(rows["split"], schema.TEST))["stimulus_id"].to_pylist())):
            groups.setdefault(contents.get(stimulus) or stimulus, []).append(stimulus)
        same = [" = ".join(group) for group in groups.values() if len(group) > 1]
        if same:
            yield (
                f"The split {name!r} tests the very same picture under different ids ({listed(same)}): an "
                "evaluation takes those of one picture for one stimulus."
            )


def _near_copy_findings(table: TrialTable, progress: Callable[[str], object]) -> Iterator[str]:
    """Tested pictures that are nearly those of the training or validation, under another id."""
    folds = {name: list(parts_by_fold(table.split_rows(name))) for name in table.split_names()}
    compared = [tested | known for each in folds.values() for _, tested, known in each if tested and known]
    if not compared:
        return
    progress("near copies")
    sketches = PictureSketches(table.stimuli, set().union(*compared))
    for name, each in folds.items():
        found = {copy: fold for fold, tested, known in reversed(each) for copy in sketches.near_copies(tested, known)}
        pairs = sorted(found.items(), key=lambda pair: (pair[1], pair[0].stimulus))
        for copy, fold in pairs[:_MOST_NEAR_COPIES]:
            yield (
                f"The split {name!r} (fold {fold}) tests nearly the same picture as it learns from: {copy}; leave one "
                "of them out, or have both in one part."
            )
        if len(pairs) > _MOST_NEAR_COPIES:
            yield f"The split {name!r} has {len(pairs) - _MOST_NEAR_COPIES} more such pairs."


def _schema_findings(path: Path, name: str, *expected: pa.Schema) -> Iterator[str]:
    """One finding a column that is missing, or has none of the expected types."""
    try:
        with naming(path / name), pq.ParquetFile(path / name) as file:
            yield from (f"{name}{finding}." for finding in column_findings(file, expected))
    except FmriModelsError as error:
        yield str(error)


def _sentences(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except FmriModelsError as error:
        yield str(error)
