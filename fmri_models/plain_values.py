"""Values as JSON has them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .names import one_line


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
