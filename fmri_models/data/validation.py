"""Checking a whole trial table: every file is read, hashed and compared with what it should be."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from . import schema
from .pictures import content_sha256, decode_picture
from .split_files import check_disjoint, check_split_rows
from .table import TrialTable, open_parquet, read_metadata, read_parquet
from .writer import file_sha256


def validate_table(path: str | Path, progress: Callable[[str], object] = lambda step: None) -> list[str]:
    """Checks schema, columns, types, row counts, hashes, widths, trials, stimuli, pictures and splits.

    Args:
        path: The table's folder.
        progress: Takes the name of each file before it is read.

    Returns:
        What is wrong, one sentence a finding; empty if nothing is.
    """
    path = Path(path)
    try:
        metadata = read_metadata(path)
    except FmriModelsError as error:
        return [str(error)]
    findings = list(_file_findings(path, metadata["files"], progress))
    if findings:
        # What is read from changed files would only be the same findings in other words.
        return findings
    table = TrialTable(path, metadata)
    findings += _stimulus_findings(table, progress)
    for subject in table.subjects:
        findings += _voxel_findings(table, subject)
        findings += _trial_findings(table, subject, progress)
    return findings or list(_split_findings(table))


def _file_findings(path: Path, files: dict[str, dict], progress: Callable[[str], object]) -> Iterator[str]:
    for name, recorded in files.items():
        file = path / name
        progress(name)
        if not file.is_file():
            yield f"{name} is missing."
        elif file.stat().st_size != recorded["bytes"]:
            yield f"{name} has {file.stat().st_size} bytes; expected {recorded['bytes']}: it is cut short or changed."
        elif file_sha256(file) != recorded["sha256"]:
            yield f"{name} was changed: its SHA-256 is not the one in {schema.TABLE_FILE}."
        else:
            yield from _sentences(partial(_open_and_close, file), name)
    for folder in (schema.TRIALS_FOLDER, schema.STIMULI_FOLDER, schema.VOXELS_FOLDER, schema.NOISE_FREE_FOLDER):
        for file in sorted((path / folder).rglob("*.parquet")):
            if (name := file.relative_to(path).as_posix()) not in files:
                yield f"{name} does not belong to the table: {schema.TABLE_FILE} doesn't list it."


def _stimulus_findings(table: TrialTable, progress: Callable[[str], object]) -> Iterator[str]:
    names = [name for name in table.metadata["files"] if name.startswith(f"{schema.STIMULI_FOLDER}/")]
    wrong = [finding for name in names for finding in _schema_findings(table.path, name, schema.stimuli_schema())]
    if wrong:
        yield from wrong
        return
    if twice := [stimulus for stimulus, count in Counter(table.stimuli.ids).items() if count > 1]:
        yield f"{len(twice)} stimulus ids are there more than once ({schema.listed(twice)})."
    hashes = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
    progress("pictures")
    for stimulus, data in table.stimuli.encoded():
        if data is None:
            continue
        try:
            if content_sha256(decode_picture(data, f"stimulus {stimulus}")) != hashes[stimulus]:
                yield f"The picture of stimulus {stimulus} is not the one of its content_sha256."
        except FmriModelsError as error:
            yield str(error)


def _voxel_findings(table: TrialTable, subject: str) -> Iterator[str]:
    name = f"{schema.VOXELS_FOLDER}/{subject}.parquet"
    if wrong := list(_schema_findings(table.path, name, schema.voxels_schema())):
        yield from wrong
        return
    columns = read_parquet(table.path / name)
    width = table.num_voxels(subject)
    if len(columns) != width:
        yield f"{name} has {len(columns)} rows; {subject} has {width} voxels."
    elif columns["index"].to_pylist() != list(range(width)):
        yield f"{name}: the column index doesn't count from 0 to {width - 1}."


def _trial_findings(table: TrialTable, subject: str, progress: Callable[[str], object]) -> Iterator[str]:
    width = table.num_voxels(subject)
    numbers: Counter[int] = Counter()
    found: Counter[str] = Counter()
    for path in table.trial_files(subject):
        name = path.relative_to(table.path).as_posix()
        progress(name)
        kinds = [schema.trials_schema(width, dtype) for dtype in (np.float16, np.float32)]
        if wrong := list(_schema_findings(table.path, name, *kinds)):
            yield from wrong
            continue
        columns = read_parquet(path, schema.TRIAL_COLUMNS)
        numbers.update(columns["trial"].to_pylist())
        found[path.name.split("-")[0]] += len(columns)
        if others := set(columns["subject"].to_pylist()) - {subject}:
            yield f"{name} has trials of {schema.listed(sorted(others))}; expected {subject} only."
        if unknown := sorted({s for s in columns["stimulus_id"].to_pylist() if s not in table.stimuli}):
            yield f"{name} shows {len(unknown)} stimuli that the table doesn't have ({schema.listed(unknown)})."
        yield from _value_findings(path, name, width)
    if twice := [number for number, count in numbers.items() if count > 1]:
        yield f"{subject} has {len(twice)} trial numbers more than once ({schema.listed(twice)})."
    for split, expected in table.metadata["trials"][subject].items():
        if found[split] != expected:
            yield f"{subject} has {found[split]} trials in {split}; {schema.TABLE_FILE} says {expected}."


def _value_findings(path: Path, name: str, width: int) -> Iterator[str]:
    bad, first = 0, None
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, columns=["trial", schema.FMRI])
            finite = np.isfinite(schema.fmri_matrix(columns[schema.FMRI], width)).all(axis=1)
            if first is None and not finite.all():
                first = columns["trial"][int(np.argmin(finite))].as_py()
            bad += int((~finite).sum())
    if bad:
        yield f"{name} has NaN or infinite betas in {bad} trials (first: trial {first})."


def _split_findings(table: TrialTable) -> Iterator[str]:
    hashes = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
    names = table.split_names()
    if schema.DEFAULT_SPLIT not in names:
        yield f"The split {schema.DEFAULT_SPLIT!r} is missing."
    for name in names:
        yield from _sentences(partial(_check_split, table, name, hashes), f"split {name}")


def _open_and_close(path: Path) -> None:
    pq.ParquetFile(path).close()


def _check_split(table: TrialTable, name: str, hashes: dict[str, str | None]) -> None:
    rows = read_parquet(table.path / schema.SPLITS_FOLDER / f"{name}.parquet")
    repeats = table.repeats_stimuli(name)
    check_split_rows(name, rows, table.shown())
    if not repeats:
        check_disjoint(rows, hashes, name)


def _schema_findings(path: Path, name: str, *expected: pa.Schema) -> Iterator[str]:
    """One finding a column that is missing, or has none of the expected types."""
    try:
        with open_parquet(path / name) as file:
            found = file.schema_arrow
    except FmriModelsError as error:
        yield str(error)
        return
    for field in expected[0]:
        kinds = [kind.field(field.name).type for kind in expected]
        if field.name not in found.names:
            yield f"{name} has no column {field.name!r}."
        elif not any(_same_type(found.field(field.name).type, kind) for kind in kinds):
            wanted = " or ".join(dict.fromkeys(str(kind) for kind in kinds))
            yield f"{name}: the column {field.name} has the type {found.field(field.name).type}; expected {wanted}."


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether types are equal but for the names that writers give to a list's elements."""
    if pa.types.is_fixed_size_list(found) and pa.types.is_fixed_size_list(expected):
        return found.list_size == expected.list_size and found.value_type == expected.value_type
    if pa.types.is_list(found) and pa.types.is_list(expected):
        return found.value_type == expected.value_type
    return found == expected


def _sentences(check: Callable[[], object], what: str) -> Iterator[str]:
    try:
        check()
    except FmriModelsError as error:
        yield str(error)
    except (pa.ArrowException, OSError) as error:
        yield f"{what} can't be read ({str(error).splitlines()[0]})."
