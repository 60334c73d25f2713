"""A table of a report page."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup


class Table(NamedTuple):
    """A table of a page.

    Args:
        title: Above it.
        caption: What its values are, in sentences.
        header: Names of the columns.
        lines: Cells.
        figure: SVG that a page of HTML shows with it.
        is_folded: Whether such a page shows it only when somebody opens it.
        section: Heading of those that belong together; empty for one that stands alone.
        answers: What its values mean, a sentence each, which stand before them and not among the notes.
    """

    title: str
    caption: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    figure: Markup | None = None
    is_folded: bool = False
    section: str = ""
    answers: Sequence[str] = ()
