"""BOLD Moments (Lahner et al. 2024): ten subjects, 1,000 clips of 3 s three times, 102 tested ones ten times, 3 T.

Its version B has prepared betas as pickles, a region each (`prepared_allvoxel_pkl/sub-XX/sub-XX_roi-lEBA_betas_
normalized.pkl`), dictionaries with `train_data_allvoxel` (1000, 3, voxels) and `test_data_allvoxel` (102, 10, voxels),
of which row n is clip n + 1 and clip n + 1001. They are read without unpickling (`PickledArrays`); a file that does
more than hold arrays, numbers and texts is refused. `.npz` files of the same names with these arrays are read as well.
The picture of a clip is its middle frame, `frames_middle/0001_*.jpg` of the stimulus set.

Betas are GLMsingle's, one a voxel and trial, standardised by session with the training trials, as published; a window
of volumes is read from fMRIPrep's output by `nifti`.

Layout read in: blahner/BOLDMomentsDataset at b5f3fa7 (`examples/ROI_topkstim_versionB_MNI152.ipynb`,
`examples/beta_preparation/bmd_organize_betas_versionB_fsLR32k.py`).
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.npz_arrays import NpzArrays
from fmri_models.data.published.pickled_arrays import PickledArrays
from fmri_models.data.published.picture_files import check_pictures, picture_bytes
from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line

SUBJECTS = tuple(f"{number:02d}" for number in range(1, 11))
# Part \u25b6 name of its array, clips, repetitions, number of the first clip.
_PARTS = {"train": ("train_data_allvoxel", 1000, 3, 1), "test": ("test_data_allvoxel", 102, 10, 1001)}
TRIALS = 1000 * 3 + 102 * 10
# In this order voxels are written; each region of both hemispheres.
REGIONS = (
    "V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4", "V3ab", "LOC", "MT", "EBA", "FFA", "OFA", "STS", "PPA", "RSC",
    "TOS", "IPS0", "IPS1-2-3", "7AL", "BA2", "PFt", "PFop",
)  # fmt: skip
SECONDS = 3.0
_BETAS = "derivatives/versionB/MNI152/prepared_allvoxel_pkl"
_FRAMES = ("derivatives/stimuli_metadata/frames_middle", "stimuli_metadata/frames_middle", "frames_middle")

PAPER = {
    "title": "Modeling short visual events through the BOLD Moments video fMRI dataset and metadata",
    "authors": (
        "Lahner, Benjamin", "Dwivedi, Kshitij", "Iamshchinina, Polina", "Graumann, Monika", "Lascelles, Alex",
        "Roig, Gemma", "Gifford, Alessandro Thomas", "Pan, Bowen", "Jin, SouYoung", "Ratan Murty, N. Apurva",
        "Kay, Kendrick", "Oliva, Aude", "Cichy, Radoslaw",
    ),
    "year": 2024,
    "url": "https://doi.org/10.1038/s41467-024-50310-3",
    "venue": "Nature Communications",
}  # fmt: skip
ORIGIN = "https://openneuro.org/datasets/ds005165"
LICENSE = "CC0 1.0 (OpenNeuro ds005165); the clips and their frames by a form, with terms of their own"
WHERE = (
    f"{_BETAS} is in OpenNeuro's ds005165 (aws s3 sync), the clips and their middle frames are asked for at "
    "boldmomentsdataset.csail.mit.edu/stimuli_metadata"
)


def read(source: Path, subjects: list[str] | None = None, incomplete: bool = False) -> PublishedDataset:
    """BOLD Moments, prepared betas of version B.

    Args:
        source: The data set's folder, or the one that `sub-XX` with the betas are in.
        subjects: These alone are looked for.
        incomplete: Whether some pictures are enough.
    """
    folder = source / _BETAS if (source / _BETAS).is_dir() else source
    wanted = [number for number in SUBJECTS if subjects is None or f"subj{number}" in subjects]
    files = {number: _files(folder / f"sub-{number}", number) for number in wanted}
    people = [_subject(number, own) for number, own in files.items() if own]
    if not people:
        raise FmriModelsError(f"{one_line(folder)} has no sub-01/sub-01_roi-lV1v_betas_normalized.pkl; {WHERE}.")
    frames = next((source / place for place in _FRAMES if any((source / place).glob("*.jpg"))), None)
    return PublishedDataset(
        name="bmd",
        description=(
            "Single trials of subjects who watched clips of 3 s, a thousand that are learned from and 102 that are "
            "tested; GLMsingle's betas in regions."
        ),
        license=LICENSE,
        citation=(
            "B. Lahner, K. Dwivedi, P. Iamshchinina et al. (2024): Modeling short visual events through the BOLD "
            "Moments video fMRI dataset and metadata. Nature Communications 15, 6241. OpenNeuro ds005165, version B."
        ),
        script="dataset_scripts/bmd.py",
        script_version=2,
        subjects=people,
        stimuli=lambda ids: _clips(frames, ids, incomplete),
        notes=[
            "Betas are standardised by session with the training trials, as published; of which session a trial is, "
            "the files don't say.",
            "A voxel of two regions is there twice.",
            "The picture of a clip is its middle frame."
            if frames is not None
            else "The middle frames of the clips were not there, so that the table has no pictures.",
        ],
    )


def _files(folder: Path, number: str) -> dict[str, Path]:
    """Region of a hemisphere, such as `lV1v` ▶ its file: `.npz` where somebody has made one, else the pickle."""
    stems = {
        f"{side}{region}": f"sub-{number}_roi-{side}{region}_betas_normalized" for region in REGIONS for side in "lr"
    }
    paths = {name: (folder / f"{stem}.npz", folder / f"{stem}.pkl") for name, stem in stems.items()}
    there = {name: [path for path in both if os.path.lexists(path)] for name, both in paths.items()}
    return {name: found[0] for name, found in there.items() if found}


def _subject(number: str, files: dict[str, Path]) -> PublishedSubject:
    arrays = {name: _arrays(path) for name, path in files.items()}
    widths = {}
    for name, archive in arrays.items():
        for array, clips, repetitions, _ in _PARTS.values():
            shape = archive.shapes.get(array)
            if shape is None or len(shape) != 3 or shape[:2] != (clips, repetitions):
                raise FmriModelsError(
                    f"{one_line(archive.path)} has {array} of the shape {shape}; expected ({clips}, {repetitions}, "
                    f"voxels); {WHERE}."
                )
            if widths.setdefault(name, shape[2]) != shape[2]:
                raise FmriModelsError(
                    f"{one_line(archive.path)} has betas of {widths[name]} and {shape[2]} voxels; expected those of "
                    f"one region; {WHERE}."
                )
    recordings = [
        Recording(
            part,
            read=lambda array=array: _blocks(list(arrays.values()), array),
            stimulus_ids=[f"{first + place:04d}" for place in range(clips) for _ in range(repetitions)],
            part=part,
            files=list(files.values()),
        )
        for part, (array, clips, repetitions, first) in _PARTS.items()
    ]
    labels = [name for name, width in widths.items() for _ in range(width)]
    both = {
        region: np.array([label[1:] == region for label in labels])
        for region in REGIONS
        if any(name[1:] == region for name in widths)
    }
    voxels = KnownVoxels(len(labels), roi=labels, regions=both)
    return PublishedSubject(f"subj{number}", voxels, recordings, expected_trials=TRIALS)


def _arrays(path: Path) -> NpzArrays | PickledArrays:
    return (NpzArrays if path.suffix == ".npz" else PickledArrays)(path, WHERE)


def _blocks(arrays: Sequence[NpzArrays | PickledArrays], array: str) -> Iterator[np.ndarray]:
    """(repetitions, voxels of all regions), clip by clip."""
    for rows in zip(*(archive.rows(array) for archive in arrays), strict=True):
        yield np.concatenate([np.asarray(row, dtype=np.float32) for row in rows], axis=1)


def _clips(frames: Path | None, ids: Collection[str], incomplete: bool) -> Iterator[dict[str, Any]]:
    found: dict[str, Path] = {}
    for path in sorted(frames.glob("*.jpg")) if frames is not None else []:
        other = found.setdefault(path.name.partition("_")[0].removesuffix(".jpg"), path)
        if other != path:
            raise FmriModelsError(
                f"Two middle frames are of one clip: {one_line(other)} and {one_line(path)}; {WHERE}."
            )
    check_pictures(ids, found, WHERE, incomplete)
    for stimulus in sorted(ids):
        picture = picture_bytes(found[stimulus]) if stimulus in found else None
        clip = {"file": f"mp4_h264/{stimulus}.mp4", "start": 0.0, "seconds": SECONDS}
        yield {"stimulus_id": stimulus, "image": picture, "captions": [], "clip": clip}


prepare = preparation(read)
