"""The log of looks: every evaluation on a test split, because the best of many looks is not an honest figure."""

import fcntl
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data.matrix import cache_folder
from ..errors import FmriModelsError
from ..names import one_line
from ..reading import check_regular_file, checked, parse_json, read_text
from .report import plain
from .report_schema import Look

FILE_NAME = "evaluations.jsonl"


def record_look(
    table: str | os.PathLike,
    fingerprint: str,
    split: str,
    config: Mapping[str, Any],
    score: Mapping[str, float | None],
    **further: Any,
) -> Path:
    """Appends one evaluation to the log beside a data table.

    Args:
        table: Folder of the trial table. The log is `evaluations.jsonl` in the folder that holds it, so that making
            the table again does not erase it; in the user's cache if that folder cannot be written.
        fingerprint: Of the table's contents.
        split: Which split was looked at, such as `default/test` or `kfold/3`.
        config: What was evaluated.
        score: Metric -> value of the row `brain`.
        **further: Anything else to be kept, such as the report's path.

    Returns:
        The file that was written.
    """
    look = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "split": split,
        "commit": current_commit(),
        "config": dict(config),
        "score": dict(score),
        **further,
    }
    line = json.dumps(plain(look), sort_keys=True, allow_nan=False) + "\n"
    beside, cached = log_files(table)
    try:
        _append(beside, line)
        return beside
    except OSError:
        pass
    try:
        _append(cached, line)
    except OSError as error:
        raise _nowhere(beside, cached, error) from error
    return cached


def check_log(table: str | os.PathLike) -> None:
    """Refuses a log that can't be read or written, so that a long evaluation does not end in that refusal.

    Args:
        table: Folder of the trial table.

    Raises:
        FmriModelsError: A line of the log is damaged, or neither place can be written.
    """
    beside, cached = log_files(table)
    for path in (beside, cached):
        _lines(path)
    try:
        _try_appending(beside)
        return
    except OSError:
        pass
    try:
        _try_appending(cached)
    except OSError as error:
        raise _nowhere(beside, cached, error) from error


def read_looks(table: str | os.PathLike, fingerprint: str, split: str | None = None) -> list[dict[str, Any]]:
    """All recorded evaluations of a table's test split, oldest first.

    Args:
        table: Folder of the trial table.
        fingerprint: Of the table's contents; looks at other contents are left out.
        split: Only looks at this split; all if None.

    Raises:
        FmriModelsError: A log can't be read, or a line of it is no record of an evaluation.
    """
    looks = [look for path in log_files(table) for look in _lines(path)]
    chosen = [
        look
        for look in looks
        if look.get("fingerprint") == fingerprint and (split is None or look.get("split") == split)
    ]
    return sorted(chosen, key=lambda look: str(look.get("time", "")))


def log_files(table: str | os.PathLike) -> tuple[Path, Path]:
    """The log beside a table, and the one in the user's cache that stands in for it."""
    table = Path(table).absolute()
    return table.parent / FILE_NAME, cache_folder() / FILE_NAME


def current_commit() -> str | None:
    """Commit of the checkout that this package runs from, with `-dirty` after local changes; None outside of git."""
    folder = Path(__file__).parent
    try:
        # An installed package inside someone's own repository is not that repository's code.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _append(path: Path, line: str) -> None:
    """Adds a line whole or not at all, whoever else does so at the same time and however full the disk is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        check_regular_file(path, "log of evaluations", _MEND)
    with open(path, "a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        # A line that a full disk or an editor has left without its end would otherwise swallow this one.
        data = (b"" if file.read(1) in (b"", b"\n") else b"\n") + line.encode("utf-8")
        try:
            if file.write(data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            file.truncate(size)
            raise


def _try_appending(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        check_regular_file(path, "log of evaluations", _MEND)
        open(path, "ab").close()
    else:
        tempfile.TemporaryFile(dir=path.parent).close()


def _nowhere(beside: Path, cached: Path, error: OSError) -> FmriModelsError:
    return FmriModelsError(
        f"The log of evaluations can be written neither to {one_line(beside)} nor to {one_line(cached)} "
        f"({error.strerror}); make one of them writable."
    )


_MEND = "move it away, or repair it"


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records in a log; none where there is no log."""
    if not os.path.lexists(path):
        return []
    text = read_text(path, "log of evaluations", _MEND)
    return [_parsed(line, path, number) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    what = f"Line {number} of {one_line(path)}"
    mend = "repair or remove that line"
    look = parse_json(line, what, mend)
    if not isinstance(look, dict):
        raise FmriModelsError(f"{what} is no record of an evaluation; {mend}.")
    return checked(look, Look, what, mend).model_dump(exclude_unset=True)
