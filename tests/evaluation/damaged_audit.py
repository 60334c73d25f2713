"""What a stranger's report may have in the place of a part's content: any entry removed, or null."""

import copy

from matplotlib.figure import Figure

from fmri_models.evaluation.audit import PARTS, audit_notes, checked_audit


def check_damaged(name, content):
    """Each is refused with a ValueError, or shown like any other; gives how many were shown, and how many refused."""
    shown = refused = 0
    axes = Figure().add_subplot()
    for path in list(_paths(content)):
        for damage in (_remove, _empty):
            damaged = copy.deepcopy(content)
            damage(damaged, path)
            try:
                found = checked_audit({name: damaged})
            except ValueError:
                refused += 1
                continue
            PARTS[name].tables(damaged)
            audit_notes(found)
            PARTS[name].plot(damaged, axes)
            axes.clear()
            shown += 1
    return shown, refused


def _paths(value, path=(), depth=4):
    if depth and isinstance(value, dict):
        # A metric is like another one.
        for key in list(value)[:1] if path and len(value) > 5 else value:
            yield (*path, key)
            yield from _paths(value[key], (*path, key), depth - 1)


def _parent(content, path):
    for key in path[:-1]:
        content = content[key]
    return content


def _remove(content, path):
    del _parent(content, path)[path[-1]]


def _empty(content, path):
    _parent(content, path)[path[-1]] = None
