"""A table as it is passed on without its pictures: the files that then go up in the place of its own."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..reading import read_text
from . import schema
from .card import data_card, permission_on_card
from .parquet import naming, open_parquet
from .table_files import checked_json
from .table_terms import LEFT_OUT

_CARD_FILE = "README.md"


def without_pictures(path: Path, metadata: Mapping[str, Any], permission: str | None = None) -> dict[str, bytes]:
    """The files of a table that are others where its pictures stay at home.

    Stimuli keep ids, captions, categories, factors and the hash of their pixels, by which a picture under two ids is
    still known; trials, voxels and splits are as they were.

    Args:
        path: The table's folder, with its card.
        metadata: What `table.json` holds.
        permission: Which written permission the card names; None takes the one that it has.

    Returns:
        Name ▶ content: the stimuli, `table.json`, and the card unless somebody has written into it.

    Raises:
        FmriModelsError: A file of stimuli is damaged.
    """
    names = [name for name in metadata["files"] if name.startswith(f"{schema.STIMULI_FOLDER}/")]
    changed = {name: _without_images(path / name) for name in names}
    recorded = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in changed.items()
    }
    own = {**metadata, LEFT_OUT: True, "files": {**metadata["files"], **recorded}}
    changed[schema.TABLE_FILE] = (checked_json(own, "table's own values", indent=2) + "\n").encode()
    card = path / _CARD_FILE
    known = permission_on_card(card) if card.is_file() else None
    text = read_text(card, "data set card", "write it again") if card.is_file() else None
    if text in (None, data_card(metadata), data_card(metadata, known)):
        changed[_CARD_FILE] = data_card(own, permission or known).encode()
    return changed


def _without_images(file: Path) -> bytes:
    expected = schema.stimuli_schema()
    columns = [name for name in expected.names if name != "image"]
    # What the file claims is compared with what it may hold before its text is read.
    with open_parquet(file, expected, columns=columns, most_rows=schema.MAX_STIMULI), naming(file):
        pass
    with naming(file), pq.ParquetFile(file) as opened:
        known = opened.read(columns=columns)
        found = expected.with_metadata(opened.schema_arrow.metadata or expected.metadata)
    image = pa.nulls(len(known), expected.field("image").type)
    values = [image if name == "image" else known[name].cast(expected.field(name).type) for name in expected.names]
    out = io.BytesIO()
    pq.write_table(pa.table(values, schema=found), out, compression="zstd")
    return out.getvalue()
