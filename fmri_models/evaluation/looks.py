"""The log of looks: every evaluation on a test split, because the best of many looks is not an honest figure."""

import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data.matrix import cache_folder
from ..errors import FmriModelsError

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
    line = json.dumps(look, sort_keys=True, default=str) + "\n"
    beside, cached = log_files(table)
    try:
        _append(beside, line)
        return beside
    except OSError:
        pass
    try:
        _append(cached, line)
    except OSError as error:
        raise FmriModelsError(
            f"The log of evaluations can be written neither to {beside} nor to {cached} ({error.strerror}); make one "
            "of them writable."
        ) from error
    return cached


def read_looks(table: str | os.PathLike, fingerprint: str, split: str | None = None) -> list[dict[str, Any]]:
    """All recorded evaluations of a table's test split, oldest first.

    Args:
        table: Folder of the trial table.
        fingerprint: Of the table's contents; looks at other contents are left out.
        split: Only looks at this split; all if None.

    Raises:
        FmriModelsError: A line of the log is not JSON.
    """
    looks: dict[str, dict[str, Any]] = {}
    for path in log_files(table):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for number, line in enumerate(lines, start=1):
            if line.strip():
                looks[f"{path}:{number}"] = _parsed(line, path, number)
    chosen = [
        look
        for look in looks.values()
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
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write in append mode keeps lines of evaluations that run at the same time whole.
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode("utf-8"))


def _parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        look = json.loads(line)
    except ValueError as error:
        raise FmriModelsError(f"Line {number} of {path} is not JSON; repair or remove that line.") from error
    if not isinstance(look, dict):
        raise FmriModelsError(f"Line {number} of {path} is no record of an evaluation; repair or remove that line.")
    return look
