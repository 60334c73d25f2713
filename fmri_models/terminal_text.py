"""Text for a terminal: tables, lists and paragraphs that fit its width.

wcwidth measures and wraps, because some characters take two columns and some none. Which columns stand together is
ours: rich and tabulate squeeze or cut the cells of a table that is too wide, and figures have to be read whole.
"""

import re
import shutil
from collections.abc import Iterable, Sequence

import wcwidth

from .names import one_line

_SMALLEST_WIDTH, _SMALLEST_OF_NAMES = 30, 20
_GAP = "  "
_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], width: int | None = None) -> str:
    """An aligned table for a terminal; the first column is left-aligned, the others right.

    Columns that do not fit beside the others follow below, in groups that each begin with the first column, whose texts
    are wrapped where they would leave no room.

    Args:
        header: Names of the columns.
        lines: Cells.
        width: Characters a line; those of the terminal if None.
    """
    width = terminal_width(width)
    cells = [[one_line(cell) for cell in line] for line in (header, *lines)]
    first, *others = (max(map(wcwidth.width, column)) for column in zip(*cells, strict=True))
    room = width - sum(each + len(_GAP) for each in others)
    # All side by side if that leaves enough for names.
    first = min(first, room if room >= _SMALLEST_OF_NAMES else max(_SMALLEST_OF_NAMES, width // 3))
    first = max(1, min(first, width - max(others, default=0) - len(_GAP)))
    widths = [first, *others]
    return "\n\n".join(_aligned(cells, widths, group) for group in _groups(widths, width))


def text_list(entries: Iterable[tuple[str, str]], indent: str = "", width: int | None = None) -> str:
    """Names, and beside each what it is; a text that is longer than its line goes on below itself.

    Args:
        entries: Names and texts.
        indent: In front of each line.
        width: Characters a line; those of the terminal if None.
    """
    shown = [(one_line(name), one_line(text)) for name, text in entries]
    widest = max((wcwidth.width(name) for name, _ in shown), default=0)
    beside = " " * (len(indent) + widest + len(_GAP))
    lines = [
        wrapped(text, terminal_width(width), f"{indent}{wcwidth.ljust(name, widest)}{_GAP}", beside)
        for name, text in shown
    ]
    return "\n".join(line.rstrip() for each in lines for line in each)


def voxels_read(voxels: int, columns: int) -> str:
    """How many voxels a subject has, and as how many columns a model reads them where a processor changes that."""
    return f"{voxels:,} voxels" if voxels == columns else f"{voxels:,} voxels, read as {columns:,} columns"


def wrapped(text: str, width: int, first: str = "", further: str = "") -> list[str]:
    """A text in lines that a terminal shows so wide at most, broken between words where that is possible.

    Args:
        text: One line.
        width: Characters a line.
        first: What the first line begins with.
        further: What all others begin with.
    """
    # The arrow stays with the last word of a metric.
    kept = re.sub(" (?=[↑↓])", _NO_BREAK_SPACE, text)
    lines = wcwidth.wrap(kept, width, initial_indent=first, subsequent_indent=further, break_on_hyphens=False)
    return [line.replace(_NO_BREAK_SPACE, " ") for line in lines or [first]]


def size_text(size: int) -> str:
    """A number of bytes as people read it, in three figures: `14.5 GB`, `30 MB`, `512 bytes`."""
    for unit, bytes_of_it in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        # What is rounded to a thousand of the smaller unit is one of the larger.
        if size >= 0.9995 * bytes_of_it:
            number = size / bytes_of_it
            return f"{number:.3g} {unit}" if number < 999.5 else f"{number:.0f} {unit}"
    return f"{size} bytes"


def terminal_width(width: int | None = None) -> int:
    """Characters a line: what was asked for, else what the terminal has, 80 where there is none; never less than 30."""
    return max(_SMALLEST_WIDTH, shutil.get_terminal_size().columns if width is None else width)


def _groups(widths: Sequence[int], width: int) -> list[list[int]]:
    """Numbers of the columns behind the first one, in groups that fit beside it."""
    groups: list[list[int]] = [[]]
    used = widths[0]
    for number, each in enumerate(widths[1:], start=1):
        needed = each + len(_GAP)
        if groups[-1] and used + needed > width:
            groups.append([])
            used = widths[0]
        groups[-1].append(number)
        used += needed
    return groups


def _aligned(cells: Sequence[Sequence[str]], widths: Sequence[int], group: Sequence[int]) -> str:
    """The first column, wrapped, and those of a group beside it."""
    header, *lines = (_aligned_line(line, widths, group) for line in cells)
    rule = _GAP.join("-" * widths[number] for number in (0, *group))
    return "\n".join([header, rule, *lines])


def _aligned_line(line: Sequence[str], widths: Sequence[int], group: Sequence[int]) -> str:
    *above, last = wrapped(line[0], widths[0])
    beside = (wcwidth.rjust(line[number], widths[number]) for number in group)
    return "\n".join([*above, _GAP.join([wcwidth.ljust(last, widths[0]), *beside]).rstrip()])
