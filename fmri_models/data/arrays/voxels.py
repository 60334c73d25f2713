"""VOXELS.csv: what a person says of their own betas, voxel by voxel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import FmriModelsError
from ...names import one_line
from ...plain_values import ShortRepr
from ...reading import read_bytes
from .. import schema
from ..csv_files import UNKNOWN, check_columns, read_csv, read_number

_MOST_MM = 1e6
# A ratio of 100 is a noise ceiling of .9997.
_MOST_NCSNR = 1e6

_COLUMNS = ("roi", "x", "y", "z", "ncsnr")
# What others call these columns; a file that has them is asked to rename them, because they could mean something else.
_OTHER_NAMES = {"region": "roi", "label": "roi", "area": "roi", "noise_ceiling_snr": "ncsnr"}


@dataclass(repr=False)
class VoxelInfo(ShortRepr):
    """Columns of VOXELS.csv; what it doesn't have is None."""

    roi: list[str] | None = None
    coordinates: np.ndarray | None = None
    ncsnr: np.ndarray | None = None


def read_voxels_file(path: Path, subject: str, count: int, report: Callable[[str], None]) -> VoxelInfo:
    """Reads VOXELS.csv.

    A row in which nothing is known of a voxel may be empty, and so may a field; `NaN`, `NA` and `n/a` say the same.

    Args:
        path: The file, with commas, tabs or semicolons between fields.
        subject: Whose voxels they are, for the message.
        count: How many voxels there are.
        report: Takes a sentence about columns that are not used.

    Raises:
        FmriModelsError: It has another number of rows, no column that is known, or a number that is none.
    """
    what = f"The voxels file {one_line(path)}"
    columns = read_csv(
        read_bytes(path, "voxels file", "give a CSV file"), what, [], 2 * schema.MAX_VOXELS, known=_COLUMNS,
        numbers=("x", "y", "z", "ncsnr"), blank_rows=True,
    )  # fmt: skip
    columns = _with_rows(columns, count)
    rows = len(next(iter(columns.values()), []))
    if rows != count:
        raise FmriModelsError(f"{what} has {rows} rows, {subject} has {count} voxels; expected one row a voxel.")
    if not columns.keys() & set(_COLUMNS):
        raise FmriModelsError(f"{what} has none of the columns {', '.join(_COLUMNS)}.")
    if unused := check_columns(columns, _COLUMNS, _OTHER_NAMES, what):
        report(unused)
    axes = [_floats(columns[axis], axis, what, -_MOST_MM, _MOST_MM) for axis in "xyz" if axis in columns]
    if axes and len(axes) != 3:
        raise FmriModelsError(f"{what} has only some of the columns x, y, z; expected all three or none.")
    known_axes = [axis for axis in axes if axis is not None]
    roi = columns.get("roi")
    return VoxelInfo(
        None if roi is None else ["" if label.casefold() in UNKNOWN else label for label in roi],
        np.stack(known_axes, axis=1) if len(known_axes) == 3 else None,
        _floats(columns["ncsnr"], "ncsnr", what, 0, _MOST_NCSNR) if "ncsnr" in columns else None,
    )


def _with_rows(columns: dict[str, list[str]], count: int) -> dict[str, list[str]]:
    """Columns without their empty rows where there are as many others as voxels, else without superfluous last ones."""
    empty = [not any(row) for row in zip(*columns.values(), strict=True)]
    kept = [index for index, is_empty in enumerate(empty) if not is_empty]
    if len(kept) != count:
        end = len(empty)
        while end > count and empty[end - 1]:
            end -= 1
        kept = list(range(end))
    return {name: [values[index] for index in kept] for name, values in columns.items()}


def _floats(texts: Sequence[str], column: str, what: str, least: float, most: float) -> np.ndarray | None:
    """A column of numbers, NaN where one is unknown; None where the whole column is empty."""
    if not any(texts):
        return None
    values = np.empty(len(texts), dtype=np.float32)
    for index, text in enumerate(texts):
        try:
            number = read_number(text) if text and text.casefold() not in UNKNOWN else np.nan
        except ValueError as error:
            raise FmriModelsError(
                f"{what} has {one_line(repr(text), 60)} as {column} in row {index + 1}; expected a number, or nothing "
                "where it is unknown."
            ) from error
        if not (least <= number <= most or np.isnan(number)):
            raise FmriModelsError(
                f"{what} has {one_line(text, 60)} as {column} in row {index + 1}; expected a number from {least:g} to "
                f"{most:g}."
            )
        values[index] = number
    if np.isnan(values).all():
        first = next(index for index, text in enumerate(texts) if text)
        raise FmriModelsError(
            f"{what} has {one_line(repr(texts[first]), 60)} as {column} in row {first + 1} and a number in no row; "
            "leave the column out."
        )
    return values
