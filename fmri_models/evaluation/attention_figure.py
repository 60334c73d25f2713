"""The figure of attention from ROI to ROI: a map of each layer, as SVG that stands in a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ..names import one_line

_MOST_LAYERS = 6
_LARGEST_CELL, _SMALLEST_CELL, _MAP = 26, 11, 240
_FONT, _LETTER, _GAP, _TITLE, _LEGEND, _LEGEND_WIDTH = 11, 6.5, 14, 18, 34, 460
_LONGEST_LABEL = 20
# Colours at a quarter of chance, at chance, and at four times chance.
_BELOW, _EVEN, _ABOVE = (33, 102, 172), (247, 247, 247), (178, 24, 43)
_OCTAVES = 2.0


def attention_figure(attention: Mapping[str, Any]) -> Markup:
    """Maps of the ROI that attends (rows) and the ROI that is attended to (columns); the colour is times chance.

    Args:
        attention: Of a subject, as report.json has it.

    Returns:
        An `<svg>` element; of many layers, six that are evenly spaced.
    """
    labels = [one_line(roi, _LONGEST_LABEL) for roi in attention["rois"]]
    layers, chance = attention["layers"], attention["chance"]
    cell = max(_SMALLEST_CELL, min(_LARGEST_CELL, _MAP // len(labels)))
    margin = round(_LETTER * max(len(label) for label in labels)) + 8
    side, parts = cell * len(labels), [_row_labels(labels, cell, margin)]
    shown = _evenly_spaced(len(layers), _MOST_LAYERS)
    for place, number in enumerate(shown):
        left = margin + place * (side + _GAP)
        parts.append(_text(left + side / 2, _TITLE - 6, f"layer {number + 1}", "middle"))
        parts += _cells(attention["rois"], layers[number]["matrix"], chance, cell, left)
        for column, label in enumerate(labels):
            x, y = left + cell * (column + 0.5) + _FONT / 3, _TITLE + side + 6
            turned = Markup(' transform="rotate(-90 {} {})"').format(f"{x:g}", f"{y:g}")
            parts.append(_text(x, y, label, "end", turned))
    width = max(margin + len(shown) * (side + _GAP), margin + _LEGEND_WIDTH)
    height = _TITLE + side + margin + _LEGEND
    parts.append(_legend(margin, height - _LEGEND + 6))
    opening = Markup(
        '<svg role="img" aria-label="{}" width="{}" height="{}" viewBox="0 0 {} {}" font-size="{}">'
    ).format("Attention from ROI to ROI", width, height, width, height, _FONT)
    return opening + Markup("").join(parts) + Markup("</svg>")


def _evenly_spaced(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _row_labels(labels: Sequence[str], cell: int, margin: int) -> Markup:
    return Markup("").join(
        _text(margin - 6, _TITLE + cell * (row + 0.5) + _FONT / 3, label, "end") for row, label in enumerate(labels)
    )


def _cells(
    rois: Sequence[str], matrix: Sequence[Sequence[float]], chance: Sequence[float], cell: int, left: int
) -> list[Markup]:
    """The squares of a layer; pointed at, each says its numbers."""
    squares = []
    for row, (source, shares) in enumerate(zip(rois, matrix, strict=True)):
        for column, (target, share, even) in enumerate(zip(rois, shares, chance, strict=True)):
            ratio = share / even if even else 1.0
            words = f"{one_line(source)} to {one_line(target)}: {share:.3f} of its attention, {ratio:.2f} times chance"
            squares.append(_square(left + column * cell, _TITLE + row * cell, cell - 1, _colour(ratio), words))
    return squares


def _legend(left: int, top: int) -> Markup:
    steps = 9
    parts = []
    for step in range(steps):
        octave = _OCTAVES * (2 * step / (steps - 1) - 1)
        parts.append(_square(left + 40 + 14 * step, top, 14, _colour(2**octave), f"{2**octave:.2f} times chance"))
    parts += [
        _text(left + 34, top + 11, "1/4", "end"),
        _text(left + 46 + 14 * steps, top + 11, "4 times chance; the row attends to the column", "start"),
    ]
    return Markup("").join(parts)


def _colour(ratio: float) -> str:
    """Of so many times chance, on a scale of doublings."""
    octaves = -_OCTAVES if ratio <= 0 else max(-_OCTAVES, min(_OCTAVES, math.log2(ratio)))
    end, share = (_ABOVE if octaves > 0 else _BELOW), abs(octaves) / _OCTAVES
    mixed = (round(even + share * (far - even)) for even, far in zip(_EVEN, end, strict=True))
    return "rgb({},{},{})".format(*mixed)


def _square(x: float, y: float, side: float, colour: str, words: str) -> Markup:
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="{}"><title>{}</title></rect>').format(
        f"{x:g}", f"{y:g}", f"{side:g}", f"{side:g}", colour, words
    )


def _text(x: float, y: float, words: str, anchor: str, turned: Markup = Markup("")) -> Markup:  # noqa: B008
    return Markup('<text x="{}" y="{}" text-anchor="{}"{}>{}</text>').format(f"{x:g}", f"{y:g}", anchor, turned, words)
