"""Names that users and files give: which may become file names, and how they are written where markup means something.

Ids of stimuli, subjects and splits pass [`check_name`] wherever they are read or written, and become file names by
[`file_name`] alone. Free text (a table's name, a caption, a path in a message) passes [`check_line`] or [`one_line`],
and is escaped for the format it is written in.
"""

import difflib
import html
import re
import shlex
import unicodedata
from collections.abc import Iterable

from .errors import FmriModelsError

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# What Markdown, of the kinds that GitHub and the Hub show, may take for markup: anywhere in a line, at the edge of a
# word, at the line's beginning, and in addresses that become links.
_MARKDOWN = re.compile(
    r"[\\`*{}\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-+#=:]|(?<=^\d)[.)]|(?<=^\d\d)[.)]|:(?=//)|(?<=www)\.",
    re.IGNORECASE,
)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA_STARTS = ("=", "+", "-", "@")


def is_name(value: object) -> bool:
    """Whether a value may become a file name; see [`check_name`]."""
    return isinstance(value, str) and _SAFE_NAME.fullmatch(value) is not None


def check_name(value: object, what: str) -> str:
    """Returns a name that is safe as a file name on every system.

    Args:
        value: The name.
        what: What it names, for the message, such as `"stimulus id"`.

    Raises:
        FmriModelsError: It is no text of 1 to 128 of the characters A-Z a-z 0-9 _ . - that starts with a letter, a
            digit or `_`.
    """
    if not isinstance(value, str) or not is_name(value):
        raise FmriModelsError(
            f"The {what} {one_line(repr(value))} can't be used as a file name: ids have 1 to 128 of the characters "
            "A-Z a-z 0-9 _ . - and start with a letter, a digit or _; rename it."
        )
    return value


def file_name(name: str, ending: str, what: str = "id") -> str:
    """The file name of an id: the one place where ids become names of files.

    Args:
        name: The id.
        ending: What follows it, such as `".png"`.
        what: What the id names, for the message.

    Raises:
        FmriModelsError: The id can't be a file name, because it would lead elsewhere.
    """
    return f"{check_name(name, what)}{ending}"


def check_line(value: object, what: str, most: int = 1000) -> str:
    """Returns free text that is one line.

    Raises:
        FmriModelsError: It is no text, is longer than `most` characters, or has line ends, control characters or
            characters that change the direction of what follows.
    """
    if not isinstance(value, str):
        raise FmriModelsError(f"The {what} is {one_line(repr(value))}; expected a text.")
    if len(value) > most:
        raise FmriModelsError(f"The {what} has {len(value)} characters; expected {most} at most.")
    if found := next((character for character in value if not _is_visible(character)), None):
        raise FmriModelsError(
            f"The {what} {one_line(repr(value))} has the character U+{ord(found):04X}; expected one line without "
            "control characters: remove it."
        )
    return value


def is_line(text: str) -> bool:
    """Whether a text is one line of visible characters and spaces."""
    return all(map(_is_visible, text))


def one_line(text: object, most: int = 300) -> str:
    """Any text as one line that a terminal shows as it is: other characters become escapes, what is too long is cut."""
    shown = "".join(c if _is_visible(c) else c.encode("unicode_escape").decode() for c in str(text)[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def shell_word(text: object) -> str:
    """Text as one word of a command that can be copied into a shell; a path that begins with `-` is no option."""
    word = str(text)
    return one_line(shlex.quote(f"./{word}" if word.startswith("-") else word), most=5000)


def markdown(text: object) -> str:
    """Text as Markdown shows it literally: no headings, links, emphasis, tables, formulas or HTML come of it.

    Plain prose with names such as `two_way` stays as it is, so that the file can be read without being rendered.
    """
    shown = html.escape(one_line(text, most=10_000).strip(), quote=False)
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", shown)


def markdown_code(text: object) -> str:
    """Text set as code in Markdown, outside of tables; as [`markdown`] where code could end early or look like HTML."""
    shown = one_line(text, most=10_000).strip()
    return markdown(shown) if not shown or any(character in "`<>&" for character in shown) else f"`{shown}`"


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\texttt{\char34}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "-": r"{-}", "[": "{[}", "]": "{]}", "*": "{*}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "±": r"$\pm$", "√": r"$\surd$", "…": r"\ldots{}",
}  # fmt: skip
# Letters without parts, and signs, that LaTeX sets in its own fonts without further packages; guillemets, eth, thorn
# and the like it refuses there.
_OF_LATEX = frozenset("ÆæŒœØøßŁłı¡¿§¶©£ ")
# Accents that it puts on letters: grave to dot above, diaeresis, ring, double acute, caron, cedilla. Not the ogonek.
_ACCENTS_OF_LATEX = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
_LAST_LATIN = "\u017f"


def latex(text: object) -> str:
    """Text as LaTeX sets it literally: no command, formula or comment comes of it, and whatever it has, it compiles."""
    shown = one_line(text, most=10_000).strip()
    return "".join(_LATEX.get(c) or (c if _is_set_by_latex(c) else rf"\texttt{{U+{ord(c):04X}}}") for c in shown)


def _is_set_by_latex(character: str) -> bool:
    """Whether LaTeX has the character in its own fonts (OT1)."""
    if character.isascii() or character in _OF_LATEX:
        return True
    letter, *accents = list(unicodedata.normalize("NFD", character))
    accented = letter.isascii() and letter.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS_OF_LATEX
    return accented and character <= _LAST_LATIN


def csv_cell(text: str) -> str:
    """Text for a cell of a CSV file, which no spreadsheet takes for a formula."""
    shown = one_line(text, most=32_000)
    # Some take wide forms of the characters and what stands behind spaces as well.
    first = unicodedata.normalize("NFKC", shown.lstrip())[:1]
    return f"'{shown}" if first in _FORMULA_STARTS else shown


def listed(values: Iterable[object], most: int = 3, width: int = 60) -> str:
    """The first few of some values, for a message: `a, b, c and 4 more`.

    Args:
        values: The values.
        most: How many of them are named.
        width: How long each may be.
    """
    values = list(values)
    text = ", ".join(one_line(value, width) for value in values[:most])
    return f"{text} and {len(values) - most} more" if len(values) > most else text


def closest(name: str, known: Iterable[str], certain: bool = False) -> str | None:
    """The known name that a misspelt one most likely stands for; None if none resembles it.

    Args:
        name: The misspelt one.
        known: Those that there are.
        certain: Whether it must be all but the same name, because a wrong guess would refuse what is right.
    """
    by_folded = {each.lower().replace("-", "_"): each for each in known}
    # What is longer than any name is none that was misspelt, and comparing takes time with its square.
    folded = name[:200].lower().replace("-", "_")
    found = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.8 if certain else 0.6)
    if not found and not certain:
        found = [each for each in by_folded if _begins(each, folded)]
    return by_folded[found[0]] if found else None


def _begins(name: str, beginning: str) -> bool:
    return len(beginning) > 2 and name.startswith(beginning)


def as_sentence(text: str) -> str:
    """A sentence with its full stop, so that another one may follow."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A question that follows the sentence on a name that there is not; empty if no known one resembles it."""
    found = closest(str(name), known)
    return "" if found is None else f" Did you mean {found!r}?"


def _is_visible(character: str) -> bool:
    """Whether it is no control, format, surrogate or separating character other than the space."""
    return character == " " or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
