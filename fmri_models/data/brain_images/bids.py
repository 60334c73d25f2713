"""Names of files as BIDS has them, and which files of folders belong together."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import FmriModelsError
from ...names import listed, one_line
from ...plain_values import ShortRepr
from ...reading import check_regular_file, read_object

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9]+)")
# What tells the runs of a subject apart.
_OF_RUNS = ("sub", "ses", "task", "acq", "dir", "run")


@dataclass(frozen=True, repr=False)
class BidsFile(ShortRepr):
    """A file by the parts of its name.

    Args:
        path: The file.
        entities: Such as `sub`, `ses`, `task`, `run`, `space`.
        suffix: The last part, such as `bold`.
        ending: Such as `.nii.gz`.
    """

    path: Path
    suffix: str
    ending: str
    entities: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "BidsFile":
        stem, dot, ending = path.name.partition(".")
        *parts, suffix = stem.split("_")
        entities = {found[1]: found[2] for part in parts if (found := _ENTITY.fullmatch(part))}
        return cls(path, suffix, f"{dot}{ending}", entities)

    @property
    def run_key(self) -> tuple[str, ...]:
        """By which two files are of the same run; `run-01` is `run-1`, as some versions of fMRIPrep write it."""
        return tuple(_plain(name, self.entities.get(name, "")) for name in _OF_RUNS)

    @property
    def run_name(self) -> str:
        """The run without its subject, for messages."""
        named = [f"{name}-{self.entities[name]}" for name in _OF_RUNS[1:] if name in self.entities]
        return "_".join(named) or self.path.parent.name


def _plain(entity: str, value: str) -> str:
    return str(int(value)) if entity == "run" and value.isdecimal() else value


def files_of(root: Path, accepts: Callable[[BidsFile], bool]) -> list[BidsFile]:
    """Files below the folders of subjects, in the order of their names with numbers as numbers.

    Raises:
        FmriModelsError: What has such a name is no file, so that a run would be missing unnoticed.
    """
    folders = sorted(path for path in root.glob("sub-*") if path.is_dir())
    for folder in folders:
        # Such a link has all that is around it below it, up to the whole disk.
        if folder.is_symlink() and root.resolve().is_relative_to(folder.resolve()):
            raise FmriModelsError(
                f"{one_line(folder)} is a link to a folder that it lies in; let it lead to a subject's folder, or "
                "remove it."
            )
    found = [BidsFile.of(path) for folder in folders for path in folder.rglob("*") if not path.name.startswith(".")]
    wanted = [each for each in found if accepts(each)]
    for each in wanted:
        check_regular_file(each.path, "file", "replace it, or take it away")
    return sorted(wanted, key=lambda each: _natural(each.path))


def one_choice(files: Sequence[BidsFile], entity: str, chosen: str, option: str) -> list[BidsFile]:
    """The files of one space, task …: the chosen one, or the only one.

    Raises:
        FmriModelsError: There are several and none is chosen, or not the chosen one.
    """
    there = sorted({each.entities.get(entity, "") for each in files})
    if chosen:
        if chosen not in there:
            raise FmriModelsError(
                f"No file has {entity}-{one_line(chosen, 60)}; there are "
                f"{listed(filter(None, there), 20) or 'none with it'}."
            )
        return [each for each in files if each.entities.get(entity, "") == chosen]
    if len(there) > 1:
        raise FmriModelsError(
            f"The files are of several, {entity}-{f', {entity}-'.join(name or '(none)' for name in there)}; choose one "
            f"with --option {option}=NAME."
        )
    return list(files)


def events_of(file: BidsFile, roots: Iterable[Path]) -> Path:
    """The table of events of a run: beside it, or in one of some folders that have the raw data.

    Raises:
        FmriModelsError: There is none, or there are several.
    """
    subject, session = file.entities.get("sub", ""), file.entities.get("ses")
    below = Path(f"sub-{subject}", *([f"ses-{session}"] if session else []))
    places = list(roots)
    # At last the table of all subjects, which BIDS lets lie at the top.
    folders = [
        file.path.parent,
        *(root / below / "func" for root in places),
        *(root / below for root in places),
        *places,
    ]
    for folder in dict.fromkeys(folders):
        tables = [BidsFile.of(path) for path in sorted(folder.glob("*_events.[tc]sv"))]
        # A table without a run is that of all runs; with another one, that of another.
        fitting = [
            table
            for table in tables
            if all(
                _plain(name, table.entities.get(name, value)) == _plain(name, value)
                for name, value in file.entities.items()
                if name in _OF_RUNS
            )
            and all(name in file.entities for name in table.entities if name in _OF_RUNS)
        ]
        if fitting:
            most = max(len(table.entities) for table in fitting)
            best = [table for table in fitting if len(table.entities) == most]
            if len(best) > 1:
                raise FmriModelsError(
                    f"{one_line(file.path)} has several tables of events "
                    f"({listed(table.path.name for table in best)}); keep one."
                )
            return best[0].path
    raise FmriModelsError(
        f"There is no table of events for {one_line(file.path.name)}; expected …_events.tsv with the same sub-, ses-, "
        f"task- and run- beside it or in {listed(folders[1:], 3, 200) or 'no other folder'}: give the raw BIDS folder "
        "with --option events=DIR."
    )


def sidecar(path: Path) -> dict[str, Any]:
    """What the JSON file beside an image says; nothing where there is none."""
    file = path.with_name(path.name.partition(".")[0] + ".json")
    return read_object(file, "sidecar of an image", "export it again") if os.path.lexists(file) else {}


def ordered_numbers(names: Iterable[str]) -> dict[str, int]:
    """Name of a session or run ▶ its number: its own where all are numbers, else its place."""
    distinct = sorted(set(names), key=lambda name: (len(name), name))
    if all(name.isdigit() for name in distinct) and len({int(name) for name in distinct}) == len(distinct):
        return {name: int(name) for name in distinct}
    return {name: place for place, name in enumerate(sorted(distinct), 1)}


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix())]
