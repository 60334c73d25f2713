"""Values as JSON has them, and in a few words."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from reprlib import Repr
from typing import Any

from .names import one_line

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
