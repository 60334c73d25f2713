"""Values of a table's Parquet columns: whole numbers, and text, of which each different one is looked at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import FmriModelsError
from ..names import is_name, one_line
from ..reading import MEBIBYTE
from . import schema
from .parquet import MEND

# Of one column of text as NumPy keeps it, or as Python does.
_MOST_TEXT_BYTES = 512 * MEBIBYTE


def whole_numbers(column: pa.ChunkedArray, path: Path, what: str, most: int = schema.MAX_INT32) -> np.ndarray:
    """A column of whole numbers from 0 without missing values.

    Raises:
        FmriModelsError: One is negative, or larger than it may be.
    """
    values = column.to_numpy()
    if len(values) and (values.min() < 0 or values.max() > most):
        raise FmriModelsError(
            f"{one_line(path)} has {what} from {values.min()} to {values.max()}; expected 0 to {most}; {MEND}."
        )
    return values


def text_array(column: pa.ChunkedArray, what: str) -> np.ndarray:
    """A column of text without missing values as a NumPy array of str.

    Raises:
        FmriModelsError: It would take more memory than any table's.
    """
    indices, words = _dictionary(column)
    width = max((len(word) for word in words), default=1)
    _check_memory(4 * width * len(indices), what)
    return np.array(words, dtype=np.str_)[indices] if len(words) else np.zeros(0, dtype="<U1")


def text_list(column: pa.ChunkedArray) -> list[str | None]:
    """A column of text as a list in which equal values are one object; None where one is missing."""
    indices, words = _dictionary(column)
    known: list[str | None] = [*words, None]
    return [known[index] for index in indices.tolist()]


def texts_list(column: pa.ChunkedArray, what: str) -> list[list[str]]:
    """A column of lists of text, empty where one is missing."""
    if not column.num_chunks:
        return []
    indices, words = _dictionary(pa.chunked_array([chunk.flatten() for chunk in column.chunks]))
    sizes = np.array([len(word) for word in words] + [0], dtype=np.int64)
    _check_memory(int(sizes[indices].sum()), what)
    known = [*words, ""]
    values = [known[index] for index in indices.tolist()]
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    ends = np.cumsum(lengths)
    return [values[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]


def check_texts(column: pa.ChunkedArray, check: Callable[[str], object]) -> None:
    """Calls a check with each different text of a column.

    Raises:
        FmriModelsError: What the check raises.
    """
    for word in _dictionary(column)[1]:
        check(word)


def check_names(column: pa.ChunkedArray, path: Path, what: str) -> None:
    """Refuses ids that can't be file names.

    Raises:
        FmriModelsError: Names the first one, and the file.
    """
    for word in _dictionary(column)[1]:
        if not is_name(word):
            raise FmriModelsError(
                f"{one_line(path)} has the {what} {one_line(repr(word))}, which can't be used as a file name: ids have "
                "1 to 128 of the characters A-Z a-z 0-9 _ . - and start with a letter, a digit or _; prepare the table "
                "again with other ids."
            )


def _check_memory(size: int, what: str) -> None:
    if size > _MOST_TEXT_BYTES:
        raise FmriModelsError(
            f"{what} would take {size / MEBIBYTE:.0f} MiB; expected {_MOST_TEXT_BYTES // MEBIBYTE} at most; shorten "
            "the texts."
        )


def _dictionary(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """(n,) int32 places of the values among the different ones, -1 where one is missing; and those."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if not column.num_chunks:
        return np.zeros(0, dtype=np.int32), []
    column = column.unify_dictionaries()
    indices = pc.fill_null(pa.chunked_array([chunk.indices for chunk in column.chunks]), -1).to_numpy()
    return indices, column.chunk(0).dictionary.to_pylist()
