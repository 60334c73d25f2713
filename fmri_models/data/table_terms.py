"""The terms of a trial table: those of its responses, and those of its pictures, which may come from another table."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ..data_terms import DataTerms, Redistribution, terms_of
from ..errors import FmriModelsError
from ..names import one_line

# In `table.json`: of which tables the pictures were taken.
PICTURES_OF = "pictures_of"
# Likewise: whether the pictures were left out when the table was passed on.
LEFT_OUT = "pictures_left_out"
_ABOUT = ("name", "license", "source")
_STRICTEST_FIRST = ("forbidden", "unknown", "allowed")
_MOST_TABLES = 100


def origin_of(metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a table that takes its pictures from this one has to keep of it, and of those that this one took them from.

    Args:
        metadata: What `table.json` of this one holds.
    """
    own = {name: str(metadata.get(name, "")) for name in _ABOUT}
    if script := _script_of(metadata):
        own["script"] = script
    return [own, *_pictures_of(metadata)][:_MOST_TABLES]


def terms_of_table(metadata: Mapping[str, Any]) -> DataTerms | None:
    """The terms of a table's responses; of one that a script of a data set wrote also where it was renamed.

    Args:
        metadata: What `table.json` holds.

    Returns:
        Those that allow least; None where none are known.
    """
    return _terms_of(metadata, _script_of(metadata))


def terms_of_pictures(metadata: Mapping[str, Any]) -> DataTerms | None:
    """The terms that decide whether a table's pictures may be passed on: its own, or those of a table they came from.

    Args:
        metadata: What `table.json` holds.

    Returns:
        Those that allow least; None where none are known.
    """
    others = (_terms_of(each, each.get("script", "")) for each in _pictures_of(metadata))
    return min(
        (terms for terms in (terms_of_table(metadata), *others) if terms is not None),
        key=lambda terms: _STRICTEST_FIRST.index(pictures_may_be_passed_on(terms)),
        default=None,
    )


def pictures_may_be_passed_on(terms: DataTerms) -> Redistribution:
    """Whether pictures may be passed on; those of which nothing is said are a part of a data set that may not be."""
    if terms.redistribution == "forbidden" and terms.stimuli == "unknown":
        return "forbidden"
    return terms.stimuli


def check_may_be_passed_on(
    metadata: Mapping[str, Any],
    permission: str | None,
    private: bool = False,
    has_pictures: bool = True,
) -> None:
    """Refuses to pass a table on where the terms of its responses or pictures forbid it, or nobody knows them.

    What is forbidden is forbidden to whomever it would go: a private repository is a copy, too. What is not known may
    go to a private one.

    Args:
        metadata: What `table.json` holds.
        permission: Which written permission there is; None where there is none.
        private: Whether it goes to a private repository.
        has_pictures: Whether pictures go along.

    Raises:
        FmriModelsError: Names the data set, where its terms are, what may be pushed instead, and what to do.
    """
    if permission:
        return
    name = one_line(repr(metadata["name"]), 120)
    responses, pictures = terms_of_table(metadata), terms_of_pictures(metadata) if has_pictures else None
    of_responses = "allowed" if responses is None else responses.redistribution
    of_pictures = "allowed" if pictures is None else pictures_may_be_passed_on(pictures)
    if responses is not None and of_responses == "forbidden":
        raise FmriModelsError(
            f"The trial table {name} is of {responses.title}, whose terms{_at(responses)} forbid that it is passed on, "
            "also to a private repository or without its pictures: nothing of it may be pushed. Whoever has access to "
            f"the data makes the same table with `fmri-models prepare`; {_WHO_MAY}."
        )
    if pictures is not None and of_pictures == "forbidden":
        of = "is of" if pictures is responses else "has pictures of"
        raise FmriModelsError(
            f"The trial table {name} {of} {pictures.title}, whose terms{_at(pictures)} forbid that its pictures are "
            f"passed on, also to a private repository; push it without them (--without-pictures, pictures=False in "
            f"Python), which is for the rest {_for_the_rest(of_responses)}; {_WHO_MAY}."
        )
    if private:
        return
    if responses is not None and of_responses == "unknown":
        raise FmriModelsError(
            f"The trial table {name} is of {responses.title}, of which it is not known{_at(responses)} whether it may "
            f"be passed on; push it to a private repository (--private), or ask its authors: {_WHO_MAY}."
        )
    if pictures is not None and of_pictures == "unknown":
        of = "is of" if pictures is responses else "has pictures of"
        raise FmriModelsError(
            f"The trial table {name} {of} {pictures.title}, of whose pictures it is not known{_at(pictures)} whether "
            "they may be passed on; push it without them (--without-pictures, pictures=False in Python), or to a "
            f"private repository (--private); {_WHO_MAY}."
        )


_WHO_MAY = "whoever has a written permission names it (--permission, permission= in Python), and the card keeps it"


def _for_the_rest(of_responses: str) -> str:
    return "allowed" if of_responses == "allowed" else "not known to be allowed, and so for a private repository"


def _at(terms: DataTerms) -> str:
    return f" ({terms.url})" if terms.url else ""


def _terms_of(about: Mapping[str, Any], script: str) -> DataTerms | None:
    texts = [text if isinstance(text := about.get(name, ""), str) else "" for name in _ABOUT]
    found = [terms for terms in (terms_of(*texts), terms_of(script) if script else None) if terms is not None]
    return min(found, key=lambda terms: _STRICTEST_FIRST.index(terms.redistribution), default=None)


def _script_of(metadata: Mapping[str, Any]) -> str:
    """The name of the data set whose script wrote a table; empty where none did."""
    prepared = metadata.get("prepared")
    script = prepared.get("script") if isinstance(prepared, Mapping) else None
    return PurePosixPath(script).stem if isinstance(script, str) else ""


def _pictures_of(metadata: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Tables that pictures were taken from, as far as somebody's `table.json` says it as ours does."""
    found = metadata.get(PICTURES_OF)
    for each in found[:_MOST_TABLES] if isinstance(found, Sequence) and not isinstance(found, str) else ():
        if isinstance(each, Mapping):
            yield {name: value for name in (*_ABOUT, "script") if isinstance(value := each.get(name), str)}
