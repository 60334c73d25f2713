"""Links in docstrings: [`FmriProcessor`], [`FmriProcessor.fit`] and [`~FmriProcessor.fit`], as in transformers.

An extension of Griffe, which reads the sources for the documentation; `mkdocs.yml` names this file. A name is looked up
where the docstring stands: in its class, in its module with what that imports, then in the whole package. With `~` only
the last part is shown. A name that is on no page stays code; one that does not exist is a warning, and so an error of a
strict build.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any

import griffe

# Warnings of this logger are errors of a strict build.
_log = logging.getLogger("mkdocs.plugins.documentation_links")

_REFERENCE = re.compile(r"\[`(~?)([A-Za-z_][\w.]*)`\](?![\[(])")


class DocumentationLinks(griffe.Extension):
    """Turns the references of all docstrings of a package into links."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        objects = list(_objects(pkg))
        names = _unambiguous(objects)
        for item in objects:
            if item.docstring is not None:
                item.docstring.value = _linked(item, names)


def _linked(item: griffe.Object, names: dict[str, griffe.Object]) -> str:
    assert item.docstring is not None

    def link(match: re.Match[str]) -> str:
        shown = match[2].rpartition(".")[2] if match[1] else match[2]
        found = _find(item, match[2], names)
        if found is None:
            _log.warning(f"{item.path}: there is nothing called {match[2]}.")
            return f"`{shown}`"
        return f'<autoref identifier="{found.path}" optional><code>{shown}</code></autoref>'

    return _REFERENCE.sub(link, item.docstring.value)


def _find(item: griffe.Object, name: str, names: dict[str, griffe.Object]) -> griffe.Object | None:
    first, *rest = name.split(".")
    scope: griffe.Object | None = item
    found = None
    while scope is not None and found is None:
        found = _target(scope, first)
        scope = scope.parent
    found = found or names.get(first)
    for part in rest:
        found = found and _inherited(found, part)
    return found


def _target(scope: griffe.Object, name: str) -> griffe.Object | None:
    """A member, followed to where it is defined; None where that is another package."""
    member = scope.members.get(name)
    while isinstance(member, griffe.Alias):
        try:
            member = scope.package.modules_collection[member.target_path]
        except (KeyError, griffe.AliasResolutionError):
            return None
    return member


def _inherited(item: griffe.Object, name: str) -> griffe.Object | None:
    """A member of a class or of those classes of the package that it derives from; a member of a module."""
    found = _target(item, name)
    if found is None and isinstance(item, griffe.Class):
        for base in item.bases:
            parent = _target_of_path(item, getattr(base, "canonical_path", str(base)))
            found = found or (_inherited(parent, name) if parent is not None else None)
    return found


def _target_of_path(item: griffe.Object, path: str) -> griffe.Object | None:
    try:
        found = item.package.modules_collection[path]
    except KeyError:
        return None
    return found.final_target if isinstance(found, griffe.Alias) else found


def _objects(scope: griffe.Object) -> Iterator[griffe.Object]:
    """Everything that is defined in a module, class or package, itself included."""
    yield scope
    for member in scope.members.values():
        if not isinstance(member, griffe.Alias):
            yield from _objects(member)


def _unambiguous(objects: list[griffe.Object]) -> dict[str, griffe.Object]:
    """Classes, functions and modules by their bare names, as far as one alone has that name."""
    names: dict[str, list[griffe.Object]] = {}
    for item in objects:
        if item.parent is not None and (item.is_module or item.parent.is_module):
            names.setdefault(item.name, []).append(item)
    return {name: found[0] for name, found in names.items() if len(found) == 1}
