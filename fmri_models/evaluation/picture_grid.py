"""grid.png: some test pictures, and below each what every row of the report made of it."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..names import one_line
from .picture_files import to_pil
from .rows import get_row
from .scores import Scores

TILE = 112
_GAP, _MARGIN, _LABEL_SIZE, _PAGE, _INK = 4, 12, 15, (255, 255, 255), (40, 44, 52)
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
    font = ImageFont.load_default(_LABEL_SIZE)
    label_width = int(max(font.getlength(label) for label, _ in labelled)) + 2 * _MARGIN
    width = label_width + len(chosen) * (TILE + _GAP) - _GAP + _MARGIN
    height = 2 * _MARGIN + len(labelled) * (TILE + _GAP) - _GAP
    canvas = Image.new("RGB", (width, height), _PAGE)
    pen = ImageDraw.Draw(canvas)
    for number, (label, pictures) in enumerate(labelled):
        top = _MARGIN + number * (TILE + _GAP)
        pen.text((label_width - _MARGIN, top + TILE // 2), label, fill=_INK, font=font, anchor="rm")
        for column, item in enumerate(chosen):
            canvas.paste(_tile(pictures[item]), (label_width + column * (TILE + _GAP), top))
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


def _tile(picture: Tensor) -> Image.Image:
    """A picture in a square tile; few pixels are shown as squares, many are smoothed."""
    image = to_pil(picture).convert("RGB")
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = min(image.size) >= 48
    tile = Image.new("RGB", (TILE, TILE), (236, 238, 241))
    resized = image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    tile.paste(resized, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
