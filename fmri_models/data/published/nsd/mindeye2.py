"""The form of MindEye2: standardised betas of all trials in HDF5, and what was shown in tars."""

import os
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .... import progress
from ....errors import FmriModelsError
from ....names import listed, one_line
from ...brain_images.opening import opened_hdf5
from ..bdata import first_region
from ..dataset import KnownVoxels, PublishedSubject, Recording
from ..webdataset_tars import array_of, samples_of
from .captions import captions_of
from .experiment import (
    MEND,
    PICTURES,
    SHARED_982,
    SHARED_1000,
    TRIALS_OF_SESSION,
    WHERE,
    FormOfNsd,
    expected_counts,
    natural_order,
    need,
    stimulus_id,
    stimulus_index,
)
from .release_files import check_shape

_FIELDS_OF_BEHAVIOUR = 17
_REGIONS = ("V1", "V2", "V3", "V4", "higher_vis")


def read_mindeye2(source: Path, wanted: Sequence[str], most: int, atlases: Sequence[str], test_set: str) -> FormOfNsd:
    """Betas of all trials, and the trials that both test sets have.

    Args:
        source: The folder with its files.
        wanted: Subjects that are looked for.
        most: The last session that is read.
        atlases: Not read; regions are those of `brain_region_masks.hdf5`.
        test_set: Is chosen later.

    Raises:
        FmriModelsError: A file is missing or has other contents than published.
    """
    pictures = source / "coco_images_224_float16.hdf5"
    need(pictures, "the pictures")
    tested: dict[str, set[int]] = {SHARED_1000: set(), SHARED_982: set()}
    subjects = []
    for name in wanted:
        path = source / f"betas_all_{name}_fp32_renorm.hdf5"
        if path.is_file():
            trials, own = _trials_of_mindeye2(source, name)
            tested = {key: tested[key] | own[key] for key in tested}
            subjects.append(_subject_of_mindeye2(source, path, name, trials[trials[:, 2] <= most], most))
    sets = {key: [stimulus_id(index) for index in sorted(values)] for key, values in tested.items() if values}
    return FormOfNsd(
        "as MindEye2 has standardised them (224 pixels)",
        subjects,
        stimuli=lambda ids: _pictures_of_mindeye2(source, pictures, ids),
        test_sets=sets,
    )


def _trials_of_mindeye2(source: Path, name: str) -> tuple[np.ndarray, dict[str, set[int]]]:
    """(n, 17) behaviour of all trials in their order, and the pictures of both test sets."""
    folder = source / "wds" / name
    paths = sorted(folder.glob("train/*.tar"), key=lambda path: natural_order(path.stem))
    looked_at = progress.bar(paths, f"Looking through the tars of {name}", unit="file", delay=1)
    rows = [_behaviour(path) for path in looked_at]
    tested: dict[str, set[int]] = {}
    for key, part in ((SHARED_982, "test"), (SHARED_1000, "new_test")):
        path = folder / part / "0.tar"
        found = _behaviour(path) if os.path.lexists(path) else np.zeros((0, _FIELDS_OF_BEHAVIOUR))
        tested[key] = {int(index) for index in found[:, 0]}
        rows.append(found)
    if not rows or not sum(map(len, rows)):
        raise FmriModelsError(f"{one_line(folder)} has no train/*.tar and no new_test/0.tar; {WHERE}.")
    # Both test sets have the same trials of most pictures.
    trials = np.concatenate(rows)
    _, first = np.unique(trials[:, 5], return_index=True)
    return trials[first].astype(np.int64), tested


def _behaviour(path: Path) -> np.ndarray:
    """(n, 17) of the samples of a tar: picture, subject, session, run, trial, row of the betas …"""
    rows = [
        array_of(path, members, "behav.npy").reshape(-1)[:_FIELDS_OF_BEHAVIOUR] for members in samples_of(path, MEND)
    ]
    if any(len(row) != _FIELDS_OF_BEHAVIOUR for row in rows):
        raise FmriModelsError(f"{one_line(path)} has behav.npy of other than {_FIELDS_OF_BEHAVIOUR} numbers.")
    for row in rows:
        used = row[[0, 2, 3, 5]]
        if row.dtype.kind not in "iuf" or not np.isfinite(used).all() or (used < 0).any() or (used % 1).any():
            raise FmriModelsError(
                f"{one_line(path)} has a behav.npy whose picture, session, run and row of the betas are "
                f"{listed(used.tolist())}; expected whole numbers from 0 on: get the file again."
            )
    return np.stack(rows) if rows else np.zeros((0, _FIELDS_OF_BEHAVIOUR))


def _subject_of_mindeye2(source: Path, path: Path, name: str, trials: np.ndarray, most: int) -> PublishedSubject:
    with opened_hdf5(path, MEND) as file:
        shape = file["betas"].shape if "betas" in file else None
    last = int(trials[:, 5].max()) if len(trials) else 0
    if shape is None or len(shape) != 2 or last >= shape[0]:
        raise FmriModelsError(
            f"{one_line(path)} has betas of the shape {shape}; expected (trials, voxels) with the row {last} that "
            f"wds/{name} names."
        )
    recordings = []
    for session in np.unique(trials[:, 2]).tolist():
        own = trials[trials[:, 2] == session]
        recordings.append(
            Recording(
                f"session {session}",
                read=partial(_rows, path, own[:, 5]),
                stimulus_ids=[stimulus_id(index) for index in own[:, 0].tolist()],
                session=session,
                runs=own[:, 3].tolist(),
                files=[path],
            )
        )
    voxels = KnownVoxels(shape[1], roi=_regions_of_mindeye2(source, name, shape[1]))
    return PublishedSubject(name, voxels, recordings, **expected_counts(name, most))


def _rows(path: Path, rows: np.ndarray) -> Iterator[np.ndarray]:
    with opened_hdf5(path, MEND) as file:
        for start in range(0, len(rows), TRIALS_OF_SESSION // 3):
            yield np.asarray(file["betas"][rows[start : start + TRIALS_OF_SESSION // 3]])


def _regions_of_mindeye2(source: Path, name: str, count: int) -> list[str] | None:
    """(V,) labels of `brain_region_masks.hdf5`, whose masks are of the betas' columns; None where it is not there."""
    path = source / "brain_region_masks.hdf5"
    if not os.path.lexists(path):
        return None
    with opened_hdf5(path, MEND) as file:
        known = file.get(name, {})
        masks = {region: np.asarray(known[region]).astype(bool).ravel() for region in _REGIONS if region in known}
    for mask in masks.values():
        check_shape(path, mask.shape, (count,))
    return first_region(masks, count, _REGIONS)


def _pictures_of_mindeye2(source: Path, path: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    captions = captions_of(source, ids)
    with opened_hdf5(path, MEND) as file:
        pictures = file.get("images")
        if pictures is None or pictures.ndim != 4 or pictures.shape[:2] != (PICTURES, 3):
            raise FmriModelsError(f"{one_line(path)} has no images of ({PICTURES}, 3, 224, 224); copy it again.")
        for stimulus in sorted(ids):
            values = np.asarray(pictures[stimulus_index(stimulus)], dtype=np.float32)
            levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
            yield {
                "stimulus_id": stimulus,
                "image": levels,
                "captions": captions.get(stimulus, []),
                "category": None,
            }
