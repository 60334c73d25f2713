"""items.parquet: the score of every single picture, from which comparisons are paired."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterator
from os import PathLike

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from ..names import is_line, one_line
from ..reading import check_regular_file
from .report import Report
from .report_schema import LARGEST
from .scores import ITEM_SCHEMA, Scores

ITEMS_FILE = "items.parquet"
Items = dict[str, dict[tuple[str, str], list[float]]]
"""Metric ▶ subject and stimulus ▶ scores of a row."""
# 15 rows and 20 metrics of 2,000 pictures of 8 subjects.
MAX_ITEMS = 5_000_000
MAX_BYTES = 160 * 2**20
# Of the row `brain`, and of pictures; as Python objects they take some hundred bytes each.
MAX_SCORES = 1_000_000
_LONGEST_NAME = 1000
_ITEMS_AT_ONCE = 65_536
_NAMES = tuple(field.name for field in ITEM_SCHEMA if field.type == pa.string())
_MEND = "evaluate again, or remove the file and compare without pairs"


def save_items(scores: Scores, path: str | PathLike) -> str:
    """Writes items.parquet and returns its SHA-256."""
    pq.write_table(scores.table(), path, compression="zstd")
    return items_sha256(path)


def items_sha256(path: str | PathLike) -> str:
    """SHA-256 of the file, by which a report knows its own."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def brain_items(path: str | PathLike) -> Items:
    """By metric, subject and stimulus the scores of the row `brain`.

    Raises:
        FmriModelsError: The file isn't there, is no Parquet file, is too large, or holds something else than items.
    """
    return row_items(path, ["brain"]).get("brain", {})


def row_items(path: str | PathLike, rows: Collection[str]) -> dict[str, Items]:
    """The same of several rows, as far as the file has them.

    Raises:
        FmriModelsError: As [`brain_items`].
    """
    found: dict[str, Items] = {}
    counts: Counter[str] = Counter()
    for batch in _batches(path):
        for row in rows:
            of_row = batch.filter(pc.equal(batch["row"], row))
            counts[row] += len(of_row)
            if counts[row] > MAX_SCORES:
                raise FmriModelsError(
                    f"The file of items {one_line(path)} has more than {MAX_SCORES} scores of the row {row}; {_MEND}."
                )
            columns = (of_row[name].to_pylist() for name in ("metric", "subject", "stimulus_id", "value"))
            for metric, subject, stimulus, value in zip(*columns, strict=True):
                found.setdefault(row, {}).setdefault(metric, {}).setdefault((subject, stimulus), []).append(value)
    return found


def picture_counts(path: str | PathLike) -> dict[tuple[str, str, str], int]:
    """By row, subject and stimulus how many pictures there are, as far as they have the row's first metric.

    Raises:
        FmriModelsError: As [`brain_items`].
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    first: dict[str, str] = {}
    for batch in _batches(path):
        grouped = pa.Table.from_batches([batch]).group_by(["row", "metric", "subject", "stimulus_id"])
        for group in grouped.aggregate([([], "count_all")]).to_pylist():
            if first.setdefault(group["row"], group["metric"]) == group["metric"]:
                counts[group["row"], group["subject"], group["stimulus_id"]] += group["count_all"]
        if len(counts) > MAX_SCORES:
            raise FmriModelsError(f"The file of items {one_line(path)} tells of more than {MAX_SCORES} pictures.")
    return counts


def brain_items_of(report: Report) -> Items | None:
    """The scores of a report's own row `brain`; None if no items.parquet lies beside it.

    Raises:
        FmriModelsError: The items can't be read, or are those of another evaluation.
    """
    found = items_of(report, ["brain"])
    return None if found is None else found.get("brain", {})


def items_of(report: Report, rows: Collection[str]) -> dict[str, Items] | None:
    """The scores of some of a report's own rows, as far as it has them; None if no items.parquet lies beside it.

    Args:
        report: The report.
        rows: Names of rows, `brain` among them.

    Raises:
        FmriModelsError: The items can't be read, or are those of another evaluation.
    """
    path = None if report.folder is None else report.folder / ITEMS_FILE
    if path is None or not path.exists():
        return None
    found = row_items(path, rows)
    named = report.items_sha256
    if not (_fits(report, found.get("brain", {})) if named is None else items_sha256(path) == named):
        raise FmriModelsError(f"{one_line(path)} is of another evaluation than the report.json beside it; {_MEND}.")
    return found


def _fits(report: Report, items: Items) -> bool:
    """Whether a report that does not name its items has the means of these."""
    for metric, result in report.results.get("brain", {}).items():
        values = [value for scores in items.get(metric, {}).values() for value in scores]
        if result is None:
            if values:
                return False
        elif len(values) != result["n"] or not math.isclose(
            math.fsum(values) / len(values), result["value"], rel_tol=1e-6, abs_tol=1e-9
        ):
            return False
    return True


def _check_items(file: pq.ParquetFile, what: str) -> None:
    metadata, schema = file.metadata, file.schema_arrow
    if metadata.num_rows > MAX_ITEMS:
        raise FmriModelsError(f"{what} has {metadata.num_rows} rows; expected {MAX_ITEMS} at most; {_MEND}.")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if (size := sum(max(group.total_byte_size, 0) for group in groups)) > MAX_BYTES:
        raise FmriModelsError(f"{what} holds {size} bytes of values; expected {MAX_BYTES} at most; {_MEND}.")
    for field in ITEM_SCHEMA:
        if len(schema.get_all_field_indices(field.name)) != 1:
            raise FmriModelsError(
                f"{what} has the columns {one_line(', '.join(schema.names), 200)}; expected "
                f"{', '.join(ITEM_SCHEMA.names)}; {_MEND}."
            )
        found = schema.field(field.name).type
        found = found.value_type if pa.types.is_dictionary(found) else found
        if found != field.type and not (pa.types.is_large_string(found) and field.name in _NAMES):
            raise FmriModelsError(
                f"{what} has {one_line(found, 100)} in the column {field.name}; expected {field.type}; {_MEND}."
            )


def _batches(path: str | PathLike) -> Iterator[pa.RecordBatch]:
    """The items that have a score, some at a time, with names as text."""
    path = check_regular_file(path, "file of items", _MEND)
    what = f"The file of items {one_line(path)}"
    if (size := path.stat().st_size) > MAX_BYTES:
        raise FmriModelsError(f"{what} has {size} bytes; expected {MAX_BYTES} at most; {_MEND}.")
    try:
        with pq.ParquetFile(path) as file:
            _check_items(file, what)
        # Names stay numbers that point into a dictionary until their lengths are known.
        with pq.ParquetFile(path, read_dictionary=list(_NAMES)) as file:
            for batch in file.iter_batches(_ITEMS_AT_ONCE, columns=ITEM_SCHEMA.names):
                batch.validate(full=True)
                yield _checked(batch, what)
    except FmriModelsError:
        raise
    # Arrow raises whatever it likes on broken files: its own errors, OSError, ValueError, MemoryError, KeyError ...
    except Exception as error:
        raise FmriModelsError(f"{what} can't be read ({one_line(error, 150)}); {_MEND}.") from error


def _checked(batch: pa.RecordBatch, what: str) -> pa.RecordBatch:
    columns = {}
    for name in _NAMES:
        column = batch[name]
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        _check_names(column.dictionary, name, what)
        columns[name] = column.dictionary_decode().cast(pa.string())
    columns |= {"seed": batch["seed"], "value": batch["value"]}
    if any(columns[name].null_count for name in (*_NAMES, "seed")):
        raise FmriModelsError(f"{what} has an item without a row, metric, subject, stimulus or seed; {_MEND}.")
    checked = pa.record_batch(columns).filter(pc.is_valid(columns["value"]))
    outside = pc.invert(pc.less_equal(pc.abs(checked["value"]), LARGEST))
    if pc.any(outside).as_py():
        value = checked["value"].filter(outside)[0]
        raise FmriModelsError(f"{what} has the value {value}; expected finite numbers to {LARGEST:g}; {_MEND}.")
    return checked


def _check_names(names: pa.Array, column: str, what: str) -> None:
    if len(names) and (longest := pc.max(pc.binary_length(names)).as_py() or 0) > _LONGEST_NAME:
        raise FmriModelsError(
            f"{what} has a text of {longest} bytes in the column {column}; expected {_LONGEST_NAME} at most; {_MEND}."
        )
    for text in names.to_pylist():
        if not is_line(text or ""):
            raise FmriModelsError(
                f"{what} has {one_line(repr(text), 100)} in the column {column}; expected one line without control "
                f"characters; {_MEND}."
            )
