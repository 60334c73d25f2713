"""Writes the table of data sets and their terms into `docs/responsible_use.md`."""

from pathlib import Path

from fmri_models.data_terms import DATA_TERMS, DataTerms
from fmri_models.names import markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "responsible_use.md"
BEGIN = "<!-- terms: written by scripts/write_terms_table.py -->\n"
END = "<!-- end of terms -->\n"
_LONG = 100
# The page says when.
_WHEN = ", November 2026"
_WORDS = {"allowed": "yes", "forbidden": "**no**", "unknown": "?", "unclear": "?"}


def table() -> str:
    """The table, as Markdown."""
    head = "| data set | responses, pictures, weights | what the terms say, and how we know |\n|---|---|---|\n"
    said: dict[str, str] = {}
    return head + "".join(_row(terms, said) for terms in DATA_TERMS)


def with_table(page: str) -> str:
    """A page with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def _row(terms: DataTerms, said: dict[str, str]) -> str:
    """A row; what is long and stands in an earlier one is said by that one's name."""
    title = markdown(terms.title)
    name = f"[{title}]({terms.url})" if terms.url else title
    words = ", ".join(_WORDS[word] for word in (terms.redistribution, terms.stimuli, terms.weights))
    full = terms.license[:1].upper() + terms.license[1:] + (f". {terms.says}" if terms.says else "")
    says = f"As {said[full]}." if full in said and len(full) > _LONG else full.rstrip(".") + "."
    said.setdefault(full, terms.title)
    how = markdown(terms.checked.replace(_WHEN, ""))
    checked = f" *({how})*" if terms.checked != terms.license else ""
    return f"| {name} | {words} | {markdown(says)}{checked} |\n"


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
