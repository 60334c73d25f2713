"""Pictures from a folder, a zip file or another trial table, as the records that a trial table takes."""

import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..errors import FmriModelsError
from ..names import check_name
from . import schema
from .pictures import decode_picture
from .table import TrialTable

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
INDEX_FILE = "index.csv"
_CAPTION_SEPARATOR = " | "


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
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        self.size = size
        self._table = TrialTable.open(path) if (path / schema.TABLE_FILE).is_file() else None
        self._entries = [] if self._table else _entries(path)
        self.ids = self._table.stimuli.ids if self._table else [entry.stimulus_id for entry in self._entries]
        self.categories = (
            self._table.stimuli.categories() if self._table else [entry.category for entry in self._entries]
        )
        if not self.ids:
            raise FmriModelsError(f"{path} has no pictures; expected files ending in {', '.join(IMAGE_ENDINGS)}.")

    def __len__(self) -> int:
        return len(self.ids)

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
                    "image": files.read(entry.file),
                    "captions": entry.captions,
                    "category": entry.category,
                    "factors": None,
                }


def read_stimuli(source: str | Path, size: int | None = None) -> StimulusSource:
    """Pictures of a folder, a zip file or a trial table.

    A folder or zip may have an `index.csv` with the column `file` and, where known, `stimulus_id`, `category` (or
    `label`) and `caption` (or `captions`, separated by ` | `); only the files that it names are read. Without one, all
    pictures are read, and where they lie in several folders, a folder's name is the category. An id is the file's name
    without its ending, or its whole path where names occur twice.

    Args:
        source: The folder, `.zip` file or trial table.
        size: Crop pictures to their central square and resize it to `size` x `size` (bicubic, antialiased).

    Raises:
        FmriModelsError: There is no such source, no picture in it, a file of the index is missing, or ids clash.
    """
    path = Path(source)
    if not path.exists():
        raise FmriModelsError(f"The stimuli {path} do not exist; give a folder, a .zip file or a trial table.")
    if size is not None and size < 1:
        raise FmriModelsError(f"The size of pictures is {size}; expected 1 or more.")
    return StimulusSource(path, size)


def fit_square(data: bytes, size: int, name: str) -> bytes | np.ndarray:
    """The central square of an encoded picture as uint8 (size, size, C); the bytes themselves if it fits already."""
    pixels = decode_picture(data, name)
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
    """Files below a folder, by their path with forward slashes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        files = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        self.names = sorted(name for name in files if not _is_hidden(name))

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()


class _ZipFiles:
    """Members of a zip file. They are read by name and never unpacked, so a path that leads outside does no harm."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self.names = sorted(
            info.filename for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)
        )

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
            raise FmriModelsError(
                f"{name} in {self._path} can't be read ({error}); make the zip file again."
            ) from error


@contextmanager
def _opened(path: Path) -> Iterator[_FolderFiles | _ZipFiles]:
    if path.is_dir():
        yield _FolderFiles(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise FmriModelsError(f"{path} is neither a folder nor a zip file ({error}).") from error
    with archive:
        yield _ZipFiles(path, archive)


def _entries(path: Path) -> list[_Entry]:
    with _opened(path) as files:
        index = _index_of(files.names)
        if index is None:
            entries = _entries_of_names([n for n in files.names if n.lower().endswith(IMAGE_ENDINGS)])
        else:
            entries = _entries_of_index(files.read(index), index, files.names, path)
    counts = Counter(entry.stimulus_id for entry in entries)
    if twice := [stimulus for stimulus, count in counts.items() if count > 1]:
        raise FmriModelsError(
            f"{path} has {len(twice)} stimulus ids more than once ({schema.listed(twice)}); rename the files or "
            "their ids."
        )
    return entries


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
        _Entry(stimulus, name, category=(parent or None) if many else None)
        for stimulus, name, parent in zip(ids, names, parents, strict=True)
    ]


def _entries_of_index(data: bytes, index: str, names: list[str], path: Path) -> list[_Entry]:
    rows = read_csv(data, f"{index} of {path}", ["file"])
    known = set(names)
    folder = PurePosixPath(index).parent
    files = [(folder / row["file"].replace("\\", "/")).as_posix() for row in rows]
    if missing := [row["file"] for row, file in zip(rows, files, strict=True) if file not in known]:
        raise FmriModelsError(
            f"{index} of {path} names {len(missing)} files that aren't there ({schema.listed(missing)}); add them, or "
            "remove their rows."
        )
    given = [row.get("stimulus_id", "") for row in rows]
    ids = [mine or stem for mine, stem in zip(given, _ids_of(files), strict=True)]
    return [
        _Entry(check_name(stimulus, "stimulus id"), file, _captions(row), _category(row))
        for stimulus, file, row in zip(ids, files, rows, strict=True)
    ]


def _ids_of(names: list[str]) -> list[str]:
    """File names without endings where these are unique, else paths; other characters than an id's become `_`."""
    stems = [PurePosixPath(name).stem for name in names]
    counts = Counter(stems)
    chosen = (stem if counts[stem] == 1 else name for stem, name in zip(stems, names, strict=True))
    return [_as_id(name) for name in chosen]


def _as_id(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[-128:]
    return safe if safe[:1].isalnum() or safe[:1] == "_" else f"_{safe[1:]}"


def _captions(row: Mapping[str, str]) -> list[str]:
    text = row.get("captions") or row.get("caption") or ""
    return [caption.strip() for caption in text.split(_CAPTION_SEPARATOR) if caption.strip()]


def _category(row: Mapping[str, str]) -> str | None:
    return row.get("category") or row.get("label") or None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def read_csv(data: bytes, what: str, needed: list[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; values are stripped.

    Raises:
        FmriModelsError: It is no text, has no such column, or a row has another number of fields than the header.
    """
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, line) for line in reader if any(value.strip() for value in line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FmriModelsError(f"{what} is no CSV file in UTF-8 ({error}).") from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    if missing := [name for name in needed if name not in header]:
        raise FmriModelsError(
            f"{what} has no column {missing[0]!r}; found {', '.join(header) or 'nothing'}, separated by commas."
        )
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise FmriModelsError(f"{what} has the column {twice[0]!r} twice.")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise FmriModelsError(f"{what}, line {number}, has {len(line)} fields; expected {len(header)}.")
    return [dict(zip(header, (value.strip() for value in line), strict=True)) for _, line in lines[1:]]
