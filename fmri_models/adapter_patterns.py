"""Patterns in the configuration of an adapter, some of which Python could try out for years on names of layers."""

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from .errors import FmriModelsError
from .names import one_line

# What PEFT reads as patterns of layers' names, or of the beginnings of theirs, is called so.
_HAVE_PATTERNS = ("_modules", "_parameters", "_pattern", "_to_save")
_ATOM = r"(?:\\[.dw-]|\[\^?(?:[\w.-]|\\[.dw-])+\]|[\w.%-])"
_ATOMS = re.compile(rf"(?P<atom>{_ATOM})(?P<many>[*+?]\??)?")
_TOKEN = re.compile(rf"\((?:\?:)?(?P<choice>(?:{_ATOM}(?:[*+?]\??)?|\|)*)\)(?P<optional>\?)?|{_ATOMS.pattern}|[|^$]")
_MAX_PATTERNS, _MAX_PATTERN_LENGTH, _MAX_CHOICES = 10_000, 20_000, 16
# On a name of n letters, k of them are tried in n^k / k! ways.
_MAX_QUANTIFIERS, _MAX_QUANTIFIERS_BEHIND, _MAX_QUANTIFIERS_IN_ALL = 4, 2, 16


def check_patterns(config: Mapping[str, Any], what: str) -> None:
    """Refuses the patterns of an adapter's configuration that Python could try out for years on names of layers.

    Accepted are names and regular expressions of letters, digits, `%`, `.`, `\\.`, `\\d`, `\\w` and sets of characters,
    the quantifiers `*`, `+` and `?` behind single ones of these, and groups of alternatives, which may be optional.

    Raises:
        FmriModelsError: Names the pattern and what may be written instead.
    """
    total = 0
    for key, value in config.items():
        if not key.endswith(_HAVE_PATTERNS) or value is None:
            continue
        entries = (
            [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence | Set | Mapping) else []
        )
        if len(entries) > _MAX_PATTERNS:
            raise FmriModelsError(f"{what} has {len(entries)} entries as {key}; expected {_MAX_PATTERNS} at most.")
        for entry in entries:
            # Those of a list are looked for behind any prefix, which is a search of its own.
            wide = _wide_quantifiers(entry, _MAX_QUANTIFIERS if isinstance(value, str) else _MAX_QUANTIFIERS_BEHIND)
            total += wide or 0
            if wide is None or total > _MAX_QUANTIFIERS_IN_ALL:
                raise FmriModelsError(
                    f"{what} has {one_line(repr(entry), 80)} as {key}, a pattern that may take very long on names of "
                    "layers; expected a list of names, or a regular expression of letters, digits, '.', '\\.', '\\d', "
                    f"alternatives (a|b) and {_MAX_QUANTIFIERS} of '*', '+' and '?' at most, of which '?' "
                    "alone may stand behind a group."
                )


def _wide_quantifiers(pattern: Any, most: int) -> int | None:
    """How many quantifiers of a pattern reach over more than digits; None if it may not be searched for."""
    if not isinstance(pattern, str) or len(pattern) > _MAX_PATTERN_LENGTH:
        return None
    place, quantifiers, narrow, choices = 0, 0, 0, 1
    while place < len(pattern):
        token = _TOKEN.match(pattern, place)
        if token is None:
            return None
        quantifiers += bool(token["optional"])
        for atom in _ATOMS.finditer(token["choice"] or token[0]):
            quantifiers += bool(atom["many"])
            narrow += bool(atom["many"]) and atom["atom"] in (r"\d", "[0-9]")
        names = (token["choice"] or "").split("|")
        choices *= len(names) if _overlap(names) else 1
        place = token.end()
    return None if quantifiers > most or choices > _MAX_CHOICES else quantifiers - narrow


def _overlap(alternatives: Sequence[str]) -> bool:
    """Whether two alternatives may match at the same place, as far as that is plain to see."""
    split = [re.findall(r"\\?.", alternative) for alternative in alternatives]
    if len(split) > 1 and any(not re.fullmatch(r"(?:[\w.-]|\\[.-])+", each) for each in alternatives):
        return True
    return any(
        all(a == b or "." in (a, b) for a, b in zip(one, other, strict=False))
        for position, one in enumerate(split)
        for other in split[:position]
    )
