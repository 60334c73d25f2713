"""Which pictures a folder or a zip file has: those that its `index.csv` names, or all, by the names of their files."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import FmriModelsError
from ..names import check_line, check_name, listed, one_line
from ..reading import MAX_TEXT_BYTES
from .csv_files import UNKNOWN, check_columns, read_csv
from .folder_or_zip import FolderFiles, ZipFiles, opened_files
from .picture_files import composed, is_picture_name, skipped_name
from .schema import MAX_STIMULI

INDEX_FILE = "index.csv"
_CAPTION_SEPARATOR = "|"
_COLUMNS = ("file", "stimulus_id", "category", "label", "caption", "captions")
# What others call these columns.
_OTHER_NAMES = {
    **dict.fromkeys(
        ("id", "name", "stimulus", "stim", "stim_id", "stimulus_name", "image", "image_id", "picture", "picture_id"),
        "stimulus_id",
    ),
    **dict.fromkeys(("class", "class_name", "categories", "labels"), "category"),
    **dict.fromkeys(("text", "description", "sentence"), "caption"),
}


@dataclass(frozen=True)
class Entry:
    """One picture of a source: where it is, and what is known of it."""

    stimulus_id: str
    file: str
    captions: list[str] = field(default_factory=list)
    category: str | None = None


@dataclass
class Found:
    """What a folder or zip file has: pictures, names of what is none, and a sentence on columns that are not used."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unused: str = ""


def found_pictures(path: Path) -> Found:
    """The pictures of a folder or zip file, and what else there is; an index leaves nothing to guess.

    Raises:
        FmriModelsError: A file of the index is missing, or two pictures have one id.
    """
    with opened_files(path, INDEX_FILE) as files:
        index = _index_of(files.names)
        if index is None:
            found = Found(_entries_of_names([name for name in files.names if is_picture_name(name)]))
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


def _entries_of_names(names: list[str]) -> list[Entry]:
    ids = _ids_of(names)
    parents = [PurePosixPath(name).parent.name for name in names]
    many = len(set(parents)) > 1
    return [
        Entry(stimulus, name, category=(check_line(parent, "folder of a category") or None) if many else None)
        for stimulus, name, parent in zip(ids, names, parents, strict=True)
    ]


def _found_by_index(data: bytes, index: str, there: FolderFiles | ZipFiles, path: Path) -> Found:
    what = f"{index} of {one_line(path)}"
    columns = read_csv(data, what, ["file"], MAX_STIMULI, known=_COLUMNS)
    unused = check_columns(columns, _COLUMNS, _OTHER_NAMES, what)
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
    columns |= {name: [_known_text(text) for text in columns[name]] for name in _COLUMNS[2:] if name in columns}
    empty = [""] * len(given)
    ids = columns.get("stimulus_id", empty)
    captions = [a or b for a, b in zip(columns.get("captions", empty), columns.get("caption", empty), strict=True)]
    categories = [a or b for a, b in zip(columns.get("category", empty), columns.get("label", empty), strict=True)]
    entries = [
        Entry(
            check_name(stimulus or stem, "stimulus id"),
            file,
            [caption.strip() for caption in text.split(_CAPTION_SEPARATOR) if caption.strip()],
            check_line(category, f"category in {index}") or None,
        )
        for stimulus, stem, file, text, category in zip(ids, _ids_of(files), files, captions, categories, strict=True)
    ]
    return Found(entries, unused=unused)


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
