"""Hooks of the documentation's build (`make docs`), which asks no server for anything and makes pages that ask none.

Formulas become MathML, which browsers draw without a script. `mkdocs.yml` names this file.
"""

import html
import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

from fmri_models.project import repository

# Warnings of this logger are errors of a strict build.
_log = logging.getLogger("mkdocs.hooks.documentation")

# What pymdownx.arithmatex makes of $...$ and $$...$$.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# A style sheet's own addresses.
_IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")
_NOT_FETCHED = {"canonical", "next", "prev", "alternate"}


class _Fetched(HTMLParser):
    """Addresses elsewhere of what a browser fetches to show a page; those of links are not fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses = set(_IN_STYLES.findall(page))
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        address = given.get("src", "")
        if tag == "link" and not _NOT_FETCHED & set(given.get("rel", "").split()):
            address = given.get("href", "")
        if address.startswith(("http://", "https://", "//")):
            self.addresses.add(address)


def on_config(config: Any, **_: Any) -> Any:
    """Pages link to the repository, once it has an address."""
    config.repo_url = repository() or None
    return config


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML."""
    return _FORMULA.sub(lambda match: _drawn(match[2], is_block=match[1] == "div"), content)


def on_post_build(config: Any, **_: Any) -> None:
    """Warns of pages that would fetch something from elsewhere."""
    site = Path(config.site_dir)
    for file in sorted(path for path in site.rglob("*") if path.suffix in (".html", ".css")):
        text = file.read_text(encoding="utf-8")
        addresses = _Fetched(text).addresses if file.suffix == ".html" else set(_IN_STYLES.findall(text))
        for address in sorted(addresses):
            _log.warning(f"{file.relative_to(site)} fetches {address}; the pages have to work without a network.")


def _drawn(tex: str, is_block: bool) -> str:
    return convert(html.unescape(tex), display="block" if is_block else "inline")
