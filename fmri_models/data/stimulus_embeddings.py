"""Embeddings of a table's pictures, by which splits are drawn: of an image generator, or of a file.

Features of networks that measure are made by `evaluation.stimulus_features`, which this layer knows nothing of.
"""

import hashlib
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ..errors import FmriModelsError
from ..generation.loading import load_image_generator
from ..names import listed, one_line
from ..plain_values import ShortRepr
from ..reading import check_regular_file, read_array
from .split_trials import SplitTrials
from .table import TrialTable
from .targets import cached_targets, target_weights_digest

_MEND = "save (stimuli, values) numbers with numpy.save, or with numpy.savez(FILE, ids=..., embeddings=...)"
# 73,000 pictures with 16,384 values.
_MOST_BYTES = 6 * 2**30
_ROWS_AT_ONCE = 4096
# Beyond rounding, so that what is further apart is so in any order of summation.
ROUNDING = 1e-6


@dataclass(repr=False)
class StimulusEmbeddings(ShortRepr):
    """A direction for each picture; how far two are apart is 1 less the cosine of their angle.

    Args:
        ids: N stimuli.
        values: (N, D) float32 of length 1.
        embedder: What made them, in a few words.
        digest: Of its weights, or of the file; empty where it has none, as pixels.
    """

    ids: Sequence[str]
    values: np.ndarray
    embedder: str
    digest: str = ""

    @classmethod
    def of_values(cls, ids: Sequence[str], values: np.ndarray, embedder: str, digest: str = "") -> "StimulusEmbeddings":
        """Divides embeddings by their lengths.

        Args:
            ids: N stimuli.
            values: (N, ...) numbers.
            embedder: What made them.
            digest: Of its weights.

        Raises:
            FmriModelsError: There is another number of them, one is not finite or 0 throughout, or all are the same.
        """
        if len(values) != len(ids) or values.ndim < 2 or not math.prod(values.shape[1:]):
            raise FmriModelsError(
                f"The embeddings by {one_line(embedder)} have the shape {values.shape} for {len(ids)} stimuli; "
                "expected a row of numbers for each."
            )
        width = math.prod(values.shape[1:])
        if len(ids) * width * 4 > _MOST_BYTES:
            raise FmriModelsError(
                f"The embeddings by {one_line(embedder)} are {len(ids)} x {width} numbers, more than the "
                f"{_MOST_BYTES // 2**30} GiB that a split is drawn from; give an embedder with fewer."
            )
        unit = np.empty((len(ids), width), dtype=np.float32)
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            rows = np.asarray(values[start : start + _ROWS_AT_ONCE], dtype=np.float64).reshape(-1, width)
            # Lengths of the largest numbers are finite this way.
            largest = np.abs(rows).max(axis=1, keepdims=True)
            names = ids[start : start + _ROWS_AT_ONCE]
            bad = [name for name, size in zip(names, largest[:, 0], strict=True) if not np.isfinite(size)]
            if bad:
                raise FmriModelsError(
                    f"The embeddings by {one_line(embedder)} of {listed(bad)} are not finite; expected numbers alone."
                )
            if none := [name for name, size in zip(names, largest[:, 0], strict=True) if not size]:
                raise FmriModelsError(
                    f"The embeddings by {one_line(embedder)} of {listed(none)} are 0 throughout, which is no "
                    "direction; give another embedder."
                )
            scaled = rows / largest
            unit[start : start + _ROWS_AT_ONCE] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        if len(unit) > 1 and np.abs(unit - unit[0]).max() <= ROUNDING:
            raise FmriModelsError(
                f"The embeddings by {one_line(embedder)} are the same for all {len(ids)} pictures, so that none is "
                "near or far; give another embedder."
            )
        return cls(list(ids), unit, embedder, digest)

    def at(self, ids: Sequence[str]) -> np.ndarray:
        """(n, D) those of some stimuli.

        Raises:
            FmriModelsError: One of them has none.
        """
        position = {name: place for place, name in enumerate(self.ids)}
        if missing := [name for name in ids if name not in position]:
            raise FmriModelsError(
                f"{len(missing)} of the {len(ids)} stimuli that were shown have no embedding ({listed(missing)}); give "
                "one for each."
            )
        return self.values[[position[name] for name in ids]]

    def described(self) -> dict[str, str]:
        """For the file of a split."""
        digest = {"embedder_sha256": self.digest} if self.digest else {}
        return {"embedder": one_line(self.embedder), **digest}


def embedded_ids(trials: SplitTrials) -> list[str]:
    """For each of `trials.shown`, the first stimulus with that picture: one embedding is enough for all of them."""
    first: dict[str, str] = {}
    for stimulus in sorted(set(trials.stimulus_ids)):
        first.setdefault(trials.group_of(stimulus), stimulus)
    return [first[group] for group in trials.shown]


def in_order_of(table: TrialTable, ids: Sequence[str]) -> list[str]:
    """Stimuli in the order of a table's files, in which pictures are read fastest."""
    return [table.stimuli.ids[position] for position in sorted(table.stimuli.positions(ids))]


def check_pictures(table: TrialTable, ids: Sequence[str]) -> None:
    """Refuses stimuli without a picture, which nothing can embed.

    Raises:
        FmriModelsError: Names them.
    """
    hashes = table.stimuli.content_hashes(ids)
    if missing := [name for name, digest in zip(ids, hashes, strict=True) if digest is None]:
        raise FmriModelsError(
            f"{len(missing)} of the {len(ids)} stimuli that were shown have no picture in {one_line(table.path)} "
            f"({listed(missing)}); give embeddings of your own (`--embeddings FILE.npz`)."
        )


def generator_embeddings(table: TrialTable, ids: Sequence[str], generator: str) -> StimulusEmbeddings:
    """How an image generator embeds pictures; of tokens, the one that is the whole picture's where there is one.

    Args:
        table: Has the pictures.
        ids: Which stimuli.
        generator: Name, folder or Hub repository of the generator.

    Raises:
        FmriModelsError: There is no such generator, it embeds no pictures, or a picture is missing.
    """
    ids = in_order_of(table, ids)
    check_pictures(table, ids)
    height, width, channels = table.stimuli.images(ids[:1]).shape[1:]
    loaded = load_image_generator(generator, (channels, height, width))
    space = getattr(loaded, "image_embedding_space", None)
    if space is None:
        raise FmriModelsError(
            f"The image generator {one_line(generator)} has no embeddings of pictures; give another embedder."
        )
    values = cached_targets(table, loaded, "image_embeds", ids)
    if len(space.shape) == 2 and space.normalisation == "cls_norm":
        values = values[:, : space.shape[1]]
    has_weights = any(True for _ in _weights(loaded))
    digest = target_weights_digest(loaded, "image_embeds") if has_weights else ""
    return StimulusEmbeddings.of_values(ids, values, generator, digest)


def _weights(generator: object) -> list[object]:
    from torch import nn

    return [each for each in vars(generator).values() if isinstance(each, nn.Module)]


def file_embeddings(table: TrialTable, ids: Sequence[str], path: str | Path) -> StimulusEmbeddings:
    """Embeddings that somebody else has made.

    Args:
        table: Whose stimuli they are of.
        ids: Which of them are wanted.
        path: `.npz` with `ids` and `embeddings`, in any order and of more stimuli than these, too; or `.npy` with a row
            for each stimulus of the table, in its order (`table.stimuli.ids`).

    Raises:
        FmriModelsError: The file can't be read, or has none for one of the stimuli.
    """
    path = check_regular_file(path, "file of embeddings", _MEND)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if zipfile.is_zipfile(path):
        names, values = _read_npz(path)
    else:
        values = read_array(path, "file of embeddings", _MEND)
        names = table.stimuli.ids
        if len(names) != len(values):
            raise FmriModelsError(
                f"{one_line(path)} has {len(values)} rows and the table {len(names)} stimuli; expected a row for each, "
                "in the table's order, or an .npz with ids."
            )
    position = {name: place for place, name in enumerate(names)}
    if missing := [name for name in ids if name not in position]:
        raise FmriModelsError(
            f"{one_line(path)} has no embedding of {len(missing)} of the {len(ids)} stimuli that were shown "
            f"({listed(missing)}); add them."
        )
    chosen = values[[position[name] for name in ids]]
    return StimulusEmbeddings.of_values(ids, chosen, path.name, digest)


def _read_npz(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids and embeddings of an `.npz` file, whose sizes are known before anything is unpacked."""
    start = f"The file of embeddings {one_line(path)}"
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
            for name in ("ids.npy", "embeddings.npy"):
                if name not in sizes:
                    raise FmriModelsError(f"{start} has no {name.removesuffix('.npy')}; {_MEND}.")
                if sizes[name] > _MOST_BYTES:
                    raise FmriModelsError(f"{start} has {sizes[name]} bytes in {name}; expected less; {_MEND}.")
            arrays = []
            for name, kinds in (("ids.npy", "US"), ("embeddings.npy", "fiu")):
                with archive.open(name) as member:
                    arrays.append(_read_member(member, sizes[name], kinds, f"{start} in {name}"))
    except FmriModelsError:
        raise
    # Damaged archives and headers raise whatever they like.
    except Exception as error:
        raise FmriModelsError(f"{start} can't be read ({one_line(error, 120)}); {_MEND}.") from error
    ids, values = arrays
    if ids.ndim != 1 or len(ids) != len(values):
        raise FmriModelsError(f"{start} has {len(ids)} ids and {len(values)} embeddings; {_MEND}.")
    names = [each.decode("utf-8") if isinstance(each, bytes) else str(each) for each in ids.tolist()]
    if len(set(names)) < len(names):
        twice = sorted(name for name in set(names) if names.count(name) > 1) if len(names) < 10_000 else []
        raise FmriModelsError(f"{start} has ids more than once{f' ({listed(twice)})' if twice else ''}; {_MEND}.")
    return names, values


def _read_member(member: IO[bytes], size: int, kinds: str, what: str) -> np.ndarray:
    version = npy.read_magic(member)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, fortran, dtype = read_header(member)
    if dtype.hasobject or dtype.kind not in kinds or not shape or min(shape) < 0:
        expected = "text" if kinds == "US" else "numbers"
        raise FmriModelsError(
            f"{what} holds {one_line(dtype, 60)} {one_line(shape, 60)}; expected {expected}; {_MEND}."
        )
    expected_bytes = math.prod(shape) * dtype.itemsize
    if expected_bytes > size:
        raise FmriModelsError(f"{what} is cut short: it has {size} bytes of {one_line(expected_bytes, 40)}; {_MEND}.")
    content = member.read(expected_bytes)
    flat = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
