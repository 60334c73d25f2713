"""Writing that either happens completely or leaves what was there untouched."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FmriModelsError

PARTIAL_PREFIX = ".partial-"


@contextmanager
def atomic_folder(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path` that becomes `path` when the block ends without an error.

    Args:
        path: The folder to be written. It may exist if it is empty, or with `overwrite`.
        overwrite: Replace a folder that has content. The old one is removed only after the new one is complete.

    Raises:
        FmriModelsError: `path` exists with content (before anything is written), or the disk is full.
    """
    path = Path(path).absolute()
    check_output_folder(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{PARTIAL_PREFIX}{path.name}-", dir=path.parent))
    try:
        with disk_full_as_sentence(path):
            yield partial
            partial.chmod(0o777 & ~_umask())
            _swap(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replaceable_folder(path: str | os.PathLike, marker: str) -> Iterator[Path]:
    """Like [`atomic_folder`], for `save_pretrained`: a folder that holds `marker` is one of its kind and is replaced.

    Raises:
        FmriModelsError: `path` holds something else, or the disk is full.
    """
    with atomic_folder(path, overwrite=(Path(path) / marker).is_file()) as partial:
        yield partial


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a file name beside `path` that replaces `path` when the block ends without an error.

    Raises:
        FmriModelsError: The disk is full.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept because writers choose the format by it (numpy.save would append its own).
    handle, name = tempfile.mkstemp(prefix=f"{PARTIAL_PREFIX}{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        with disk_full_as_sentence(path):
            yield partial
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_output_folder(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuses an output folder that has content, so that a long run does not end in that refusal.

    Raises:
        FmriModelsError: `path` is a file, or a folder with content while `overwrite` is off.
    """
    path = Path(path)
    if path.is_file():
        raise FmriModelsError(f"The output folder {path} is a file; choose another name.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FmriModelsError(
            f"The output folder {path} exists and is not empty; choose another one, or pass --overwrite to replace it."
        )


def check_schema(found: object, supported: int, what: str) -> None:
    """Compares the schema version that a file carries with the newest one that this package reads.

    Raises:
        FmriModelsError: The version is missing, is no whole number, or is newer than `supported`.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise FmriModelsError(
            f"{what} has the schema version {found!r}; expected a whole number from 1 to {supported}."
        )
    if found > supported:
        raise FmriModelsError(
            f"{what} was written by a newer version of fmri_models (schema {found}, this version reads up to "
            f"{supported}); upgrade with `pip install --upgrade fmri_models`."
        )


@contextmanager
def disk_full_as_sentence(path: Path) -> Iterator[None]:
    """Turns the error of a full disk inside the block into a sentence.

    Args:
        path: What is being written.

    Raises:
        FmriModelsError: The disk is full.
    """
    try:
        yield
    except Exception as error:
        if not _is_disk_full(error):
            raise
        free = shutil.disk_usage(path.parent).free
        raise FmriModelsError(
            f"The disk is full while writing {path} ({free / 2**20:.0f} MiB are free); make room or choose another "
            "folder. Nothing that was there before has been changed."
        ) from error


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether ENOSPC or EDQUOT is behind an error; safetensors and Arrow wrap it in classes of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _swap(partial: Path, path: Path) -> None:
    if path.is_dir() and any(path.iterdir()):
        replaced = Path(tempfile.mkdtemp(prefix=f"{PARTIAL_PREFIX}{path.name}-old-", dir=path.parent)) / path.name
        path.rename(replaced)
        try:
            partial.rename(path)
        except OSError:
            replaced.rename(path)
            raise
        finally:
            shutil.rmtree(replaced.parent, ignore_errors=True)
    else:
        partial.replace(path)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
