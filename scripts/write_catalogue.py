"""Writes the tables of `docs/catalogue.md` from the records of what there is by name."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fmri_models.names import markdown
from fmri_models.records import Paper
from fmri_models.registry import DATASETS, GENERATORS, METHODS, PRETRAINED
from fmri_models.terminal_text import size_text
from fmri_models.training.recipe_files import RecipeRecord, list_recipes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "catalogue.md"
_PLACE = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_OWN = "fmri_models"


def with_tables(page: str) -> str:
    """The page with each table as the records give it now."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


def methods() -> str:
    """Of this package's methods."""
    lines = [
        (
            f"[`{each.name}`](methods/{each.name}.md)",
            markdown(each.title),
            _paper(each.paper),
            _link(f"code ({each.license})" if each.license else "code", each.origin),
            _names(checkpoint.name for checkpoint in each.pretrained),
        )
        for each in _sorted(METHODS.own())
    ]
    return _table(("name", "what it is", "paper", "its authors' code", "checkpoints"), lines)


def generators() -> str:
    """Of this package's image generators."""
    lines = [
        (
            f"[`{each.name}`](generators/{each.name}.md)",
            markdown(each.title),
            _paper(each.paper),
            _license(each.license, each.size),
            size_text(each.size) if each.size else "",
            _names(checkpoint.name for checkpoint in each.pretrained),
        )
        for each in _sorted(GENERATORS.own())
    ]
    return _table(("name", "what it is", "paper", "licence", "size", "checkpoints"), lines)


def pretrained() -> str:
    """Of the checkpoints that this package brings, converts or refers to."""
    lines = [
        (
            f"`{each.name}`",
            markdown(each.title),
            each.state,
            _license(each.license, each.size) + ("" if each.may_be_shared else ", not to be passed on"),
            size_text(each.size),
            _paper(each.paper),
            _link("page", each.origin) or "the package",
        )
        for each in _sorted(each for each in PRETRAINED.own() if each.package == _OWN)
    ]
    return _table(("name", "what it is", "state", "licence", "size", "paper", "where"), lines)


def recipes() -> str:
    """Of the recipes that come with this package."""
    own: list[RecipeRecord] = [each for each in list_recipes() if each.package == _OWN]
    lines = [
        (
            f"`{each.name}`",
            markdown(each.title),
            f"`{each.method}`",
            f"`{each.generator}`" if each.generator else "",
            markdown(each.data or "any trial table"),
            _paper(each.paper),
        )
        for each in own
    ]
    return _table(("name", "what it is for", "method", "generator", "data", "paper"), lines)


def datasets() -> str:
    """Of the data sets that this package prepares."""
    lines = [
        (
            f"`{each.name}`",
            markdown(each.title),
            markdown(each.license) or "not stated",
            _paper(each.paper),
            _link("page", each.origin),
        )
        for each in _sorted(DATASETS.own())
    ]
    return _table(("name", "what it is", "licence", "paper", "where"), lines)


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "generators": generators,
    "pretrained": pretrained,
    "recipes": recipes,
    "datasets": datasets,
}


def _sorted(records: Iterable) -> list:
    return sorted(records, key=lambda record: record.name)


def _paper(paper: Paper | None) -> str:
    return "" if paper is None else f"[{markdown(paper)}]({paper.url})"


def _link(text: str, address: str) -> str:
    return f"[{text}]({address})" if address else ""


def _license(license: str, size: int) -> str:
    return markdown(license) or ("not stated" if size else "")


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
