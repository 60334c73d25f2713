"""Test pictures that are there in the training once more: recompressed, with a changed pixel, grey, mirrored ...

Random projections of all pictures shortlist, in chunks that fit into memory; the correlation of the pictures decides.
"""

import re
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..progress import bar
from ..scenes import scene, stimulus_id
from .picture_correlation import best_match, centred, grey
from .pictures import content_sha256, decode_picture

# The common size: that of the first picture, as far as it lies between these.
_SMALLEST_SIDE, _LARGEST_SIDE = 32, 128
# At .99 the cosine of projections errs by .0018 (1 - r² over the root of their number), and is above this for certain.
_PROJECTIONS = 128
_SHORTLISTED = 0.975
_ORDER_BY_CONTRAST = 0.005
# Pictures of which one is cropped or has a frame differ in detail; this small, without some of the margin, they don't.
_COARSE_SIDE = 12
_COARSE_MARGIN = 0.04
_SHORTLISTED_COARSE = 0.9
_CANDIDATES = 4
_PICTURES_A_BATCH = 64
_TESTS_AT_ONCE, _OTHERS_AT_ONCE, _PAIRS_AT_ONCE = 512, 4096, 1024
# Of 256 levels: below it a sketch is rounding.
_LEAST_LENGTH = 0.05
_SCENE = re.compile(r"scene([0-9]{9})")


@dataclass(frozen=True)
class NearCopy:
    """A stimulus, and the one that shows (nearly) the same picture.

    Args:
        stimulus: The one that is tested.
        copy_of: Another one.
        correlation: Pearson's r of the pixels, see `picture_correlation.correlations`; 1 for two equal flat pictures.
        mirrored: Whether one of them had to be mirrored for it.
        cropped: Whether the margin of one of them had to be left out for it.
    """

    stimulus: str
    copy_of: str
    correlation: float
    mirrored: bool = False
    cropped: bool = False

    def __str__(self) -> str:
        changes = [word for word in ("mirrored", "cropped") if getattr(self, word)]
        return f"{self.stimulus} and {self.copy_of} ({', '.join([f'r = {self.correlation:.4f}', *changes])})"


class EncodedPictures(Protocol):
    """Pictures that can be compared; the stimuli of a table are some."""

    def encoded(self, ids: Sequence[str], /) -> Iterator[tuple[str, bytes | None]]:
        """Ids and the bytes of their image files, in any order; None where a picture is missing."""

    def content_hashes(self, ids: Sequence[str], /) -> list[str | None]:
        """SHA-256 of each picture's pixels."""


class PictureSketches:
    """What pictures are compared by, 2 KiB each; those that are missing from the table are left out.

    Args:
        stimuli: Of a table, or other pictures.
        ids: Which of them.
        name: Of bars that say how far it is, as the beginning of a sentence; empty for none.
    """

    def __init__(self, stimuli: EncodedPictures, ids: Iterable[str], name: str = "") -> None:
        self._stimuli = stimuli
        self._name = name
        self._size: tuple[int, int] | None = None
        self._verdicts: dict[tuple[str, str], NearCopy | None] = {}
        self._position_of: dict[str, int] = {}
        self._flat: dict[str, bytes] = {}
        straight, mirrored, wanted = [], [], sorted(set(ids))
        with self._bar(wanted, "picture") as done:
            for names, pictures in self._batches(wanted):
                for each, picture in zip(names, pictures, strict=True):
                    self._position_of[each] = len(self._position_of)
                    if (picture == picture[0, 0]).all():
                        self._flat[each] = picture[0, 0].tobytes()
                straight.append((*_sketched(pictures), _log_contrast(pictures)))
                mirrored.append(_sketched(pictures[:, :, ::-1])[:-1])
                done.update(len(names))
        self._straight, self._mirrored = _joined(straight), _joined(mirrored)

    def near_copies(self, test: Iterable[str], others: Iterable[str]) -> list[NearCopy]:
        """For each tested stimulus whose picture is (nearly) among the others, the pair that correlates most.

        Pictures that the package itself has drawn, each from its own seed, are no copies of each other unless they are
        equal.

        Args:
            test: Ids that were given on construction.
            others: Ids that were given on construction; those that are tested are left out.
        """
        tested = sorted(name for name in set(test) if name in self._position_of)
        known = sorted(name for name in set(others) - set(tested) if name in self._position_of)
        flat = {pixel: name for name in reversed(known) if (pixel := self._flat.get(name)) is not None}
        found = {name: NearCopy(name, flat[self._flat[name]], 1.0) for name in tested if self._flat.get(name) in flat}
        shortlist = self._shortlisted(tested, known)
        self._decide([(name, other) for name, candidates in shortlist.items() for other in candidates])
        for name, candidates in shortlist.items():
            verdicts = [verdict for other in candidates if (verdict := self._verdicts[name, other]) is not None]
            if verdicts:
                found[name] = max(verdicts, key=lambda verdict: verdict.correlation)
        return [found[name] for name in tested if name in found]

    def _bar(self, things: Sized, unit: str) -> Any:
        """A bar that counts things; it says nothing of what takes a moment."""
        return bar(name=self._name, total=len(things), unit=unit, disable=not self._name, delay=1.0)

    def _batches(self, ids: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Ids and their pictures, uint8 (n, height, width, 3) of the common size."""
        names: list[str] = []
        pictures: list[np.ndarray] = []
        for name, data in self._stimuli.encoded(ids):
            if data is None:
                continue
            pixels = decode_picture(data, f"stimulus {name}")
            if self._size is None:
                height, width = (min(max(side, _SMALLEST_SIDE), _LARGEST_SIDE) for side in pixels.shape[:2])
                self._size = (width, height)
            names.append(name)
            pictures.append(_resized(pixels, self._size))
            if len(names) == _PICTURES_A_BATCH:
                yield names, np.stack(pictures)
                names, pictures = [], []
        if names:
            yield names, np.stack(pictures)

    def _shortlisted(self, tested: Sequence[str], known: Sequence[str]) -> dict[str, list[str]]:
        """For each tested stimulus those that may be a copy of it, few of them, the most similar first."""
        shortlist: dict[str, list[str]] = {}
        for start in range(0, len(tested), _TESTS_AT_ONCE):
            names = tested[start : start + _TESTS_AT_ONCE]
            rows = [self._position_of[name] for name in names]
            candidates: list[list[tuple[float, str]]] = [[] for _ in names]
            for first in range(0, len(known), _OTHERS_AT_ONCE):
                others = known[first : first + _OTHERS_AT_ONCE]
                columns = [self._position_of[name] for name in others]
                for similarity in self._similarities(rows, columns):
                    for row, column in _largest(similarity):
                        candidates[row].append((-float(similarity[row, column]), others[column]))
            for name, found in zip(names, candidates, strict=True):
                if found:
                    shortlist[name] = list(dict.fromkeys(other for _, other in sorted(found)))[: 3 * _CANDIDATES]
        return shortlist

    def _similarities(self, rows: Sequence[int], columns: Sequence[int]) -> Iterator[np.ndarray]:
        """How far above their bounds sketches of one sort are, (rows, columns); below 0 is not shortlisted."""
        light, colour, coarse, cropped, contrast = (sketch[columns].astype(np.float32).T for sketch in self._straight)
        own = [sketch[rows].astype(np.float32) for sketch in self._straight]
        mirrored = [sketch[rows].astype(np.float32) for sketch in self._mirrored]
        # Each for itself, and luminance of the same contrast first: where shapes come in many colours, the luminance of
        # all of them is that of the tested one.
        yield np.maximum(own[1] @ colour, mirrored[1] @ colour) - _SHORTLISTED
        other_contrast = np.minimum(np.abs(own[4] - contrast), 1) * _ORDER_BY_CONTRAST
        yield np.maximum(own[0] @ light, mirrored[0] @ light) - other_contrast - _SHORTLISTED
        small = (own[2] @ coarse, own[2] @ cropped, own[3] @ coarse, mirrored[2] @ coarse)
        yield np.maximum.reduce(small) - _SHORTLISTED_COARSE

    def _decide(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Compares the pictures of pairs, so many at a time as fit into memory."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._verdicts]
        self._verdicts |= dict.fromkeys(new)
        with self._bar(new, "pair") as done:
            left = []
            for one, other in new:
                if self._are_drawn(one, other):
                    done.update()
                else:
                    left.append((one, other))
            for start in range(0, len(left), _PAIRS_AT_ONCE):
                chunk = left[start : start + _PAIRS_AT_ONCE]
                ids = sorted({name for pair in chunk for name in pair})
                pictures = {
                    name: picture
                    for names, batch in self._batches(ids)
                    for name, picture in zip(names, batch, strict=True)
                }
                for one, other in chunk:
                    found = best_match(pictures[one], pictures[other])
                    self._verdicts[one, other] = None if found is None else NearCopy(one, other, *found)
                    done.update()

    def _are_drawn(self, one: str, other: str) -> bool:
        """Whether both are built-in scenes as their seeds draw them, which differ."""
        hashes = self._stimuli.content_hashes([one, other])
        return hashes[0] != hashes[1] and all(
            hashed is not None and hashed == _hash_of_scene(name)
            for name, hashed in zip((one, other), hashes, strict=True)
        )


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, uint8 (H, W, 1 or 3), as one of three channels and of that width and height."""
    colour = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    if (colour.shape[1], colour.shape[0]) == size:
        return colour
    return np.asarray(Image.fromarray(np.ascontiguousarray(colour)).resize(size, Image.Resampling.BICUBIC))


def _sketched(pictures: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of pictures (n, H, W, 3), unit vectors: projections of grey and colour, small grey ones, these cropped; or 0."""
    light = grey(pictures)
    values = centred(light), centred(pictures)
    projected = [each @ _projection(each.shape[1]) for each in values]
    small = [np.stack([_thumbnail(picture, margin) for picture in light]) for margin in (0.0, _COARSE_MARGIN)]
    return tuple(_unit(each) for each in (*projected, *(centred(each) for each in small)))


def _log_contrast(pictures: np.ndarray) -> np.ndarray:
    """(n, 1) of the luminance."""
    return np.log(np.maximum(grey(pictures).std(axis=(1, 2))[:, None], _LEAST_LENGTH)).astype(np.float16)


def _thumbnail(light: np.ndarray, margin: float) -> np.ndarray:
    """(side, side) of a grey picture (H, W), without a share of its sides."""
    height, width = light.shape
    box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
    return np.asarray(Image.fromarray(light).resize((_COARSE_SIDE, _COARSE_SIDE), Image.Resampling.BOX, box=box))


@lru_cache(maxsize=2)
def _projection(width: int) -> np.ndarray:
    """Random directions (width, number), always the same ones."""
    return np.random.default_rng(0).standard_normal((width, _PROJECTIONS), dtype=np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """float16, whose error is far below that of a projection."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > _LEAST_LENGTH)
    return unit.astype(np.float16)


def _joined(batches: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(each) for each in zip(*batches, strict=True)) if batches else ()


def _largest(similarity: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, column) of the few largest values above 0 of each row."""
    for row in np.flatnonzero((similarity > 0).any(axis=1)):
        columns = np.flatnonzero(similarity[row] > 0)
        best = columns[np.argsort(-similarity[row, columns], kind="stable")[:_CANDIDATES]]
        yield from ((int(row), int(column)) for column in best)


@cache
def _hash_of_scene(name: str) -> str | None:
    """The content of the built-in scene that has this name; None where none has."""
    match = _SCENE.fullmatch(name)
    if match is None or stimulus_id(int(match[1])) != name:
        return None
    return content_sha256(scene(int(match[1])).image)
