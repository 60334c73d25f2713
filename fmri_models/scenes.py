"""Built-in stimuli: small colour pictures of one object in a landscape, drawn from a seed.

A scene is a pure function of one whole number. Its six factors (kind, colour, size, place, ground, time of day) are
independent and uniform, so that no factor can be guessed from another one; what else varies (a few pixels of position,
a few percent of size, a shade of the colour) carries no information and only keeps two scenes from being equal.
The distribution is fixed: everything that is trained on these pictures depends on it (docs/scenes.md).
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .errors import FmriModelsError

KINDS = ("house", "tree", "car", "boat", "fish", "star", "mushroom", "balloon")
COLOURS = {
    "red": (214, 38, 40),
    "orange": (248, 134, 14),
    "yellow": (252, 218, 46),
    "green": (36, 140, 62),
    "blue": (36, 84, 214),
    "purple": (134, 46, 178),
    "pink": (250, 132, 190),
    "brown": (126, 74, 34),
}
SIZES = {"small": 0.042, "medium": 0.082, "large": 0.145}
"""Share of the picture that an object covers, without its outline and before the jitter."""
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
GROUNDS = ("grass", "sand", "snow", "sea")
TIMES_OF_DAY = ("dawn", "day", "dusk", "night")

IMAGE_SIZE = 64
SEED_RANGES = {
    "generator": range(0, 200_000_000),
    "train": range(200_000_000, 400_000_000),
    "validation": range(400_000_000, 600_000_000),
    "test": range(600_000_000, 800_000_000),
    "generator_test": range(800_000_000, 1_000_000_000),
}
"""Scenes for training the embedded generator, for fMRI training, validation and test, and for the generator's card."""
SEED_STRIDE = 10_000
"""How far `seed` moves the first scene inside its range."""

_SUPERSAMPLING = 4
_CANVAS = IMAGE_SIZE * _SUPERSAMPLING
_MARGIN = 1.0
_OUTLINE = 0.55
_POSITION_JITTER = 1.5
_SIZE_JITTER = 0.05
_SHADE_JITTER = 8
_GRID = (0.06, 0.5, 0.94)

_CAPTIONS = (
    "a {size} {colour} {kind} at the {place}, on {ground} under a {time_of_day} sky",
    "a {time_of_day} sky over {ground} with a {size} {colour} {kind} at the {place}",
    "at the {place} there is a {kind}, {size} and {colour}; the ground is {ground}, the sky is a {time_of_day} sky",
    "a picture of a {colour} {kind}, {size}, {place}, {ground}, {time_of_day}",
)

Colour = tuple[int, int, int]
Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class SceneFactors:
    """What a scene shows."""

    kind: str
    colour: str
    size: str
    place: str
    ground: str
    time_of_day: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Scene:
    """One picture and what is known about it.

    Args:
        image: (64, 64, 3) uint8.
        factors: What it shows.
        captions: Several sentences that name all factors.
    """

    image: np.ndarray
    factors: SceneFactors
    captions: list[str]

    @property
    def category(self) -> str:
        return self.factors.kind


def scene(seed: int) -> Scene:
    """Draws the scene of a seed.

    Args:
        seed: Whole number from 0 to 999,999,999 (which numbers are for what: `SEED_RANGES`).

    Raises:
        FmriModelsError: The seed is out of range.
    """
    layout = _layout(seed)
    canvas = _landscape(layout.factors.ground, layout.factors.time_of_day).copy()
    _draw_object(canvas, layout, _inks(layout.colour))
    return Scene(np.array(canvas.reduce(_SUPERSAMPLING)), layout.factors, captions(layout.factors))


def object_mask(seed: int) -> np.ndarray:
    """Share of each pixel that the object of `scene(seed)` covers, outline included: (64, 64) float32 in [0, 1]."""
    mask = Image.new("L", (_CANVAS, _CANVAS), 0)
    _draw_object(mask, _layout(seed), dict.fromkeys(_INKS, 255))
    return np.asarray(mask.reduce(_SUPERSAMPLING), dtype=np.float32) / 255


def background(factors: SceneFactors) -> np.ndarray:
    """The picture (64, 64, 3) uint8 of a scene without its object; depends on the ground and the time of day alone."""
    return np.array(_landscape(factors.ground, factors.time_of_day).reduce(_SUPERSAMPLING))


def captions(factors: SceneFactors) -> list[str]:
    """Several sentences that name all factors."""
    return [template.format(**factors.to_dict()) for template in _CAPTIONS]


def stimulus_id(seed: int) -> str:
    """The name of a scene in a trial table."""
    return f"scene{seed:09d}"


def scene_seeds(purpose: str, num: int, seed: int = 0) -> range:
    """The seeds of the scenes that serve one purpose.

    Args:
        purpose: A key of `SEED_RANGES`.
        num: How many scenes.
        seed: Moves the first scene by `SEED_STRIDE`; requests of more than `SEED_STRIDE` scenes with neighboring seeds
            overlap, but never with another purpose.

    Raises:
        FmriModelsError: Unknown purpose, or the scenes would leave the purpose's range.
    """
    if purpose not in SEED_RANGES:
        raise FmriModelsError(f"Scenes were asked for {purpose!r}; expected one of {', '.join(SEED_RANGES)}.")
    allowed = SEED_RANGES[purpose]
    start = allowed.start + seed * SEED_STRIDE
    if num < 0 or seed < 0 or start + num > allowed.stop:
        raise FmriModelsError(
            f"{num} scenes for {purpose!r} with seed {seed} would leave the range {allowed.start} to "
            f"{allowed.stop - 1}; expected a seed from 0 to {len(allowed) // SEED_STRIDE - 1} and fewer scenes."
        )
    return range(start, start + num)


def scene_records(purpose: str, num: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Scenes as the records that `TrialTableWriter.add_stimuli` takes; arguments as in `scene_seeds`."""
    for scene_seed in scene_seeds(purpose, num, seed):
        drawn = scene(scene_seed)
        yield {
            "stimulus_id": stimulus_id(scene_seed),
            "image": drawn.image,
            "captions": drawn.captions,
            "category": drawn.category,
            "factors": drawn.factors.to_dict(),
        }


def factor_combinations_seen(
    train_factors: Iterable[SceneFactors | dict[str, str]], test_factors: Iterable[SceneFactors | dict[str, str]]
) -> float:
    """The share of test scenes whose combination of all six factors occurs in training.

    Raises:
        FmriModelsError: There are no test scenes.
    """
    seen = {_combination(factors) for factors in train_factors}
    hits = [_combination(factors) in seen for factors in test_factors]
    if not hits:
        raise FmriModelsError("There are no test scenes, so the share of combinations seen in training is undefined.")
    return sum(hits) / len(hits)


def _combination(factors: SceneFactors | dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((factors.to_dict() if isinstance(factors, SceneFactors) else factors).items()))


# ---------------------------------------------------------------------------------------------------------------------
# What is drawn where


@dataclass(frozen=True)
class _Layout:
    factors: SceneFactors
    center: tuple[float, float]
    scale: float
    colour: Colour


def _layout(seed: int) -> _Layout:
    if not 0 <= seed < 1_000_000_000:
        raise FmriModelsError(f"The scene seed is {seed}; expected a whole number from 0 to 999999999.")
    # Random.random() is the one method whose sequence Python promises to keep.
    draw = random.Random(seed).random
    factors = SceneFactors(
        kind=_pick(KINDS, draw),
        colour=_pick(tuple(COLOURS), draw),
        size=_pick(tuple(SIZES), draw),
        place=_pick(PLACES, draw),
        ground=_pick(GROUNDS, draw),
        time_of_day=_pick(TIMES_OF_DAY, draw),
    )
    shape = _SHAPES[factors.kind]
    scale = math.sqrt(SIZES[factors.size] * IMAGE_SIZE**2 / shape.area) * _jitter(1.0, _SIZE_JITTER, draw)
    row, column = divmod(PLACES.index(factors.place), 3)
    center = (
        _position(column, shape.half_width * scale, draw),
        _position(row, shape.half_height * scale, draw),
    )
    red, green, blue = (_shade(value, draw) for value in COLOURS[factors.colour])
    return _Layout(factors, center, scale, (red, green, blue))


def _pick(values: tuple[str, ...], draw: Callable[[], float]) -> str:
    return values[int(draw() * len(values))]


def _jitter(value: float, width: float, draw: Callable[[], float]) -> float:
    return value + width * (2 * draw() - 1)


def _shade(value: int, draw: Callable[[], float]) -> int:
    return min(255, max(0, round(_jitter(value, _SHADE_JITTER, draw))))


def _position(cell: int, half_extent: float, draw: Callable[[], float]) -> float:
    low = half_extent + _OUTLINE + _MARGIN
    high = IMAGE_SIZE - low
    return min(high, max(low, _jitter(low + _GRID[cell] * (high - low), _POSITION_JITTER, draw)))


# ---------------------------------------------------------------------------------------------------------------------
# Objects: polygons in a unit square (x to the right, y down), each with the name of its ink, from back to front


@dataclass(frozen=True)
class _Shape:
    layers: tuple[tuple[str, Polygon], ...]
    area: float
    half_width: float
    half_height: float


_INKS = ("outline", "main", "shade", "tint", "cream", "dark", "glass", "wood")


def _inks(main: Colour) -> dict[str, Colour]:
    return {
        "outline": _mix(main, (12, 10, 24), 0.72),
        "main": main,
        "shade": _mix(main, (20, 10, 40), 0.32),
        "tint": _mix(main, (255, 255, 255), 0.42),
        "cream": (255, 246, 220),
        "dark": (44, 42, 54),
        "glass": (206, 232, 248),
        "wood": (112, 70, 40),
    }


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return (left, top), (right, top), (right, bottom), (left, bottom)


def _ellipse(
    x: float, y: float, half_width: float, half_height: float, start: float = 0, stop: float = 360, steps: int = 36
) -> Polygon:
    angles = [math.radians(start + (stop - start) * step / steps) for step in range(steps + (stop - start < 360))]
    return tuple((x + half_width * math.cos(angle), y + half_height * math.sin(angle)) for angle in angles)


def _star(radius: float, inner: float) -> Polygon:
    radii = [radius if corner % 2 == 0 else inner for corner in range(10)]
    angles = [math.radians(-90 + 36 * corner) for corner in range(10)]
    return tuple((r * math.cos(angle), r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True))


_LAYERS: dict[str, list[tuple[str, Polygon]]] = {
    "house": [
        ("shade", _box(0.42, -0.92, 0.66, -0.3)),
        ("main", _box(-0.78, -0.12, 0.78, 0.92)),
        ("shade", ((-1.04, -0.1), (0.0, -0.98), (1.04, -0.1))),
        ("cream", _box(-0.56, 0.12, -0.12, 0.5)),
        ("dark", _box(0.16, 0.22, 0.54, 0.92)),
    ],
    "tree": [
        ("wood", _box(-0.16, 0.6, 0.16, 1.06)),
        ("shade", ((0.0, -0.4), (0.9, 0.74), (-0.9, 0.74))),
        ("main", ((0.0, -0.78), (0.74, 0.22), (-0.74, 0.22))),
        ("tint", ((0.0, -1.1), (0.54, -0.32), (-0.54, -0.32))),
    ],
    "car": [
        ("main", ((-0.62, -0.04), (-0.4, -0.58), (0.3, -0.58), (0.62, -0.04))),
        ("main", ((-1.1, 0.04), (-1.0, -0.1), (0.72, -0.1), (1.06, 0.06), (1.12, 0.44), (-1.12, 0.44))),
        ("glass", ((-0.46, -0.08), (-0.3, -0.44), (-0.06, -0.44), (-0.06, -0.08))),
        ("glass", ((0.06, -0.08), (0.06, -0.44), (0.22, -0.44), (0.44, -0.08))),
        ("dark", _ellipse(-0.6, 0.44, 0.28, 0.28)),
        ("dark", _ellipse(0.6, 0.44, 0.28, 0.28)),
        ("glass", _ellipse(-0.6, 0.44, 0.11, 0.11)),
        ("glass", _ellipse(0.6, 0.44, 0.11, 0.11)),
    ],
    "boat": [
        ("wood", _box(-0.13, -1.1, -0.01, 0.42)),
        ("tint", ((0.05, -1.06), (0.05, 0.26), (0.9, 0.26))),
        ("cream", ((-0.19, -0.8), (-0.19, 0.26), (-0.74, 0.26))),
        ("main", ((-1.1, 0.36), (1.12, 0.36), (0.78, 0.92), (-0.78, 0.92))),
        ("shade", ((-0.92, 0.66), (0.94, 0.66), (0.78, 0.92), (-0.78, 0.92))),
    ],
    "fish": [
        ("shade", ((0.5, 0.0), (1.12, -0.58), (0.98, 0.0), (1.12, 0.58))),
        ("shade", ((-0.3, -0.42), (0.14, -0.82), (0.36, -0.3))),
        ("main", _ellipse(-0.2, 0.0, 0.88, 0.54)),
        ("tint", _ellipse(-0.22, 0.2, 0.56, 0.24)),
        ("cream", _ellipse(-0.66, -0.14, 0.17, 0.17)),
        ("dark", _ellipse(-0.69, -0.14, 0.09, 0.09)),
    ],
    "star": [
        ("main", _star(1.08, 0.58)),
        ("tint", _star(0.6, 0.32)),
    ],
    "mushroom": [
        ("cream", ((-0.3, 0.0), (0.3, 0.0), (0.42, 0.86), (0.24, 0.98), (-0.24, 0.98), (-0.42, 0.86))),
        ("main", (*_ellipse(0.0, 0.1, 1.06, 0.96, 180, 360), (0.86, 0.24), (-0.86, 0.24))),
        ("cream", _ellipse(-0.46, -0.22, 0.2, 0.18)),
        ("cream", _ellipse(0.16, -0.5, 0.2, 0.18)),
        ("cream", _ellipse(0.56, -0.06, 0.17, 0.15)),
    ],
    "balloon": [
        ("dark", ((-0.46, 0.3), (-0.4, 0.3), (-0.15, 0.84), (-0.21, 0.84))),
        ("dark", ((0.46, 0.3), (0.4, 0.3), (0.15, 0.84), (0.21, 0.84))),
        ("main", (*_ellipse(0.0, -0.34, 0.8, 0.8, 150, 390), (0.26, 0.56), (-0.26, 0.56))),
        ("tint", (*_ellipse(0.0, -0.34, 0.32, 0.8, 165, 375), (0.11, 0.56), (-0.11, 0.56))),
        ("wood", _box(-0.26, 0.8, 0.26, 1.16)),
    ],
}


def _shape(layers: list[tuple[str, Polygon]]) -> _Shape:
    """Moves an object's bounding box to the origin and measures it."""
    points = [point for _, polygon in layers for point in polygon]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    x, y = (left + right) / 2, (top + bottom) / 2
    centered = tuple((ink, tuple((px - x, py - y) for px, py in polygon)) for ink, polygon in layers)
    resolution = 200
    raster = Image.new("1", (3 * resolution, 3 * resolution))
    pen = ImageDraw.Draw(raster)
    for _, polygon in centered:
        pen.polygon([((px + 1.5) * resolution, (py + 1.5) * resolution) for px, py in polygon], fill=1)
    area = float(np.asarray(raster).sum()) / resolution**2
    return _Shape(centered, area, (right - left) / 2, (bottom - top) / 2)


_SHAPES = {kind: _shape(_LAYERS[kind]) for kind in KINDS}


def _draw_object(canvas: Image.Image, layout: _Layout, inks: dict[str, Any]) -> None:
    """Draws the outline of the whole object first, then its parts over it, so that only the outer half stays."""
    x, y = layout.center
    layers = [
        (ink, [((x + layout.scale * px) * _SUPERSAMPLING, (y + layout.scale * py) * _SUPERSAMPLING) for px, py in part])
        for ink, part in _SHAPES[layout.factors.kind].layers
    ]
    pen = ImageDraw.Draw(canvas)
    width = round(2 * _OUTLINE * _SUPERSAMPLING)
    for _, points in layers:
        pen.line([*points, points[0], points[1]], fill=inks["outline"], width=width, joint="curve")
    for ink, points in layers:
        pen.polygon(points, fill=inks[ink])


# ---------------------------------------------------------------------------------------------------------------------
# Landscapes

_HORIZON = 39.0
# Color of the sky at the top and at the horizon, of the light that falls on the ground, and the light's strength.
_SKIES: dict[str, tuple[Colour, Colour, Colour]] = {
    "dawn": ((158, 196, 232), (255, 216, 206), (255, 226, 222)),
    "day": ((92, 172, 244), (206, 236, 255), (255, 255, 255)),
    "dusk": ((92, 84, 150), (255, 176, 116), (206, 146, 140)),
    "night": ((12, 16, 46), (48, 56, 110), (98, 104, 160)),
}
# Color of a ground near and far.
_GROUND_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "grass": ((124, 178, 84), (158, 204, 112)),
    "sand": ((222, 188, 132), (240, 214, 164)),
    "snow": ((226, 234, 246), (248, 250, 255)),
    "sea": ((52, 132, 164), (104, 182, 200)),
}


@cache
def _landscape(ground: str, time_of_day: str) -> Image.Image:
    top, horizon, light = _SKIES[time_of_day]
    near, far = (_lit(colour, light) for colour in _GROUND_COLOURS[ground])
    rows = (np.arange(_CANVAS) + 0.5) / _SUPERSAMPLING
    sky = _gradient(top, horizon, rows / _HORIZON)
    land = _gradient(far, near, (rows - _HORIZON) / (IMAGE_SIZE - _HORIZON))
    columns = (np.arange(_CANVAS) + 0.5) / _SUPERSAMPLING
    is_land = rows[:, None] >= _HORIZON + _hills(ground, columns)[None, :]
    canvas = Image.fromarray(np.where(is_land[..., None], land[:, None], sky[:, None]).round().astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    _draw_sky(pen, time_of_day)
    # What hangs low in the sky sets behind the land.
    canvas.paste(
        Image.fromarray(np.broadcast_to(land[:, None], (_CANVAS, _CANVAS, 3)).round().astype(np.uint8)),
        mask=Image.fromarray((is_land * 255).astype(np.uint8)),
    )
    _draw_ground(ImageDraw.Draw(canvas), ground, near, far)
    return canvas


def _lit(colour: Colour, light: Colour) -> Colour:
    red, green, blue = (round(a * b / 255) for a, b in zip(colour, light, strict=True))
    return red, green, blue


def _gradient(first: Colour, second: Colour, share: np.ndarray) -> np.ndarray:
    return np.asarray(first) + (np.asarray(second) - np.asarray(first)) * np.clip(share, 0, 1)[:, None]


def _hills(ground: str, x: np.ndarray) -> np.ndarray:
    """Height of the skyline below the horizon, in pixels."""
    if ground == "grass":
        return 1.6 * np.sin(2 * np.pi * x / 41 + 0.6)
    if ground == "sand":
        return 1.2 * np.sin(2 * np.pi * x / 58 + 3.0) - 0.8 * np.abs(np.sin(2 * np.pi * x / 76 + 0.4))
    if ground == "snow":
        return -2.6 * np.maximum(0, np.sin(2 * np.pi * x / 52 + 2.2)) + 0.6
    return np.zeros_like(x)


def _draw_sky(pen: ImageDraw.ImageDraw, time_of_day: str) -> None:
    if time_of_day == "dawn":
        _disc(pen, 12, 36, 5.0, (255, 246, 200))
    elif time_of_day == "day":
        for x, y, size in ((13, 9, 1.0), (46, 15, 1.25)):
            _cloud(pen, x, y, size, (248, 252, 255))
    elif time_of_day == "dusk":
        _disc(pen, 50, 35, 6.0, (255, 214, 120))
    else:
        _disc(pen, 53, 9, 4.4, (246, 242, 214))
        for x, y in ((7, 6), (17, 15), (27, 5), (36, 13), (11, 26), (43, 24), (58, 28), (29, 24)):
            _disc(pen, x, y, 0.55, (226, 230, 250))


def _draw_ground(pen: ImageDraw.ImageDraw, ground: str, near: Colour, far: Colour) -> None:
    dark, bright = _mix(near, (0, 20, 30), 0.2), _mix(far, (255, 255, 255), 0.4)
    if ground == "grass":
        for x, y in ((6, 49), (19, 57), (31, 47), (43, 59), (54, 50), (61, 60), (9, 61)):
            _stroke(pen, ((x - 1.6, y - 2.4), (x - 0.4, y), (x, y - 3.0), (x + 0.5, y), (x + 1.7, y - 2.4)), dark, 0.6)
    elif ground == "sand":
        for x, y, length in ((4, 48, 16), (34, 46, 20), (14, 55, 22), (42, 60, 18)):
            _stroke(pen, _wave(x, y, length, 1.0, length), dark, 0.55)
    elif ground == "snow":
        for x, y, length in ((2, 50, 20), (36, 47, 22), (20, 58, 26)):
            _stroke(pen, _wave(x, y, length, 1.3, 2 * length), _mix(near, (60, 90, 170), 0.22), 0.8)
    else:
        waves = ((3, 44, 12), (25, 42, 9), (47, 45, 13), (12, 51, 16), (40, 53, 17), (2, 59, 15), (27, 60, 18))
        for x, y, length in waves:
            _stroke(pen, _wave(x, y, length, 0.7, length / 2), bright, 0.7)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: Colour) -> None:
    pen.ellipse([value * _SUPERSAMPLING for value in (x - radius, y - radius, x + radius, y + radius)], fill=fill)


def _cloud(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, fill: Colour) -> None:
    for dx, dy, radius in ((-4, 0.6, 2.4), (0, -0.6, 3.4), (4, 0.4, 2.6)):
        _disc(pen, x + dx * size, y + dy * size, radius * size, fill)


def _wave(x: float, y: float, length: float, height: float, period: float) -> Polygon:
    steps = 24
    return tuple(
        (x + length * step / steps, y + height * math.sin(2 * math.pi * length * step / steps / period))
        for step in range(steps + 1)
    )


def _stroke(pen: ImageDraw.ImageDraw, points: Polygon, fill: Colour, width: float) -> None:
    scaled = [(px * _SUPERSAMPLING, py * _SUPERSAMPLING) for px, py in points]
    pen.line(scaled, fill=fill, width=max(1, round(width * _SUPERSAMPLING)), joint="curve")
