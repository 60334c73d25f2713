"""The files below a folder or in a zip file, by their paths; nothing is unpacked."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import one_line
from ..reading import check_regular_file, read_bytes
from .picture_files import is_left_out

_MOST_MEMBERS = 2**20


class FolderFiles:
    """Regular files below a folder, by their path with forward slashes.

    Links to files are files. Those to folders are not followed, which could be without end: they are `unreadable`, as
    are those that lead nowhere, and pipes and devices.
    """

    def __init__(self, path: Path, index: str) -> None:
        self._path = path
        self.names: list[str] = []
        self.unreadable: list[str] = []
        for folder, inner, files in os.walk(path, onerror=_refuse_listing):
            inner[:] = [name for name in inner if not is_left_out(name)]
            for name in (*inner, *files):
                file = Path(folder, name)
                shown = file.relative_to(path).as_posix()
                if is_left_out(name):
                    continue
                if _is_file(file, index):
                    self.names.append(shown)
                elif file.is_symlink() or not file.is_dir():
                    self.unreadable.append(shown)
        self.names.sort()
        self.unreadable.sort()

    def read(self, name: str, limit: int) -> bytes:
        return read_bytes(self._path / name, "file", "replace it", limit)


def _refuse_listing(error: OSError) -> NoReturn:
    raise error


def _is_file(path: Path, index: str) -> bool:
    if path.is_file():
        return True
    # Without it, pictures would get other ids and categories.
    if path.name == index:
        check_regular_file(path, "index of the pictures", "replace it, or remove it")
    return False


class ZipFiles:
    """Members of a zip file. They are read by name and never unpacked, so a path that leads outside does no harm."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self.unreadable: list[str] = []
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise FmriModelsError(
                f"{one_line(path)} has {len(members)} members; expected {_MOST_MEMBERS} at most; make several of it."
            )
        # ZipInfo.is_dir() takes no empty names, which damaged files have.
        names = (info.filename for info in members)
        self.names = sorted(name for name in names if name and not name.endswith("/") and not is_left_out(name))

    def read(self, name: str, limit: int) -> bytes:
        return read_member(self._archive, name, f"{one_line(name)} in {one_line(self._path)}", limit)


def read_member(archive: zipfile.ZipFile, name: str, what: str, limit: int) -> bytes:
    """The bytes of a zip file's member that is not larger than it may be, whatever its header says.

    Raises:
        FmriModelsError: It is larger, encrypted, compressed in an unusual way, or damaged.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python has no bound on what these decompress at once.
        raise FmriModelsError(
            f"{what} can't be read (its compression {info.compress_type} is not the ordinary one of zip files); make "
            "the zip file again."
        )
    try:
        with archive.open(info) as file:
            data = file.read(limit + 1) if info.file_size <= limit else b""
    # Decompressors raise their own errors, headers whatever they like (BadZipFile, RuntimeError, zlib.error, EOFError).
    except Exception as error:
        raise FmriModelsError(f"{what} can't be read ({one_line(error, 120)}); make the zip file again.") from error
    if max(len(data), info.file_size) > limit:
        raise FmriModelsError(f"{what} has more than {limit} bytes; expected {limit} at most; make it smaller.")
    return data


@contextmanager
def opened_files(path: Path, index: str) -> Iterator[FolderFiles | ZipFiles]:
    """The files below a folder, or in a zip file.

    Args:
        path: The folder or zip file.
        index: Name of a file that says how the others are read, so that it must be a regular one.
    """
    if path.is_dir():
        with system_errors_as_sentences(path):
            files = FolderFiles(path, index)
        yield files
        return
    with open_zip(path, "neither a folder nor a zip file") as archive:
        yield ZipFiles(path, archive)


@contextmanager
def open_zip(path: Path, otherwise: str) -> Iterator[zipfile.ZipFile]:
    """An opened zip file.

    Args:
        path: The file.
        otherwise: What it is if it is no zip file, for the message.

    Raises:
        FmriModelsError: It is no regular file, or no zip file.
    """
    check_regular_file(path, "zip file", "give another file")
    try:
        archive = zipfile.ZipFile(path)
    # Its directory may say anything (BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError ...).
    except Exception as error:
        raise FmriModelsError(f"{one_line(path)} is {otherwise} ({one_line(error, 120)}).") from error
    with archive:
        yield archive
