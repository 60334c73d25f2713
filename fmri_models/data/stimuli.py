"""Pictures from a folder, a zip file or another trial table, as the records that a trial table takes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import listed, one_line
from ..reading import check_regular_file
from ..swapping import recover
from . import schema
from .folder_or_zip import opened_files
from .metadata import read_metadata
from .picture_files import PICTURE_ENDINGS, alike_names, alike_sentence, skipped_sentence
from .pictures import read_picture
from .schema import MAX_PICTURE_BYTES
from .stimulus_index import INDEX_FILE, Found, found_pictures
from .table import TrialTable
from .table_terms import origin_of

_LARGEST_SIZE = 4096


class StimulusSource:
    """Pictures that can be gone through any number of times; each is opened when its turn comes.

    Attributes:
        ids: Stimulus ids, in order.
        categories: The category of each, None where it is unknown.
        files: File of each, as a path inside the folder or zip; empty for a trial table.
        skipped: What is no picture, with pipes and links that lead to no file; hidden and system files are not counted.
        unreadable: Pipes and links that lead to no file, as paths inside the folder.
        origin: Tables that the pictures are of, as `table.json` of another one keeps them; none of a folder or zip.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        self.size = size
        self._table = TrialTable.open(path) if (path / schema.TABLE_FILE).is_file() else None
        found = Found() if self._table else found_pictures(path)
        self._entries, self._unused = found.entries, found.unused
        self.skipped, self.unreadable = found.skipped, found.unreadable
        self.origin = [] if self._table is None else origin_of(self._table.metadata)
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
                **({schema.CLIP: _clip_of(table, stimulus_id)} if table.stimuli.has_clips else {}),
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


def _clip_of(table: TrialTable, stimulus_id: str) -> dict[str, Any] | None:
    """The clip of a stimulus, as a writer takes it."""
    clip = table.stimuli.clips([stimulus_id], frames=True)[0]
    if clip is None:
        return None
    return {"file": clip.file, "start": clip.start, "seconds": clip.seconds, "frames": list(clip.frames)}


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
    return StimulusSource(path, None if size is None else checked_size(size))


def origin_of_pictures(source: str | Path) -> list[dict[str, str]]:
    """Of which tables the pictures of a source are, as `table.json` of another one keeps it; none of a folder."""
    path = Path(source)
    return origin_of(read_metadata(path)) if (path / schema.TABLE_FILE).is_file() else []


def checked_size(size: object) -> int:
    """The side of a picture as a number.

    Raises:
        FmriModelsError: It is none.
    """
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
