"""By what a table was prepared, and of which files, so that these can be known again."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import progress


def prepared_record(
    script: str, version: int, options: Mapping[str, Any], files: Sequence[Path], source: Path, checksums: bool = True
) -> dict[str, Any]:
    """What `table.json` has as `prepared`, and the card says in a line.

    Args:
        script: Which script, as `dataset_scripts/<name>.py`.
        version: Of the script.
        options: That it was given.
        files: That were read.
        source: The folder or file that was given; files are named from there on.
        checksums: Whether the files' SHA-256 are computed.
    """
    there = progress.bar(files, "Checksums", unit="file", delay=1) if checksums else files
    return {
        "script": script,
        "script_version": version,
        "options": dict(options),
        "files": {_named(path, source): _checked(path, checksums) for path in there},
    }


def _named(path: Path, source: Path) -> str:
    base = source if source.is_dir() else source.parent
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def _checked(path: Path, checksums: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"bytes": path.stat().st_size}
    if checksums:
        with path.open("rb") as file:
            found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
