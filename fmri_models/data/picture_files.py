"""Which files of a folder or a zip file are pictures: the one list for tables, reports and galleries."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import listed, one_line

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# What file managers of macOS, Windows and network drives leave in folders of pictures.
_SYSTEM_FILES = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found")


class NamedPictures(NamedTuple):
    """Pictures of one folder.

    Args:
        files: File of each name, which is the file's without its ending, as [`composed`] writes it.
        skipped: Names of what else is there, save hidden and system files; a link with where it leads.
        alike: Files whose names differ in upper and lower case alone.
    """

    files: dict[str, Path]
    skipped: list[str]
    alike: list[str]

    def notes(self, place: object) -> list[str]:
        """What was not read, and which names are one elsewhere, as sentences."""
        return [note for note in (skipped_sentence(self.skipped, place), alike_sentence(self.alike, place)) if note]


def composed(name: str) -> str:
    """A name in the one spelling (NFC) of letters with accents, which macOS writes as a letter and an accent."""
    return unicodedata.normalize("NFC", name)


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
        entries = [(path, path.is_file()) for path in sorted(folder.iterdir()) if not is_left_out(path.name)]
    read = [is_file and is_picture_name(path.name) for path, is_file in entries]
    names = [path.name for (path, _), is_read in zip(entries, read, strict=True) if is_read]
    skipped = [skipped_name(path.name, path) for (path, _), is_read in zip(entries, read, strict=True) if not is_read]
    if not names:
        usual, others = ", ".join(PICTURE_ENDINGS[:3]), ", ".join(PICTURE_ENDINGS[3:])
        instead = f"; it has {listed(skipped)}" if skipped else ""
        raise FmriModelsError(f"The folder {one_line(folder)} has no pictures ({usual}), nor {others}{instead}.")
    files: dict[str, Path] = {}
    for name in names:
        path = folder / name
        stem = composed(path.stem)
        if stem in files:
            raise FmriModelsError(
                f"{one_line(folder)} has two pictures with the name {one_line(stem)} "
                f"({one_line(files[stem].name)}, {one_line(name)}); keep one."
            )
        files[stem] = path
    return NamedPictures(files, skipped, [files[stem].name for stem in alike_names(files)])


def skipped_name(name: str, path: Path) -> str:
    """The name of what was not read, and what it is if it is neither file nor folder."""
    if path.is_file() or (path.is_dir() and not path.is_symlink()):
        return name
    if path.is_symlink():
        return f"{name} ({'a link to a folder' if path.is_dir() else 'a link to nothing that can be read'})"
    return f"{name} (a pipe, a device or a socket)"


def alike_names(names: Iterable[str]) -> list[str]:
    """Names of which others differ in upper and lower case alone."""
    by_folded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_folded[name.casefold()].append(name)
    return [name for several in by_folded.values() if len(several) > 1 for name in several]


def alike_sentence(names: Iterable[str], place: object) -> str:
    """That names differ in upper and lower case alone, as a sentence; empty if none do."""
    alike = list(names)
    if not alike:
        return ""
    return (
        f"{len(alike)} pictures of {one_line(place)} have names that differ from others in upper and lower case alone "
        f"({listed(alike)}); all are taken, and on macOS and Windows they would be one file: rename them."
    )


def skipped_sentence(skipped: Iterable[str], place: object) -> str:
    """What was not read, as a sentence; empty if everything was."""
    names = sorted(skipped)
    if not names:
        return ""
    verb = "is no picture and was" if len(names) == 1 else "are no pictures and were"
    what = f"{len(names)} {'entry' if len(names) == 1 else 'entries'} of {one_line(place)}"
    return f"{what} {verb} not read: {listed(names)}."
