"""Histograms of the noise ceilings of a table's subjects: numbers, and a picture of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..saving import atomic_file
from .picture_tiles import FAINT, INK, PAGE, drawable
from .table_voxels import Voxels

BINS = 10
_FINE_BINS = 40
_MOST_PANELS = 12
_PANEL_WIDTH, _PANEL_HEIGHT, _COLUMNS, _MARGIN, _HEAD = 400, 270, 2, 16, 36
_LEFT, _TOP, _RIGHT, _BOTTOM = 52, 58, 20, 46
_BAR, _MEAN, _GRID = (76, 114, 176), (196, 78, 82), (226, 229, 234)
_SMALL, _MIDDLE, _LARGE = 12, 14, 16


def ceiling_facts(voxels: Voxels) -> dict[str, Any] | None:
    """Noise ceilings of a subject in a few numbers; None where none is known.

    Returns:
        `voxels` and `unknown` (how many voxels have one and have none), `mean`, `lowest`, `quartiles` (three),
        `highest`, and `histogram`: its `edges` from 0 to 1 and the `voxels` between two of them.
    """
    if voxels.noise_ceiling is None:
        return None
    known = voxels.noise_ceiling[np.isfinite(voxels.noise_ceiling)].astype(np.float64)
    if not len(known):
        return None
    counts, edges = np.histogram(known, BINS, (0, 1))
    return {
        "voxels": len(known),
        "unknown": len(voxels.noise_ceiling) - len(known),
        "mean": float(known.mean()),
        "lowest": float(known.min()),
        "quartiles": np.quantile(known, (0.25, 0.5, 0.75)).tolist(),
        "highest": float(known.max()),
        "histogram": {"edges": edges.round(6).tolist(), "voxels": counts.tolist()},
    }


def write_ceiling_histogram(name: str, voxels: Mapping[str, Voxels], file: Path) -> list[str]:
    """Draws the noise ceilings of each subject that has any, and writes them as PNG.

    Args:
        name: Of the table, for the title.
        voxels: Subject ▶ its voxels.
        file: The PNG file to be written; one that is there is replaced.

    Returns:
        The subjects that it shows; none, and no file, where no ceiling is known.

    Raises:
        FmriModelsError: The file can't be written.
    """
    known = {subject: each for subject, each in voxels.items() if ceiling_facts(each) is not None}
    if not known:
        return []
    shown = list(known)[:_MOST_PANELS]
    columns, rows = min(_COLUMNS, len(shown)), -(-len(shown) // _COLUMNS)
    title = f"{drawable(name, 60)}: noise ceilings"
    if len(shown) < len(voxels):
        title += f" of {len(shown)} of {len(voxels)} subjects"
    large = ImageFont.load_default(_LARGE)
    width = max(columns * _PANEL_WIDTH, int(large.getlength(title))) + 2 * _MARGIN
    canvas = Image.new("RGB", (width, 2 * _MARGIN + _HEAD + rows * _PANEL_HEIGHT), PAGE)
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, _MARGIN), title, fill=INK, font=large)
    for place, subject in enumerate(shown):
        left = _MARGIN + (place % _COLUMNS) * _PANEL_WIDTH
        top = _MARGIN + _HEAD + (place // _COLUMNS) * _PANEL_HEIGHT
        _draw_panel(pen, left, top, subject, known[subject])
    with atomic_file(file) as partial:
        canvas.save(partial, format="PNG", optimize=True)
    return shown


def _draw_panel(pen: ImageDraw.ImageDraw, left: int, top: int, subject: str, voxels: Voxels) -> None:
    small, middle = ImageFont.load_default(_SMALL), ImageFont.load_default(_MIDDLE)
    facts = ceiling_facts(voxels) or {}
    values = np.asarray(voxels.noise_ceiling)
    counts = np.histogram(values[np.isfinite(values)], _FINE_BINS, (0, 1))[0]
    width, height = _PANEL_WIDTH - _LEFT - _RIGHT, _PANEL_HEIGHT - _TOP - _BOTTOM
    x, y = left + _LEFT, top + _TOP
    of = f"the mean of {voxels.repetitions} trials" if voxels.repetitions > 1 else "one trial"
    unknown = f", {facts['unknown']:,} unknown" if facts["unknown"] else ""
    pen.text((x, top), drawable(subject, 30), fill=INK, font=middle)
    pen.text((x + width, top), f"mean {facts['mean']:.3f}", fill=_MEAN, font=middle, anchor="ra")
    about = f"{facts['voxels']:,} voxels{unknown}", f"of {of}, from {voxels.source or 'an unknown source'}"
    for number, text in enumerate(about):
        pen.text((x, top + 19 + 15 * number), text, fill=FAINT, font=small)
    most = _round_up(int(counts.max()))
    for share in (0.0, 0.5, 1.0):
        line = y + height - round(share * height)
        pen.line((x, line, x + width, line), fill=_GRID)
        pen.text((x - 6, line), f"{round(share * most):,}", fill=FAINT, font=small, anchor="rm")
    for number, count in enumerate(counts.tolist()):
        first, last = (x + round((number + end) * width / _FINE_BINS) for end in (0, 1))
        if count:
            # A single voxel is still seen.
            bar = max(1, round(count / most * height))
            pen.rectangle((first, y + height - bar, last - 2, y + height - 1), fill=_BAR)
    mean = x + round(facts["mean"] * width)
    pen.line((mean, y, mean, y + height), fill=_MEAN, width=2)
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        at = x + round(tick * width)
        pen.line((at, y + height, at, y + height + 3), fill=FAINT)
        pen.text((at, y + height + 6), f"{tick:g}", fill=FAINT, font=small, anchor="ma")
    pen.text(
        (x + width // 2, y + height + 22),
        "share of variance that can be explained",
        fill=FAINT,
        font=small,
        anchor="ma",
    )


def _round_up(count: int) -> int:
    """The next number of one figure, or of 12, 15, 25 and their tens."""
    size = 10 ** max(0, len(str(max(1, count))) - 1)
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return next((int(step * size) for step in steps if count <= step * size and step * size == int(step * size)), count)
