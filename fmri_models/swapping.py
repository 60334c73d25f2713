"""How what was written takes the place of what was there, and what is left of that after a kill.

A folder that is being written is locked as long as its process lives, so that the next run tells a killed process'
leftovers from another's work. Files on their way into a folder that stays have a journal with them: it makes the swap
final, and whoever comes next completes it.
"""

import errno
import fcntl
import json
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
from pathlib import Path

from .errors import FmriModelsError, check_path

# Names that nobody else gives to a file, since what has them and no process is removed.
PARTIAL_PREFIX = ".partial-fmri_models-"
# A folder that is being replaced, with its old content, until the new one is in its place.
_REPLACED_PREFIX = ".replaced-fmri_models-"
# Inside a folder that is being merged into: complete, and on its way to the files' own places.
_SWAP_FOLDER = ".swap-fmri_models"
_JOURNAL = "swap.json"
# The pictures of a report on single trials of many subjects are a few hundred thousand.
_MAX_JOURNAL_BYTES = 2**28
# Where the Hub looks for figures of a model: the one file of a hidden folder that a save writes.
EVAL_RESULTS_FILE = ".eval_results/fmri_models.yaml"
# What raters have answered, beside a report.
RATER_ANSWERS_FILE = "rater_answers.csv"
# What a save may find no longer needed: weights and their indices, statistics, files of components, an earlier report.
_REMOVABLE = (".safetensors", ".json", ".st", ".txt", ".model", ".png")
_REMOVABLE_AT_THE_TOP = (
    ".safetensors", ".json", ".st", "report.md", "report.html", "grid.png", "items.parquet", RATER_ANSWERS_FILE,
)  # fmt: skip
_RANDOM = r"[a-z0-9_]{8}"
_WAIT_FOR_SWAP_S = 10.0
_TRIES = 100


def recover(path: str | os.PathLike) -> None:
    """Completes or undoes what a killed process has left of writing a folder, and removes what it left beside it.

    Cheap where there is nothing to do; called by readers of folders, too. Folders that can't be written are left alone
    unless they can't be read as they are.

    Raises:
        FmriModelsError: A swap was interrupted, and the folder can't be written now.
    """
    check_path(path)
    path = Path(os.path.realpath(path))
    try:
        if path.is_dir():
            _complete_interrupted(path / _SWAP_FOLDER, path)
        if path.name and path.parent.is_dir():
            _put_back(path)
            remove_abandoned(path.parent, path.name)
        if path.is_dir():
            remove_abandoned(path, "")
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
    return name.startswith((PARTIAL_PREFIX, _REPLACED_PREFIX, _SWAP_FOLDER))


def partial_prefix(name: str) -> str:
    """How the names of what is written for a file or folder begin; they stay shorter than file systems allow."""
    return f"{PARTIAL_PREFIX}{_short(name)}-"


def _short(name: str) -> str:
    return name if len(os.fsencode(name)) <= 150 else os.fsdecode(os.fsencode(name)[:150])


@contextmanager
def signals_later() -> Iterator[None]:
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
def new_locked_folder(parent: Path, name: str = "") -> Iterator[Path]:
    """Yields a new folder to write in, which is gone when the block ends, wherever its content went."""
    prefix = partial_prefix(name) if name else PARTIAL_PREFIX
    with ExitStack() as stack:
        while True:
            with signals_later():
                folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
                stack.callback(_remove_for_good, folder)
            # Between these two lines another process may take it for abandoned.
            if stack.enter_context(_locked(folder)):
                break
        yield folder


def _remove_for_good(folder: Path) -> None:
    """Removes a folder, whoever interrupts meanwhile, and though a thread may still write a file in it."""
    with signals_later():
        for _ in range(_TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                return
            time.sleep(0.02)


@contextmanager
def new_locked_file(path: Path) -> Iterator[None]:
    """Makes an empty file to write in, which is locked inside the block."""
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


@contextmanager
def held_alone(path: Path) -> Iterator[bool]:
    """Whether nobody else holds a folder; it is held inside the block then, and a killed process holds nothing.

    Where the file system has no locks, everybody holds it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield _is_same(handle, path)
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


def remove_abandoned(folder: Path, stem: str, suffix: str = "") -> None:
    """Removes what killed processes have left of writing something of that name in a folder."""
    prefix = partial_prefix(stem) if stem else PARTIAL_PREFIX
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


def replace_folder(partial: Path, path: Path, overwrite: bool) -> None:
    """Moves a folder that was written to its place, and with `overwrite` the one that is there away.

    Raises:
        FmriModelsError: Another process was faster.
    """
    # Another process may do the same at any moment; then the last one wins.
    for _ in range(_TRIES):
        if take_place(partial, path):
            return
        if not overwrite:
            raise FmriModelsError(f"Another process has written {path} meanwhile; choose another output folder.")
        holder = Path(tempfile.mkdtemp(prefix=f"{_REPLACED_PREFIX}{_short(path.name)}-", dir=path.parent))
        with _locked(holder) as held:
            if held and _exchange(partial, path, holder / path.name):
                return
    raise FmriModelsError(f"Other processes keep writing {path}; choose another output folder.")


def take_place(partial: Path, path: Path) -> bool:
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
        return take_place(partial, path)
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


def commit(partial: Path, path: Path, obsolete: Callable[[Path, set[str]], Iterable[str]]) -> Path:
    """Makes what was written final: from here on the swap is completed, whoever does it."""
    written = set(written_files(partial))
    for name in sorted(written):
        _check_place(path, name)
    removed = sorted(name for name in set(obsolete(path, written)) - written if _may_be_removed(name))
    journal = json.dumps({"files": sorted(written), "removed": removed})
    (partial / _JOURNAL).write_text(journal, encoding="utf-8")
    # One name for all processes: where another one is swapping, it can't be taken.
    swap = path / _SWAP_FOLDER
    for _ in range(_TRIES):
        if take_place(partial, swap):
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


def _check_no_links(swap: Path, name: str) -> None:
    """Refuses a file of a swap that a link leads to: it would be taken from somewhere else.

    Raises:
        FmriModelsError: Names the link.
    """
    for part in ((swap / name), *(swap / name).parents):
        if part.is_symlink():
            raise FmriModelsError(f"{part} is a symbolic link, which no save has made; remove {swap}.")
        if part == swap:
            return


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
        complete(swap, path)
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


def complete(swap: Path, path: Path) -> None:
    """Moves the files of a swap into their places, and removes those that its journal says."""
    if not os.path.lexists(swap / _JOURNAL):
        # It was there before the swap began, so that the kill came when all was done and this was being removed.
        shutil.rmtree(swap, ignore_errors=True)
        return
    journal = _read_journal(swap)
    for name in (*journal["files"], *journal["removed"]):
        _check_place(path, name)
        _check_no_links(swap, name)
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
        hidden = name != EVAL_RESULTS_FILE and any(part.startswith(".") for part in parts)
        if not parts or Path(name).is_absolute() or hidden or "\0" in name:
            raise FmriModelsError(f"{swap} names {name[:100]!r}, which no save writes; remove it.")
    for name in names["removed"]:
        if not _may_be_removed(name):
            raise FmriModelsError(f"{swap} would remove {name[:100]!r}, which no save has written; remove it.")
    return names


def _may_be_removed(name: str) -> bool:
    return name == EVAL_RESULTS_FILE or name.endswith(_REMOVABLE if "/" in name else _REMOVABLE_AT_THE_TOP)


def _remove_empty(file: Path, top: Path) -> None:
    """Removes the folders of a removed file as far as they are empty."""
    for folder in file.parents:
        if folder == top or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def written_files(folder: Path) -> list[str]:
    """Names of all files below a folder, relative to it, with `/`."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())
