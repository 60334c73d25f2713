"""The log of looks: every evaluation on a test split, because the best of many looks is not an honest figure."""

import fcntl
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data.cache import cache_folder
from ..data.splits import named_folds
from ..errors import FmriModelsError
from ..hub_repository import is_in_hub_cache
from ..names import one_line
from ..plain_values import plain
from ..reading import check_regular_file, checked, parse_json, read_text
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
    """Appends one evaluation to the log of a data table.

    Args:
        table: Folder of the trial table. The log is `evaluations.jsonl` in the folder that holds it, so that making
            the table again does not erase it; in the user's cache if that folder cannot be written, or is the Hub's.
        fingerprint: Of the table's contents.
        split: Which split was looked at, as [`name_of_look`] says it, such as `default/test` or `kfold/fold 3`.
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
    return _first_writable(log_files(table), lambda path: _append(path, line))


def check_log(table: str | os.PathLike) -> None:
    """Refuses a log that can't be read or written, so that a long evaluation does not end in that refusal.

    Args:
        table: Folder of the trial table.

    Raises:
        FmriModelsError: A line of the log is damaged, or no place of it can be written.
    """
    places = log_files(table)
    for path in places:
        _lines(path)
    _first_writable(places, _try_appending)


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


def name_of_look(split: str, folds: Collection[int], num_folds: int) -> str:
    """What a look at the test trials of some folds of a split is called in the log.

    Args:
        split: Name of the split.
        folds: Which folds were evaluated.
        num_folds: How many it has.
    """
    if num_folds == 1:
        return f"{split}/test"
    return f"{split}/all folds" if len(set(folds)) == num_folds else f"{split}/{named_folds(sorted(set(folds)))}"


def looks_at_folds(
    table: str | os.PathLike, fingerprint: str, split: str, tested: Mapping[int, str]
) -> list[tuple[dict[str, Any], set[int]]]:
    """The recorded evaluations that looked at some of these test trials, oldest first, and at which folds of them.

    A look that says which test trials it saw is one at the same trials, whatever their split is called; one of an
    earlier version is taken by the name of its split.

    Args:
        table: Folder of the trial table.
        fingerprint: Of the table's contents.
        split: Name of the split.
        tested: Fold ▶ fingerprint of its test trials.

    Raises:
        FmriModelsError: A log can't be read, or a line of it is no record of an evaluation.
    """
    looks = [(look, _folds_of(look, split, tested)) for look in read_looks(table, fingerprint)]
    return [(look, folds) for look, folds in looks if folds]


def _folds_of(look: Mapping[str, Any], split: str, tested: Mapping[int, str]) -> set[int]:
    """Which of some folds a look saw."""
    seen = look.get("test_trials")
    if seen:
        return {fold for fold, fingerprint in tested.items() if fingerprint in seen.values()}
    name, _, part = str(look.get("split", "")).rpartition("/")
    if name != split:
        return set()
    if found := re.fullmatch(r"(?:folds? )?(\d{1,6}(?:, \d{1,6})*)", part, re.ASCII):
        return {int(number) for number in found[1].split(", ")} & tested.keys()
    if part == "test":
        # Earlier versions called a look at any single fold so; which one is in the recipe.
        recipe = look.get("config", {}).get("recipe")
        fold = recipe.get("fold") if isinstance(recipe, dict) else None
        return {fold} & tested.keys() if type(fold) is int else set(tested)
    return set(tested) if part == "all folds" else set()


def looks_sentence(looks: Sequence[tuple[Mapping[str, Any], set[int]]], folds: Collection[int], num_folds: int) -> str:
    """How often test trials were looked at before.

    Args:
        looks: What [`looks_at_folds`] returns.
        folds: Which folds are looked at now.
        num_folds: How many the split has.
    """
    counts = {fold: sum(fold in seen for _, seen in looks) for fold in sorted(folds)}
    few = "This test split was"
    if len(counts) < num_folds:
        few = f"The test trials of {named_folds(list(counts))} of this split were"
    if not any(counts.values()):
        return f"{few} looked at for the first time, as far as is on record."
    folds_of: dict[int, list[int]] = {}
    for fold, count in counts.items():
        folds_of.setdefault(count, []).append(fold)
    if len(folds_of) == 1:
        return f"{few} looked at {_how_often(next(iter(folds_of)))}; all looks on record are in the report."
    each = ", ".join(f"{named_folds(same)} {_how_often(count)}" for count, same in sorted(folds_of.items()))
    return f"Test trials of this split were looked at, those of {each}; all looks on record are in the report."


def _how_often(before: int) -> str:
    return ("for the first time", "for the second time")[before] if before < 2 else f"after {before} earlier looks"


def log_files(table: str | os.PathLike) -> list[Path]:
    """The log beside a table, and the one in the user's cache that stands in for it; that alone for one of the Hub."""
    cached = cache_folder() / FILE_NAME
    if is_in_hub_cache(table):
        # The Hub's cache calls itself corrupted by other files, and is cleaned at any time.
        return [cached]
    return [Path(table).absolute().parent / FILE_NAME, cached]


def _first_writable(places: Sequence[Path], write: Callable[[Path], None]) -> Path:
    """Writes into the first of some files that takes it, and says which that is."""
    for place in places:
        try:
            write(place)
            return place
        except OSError as error:
            last = error
    refused = f"can't be written to {one_line(places[0])}"
    if len(places) > 1:
        refused = f"can be written neither to {' nor to '.join(map(one_line, places))}"
    mend = "make one of them writable" if len(places) > 1 else "make it writable"
    raise FmriModelsError(f"The log of evaluations {refused} ({last.strerror}); {mend}.") from last


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
