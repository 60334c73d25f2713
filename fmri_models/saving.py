"""Writing that either happens completely or leaves what was there untouched.

Three kinds of writing share the rule that everything is written beside first:

- [`atomic_folder`] makes a folder, or *replaces* one that such a command wrote, as a whole.
- [`merged_folder`] brings new files into a folder that may hold anybody's: it replaces files of its own names, removes
  those of its own that are no longer needed, and leaves the rest.
- [`atomic_file`] writes one file.

What is being written is locked as long as its process lives, so that the next run knows what a killed one has left,
removes it, and completes or undoes a swap that was under way ([`recover`]).
"""

import errno
import fcntl
import fnmatch
import json
import math
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FmriModelsError, system_sentence

PARTIAL_PREFIX = ".partial-"
# A folder that is being replaced, with its old content, until the new one is in its place.
_REPLACED_PREFIX = ".replaced-"
# Inside a folder that is being merged into: complete, and on its way to the files' own places.
_SWAP_PREFIX = ".swap-"
_JOURNAL = "swap.json"
# The pictures of a report on single trials of many subjects are a few hundred thousand.
_MAX_JOURNAL_BYTES = 2**28
_RANDOM = r"[a-z0-9_]{8}"
# Left by file managers and sharing protocols, never by a person.
_SYSTEM_FILES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*", "__MACOSX")
_WAIT_FOR_SWAP_S = 10.0
_TRIES = 100


@dataclass(frozen=True)
class FolderKind:
    """What a command writes, so that it replaces nothing else.

    Args:
        name: What a message calls the folder, such as `"trial table"`.
        marker: The file by which such a folder is known.
        files: Patterns (`*` also stands for `/`) of everything that it may hold.
        marker_start: What the marker begins with, where its name alone says too little.
    """

    name: str
    marker: str
    files: tuple[str, ...]
    marker_start: bytes = b""

    def is_known(self, folder: Path) -> bool:
        """Whether a folder has the marker."""
        marker = folder / self.marker
        if not marker.is_file():
            return False
        with marker.open("rb") as file:
            return file.read(len(self.marker_start)) == self.marker_start

    def foreign_files(self, folder: Path) -> list[str]:
        """Files that nobody but another program or a person can have put there, relative to the folder."""
        found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
        return [name for name in found if not self._is_own(name)]

    def _is_own(self, name: str) -> bool:
        own = (self.marker, *self.files)
        last = name.rsplit("/", 1)[-1]
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in own) or any(
            fnmatch.fnmatchcase(last, pattern) for pattern in _SYSTEM_FILES
        )


TRIAL_TABLE = FolderKind(
    "trial table",
    "table.json",
    (
        "README.md", "trials/*.parquet", "stimuli/*.parquet", "voxels/*.parquet", "splits/*.parquet",
        "noise_free/*.parquet", "evaluations.jsonl",
    ),
)  # fmt: skip
REPORT_FILES = ("report.json", "report.md", "report.html", "grid.png", "items.parquet", "images/*.png")
PIPELINE = FolderKind(
    "pipeline",
    "model_index.json",
    (
        "README.md", "training.json", "conversion.json", "brain_model/*", "processor/*", "image_generator/*",
        *REPORT_FILES,
    ),
)  # fmt: skip
RECONSTRUCTIONS = FolderKind(
    "folder of reconstructions", "trials.csv", ("*.png", "embeddings.npy"), b"trial,stimulus,seed,scores"
)


@contextmanager
def atomic_folder(
    path: str | os.PathLike,
    overwrite: bool = False,
    kind: FolderKind | None = None,
    inputs: Iterable[str | os.PathLike] = (),
) -> Iterator[Path]:
    """Yields an empty folder beside `path` that becomes `path` when the block ends without an error.

    Args:
        path: The folder to be written. It may exist if it is empty, or with `overwrite`.
        overwrite: Replace a folder that has content. The old one is removed only after the new one is complete.
        kind: What may be replaced; None for folders of the package's own, such as those of the cache.
        inputs: What is read meanwhile, and therefore can't be replaced.

    Raises:
        FmriModelsError: `path` can't be replaced (before anything is written), or the system refuses to write.
    """
    check_output_folder(path, overwrite, kind, inputs)
    path = Path(os.path.realpath(path))
    with system_errors_as_sentences(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _new_locked_folder(path.parent, path.name) as partial:
            yield partial
            partial.chmod(0o777 & ~_umask())
            with _signals_later():
                _swap(partial, path, overwrite)


@contextmanager
def merged_folder(
    path: str | os.PathLike, obsolete: Callable[[Path, set[str]], Iterable[str]] = lambda folder, written: ()
) -> Iterator[Path]:
    """Yields an empty folder whose files replace those of the same names in `path` when the block ends without error.

    Everything else in `path` stays: it may be a clone of a repository, the current directory, or hold a person's notes.
    A kill before the swap leaves the old files; one inside it leaves a journal, by which the next writer or reader
    ([`recover`]) completes it.

    Args:
        path: The folder, which is made where there is none.
        obsolete: Takes the folder and the names that were written (relative, with `/`), and gives names of older files
            of the writer's own that are no longer needed.

    Raises:
        FmriModelsError: `path` is a file, holds a folder in a file's place, or the system refuses to write.
    """
    path = Path(os.path.realpath(path))
    with system_errors_as_sentences(path):
        if path.exists() and not path.is_dir():
            raise FmriModelsError(f"The output folder {path} is a file; choose another name.")
        recover(path)
        new = not path.exists()
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _new_locked_folder(path.parent, path.name) if new else _new_locked_folder(path) as partial:
            yield partial
            if new:
                partial.chmod(0o777 & ~_umask())
            with _signals_later():
                if not new or not _take_place(partial, path):
                    _complete(_commit(partial, path, obsolete), path)


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a file name beside `path` that replaces `path` when the block ends without an error.

    Raises:
        FmriModelsError: The system refuses to write.
    """
    path = Path(path).absolute()
    with system_errors_as_sentences(path):
        if path.is_dir():
            raise FmriModelsError(f"{path} is a folder, and a file has to be written there; choose another name.")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, path.stem, path.suffix)
        # The suffix is kept because writers choose the format by it (numpy.save would append its own).
        partial = Path(tempfile.mktemp(prefix=_partial_prefix(path.stem), suffix=path.suffix, dir=path.parent))
        try:
            with _new_locked_file(partial):
                yield partial
                partial.chmod(0o666 & ~_umask())
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def json_text(values: Any) -> str:
    """JSON that every parser takes: what is NaN or infinite becomes null."""
    return json.dumps(_finite(values), indent=2, allow_nan=False)


@contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty folder beside `path` that is removed when the block ends, or by [`recover`] after a kill.

    Raises:
        FmriModelsError: The system refuses to write.
    """
    path = Path(path).absolute()
    with system_errors_as_sentences(path):
        recover(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _new_locked_folder(path.parent, path.name) as scratch:
            yield scratch


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder as a whole: a kill meanwhile leaves none, or something that [`recover`] removes."""
    path = Path(path).absolute()
    with system_errors_as_sentences(path):
        if not path.exists():
            return
        with scratch_folder(path) as scratch:
            path.rename(scratch / path.name)


def check_output_folder(
    path: str | os.PathLike,
    overwrite: bool = False,
    kind: FolderKind | None = None,
    inputs: Iterable[str | os.PathLike] = (),
) -> None:
    """Refuses an output folder that can't be written or replaced, so that a long run does not end in that refusal.

    What a killed run has left beside it is removed, and a replacement that was under way is undone first.

    Args:
        path: The folder to be written.
        overwrite: Whether content may be replaced.
        kind: What may be replaced; None for folders of the package's own.
        inputs: What the command reads.

    Raises:
        FmriModelsError: `path` is a file, is, contains or lies in an input, has content (that may not be replaced, or
            that another program or a person put there), or the place can't be written.
    """
    path = Path(path)
    with system_errors_as_sentences(path):
        recover(path)
        check_apart(path, inputs)
        if os.path.lexists(os.path.realpath(path)) and not path.is_dir():
            raise FmriModelsError(f"The output folder {path} is a file; choose another name.")
        if os.path.ismount(os.path.realpath(path)):
            raise FmriModelsError(
                f"The output folder {path} is where a file system is mounted, so it can't be replaced as a whole; "
                "choose a folder in it."
            )
        if path.is_dir() and any(path.iterdir()):
            _check_replaceable(path, overwrite, kind)
        _check_writable(Path(os.path.realpath(path)))


def check_merged_folder(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuses a folder that files can't be brought into by [`merged_folder`], so that a long run does not end in that.

    Args:
        path: The folder; made later if it is missing.
        overwrite: Whether it may have content, of which files of the same names are replaced.

    Raises:
        FmriModelsError: `path` is a file, has content without `overwrite`, or can't be written.
    """
    path = Path(path)
    with system_errors_as_sentences(path):
        recover(path)
        if path.exists() and not path.is_dir():
            raise FmriModelsError(f"The output folder {path} is a file; choose another name.")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise FmriModelsError(
                f"The output folder {path} exists and is not empty; choose another one, or pass --overwrite to replace "
                "what an earlier run of this command has written there. Other files stay."
            )
        _try_writing(Path(os.path.realpath(path)))


def check_room(path: str | os.PathLike, num_bytes: int) -> None:
    """Refuses a place whose disk has not the room for what will be written.

    Args:
        path: What is to be written.
        num_bytes: Its size, at least.

    Raises:
        FmriModelsError: Less is free.
    """
    path = Path(path)
    with system_errors_as_sentences(path):
        free = shutil.disk_usage(_existing_parent(path)).free
    if free < num_bytes:
        raise FmriModelsError(
            f"There is no room for {path}: it takes {num_bytes / 2**20:,.0f} MiB at least, and {free / 2**20:,.0f} MiB "
            "are free; make room or choose another folder."
        )


def check_apart(path: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> None:
    """Refuses an output folder that is, contains or lies in an input of the command.

    Raises:
        FmriModelsError: Names the input.
    """
    out = _identities(path)
    for given in inputs:
        source = _identities(given)
        if out[0] == source[0]:
            relation = "is"
        elif out[0] in source:
            relation = "contains"
        elif source[0] in out:
            relation = "lies in"
        else:
            continue
        raise FmriModelsError(
            f"The output folder {path} {relation} {given}, which is read; choose a folder apart from it."
        )


def _identities(path: str | os.PathLike) -> list[tuple[int, int] | Path]:
    """What a path and the folders above it are, whatever name, case or mount they are reached by."""
    real = Path(os.path.realpath(path))
    found: list[tuple[int, int] | Path] = []
    for place in (real, *real.parents):
        try:
            status = place.stat()
        except OSError:
            found.append(place)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def recover(path: str | os.PathLike) -> None:
    """Completes or undoes what a killed process has left of writing a folder, and removes what it left beside it.

    Cheap where there is nothing to do; called by readers of folders, too. Folders that can't be written are left alone
    unless they can't be read as they are.

    Raises:
        FmriModelsError: A swap was interrupted, and the folder can't be written now.
    """
    path = Path(os.path.realpath(path))
    try:
        if path.is_dir():
            for swap in sorted(path.glob(f"{_SWAP_PREFIX}*")):
                _complete_interrupted(swap, path)
        if path.name and path.parent.is_dir():
            _put_back(path)
            _remove_abandoned(path.parent, path.name)
        if path.is_dir():
            _remove_abandoned(path, "")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
            raise


def recover_below(folder: str | os.PathLike) -> None:
    """Does for everything below a folder of the package's own what [`recover`] does for one place."""
    replaced = re.compile(rf"{re.escape(_REPLACED_PREFIX)}.+-{_RANDOM}")
    for path in sorted(Path(folder).rglob(".*")):
        if path.name.startswith(PARTIAL_PREFIX):
            _remove_if_abandoned(path)
        elif replaced.fullmatch(path.name):
            _undo_replacement(path)


def is_partial(name: str) -> bool:
    """Whether a file or folder of that name is being written, or was left by a killed process."""
    return name.startswith((PARTIAL_PREFIX, _REPLACED_PREFIX, _SWAP_PREFIX))


def check_schema(found: object, supported: int, what: str) -> None:
    """Compares the schema version that a file carries with the newest one that this package reads.

    Raises:
        FmriModelsError: The version is missing, is no whole number, or is newer than `supported`.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise FmriModelsError(
            f"{what} has the schema version {repr(found)[:40]}; expected a whole number from 1 to {supported}."
        )
    if found > supported:
        raise FmriModelsError(
            f"{what} was written by a newer version of fmri_models (schema {str(found)[:40]}, this version reads up to "
            f"{supported}); upgrade with `pip install --upgrade fmri_models`."
        )


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
            free = shutil.disk_usage(_existing_parent(path)).free
            raise FmriModelsError(
                f"The disk is full while writing {path} ({free / 2**20:.0f} MiB are free); make room or choose another "
                "folder. Nothing that was there before has been changed."
            ) from error
        refusal = _refusal(error)
        if refusal is not None:
            raise FmriModelsError(system_sentence(refusal, path)) from error
        raise


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


def _check_replaceable(path: Path, overwrite: bool, kind: FolderKind | None) -> None:
    if not overwrite:
        raise FmriModelsError(
            f"The output folder {path} exists and is not empty; choose another one, or pass --overwrite to replace it."
        )
    if kind is None:
        return
    if not kind.is_known(path):
        raise FmriModelsError(
            f"The output folder {path} has content and is no {kind.name} (it has no {kind.marker} of one), so it is "
            "not replaced; choose another folder, or empty this one yourself."
        )
    if foreign := kind.foreign_files(path):
        more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise FmriModelsError(
            f"The {kind.name} {path} holds {foreign[0][:200]}{more}, which would be lost with it; move that away, or "
            "choose another folder."
        )


def _check_writable(path: Path) -> None:
    """Writes an empty file where the folder will be, since rights alone do not tell."""
    _try_writing(path.absolute().parent, path.name)


def _try_writing(folder: Path, name: str = "") -> None:
    for place in (folder, *folder.parents):
        if place.is_dir():
            break
        if os.path.lexists(place):
            raise FmriModelsError(f"{place} is a file, and a folder has to be made there; choose another one.")
    prefix = _partial_prefix(name) if name else PARTIAL_PREFIX
    handle, partial = tempfile.mkstemp(prefix=prefix, dir=place)
    os.close(handle)
    # Another process may have taken it for abandoned.
    Path(partial).unlink(missing_ok=True)


def _existing_parent(path: Path) -> Path:
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


def _partial_prefix(name: str) -> str:
    """How the names of what is written for a file or folder begin; they stay shorter than file systems allow."""
    return f"{PARTIAL_PREFIX}{_short(name)}-"


def _short(name: str) -> str:
    return name if len(os.fsencode(name)) <= 150 else os.fsdecode(os.fsencode(name)[:150])


@contextmanager
def _signals_later() -> Iterator[None]:
    """Has what interrupts a process wait until the end of the block, which takes a moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    received: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: received.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for came in received[:1]:
            handlers[signal.Signals(came)](came, None)


@contextmanager
def _new_locked_folder(parent: Path, name: str = "") -> Iterator[Path]:
    """Yields a new folder to write in, which is gone when the block ends, wherever its content went."""
    prefix = _partial_prefix(name) if name else PARTIAL_PREFIX
    with ExitStack() as stack:
        while True:
            with _signals_later():
                folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            # Between these two lines another process may take it for abandoned.
            if stack.enter_context(_locked(folder)):
                break
        yield folder


@contextmanager
def _new_locked_file(path: Path) -> Iterator[None]:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with _locked(path) as held:
        if not held:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        yield


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds a lock on a file or folder, by which others know that it is being written; a killed process loses it.

    Yields whether the path still is what was locked. Where the file system has no locks, nothing is held.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield _is_same(handle, path)
    finally:
        os.close(handle)


@contextmanager
def _claimed(path: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Whether nobody is writing a file or folder any more; it is locked inside the block then.

    What can't be locked is somebody's: a link, a pipe, another user's, a file system without locks.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        yield _try_lock(handle, time.monotonic() + wait_s) and _is_same(handle, path)
    finally:
        os.close(handle)


def _try_lock(handle: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        except OSError:
            return False


def _is_same(handle: int, path: Path) -> bool:
    """Whether a path still leads to what was opened by it."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_abandoned(folder: Path, stem: str, suffix: str = "") -> None:
    """Removes what killed processes have left of writing something of that name in a folder."""
    prefix = _partial_prefix(stem) if stem else PARTIAL_PREFIX
    pattern = re.compile(rf"{re.escape(prefix)}{_RANDOM}{re.escape(suffix)}")
    for path in folder.iterdir():
        if path.name.startswith(PARTIAL_PREFIX) and pattern.fullmatch(path.name):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    with _claimed(path) as abandoned:
        if abandoned and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif abandoned:
            path.unlink(missing_ok=True)


def _put_back(path: Path) -> None:
    """Puts a folder back whose replacement was interrupted between the two renames."""
    pattern = re.compile(rf"{re.escape(_REPLACED_PREFIX)}{re.escape(_short(path.name))}-{_RANDOM}")
    for holder in path.parent.glob(f"{_REPLACED_PREFIX}*"):
        if pattern.fullmatch(holder.name):
            _undo_replacement(holder, missing=not path.exists())


def _undo_replacement(holder: Path, missing: bool = False) -> None:
    # Without the folder there is nothing to read, and a moment later there is.
    with _claimed(holder, _WAIT_FOR_SWAP_S if missing else 0.0) as abandoned:
        if not abandoned or not holder.is_dir():
            return
        for old in holder.iterdir():
            place = holder.parent / old.name
            if old.is_dir() and not os.path.lexists(place):
                old.rename(place)
        shutil.rmtree(holder, ignore_errors=True)


def _swap(partial: Path, path: Path, overwrite: bool) -> None:
    # Another process may do the same at any moment; then the last one wins.
    for _ in range(_TRIES):
        if _take_place(partial, path):
            return
        if not overwrite:
            raise FmriModelsError(f"Another process has written {path} meanwhile; choose another output folder.")
        holder = Path(tempfile.mkdtemp(prefix=f"{_REPLACED_PREFIX}{_short(path.name)}-", dir=path.parent))
        with _locked(holder) as held:
            if held and _exchange(partial, path, holder / path.name):
                return
    raise FmriModelsError(f"Other processes keep writing {path}; choose another output folder.")


def _take_place(partial: Path, path: Path) -> bool:
    """Moves a folder to where none is, or an empty one; False if there is content."""
    try:
        partial.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _exchange(partial: Path, path: Path, replaced: Path) -> bool:
    """Moves a folder to where another one is, which goes away; False if another process was faster."""
    try:
        path.rename(replaced)
        return _take_place(partial, path)
    except FileNotFoundError:
        return False
    # An interrupt may come between the two as well.
    except BaseException:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise
    finally:
        if path.exists():
            shutil.rmtree(replaced.parent, ignore_errors=True)


def _commit(partial: Path, path: Path, obsolete: Callable[[Path, set[str]], Iterable[str]]) -> Path:
    """Makes what was written final: from here on the swap is completed, whoever does it."""
    written = set(written_files(partial))
    for name in sorted(written):
        _check_place(path, name)
    removed = sorted(set(obsolete(path, written)) - written)
    journal = json.dumps({"files": sorted(written), "removed": removed})
    (partial / _JOURNAL).write_text(journal, encoding="utf-8")
    # One name for all processes: where another one is swapping, it can't be taken.
    swap = path / f"{_SWAP_PREFIX}files"
    for _ in range(_TRIES):
        if _take_place(partial, swap):
            return swap
        _complete_interrupted(swap, path)
    raise FmriModelsError(f"Other processes keep saving into {path}; try again when they are done.")


def _check_place(path: Path, name: str) -> None:
    """Refuses a file's place that is a folder, or that lies elsewhere.

    Raises:
        FmriModelsError: Names what is in the way.
    """
    if (path / name).is_dir():
        raise FmriModelsError(f"{path / name} is a folder, and a file has to be written there; move it away.")
    for parent in (path / name).parents:
        if parent == path:
            return
        if os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir()):
            found = "a symbolic link" if parent.is_symlink() else "a file"
            raise FmriModelsError(f"{parent} is {found}, and a folder has to be made there; move it away.")


def _complete_interrupted(swap: Path, path: Path) -> None:
    deadline = time.monotonic() + _WAIT_FOR_SWAP_S
    while swap.is_dir() and not swap.is_symlink():
        with _claimed(swap, deadline - time.monotonic()) as abandoned:
            if abandoned or _is_old(swap):
                _complete_or_say_why_not(swap, path)
                return
        # Else it is done, and there may be another process's by now.
        if time.monotonic() >= deadline:
            raise FmriModelsError(f"Another process is saving into {path}; try again when it is done.")
        time.sleep(0.01)


def _complete_or_say_why_not(swap: Path, path: Path) -> None:
    try:
        _complete(swap, path)
    except OSError as error:
        raise FmriModelsError(
            f"A save into {path} was interrupted, and it can't be completed now ({error.strerror}); make the "
            "folder writable and load it again."
        ) from error


def _is_old(swap: Path) -> bool:
    """Whether a swap takes longer than any does, so that its process must be gone although no lock says so."""
    try:
        return time.time() - swap.stat().st_mtime > 10 * _WAIT_FOR_SWAP_S
    except OSError:
        return False


def _complete(swap: Path, path: Path) -> None:
    if not os.path.lexists(swap / _JOURNAL):
        # It was there before the swap began, so that the kill came when all was done and this was being removed.
        shutil.rmtree(swap, ignore_errors=True)
        return
    journal = _read_journal(swap)
    for name in (*journal["files"], *journal["removed"]):
        _check_place(path, name)
    for name in journal["files"]:
        source, target = swap / name, path / name
        if source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    for name in journal["removed"]:
        (path / name).unlink(missing_ok=True)
        _remove_empty(path / name, path)
    shutil.rmtree(swap, ignore_errors=True)


def _read_journal(swap: Path) -> dict[str, list[str]]:
    """Which files are moved and which are removed. It is ours, but lies in a folder that may come from elsewhere."""
    try:
        status = os.lstat(swap / _JOURNAL)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_JOURNAL_BYTES:
            raise ValueError("no journal")
        values = json.loads((swap / _JOURNAL).read_text(encoding="utf-8"))
        names = {key: list(values[key]) for key in ("files", "removed")}
        if not all(isinstance(name, str) for name in (*names["files"], *names["removed"])):
            raise TypeError("no names")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FmriModelsError(f"{swap} is damaged and belongs to an interrupted save; remove it.") from error
    for name in (*names["files"], *names["removed"]):
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
            raise FmriModelsError(f"{swap} names {name[:100]!r}, which leads out of the folder; remove it.")
    return names


def _remove_empty(file: Path, top: Path) -> None:
    """Removes the folders of a removed file as far as they are empty."""
    for folder in file.parents:
        if folder == top or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def written_files(folder: Path) -> list[str]:
    """Names of all files below a folder, relative to it, with `/`."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())


def weights_no_longer_needed(folder: Path, written: set[str]) -> list[str]:
    """Weights files of an earlier save (old shards, an index) with base name and variant of new ones beside them.

    Args:
        folder: Where both are.
        written: Names of the new files, relative to the folder.
    """
    families = {(str(Path(name).parent), family) for name in written if (family := _weights_family(Path(name).name))}
    obsolete = []
    for parent in sorted({parent for parent, _ in families}):
        here = folder / parent
        for file in sorted(here.iterdir()) if here.is_dir() else []:
            name = file.relative_to(folder).as_posix()
            if name not in written and file.is_file() and (parent, _weights_family(file.name)) in families:
                obsolete.append(name)
    return obsolete


_WEIGHTS = re.compile(
    r"(?P<base>model|diffusion_pytorch_model|adapter_model)(?:\.(?P<variant>[\w]+))?"
    r"(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index(?:\.(?P<index_variant>[\w]+))?\.json)?"
)


def _weights_family(name: str) -> tuple[str, str] | None:
    """Base name and variant of a weights file, a shard or an index; None if it is neither."""
    found = _WEIGHTS.fullmatch(name)
    return None if found is None else (found["base"], found["variant"] or found["index_variant"] or "")


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
