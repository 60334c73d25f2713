"""Public names that moved: the old place still has them, and says with a warning where they are now."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module


def moved_names(old: str, new: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], object]:
    """A module's `__getattr__` for names that are in another module now.

    Args:
        old: The module that had them: its `__name__`.
        new: The module that has them.
        renamed: Old name ▶ new name; no others moved. None: any name may have, and all are called what they were.
    """

    def find(name: str) -> object:
        is_private = name.startswith("_")
        if is_private or (renamed is not None and name not in renamed):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        now = name if renamed is None else renamed[name]
        value = getattr(import_module(new), now)
        warnings.warn(f"{old}.{name} is {new}.{now} now; please import it from there.", FutureWarning, stacklevel=2)
        return value

    return find
