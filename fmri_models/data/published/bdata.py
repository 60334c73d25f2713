"""Files of the Kamitani laboratory (bdpy's BData in HDF5): one matrix whose columns are voxels and what the trials
were.

Layout read in github.com/KamitaniLab/bdpy, `bdpy/bdata/bdata.py`, commit d86199f: `/dataset` (rows, columns) float64,
`/metadata/key` and `/metadata/description` (keys,) bytes, `/metadata/value` (keys, columns) float64 with NaN where a
key says nothing of a column; the older names `dataSet` and `metaData` are read, too.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import listed, one_line
from ...reading import check_regular_file
from .libraries import h5py_file, library

ROWS_AT_ONCE = 256


class BData:
    """A BData file, of which only what is asked for is read.

    Args:
        path: The file.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It is no HDF5 file, is damaged, or has another layout.
    """

    def __init__(self, path: Path, mend: str) -> None:
        self.path = check_regular_file(path, "BData file", mend)
        self._mend = mend
        with h5py_file(self.path) as file:
            dataset, metadata = self._parts(file)
            self.shape: tuple[int, int] = tuple(dataset.shape)
            self.is_double = dataset.dtype == np.float64
            self.keys = [_text(key) for key in metadata["key"][:].tolist()]
            self._values = np.asarray(metadata["value"], dtype=np.float64)
        if self._values.shape != (len(self.keys), self.shape[1]):
            raise self._another(
                f"its metadata are of the shape {self._values.shape}; expected {(len(self.keys), self.shape[1])}, a "
                "row a key and a column a column of the data set"
            )

    @cached_property
    def _of_key(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def value(self, key: str) -> np.ndarray:
        """(columns,) what a key says of each column, NaN where nothing.

        Raises:
            FmriModelsError: There is no such key.
        """
        if key not in self._of_key:
            raise self._another(f"it has no key {key!r}; it has {listed(self.keys, 40)}")
        return self._values[self._of_key[key]]

    def marked(self, key: str) -> np.ndarray:
        """(columns,) which columns a key marks by 1.

        Raises:
            FmriModelsError: There is no such key.
        """
        return self.value(key) == 1

    def of_trials(self, key: str) -> np.ndarray:
        """(rows,) float64 of the one column that a key marks.

        Raises:
            FmriModelsError: There is no such key, or it marks another number of columns.
        """
        columns = np.flatnonzero(self.marked(key))
        if len(columns) != 1:
            raise self._another(f"{key!r} marks {len(columns)} columns; expected one")
        with h5py_file(self.path) as file:
            return np.asarray(self._parts(file)[0][:, int(columns[0])], dtype=np.float64)

    def blocks(self, columns: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
        """(n, columns) of some rows, in their order in the file, a few hundred at a time.

        Args:
            columns: Ascending numbers.
            rows: (all rows,) which are wanted.
        """
        first, last = int(columns[0]), int(columns[-1]) + 1
        with h5py_file(self.path) as file:
            dataset = self._parts(file)[0]
            for start in range(0, self.shape[0], ROWS_AT_ONCE):
                wanted = rows[start : start + ROWS_AT_ONCE]
                if wanted.any():
                    block = np.asarray(dataset[start : start + ROWS_AT_ONCE, first:last])
                    yield block[wanted][:, columns - first]

    def _parts(self, file: Any) -> tuple[Any, Any]:
        dataset = file.get("dataset", file.get("dataSet"))
        metadata = file.get("metadata", file.get("metaData"))
        h5py = library("h5py")
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2:
            raise self._another("it has no matrix /dataset")
        if not isinstance(metadata, h5py.Group) or not {"key", "value"} <= set(metadata):
            raise self._another("it has no /metadata with key and value")
        return dataset, metadata

    def _another(self, why: str) -> FmriModelsError:
        return FmriModelsError(f"{one_line(self.path)} is no BData file of this kind ({why}); {self._mend}.")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
