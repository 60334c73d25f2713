"""What a record calls a place that a recipe names: a folder by its content, and not by a path of this machine."""

import hashlib
from pathlib import Path

from ..hub_repository import is_folder

_BYTES_THAT_TELL = 2**20


def content_name(place: str | None) -> str | None:
    """A Hub repository or a name as it is; a folder by its last name and what is in it."""
    if place is None or not is_folder(place):
        return place
    folder = Path(place).resolve()
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            # Configurations as a whole; of weights the header and the first values tell enough.
            digest.update(content.read(_BYTES_THAT_TELL))
    return f"{folder.name} (a folder, {digest.hexdigest()[:16]})"
