"""Pictures in labelled rows, such as grid.png: some test pictures, and below each what every row made of it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data.picture_tiles import INK, PAGE, TILE, fitted_tile
from ..names import one_line
from .picture_files import to_pil
from .rows import get_row
from .scores import Scores

_GAP, _MARGIN, _LABEL_SIZE = 4, 12, 15
# Height of a line of text, and the width that sentences get below a grid of few columns.
_LINE, _LEAST_TEXT = 20, 480
# Above this a grid is stored with a palette of 256 colors, which is hard to tell apart and a third of the size.
_LARGE_GRID = 2_000_000


def draw_grid(
    truth: Tensor, images: Mapping[str, Tensor], scores: Scores, columns: int = 10, seed: int = 0
) -> Image.Image:
    """A picture with one column for each of some stimuli: shown on top, below it every row.

    The stimuli are drawn from the seed before any score is known, never picked; they come from the first subject.

    Args:
        truth: (N, C, H, W) float in [0, 1].
        images: Row name -> pictures of the same shape.
        scores: For the order of items.
        columns: Number of stimuli.
        seed: Of the choice.
    """
    chosen = grid_items(scores, columns, seed)
    labelled = [
        ("shown", truth),
        *((one_line(get_row(name).label, 60), pictures) for name, pictures in images.items()),
    ]
    return labelled_grid([GridRow(label, [to_pil(pictures[item]) for item in chosen]) for label, pictures in labelled])


@dataclass(frozen=True)
class GridRow:
    """Pictures that stand beside each other.

    Args:
        label: What they are; it may have several lines.
        pictures: One a column; None leaves its place empty.
        texts: A few characters below each; none at all for a row without.
    """

    label: str
    pictures: Sequence[Image.Image | None]
    texts: Sequence[str] = ()


def labelled_grid(rows: Sequence[GridRow], lines: Sequence[str] = ()) -> Image.Image:
    """Rows of pictures below each other, each behind its label, and sentences below them all.

    Args:
        rows: As many pictures in each.
        lines: The sentences; they are broken where the grid ends.
    """
    font = ImageFont.load_default(_LABEL_SIZE)
    label_width = int(max(font.getlength(line) for row in rows for line in row.label.splitlines())) + 2 * _MARGIN
    width = label_width + len(rows[0].pictures) * (TILE + _GAP) - _GAP + _MARGIN
    said = [line for sentence in lines for line in _broken(sentence, max(width, _LEAST_TEXT) - 2 * _MARGIN, font)]
    heights = [TILE + _GAP + (_LINE if row.texts else 0) for row in rows]
    height = 2 * _MARGIN + sum(heights) - _GAP + (_MARGIN + len(said) * _LINE if said else 0)
    canvas = Image.new("RGB", (max(width, _LEAST_TEXT) if said else width, height), PAGE)
    pen = ImageDraw.Draw(canvas)
    top = _MARGIN
    for row, row_height in zip(rows, heights, strict=True):
        place = (label_width - _MARGIN, top + TILE // 2)
        pen.text(place, row.label, fill=INK, font=font, anchor="rm", align="right")
        for column, picture in enumerate(row.pictures):
            left = label_width + column * (TILE + _GAP)
            if picture is not None:
                canvas.paste(fitted_tile(picture), (left, top))
            if row.texts:
                below = (left + TILE // 2, top + TILE + _LINE // 2)
                pen.text(below, row.texts[column], fill=INK, font=font, anchor="mm")
        top += row_height
    for number, line in enumerate(said):
        pen.text((_MARGIN, top + _MARGIN - _GAP + number * _LINE), line, fill=INK, font=font)
    return canvas


def grid_items(scores: Scores, columns: int, seed: int) -> list[int]:
    """Item numbers of the grid's stimuli: a random choice of one subject's, without regard to any score."""
    _, first = np.unique(scores.stimulus_ids[scores.subjects == scores.subjects[0]], return_index=True)
    items = np.flatnonzero(scores.subjects == scores.subjects[0])[np.sort(first)]
    order = np.random.default_rng(seed).permutation(len(items))[:columns]
    return [int(items[position]) for position in np.sort(order)]


def encode_png(picture: Image.Image) -> bytes:
    """A small PNG file of a picture."""
    data = _png(picture)
    if len(data) <= _LARGE_GRID:
        return data
    return _png(picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG))


def png_address(picture: Image.Image) -> str:
    """A picture, pixel for pixel, as an address that has its content."""
    return f"data:image/png;base64,{base64.b64encode(_png(picture)).decode('ascii')}"


def _broken(sentence: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """A sentence in lines of so many pixels."""
    lines: list[str] = []
    for word in sentence.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
