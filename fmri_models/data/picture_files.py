"""Which files of a folder or a zip file are pictures: the one list for tables, reports and galleries."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import one_line
from .schema import listed

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# What file managers of macOS, Windows and network drives leave in folders of pictures.
_SYSTEM_FILES = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin")


class NamedPictures(NamedTuple):
    """Pictures of one folder.

    Args:
        files: File of each name, which is the file's without its ending.
        skipped: Names of what else is there, save hidden and system files.
    """

    files: dict[str, Path]
    skipped: list[str]


def is_picture_name(name: str) -> bool:
    """Whether a file is one to be read as a picture, by the ending of its name in any case."""
    return name.lower().endswith(PICTURE_ENDINGS)


def is_left_out(name: str) -> bool:
    """Whether a path (with forward slashes) is hidden or a system's own, such as `._a.png` or `Thumbs.db`."""
    return any(part.startswith(".") or part.lower() in _SYSTEM_FILES for part in PurePosixPath(name).parts)


def named_pictures(folder: str | Path) -> NamedPictures:
    """The pictures that lie in a folder itself.

    Raises:
        FmriModelsError: There is no such folder, it has no pictures, or two of one name.
    """
    folder = Path(folder)
    with system_errors_as_sentences(folder):
        if not folder.is_dir():
            raise FmriModelsError(f"There is no folder {one_line(folder)}; give one with pictures.")
        # A pipe or a link to nowhere is no picture; opening a pipe would wait forever.
        entries = [(path.name, path.is_file()) for path in sorted(folder.iterdir()) if not is_left_out(path.name)]
    read = [is_file and is_picture_name(name) for name, is_file in entries]
    names = [name for (name, _), is_read in zip(entries, read, strict=True) if is_read]
    skipped = [name for (name, _), is_read in zip(entries, read, strict=True) if not is_read]
    if not names:
        usual, others = ", ".join(PICTURE_ENDINGS[:3]), ", ".join(PICTURE_ENDINGS[3:])
        instead = f"; it has {listed(skipped)}" if skipped else ""
        raise FmriModelsError(f"The folder {one_line(folder)} has no pictures ({usual}), nor {others}{instead}.")
    files: dict[str, Path] = {}
    for name in names:
        path = folder / name
        if path.stem in files:
            raise FmriModelsError(
                f"{one_line(folder)} has two pictures with the name {one_line(path.stem)} "
                f"({one_line(files[path.stem].name)}, {one_line(name)}); keep one."
            )
        files[path.stem] = path
    return NamedPictures(files, skipped)


def skipped_sentence(skipped: Iterable[str], place: object) -> str:
    """What was not read, as a sentence; empty if everything was."""
    names = sorted(skipped)
    if not names:
        return ""
    verb = "is no picture and was" if len(names) == 1 else "are no pictures and were"
    what = f"{len(names)} {'entry' if len(names) == 1 else 'entries'} of {one_line(place)}"
    return f"{what} {verb} not read: {listed(names)}."
