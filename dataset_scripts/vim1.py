"""vim-1 (Kay et al. 2008): two subjects, 1,750 grey photographs seen twice and 120 seen 13 times, 4 T.

`EstimatedResponses.mat` (MATLAB 7.3, thus HDF5, in which axes are turned round): `dataTrnS1` (1,750, 25,915),
`dataValS1` (120, 25,915) and `roiS1`, and likewise for S2 (26,329 voxels); each row is the response to a photograph,
estimated from all its repetitions and standardised by voxel. `Stimuli.mat` (MATLAB 5): `stimTrn` (1,750, 128, 128) and
`stimVal` (120, 128, 128). Both as CRCNS publishes them.

Layout read in T. Naselaris' notebook on them in `hrf_fitting` (rows, columns, regions by number, voxels with NaN left
out), github.com/lp3wv/crcns-vim1-lp3wv (`data/README.md`), and the demos of neural-coding and ebrain that read both
files (`scipy.io.loadmat` for the photographs, upright); which copies of these are the newest was not looked up.
"""

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.data import schema
from fmri_models.data.brain_images.opening import opened_hdf5
from fmri_models.data.matlab import read_mat
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line
from fmri_models.reading import check_regular_file

VERSION = 1
PAPER = {
    "title": "Identifying natural images from human brain activity",
    "authors": ("Kay, Kendrick N.", "Naselaris, Thomas", "Prenger, Ryan J.", "Gallant, Jack L."),
    "year": 2008,
    "url": "https://doi.org/10.1038/nature06713",
    "venue": "Nature",
}
ORIGIN = "https://crcns.org/data-sets/vc/vim-1"
LICENSE = "CRCNS terms of use (free account; for science alone, not to be passed on)"
CITATION = (
    "K. N. Kay, T. Naselaris, R. J. Prenger, J. L. Gallant (2008): Identifying natural images from human brain "
    "activity. Nature 452, 352-355. Data: K. N. Kay, T. Naselaris, J. L. Gallant (2011), doi:10.6080/K0QN64NW."
)
DESCRIPTION = (
    "vim-1: responses to 1,750 grey photographs, estimated from two repetitions each, and to 120 others, from 13 each; "
    "standardised by voxel."
)
MEND = "give the folder with EstimatedResponses.mat and Stimuli.mat of crcns.org/data-sets/vc/vim-1"
RESPONSES, STIMULI = "EstimatedResponses.mat", "Stimuli.mat"
VOXELS = {1: 25915, 2: 26329}
# Part ▶ how the file calls it, and how many photographs it has.
PARTS = {schema.TRAIN: ("Trn", 1750), schema.TEST: ("Val", 120)}
REGIONS = ("", "V1", "V2", "V3", "V3A", "V3B", "V4", "LO")
_ROWS_AT_ONCE = 128


def read(source: Path, subjects: list[str] | None = None) -> PublishedDataset:
    """What the files hold; responses and photographs are read later.

    Args:
        source: The folder with both files, or the file of the responses alone.
        subjects: These alone are looked for: `subj01`, `subj02`.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    path = source / RESPONSES if source.is_dir() else source
    check_regular_file(path, "file of responses", MEND)
    stimuli = path.with_name(STIMULI)
    notes = ["Each trial is a photograph's mean response; sessions and runs are not in the files."]
    if stimuli.is_file():
        notes.append("Grey values are those of the file, from its least to its largest value over all photographs.")
    else:
        notes.append(f"The table has no pictures, which are in {STIMULI}.")
    with opened_hdf5(path, MEND) as file:
        found = [_subject(path, file, number) for number in VOXELS if f"dataTrnS{number}" in file]
    if not found:
        raise FmriModelsError(f"{one_line(path)} has no dataTrnS1 and no dataTrnS2; {MEND}.")
    return PublishedDataset(
        name="vim1",
        description=DESCRIPTION,
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/vim1.py",
        script_version=VERSION,
        subjects=[each for each in found if subjects is None or each.name in subjects] or found,
        stimuli=partial(_stimuli, stimuli),
        notes=notes,
    )


def stimulus_id(part: str, number: int) -> str:
    """Of the photograph in a row, from 0."""
    return f"{PARTS[part][0].lower()}{number + 1:04d}"


def _subject(path: Path, file: Any, number: int) -> PublishedSubject:
    name = f"subj{number:02d}"
    width = _shape(path, file, f"dataTrnS{number}")[-1]
    labels = _labels(path, file, number, width)
    recordings = []
    for part, (suffix, _) in PARTS.items():
        key = f"data{suffix}S{number}"
        shape = _shape(path, file, key)
        if len(shape) != 2 or shape[1] != width:
            raise FmriModelsError(
                f"{key} in {one_line(path)} is of the shape {shape}; expected (photographs, {width}), as "
                f"dataTrnS{number}; {MEND}."
            )
        recordings.append(
            Recording(
                key,
                partial(_blocks, path, key),
                [stimulus_id(part, row) for row in range(shape[0])],
                runs=len(recordings) + 1,
                part=part,
                files=[path],
            )
        )
    expected = sum(count for _, count in PARTS.values())
    return PublishedSubject(
        name, KnownVoxels(width, roi=labels), recordings, expected_trials=expected, expected_voxels=VOXELS[number]
    )


def _shape(path: Path, file: Any, key: str) -> tuple[int, ...]:
    shape: tuple[int, ...] = tuple(getattr(file.get(key), "shape", ()))
    if not shape:
        raise FmriModelsError(f"{one_line(path)} has no array {key}; {MEND}.")
    return shape


def _labels(path: Path, file: Any, number: int, width: int) -> list[str]:
    key = f"roiS{number}"
    _shape(path, file, key)
    numbers = np.asarray(file[key]).ravel()
    if len(numbers) != width:
        raise FmriModelsError(
            f"{key} in {one_line(path)} has {len(numbers)} voxels, and dataTrnS{number} {width} columns: its axes are "
            f"(photographs, voxels) in HDF5; {MEND}."
        )
    if not np.isin(numbers, np.arange(len(REGIONS))).all():
        raise FmriModelsError(f"{key} in {one_line(path)} has other numbers than 0 to {len(REGIONS) - 1}; {MEND}.")
    return [REGIONS[int(value)] for value in numbers]


def _blocks(path: Path, key: str) -> Iterator[np.ndarray]:
    with opened_hdf5(path, MEND) as file:
        for start in range(0, file[key].shape[0], _ROWS_AT_ONCE):
            yield np.asarray(file[key][start : start + _ROWS_AT_ONCE])


def _stimuli(path: Path, shown: Collection[str]) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        for name in sorted(shown):
            yield {"stimulus_id": name, "image": None, "category": None}
        return
    keys = [f"stim{suffix}" for suffix, _ in PARTS.values()]
    arrays = read_mat(path, keys, MEND)
    for key, (suffix, _) in zip(keys, PARTS.values(), strict=True):
        count = sum(name.startswith(suffix.lower()) for name in shown)
        shape = arrays[key].shape if key in arrays else "not there"
        if key not in arrays or arrays[key].ndim != 3 or len(arrays[key]) < count:
            raise FmriModelsError(
                f"{key} in {one_line(path)} is {shape}; expected ({count}, height, width), a photograph a row; {MEND}."
            )
    least = min(float(arrays[key].min()) for key in keys)
    width = max(float(arrays[key].max()) for key in keys) - least
    if not np.isfinite([least, width]).all() or width <= 0:
        raise FmriModelsError(f"The photographs in {one_line(path)} have no range of grey values; {MEND}.")
    for key, part in zip(keys, PARTS, strict=True):
        for row, picture in enumerate(arrays[key]):
            name = stimulus_id(part, row)
            if name in shown:
                grey = np.rint((picture.astype(np.float64) - least) * (255 / width)).astype(np.uint8)
                yield {"stimulus_id": name, "image": grey[..., None], "category": None}


# Some thousand voxels have no response to some photographs.
prepare = preparation(read, {"drop_bad_voxels": True})
