"""Square tiles of which pages and grids of pictures are made, and the look that these have in common."""

import unicodedata

from PIL import Image

from ..names import one_line

TILE = 112
# Pixels of the shorter side from which a picture is smoothed where it is enlarged.
SMOOTH_FROM = 48
PAGE, INK, FAINT, BLANK = (255, 255, 255), (40, 44, 52), (120, 126, 136), (236, 238, 241)


def drawable(text: str, most: int) -> str:
    """A text in the letters that Pillow's own font has: without accents, and `?` for each of other alphabets."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return one_line("".join(letter if letter.isascii() else "?" for letter in plain), most)


def fitted_tile(picture: Image.Image) -> Image.Image:
    """A picture in a square tile; few pixels are shown as squares, many are smoothed."""
    image = picture.convert("RGB")
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = min(image.size) >= SMOOTH_FROM
    tile = Image.new("RGB", (TILE, TILE), BLANK)
    resized = image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    tile.paste(resized, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile
