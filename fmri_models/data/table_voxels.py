"""The voxels of a table: what is known of each; reading and making what their file says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import FmriModelsError
from ..in_memory import unmasked
from ..names import check_line, one_line
from ..plain_values import ShortRepr
from ..processing.image_grid import ImageGrid
from . import parquet, schema
from .noise_ceiling import noise_ceiling_from_ncsnr
from .parquet import MEND, read_parquet
from .parquet_columns import check_texts, text_list, whole_numbers

_VOXELS = schema.voxels_schema()
_VOXELS_OF_MORE = schema.voxels_schema(dropped=True)
_MOST_MM = 1e6
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


@dataclass(frozen=True, repr=False)
class Voxels(ShortRepr):
    """What is known of one subject's voxels, in the order of the betas' columns.

    Attributes:
        roi: (V,) labels, empty where a voxel is in no region.
        coordinates: (V, 3) float32 in mm, NaN where unknown; None if none is known.
        ncsnr: (V,) float32 noise-ceiling signal-to-noise ratio, or None.
        noise_ceiling: (V,) float32 share of explainable variance in the mean of `repetitions`, or None.
        source: Where the ceiling comes from; empty if there is none.
        repetitions: How many averaged repetitions the ceiling is for; 0 if there is none.
        space: The coordinates' space.
        source_columns: (V,) int64 which columns of the betas as they were recorded the voxels are, ascending; None
            where none were dropped.
        source_width: How many columns those had; None where none were dropped.
        grid: Which voxels of a volume those are; None where betas came from no volume.
        window: Shape of a trial that is a window of a recording, (time, voxels) or (channels, time); V is then its
            product, and each voxel is there once a sample. None where trials are patterns.
    """

    roi: list[str]
    coordinates: np.ndarray | None
    ncsnr: np.ndarray | None
    noise_ceiling: np.ndarray | None
    source: str
    repetitions: int
    space: str = ""
    source_columns: np.ndarray | None = None
    source_width: int | None = None
    grid: ImageGrid | None = None
    window: tuple[int, int] | None = None


def read_voxels(path: Path, subject: str, num_voxels: int) -> Voxels:
    """Reads the file of a subject's voxels.

    Raises:
        FmriModelsError: It is damaged, or has another number of voxels or values that there are not.
    """
    with parquet.open_parquet(path, _VOXELS, columns=["index"], most_rows=schema.MAX_VOXELS) as file:
        expected = _VOXELS_OF_MORE if "source_index" in file.schema_arrow.names else _VOXELS
    columns = read_parquet(path, expected, most_rows=schema.MAX_VOXELS, nullable=_VOXELS.names[1:])
    if len(columns) != num_voxels:
        raise FmriModelsError(
            f"The voxels file of {subject} in {path.parents[1]} has {len(columns)} rows; {subject} has {num_voxels} "
            "voxels: expected one row a voxel; prepare the table again."
        )
    if not np.array_equal(columns["index"].to_numpy(), np.arange(num_voxels)):
        raise FmriModelsError(f"{one_line(path)}: the column index doesn't count from 0 to {num_voxels - 1}; {MEND}.")
    for name in ("roi", "space"):
        check_texts(columns[name], lambda text: check_line(text, "text of a voxel"))
    sources = sorted({source for source in text_list(columns["noise_ceiling_source"]) if source})
    if unknown := set(sources) - set(schema.NOISE_CEILING_SOURCES):
        raise FmriModelsError(
            f"{one_line(path)} has noise ceilings from {one_line(repr(min(unknown)))}; expected "
            f"{', '.join(schema.NOISE_CEILING_SOURCES)}; {MEND}."
        )
    repeated = columns["noise_ceiling_repetitions"].unique().drop_null()
    repetitions = [n for n in whole_numbers(repeated, path, "repetitions").tolist() if n]
    xyz = [_floats(columns[axis], path, axis, -_MOST_MM, _MOST_MM) for axis in "xyz"]
    spaces = text_list(columns["space"])
    return Voxels(
        roi=[label or "" for label in text_list(columns["roi"])],
        coordinates=None if any(a is None for a in xyz) else np.stack([a for a in xyz if a is not None], axis=1),
        ncsnr=_floats(columns["ncsnr"], path, "ncsnr", 0, _LARGEST_FLOAT),
        noise_ceiling=_floats(columns["noise_ceiling"], path, "noise_ceiling", 0, 1),
        source=sources[0] if sources else "",
        repetitions=repetitions[0] if repetitions else 0,
        space=spaces[0] or "",
        **(_source(columns, path) if expected is _VOXELS_OF_MORE else {}),
    )


def _source(columns: pa.Table, path: Path) -> dict[str, Any]:
    """Which columns of how many the voxels of a subject were, some of which were dropped."""
    index, widths = columns["source_index"].to_numpy(), np.unique(columns["source_width"].to_numpy())
    wide = len(widths) == 1 and len(index) < widths[0] <= schema.MAX_VOXELS
    if not wide or index[0] < 0 or index[-1] >= widths[0] or (np.diff(index) < 1).any():
        raise FmriModelsError(
            f"{one_line(path)}: source_index and source_width don't say which columns of a wider array were kept, in "
            f"their order; {MEND}."
        )
    return {"source_columns": index.astype(np.int64), "source_width": int(widths[0])}


def _floats(column: pa.ChunkedArray, path: Path, what: str, least: float, most: float) -> np.ndarray | None:
    """Values with NaN for null; None if all are null."""
    if column.null_count == len(column):
        return None
    known = column.drop_null().to_numpy()
    if not ((known >= least) & (known <= most)).all():
        raise FmriModelsError(
            f"{one_line(path)} has values in the column {what} that are not from {least:g} to {most:g}; {MEND}."
        )
    return column.to_numpy().astype(np.float32)


def voxels_table(
    subject: str,
    num_voxels: int,
    roi: Sequence[str] | None,
    coordinates: np.ndarray | None,
    ncsnr: np.ndarray | None,
    noise_ceiling: np.ndarray | None,
    source: str | None,
    repetitions: int,
    space: str,
    source_columns: np.ndarray | None,
    source_width: int | None,
) -> pa.Table:
    """What the file of a subject's voxels says; the arguments are those of `TrialTableWriter.add_voxels`.

    Raises:
        FmriModelsError: Lengths differ from `num_voxels`, or a value is none that there is.
    """
    if source is not None and source not in schema.NOISE_CEILING_SOURCES:
        known = ", ".join(schema.NOISE_CEILING_SOURCES)
        raise FmriModelsError(f"The noise ceiling's source is {source!r}; expected one of: {known}.")
    ratios = _column(ncsnr, (num_voxels,), f"ncsnr of {subject}", 0)
    if noise_ceiling is None and ratios is not None:
        noise_ceiling = noise_ceiling_from_ncsnr(ratios, repetitions)
    if noise_ceiling is not None and source is None:
        known = ", ".join(schema.NOISE_CEILING_SOURCES)
        raise FmriModelsError(f"{subject} has noise ceilings without a source; pass one of: {known}.")
    xyz = _column(coordinates, (num_voxels, 3), f"coordinates of {subject}")
    ceiling = _column(noise_ceiling, (num_voxels,), f"noise ceilings of {subject}", 0, 1)
    labels = [""] * num_voxels if roi is None else [_label(label) for label in roi]
    for label in set(labels):
        check_line(label, f"ROI label of {subject}")
    check_line(space, f"space of the voxels of {subject}")
    if len(labels) != num_voxels:
        raise FmriModelsError(f"{subject} has {len(labels)} ROI labels; expected {num_voxels}, one a voxel.")
    known_ceiling = None if ceiling is None else source
    columns = {
        "index": np.arange(num_voxels, dtype=np.int32),
        "roi": labels,
        "x": _nullable(None if xyz is None else xyz[:, 0], num_voxels),
        "y": _nullable(None if xyz is None else xyz[:, 1], num_voxels),
        "z": _nullable(None if xyz is None else xyz[:, 2], num_voxels),
        "space": [space] * num_voxels,
        "ncsnr": _nullable(ratios, num_voxels),
        "noise_ceiling": _nullable(ceiling, num_voxels),
        "noise_ceiling_source": [known_ceiling] * num_voxels,
        "noise_ceiling_repetitions": pa.array([repetitions if known_ceiling else None] * num_voxels, type=pa.int32()),
    }
    if source_columns is not None:
        columns |= {"source_index": source_columns, "source_width": [source_width] * num_voxels}
    dropped = source_columns is not None
    return pa.table(columns, schema=schema.voxels_schema(dropped))


def _column(
    values: np.ndarray | None, shape: tuple[int, ...], what: str, least: float | None = None, most: float | None = None
) -> np.ndarray | None:
    """Finite numbers between two bounds, or NaN where one is unknown."""
    if values is None:
        return None
    with np.errstate(over="ignore"):
        array = np.asarray(unmasked(values, f"The {what}"), dtype=np.float32)
    if array.shape != shape:
        raise FmriModelsError(f"The {what} have the shape {array.shape}; expected {shape}.")
    known = array[~np.isnan(array)]
    outside = np.isinf(known)
    outside |= False if least is None else known < least
    outside |= False if most is None else known > most
    if outside.any():
        bounds = (
            "finite numbers" if least is None else f"{least:g} or more" if most is None else f"{least:g} to {most:g}"
        )
        raise FmriModelsError(f"The {what} have the value {known[outside][0]:g}; expected {bounds}, NaN where unknown.")
    return array


def _label(label: object) -> str:
    """An ROI's label; empty for the values by which NumPy and pandas say that there is none."""
    text = "" if label is None else str(label)
    return "" if not isinstance(label, str) and text in ("nan", "<NA>", "NaT", "--") else text


def _nullable(values: np.ndarray | None, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count, pa.float32())
    return pa.array(values, mask=np.isnan(values))
