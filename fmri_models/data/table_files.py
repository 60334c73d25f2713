"""The files of a trial table that is being written: their bytes, their hashes, and the text that they may hold."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from ..names import one_line
from ..reading import parse_json
from . import schema
from .parquet import file_sha256

ROW_GROUP = 256
_ROW_GROUP_OF_TEXT = 2**17
_MOST_TEXT = 100_000


class TableFiles:
    """Writes Parquet files into a table's folder, from [`begin`] to [`end`].

    Args:
        about: What each file says of the table.

    Attributes:
        buffer: A folder for what waits, which is no part of the table.
        recorded: Name ▶ hash and size of each file, as `table.json` says them.
    """

    buffer: Path

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.recorded: dict[str, dict[str, Any]] = {}
        self._about = about

    def begin(self, folder: Path) -> None:
        """Takes the folder of the table."""
        self._folder = folder
        self.buffer = folder / ".buffer"
        self.buffer.mkdir()

    def end(self) -> Path:
        """Removes what waited; returns the folder."""
        shutil.rmtree(self.buffer)
        return self._folder

    def write(self, table: pa.Table, name: str) -> None:
        """Writes a file of the table by its name, a path with forward slashes."""
        betas = schema.FMRI in table.column_names
        self.write_to(self._place(name), table, ROW_GROUP if betas else _ROW_GROUP_OF_TEXT)
        self._record(name)

    def write_to(self, path: Path, table: pa.Table, row_group: int) -> None:
        """Writes a file that is not one of the table's yet."""
        table = table.cast(self._with_metadata(table.schema))
        pq.write_table(table, path, row_group_size=row_group, **_parquet_options(table.schema))

    @contextmanager
    def opened(self, name: str, of_columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """A file of the table that is written in several goes; it takes tables of the writer's `schema`."""
        table_schema = self._with_metadata(of_columns)
        with pq.ParquetWriter(self._place(name), table_schema, **_parquet_options(table_schema)) as out:
            yield out
        self._record(name)

    def take(self, path: Path, name: str) -> None:
        """Makes a file that was written before one of the table's."""
        path.rename(self._place(name))
        self._record(name)

    def _place(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _with_metadata(self, of_columns: pa.Schema) -> pa.Schema:
        # What changes from one writing to the next stays out: equal tables have equal files.
        about = {"schema": schema.SCHEMA_VERSION, **self._about}
        own = json.loads((of_columns.metadata or {}).get(b"fmri_models", b"{}"))
        own_metadata = {"fmri_models": json.dumps({**about, **own})}
        return of_columns.with_metadata({**(of_columns.metadata or {}), **own_metadata})

    def _record(self, name: str) -> None:
        path = self._folder / name
        self.recorded[name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _parquet_options(of_columns: pa.Schema) -> dict:
    """Dictionary encoding for text only: on the betas it costs five times the reading time."""
    text = [field.name for field in of_columns if pa.types.is_string(field.type)]
    if schema.FMRI in of_columns.names:
        return {"compression": "zstd", "use_dictionary": text, "use_byte_stream_split": [schema.FMRI_ELEMENT]}
    return {"compression": "zstd", "use_dictionary": text}


def checked_text(value: object, what: str) -> str:
    """Text of any number of lines that can be written as UTF-8.

    Raises:
        FmriModelsError: It is no text, is too long, or has broken characters.
    """
    if not isinstance(value, str):
        raise FmriModelsError(f"The {what} is {one_line(repr(value))}; expected a text.")
    if len(value) > _MOST_TEXT:
        raise FmriModelsError(f"The {what} has {len(value)} characters; expected {_MOST_TEXT} at most.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FmriModelsError(f"The {what} {one_line(repr(value))} has broken characters; remove them.") from error
    return value


def checked_json(values: object, what: str, indent: int | None = None, sort_keys: bool = False) -> str:
    """Values as JSON that the readers of tables take.

    Raises:
        FmriModelsError: They hold something else than JSON does, NaN, or broken characters.
    """
    try:
        text = json.dumps(values, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FmriModelsError(f"The {what} can't be written as JSON ({one_line(error, 120)}); change them.") from error
    parse_json(text, f"The {what}", "change them")
    return text
