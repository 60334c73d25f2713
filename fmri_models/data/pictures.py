"""Pictures as bytes and as pixels: the one reader, encoding, and the hash by which equal pictures are found.

Whoever opens the file of a picture (a table's writer, `evaluate --images`, a gallery) gets its pixels from
[`read_picture`], so that the same file is the same picture everywhere.
"""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ..errors import FmriModelsError
from ..names import one_line
from ..reading import BYTES_OF_A_STAND_IN, read_bytes, stand_in
from .schema import MAX_PICTURE_BYTES

# Ample for a photograph; decoding takes up to 16 bytes a pixel.
MAX_PIXELS = 50_000_000
# A progressive JPEG has some ten; each takes its time for all pixels, however few bytes it has.
MAX_SCANS = 100
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_MEND = "scale it down, or replace the file"

GREY_MODES = ("1", "L", "LA", "La")
_CLEAR_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# More than eight bits a channel: PIL would clip them silently.
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_BITS_PER_SAMPLE = 258
# From one grey to the next where Pillow makes eight bits of two or four.
_STEPS_OF_GREY = {"L;2": 85, "L;4": 17}
_SCAN, _END = 0xDA, 0xD9
# Stuffed bytes, fill bytes, restarts and the start are no segments.
_SEGMENT = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")


def encode_picture(picture: object, name: str) -> bytes:
    """A picture as the bytes of an image file; bytes are kept as they are, anything else becomes a PNG.

    Args:
        picture: A PIL image, the bytes of an image file, or a uint8 array (H,W), (H,W,1) or (H,W,3).
        name: What an error calls it.

    Raises:
        FmriModelsError: It is none of these, has masked values, more than eight bits a channel or more than one frame.
    """
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(_checked_pixels(picture, name))
    if not isinstance(picture, Image.Image):
        raise FmriModelsError(
            f"The picture of {name} is a {type(picture).__name__}; expected a PIL image, the bytes of an image file or "
            "a uint8 array (H, W, channels)."
        )
    _check_plain(picture, name)
    buffer = io.BytesIO()
    # Exif orientation would be applied twice when the PNG is read.
    as_shown(picture, name).save(buffer, format="PNG")
    return buffer.getvalue()


def read_picture(data: bytes | str | os.PathLike, name: str) -> np.ndarray:
    """Pixels of a picture that somebody gives as a file: uint8 (H,W,1) for grey, (H,W,3) for everything else.

    It is turned as its Exif says, and transparent parts are laid over white. CMYK and palettes become RGB by the plain
    formula; colour profiles are not applied.

    Args:
        data: The file, or its bytes.
        name: What an error calls it.

    Raises:
        FmriModelsError: It can't be decoded, has more than eight bits a channel or more than one frame, or is larger
            than it may be.
    """
    return _decoded(data, name, is_new=True)


def decode_picture(data: bytes | str | os.PathLike, name: str) -> np.ndarray:
    """Pixels of a picture that a table has, as [`read_picture`] gives them.

    Tables of earlier versions may have animations, of which the first frame counts, and colours of 16 bits, of which
    the upper eight do; new pictures of these kinds are refused.

    Raises:
        FmriModelsError: It can't be decoded, is grey with more than eight bits, or is larger than it may be.
    """
    return _decoded(data, name, is_new=False)


def _decoded(data: bytes | str | os.PathLike, name: str, is_new: bool) -> np.ndarray:
    with opened_picture(data, name) as picture:
        if is_new:
            _check_plain(picture, name)
        pixels = np.asarray(as_shown(picture, name))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _check_plain(picture: Image.Image, name: str) -> None:
    """Refuses what would be read in part: several frames or pages, and channels of more than eight bits."""
    try:
        # Phones add a film, a depth map or a second size to a JPEG (MPO); its first picture is the photograph.
        several = picture.format != "MPO" and getattr(picture, "is_animated", False)
        bits = _bits(picture)
    # Frames and tags are looked up late, and raise whatever their parsers do.
    except Exception as error:
        raise _undecodable(name, error) from error
    if several:
        raise FmriModelsError(
            f"The picture of {name} is a {picture.format} of several frames or pages; expected a single one: save the "
            "one that was shown as a PNG."
        )
    if bits > 8 and picture.mode not in _DEEP_MODES:
        raise _too_deep(name, f"{bits} bits")


def _bits(picture: Image.Image) -> int:
    """Bits a channel of a file, of which Pillow keeps eight where there is colour."""
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
    how = _how_it_is_stored(picture) if picture.format in ("PNG", "PPM") else ""
    if isinstance(how, tuple):
        # The arguments of PPM's decoder: the mode, and the number that stands for white.
        return int(how[-1]).bit_length() if len(how) == 2 else 8
    return 16 if ";16" in str(how) else 8


def _how_it_is_stored(picture: Image.Image) -> object:
    """What Pillow's decoder is told of the pixels, such as `L;4`; None once they are decoded."""
    tiles = getattr(picture, "tile", None)
    return tiles[0].args if tiles else None


def picture_format(data: bytes, name: str) -> str:
    """The file name's ending that fits an encoded picture, such as `png` or `jpg`."""
    with opened_picture(data, name) as picture:
        found = (picture.format or "img").lower()
    return {"jpeg": "jpg", "mpo": "jpg"}.get(found, found)


def as_shown(picture: Image.Image, name: str) -> Image.Image:
    """The picture as `L` or `RGB`: turned as its Exif says, transparent parts laid over white.

    Raises:
        FmriModelsError: It can't be decoded, has more than eight bits a channel, or what it says of itself is broken or
            can't be told any more.
    """
    if picture.mode in _DEEP_MODES:
        raise _too_deep(name, f"mode {picture.mode}")
    stored = _how_it_is_stored(picture)
    try:
        picture.load()
        # A copy, whose transparency may be changed.
        turned = ImageOps.exif_transpose(picture)
        if turned.mode == "L":
            _scale_transparency(turned, stored, name)
        return _over_white(turned)
    except FmriModelsError:
        raise
    # Decoders raise whatever they like on broken files (OSError, ValueError, SyntaxError, struct.error ...), and so do
    # the parsers of Exif data and palettes.
    except Exception as error:
        raise _undecodable(name, error) from error


def _scale_transparency(picture: Image.Image, stored: object, name: str) -> None:
    """Makes a PNG's transparent grey of two or four bits one of the eight that Pillow makes of its pixels."""
    grey = picture.info.get("transparency")
    if not isinstance(grey, int):
        return
    if (step := _STEPS_OF_GREY.get(str(stored))) is not None:
        picture.info["transparency"] = grey * step
    elif stored is None and 0 < grey < 16 and not (np.asarray(picture) % _STEPS_OF_GREY["L;4"]).any():
        # Decoded already, it doesn't say how many bits it had.
        raise FmriModelsError(
            f"The picture of {name} is a decoded PNG, of which can't be told which grey is transparent ({grey} of 16 "
            "or of 256); give the file, or its bytes."
        )


def _over_white(picture: Image.Image) -> Image.Image:
    wanted = "L" if picture.mode in GREY_MODES else "RGB"
    if picture.mode in _CLEAR_MODES or "transparency" in picture.info:
        colour = picture.convert("LA") if picture.mode == "La" else picture
        colour = colour if colour.mode == "RGBA" else colour.convert("RGBA")
        ground = Image.new("RGBA", colour.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, colour).convert(wanted)
    return picture if picture.mode == wanted else picture.convert(wanted)


@contextmanager
def opened_picture(data: bytes | str | os.PathLike, name: str) -> Iterator[Image.Image]:
    """An image file whose header was read, of a size that can be decoded.

    Raises:
        FmriModelsError: It is no picture, or is larger than it may be.
    """
    if not isinstance(data, bytes):
        data = read_bytes(data, f"picture of {name}", _MEND, MAX_PICTURE_BYTES)
    if len(data) > MAX_PICTURE_BYTES:
        raise FmriModelsError(
            f"The picture of {name} has {len(data)} bytes; expected {MAX_PICTURE_BYTES} at most; {_MEND}."
        )
    if instead := stand_in(data[:BYTES_OF_A_STAND_IN]):
        raise FmriModelsError(f"The picture of {name} is {instead}.")
    with warnings.catch_warnings():
        # Pillow warns of large pictures and broken Exif data; what can't be shown is refused here.
        warnings.simplefilter("ignore")
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except Exception as error:
            raise _undecodable(name, error) from error
        with picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise FmriModelsError(
                    f"The picture of {name} has {width} x {height} pixels; expected {MAX_PIXELS:,} in all at most; "
                    f"{_MEND}."
                )
            if isinstance(picture, JpegImageFile) and _has_too_many_scans(data):
                raise FmriModelsError(
                    f"The picture of {name} is a JPEG of more than {MAX_SCANS} scans, which no program writes; "
                    "save it again, or replace the file."
                )
            if isinstance(picture, PngImageFile):
                _check_sums(data, name)
            yield picture


def _check_sums(data: bytes, name: str) -> None:
    """Refuses a PNG whose chunks are not what was written: decoding alone does not look at the sums of its pixels."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
            again.verify()
    except Exception as error:
        raise _undecodable(name, error) from error


def _has_too_many_scans(data: bytes) -> bool:
    """Whether decoding a JPEG would take more passes over its pixels than it may; what metadata hold are none."""
    if data.count(bytes((0xFF, _SCAN))) <= MAX_SCANS:
        return False
    scans, place = 0, 0
    while (found := _SEGMENT.search(data, place)) is not None and found[1][0] != _END:
        scans += found[1][0] == _SCAN
        if scans > MAX_SCANS:
            return True
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return False


def _too_deep(name: str, found: str) -> FmriModelsError:
    return FmriModelsError(f"The picture of {name} has more than 8 bits a channel ({found}); save it with 8 bits.")


def _undecodable(name: str, error: Exception) -> FmriModelsError:
    if isinstance(error, Image.DecompressionBombError):
        return FmriModelsError(f"The picture of {name} has more than {MAX_PIXELS:,} pixels; {_MEND}.")
    unknown = isinstance(error, UnidentifiedImageError)
    reason = f"it is none of {', '.join(FORMATS)}" if unknown else one_line(error, 120)
    return FmriModelsError(f"The picture of {name} can't be decoded ({reason}); replace the file.")


def content_sha256(pixels: np.ndarray) -> str:
    """A hash of what is seen, equal for every lossless encoding of the same picture (grey, palette or RGB).

    Args:
        pixels: uint8 (H,W,1) or (H,W,3).
    """
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    digest = hashlib.sha256(f"{colour.shape} {colour.dtype} ".encode())
    digest.update(np.ascontiguousarray(colour).tobytes())
    return digest.hexdigest()


def _checked_pixels(pixels: np.ndarray, name: str) -> np.ndarray:
    shape_ok = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))
    if pixels.dtype != np.uint8 or not shape_ok or not pixels.size:
        raise FmriModelsError(
            f"The picture of {name} is an array of {pixels.dtype} with shape {pixels.shape}; expected uint8 (H, W), "
            "(H, W, 1) or (H, W, 3)."
        )
    if masked := int(np.ma.count_masked(pixels)):
        raise FmriModelsError(
            f"The picture of {name} is a masked array ({masked} of {pixels.size} values are masked), of which the "
            "masked values would be seen like the others; fill them (numpy.ma.filled)."
        )
    pixels = np.asarray(pixels)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
