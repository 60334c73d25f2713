"""Writing the stimuli of a trial table: each picture is checked and hashed as it comes, and written in files."""

import json
from collections.abc import Mapping

import pyarrow as pa

from ..errors import FmriModelsError
from ..names import check_line, check_name
from . import schema
from .pictures import content_sha256, encode_picture, picture_format, read_picture
from .table_files import TableFiles, checked_json, checked_text
from .training_checks import TrainingChecks

_PICTURES_PER_ROW_GROUP = 64
_PICTURES_PER_FILE = 4096
# Of large pictures there are fewer in a file: the writer holds them three times, and a reader once.
_BYTES_PER_ROW_GROUP = 2**27
_BYTES_PER_FILE = 2**27


class StimulusWriter:
    """Takes stimuli one by one; they wait in files until it is known how many files there are.

    Args:
        files: Of the table.
        checks: See each picture.

    Attributes:
        contents: Stimulus id ▶ hash of its pixels, None where the picture is not there.
        channels: 3 if a picture is coloured, else 1.
    """

    def __init__(self, files: TableFiles, checks: TrainingChecks) -> None:
        self.contents: dict[str, str | None] = {}
        self.channels = 1
        self._files = files
        self._checks = checks
        self._waiting: list[dict] = []
        self._waiting_bytes = 0
        self._count = 0
        # Whether stimuli may move, which the first one says; all files have the same columns.
        self._with_clips: bool | None = None

    def add(self, record: Mapping) -> None:
        """Takes a stimulus.

        Raises:
            FmriModelsError: Its id is used twice or can't be a file name, or its picture can't be decoded.
        """
        row = self._row(record)
        self._waiting.append(row)
        self._waiting_bytes += _num_bytes(row)
        if len(self._waiting) == _PICTURES_PER_FILE or self._waiting_bytes > _BYTES_PER_FILE:
            self._write()

    def finish(self) -> None:
        """Makes the files those of the table."""
        if self._waiting:
            self._write()
        for index in range(self._count):
            name = f"{schema.STIMULI_FOLDER}/stimuli-{index:05d}-of-{self._count:05d}.parquet"
            self._files.take(self._files.buffer / f"stimuli-{index:05d}", name)

    def _row(self, record: Mapping) -> dict:
        stimulus_id = check_name(record["stimulus_id"], "stimulus id")
        if stimulus_id in self.contents:
            raise FmriModelsError(f"The stimulus id {stimulus_id!r} is there twice; each picture is given once.")
        image, digest = None, None
        if record.get("image") is not None:
            data = encode_picture(record["image"], f"stimulus {stimulus_id}")
            pixels = read_picture(data, f"stimulus {stimulus_id}")
            digest = content_sha256(pixels)
            self._checks.add_picture(stimulus_id, pixels)
            self.channels = max(self.channels, pixels.shape[2])
            ending = picture_format(data, f"stimulus {stimulus_id}")
            image = {"bytes": data, "path": f"{stimulus_id}.{ending}"}
        self.contents[stimulus_id] = digest
        if self._with_clips is None:
            self._with_clips = schema.CLIP in record
        clip = record.get(schema.CLIP)
        if clip is not None and not self._with_clips:
            raise FmriModelsError(
                f"The stimulus {stimulus_id} is a clip, and the first one said nothing of clips; give clip=None of "
                "those that do not move."
            )
        factors, category = record.get("factors"), record.get("category")
        if factors is not None:
            checked_json(factors, f"factors of {stimulus_id}")
        return {
            "stimulus_id": stimulus_id,
            "image": image,
            "captions": [
                checked_text(str(caption), f"caption of {stimulus_id}") for caption in record.get("captions") or []
            ],
            "category": None if category is None else check_line(category, f"category of {stimulus_id}"),
            "factors": None if factors is None else json.dumps(factors, sort_keys=True),
            "content_sha256": digest,
            **({schema.CLIP: _clip(clip, stimulus_id)} if self._with_clips else {}),
        }

    def _write(self) -> None:
        table = pa.Table.from_pylist(self._waiting, schema=schema.stimuli_schema(bool(self._with_clips)))
        largest = max((_num_bytes(row) for row in self._waiting), default=1)
        pictures = max(1, min(_PICTURES_PER_ROW_GROUP, _BYTES_PER_ROW_GROUP // max(largest, 1)))
        self._files.write_to(self._files.buffer / f"stimuli-{self._count:05d}", table, pictures)
        self._count += 1
        self._waiting = []
        self._waiting_bytes = 0


def _num_bytes(row: Mapping) -> int:
    """Of the picture and frames of a row."""
    clip = row.get(schema.CLIP)
    pictures = [*([row["image"]] if row["image"] else []), *(clip["frames"] if clip else [])]
    return sum(len(picture["bytes"]) for picture in pictures)


def _clip(clip: Mapping | None, stimulus_id: str) -> dict | None:
    """A clip as its column has it.

    Raises:
        FmriModelsError: It says neither a file nor frames, has too many of them, or one can't be decoded.
    """
    if clip is None:
        return None
    if unknown := sorted(set(clip) - {"file", "start", "seconds", "frames"}):
        raise FmriModelsError(
            f"The clip of {stimulus_id} has the key {unknown[0]!r}; expected file, start, seconds and frames."
        )
    given = clip.get("frames")
    frames = [] if given is None else list(given)
    file = check_line(clip.get("file") or "", f"file of the clip of {stimulus_id}")
    if not frames and not file:
        raise FmriModelsError(f"The clip of {stimulus_id} has neither a file nor frames; give one of them.")
    if len(frames) > schema.MAX_FRAMES:
        raise FmriModelsError(
            f"The clip of {stimulus_id} has {len(frames)} frames; expected {schema.MAX_FRAMES} at most: refer to its "
            "file, or take fewer frames a second."
        )
    encoded = []
    for number, frame in enumerate(frames):
        name = f"frame {number} of stimulus {stimulus_id}"
        data = encode_picture(frame, name)
        read_picture(data, name)
        encoded.append({"bytes": data, "path": f"{stimulus_id}-{number:04d}.{picture_format(data, name)}"})
    return {
        "file": file or None,
        "start": _seconds(clip.get("start"), stimulus_id),
        "seconds": _seconds(clip.get("seconds"), stimulus_id),
        "frames": encoded,
    }


def _seconds(value: float | None, stimulus_id: str) -> float | None:
    if value is not None and not 0 <= value < 1e7:
        raise FmriModelsError(f"A time of the clip of {stimulus_id} is {value} s; expected 0 or more.")
    return None if value is None else float(value)
