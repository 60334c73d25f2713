"""What is wrong with what a table says of its voxels, beyond the values that its readers refuse."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..names import listed, one_line
from ..processing.image_grid import TOLERANCE_MM, positions_sha256, shape_text
from .parquet import naming
from .parquet_columns import text_list
from .table_voxels import Voxels


def voxel_findings(path: Path, subject: str, voxels: Voxels) -> Iterator[str]:
    """What is wrong with the file of a subject's voxels, which could be read.

    Args:
        path: The file.
        subject: Whose.
        voxels: What was read of it.
    """
    names = ["x", "y", "z", "space", "noise_ceiling", "noise_ceiling_source", "noise_ceiling_repetitions"]
    with naming(path):
        columns = pq.read_table(path, columns=names)
    yield from _ceiling_findings(columns, subject)
    yield from _coordinate_findings(columns, subject)
    yield from _grid_findings(subject, voxels)


def voxel_notes(subject: str, voxels: Voxels) -> Iterator[str]:
    """What is worth knowing of a subject's voxels and nothing wrong."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in set(voxels.roi) - {""}:
        spellings["".join(label.casefold().split())].add(label)
    for alike in sorted(sorted(each) for each in spellings.values() if len(each) > 1):
        yield (
            f"{subject} has regions that differ in case or spaces alone ({listed(map(repr, alike))}); each is one of "
            "its own."
        )
    grid = voxels.grid
    if grid is not None and voxels.coordinates is not None and _is_invertible(grid.affine):
        known = np.isfinite(voxels.coordinates).all(axis=1)
        _, is_on = _on_grid(voxels.coordinates[known], grid.affine)
        if len(is_on) and not is_on.any():
            yield (
                f"The positions of {subject} are in another space ({one_line(voxels.space, 60) or 'not said'}) than "
                "the volumes that its betas came from, so that they can't be compared with the mask."
            )


def _ceiling_findings(columns: pa.Table, subject: str) -> Iterator[str]:
    known = np.asarray(columns["noise_ceiling"].is_valid())
    texts = text_list(columns["noise_ceiling_source"])
    sources = np.array([text or "" for text in texts], dtype=object)
    repetitions = columns["noise_ceiling_repetitions"].fill_null(0).to_numpy()
    if count := int((known & (sources == "")).sum()):
        yield (
            f"{count} voxels of {subject} have a noise ceiling of which noise_ceiling_source doesn't say where it "
            "comes from; fill it in, or leave the ceilings out."
        )
    if count := int((known & (repetitions < 1)).sum()):
        yield (
            f"{count} voxels of {subject} have a noise ceiling of which noise_ceiling_repetitions doesn't say of "
            "how many averaged trials it is; fill it in, or leave the ceilings out."
        )
    kinds = (("sources", set(sources[known]) - {""}), ("repetitions", set(repetitions[known]) - {0}))
    for what, values in kinds:
        if len(values) > 1:
            yield (
                f"The noise ceilings of {subject} have several {what} ({listed(sorted(values))}), and readers take one "
                "for all; give all voxels ceilings of one kind."
            )


def _coordinate_findings(columns: pa.Table, subject: str) -> Iterator[str]:
    known = np.stack([np.asarray(columns[axis].is_valid()) for axis in "xyz"], axis=1)
    if count := int((known.any(axis=1) & ~known.all(axis=1)).sum()):
        yield (
            f"{count} voxels of {subject} have some of x, y and z and not all; give all three, or none where the "
            "position is not known."
        )
    spaces = sorted({space or "" for space in text_list(columns["space"])})
    if len(spaces) > 1:
        yield (
            f"The positions of {subject} are in several spaces ({listed(map(repr, spaces))}), and readers take one for "
            "all; bring them into one."
        )


def _grid_findings(subject: str, voxels: Voxels) -> Iterator[str]:
    """Whether shape, affine and hash of a mask fit the voxels' number and positions."""
    grid = voxels.grid
    if grid is None:
        return
    width = voxels.source_width or len(voxels.roi)
    if width > np.prod(grid.shape, dtype=float):
        yield (
            f"{subject} has {width} voxels, and the volumes that its betas came from {shape_text(grid.shape)}, which "
            "are fewer; the grid in table.json is another one's: prepare the table again."
        )
        return
    if not _is_invertible(grid.affine):
        yield (
            f"The affine of {subject} in table.json can't be inverted, so that it says of no voxel where it lies; "
            "prepare the table again."
        )
        return
    if voxels.coordinates is None or not np.isfinite(voxels.coordinates).all():
        return
    indices, is_on = _on_grid(voxels.coordinates, grid.affine)
    if not is_on.any():
        # Positions in another space, such as a template's, are nothing wrong.
        return
    is_inside = is_on & (indices >= 0).all(axis=1) & (indices < np.array(grid.shape)).all(axis=1)
    if count := int((~is_inside).sum()):
        yield (
            f"{count} of {len(is_on)} voxels of {subject} have positions where the volumes that its betas came from "
            f"({shape_text(grid.shape)}) have no voxel; positions, shape and affine don't belong together: prepare the "
            "table again."
        )
        return
    positions = np.ravel_multi_index(tuple(indices.T), grid.shape)
    if count := len(positions) - len(np.unique(positions)):
        yield f"{count} voxels of {subject} have the position of another one; each voxel is given once."
    elif voxels.source_width is None and positions_sha256(positions) != grid.sha256:
        # Of voxels some of which were dropped, the mask has the others, too.
        yield (
            f"The mask of {subject} in table.json has another SHA-256 than the {len(positions)} voxels whose positions "
            "the table has, so that volumes would be read in another order: prepare the table again."
        )


def _is_invertible(affine: np.ndarray) -> bool:
    return bool(abs(np.linalg.det(affine[:3, :3])) > 0)


def _on_grid(coordinates: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) the nearest indices of positions in mm, and (V,) whether these are there but for rounding."""
    inverse = np.linalg.inv(affine[:3, :3])
    indices = np.round((coordinates.astype(np.float64) - affine[:3, 3]) @ inverse.T)
    apart = np.abs(indices @ affine[:3, :3].T + affine[:3, 3] - coordinates).max(axis=1, initial=0)
    return np.clip(indices, -(2**31), 2**31).astype(np.int64), apart <= TOLERANCE_MM
