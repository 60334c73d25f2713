"""One reader of picture files: the same file gives the same pixels to a table, a report of pictures, and a gallery."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.generator_pictures import pictures_to_embed
from fmri_models.data.picture_files import PICTURE_ENDINGS, named_pictures
from fmri_models.data.pictures import decode_picture, encode_picture, read_picture
from fmri_models.data.stimuli import read_stimuli
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.gallery import _from_folder
from fmri_models.evaluation.images import load_matched
from fmri_models.generation.pixels import PixelsImageGenerator

WIDTH, HEIGHT = 12, 8
ORIENTATION = 0x0112
# What is stored so that it is upright once it is turned as each orientation says.
STORED = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def upright(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(mode: str, alpha: np.ndarray) -> Image.Image:
    picture = upright().convert(mode.replace("A", "") or "L")
    picture.putalpha(Image.fromarray(alpha))
    return picture


def over_white(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture.convert("RGBA"), dtype=float)
    alpha = values[..., 3:] / 255
    return values[..., :3] * alpha + 255 * (1 - alpha)


def turned(kind: str, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = STORED[orientation]
    return encoded(upright() if stored is None else upright().transpose(stored), kind, exif=exif, **options)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# Sixteen greys, of which the file of few bits keeps the upper ones.
NIBBLES = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 16


def few_greys(bits: int, clear: int) -> bytes:
    """A grey PNG of less than eight bits with a transparent grey."""
    places = (NIBBLES >> (4 - bits))[..., None] >> np.arange(bits)[::-1] & 1
    rows = b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in places.astype(np.uint8))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"tRNS", struct.pack(">H", clear)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)


def few_greys_shown(bits: int, clear: int) -> np.ndarray:
    greys = NIBBLES >> (4 - bits)
    return np.where(greys == clear, 255, greys * (255 // (2**bits - 1)))[..., None]


def late_exif() -> bytes:
    """A PNG whose Exif comes behind the pixels, as the format allows."""
    data = encoded(upright().transpose(Image.Transpose.ROTATE_90))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    return data[:-12] + chunk(b"eXIf", body) + data[-12:]


ALPHA = np.linspace(0, 255, WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH)
PALETTE = upright().quantize(16)
CMYK = upright().convert("CMYK")
PLAIN = np.asarray(upright(), dtype=float)
GREY = np.asarray(upright().convert("L"), dtype=float)[..., None]

# Name: file, what is seen of it, and how far JPEG and rounding may be off.
ZOO: dict[str, tuple[bytes, np.ndarray, float]] = {
    "rgb.png": (encoded(upright()), PLAIN, 0),
    "UPPER.PNG": (encoded(upright()), PLAIN, 0),
    "rgb.bmp": (encoded(upright(), "BMP"), PLAIN, 0),
    "rgb.ppm": (encoded(upright(), "PPM"), PLAIN, 0),
    "rgb.tif": (encoded(upright(), "TIFF"), PLAIN, 0),
    "rgb.webp": (encoded(upright(), "WEBP", lossless=True), PLAIN, 0),
    "grey.png": (encoded(upright().convert("L")), GREY, 0),
    "one_bit.png": (encoded(upright().convert("1")), np.asarray(upright().convert("1"))[..., None] * 255, 0),
    "palette.png": (encoded(PALETTE), np.asarray(PALETTE.convert("RGB")), 0),
    "palette.gif": (encoded(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB")), 0),
    "clear_palette.png": (encoded(PALETTE, transparency=3),
                          np.where((np.asarray(PALETTE) == 3)[..., None], 255, PALETTE.convert("RGB")), 0),
    "clear_palette.gif": (encoded(PALETTE, "GIF", transparency=3),
                          np.where((np.asarray(PALETTE) == 3)[..., None], 255, PALETTE.convert("RGB")), 0),
    "rgba.png": (encoded(with_alpha("RGBA", ALPHA)), over_white(with_alpha("RGBA", ALPHA)), 1),
    "rgba.tif": (encoded(with_alpha("RGBA", ALPHA), "TIFF"), over_white(with_alpha("RGBA", ALPHA)), 1),
    "rgba.webp": (encoded(with_alpha("RGBA", ALPHA), "WEBP", lossless=True, exact=True),
                  over_white(with_alpha("RGBA", ALPHA)), 1),
    "la.png": (encoded(with_alpha("LA", ALPHA)), over_white(with_alpha("LA", ALPHA))[..., :1], 1),
    "key_colour.png": (encoded(upright(), transparency=tuple(PLAIN[0, 0].astype(int).tolist())),
                       np.where((PLAIN[0, 0] == PLAIN).all(-1, keepdims=True), 255, PLAIN), 0),
    "key_grey.png": (encoded(upright().convert("L"), transparency=int(GREY[0, 0, 0])),
                     np.where(GREY[0, 0] == GREY, 255, GREY), 0),
    **{f"key_grey{bits}_{clear}.png": (few_greys(bits, clear), few_greys_shown(bits, clear), 0)
       for bits, clear in ((1, 0), (1, 1), (2, 0), (2, 2), (4, 0), (4, 8), (4, 15))},
    "cmyk.tif": (encoded(CMYK, "TIFF"), np.asarray(CMYK.convert("RGB")), 0),
    "cmyk.jpg": (encoded(CMYK, "JPEG", quality=100, subsampling=0), np.asarray(CMYK.convert("RGB")), 60),
    "late_exif.png": (late_exif(), PLAIN, 0),
    **{f"exif{n}.png": (turned("PNG", n), PLAIN, 0) for n in STORED},
    **{f"exif{n}.tiff": (turned("TIFF", n), PLAIN, 0) for n in STORED},
    **{f"exif{n}.webp": (turned("WEBP", n, lossless=True), PLAIN, 0) for n in (1, 3, 6, 8)},
    **{f"exif{n}.JPEG": (turned("JPEG", n, quality=100, subsampling=0), PLAIN, 12) for n in STORED},
}  # fmt: skip


def deep(colour: bool) -> bytes:
    """A PNG of 16 bits a channel."""
    values = (np.asarray(upright() if colour else upright().convert("L"), dtype=">u2") * 257).reshape(HEIGHT, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2 if colour else 0, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += chunk(name, body)
    return data


FRAMES = {"save_all": True, "append_images": [upright(1), upright(2)]}
REFUSED: dict[str, tuple[bytes, str]] = {
    "grey16.png": (deep(colour=False), "more than 8 bits a channel"),
    "rgb16.png": (deep(colour=True), "more than 8 bits a channel"),
    "grey16.tif": (encoded(Image.fromarray(GREY[..., 0].astype(np.uint16) * 257), "TIFF"), "more than 8 bits"),
    "grey32.tif": (encoded(Image.fromarray(GREY[..., 0].astype(np.int32)), "TIFF"), "more than 8 bits"),
    "float.tif": (encoded(Image.fromarray(GREY[..., 0].astype(np.float32) / 255), "TIFF"), "more than 8 bits"),
    "rgb16.ppm": (b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + bytes(WIDTH * HEIGHT * 6), "more than 8 bits"),
    "grey16.pgm": (b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + bytes(WIDTH * HEIGHT * 2), "more than 8 bits"),
    "film.gif": (encoded(upright(), "GIF", **FRAMES), "a GIF of several frames or pages; expected a single one"),
    "film.png": (encoded(upright(), "PNG", **FRAMES), "a PNG of several frames"),
    "film.webp": (encoded(upright(), "WEBP", **FRAMES), "a WEBP of several frames"),
    "pages.tif": (encoded(upright(), "TIFF", **FRAMES), "a TIFF of several frames"),
}  # fmt: skip


def of_table(folder: Path, out: Path, name: str) -> torch.Tensor:
    source = read_stimuli(folder)
    with TrialTableWriter(out, "zoo") as writer:
        writer.add_stimuli(source)
        writer.add_trials("subj01", "train", source.ids, np.random.default_rng(0).normal(size=(len(source), 3)))
    images = TrialTable.open(out).stimuli.images([name])
    return pictures_to_embed(images, PixelsImageGenerator(images.shape[3], HEIGHT, WIDTH))


class Pipeline:
    """What a gallery needs of one."""

    def __init__(self, channels: int) -> None:
        self.image_generator = PixelsImageGenerator(channels, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ZOO)
def test_a_file_is_one_picture_everywhere(name: str, tmp_path: Path) -> None:
    data, seen, tolerance = ZOO[name]
    pixels = read_picture(data, name)
    assert pixels.dtype == np.uint8
    assert pixels.shape == seen.shape
    assert np.abs(pixels.astype(float) - seen).max() <= tolerance
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / name).write_bytes(data)
    np.testing.assert_array_equal(read_picture(folder / name, name), pixels)
    np.testing.assert_array_equal(decode_picture(data, name), pixels)
    table = of_table(folder, tmp_path / "table", name.partition(".")[0])
    assert torch.equal(table, torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255)
    _, truth, recon, _ = load_matched(folder, folder)
    assert torch.equal(truth, table)
    assert torch.equal(recon, table)
    pipeline = Pipeline(pixels.shape[2])
    expected = pipeline.image_generator.embed_images(table).flatten(1)
    assert torch.equal(torch.from_numpy(_from_folder(pipeline, folder).embeds), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_in_part_is_refused_everywhere(name: str, tmp_path: Path) -> None:
    data, message = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    readers: list[Callable[[], object]] = [
        lambda: read_picture(data, name),
        lambda: of_table(tmp_path, tmp_path.parent / "table", name.partition(".")[0]),
        lambda: load_matched(tmp_path, tmp_path),
        lambda: _from_folder(Pipeline(3), tmp_path),
    ]
    for read in readers:
        with pytest.raises(FmriModelsError, match=message):
            read()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_opened_picture_is_refused_as_its_file_is(name: str) -> None:
    with pytest.raises(FmriModelsError, match=REFUSED[name][1]):
        encode_picture(Image.open(io.BytesIO(REFUSED[name][0])), "it")


@pytest.mark.parametrize("name", sorted(ZOO))
def test_an_opened_picture_is_the_one_of_its_file(name: str) -> None:
    data, _, _ = ZOO[name]
    opened = Image.open(io.BytesIO(data))
    before = opened.info.get("transparency")
    np.testing.assert_array_equal(read_picture(encode_picture(opened, "it"), "it"), read_picture(data, "it"))
    assert opened.info.get("transparency") == before


def test_a_decoded_picture_of_few_greys_does_not_say_which_is_transparent() -> None:
    decoded = Image.open(io.BytesIO(few_greys(4, 8)))
    decoded.load()
    with pytest.raises(FmriModelsError, match=r"which grey is transparent \(8 of 16 or of 256\); give the file"):
        encode_picture(decoded, "it")
    # A file of eight bits with few greys says it.
    posterised = encoded(Image.fromarray((NIBBLES * 17).astype(np.uint8)), transparency=8)
    np.testing.assert_array_equal(read_picture(posterised, "it")[..., 0], NIBBLES * 17)


def test_masked_pixels_are_refused() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(FmriModelsError, match=r"it is a masked array \(48 of 48 values are masked\)"):
        encode_picture(np.ma.masked_array(pixels, True), "it")
    assert encode_picture(np.ma.masked_array(pixels), "it") == encode_picture(pixels, "it")


def test_a_photograph_of_a_phone_that_has_a_second_picture_is_a_photograph() -> None:
    data = encoded(upright(), "MPO", save_all=True, append_images=[upright(1)], quality=100, subsampling=0)
    assert np.abs(read_picture(data, "it").astype(float) - PLAIN).max() <= 12


def test_a_table_of_an_earlier_version_may_have_films() -> None:
    film = REFUSED["film.gif"][0]
    assert decode_picture(film, "it").shape == (HEIGHT, WIDTH, 3)


@given(
    pixels=st.integers(0, 2**32 - 1), mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]),
    orientation=st.sampled_from(sorted(STORED)), kind=st.sampled_from(["PNG", "TIFF", "WEBP"]),
)  # fmt: skip
def test_modes_and_orientations_do_not_depend_on_each_other(
    pixels: int, mode: str, orientation: int, kind: str
) -> None:
    rng = np.random.default_rng(pixels)
    picture = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)).convert("RGBA")
    picture = picture.convert("RGB").quantize(8) if mode == "P" else picture.convert(mode)
    if kind == "WEBP" and mode in ("1", "P", "LA"):
        picture = picture.convert("RGBA" if mode == "LA" else "RGB")
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = STORED[orientation]
    sideways = picture if stored is None else picture.transpose(stored)
    plain = read_picture(encoded(picture, kind, **options), "it")
    np.testing.assert_array_equal(read_picture(encoded(sideways, kind, exif=exif, **options), "it"), plain)


def test_the_pictures_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "B.JPG", "c.webp", "d.Tiff"):
        (tmp_path / name).write_bytes(b"?")
    for name in (".hidden.png", "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "THUMBS.DB"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "__MACOSX").mkdir()
    for name in ("notes.txt", "e.heic"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "thumbs").mkdir()
    found = named_pictures(tmp_path)
    assert sorted(found.files) == ["B", "a", "c", "d"]
    assert found.skipped == ["e.heic", "notes.txt", "thumbs"]
    (tmp_path / "a.gif").write_bytes(b"?")
    with pytest.raises(FmriModelsError, match=r"two pictures with the name a \(a\.gif, a\.png\); keep one"):
        named_pictures(tmp_path)


def test_names_are_compared_by_what_is_read_and_not_by_how_letters_are_stored(tmp_path: Path) -> None:
    for name in ("e\u0301.png", "S.png", "s.png"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "gone.png").symlink_to(tmp_path / "absent")
    (tmp_path / "more").symlink_to(tmp_path.parent)
    found = named_pictures(tmp_path)
    assert sorted(found.files) == ["S", "s", "\u00e9"] and found.files["\u00e9"].name == "e\u0301.png"
    skipped, alike = found.notes("here")
    assert "gone.png (a link to nothing that can be read), more (a link to a folder)" in skipped
    assert "differ from others in upper and lower case alone (S.png, s.png)" in alike
    (tmp_path / "\u00e9.png").write_bytes(b"?")
    with pytest.raises(FmriModelsError, match="two pictures with the name \u00e9"):
        named_pictures(tmp_path)


def test_every_ending_is_one_of_a_format_that_is_read(tmp_path: Path) -> None:
    known = Image.registered_extensions()
    for ending in PICTURE_ENDINGS:
        assert known[ending] in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"), ending


@given(place=st.integers(0, 2**16), bit=st.integers(0, 7))
def test_a_png_with_a_changed_bit_is_refused(place: int, bit: int) -> None:
    data = bytearray(encoded(upright()))
    # Chunks alone have sums; the eight bytes before them say what the file is, and the last chunk ends it.
    data[8 + place % (len(data) - 20)] ^= 1 << bit
    with pytest.raises(FmriModelsError, match="can't be decoded|more than|none of"):
        read_picture(bytes(data), "changed")
