"""Features of pictures: computed once, held in bounded memory, and those of true pictures kept on disk.

A test set is evaluated many times, its true pictures never change, and half of the computing is theirs. What is kept is
named by what it was made of: the pictures' content, the network's weights, its layer and its preprocessing.
"""

import hashlib
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.cache import cache_folder, make_cache_folder, write_array
from ..errors import FmriModelsError
from ..reading import read_array
from ..saving import atomic_file
from ..swapping import is_partial
from .extractors import FeatureExtractor

# Of one network, in memory: those of 50,000 pictures with 1,280 values, or of 360 with AlexNet's 184,512.
REMEMBERED_BYTES = 2**28
# On disk, of all networks and test sets: 982 pictures of AlexNet's second layer are 0.7 GB.
KEPT_BYTES = 4 * 2**30
# Pictures that go to a network in one call, which takes them in batches of its own.
_PICTURES_A_CALL = 16
# Changes when features come out otherwise than they did.
_FORMAT = 2


class PictureFeatures:
    """A network that computes a picture once, since rows such as the mean image repeat one.

    Args:
        extractor: The network.
        most_bytes: Of features that are remembered; beyond, the oldest are forgotten.
    """

    def __init__(self, extractor: FeatureExtractor, most_bytes: int = REMEMBERED_BYTES) -> None:
        self.extractor, self.most_bytes = extractor, most_bytes
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()

    def __call__(self, images: Tensor) -> Tensor:
        """(N, F) float32 of pictures (N, C, H, W) in [0, 1]."""
        keys = picture_keys(images)
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        found: Tensor | None = None
        # What is known is taken before anything new makes room for itself.
        for key, features in self._all(images, places):
            if found is None:
                found = features.new_empty(len(images), features.numel())
            found[places[key]] = features
        return torch.zeros(0, 0) if found is None else found

    def _all(self, images: Tensor, places: Mapping[bytes, Sequence[int]]) -> Iterator[tuple[bytes, Tensor]]:
        """Features of every different picture, the known ones first and the others a few at a time."""
        new = [key for key in places if key not in self._known]
        for key in places.keys() - set(new):
            yield key, self._known[key]
        for start in range(0, len(new), _PICTURES_A_CALL):
            chosen = new[start : start + _PICTURES_A_CALL]
            features = self.extractor(images[[places[key][0] for key in chosen]].float())
            for key, each in zip(chosen, features, strict=True):
                yield key, each
                self._remember(key, each)

    def _remember(self, key: bytes, features: Tensor) -> None:
        room = self.most_bytes // max(1, features.numel() * features.element_size())
        while self._known and len(self._known) >= room:
            self._known.popitem(last=False)
        if room:
            # A row of a batch would keep the whole batch.
            self._known[key] = features.clone()


class TrueFeatures:
    """Features of all true pictures, of which some are asked for at a time.

    Args:
        network: Computes them, where they are not on disk.
        truth: (N, C, H, W) in [0, 1].
    """

    def __init__(self, network: PictureFeatures, truth: Tensor) -> None:
        keys = picture_keys(truth)
        # Sorted, so that neither order nor repetitions make another set of it.
        self._keys = sorted(set(keys))
        position = {key: place for place, key in enumerate(self._keys)}
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        self._where = np.asarray([position[key] for key in keys])
        self._pictures = truth[[first[key] for key in self._keys]]
        self._network = network
        self._features: np.ndarray | None = None

    def at(self, positions: np.ndarray) -> Tensor:
        """(n, F) float32 of the pictures at these positions."""
        if self._features is None:
            self._features = self._found()
        return torch.from_numpy(np.asarray(self._features[self._where[positions]], dtype=np.float32))

    def _found(self) -> np.ndarray:
        """(pictures, F), a memory map of what is on disk where that can be."""
        made_of = getattr(self._network.extractor, "cache_key", None)
        if made_of is None:
            return self._network(self._pictures).numpy()
        path = _path(made_of, self._keys)
        kept = _kept(path, len(self._keys))
        if kept is not None:
            return kept
        try:
            make_cache_folder(path.parent)
            width = self._written(path)
            # Another process may remove the same files.
            with suppress(FileNotFoundError):
                _make_room(path.parent, path)
            kept = _kept(path, len(self._keys))
            if kept is not None and kept.shape[1] == width:
                return kept
        # What can't be kept is computed all the same: a full disk is no reason not to measure.
        except (FmriModelsError, OSError):
            pass
        return self._network(self._pictures).numpy()

    def _written(self, path: Path) -> int:
        """Writes features of one call after the other, which never are in memory together; gives their number."""
        extractor, count = self._network.extractor, len(self._pictures)
        first = extractor(self._pictures[:_PICTURES_A_CALL].float())

        def chunks() -> Iterator[np.ndarray]:
            yield _with_checksums(first.numpy())
            for start in range(_PICTURES_A_CALL, count, _PICTURES_A_CALL):
                yield _with_checksums(extractor(self._pictures[start : start + _PICTURES_A_CALL].float()).numpy())

        with atomic_file(path) as partial:
            write_array(partial, (count, first.shape[1] + 1), np.dtype(np.float32), chunks())
        return first.shape[1]


class OnDemand(Mapping[str, Tensor]):
    """Tensors by name that are made when they are asked for, and held by whoever asked.

    Args:
        made: Name to what makes it.
    """

    def __init__(self, made: Mapping[str, Callable[[], Tensor]]) -> None:
        self._made = dict(made)

    def __getitem__(self, name: str) -> Tensor:
        return self._made[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def picture_keys(images: Tensor) -> list[bytes]:
    """SHA-256 of each picture's size and values."""
    shape = str(tuple(images.shape[1:])).encode()
    return [hashlib.sha256(shape + image.contiguous().numpy().tobytes()).digest() for image in images]


def _path(made_of: Mapping[str, str], keys: Sequence[bytes]) -> Path:
    described = {"format": _FORMAT, **made_of, "pictures": hashlib.sha256(b"".join(keys)).hexdigest()}
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "features" / f"{key}.npy"


def _kept(path: Path, count: int) -> np.ndarray | None:
    """What an earlier evaluation has kept; None if that is nothing, or damaged."""
    try:
        found = read_array(path, "kept features", "delete them", memory_map=True)
        if found.ndim != 2 or len(found) != count or found.dtype != np.float32 or not _has_checksums(found):
            return None
        # The one that was used last is removed last.
        with suppress(OSError):
            os.utime(path)
        return found[:, :-1]
    except FmriModelsError:
        return None


def _with_checksums(features: np.ndarray) -> np.ndarray:
    """(n, F + 1) float32: each picture's features, and behind them their checksum in the bits of one more value."""
    rows = np.ascontiguousarray(features, dtype=np.float32)
    sums = np.array([zlib.crc32(row.tobytes()) for row in rows], dtype=np.uint32)
    return np.concatenate([rows, sums.view(np.float32)[:, None]], axis=1)


def _has_checksums(found: np.ndarray) -> bool:
    """Whether all of a file is what was written; a failing disk or a crash may change values and no length."""
    sums = np.ascontiguousarray(found[:, -1]).view(np.uint32)
    return all(zlib.crc32(row[:-1].tobytes()) == total for row, total in zip(found, sums.tolist(), strict=True))


def _make_room(folder: Path, new: Path) -> None:
    """Removes what was not used for longest, until all of it is within the bound."""
    kept = [each for each in folder.glob("*.npy") if each != new and not is_partial(each.name)]
    found = sorted(kept, key=lambda each: each.stat().st_mtime)
    total = new.stat().st_size + sum(each.stat().st_size for each in found)
    for each in found:
        if total <= KEPT_BYTES:
            break
        total -= each.stat().st_size
        each.unlink(missing_ok=True)
    if total > KEPT_BYTES:
        new.unlink(missing_ok=True)
