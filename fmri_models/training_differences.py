"""What differs between two trainings: keys of their recipes and of what they are described by."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Keys of a recipe that may differ between trainings that are the same, because no weight depends on them.
_FREE_KEYS = re.compile(r"trackers(\..*)?|max_shard_size|stages\.\d+\.training\.(checkpoint_every|log_every)")


# What recipes of earlier versions say nothing of, and what was so then.
_BEFORE = {"recipe.captions": "first", "recipe.posterior": "mode"}


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two descriptions of trainings: dotted key, value in the first, value in the second.

    Keys of a recipe that no weight depends on are left out.

    Args:
        before: Such as `{"recipe": …}`, of values that JSON holds.
        now: The other one.
    """
    then, today = (_flat(json.loads(json.dumps(dict(values)))) for values in (before, now))
    for values in (then, today):
        if any(key.startswith("recipe.") for key in values):
            values.update({key: value for key, value in _BEFORE.items() if key not in values})
    for key in {**then, **today}:
        if then.get(key) != today.get(key) and not _FREE_KEYS.fullmatch(key.removeprefix("recipe.")):
            yield key, then.get(key), today.get(key)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys, so that a difference can be named."""
    if isinstance(values, dict):
        items: Any = values.items()
    elif isinstance(values, list):
        items = enumerate(values)
    else:
        return {prefix.removesuffix("."): values}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(_flat(value, f"{prefix}{key}."))
    return flat
