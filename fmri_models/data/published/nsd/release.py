"""The official release: which sessions and regions a subject has."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from .... import progress
from ....errors import FmriModelsError
from ....names import one_line
from ....reading import read_text
from ...brain_images.opening import image_values, open_image, required_package
from ..dataset import KnownVoxels, PublishedSubject, Recording, VoxelGrid
from .experiment import (
    BETAS,
    IMAGERY,
    IMAGERY_VISION,
    MEND,
    SPACE,
    SYNTHETIC,
    TRIALS_OF_SESSION,
    WHERE,
    FormOfNsd,
    expected_counts,
    need,
    table_rows,
)
from .other_experiments import tested_elsewhere
from .release_files import Design, blocks_of_trials, check_shape, pictures_of_release


def read_release(source: Path, wanted: Sequence[str], most: int, atlases: Sequence[str], test_set: str) -> FormOfNsd:
    """Betas of `nsdgeneral`, session by session.

    Args:
        source: The folder with its files.
        wanted: Subjects that are looked for.
        most: The last session that is read.
        atlases: In which the label of a voxel is looked for, one after the other.
        test_set: One of another experiment has trials of shared pictures left out.

    Raises:
        FmriModelsError: A file is missing or has other contents than published.
    """
    design = Design.read(source)
    stimuli = source / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    need(stimuli, "the pictures")
    subjects = []
    for name in wanted:
        folder = source / "nsddata_betas" / "ppdata" / name / SPACE / BETAS
        sessions = range(1, most + 1)
        files = {session: path for session in sessions if (path := _betas_file(folder, session)) is not None}
        if files:
            subjects.append(_subject_of_release(source, name, folder, files, design, atlases, most))
    if test_set in (IMAGERY, IMAGERY_VISION, SYNTHETIC) and subjects:
        return tested_elsewhere(source, subjects, design, test_set)
    if not subjects:
        place = source / "nsddata_betas" / "ppdata" / "subj0X" / SPACE / BETAS
        raise FmriModelsError(f"There are no betas_session*.nii.gz or .hdf5 in {one_line(place)}; {WHERE}.")
    return FormOfNsd(
        f"{BETAS} of the release in 1.8 mm, percent signal change",
        subjects,
        stimuli=lambda ids: pictures_of_release(source, stimuli, ids),
        test_sets=design.test_sets(),
    )


def _betas_file(folder: Path, session: int) -> Path | None:
    paths = (folder / f"betas_session{session:02d}{ending}" for ending in (".hdf5", ".nii.gz", ".nii"))
    return next((path for path in paths if path.is_file()), None)


def _subject_of_release(
    source: Path,
    name: str,
    folder: Path,
    files: Mapping[int, Path],
    design: Design,
    atlases: Sequence[str],
    most: int,
) -> PublishedSubject:
    rois = source / "nsddata" / "ppdata" / name / SPACE / "roi"
    need(rois / "nsdgeneral.nii.gz", f"the region of {name}")
    general = open_image(rois / "nsdgeneral.nii.gz", mend=MEND)
    volume = image_values(general, rois / "nsdgeneral.nii.gz", mend=MEND)
    indices = np.flatnonzero(volume > 0)
    affine = np.asarray(general.affine, dtype=float)
    _say_other_directions(next((path for path in files.values() if path.suffix != ".hdf5"), None), affine, name)
    places = np.stack(np.unravel_index(indices, volume.shape), axis=1)
    voxels = KnownVoxels(
        len(indices),
        roi=_labels(source, name, rois, atlases, volume.shape, indices),
        coordinates=(places @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32),
        space=f"{name}, {SPACE}",
        ncsnr=_ncsnr(folder, volume.shape, indices),
        grid=VoxelGrid(volume.shape, affine, indices),
    )
    runs = _runs(source, name)
    recordings = [
        Recording(
            f"session {session}",
            read=partial(blocks_of_trials, path, volume.shape, indices),
            stimulus_ids=design.stimuli(name, session),
            session=session,
            runs=runs.get(session, 1),
            files=[path, rois / "nsdgeneral.nii.gz"],
        )
        for session, path in sorted(files.items())
    ]
    return PublishedSubject(name, voxels, recordings, **expected_counts(name, most))


def _say_other_directions(path: Path | None, affine: np.ndarray, name: str) -> None:
    """Says where headers have the axes of betas and region in other directions: both have the same shape if flipped."""
    if path is None:
        return
    directions = required_package("nibabel").aff2axcodes
    found, expected = ("".join(map(str, directions(each))) for each in (open_image(path, mend=MEND).affine, affine))
    if found != expected:
        progress.say(
            f"{name}: by their headers, the axes of {one_line(path.name)} go to {found}, and those of nsdgeneral to "
            f"{expected}. Voxels are taken by their place in the arrays; if files were converted, one may be flipped."
        )


def _labels(
    source: Path, name: str, rois: Path, atlases: Sequence[str], shape: tuple[int, ...], indices: np.ndarray
) -> list[str]:
    """(V,) the label of each voxel in the first atlas that has one for it."""
    labels = np.full(len(indices), "", dtype=object)
    for atlas in atlases:
        path = rois / f"{atlas}.nii.gz"
        if not os.path.lexists(path):
            continue
        image = open_image(path, mend=MEND)
        check_shape(path, image.shape, shape)
        values = image_values(image, path, mend=MEND).reshape(-1)[indices]
        names = _names_of_atlas(source, name, atlas)
        for value in np.unique(values[values > 0]).tolist():
            label = names.get(int(value), f"{atlas} {int(value)}")
            labels[(values == value) & (labels == "")] = label
    return labels.tolist()


def _names_of_atlas(source: Path, name: str, atlas: str) -> dict[int, str]:
    """Value ▶ label of an atlas, from FreeSurfer's table of it; empty where that is not there."""
    for owner in (name, "fsaverage"):
        path = source / "nsddata" / "freesurfer" / owner / "label" / f"{atlas}.mgz.ctab"
        if os.path.lexists(path):
            lines = (line.split() for line in read_text(path, "table of labels", MEND).splitlines())
            found = {int(line[0]): line[1] for line in lines if len(line) >= 2 and line[0].isdecimal()}
            if not found:
                raise FmriModelsError(f"{one_line(path)} names no region; {MEND}, or remove it.")
            return found
    return {}


def _ncsnr(folder: Path, shape: tuple[int, ...], indices: np.ndarray) -> np.ndarray | None:
    """Of the release, which includes the tested trials."""
    path = folder / "ncsnr.nii.gz"
    if not os.path.lexists(path):
        return None
    image = open_image(path, mend=MEND)
    check_shape(path, image.shape, shape)
    return image_values(image, path, mend=MEND).reshape(-1)[indices]


def _runs(source: Path, name: str) -> dict[int, list[int]]:
    """Session ▶ run of each of its trials, of the table of behaviour; empty where that is not there."""
    path = source / "nsddata" / "ppdata" / name / "behav" / "responses.tsv"
    if not os.path.lexists(path):
        return {}
    runs: dict[int, list[int]] = {}
    for row in table_rows(path, ("SESSION", "RUN"), "\t"):
        runs.setdefault(row[0], []).append(row[1])
    return {session: values for session, values in runs.items() if len(values) == TRIALS_OF_SESSION}
