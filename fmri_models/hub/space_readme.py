"""README.md of a Space: its page on the Hub, whose header says what runs there."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ..errors import FmriModelsError
from ..reading import parse_yaml

_HEADER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
# What the page does not start without.
_STARTS_WITH = ("sdk", "sdk_version", "python_version", "app_file")
# All that a page says that the Hub writes itself when it makes a Space.
_OF_THE_HUB = re.compile(r"Check out the configuration reference at https?://\S+")


def space_readme(shipped: str, there: str | None, models: list[str], datasets: list[str]) -> str:
    """The page of a Space: the shipped one, or what somebody has written there, with a header by which it starts.

    Args:
        shipped: README.md as it comes with the package.
        there: That of the Space; None without one.
        models: Repositories of the pipelines that are shown, which the Hub links; none leaves what stands there.
        datasets: Repositories of the trial tables, likewise.
    """
    linked = {name: each for name, each in (("models", models), ("datasets", datasets)) if each}
    if there is None or _is_of_the_hub(there):
        return _with_fields(shipped, linked)
    needed = _header(shipped)
    return _with_fields(there, {name: needed[name] for name in _STARTS_WITH if name in needed} | linked)


def _is_of_the_hub(text: str) -> bool:
    body = _HEADER.sub("", text).strip()
    return body == "" or _OF_THE_HUB.fullmatch(body) is not None


def _header(text: str) -> dict[str, Any]:
    """The header's fields; none where there is no header that can be read."""
    found = _HEADER.match(text)
    try:
        values = parse_yaml(found[1], "The header of README.md") if found else None
    except FmriModelsError:
        values = None
    return values if isinstance(values, dict) else {}


def _with_fields(text: str, fields: Mapping[str, Any]) -> str:
    """A page whose header has some fields; the others, and the page itself, are as they were."""
    header = _header(text)
    if all(header.get(name) == value for name, value in fields.items()):
        return text
    written = yaml.safe_dump({**header, **fields}, allow_unicode=True, sort_keys=False, width=1000)
    return f"---\n{written}---\n{_HEADER.sub('', text)}"
