"""Pictures from a folder, a zip file or another trial table, as the records that a trial table takes."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import check_line, check_name, listed, one_line
from ..reading import MAX_TEXT_BYTES, check_regular_file
from ..swapping import recover
from . import schema
from .csv_files import UNKNOWN, check_columns, read_csv
from .folder_or_zip import FolderFiles, ZipFiles, opened_files
from .picture_files import (
    PICTURE_ENDINGS,
    alike_names,
    alike_sentence,
    composed,
    is_picture_name,
    skipped_name,
    skipped_sentence,
)
from .pictures import read_picture
from .schema import MAX_PICTURE_BYTES, MAX_STIMULI
from .table import TrialTable

INDEX_FILE = "index.csv"
_LARGEST_SIZE = 4096
_CAPTION_SEPARATOR = "|"
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
        with opened_files(self.path, INDEX_FILE) as files:
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


@dataclass
class _Found:
    """What a folder or zip file has: pictures, names of what is none, and a sentence on columns that are not used."""

    entries: list[_Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unused: str = ""


def _found(path: Path) -> _Found:
    """The pictures of a folder or zip file, and what else there is; an index leaves nothing to guess."""
    with opened_files(path, INDEX_FILE) as files:
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


def _found_by_index(data: bytes, index: str, there: FolderFiles | ZipFiles, path: Path) -> _Found:
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
