"""The stimuli of a table: pictures, captions, categories and what a picture was drawn from."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..deprecation import former_name
from ..errors import FmriModelsError
from ..names import check_line, listed, one_line
from ..reading import parse_json
from . import parquet, schema
from .clips import Clip
from .parquet import MEND, read_parquet
from .parquet_columns import check_names, check_texts, text_list, texts_list
from .pictures import decode_picture

if TYPE_CHECKING:
    from .table import TrialTable

_STIMULI = schema.stimuli_schema()
_COLUMNS = ("stimulus_id", "captions", "category", "factors", "content_sha256")
_HASH = re.compile("[0-9a-f]{64}")


class Stimuli:
    """The pictures of a table. Pictures are decoded when they are asked for; all else is read at once."""

    def __init__(self, table: "TrialTable") -> None:
        self._folder = table.path / schema.STIMULI_FOLDER
        self._channels: int = table.metadata["image_channels"]
        names = sorted(n for n in table.metadata["files"] if n.startswith(f"{schema.STIMULI_FOLDER}/"))
        self._files = [table.path / name for name in names]
        self.ids: list[str] = []
        self._columns: dict[str, list] = {name: [] for name in _COLUMNS}
        starts = [0]
        for path in self._files:
            self._read(path)
            starts.append(len(self.ids))
        there = [bool(parquet.columns_there(path, [schema.CLIP])) for path in self._files]
        if any(there) and not all(there):
            raise FmriModelsError(f"Some files of stimuli in {table.path} have clips, and others not; {MEND}.")
        self._has_clips = any(there)
        self._position_of = {stimulus: position for position, stimulus in enumerate(self.ids)}
        self._file_starts = np.array(starts)
        if len(self._position_of) != len(self.ids):
            twice = [stimulus for place, stimulus in enumerate(self.ids) if self._position_of[stimulus] != place]
            raise FmriModelsError(
                f"{len(twice)} stimulus ids are there more than once ({listed(twice)}) in {table.path}; {MEND}."
            )

    def _read(self, path: Path) -> None:
        """Reads everything but the pictures of one file."""
        nullable = _COLUMNS[1:]
        most = schema.MAX_STIMULI - len(self.ids)
        rows = read_parquet(path, _STIMULI, columns=_COLUMNS, most_rows=most, nullable=nullable)
        check_names(rows["stimulus_id"], path, "stimulus id")
        check_texts(rows["category"], lambda text: check_line(text, "category of a stimulus"))
        check_texts(rows["content_sha256"], lambda text: _check_hash(text, path))
        for name in _COLUMNS:
            self._columns[name] += (
                texts_list(rows[name], f"{one_line(path)}: the captions")
                if name == "captions"
                else text_list(rows[name])
            )
        self.ids = self._columns["stimulus_id"]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Stimuli({str(self._folder)!r}, {len(self)} pictures)"

    def __contains__(self, stimulus_id: object) -> bool:
        return stimulus_id in self._position_of

    @cached_property
    def num_pictures(self) -> int:
        """How many of them have a picture."""
        return sum(parquet.num_pictures(path, _STIMULI, schema.MAX_STIMULI) for path in self._files)

    def images(self, ids: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """Pictures, uint8 (N, H, W, C); C is 1 where all pictures of the table are grey, else 3.

        Raises:
            FmriModelsError: An id isn't there, a picture is missing, or sizes differ.
        """
        names = self.ids if ids is None else [str(stimulus) for stimulus in ids]
        positions = self.positions(names)
        decoded = {position: self._pixels(position, data) for position, data in self._encoded(sorted(set(positions)))}
        sizes = {pixels.shape[:2]: self.ids[position] for position, pixels in decoded.items()}
        if len(sizes) > 1:
            (first, a), (second, b), *_ = sizes.items()
            raise FmriModelsError(
                f"The pictures have several sizes (height x width of {a}: {first[0]}x{first[1]}, {b}: "
                f"{second[0]}x{second[1]}); prepare the table with pictures of one size, or with `--size PIXELS`."
            )
        if not positions:
            return np.zeros((0, 0, 0, self._channels), np.uint8)
        return np.stack([decoded[position] for position in positions])

    def encoded(self, ids: Sequence[str] | np.ndarray | None = None) -> Iterator[tuple[str, bytes | None]]:
        """Ids and the bytes of their image files (None where a picture is missing), in the table's order."""
        for position, data in self._encoded(sorted(set(self.positions(self.ids if ids is None else ids)))):
            yield self.ids[position], data

    def captions(self, ids: Sequence[str] | np.ndarray | None = None) -> list[list[str]]:
        """Captions of each stimulus, an empty list where there is none."""
        return [captions or [] for captions in self._values("captions", ids)]

    def categories(self, ids: Sequence[str] | np.ndarray | None = None) -> list[str | None]:
        """The category of each stimulus, None where it is unknown."""
        return self._values("category", ids)

    def factors(self, ids: Sequence[str] | np.ndarray | None = None) -> list[dict | None]:
        """What a drawn picture was drawn from (kind, colour, place ...), None where it is unknown."""
        return [None if text is None else self._parsed(text) for text in self._values("factors", ids)]

    def _parsed(self, text: str) -> dict:
        values = parse_json(text, f"The factors {one_line(repr(text), 80)} of a stimulus in {self._folder}", MEND)
        if not isinstance(values, dict):
            raise FmriModelsError(
                f"A stimulus in {self._folder} has the factors {one_line(repr(text), 80)}; expected a JSON object; "
                f"{MEND}."
            )
        return values

    def content_hashes(self, ids: Sequence[str] | np.ndarray | None = None) -> list[str | None]:
        """SHA-256 of each picture's pixels, None where the picture is missing."""
        return self._values("content_sha256", ids)

    @property
    def has_clips(self) -> bool:
        """Whether stimuli may move, so that pictures stand for clips."""
        return self._has_clips

    def clips(self, ids: Sequence[str] | np.ndarray | None = None, frames: bool = False) -> list[Clip | None]:
        """The clip of each stimulus, None where it does not move.

        Args:
            ids: Of these stimuli; of all without them.
            frames: Whether the frames that the table has are read, too, all at once: ask for few stimuli then.

        Raises:
            FmriModelsError: An id isn't there, or a file is damaged.
        """
        positions = self.positions(self.ids if ids is None else ids)
        found: dict[int, Clip | None] = dict.fromkeys(positions)
        if self._has_clips:
            for index, inside in self._in_files(sorted(found)):
                start = int(self._file_starts[index])
                for row, clip in parquet.clips(self._files[index], inside, schema.MAX_STIMULI, frames):
                    found[start + row] = None if clip is None else Clip.of_row(self.ids[start + row], clip)
        return [found[position] for position in positions]

    def _values(self, column: str, ids: Sequence[str] | np.ndarray | None) -> list:
        values = self._columns[column]
        return list(values) if ids is None else [values[position] for position in self.positions(ids)]

    def positions(self, ids: Sequence[str] | np.ndarray) -> list[int]:
        """Positions of some stimuli in the table's order, in which targets are cached too.

        Raises:
            FmriModelsError: An id isn't there.
        """
        if unknown := [stimulus for stimulus in ids if str(stimulus) not in self._position_of]:
            raise FmriModelsError(
                f"The table has no {len(unknown)} of the {len(ids)} stimuli asked for ({listed(unknown)})."
            )
        return [self._position_of[str(stimulus)] for stimulus in ids]

    rows = former_name("rows", positions, since="0.1")

    def _pixels(self, position: int, data: bytes | None) -> np.ndarray:
        if data is None:
            raise FmriModelsError(
                f"The picture of stimulus {self.ids[position]} is missing from the table (its source doesn't allow it "
                "to be copied, or it wasn't there); prepare the table from a source that has it."
            )
        pixels = decode_picture(data, f"stimulus {self.ids[position]}")
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] < self._channels else pixels

    def _encoded(self, positions: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        """Bytes of some pictures; `positions` ascend, so that each row group is read once."""
        for index, inside in self._in_files(positions):
            found = parquet.pictures(self._files[index], _STIMULI, inside, most_rows=schema.MAX_STIMULI)
            for position, data in found:
                yield int(self._file_starts[index]) + position, data

    def _in_files(self, positions: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Number of a file, and the rows in it of some stimuli; `positions` ascend."""
        wanted = np.asarray(positions, dtype=np.int64)
        for index in range(len(self._files)):
            start, stop = self._file_starts[index], self._file_starts[index + 1]
            inside = wanted[(wanted >= start) & (wanted < stop)] - start
            if len(inside):
                yield index, inside


def _check_hash(text: str, path: Path) -> None:
    if not _HASH.fullmatch(text):
        raise FmriModelsError(
            f"{one_line(path)} has the content_sha256 {one_line(repr(text), 80)}; expected 64 hexadecimal digits; "
            f"{MEND}."
        )
