"""Files of the Kamitani laboratory (bdpy's BData in HDF5): one matrix whose columns are voxels and what the trials
were.

Layout read in github.com/KamitaniLab/bdpy, `bdpy/bdata/bdata.py`, commit d86199f: `/dataset` (rows, columns) float64,
`/metadata/key` and `/metadata/description` (keys,) bytes, `/metadata/value` (keys, columns) float64 with NaN where a
key says nothing of a column; the older names `dataSet` and `metaData` are read, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import listed, one_line
from ..brain_images.opening import opened_hdf5, required_package
from .dataset import KnownVoxels

ROWS_AT_ONCE = 256
_MOST_KEYS = 10_000


class BData:
    """A BData file, of which only what is asked for is read.

    Args:
        path: The file.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It is no HDF5 file, is damaged, or has another layout.
    """

    def __init__(self, path: Path, mend: str) -> None:
        self.path, self._mend = path, mend
        with opened_hdf5(self.path, mend) as file:
            dataset, metadata = self._parts(file)
            self.shape: tuple[int, int] = tuple(dataset.shape)
            self.is_double = dataset.dtype == np.float64
            # Before they are read: arrays that are never written can be of any size.
            keys, values = (tuple(getattr(metadata[name], "shape", None) or ()) for name in ("key", "value"))
            if len(keys) != 1 or keys[0] > _MOST_KEYS or values != (keys[0], self.shape[1]):
                raise self._another(
                    f"its metadata are of the shape {values} for keys of the shape {keys}; expected (keys, "
                    f"{self.shape[1]}), a row a key and a column a column of the data set"
                )
            self.keys = [_text(key) for key in metadata["key"][:].tolist()]
            self._values = np.asarray(metadata["value"], dtype=np.float64)

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
        with opened_hdf5(self.path, self._mend) as file:
            return np.asarray(self._parts(file)[0][:, int(columns[0])], dtype=np.float64)

    def blocks(self, columns: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
        """(n, columns) of some rows, in their order in the file, a few hundred at a time.

        Args:
            columns: Ascending numbers.
            rows: (all rows,) which are wanted.
        """
        first, last = int(columns[0]), int(columns[-1]) + 1
        with opened_hdf5(self.path, self._mend) as file:
            dataset = self._parts(file)[0]
            for start in range(0, self.shape[0], ROWS_AT_ONCE):
                wanted = rows[start : start + ROWS_AT_ONCE]
                if wanted.any():
                    block = np.asarray(dataset[start : start + ROWS_AT_ONCE, first:last])
                    yield block[wanted][:, columns - first]

    def whole_numbers(self, key: str) -> np.ndarray:
        """(rows,) int64 of the one column that a key marks.

        Raises:
            FmriModelsError: As [`of_trials`], or a value is no whole number.
        """
        values = self.of_trials(key)
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise self._another(f"{key} is no whole number everywhere")
        return values.astype(np.int64)

    def synsets_and_pictures(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) synset and (rows,) picture of it, of a column that has both as one number: 1518878.005958.

        Raises:
            FmriModelsError: A trial has none, or the numbers are rounded.
        """
        values = self.of_trials(key)
        if not np.isfinite(values).all() or (values < 0).any():
            raise self._another(f"it has trials without a {key}")
        synsets = np.floor(values).astype(np.int64)
        exact = (values - synsets) * 1e6
        pictures = np.rint(exact).astype(np.int64)
        if not self.is_double or (np.abs(exact - pictures) > 0.01).any():
            raise self._another(
                f"its {key} is rounded, so that pictures can't be told apart; expected float64, such as 1518878.005958"
            )
        return synsets, pictures

    def voxels(self, columns: np.ndarray, regions: Sequence[str]) -> KnownVoxels:
        """What is known of some columns: regions (`ROI_V1` ...) and places.

        Args:
            columns: Their numbers.
            regions: Of those that contain each other, a voxel is labelled by the first that it is in.
        """
        masks = {key.removeprefix("ROI_"): self.marked(key)[columns] for key in self.keys if key.startswith("ROI_")}
        places = [f"voxel_{axis}" for axis in "xyz"]
        known = all(key in self.keys for key in places)
        return KnownVoxels(
            len(columns),
            roi=first_region(masks, len(columns), regions),
            coordinates=np.stack([self.value(key)[columns] for key in places], axis=1) if known else None,
            space="native" if known else "",
            regions=masks,
        )

    def _parts(self, file: Any) -> tuple[Any, Any]:
        dataset = file.get("dataset", file.get("dataSet"))
        metadata = file.get("metadata", file.get("metaData"))
        h5py = required_package("h5py")
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2:
            raise self._another("it has no matrix /dataset")
        if not isinstance(metadata, h5py.Group) or not {"key", "value"} <= set(metadata):
            raise self._another("it has no /metadata with key and value")
        return dataset, metadata

    def _another(self, why: str) -> FmriModelsError:
        return FmriModelsError(f"{one_line(self.path)} is no BData file of this kind ({why}); {self._mend}.")


def first_region(masks: Mapping[str, np.ndarray], count: int, regions: Sequence[str]) -> list[str]:
    """(count,) the first of some regions that each voxel is in; empty where it is in none."""
    labels = np.full(count, "", dtype=object)
    for name in reversed(regions):
        if name in masks:
            labels[masks[name]] = name
    return labels.tolist()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
