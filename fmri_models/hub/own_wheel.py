"""This package as a wheel, for places that can't install it by name."""

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from functools import cached_property
from pathlib import Path

from ..data.folder_or_zip import open_zip, read_member
from ..entry_points import OWN_PACKAGE
from ..errors import FmriModelsError
from ..names import listed, one_line
from ..project import clone_folder

_NAME = re.compile(rf"{OWN_PACKAGE}-[\w.+!]+-py3-none-any\.whl")
# How metadata say that something is needed for an extra alone.
_OF_EXTRA = re.compile(r"(?:;|\band)\s*extra == ['\"]([\w-]+)['\"]$")
_HOW_TO_MAKE = f"`pip wheel --no-deps .` in a clone of {OWN_PACKAGE} makes one"
_SHIPPED = f"{OWN_PACKAGE}/_shipped"
_LARGEST_MEMBER = 2**24


@dataclass(frozen=True)
class OwnWheel:
    """A wheel of this package.

    Args:
        path: The file.

    Raises:
        FmriModelsError: It is no wheel of this package.
    """

    path: Path

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.path.name):
            raise FmriModelsError(
                f"{one_line(self.path)} has not the name of a wheel of {OWN_PACKAGE}, which is "
                f"{OWN_PACKAGE}-VERSION-py3-none-any.whl; {_HOW_TO_MAKE}."
            )
        if not self.path.is_file():
            raise FmriModelsError(f"There is no wheel {one_line(self.path)}; {_HOW_TO_MAKE}.")
        if not any(name.startswith(f"{OWN_PACKAGE}/") for name in self._names):
            raise FmriModelsError(
                f"The wheel {one_line(self.path)} has no package {OWN_PACKAGE} in it; {_HOW_TO_MAKE}."
            )

    def shipped(self, folder: str) -> dict[str, bytes]:
        """Name ▶ content of what a folder of the clone has that the wheel carries.

        Args:
            folder: `"space"`, `"model_cards"` or `"dataset_scripts"`.
        """
        beginning = f"{_SHIPPED}/{folder}/"
        names = [name for name in self._names if name.startswith(beginning) and not name.endswith("/")]
        return {name.removeprefix(beginning): self._read(name) for name in names}

    def requirements(self, extra: str) -> list[str]:
        """What the package needs with an extra, a line of requirements.txt each."""
        needed = []
        for line in self._metadata.get_all("Requires-Dist") or []:
            of_extra = _OF_EXTRA.search(line)
            if of_extra is None or of_extra[1] == extra:
                needed.append(line if of_extra is None else line[: of_extra.start()].strip())
        return needed

    @cached_property
    def _names(self) -> list[str]:
        with open_zip(self.path, f"no wheel, which is a zip file; {_HOW_TO_MAKE}") as archive:
            return archive.namelist()

    @cached_property
    def _metadata(self) -> Message:
        found = [name for name in self._names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        if len(found) != 1:
            raise FmriModelsError(f"The wheel {one_line(self.path)} has no metadata; {_HOW_TO_MAKE}.")
        return BytesParser().parsebytes(self._read(found[0]))

    def _read(self, name: str) -> bytes:
        with open_zip(self.path, f"no wheel, which is a zip file; {_HOW_TO_MAKE}") as archive:
            return read_member(archive, name, f"{one_line(self.path)}: {one_line(name)}", _LARGEST_MEMBER)


@contextmanager
def own_wheel(given: Path | None = None) -> Iterator[OwnWheel]:
    """A wheel that was given, or one that is built of the clone that this package runs from, for the block alone.

    Raises:
        FmriModelsError: There is no such wheel; without one, this is no clone, or nothing is installed that builds it.
    """
    if given is not None:
        yield OwnWheel(given)
        return
    clone = clone_folder()
    if clone is None:
        raise FmriModelsError(
            f"{OWN_PACKAGE} is installed without its clone, and no published package could be named in its place; "
            f"give its wheel with --wheel FILE ({_HOW_TO_MAKE})."
        )
    with tempfile.TemporaryDirectory() as folder:
        yield OwnWheel(_built(clone, Path(folder)))


def _built(clone: Path, folder: Path) -> Path:
    if importlib.util.find_spec("hatchling") is not None:
        # It asks no network for what builds.
        command = ["-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    elif importlib.util.find_spec("pip") is not None:
        command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "."]
    else:
        raise FmriModelsError(
            f"The wheel of {OWN_PACKAGE} can't be built here, as neither hatchling nor pip is installed; install "
            "one, or give a wheel with --wheel FILE."
        )
    done = subprocess.run([sys.executable, *command], cwd=clone, capture_output=True, text=True)
    built = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(built) != 1:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise FmriModelsError(
            f"The wheel of {one_line(clone)} was not built ({one_line(said[-1] if said else listed(built), 200)}); "
            "build it with `pip wheel --no-deps .` there, and give it with --wheel FILE."
        )
    return built[0]
