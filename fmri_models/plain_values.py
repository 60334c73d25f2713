"""Values as JSON has them: made so, or refused where they are not; and in a few words."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from reprlib import Repr
from typing import Any

from .errors import FmriModelsError
from .names import one_line
from .reading import MAX_NESTING

_LARGEST_NUMBER = 2**63 - 1

_SHORTENED = Repr()
_SHORTENED.maxstring, _SHORTENED.maxother, _SHORTENED.maxlevel = 80, 80, 2
_SHORTENED.maxlist = _SHORTENED.maxtuple = _SHORTENED.maxdict = 4


class ShortRepr:
    """Base of dataclasses (with `repr=False`) that hold many values: its repr has the first ones of each."""

    def __repr__(self) -> str:
        shown = (f"{each.name}={_SHORTENED.repr(getattr(self, each.name))}" for each in fields(self) if each.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def plain(value: Any) -> Any:
    """Plain JSON values: NaN and infinity become None, texts one line each, arrays lists, other objects their text."""
    if isinstance(value, Mapping):
        return {one_line(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not isinstance(value, (str, Path)) and hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float)) else one_line(value, most=10_000)


def check_plain(values: Any, what: str, mend: str) -> None:
    """Refuses what could not be written down again: all but plain values.

    Args:
        values: Mappings and lists of text, numbers, true, false and null.
        what: What messages call all of them, such as `"The recipe"`.
        mend: What to do about it, as the end of a sentence.

    Raises:
        FmriModelsError: Names the dotted key of a date, a set, a key that is no text, NaN, an infinite number, or a
            whole number beyond 64 bits.
    """
    for place, value, depth in _nested(values):
        name = one_line(place or what, 200)
        if depth > MAX_NESTING:
            raise FmriModelsError(f"{name} is nested deeper than {MAX_NESTING} levels; {mend}.")
        if isinstance(value, dict):
            if odd := next((key for key in value if not isinstance(key, str)), None):
                raise FmriModelsError(f"{name} has the key {one_line(repr(odd), 80)}; expected a text; {mend}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise FmriModelsError(f"{name} is {value}; expected a finite number; {mend}.")
        elif isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise FmriModelsError(f"{name} is a number beyond {_LARGEST_NUMBER}; {mend}.")
        elif not isinstance(value, str | int | float | list | tuple | None):
            found = f"{one_line(repr(value), 80)} ({type(value).__name__})"
            raise FmriModelsError(
                f"{name} is {found}; expected text, numbers, true, false, null, lists and mappings; {mend}."
            )


def _nested(values: Any) -> Iterator[tuple[str, Any, int]]:
    """(dotted key, value, depth) of a value and all that it holds, without recursion."""
    rest: list[tuple[str, Any, int]] = [("", values, 0)]
    while rest:
        place, value, depth = rest.pop()
        yield place, value, depth
        items: Any = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        rest += [(f"{place}.{key}" if place else str(key), each, depth + 1) for key, each in items]
