"""Pictures of which one is chosen: a group of radio buttons, so one stop of the Tab key with arrow keys inside."""

import html
from collections.abc import Sequence
from typing import Any

import gradio as gr
from PIL import Image

from ..evaluation.picture_grid import png_address
from .pictures import thumbnail

MOST_THUMBNAILS = 100
GRID_ID = "picture-grid"
# A choice is told, and not written into the component: drawn anew, it would lose the keyboard's place.
_ON_LOAD = """
element.addEventListener('change', event => trigger('select', {value: event.target.value}));
"""
# Marks what was chosen elsewhere.
MARK_CHOSEN = f"""name => {{
    const chosen = [...document.querySelectorAll('#{GRID_ID} input')].find(input => input.value === name);
    if (chosen) chosen.checked = true;
}}"""
CSS = f"""
#{GRID_ID} fieldset {{display: grid; grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); gap: 6px;
    border: 0; margin: 0; padding: 4px;}}
#{GRID_ID} label {{position: relative; display: block; cursor: pointer; line-height: 0;}}
#{GRID_ID} input {{position: absolute; opacity: 0; width: 100%; height: 100%; margin: 0; cursor: pointer;}}
#{GRID_ID} img {{width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 6px;
    outline: 2px solid transparent; outline-offset: 1px; background: var(--background-fill-secondary);}}
#{GRID_ID} label span {{display: block; aspect-ratio: 1; overflow: hidden; border-radius: 6px;
    font-size: var(--text-xs); line-height: 1.2; overflow-wrap: anywhere;
    background: var(--background-fill-secondary);}}
#{GRID_ID} input:checked + * {{outline-color: var(--primary-500);}}
#{GRID_ID} input:focus-visible + * {{outline: 3px solid var(--body-text-color);}}
"""


def picture_grid(**options: Any) -> gr.HTML:
    """The component; its `select` event tells the name of the picture as `value`."""
    return gr.HTML(js_on_load=_ON_LOAD, elem_id=GRID_ID, max_height=372, **options)


def grid_html(names: Sequence[str], pictures: Sequence[Image.Image | None], texts: Sequence[str], chosen: str) -> str:
    """What the component shows.

    Args:
        names: One a picture.
        pictures: The pictures, None where there is none; of more than a hundred, the first.
        texts: What each shows.
        chosen: Name of the one that is chosen.
    """
    cells = [
        f'<label><input type="radio" name="picture" value="{html.escape(name)}"{" checked" if name == chosen else ""}>'
        f"{_cell(picture, text)}</label>"
        for name, picture, text in list(zip(names, pictures, texts, strict=True))[:MOST_THUMBNAILS]
    ]
    return f'<fieldset aria-label="Test pictures">{"".join(cells)}</fieldset>'


def _cell(picture: Image.Image | None, text: str) -> str:
    """A picture with its text, or the text in its place."""
    escaped = html.escape(text)
    if picture is None:
        return f"<span>{escaped}</span>"
    return f'<img src="{png_address(thumbnail(picture))}" alt="{escaped}" title="{escaped}">'
