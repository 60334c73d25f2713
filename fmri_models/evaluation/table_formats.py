"""Tables of scores as Markdown, CSV and LaTeX, in which names from files are text and nothing else."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Literal, get_args

from ..errors import FmriModelsError
from ..names import csv_cell, latex, markdown
from .report_pages import markdown_table
from .table import Table

Format = Literal["text", "markdown", "csv", "latex"]
FORMATS: tuple[str, ...] = get_args(Format)

# Values with their intervals, which may begin with a sign.
_FIGURES = re.compile(r"[-+]?[0-9.]+( (± [0-9.]+|\[[-+]?[0-9.]+, [-+]?[0-9.]+\]))?")


def to_markdown(paragraphs: Sequence[str], tables: Sequence[Table]) -> str:
    """Paragraphs, and tables with titles and captions."""
    lines = [line for paragraph in paragraphs for line in (markdown(paragraph), "")]
    for table in tables:
        lines += [f"## {markdown(table.title)}", "", markdown(table.caption), "", *markdown_table(table), ""]
    return "\n".join(lines).rstrip("\n")


def to_latex(paragraphs: Sequence[str], tables: Sequence[Table]) -> str:
    """Tables that need no package, each with what must stand beside its figures in its caption."""
    beside = " ".join(paragraphs)
    blocks = []
    for number, table in enumerate(tables):
        caption = ". ".join(part.rstrip(". ") for part in (table.title, table.caption, beside) if part) + "."
        rows = [[_latex_cell(cell) for cell in line] for line in (table.header, *table.lines)]
        texts = [f"    {' & '.join(cells)} " + r"\\" for cells in rows]
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"  \centering",
                    rf"  \caption{{{latex(caption)}}}",
                    rf"  \label{{tab:comparison-{number + 1}}}",
                    rf"  \begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
                    r"    \hline",
                    texts[0],
                    r"    \hline",
                    *texts[1:],
                    r"    \hline",
                    r"  \end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(blocks)


def to_csv(header: Sequence[str], lines: Sequence[Sequence[str | float | None]]) -> str:
    """One rectangular file, numbers in full, an empty cell where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        writer.writerow([_csv_cell(cell) for cell in line])
    return out.getvalue().rstrip("\n")


def _csv_cell(cell: str | float | None) -> str:
    if cell is None:
        return ""
    return csv_cell(cell) if isinstance(cell, str) else repr(cell)


def check_format(name: str) -> None:
    """Refuses a format that there is none of.

    Raises:
        FmriModelsError: Names those that there are.
    """
    if name not in FORMATS:
        raise FmriModelsError(f"There is no format {name!r} of tables; there are {', '.join(FORMATS)}.")


def _latex_cell(cell: str) -> str:
    if not _FIGURES.fullmatch(cell):
        return latex(cell)
    # A bracket after a line's end would be an option of it, and a hyphen is no minus.
    signed = re.sub(r"-(?=[0-9.])", "$-$", cell).replace("±", r"$\pm$")
    return signed.replace("[", "{[}").replace("]", "{]}")
