"""Texts of the folder `model_cards` with values in them."""

from typing import Any

from jinja2 import Environment, StrictUndefined

from ..names import markdown, markdown_code
from ..shipped import shipped_folder


def rendered(template: str, **values: Any) -> str:
    """A text of the folder `model_cards`, with these values in it."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"markdown": markdown, "code": markdown_code}
    source = (shipped_folder("model_cards") / template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)
