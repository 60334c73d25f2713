"""Where a score comes from: the questions of a reviewer, asked of one evaluation.

A part is one entry of [`PARTS`]. Evaluation, report.json, its pages and the command line take all of it from there.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ...errors import FmriModelsError
from ...names import check_line, did_you_mean, one_line
from ..plots import plotted
from ..table import Table
from .bottleneck import BOTTLENECK
from .clusters import CLUSTERS
from .library import LIBRARY
from .overlap import OVERLAP
from .part import AuditedItems, AuditPart
from .regions import REGIONS
from .repetitions import REPETITIONS
from .span import SPAN

__all__ = [
    "AUDIT_SECTION",
    "PARTS",
    "AuditPart",
    "AuditedItems",
    "audit_answers",
    "audit_content",
    "audit_limits",
    "audit_notes",
    "audit_parts",
    "audit_tables",
]

_IN_ORDER: tuple[AuditPart, ...] = (OVERLAP, CLUSTERS, SPAN, LIBRARY, REPETITIONS, BOTTLENECK, REGIONS)
PARTS = {part.name: part for part in _IN_ORDER}
"""By name, in the order of reports."""
AUDIT_SECTION = "Where the score comes from"
"""Heading of an audit's tables."""


def audit_parts(names: Sequence[str]) -> list[AuditPart]:
    """The parts of an audit that somebody asked for.

    Args:
        names: Of [`PARTS`]; `"all"` for all of them.

    Raises:
        FmriModelsError: There is no such part.
    """
    for name in names:
        if name not in (*PARTS, "all"):
            raise FmriModelsError(
                f"There is no part {one_line(repr(name), 80)} of an audit; known: all, {', '.join(PARTS)}."
                f"{did_you_mean(str(name), list(PARTS))}"
            )
    return [part for part in PARTS.values() if part.name in names or "all" in names]


def audit_content(parts: Sequence[AuditPart], measured: Mapping[str, Sequence[Any]], **found: Any) -> dict[str, Any]:
    """What goes into report.json of each part.

    Args:
        parts: Those that were asked for.
        measured: Name of a part ▶ what it has measured of each subject and fold.
        **found: The other fields of [`AuditedItems`].
    """
    return {part.name: part.content(AuditedItems(measured[part.name], **found)) for part in parts}


def checked_audit(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The audit of a report that was read: what its parts do not allow is refused, parts of others are let through.

    Raises:
        ValueError: A part's content has something else than its schema says.
    """
    for name, content in _known(audit):
        if "not_defined" in content:
            _check_reason(name, content["not_defined"])
        else:
            try:
                # Strictly: what is shown is what stands there, and no text that would pass for a number.
                PARTS[name].schema.model_validate(content, strict=True)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, first["loc"]))
                raise ValueError(f"what an audit says of {name} ({place}: {first['msg']})") from error
    return dict(audit)


def _check_reason(name: str, reason: Any) -> None:
    try:
        check_line(reason, "reason", most=10_000)
    except FmriModelsError as error:
        raise ValueError(f"what an audit says of {name} (not_defined: one line of text)") from error


def audit_notes(audit: Mapping[str, Any]) -> list[str]:
    """What a reviewer would conclude, a sentence each."""
    return [note for name, content in _known(audit) for note in _notes(name, content)]


def audit_answers(audit: Mapping[str, Any]) -> list[str]:
    """Those of the notes that stand with the tables of their part."""
    known = ((PARTS[name], content) for name, content in _known(audit) if "not_defined" not in content)
    return [note for part, content in known if part.tables(content) for note in part.notes(content)]


def audit_limits(audit: Mapping[str, Any]) -> list[str]:
    """What the parts that were measured take from a verdict on the report, half a sentence each."""
    measured = ((PARTS[name].limit, content) for name, content in _known(audit) if "not_defined" not in content)
    return [found for limit, content in measured if limit is not None and (found := limit(content))]


def audit_tables(audit: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of an audit, which stand together; the first one of a part has its plot and says what it means."""
    for name, content in _known(audit):
        if "not_defined" in content:
            continue
        part = PARTS[name]
        for number, table in enumerate(part.tables(content)):
            draw = part.plot if number == 0 else None
            figure = None if draw is None else plotted(draw, content, label=f"{table.title}. {table.caption}")
            yield table._replace(
                figure=figure or table.figure,
                section=table.section or AUDIT_SECTION,
                answers=part.notes(content) if number == 0 else (),
            )


def _known(audit: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, audit[name]) for name in PARTS if name in audit]


def _notes(name: str, content: Mapping[str, Any]) -> list[str]:
    if "not_defined" in content:
        return [f"{PARTS[name].label}: {content['not_defined']}"]
    return PARTS[name].notes(content)
