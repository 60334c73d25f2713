"""Tables that people write by hand or in a spreadsheet: CSV and TSV files, and what may be meant by their columns."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..errors import FmriModelsError
from ..names import closest, listed, one_line

# How spreadsheets, NumPy, pandas, R and BIDS write that something is not known.
UNKNOWN = ("nan", "na", "n/a", "#n/a", "<na>", "null", "none")
_LONGEST_LINE = 2**20
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}


def read_csv(
    data: bytes,
    what: str,
    needed: Sequence[str],
    most_rows: int,
    known: Sequence[str] = (),
    numbers: Sequence[str] = (),
    blank_rows: bool = False,
) -> dict[str, list[str]]:
    """Columns of a table in a text file with a header; values are stripped.

    Fields are separated by commas, tabs (`.tsv`) or semicolons (spreadsheets where the comma is in numbers), whichever
    gives the header a column that is known. Columns that are known may be written in upper case.

    Args:
        data: The file's bytes.
        what: What it is, as the beginning of a sentence.
        needed: Columns that it has to have.
        most_rows: How many rows it may have.
        known: Columns that it may have beside these.
        numbers: Columns of numbers, which have commas for points where fields are separated by semicolons.
        blank_rows: Whether rows without any text are rows, too.

    Raises:
        FmriModelsError: It is no text, has no such column, too long a line or too many rows, or a row has another
            number of fields than the header.
    """
    try:
        text = data.decode("utf-8-sig")
        separator = _separator(text, [*needed, *known])
        reader = csv.reader(_lines(text, what), delimiter=separator, strict=True)
        lines = ((reader.line_num, line) for line in reader)
        header = _known_names(next((line for _, line in lines if _has_text(line)), []), [*needed, *known])
        _check_header(header, what, needed, separator)
        columns: list[list[str]] = [[] for _ in header]
        for number, line in lines:
            if not _has_text(line):
                if not blank_rows:
                    continue
                line = [""] * len(header)
            if len(line) != len(header):
                raise FmriModelsError(f"{what}, line {number}, has {len(line)} fields; expected {len(header)}.")
            if len(columns[0]) == most_rows:
                raise FmriModelsError(f"{what} has more than {most_rows} rows; expected fewer.")
            for column, value in zip(columns, line, strict=True):
                column.append(value.strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise FmriModelsError(f"{what} is no CSV file in UTF-8 ({one_line(error, 120)}); save it as one.") from error
    found = dict(zip(header, columns, strict=True))
    if separator == ";":
        found.update({name: [_with_point(value) for value in found[name]] for name in numbers if name in found})
    return found


def _separator(text: str, known: Sequence[str]) -> str:
    """What separates the fields of a header in which a column is known; a comma where none does."""
    header = next((line for line in io.StringIO(text) if line.strip()), "")[:_LONGEST_LINE]
    for separator in _SEPARATORS:
        if any(name.strip().strip('"').casefold() in known for name in header.split(separator)):
            return separator
    return ","


def _known_names(header: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names of columns, those in another case as they are known; one that is there as it is known stays it."""
    names = [name.strip() for name in header]
    return [name.casefold() if name.casefold() in {*known} - {*names} else name for name in names]


def _has_text(line: Sequence[str]) -> bool:
    return any(value.strip() for value in line)


def _with_point(text: str) -> str:
    return text.replace(",", ".") if text.count(",") == 1 and "." not in text else text


def read_number(text: str) -> float:
    """A number as files of numbers have it, in digits of ASCII: no `1_0`, no `nan`, no `inf`.

    Raises:
        ValueError: It is none, or larger than any number that is kept.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    return float(text)


def _lines(text: str, what: str) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if len(line) > _LONGEST_LINE:
            raise FmriModelsError(
                f"{what}, line {number}, has {len(line)} characters; expected {_LONGEST_LINE} at most."
            )
        yield line


def _check_header(header: list[str], what: str, needed: Sequence[str], separator: str) -> None:
    if missing := [name for name in needed if name not in header]:
        raise FmriModelsError(
            f"{what} has no column {missing[0]!r}; found {listed(header, 20) or 'nothing'}, separated by "
            f"{_SEPARATORS[separator]}: add it, or rename the column that has it."
        )
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise FmriModelsError(f"{what} has the column {one_line(repr(twice[0]))} twice.")


def check_columns(found: Collection[str], known: Sequence[str], others: Mapping[str, str], what: str) -> str:
    """Refuses a column that seems to be a misspelt one, which would be left out without a word.

    Args:
        found: Columns of a file.
        known: Those that are read.
        others: What others call these; a file that has such a name is asked to rename it, because it could mean
            something else.
        what: The file, as the beginning of a sentence.

    Returns:
        A sentence on columns that are not used; empty if all are.
    """
    unused = [name for name in found if name not in known]
    for name in unused:
        written = name.casefold()
        meant = others.get(written) or closest(written, known, certain=True)
        if meant in known and meant not in found:
            raise FmriModelsError(
                f"{what} has the column {one_line(repr(name), 60)}, which is not read; rename it to {meant!r}, or "
                "leave it out if it is something else."
            )
    # Tables of pandas have a column without a name, the rows' numbers.
    named = [name for name in unused if name]
    return f"{what} has columns that are not used: {listed(named, 10)}." if named else ""
