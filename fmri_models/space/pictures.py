"""Pictures as the page shows them, and what they show, in words."""

from collections.abc import Sequence

from PIL import Image

from ..data.table import TrialTable
from ..names import one_line

DISPLAY_SIZE = 256
# Of a component that shows one, with its label above.
PICTURE_HEIGHT = DISPLAY_SIZE + 76
THUMBNAIL_SIZE = 96


def enlarge(picture: Image.Image, size: int = DISPLAY_SIZE) -> Image.Image:
    """A small picture at a size that can be looked at."""
    factor = size / max(picture.size)
    return picture if factor <= 1 else _resized(picture, factor)


def thumbnail(picture: Image.Image, size: int = THUMBNAIL_SIZE) -> Image.Image:
    """A large picture at a size of which a hundred can be sent."""
    factor = size / max(picture.size)
    return picture if factor >= 1 else _resized(picture, factor)


def descriptions(table: TrialTable, stimulus_ids: Sequence[str]) -> list[str]:
    """What stimuli show, in the words of the table; their ids where it has none."""
    known = zip(stimulus_ids, table.stimuli.captions(stimulus_ids), table.stimuli.categories(stimulus_ids), strict=True)
    return [one_line(next(iter(captions), None) or category or name) for name, captions, category in known]


def _resized(picture: Image.Image, factor: float) -> Image.Image:
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.BICUBIC)
