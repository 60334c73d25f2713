"""Square tiles of which pages and grids of pictures are made, and the look that these have in common."""

from PIL import Image

TILE = 112
# Pixels of the shorter side from which a picture is smoothed where it is enlarged.
SMOOTH_FROM = 48
PAGE, INK, FAINT, BLANK = (255, 255, 255), (40, 44, 52), (120, 126, 136), (236, 238, 241)


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
