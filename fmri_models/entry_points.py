"""What installed packages offer under a name, read from their metadata: none of them is imported to know its names."""

import importlib.util
import sys
from collections.abc import Collection
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import FmriModelsError
from .names import is_name, listed, one_line

OWN_PACKAGE = __name__.split(".")[0]
GROUPS = ("fmri_models.methods", "fmri_models.generators", "fmri_models.datasets")


def offered(group: str) -> dict[str, list[metadata.EntryPoint]]:
    """Name ▶ the entry points of that name, more than one where packages contradict each other."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    for entry in _entry_points(tuple(sys.path))[group]:
        found.setdefault(entry.name, []).append(entry)
    return dict(sorted(found.items()))


@cache
def _entry_points(path: tuple[str, ...]) -> dict[str, list[metadata.EntryPoint]]:
    # Every installed package's metadata are read for it, once as long as Python looks in the same places.
    found = metadata.entry_points()
    ordered = {group: sorted(found.select(group=group), key=package_of) for group in GROUPS}
    return {group: sorted(entries, key=lambda entry: entry.name) for group, entries in ordered.items()}


def package_of(entry: metadata.EntryPoint) -> str:
    """Name of the package that was installed with an entry point, as pip knows it."""
    return one_line(entry.dist.name if entry.dist is not None else entry.value, 80)


def top_module(entry: metadata.EntryPoint) -> str:
    """The package that is imported for an entry point, without what it is in it."""
    return entry.value.partition(":")[0].partition(".")[0].strip()


def problem_of_name(what: str, entries: list[metadata.EntryPoint], own: Collection[str]) -> str | None:
    """A sentence on why a name can't be used as packages offer it; None where it can.

    Args:
        what: What is offered, such as `"method"`.
        entries: The entry points of one name.
        own: Names that this package, or the running program, has itself.
    """
    name, packages = entries[0].name, [package_of(entry) for entry in entries]
    shown = one_line(repr(name), 80)
    if not is_name(name):
        return f"The package {packages[0]} offers a {what} named {shown}; expected only A-Z a-z 0-9 _ . - in its name."
    if name in own:
        return (
            f"The package {listed(packages)} offers a {what} named {shown}, which fmri_models has itself; that of "
            "fmri_models is used, the other one needs another name."
        )
    if len(entries) > 1:
        return (
            f"The packages {' and '.join(packages)} both offer a {what} named {shown}, so that neither is used; "
            "uninstall one of them, or give one another name."
        )
    return None


def load_entry_point(entry: metadata.EntryPoint, what: str, expected: type) -> Any:
    """Imports what an entry point names.

    Raises:
        FmriModelsError: It can't be imported, or is something else than `expected`, or has another name.
    """
    start = f"The {what} {one_line(repr(entry.name), 80)} of the package {package_of(entry)}"
    try:
        found = entry.load()
    # It is somebody's program, which may raise anything; the others are none the worse for it.
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise FmriModelsError(
            f"{start} can't be imported from {one_line(entry.value, 80)} ({reason}); update or uninstall that package."
        ) from error
    if not isinstance(found, expected) or getattr(found, "name", None) != entry.name:
        named = f" named {one_line(repr(getattr(found, 'name', None)), 80)}" if isinstance(found, expected) else ""
        raise FmriModelsError(
            f"{start} is a {type(found).__name__}{named} in {one_line(entry.value, 80)}; expected a "
            f"{expected.__name__} of the entry point's name."
        )
    return found


def is_being_imported(entry: metadata.EntryPoint) -> bool:
    """Whether somebody is in the midst of importing what the entry point names, so that it may not be there yet."""
    module = sys.modules.get(entry.value.partition(":")[0].strip())
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True


def data_folders(name: str) -> list[tuple[str, Path]]:
    """Folders that packages have beside the modules of their entry points.

    Args:
        name: Name of the folder, such as `"recipes"`.

    Returns:
        Package and folder; of each folder that is there once.
    """
    found = {}
    for group in GROUPS:
        for entry in _entry_points(tuple(sys.path))[group]:
            folder = _folder_of_module(entry.value.partition(":")[0].strip())
            if folder is not None and (folder / name).is_dir():
                found[folder / name] = package_of(entry)
    return [(package, folder) for folder, package in found.items()]


def _folder_of_module(module: str) -> Path | None:
    """Where a module is, which is not imported for it; packages around it are."""
    try:
        spec = importlib.util.find_spec(module)
    # Packages around it may raise anything.
    except Exception:
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent
