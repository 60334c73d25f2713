"""Pictures from a folder, a zip file or another trial table, as the records that a trial table takes."""

import csv
import difflib
import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import check_line, check_name, listed, one_line
from ..reading import MAX_TEXT_BYTES, check_regular_file, read_bytes
from ..swapping import recover
from . import schema
from .picture_files import (
    PICTURE_ENDINGS,
    alike_names,
    alike_sentence,
    composed,
    is_left_out,
    is_picture_name,
    skipped_name,
    skipped_sentence,
)
from .pictures import read_picture
from .schema import MAX_PICTURE_BYTES, MAX_STIMULI
from .table import TrialTable

INDEX_FILE = "index.csv"
_MOST_MEMBERS = 2**20
_LARGEST_SIZE = 4096
_LONGEST_LINE = 2**20
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_CAPTION_SEPARATOR = "|"
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_INDEX_COLUMNS = ("file", "stimulus_id", "category", "label", "caption", "captions")
# What others call these columns.
_OTHER_INDEX_NAMES = {
    **dict.fromkeys(
        ("id", "name", "stimulus", "stim", "stim_id", "stimulus_name", "image", "image_id", "picture", "picture_id"),
        "stimulus_id",
    ),
    **dict.fromkeys(("class", "class_name", "categories", "labels"), "category"),
    **dict.fromkeys(("text", "description", "sentence"), "caption"),
}
_LIKE = 0.8
# How spreadsheets, NumPy, pandas, R and BIDS write that something is not known.
UNKNOWN = ("nan", "na", "n/a", "#n/a", "<na>", "null", "none")


@dataclass(frozen=True)
class _Entry:
    """One picture of a source: where it is, and what is known of it."""

    stimulus_id: str
    file: str
    captions: list[str] = field(default_factory=list)
    category: str | None = None


class StimulusSource:
    """Pictures that can be gone through any number of times; each is opened when its turn comes.

    Attributes:
        ids: Stimulus ids, in order.
        categories: The category of each, None where it is unknown.
        files: File of each, as a path inside the folder or zip; empty for a trial table.
        skipped: What is no picture, with pipes and links that lead to no file; hidden and system files are not counted.
        unreadable: Pipes and links that lead to no file, as paths inside the folder.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        self.size = size
        self._table = TrialTable.open(path) if (path / schema.TABLE_FILE).is_file() else None
        found = _Found() if self._table else _found(path)
        self._entries, self.skipped, self.unreadable, self._unused = (
            found.entries,
            found.skipped,
            found.unreadable,
            found.unused,
        )
        self.files = [entry.file for entry in self._entries]
        self.ids = self._table.stimuli.ids if self._table else [entry.stimulus_id for entry in self._entries]
        self.categories = (
            self._table.stimuli.categories() if self._table else [entry.category for entry in self._entries]
        )
        if not self.ids:
            raise FmriModelsError(
                f"{one_line(path)} has no pictures; expected files ending in {', '.join(PICTURE_ENDINGS)}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def notes(self) -> list[str]:
        """Sentences on what was not read, on files of one name, whose ids are their paths, and on names alike."""
        stems = Counter(PurePosixPath(file).stem for file in self.files)
        twice = [entry for entry in self._entries if stems[PurePosixPath(entry.file).stem] > 1]
        alike = alike_sentence(alike_names(self.ids), self.path)
        notes = [note for note in (self._unused, skipped_sentence(self.skipped, self.path), alike) if note]
        if twice and all(entry.stimulus_id != PurePosixPath(entry.file).stem for entry in twice):
            notes.append(
                f"{len(twice)} pictures of {one_line(self.path)} share their names with others "
                f"({listed(entry.file for entry in twice)}); all are taken, and their ids are their paths."
            )
        return notes

    def __iter__(self) -> Iterator[dict]:
        """Records as `TrialTableWriter.add_stimuli` takes them.

        `image` is the bytes of the file, or uint8 (size, size, C) pixels where it had to be resized.
        """
        for record in self._from_table(self._table) if self._table else self._from_files():
            if self.size is not None and record["image"] is not None:
                record["image"] = fit_square(record["image"], self.size, f"stimulus {record['stimulus_id']}")
            yield record

    def _from_table(self, table: TrialTable) -> Iterator[dict]:
        for stimulus_id, data in table.stimuli.encoded():
            yield {
                "stimulus_id": stimulus_id,
                "image": data,
                "captions": table.stimuli.captions([stimulus_id])[0],
                "category": table.stimuli.categories([stimulus_id])[0],
                "factors": table.stimuli.factors([stimulus_id])[0],
            }

    def _from_files(self) -> Iterator[dict]:
        with _opened(self.path) as files:
            for entry in self._entries:
                yield {
                    "stimulus_id": entry.stimulus_id,
                    "image": files.read(entry.file, MAX_PICTURE_BYTES),
                    "captions": entry.captions,
                    "category": entry.category,
                    "factors": None,
                }


def read_stimuli(source: str | Path, size: int | None = None) -> StimulusSource:
    """Pictures of a folder, a zip file or a trial table.

    A folder or zip may have an `index.csv` with the column `file` and, where known, `stimulus_id`, `category` (or
    `label`) and `caption` (or `captions`, separated by `|`); only the files that it names are read. Without one, all
    pictures are read, and where they lie in several folders, a folder's name is the category. An id is the file's name
    without its ending, or its whole path where names occur twice.

    Args:
        source: The folder, `.zip` file or trial table.
        size: Crop pictures to their central square and resize it to `size` x `size` (bicubic, antialiased).

    Raises:
        FmriModelsError: There is no such source, no picture in it, a file of the index is missing, or ids clash.
    """
    path = Path(source)
    with system_errors_as_sentences(path):
        recover(path)
        if not path.exists():
            raise FmriModelsError(
                f"The stimuli {one_line(path)} do not exist; give a folder, a .zip file or a trial table."
            )
        if not path.is_dir():
            check_regular_file(path, "file of stimuli", "give a folder, a .zip file or a trial table")
    return StimulusSource(path, None if size is None else _checked_size(size))


def _checked_size(size: object) -> int:
    # Whole numbers of NumPy are sizes, and True is none.
    if isinstance(size, bool) or not isinstance(size, Integral) or not 1 <= int(size) <= _LARGEST_SIZE:
        raise FmriModelsError(
            f"The size of pictures is {one_line(repr(size), 60)}; expected a whole number from 1 to {_LARGEST_SIZE}."
        )
    return int(size)


def pixels_of(record: Mapping[str, Any]) -> np.ndarray:
    """The picture of a record as uint8 (H, W, C)."""
    image = record["image"]
    return read_picture(image, f"stimulus {record['stimulus_id']}") if isinstance(image, bytes) else image


def fit_square(data: bytes, size: int, name: str) -> bytes | np.ndarray:
    """The central square of an encoded picture as uint8 (size, size, C); the bytes themselves if it fits already."""
    pixels = read_picture(data, name)
    height, width = pixels.shape[:2]
    if height == width == size:
        return data
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    # Not resize(box=), whose filter reads pixels outside the box.
    square = picture.crop((left, top, left + side, top + side))
    resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return resized[..., None] if resized.ndim == 2 else resized


class _FolderFiles:
    """Regular files below a folder, by their path with forward slashes.

    Links to files are files. Those to folders are not followed, which could be without end: they are `unreadable`, as
    are those that lead nowhere, and pipes and devices.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.names: list[str] = []
        self.unreadable: list[str] = []
        for folder, inner, files in os.walk(path, onerror=_refuse_listing):
            inner[:] = [name for name in inner if not is_left_out(name)]
            for name in (*inner, *files):
                file = Path(folder, name)
                shown = file.relative_to(path).as_posix()
                if is_left_out(name):
                    continue
                if _is_file(file):
                    self.names.append(shown)
                elif file.is_symlink() or not file.is_dir():
                    self.unreadable.append(shown)
        self.names.sort()
        self.unreadable.sort()

    def read(self, name: str, limit: int) -> bytes:
        return read_bytes(self._path / name, "file", "replace it", limit)


def _refuse_listing(error: OSError) -> NoReturn:
    raise error


def _is_file(path: Path) -> bool:
    if path.is_file():
        return True
    # Without it, pictures would get other ids and categories.
    if path.name == INDEX_FILE:
        check_regular_file(path, "index of the pictures", "replace it, or remove it")
    return False


class _ZipFiles:
    """Members of a zip file. They are read by name and never unpacked, so a path that leads outside does no harm."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self.unreadable: list[str] = []
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise FmriModelsError(
                f"{one_line(path)} has {len(members)} members; expected {_MOST_MEMBERS} at most; make several of it."
            )
        # ZipInfo.is_dir() takes no empty names, which damaged files have.
        names = (info.filename for info in members)
        self.names = sorted(name for name in names if name and not name.endswith("/") and not is_left_out(name))

    def read(self, name: str, limit: int) -> bytes:
        return read_member(self._archive, name, f"{one_line(name)} in {one_line(self._path)}", limit)


def read_member(archive: zipfile.ZipFile, name: str, what: str, limit: int) -> bytes:
    """The bytes of a zip file's member that is not larger than it may be, whatever its header says.

    Raises:
        FmriModelsError: It is larger, encrypted, compressed in an unusual way, or damaged.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python has no bound on what these decompress at once.
        raise FmriModelsError(
            f"{what} can't be read (its compression {info.compress_type} is not the ordinary one of zip files); make "
            "the zip file again."
        )
    try:
        with archive.open(info) as file:
            data = file.read(limit + 1) if info.file_size <= limit else b""
    # Decompressors raise their own errors, headers whatever they like (BadZipFile, RuntimeError, zlib.error, EOFError).
    except Exception as error:
        raise FmriModelsError(f"{what} can't be read ({one_line(error, 120)}); make the zip file again.") from error
    if max(len(data), info.file_size) > limit:
        raise FmriModelsError(f"{what} has more than {limit} bytes; expected {limit} at most; make it smaller.")
    return data


@contextmanager
def _opened(path: Path) -> Iterator[_FolderFiles | _ZipFiles]:
    if path.is_dir():
        with system_errors_as_sentences(path):
            files = _FolderFiles(path)
        yield files
        return
    with open_zip(path, "neither a folder nor a zip file") as archive:
        yield _ZipFiles(path, archive)


@contextmanager
def open_zip(path: Path, otherwise: str) -> Iterator[zipfile.ZipFile]:
    """An opened zip file.

    Args:
        path: The file.
        otherwise: What it is if it is no zip file, for the message.

    Raises:
        FmriModelsError: It is no regular file, or no zip file.
    """
    check_regular_file(path, "zip file", "give another file")
    try:
        archive = zipfile.ZipFile(path)
    # Its directory may say anything (BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError ...).
    except Exception as error:
        raise FmriModelsError(f"{one_line(path)} is {otherwise} ({one_line(error, 120)}).") from error
    with archive:
        yield archive


@dataclass
class _Found:
    """What a folder or zip file has: pictures, names of what is none, and a sentence on columns that are not used."""

    entries: list[_Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unused: str = ""


def _found(path: Path) -> _Found:
    """The pictures of a folder or zip file, and what else there is; an index leaves nothing to guess."""
    with _opened(path) as files:
        index = _index_of(files.names)
        if index is None:
            found = _Found(_entries_of_names([name for name in files.names if is_picture_name(name)]))
            found.skipped = [name for name in files.names if not is_picture_name(name)]
            found.skipped += [skipped_name(name, path / name) for name in files.unreadable]
        else:
            found = _found_by_index(files.read(index, MAX_TEXT_BYTES), index, files, path)
        found.unreadable = files.unreadable
    counts = Counter(entry.stimulus_id for entry in found.entries)
    if twice := [stimulus for stimulus, count in counts.items() if count > 1]:
        raise FmriModelsError(
            f"{path} has {len(twice)} stimulus ids more than once ({listed(twice)}); rename the files or their ids."
        )
    return found


def _index_of(names: list[str]) -> str | None:
    """`index.csv` at the top, or in the one folder that everything lies in."""
    found = [name for name in names if PurePosixPath(name).name == INDEX_FILE]
    tops = {PurePosixPath(name).parts[0] for name in names}
    if INDEX_FILE in found:
        return INDEX_FILE
    nested = f"{next(iter(tops))}/{INDEX_FILE}" if len(tops) == 1 else ""
    return nested if nested in found else None


def _entries_of_names(names: list[str]) -> list[_Entry]:
    ids = _ids_of(names)
    parents = [PurePosixPath(name).parent.name for name in names]
    many = len(set(parents)) > 1
    return [
        _Entry(stimulus, name, category=(check_line(parent, "folder of a category") or None) if many else None)
        for stimulus, name, parent in zip(ids, names, parents, strict=True)
    ]


def _found_by_index(data: bytes, index: str, there: "_FolderFiles | _ZipFiles", path: Path) -> _Found:
    what = f"{index} of {one_line(path)}"
    columns = read_csv(data, what, ["file"], MAX_STIMULI, known=_INDEX_COLUMNS)
    unused = check_columns(columns, _INDEX_COLUMNS, _OTHER_INDEX_NAMES, what)
    # A file whose name is written exactly so goes before one with its accents written in another way.
    known = {**{composed(name): name for name in there.names}, **{name: name for name in there.names}}
    folder = PurePosixPath(index).parent
    given = columns["file"]
    paths = [(folder / file.replace("\\", "/")).as_posix() for file in given]
    if missing := [name for name, file in zip(given, paths, strict=True) if not {file, composed(file)} & known.keys()]:
        first = paths[given.index(missing[0])]
        is_unreadable = composed(first) in map(composed, there.unreadable)
        raise FmriModelsError(
            f"{index} of {path} names {len(missing)} files that aren't there ({listed(missing)}"
            f"{', the first a pipe or a link to no file' if is_unreadable else ''}); add them, or remove their rows."
        )
    files = [known.get(file) or known[composed(file)] for file in paths]
    columns |= {name: [_known_text(text) for text in columns[name]] for name in _INDEX_COLUMNS[2:] if name in columns}
    empty = [""] * len(given)
    ids = columns.get("stimulus_id", empty)
    captions = [a or b for a, b in zip(columns.get("captions", empty), columns.get("caption", empty), strict=True)]
    categories = [a or b for a, b in zip(columns.get("category", empty), columns.get("label", empty), strict=True)]
    entries = [
        _Entry(
            check_name(stimulus or stem, "stimulus id"),
            file,
            [caption.strip() for caption in text.split(_CAPTION_SEPARATOR) if caption.strip()],
            check_line(category, f"category in {index}") or None,
        )
        for stimulus, stem, file, text, category in zip(ids, _ids_of(files), files, captions, categories, strict=True)
    ]
    return _Found(entries, unused=unused)


def _known_text(text: str) -> str:
    return "" if text.casefold() in UNKNOWN else text


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
        near = difflib.get_close_matches(written[:200], known, n=1, cutoff=_LIKE)
        meant = others.get(written) or (near[0] if near else None)
        if meant in known and meant not in found:
            raise FmriModelsError(
                f"{what} has the column {one_line(repr(name), 60)}, which is not read; rename it to {meant!r}, or "
                "leave it out if it is something else."
            )
    # Tables of pandas have a column without a name, the rows' numbers.
    named = [name for name in unused if name]
    return f"{what} has columns that are not used: {listed(named, 10)}." if named else ""


def _ids_of(names: list[str]) -> list[str]:
    """File names without endings where these are unique, else paths; other characters than an id's become `_`."""
    names = [composed(name) for name in names]
    stems = [PurePosixPath(name).stem for name in names]
    counts = Counter(stems)
    chosen = (stem if counts[stem] == 1 else name for stem, name in zip(stems, names, strict=True))
    return [_as_id(name) for name in chosen]


def _as_id(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[-128:]
    return safe if safe[:1].isalnum() or safe[:1] == "_" else f"_{safe[1:]}"


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
