"""Whether two pictures are (nearly) the same one: recompressed, with a changed pixel, grey, mirrored, cropped ..."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

# Pictures that correlate above it are taken for the same one.
THRESHOLD = 0.99
# Half the size counts as well, where what compression and resizing have done to single pixels is gone; there, different
# pictures are more alike, too.
_THRESHOLD_OF_HALVED = 0.995
# A grey picture is one of a coloured one if it has its contrast as well: a white bar is no grey picture of a blue one.
_CONTRAST = 1.1
# Files keep colours at a lower resolution than luminance; in squares of so many pixels they agree all the same.
_SQUARE_OF_COLOUR = 4
_MARGINS = tuple(number / 200 for number in range(1, 17))


def correlations(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson's r of pictures, uint8 (n, H, W, 3); -1 where it is undefined.

    It is the larger one of luminance and colour where the colours agree at a low resolution, or one of the two is the
    other one in grey. Else it is that of the colours: shapes of another colour are other pictures.
    """
    coloured, light = (ones, others), (grey(ones), grey(others))
    are_grey = np.array([_pearson(one, _repeated(own)) > THRESHOLD for one, own in zip(coloured, light, strict=True)])
    contrasts = [each.reshape(len(each), -1).std(axis=1, dtype=np.float64) for each in light]
    alike = (contrasts[0] < _CONTRAST * contrasts[1]) & (contrasts[1] < _CONTRAST * contrasts[0])
    same_colours = _pearson(*map(_in_squares, coloured)) > THRESHOLD
    by_luminance = same_colours | (are_grey.any(axis=0) & alike) | are_grey.all(axis=0)
    found = _pearson(*coloured)
    return np.where(by_luminance, np.maximum(found, _pearson(*light)), found)


def _pearson(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) correlations over all values of a picture; -1 where one of the two is flat."""
    a, b = centred(ones), centred(others)
    products, lengths = (a * b).sum(axis=1), np.sqrt((a * a).sum(axis=1)) * np.sqrt((b * b).sum(axis=1))
    r = np.divide(products, lengths, out=np.full(len(ones), -1.0, np.float32), where=lengths > 0)
    return np.minimum(r, 1).astype(np.float64)


def _repeated(light: np.ndarray) -> np.ndarray:
    return np.repeat(light[..., None], 3, axis=-1)


def _in_squares(pictures: np.ndarray) -> np.ndarray:
    """Means over squares of pixels (n, H / side, W / side, 3); what is left at the right and below is left out."""
    side = _SQUARE_OF_COLOUR
    count, height, width = len(pictures), pictures.shape[1] // side, pictures.shape[2] // side
    whole = pictures[:, : height * side, : width * side]
    return whole.reshape(count, height, side, width, side, 3).mean(axis=(2, 4), dtype=np.float32)


def best_match(one: np.ndarray, other: np.ndarray) -> tuple[float, bool, bool] | None:
    """The correlation of two pictures (H, W, 3) that are alike, and whether it took mirroring and cropping; or None."""
    ways = ((one, False), (np.ascontiguousarray(one[:, ::-1]), True))
    tries = [(turned, other, mirrored) for turned, mirrored in ways]
    if (found := _largest_above(THRESHOLD, tries)) is not None:
        return (*found, False)
    small = _halved(other)
    tries = [(_halved(turned), small, mirrored) for turned, mirrored in ways]
    if (found := _largest_above(_THRESHOLD_OF_HALVED, tries)) is not None:
        return (*found, False)
    cropped = [(_halved(turned, margin), small, mirrored) for margin in _MARGINS for turned, mirrored in ways]
    cropped += [
        (turned, cut, mirrored)
        for margin in _MARGINS
        for cut in [_halved(other, margin)]
        for turned, _, mirrored in tries
    ]
    found = _largest_above(_THRESHOLD_OF_HALVED, cropped)
    return None if found is None else (*found, True)


def _largest_above(threshold: float, tries: Sequence[tuple[np.ndarray, np.ndarray, bool]]) -> tuple[float, bool] | None:
    """The largest correlation among pairs of pictures, and what is said of that pair; None where it is too small."""
    found = correlations(np.stack([one for one, _, _ in tries]), np.stack([other for _, other, _ in tries]))
    best = int(found.argmax())
    return (float(found[best]), tries[best][2]) if found[best] > threshold else None


def _halved(picture: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """A picture (H, W, 3) in half its size, without a share of its sides."""
    height, width = picture.shape[:2]
    box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width // 2, height // 2), Image.Resampling.BICUBIC, box=box))


def grey(pictures: np.ndarray) -> np.ndarray:
    """Luminance (..., H, W) float32; one value for one colour, which a matrix product would not promise."""
    red, green, blue = np.moveaxis(pictures.astype(np.float32), -1, 0)
    return red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)


def centred(pictures: np.ndarray) -> np.ndarray:
    """(n, values) float32 without their mean; exactly 0 for a picture that is flat."""
    values = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat = (values == values[:, :1]).all(axis=1, keepdims=True)
    return np.where(flat, 0, values - values.mean(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
