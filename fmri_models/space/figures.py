"""Several pictures with a text beneath each, side by side or one below the other as there is room."""

import html
from collections.abc import Iterable

import gradio as gr
from PIL import Image

from ..evaluation.picture_grid import png_address

CSS = """
.figures {display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: 12px; margin: 6px 0;}
.figures figure {margin: 0;}
.figures img {width: 100%; max-width: 256px; border-radius: 6px; display: block;}
.figures figcaption {font-size: var(--text-sm); line-height: 1.3; padding-top: 4px;}
"""


def figures(name: str) -> gr.HTML:
    """A component for them, empty at first."""
    return gr.HTML(elem_id=name, js_on_load=None)


def figures_html(pictures: Iterable[tuple[Image.Image, str]], title: str) -> str:
    """What the component shows: pictures as PNG, each with its text; nothing where there are none.

    Args:
        pictures: Pictures and texts.
        title: What they are, above them.
    """
    cells = [
        f'<figure><img src="{png_address(picture)}" alt="{html.escape(text)}"><figcaption>{html.escape(text)}'
        "</figcaption></figure>"
        for picture, text in pictures
    ]
    return f'<h4>{html.escape(title)}</h4><div class="figures">{"".join(cells)}</div>' if cells else ""


def origin_note(simulated: bool) -> str:
    """Said where pictures are: a screenshot has no more than that."""
    return " (simulated brain)" if simulated else ""
