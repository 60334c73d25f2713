"""Text for a terminal: tables and paragraphs that fit its width.

wcwidth measures and wraps, because some characters take two columns and some none. Which columns stand together is
ours: rich and tabulate squeeze or cut the cells of a table that is too wide, and figures have to be read whole.
"""

import re
import shutil
from collections.abc import Sequence

from wcwidth import ljust, rjust, width, wrap

from .names import one_line

_SMALLEST_WIDTH, _SMALLEST_OF_NAMES = 30, 20
_GAP = "  "
_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """An aligned table for a terminal; the first column is left-aligned, the others right.

    Columns that do not fit beside the others follow below, in groups that each begin with the first column, whose texts
    are wrapped where they would leave no room.

    Args:
        header: Names of the columns.
        lines: Cells.
        columns: Of the terminal; those that it has if None.
    """
    columns = terminal_width(columns)
    cells = [[one_line(cell) for cell in line] for line in (header, *lines)]
    first, *others = (max(map(width, column)) for column in zip(*cells, strict=True))
    room = columns - sum(each + len(_GAP) for each in others)
    # All side by side if that leaves enough for names.
    first = min(first, room if room >= _SMALLEST_OF_NAMES else max(_SMALLEST_OF_NAMES, columns // 3))
    first = max(1, min(first, columns - max(others, default=0) - len(_GAP)))
    widths = [first, *others]
    return "\n\n".join(_aligned(cells, widths, group) for group in _groups(widths, columns))


def wrapped(text: str, columns: int) -> list[str]:
    """A text in lines of at most so many columns of a terminal, broken between words where that is possible."""
    # The arrow stays with the last word of a metric.
    kept = re.sub(" (?=[↑↓])", _NO_BREAK_SPACE, text)
    lines = wrap(kept, columns, break_on_hyphens=False) or [""]
    return [line.replace(_NO_BREAK_SPACE, " ") for line in lines]


def terminal_width(columns: int | None = None) -> int:
    """The columns that text may take: those given, else the terminal's, 80 where there is none."""
    return max(_SMALLEST_WIDTH, shutil.get_terminal_size().columns if columns is None else columns)


def _groups(widths: Sequence[int], columns: int) -> list[list[int]]:
    """Numbers of the columns behind the first one, in groups that fit beside it."""
    groups: list[list[int]] = [[]]
    used = widths[0]
    for number, each in enumerate(widths[1:], start=1):
        needed = each + len(_GAP)
        if groups[-1] and used + needed > columns:
            groups.append([])
            used = widths[0]
        groups[-1].append(number)
        used += needed
    return groups


def _aligned(cells: Sequence[Sequence[str]], widths: Sequence[int], group: Sequence[int]) -> str:
    """The first column, wrapped, and those of a group beside it."""
    texts = []
    for line in cells:
        *above, last = wrapped(line[0], widths[0])
        beside = (rjust(line[number], widths[number]) for number in group)
        texts += ["\n".join([*above, _GAP.join([ljust(last, widths[0]), *beside]).rstrip()])]
    rule = _GAP.join("-" * widths[number] for number in (0, *group))
    return "\n".join([texts[0], rule, *texts[1:]])
