"""What every part of an audit is: one question of a reviewer, measured, written down, tabulated and plotted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..protocols import Protocol
from ..scores import Scores
from ..table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..drawn_items import DrawnItems
    from ..evaluated_subject import EvaluatedSubject

Content = Mapping[str, Any]


@dataclass(frozen=True)
class AuditedItems:
    """All that was drawn and scored of an evaluation, as a part sums it up.

    Args:
        measured: What the part has measured of each subject and fold, in the order of the items.
        items: All items with all rows.
        scores: Of all rows.
        protocol: By which they were scored.
        seed: Of everything that is drawn at random.
        weights: Folder with weights of extractors.
    """

    measured: Sequence[Any]
    items: "DrawnItems"
    scores: Scores
    protocol: Protocol
    seed: int
    weights: str | PathLike | None = None


@dataclass(frozen=True)
class AuditPart:
    """A part of an audit. It asks its question of each subject and fold, and answers it for all of them together.

    Args:
        name: As in `--audit NAME` and as its key under `audit` in report.json.
        label: Short, for titles.
        question: One sentence, for the docs and `--help`.
        measure: What is measured of a subject on a fold, whose rows are drawn and whose pipeline is loaded.
        content: What goes into report.json: plain values; `{"not_defined": SENTENCE}` where the question can't be
            asked.
        tables: Of the content.
        notes: Sentences about the content: what a reviewer would conclude.
        schema: What the content has to be, for reports that are read from files.
        plot: Draws the content; None for a part that is told by its tables alone.
        limit: What the content takes from a verdict, as half a sentence; empty where it takes nothing.
    """

    name: str
    label: str
    question: str
    measure: "Callable[[EvaluatedSubject], Any]"
    content: Callable[[AuditedItems], dict[str, Any]]
    tables: Callable[[Content], list[Table]]
    notes: Callable[[Content], list[str]]
    schema: type[BaseModel]
    plot: "Callable[[Content, Axes], None] | None" = None
    limit: Callable[[Content], str] | None = None
