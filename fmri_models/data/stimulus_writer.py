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
# Of large pictures there are fewer in a file, so that neither writer nor reader holds gigabytes of them.
_BYTES_PER_ROW_GROUP = 2**28
_BYTES_PER_FILE = 2**29


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

    def add(self, record: Mapping) -> None:
        """Takes a stimulus.

        Raises:
            FmriModelsError: Its id is used twice or can't be a file name, or its picture can't be decoded.
        """
        row = self._row(record)
        self._waiting.append(row)
        self._waiting_bytes += len(row["image"]["bytes"]) if row["image"] else 0
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
        }

    def _write(self) -> None:
        table = pa.Table.from_pylist(self._waiting, schema=schema.stimuli_schema())
        largest = max((len(row["image"]["bytes"]) for row in self._waiting if row["image"]), default=1)
        pictures = max(1, min(_PICTURES_PER_ROW_GROUP, _BYTES_PER_ROW_GROUP // max(largest, 1)))
        self._files.write_to(self._files.buffer / f"stimuli-{self._count:05d}", table, pictures)
        self._count += 1
        self._waiting = []
        self._waiting_bytes = 0
