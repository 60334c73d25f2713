"""Whether two trainings read the same voxels: weights belong to them, one by one."""

import numpy as np
from transformers.utils import logging

from ..errors import FmriModelsError
from ..names import one_line
from ..processing.subject_statistics import SubjectStatistics
from ..processing_fmri import FmriProcessor

logger = logging.get_logger(__name__)


def check_same_voxels(source: str, initial: FmriProcessor, own: FmriProcessor) -> None:
    """Refuses weights of other voxels, however many there are: each weight belongs to one of them.

    Args:
        source: The initial model, for messages.
        initial: Its processor.
        own: That of the new training, of the same subjects.

    Raises:
        FmriModelsError: Names the first subject with other voxels.
    """
    for name in own.subject_names:
        difference = _other_voxels(initial.subject(name), own.subject(name))
        if not difference:
            continue
        if _is_unknown(initial):
            logger.warning(
                f"The initial model {one_line(source, 120)} was published without its statistics, so nobody could "
                f"check that the voxels of {name} are those that it was trained on, in the same order (it expects: "
                f"{one_line(initial.expects, 300)})."
            )
            continue
        raise FmriModelsError(
            f"The initial model {one_line(source, 120)} reads other voxels of {name} than this training ({difference}),"
            f" and its weights belong to those. {_what_to_do(initial, own)}"
        )


def _other_voxels(initial: SubjectStatistics, own: SubjectStatistics) -> str:
    """What shows that the voxels that two trainings read are not the same; empty where they are."""
    if len(initial.selected) != len(own.selected):
        return f"{len(initial.selected)} and {len(own.selected)}"
    if initial.coordinates is not None and own.coordinates is not None:
        before, now = initial.coordinates[initial.selected], own.coordinates[own.selected]
        other = ~np.isclose(before, now, rtol=0, atol=1e-3, equal_nan=True).all(axis=1)
        if other.any():
            return f"{int(other.sum())} of {len(other)} are at other coordinates"
        if np.isfinite(now).all() and len(np.unique(now, axis=0)) == len(now):
            # A table may hold other voxels beside the same ones; places tell which these are.
            return ""
    if initial.roi and own.roi:
        other = np.array(initial.roi)[initial.selected] != np.array(own.roi)[own.selected]
        if other.any():
            return f"{int(other.sum())} of {len(other)} are in another ROI"
    (width, columns), (own_width, own_columns) = _in_source(initial), _in_source(own)
    if width != own_width:
        return f"they are chosen from {width} and from {own_width}"
    other = columns != own_columns
    if other.any():
        first = int(np.flatnonzero(other)[0])
        return (
            f"{int(other.sum())} of {len(other)} are other columns of the betas, the first {columns[first]} there and "
            f"{own_columns[first]} here"
        )
    return ""


def _in_source(statistics: SubjectStatistics) -> tuple[int, np.ndarray]:
    """Of the betas as they were before any voxel was dropped: their width, and the columns of the selected voxels."""
    if statistics.source_columns is None or statistics.source_width is None:
        return statistics.num_voxels, statistics.selected
    return statistics.source_width, statistics.source_columns[statistics.selected]


def _is_unknown(processor: FmriProcessor) -> bool:
    """Whether it stands for that of a model which was published without one."""
    return processor.statistics == "identity" and bool(processor.expects)


def _what_to_do(initial: FmriProcessor, own: FmriProcessor) -> str:
    if any(each.num_best_voxels is not None or each.min_noise_ceiling is not None for each in (initial, own)):
        return (
            "num_best_voxels and min_noise_ceiling choose anew by the trials of each training: choose by "
            "processor.rois, or take all voxels, in both trainings, or take an initial model that was trained on the "
            "same split and fold."
        )
    return "Train on a table with the same voxels and with the same processor.rois, or without initial_model."
