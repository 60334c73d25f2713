"""What installed packages offer under a name, read from their metadata: none of them is imported to know its names."""

import importlib.util
import sys
import warnings
from collections.abc import Collection, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import FmriModelsError
from .names import is_name, listed, one_line

OWN_PACKAGE = __name__.split(".")[0]
GROUPS = ("fmri_models.methods", "fmri_models.generators", "fmri_models.pretrained", "fmri_models.datasets")


def offered(group: str) -> dict[str, list[metadata.EntryPoint]]:
    """Name ▶ the entry points of that name, more than one where packages contradict each other."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    for entry in _entry_points(tuple(sys.path))[group]:
        found.setdefault(entry.name, []).append(entry)
    return dict(sorted(found.items()))


@cache
def _entry_points(path: tuple[str, ...]) -> dict[str, list[metadata.EntryPoint]]:
    # Every installed package's metadata are read for it, once as long as Python looks in the same places.
    try:
        every = metadata.entry_points()
        found = [entry for group in GROUPS for entry in every.select(group=group)]
    # Of metadata that somebody has written by hand; Python does not say whose.
    except Exception:
        found = [entry for entry in _readable_entry_points() if entry.group in GROUPS]
    ordered = sorted(found, key=lambda entry: (entry.name, package_of(entry)))
    return {group: [entry for entry in ordered if entry.group == group] for group in GROUPS}


def _readable_entry_points() -> Iterator[metadata.EntryPoint]:
    """As Python finds them, the first of packages of one name, but for those that can't be read."""
    seen = set()
    for package in metadata.distributions():
        name = "?"
        try:
            name = str(package.name)
            if name not in seen:
                yield from package.entry_points
            seen.add(name)
        except Exception as error:
            warnings.warn(
                f"What the package {one_line(name, 80)} offers can't be read ({one_line(error, 120)}) and is left out; "
                "update or uninstall that package.",
                stacklevel=2,
            )


def package_of(entry: metadata.EntryPoint) -> str:
    """Name of the package that was installed with an entry point, as pip knows it."""
    # Metadata may be missing, or name nothing.
    return one_line((entry.dist is not None and entry.dist.name) or entry.value, 80)


def version_of(entry: metadata.EntryPoint) -> str:
    """Version of the package that was installed with an entry point; empty where nothing states it."""
    return one_line((entry.dist is not None and entry.dist.version) or "", 40)


def summary_of(entry: metadata.EntryPoint) -> str:
    """What the package that was installed with an entry point says of itself in a line; empty if nothing."""
    if entry.dist is None or "Summary" not in entry.dist.metadata:
        return ""
    return one_line(entry.dist.metadata["Summary"], 200)


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
    # It is somebody's program, which may raise anything, or exit; the others are none the worse for it.
    except (Exception, SystemExit) as error:
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
            folder = folder_of_module(entry.value.partition(":")[0].strip())
            if folder is not None and (folder / name).is_dir():
                found[folder / name] = package_of(entry)
    return [(package, folder) for folder, package in found.items()]


def folder_of_module(module: str) -> Path | None:
    """Where a module is, for which neither it nor a package around it is imported; None where there is none."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        folders = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    # A name may be none, and installers bring finders of their own, which may raise anything.
    except Exception:
        return None
    if not folders:
        return None if spec is None or spec.origin is None else Path(spec.origin).parent
    for folder in (each.joinpath(*inner) for each in folders):
        if folder.is_dir():
            return folder
        if inner and folder.with_name(f"{folder.name}.py").is_file():
            return folder.parent
    return None
