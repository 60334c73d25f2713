"""Arrays of `.npz` files, one at a time or row by row, without unpickling anything."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from ...errors import FmriModelsError
from ...names import listed, one_line
from ..folder_or_zip import open_zip, read_member

_MOST_BYTES = 4 * 2**30
_MOST_BYTES_OF_A_ROW = 2**30


class NpzArrays:
    """A `.npz` file.

    Args:
        path: The file.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It is none, or a header can't be read.
    """

    def __init__(self, path: Path, mend: str) -> None:
        self.path, self._mend = path, mend
        with open_zip(path, f"no .npz file; {mend}") as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.types: dict[str, np.dtype] = {}
            for name in names:
                try:
                    with archive.open(f"{name}.npy") as file:
                        shape, dtype, _ = _header(cast(BinaryIO, file))
                # Headers and decompressors raise whatever they like on bytes that are damaged.
                except Exception as error:
                    raise self._another(f"{one_line(name)} can't be read: {one_line(error, 100)}") from error
                if dtype.kind in "fiub":
                    self.shapes[name], self.types[name] = shape, dtype

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def read(self, name: str) -> np.ndarray:
        """A whole array.

        Raises:
            FmriModelsError: It isn't there, holds no numbers, or is damaged.
        """
        self._check(name)
        with open_zip(self.path, "no .npz file") as archive:
            data = read_member(archive, f"{name}.npy", f"{name} in {one_line(self.path)}", _MOST_BYTES)
        try:
            return np.asarray(npy.read_array(io.BytesIO(data), allow_pickle=False))
        except (ValueError, EOFError, MemoryError) as error:
            raise self._another(f"{name} can't be read: {one_line(error, 100)}") from error

    def texts(self, name: str) -> list[str]:
        """An array of texts.

        Raises:
            FmriModelsError: It isn't there, or is another.
        """
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                values = archive[name]
        # What reads zip files and headers raises whatever it likes on bytes that are damaged.
        except Exception as error:
            raise self._another(f"it has no texts {one_line(name)}: {one_line(error, 80)}") from error
        if values.dtype.kind != "U" or values.ndim != 1:
            raise self._another(f"it has {one_line(name)} of {values.dtype} and not of texts")
        return [str(value) for value in values]

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """The rows of an array one after the other, of which one is held at a time.

        Raises:
            FmriModelsError: It isn't there, is stored columns first, or is cut short.
        """
        self._check(name)
        with open_zip(self.path, "no .npz file") as archive, archive.open(f"{name}.npy") as file:
            shape, dtype, by_column = _header(cast(BinaryIO, file))
            if by_column and len(shape) > 1:
                raise self._another(f"{name} is stored columns first")
            length = math.prod(shape[1:]) * dtype.itemsize
            if not 0 < length <= _MOST_BYTES_OF_A_ROW:
                raise self._another(f"a row of {name} has {length} bytes")
            for _ in range(shape[0]):
                try:
                    data = file.read(length)
                except Exception as error:
                    raise self._another(f"{name} can't be read: {one_line(error, 100)}") from error
                if len(data) < length:
                    raise self._another(f"{name} is cut short")
                yield np.frombuffer(data, dtype).reshape(shape[1:])

    def _check(self, name: str) -> None:
        if name not in self:
            raise self._another(f"it has no array {name}; it has {listed(self.shapes, 40) or 'none'}")

    def _another(self, why: str) -> FmriModelsError:
        return FmriModelsError(f"{one_line(self.path)} is not as expected ({why}); {self._mend}.")


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype, bool]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, by_column, dtype = read(file)
    return shape, dtype, by_column
