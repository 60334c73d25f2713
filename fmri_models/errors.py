"""The one exception that means: the user can fix this, and what the operating system refuses as such a sentence."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FmriModelsError(ValueError):
    """A problem with what the user gave.

    The message is one sentence (or a few short ones) that says what was found, what was expected and what to do. The
    command line prints it without a traceback and exits with 1.
    """


_OS_ADVICE = {
    errno.ENAMETOOLONG: "its name is too long for the file system; choose a shorter one",
    errno.EACCES: "there is no permission; change the file's rights, or choose another place",
    errno.EPERM: "there is no permission; change the file's rights, or choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOTDIR: "a part of its path is a file and no folder; check the path",
    errno.EISDIR: "it is a folder; give a file",
    errno.ELOOP: "its symbolic links lead in a circle; give the place itself",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.ENOSPC: "the disk is full; make room, or choose another place",
    errno.EDQUOT: "the disk quota is used up; make room, or choose another place",
    errno.EFBIG: "it is larger than the file system or a limit of the shell allows; choose another place",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n`",
    errno.EEXIST: "there is a file in a folder's place; choose another one",
    errno.EBUSY: "it is in use, or a file system is mounted there; choose a folder in it",
    errno.EXDEV: "it lies on another file system than the folder around it; choose another place",
    errno.EIO: "the disk reports an error in reading or writing; check it, or copy the file again",
}


def system_sentence(error: OSError | MemoryError, path: str | os.PathLike | None = None) -> str:
    """What the operating system reports, as a sentence with the file and what to do.

    Args:
        error: What it raised.
        path: The file, where the error names none.
    """
    if isinstance(error, MemoryError):
        detail = " ".join(str(error).split())
        return (
            f"There is not enough memory{f' ({detail})' if detail else ''}; close other programs, or take less at once."
        )
    found = error.filename if error.filename is not None else path
    name = "A file" if found is None else _shown(found)
    advice = _OS_ADVICE.get(error.errno or 0)
    if advice is None:
        advice = f"{' '.join((error.strerror or str(error) or type(error).__name__).split())}; check it"
    return f"{name} can't be read or written: {advice}."


def _shown(path: str | bytes | int | os.PathLike) -> str:
    """A path, or the end of one that fills the screen."""
    text = str(path) if isinstance(path, int) else os.fsdecode(path)
    return text if len(text) <= 200 else f"…/{Path(text).name[:60]}…"


def check_path(path: str | os.PathLike) -> None:
    """Refuses what can't be the path of anything.

    Raises:
        FmriModelsError: It is empty, or has a NUL character.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise FmriModelsError(f"The path {text[:100]!r} can't be one of a file or folder; give one.")


@contextmanager
def system_errors_as_sentences(path: Path) -> Iterator[None]:
    """Turns what the operating system refuses inside the block into a sentence.

    Args:
        path: What is being written.

    Raises:
        FmriModelsError: The disk is full, the place can't be written, or a name is too long.
    """
    try:
        yield
    except FmriModelsError:
        raise
    except Exception as error:
        if _is_disk_full(error):
            raise FmriModelsError(
                f"The disk is full while writing {path} ({_room(existing_parent(path))}); make room or choose another "
                "folder. Nothing that was there before has been changed."
            ) from error
        refusal = _refusal(error)
        if refusal is not None:
            raise FmriModelsError(system_sentence(refusal, path)) from error
        raise


def _room(folder: Path) -> str:
    """What is left of a file system; with many small files their number ends before the bytes do."""
    if hasattr(os, "statvfs"):
        found = os.statvfs(folder)
        # Some file systems have no such bound and say 0 of 0.
        if found.f_files > 0 and found.f_favail == 0:
            return "the file system has no room for more files, however small"
    return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB are free"


_REFUSALS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP,
    errno.EFBIG, errno.EIO, errno.EBUSY, errno.EXDEV, errno.ESTALE, errno.EMFILE,
)  # fmt: skip


def _refusal(error: Exception) -> OSError | None:
    """What the system refused; libraries in Rust say it in a text of their own class."""
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found and int(found[1]) in _REFUSALS else None


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether ENOSPC or EDQUOT is behind an error; safetensors and Arrow wrap it in classes of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
