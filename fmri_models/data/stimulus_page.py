"""A page of a table's stimuli: pictures in a grid, their ids below. Only the pictures that it shows are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import FmriModelsError
from ..plain_values import ShortRepr
from ..saving import atomic_file
from ..seeds import check_seed
from .picture_tiles import BLANK, FAINT, INK, PAGE, TILE, drawable, fitted_tile
from .pictures import decode_picture
from .table import TrialTable

MOST_PICTURES = 400
_COLUMNS = 8
_GAP, _MARGIN, _LABEL, _HEAD, _SMALL, _LARGE = 8, 16, 18, 34, 11, 15
_CUT = "\N{HORIZONTAL ELLIPSIS}"
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, repr=False)
class StimulusPage(ShortRepr):
    """What a page shows.

    Args:
        file: Where it was written.
        shown: Ids of the stimuli on it, in the table's order.
        pictures: How many stimuli of the table have a picture.
        stimuli: How many stimuli the table has.
        unreadable: Ids of those on the page whose picture is damaged.
        seed: What chose them; None where they lie at even distances.
    """

    file: Path
    shown: list[str]
    pictures: int
    stimuli: int
    unreadable: list[str]
    seed: int | None


def write_stimulus_page(table: TrialTable, file: Path, most: int = 48, seed: int | None = None) -> StimulusPage | None:
    """Writes a page of pictures as PNG. Memory holds the page and one picture, whatever the table's size.

    Args:
        table: Whose stimuli.
        file: The PNG file to be written; one that is there is replaced.
        most: How many pictures it shows at most.
        seed: Draws which; None takes them at even distances in the table's order.

    Returns:
        What it shows; None, and no file, of a table without any picture.

    Raises:
        FmriModelsError: The number of pictures makes no sense, or the file can't be written.
    """
    if not 1 <= most <= MOST_PICTURES:
        raise FmriModelsError(f"A page of {most} pictures was asked for; expected 1 to {MOST_PICTURES}.")
    seed = None if seed is None else check_seed(seed)
    count = table.stimuli.num_pictures
    if not count:
        return None
    hashes = table.stimuli.content_hashes()
    # Where some stimuli have no picture, their hash is missing, too.
    there = [name for name, known in zip(table.stimuli.ids, hashes, strict=True) if known] or table.stimuli.ids
    chosen = [there[position] for position in chosen_positions(len(there), most, seed)]
    tiles = _Tiles(table, chosen)
    picture = _page(tiles, len(chosen), _title(table, len(chosen), count, seed))
    with atomic_file(file) as partial:
        picture.save(partial, format="PNG", optimize=True)
    return StimulusPage(file, chosen, count, len(table.stimuli), tiles.unreadable, seed)


def _title(table: TrialTable, shown: int, count: int, seed: int | None) -> str:
    how = "at even distances" if seed is None else f"drawn with seed {seed}"
    said = f"all {count:,} pictures" if shown == count else f"{shown:,} of {count:,} pictures, {how}"
    without = len(table.stimuli) - count
    rest = f"; {without:,} {'stimulus has' if without == 1 else 'stimuli have'} none" if without else ""
    return f"{drawable(table.name, 80)}: {said}{rest}"


def chosen_positions(count: int, most: int, seed: int | None) -> list[int]:
    """Which of `count` things are shown, ascending: the first, the last and others between at even distances, or drawn.

    Args:
        count: How many there are.
        most: How many are shown at most.
        seed: Draws them; None takes even distances.
    """
    if count <= most:
        return list(range(count))
    if seed is not None:
        return sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


class _Tiles:
    """Ids and tiles of some stimuli, one by one; None for a tile of which there is no picture."""

    def __init__(self, table: TrialTable, chosen: list[str]) -> None:
        self._table, self._chosen = table, chosen
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, Image.Image | None]]:
        for stimulus, data in self._table.stimuli.encoded(self._chosen):
            yield stimulus, None if data is None else self._tile(stimulus, data)

    def _tile(self, stimulus: str, data: bytes) -> Image.Image | None:
        try:
            pixels = decode_picture(data, f"stimulus {stimulus}")
        except FmriModelsError:
            # What else is on the page can still be looked at.
            self.unreadable.append(stimulus)
            return None
        return fitted_tile(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))


def _page(tiles: _Tiles, count: int, title: str) -> Image.Image:
    small, large = ImageFont.load_default(_SMALL), ImageFont.load_default(_LARGE)
    columns, rows = min(_COLUMNS, count), -(-count // _COLUMNS)
    width = max(columns * (TILE + _GAP) - _GAP, int(large.getlength(title))) + 2 * _MARGIN
    height = _MARGIN + _HEAD + rows * (TILE + _LABEL + _GAP) - _GAP + _MARGIN
    canvas = Image.new("RGB", (width, height), PAGE)
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, _MARGIN), title, fill=INK, font=large)
    for place, (stimulus, tile) in enumerate(tiles):
        left = _MARGIN + (place % _COLUMNS) * (TILE + _GAP)
        top = _MARGIN + _HEAD + (place // _COLUMNS) * (TILE + _LABEL + _GAP)
        if tile is not None:
            canvas.paste(tile, (left, top))
        else:
            pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=BLANK)
            why = "can't be read" if stimulus in tiles.unreadable else "no picture"
            pen.text((left + TILE // 2, top + TILE // 2), why, fill=FAINT, font=small, anchor="mm")
        label = fitted_text(stimulus, TILE, small)
        pen.text((left + TILE // 2, top + TILE + _LABEL // 2), label, fill=INK, font=small, anchor="mm")
    return canvas


def fitted_text(text: str, width: int, font: _Font) -> str:
    """A text of so many pixels at most; where it is wider, its middle is left out, as ids differ at the end."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: kept // 3]}{_CUT}{text[len(text) - (kept - kept // 3) :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return _CUT
