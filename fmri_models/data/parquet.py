"""The door of a table's Parquet files: columns, types and sizes are checked when a file is opened, values when read.

A small file may claim 50 million rows, or repeat one text a million times. What a file claims is therefore compared
with bounds before anything is decoded, text is decoded to a dictionary of the different ones, and what may be larger
than memory comes in batches.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from ..names import one_line
from ..reading import MEBIBYTE, check_regular_file
from . import schema

MEND = "prepare the table again, or copy it again"
# Of text and numbers beside betas and pictures, decompressed, in one file.
_MOST_COLUMN_BYTES = 512 * MEBIBYTE
# Of the pictures of a row group, which the reader decompresses together if there is one large page.
_MOST_PICTURE_BYTES = 512 * MEBIBYTE
# Captions of a stimulus, as a mean.
_MOST_VALUES_A_ROW = 1000
# Betas are noise, and pictures are compressed: what shrinks to less than a hundredth is neither.
_LARGEST_RATIO = 100
_READ_BUFFER = MEBIBYTE
_FMRI_BATCH_BYTES = 64 * MEBIBYTE
_PICTURES_A_BATCH = 16
_ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"}
_DICTIONARIES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}


class naming:  # noqa: N801 (used like a function)
    """Turns what Arrow raises on a broken file into a sentence that names it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, error_type: type | None, error: BaseException | None, trace: object) -> None:
        # Arrow raises whatever its decoders find: its own errors, ValueError, UnicodeDecodeError, OverflowError ...
        if isinstance(error, Exception) and not isinstance(error, FmriModelsError):
            reason = one_line(str(error).strip().partition("\n")[0] or type(error).__name__, 200)
            raise FmriModelsError(
                f"{one_line(self._path)} can't be read ({reason}); it is missing, cut short or damaged: {MEND}."
            ) from error


def open_parquet(path: Path, *expected: pa.Schema, columns: Sequence[str], most_rows: int) -> pq.ParquetFile:
    """Opens a Parquet file of a table, whose text is read as dictionaries.

    Args:
        path: The file.
        expected: The schemas that it may have; the first one tells the columns' order.
        columns: What will be read. Only these have to be there.
        most_rows: How many rows it may have.

    Raises:
        FmriModelsError: The file is missing or broken, has no such columns, or claims more than it may hold.
    """
    check_regular_file(path, "file of the table", MEND)
    with naming(path):
        file = pq.ParquetFile(path, buffer_size=_READ_BUFFER)
        try:
            if found := next(column_findings(file, expected, columns), None):
                raise FmriModelsError(f"{one_line(path)}{found}; prepare the table again.")
            _check_claims(file, path, columns, most_rows)
        except BaseException:
            file.close()
            raise
        text = [name for name in (_text_path(expected[0].field(column)) for column in columns) if name]
        if not text:
            return file
        with file:
            return pq.ParquetFile(path, metadata=file.metadata, read_dictionary=text, buffer_size=_READ_BUFFER)


def columns_there(path: Path, names: Sequence[str]) -> list[str]:
    """Which of some columns a Parquet file has.

    Raises:
        FmriModelsError: The file is missing or broken.
    """
    check_regular_file(path, "file of the table", MEND)
    with naming(path), pq.ParquetFile(path, buffer_size=_READ_BUFFER) as file:
        found = file.schema_arrow.names
    return [name for name in names if name in found]


def read_parquet(
    path: Path,
    *expected: pa.Schema,
    columns: Sequence[str] | None = None,
    most_rows: int,
    nullable: Sequence[str] = (),
) -> pa.Table:
    """Reads text and numbers of a table's Parquet file.

    Args:
        path: The file.
        expected: The schemas that it may have.
        columns: Of these columns alone.
        most_rows: How many rows it may have.
        nullable: Columns that may have missing values.

    Returns:
        Numbers as they are, text as dictionaries.

    Raises:
        FmriModelsError: As [`open_parquet`], a value is missing, or text is no UTF-8.
    """
    columns = list(expected[0].names if columns is None else columns)
    with open_parquet(path, *expected, columns=columns, most_rows=most_rows) as file, naming(path):
        table = _read(file, path, columns)
        table.validate(full=True)
    for name in columns:
        if name not in nullable and table[name].null_count:
            raise FmriModelsError(f"{one_line(path)} has missing values (null) in the column {name}; {MEND}.")
    return table


def fmri_chunks(
    path: Path, num_voxels: int, *expected: pa.Schema, most_rows: int, finite: bool = True
) -> Iterator[np.ndarray]:
    """Betas as (rows, num_voxels) float16 or float32 chunks, as stored.

    Args:
        path: The file.
        num_voxels: How many each trial has.
        expected: The schemas that it may have.
        most_rows: How many rows it may have.
        finite: Refuse NaN and infinite values.

    Raises:
        FmriModelsError: The file is broken or of another width, or a value is missing, NaN or infinite.
    """
    first = 0
    rows = max(1, min(256, _FMRI_BATCH_BYTES // (4 * num_voxels)))
    with open_parquet(path, *expected, columns=[schema.FMRI], most_rows=most_rows) as file, naming(path):
        _check_fmri_claim(file, path, num_voxels)
        for batch in file.iter_batches(rows, columns=[schema.FMRI]):
            try:
                values = schema.fmri_matrix(batch.column(0), num_voxels)
            except FmriModelsError as error:
                raise FmriModelsError(f"{one_line(path)}: {error}") from error
            bad = ~is_finite(values)
            if finite and bad.any():
                raise FmriModelsError(
                    f"{one_line(path)} has NaN or infinite betas (first: row {first + int(np.argmax(bad))}); run "
                    "`fmri-models data validate` on the table, and prepare it again."
                )
            yield values
            first += len(values)


def is_finite(values: np.ndarray) -> np.ndarray:
    """(rows,) whether all values of each row of a (rows, voxels) float16 or float32 matrix are finite numbers."""
    # The largest of all bit patterns tells, and NumPy looks at halves one by one otherwise.
    if values.dtype == np.float16:
        return (values.view(np.uint16) & 0x7C00).max(axis=1, initial=0) < 0x7C00
    return np.isfinite(values).all(axis=1)


def pictures(
    path: Path, expected: pa.Schema, positions: np.ndarray, most_rows: int
) -> Iterator[tuple[int, bytes | None]]:
    """The bytes of some pictures, None where one is missing.

    Args:
        path: A file of stimuli.
        expected: Its schema.
        positions: Which of its pictures; ascending.
        most_rows: How many rows the file may have.
    """
    with open_parquet(path, expected, columns=["image"], most_rows=most_rows) as file, naming(path):
        start = total = 0
        most_bytes = max(1024 * MEBIBYTE, _LARGEST_RATIO * path.stat().st_size)
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            inside = set(positions[(positions >= start) & (positions < start + about.num_rows)].tolist())
            if inside:
                # Of a dictionary, each row may be a copy of its largest value.
                of_dictionary = _DICTIONARIES & set(_encodings(about, "image"))
                size = 1 if of_dictionary else _PICTURES_A_BATCH
                row = start
                for batch in file.iter_batches(size, row_groups=[group], columns=["image"]):
                    images = batch.column(0)
                    total += images.nbytes
                    if total > most_bytes:
                        raise FmriModelsError(_too_much(path, f"{total / MEBIBYTE:.0f} MiB of pictures or more"))
                    for index in range(len(images)):
                        if row + index in inside:
                            picture = images[index].as_py()
                            yield row + index, None if picture is None else picture["bytes"]
                    row += len(images)
            start += about.num_rows


def num_pictures(path: Path, expected: pa.Schema, most_rows: int) -> int:
    """How many rows of a file of stimuli have a picture, by what the file says of itself; read where it doesn't say so.

    Args:
        path: A file of stimuli.
        expected: Its schema.
        most_rows: How many rows the file may have.
    """
    count = 0
    with open_parquet(path, expected, columns=["image"], most_rows=most_rows) as file, naming(path):
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            columns = [about.column(index) for index in range(about.num_columns)]
            data = next((column for column in columns if column.path_in_schema == "image.bytes"), None)
            said = None if data is None else data.statistics
            if data is None or said is None or not said.has_null_count:
                rows = file.metadata.num_rows
                return sum(data is not None for _, data in pictures(path, expected, np.arange(rows), most_rows))
            count += about.num_rows - said.null_count
    return count


def clips(path: Path, positions: np.ndarray, most_rows: int, frames: bool) -> Iterator[tuple[int, dict | None]]:
    """Some clips of a file of stimuli that has them, None where a stimulus does not move.

    Args:
        path: The file.
        positions: Which of its rows; ascending.
        most_rows: How many rows the file may have.
        frames: Whether frames are read; else there is nothing under their name.
    """
    expected = schema.stimuli_schema(clips=True)
    parts = ("file", "start", "seconds", *(("frames",) if frames else ()))
    columns = [f"{schema.CLIP}.{part}" for part in parts]
    with open_parquet(path, expected, columns=[schema.CLIP], most_rows=most_rows) as file, naming(path):
        start = total = 0
        most_bytes = max(1024 * MEBIBYTE, _LARGEST_RATIO * path.stat().st_size)
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            inside = set(positions[(positions >= start) & (positions < start + about.num_rows)].tolist())
            if inside:
                row = start
                for batch in file.iter_batches(1 if frames else 256, row_groups=[group], columns=columns):
                    # Of a dictionary, each frame may be a copy of its largest value.
                    total += batch.nbytes
                    if total > most_bytes:
                        raise FmriModelsError(_too_much(path, f"{total / MEBIBYTE:.0f} MiB of frames or more"))
                    for value in batch.column(0):
                        if row in inside:
                            yield row, value.as_py()
                        row += 1
            start += about.num_rows


def column_findings(
    file: pq.ParquetFile, expected: Sequence[pa.Schema], columns: Sequence[str] | None = None
) -> Iterator[str]:
    """What is wrong with each column that is missing, or has none of the expected types, as what follows its name."""
    found = file.schema_arrow
    for name in expected[0].names if columns is None else columns:
        types = [each.field(name).type for each in expected]
        if found.names.count(name) != 1:
            yield f" has no column {name!r}" if name not in found.names else f" has the column {name!r} twice"
        elif not any(_same_type(found.field(name).type, wanted) for wanted in types):
            wanted = " or ".join(dict.fromkeys(map(str, types)))
            is_type = one_line(_plain(found.field(name).type), 100)
            yield f": the column {name} has the type {is_type}; expected {wanted}"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(file: pq.ParquetFile, path: Path, columns: list[str]) -> pa.Table:
    lists = [name for name in columns if pa.types.is_list(file.schema_arrow.field(name).type)]
    table = file.read(columns=[name for name in columns if name not in lists])
    if lists:
        for name, values in zip(lists, _read_lists(file, path, lists).columns, strict=True):
            table = table.append_column(name, values)
    return table.select(columns)


def _read_lists(file: pq.ParquetFile, path: Path, columns: list[str]) -> pa.Table:
    try:
        # Arrow puts dictionaries in lists together within a row group alone.
        groups = [file.read_row_group(group, columns) for group in range(file.num_row_groups)]
        return pa.concat_tables(groups) if groups else file.read(columns=columns)
    except pa.ArrowNotImplementedError:
        # The writer gave the dictionary up, because its texts differ.
        with pq.ParquetFile(path, buffer_size=_READ_BUFFER) as plain:
            return plain.read(columns=columns)


def _check_claims(file: pq.ParquetFile, path: Path, columns: Sequence[str], most_rows: int) -> None:
    """Compares what a file says of itself with what it may hold, before anything is decoded."""
    about = file.metadata
    if about.num_rows > most_rows:
        raise FmriModelsError(f"{one_line(path)} has {about.num_rows} rows; expected {most_rows} at most; {MEND}.")
    total = rows = 0
    for group in range(about.num_row_groups):
        here = about.row_group(group)
        rows += here.num_rows
        for index in range(here.num_columns):
            chunk = here.column(index)
            column = chunk.path_in_schema.partition(".")[0]
            if column not in columns:
                continue
            if unknown := set(chunk.encodings) - _ENCODINGS:
                raise FmriModelsError(
                    f"{one_line(path)} has the column {column} in the encoding {sorted(unknown)[0]}, which is not read "
                    "here; prepare the table again."
                )
            size = max(chunk.total_uncompressed_size, 0)
            if column in ("image", schema.CLIP) and size > _MOST_PICTURE_BYTES:
                raise FmriModelsError(_too_much(path, f"{size / MEBIBYTE:.0f} MiB of pictures in a row group"))
            if column == schema.CLIP and chunk.num_values > schema.MAX_FRAMES * max(here.num_rows, 1):
                raise FmriModelsError(_too_much(path, f"{chunk.num_values} frames of clips in a row group"))
            if column not in ("image", schema.CLIP, schema.FMRI):
                total += size
                if chunk.num_values > max(_MOST_VALUES_A_ROW * here.num_rows, 1):
                    raise FmriModelsError(_too_much(path, f"{chunk.num_values} values in the column {column}"))
    if total > _MOST_COLUMN_BYTES:
        raise FmriModelsError(_too_much(path, f"{total / MEBIBYTE:.0f} MiB of text and numbers"))
    if rows != about.num_rows:
        raise FmriModelsError(f"{one_line(path)} says both {about.num_rows} and {rows} rows; it is damaged: {MEND}.")


def _check_fmri_claim(file: pq.ParquetFile, path: Path, num_voxels: int) -> None:
    claimed = 2 * file.metadata.num_rows * num_voxels
    if claimed > 1024 * MEBIBYTE and claimed > _LARGEST_RATIO * path.stat().st_size:
        raise FmriModelsError(_too_much(path, f"{claimed / 2**30:.0f} GiB of betas"))


def _too_much(path: Path, found: str) -> str:
    return f"{one_line(path)} has {found}, more than such a file may hold, or than it can; {MEND}."


def _text_path(field: pa.Field) -> str | None:
    """Where the text of a column is in the file, if it is one of text."""
    if pa.types.is_string(field.type):
        return field.name
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else None


def _encodings(row_group: pq.RowGroupMetaData, column: str) -> Iterator[str]:
    for index in range(row_group.num_columns):
        if row_group.column(index).path_in_schema.partition(".")[0] == column:
            yield from row_group.column(index).encodings


def _plain(of_column: pa.DataType) -> pa.DataType:
    """A type without the dictionaries that text is read as."""
    if pa.types.is_dictionary(of_column):
        return of_column.value_type
    if pa.types.is_list(of_column):
        return pa.list_(_plain(of_column.value_type))
    return of_column


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether types are equal but for the names that writers give to a list's elements."""
    if pa.types.is_fixed_size_list(found) and pa.types.is_fixed_size_list(expected):
        return found.list_size == expected.list_size and found.value_type == expected.value_type
    if pa.types.is_list(found) and pa.types.is_list(expected):
        return _plain(found.value_type) == _plain(expected.value_type)
    return _plain(found) == _plain(expected)
