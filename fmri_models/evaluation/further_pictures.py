"""Pictures of anybody's, among which an audit looks for the nearest: a folder, a zip file, a table, or scenes."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from .. import progress
from ..data.folder_or_zip import opened_files
from ..data.generator_pictures import resized_picture
from ..data.pictures import content_sha256, decode_picture, read_picture
from ..data.schema import MAX_PICTURE_BYTES, TABLE_FILE
from ..data.stimuli import read_stimuli
from ..data.stimulus_index import INDEX_FILE
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..names import one_line
from ..scenes import SEED_RANGES, scene, stimulus_id

BUILTIN_SCENES = "builtin:scenes"
DRAWN_SCENES = 10_000
"""So many scenes are drawn where nobody says how many."""
MOST_SCENES = 1_000_000
_PICTURES_A_BATCH = 256


class FurtherPictures(ABC):
    """A library's pictures beside those that were learned from, as large as the stimuli of the evaluated table.

    They are read when they are asked for, and never all held together; what each shows is looked at once.

    Args:
        name: As it was given.
        ids: One of each picture.
        size: Channels, height and width of the table's stimuli.
    """

    def __init__(self, name: str, ids: list[str], size: tuple[int, int, int]) -> None:
        self.name, self.ids, self._size = name, ids, size

    def __len__(self) -> int:
        return len(self.ids)

    def images(self, ids: Sequence[str]) -> np.ndarray:
        """uint8 (N, H, W, C) of the table's size: the largest part of its shape at the centre, resized."""
        pictures = (_fitted(pixels, self._size) for pixels in self._pixels([self._place[each] for each in ids]))
        return np.stack(list(pictures)) if ids else np.zeros((0, *self._size[1:], self._size[0]), np.uint8)

    def content_hashes(self, ids: Sequence[str]) -> list[str | None]:
        """SHA-256 of what each picture shows in that size."""
        return [self._hashes[self._place[each]] for each in ids]

    def look_at_all(self) -> None:
        """Reads every picture once, so that a broken one is met before any work.

        Raises:
            FmriModelsError: Names the first that can't be read.
        """
        self._hashes  # noqa: B018

    @cached_property
    def _place(self) -> dict[str, int]:
        return {each: place for place, each in enumerate(self.ids)}

    @cached_property
    def _hashes(self) -> list[str]:
        found: list[str] = []
        with progress.bar(name="Reading the library", total=len(self), unit="picture", delay=1.0) as done:
            for start in range(0, len(self), _PICTURES_A_BATCH):
                chosen = self.ids[start : start + _PICTURES_A_BATCH]
                found += [content_sha256(image) for image in self.images(chosen)]
                done.update(len(chosen))
        return found

    @abstractmethod
    def _pixels(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """uint8 (H, W, C) of the pictures at these places."""


class _Scenes(FurtherPictures):
    """Built-in scenes from seeds that the table has none of."""

    def __init__(self, name: str, count: int, table: TrialTable, size: tuple[int, int, int]) -> None:
        # From the end of the range for training, at whose beginning tables have theirs.
        free = (seed for seed in reversed(SEED_RANGES["train"]) if stimulus_id(seed) not in table.stimuli)
        self._seeds = list(itertools.islice(free, count))
        super().__init__(name, [stimulus_id(seed) for seed in self._seeds], size)

    def _pixels(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        return (scene(self._seeds[place]).image for place in places)


class _Files(FurtherPictures):
    """Pictures of a folder or a zip file."""

    def __init__(self, name: str, path: Path, size: tuple[int, int, int]) -> None:
        source = read_stimuli(path)
        self._path, self._files = path, source.files
        super().__init__(name, list(source.ids), size)

    def _pixels(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        with opened_files(self._path, INDEX_FILE) as files:
            for place in places:
                file = self._files[place]
                yield read_picture(files.read(file, MAX_PICTURE_BYTES), f"{one_line(self._path)}/{file}")


class _OfTable(FurtherPictures):
    """Stimuli of a trial table, as far as it has their pictures."""

    def __init__(self, name: str, table: TrialTable, size: tuple[int, int, int]) -> None:
        self._stimuli = table.stimuli
        ids = self._stimuli.ids
        there = [each for each, digest in zip(ids, self._stimuli.content_hashes(), strict=True) if digest is not None]
        if not there:
            raise FmriModelsError(f"The library {one_line(name)} is a table without pictures; give another one.")
        super().__init__(name, there, size)

    def _pixels(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        names = [self.ids[place] for place in places]
        # One by one: they need not be of one size, and come in the table's order.
        found = {
            each: decode_picture(data, f"stimulus {each}")
            for each, data in self._stimuli.encoded(names)
            if data is not None
        }
        return (found[each] for each in names)


def further_pictures(library: str | PathLike[str], table: TrialTable) -> FurtherPictures:
    """Opens what somebody gave as a library, and reads it once.

    Args:
        library: A folder, a zip file, a trial table, or `builtin:scenes`, which is 10,000 scenes, and
            `builtin:scenes:NUMBER` any number of them.
        table: The evaluated one, whose stimuli say how large the pictures are.

    Raises:
        FmriModelsError: There is no such library, or a picture of it can't be read.
    """
    name = str(library)
    size = _size_of_stimuli(table)
    found: FurtherPictures
    if name.startswith(BUILTIN_SCENES):
        found = _Scenes(name, _number_of_scenes(name), table, size)
    elif (Path(library) / TABLE_FILE).is_file():
        found = _OfTable(name, TrialTable.open(Path(library)), size)
    else:
        found = _Files(name, Path(library), size)
    found.look_at_all()
    return found


def _number_of_scenes(name: str) -> int:
    number = name.removeprefix(BUILTIN_SCENES)
    if not number:
        return DRAWN_SCENES
    # Numbers of more digits than these are none that Python reads at once.
    digits = number[1:]
    if number[0] != ":" or not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise FmriModelsError(
            f"The library is {one_line(repr(name), 80)}; expected {BUILTIN_SCENES}, {BUILTIN_SCENES}:NUMBER, a folder, "
            "a zip file or a trial table."
        )
    if not 1 <= int(digits) <= MOST_SCENES:
        raise FmriModelsError(
            f"A library of {int(digits):,} built-in scenes was asked for; expected 1 to {MOST_SCENES:,}."
        )
    return int(digits)


def _size_of_stimuli(table: TrialTable) -> tuple[int, int, int]:
    stimuli = table.stimuli
    there = (each for each, digest in zip(stimuli.ids, stimuli.content_hashes(), strict=True) if digest is not None)
    first = next(there, None)
    if first is None:
        raise FmriModelsError(f"{one_line(table.path)} has no pictures, so that a library has nothing to stand beside.")
    height, width, channels = stimuli.images([first]).shape[1:]
    return channels, height, width


def _fitted(pixels: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """A picture, uint8 (H, W, 1 or 3), as (height, width, channels): the central part of that shape, resized."""
    channels, height, width = size
    if pixels.shape[2] > channels:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    elif pixels.shape[2] < channels:
        pixels = pixels.repeat(channels, axis=2)
    own_height, own_width = pixels.shape[:2]
    # The largest part of the wanted shape.
    scale = min(own_height / height, own_width / width)
    part = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (own_height - part[0]) // 2, (own_width - part[1]) // 2
    cut = pixels[top : top + part[0], left : left + part[1]]
    return resized_picture(np.ascontiguousarray(cut), width, height)
