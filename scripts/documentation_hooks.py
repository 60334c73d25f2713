"""Hooks of the documentation's build (`make docs`), which asks no server for anything and makes pages that ask none.

Formulas become MathML, which browsers draw without a script. `mkdocs.yml` names this file.
"""

import html
import logging
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

# Warnings of this logger are errors of a strict build.
_log = logging.getLogger("mkdocs.hooks.documentation")

# What pymdownx.arithmatex makes of $...$ and $$...$$.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# Whatever a browser fetches to show a page; links are not fetched.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|link\s[^>]*?rel="?(?:stylesheet|icon|preload|preconnect)"?)[^>]*?"""
    r"""\s(?:src|href)="?((?:https?:)?//[^"\s>]+)"""
)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """In the search, pages that explain come before the list of all names."""
    if page.file.src_uri.startswith("api/"):
        page.meta.setdefault("search", {"boost": 0.5})
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML."""
    return _FORMULA.sub(lambda match: _drawn(match[2], is_block=match[1] == "div"), content)


def on_post_build(config: Any, **_: Any) -> None:
    """Warns of pages that would fetch something from elsewhere."""
    site = Path(config.site_dir)
    for page in sorted(site.rglob("*.html")):
        for address in sorted(set(_FETCHED.findall(page.read_text(encoding="utf-8")))):
            _log.warning(
                f"{page.relative_to(site)} fetches {address}; the documentation has to work without a network."
            )


def _drawn(tex: str, is_block: bool) -> str:
    return convert(html.unescape(tex), display="block" if is_block else "inline")
