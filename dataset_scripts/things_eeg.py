"""THINGS-EEG2 (Gifford et al. 2022): EEG of ten subjects, 16,540 pictures of THINGS four times, 200 eighty times.

Its preprocessed recordings, `sub-XX/preprocessed_eeg_{training,test}.npy`, are pickled dictionaries with
`preprocessed_eeg_data` (pictures, repetitions, channels, samples), `ch_names` and `times`; so is `image_metadata.npy`
with `{train,test}_img_{concepts,files}`. They are read without unpickling (`PickledArrays`); a file that does more than
hold arrays, numbers and texts is refused. `.npz` files of the same names with these arrays are read as well. Pictures
are in `{training,test}_images/<concept>/<file>`.

Layout read in: gifale95/eeg_encoding at f0c03bf (`02_eeg_preprocessing/preprocessing_utils.py`) and
desa-lab/EEG-Image-Reconstruction at eda7273 (`thingseeg2_scripts/save_thingseeg2_images.py`, for pictures).
"""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.data.published import (
    KnownVoxels,
    PublishedDataset,
    PublishedSubject,
    Recording,
    preparation,
    windowed,
)
from fmri_models.data.published.npz_arrays import NpzArrays
from fmri_models.data.published.pickled_arrays import PickledArrays
from fmri_models.data.published.picture_files import picture_bytes
from fmri_models.data.windows import OF_CHANNELS, Windows
from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line

SUBJECTS = tuple(f"{number:02d}" for number in range(1, 11))
TRAINED, TESTED = 16_540, 200
REPETITIONS = {"training": 4, "test": 80}
_PARTS = {"training": "train", "test": "test"}
_PICTURES_AT_ONCE = 16

PAPER = {
    "title": "A large and rich EEG dataset for modeling human visual object recognition",
    "authors": ("Gifford, Alessandro T.", "Dwivedi, Kshitij", "Roig, Gemma", "Cichy, Radoslaw M."),
    "year": 2022,
    "url": "https://doi.org/10.1016/j.neuroimage.2022.119754",
    "venue": "NeuroImage",
}
ORIGIN = "https://osf.io/3jk45"
LICENSE = "as stated at osf.io/3jk45, not confirmed here; pictures of THINGS: for research, by their own terms"
WHERE = "preprocessed recordings, image_metadata.npy and the pictures are at osf.io/3jk45"


def read(
    source: Path, from_onset: bool = False, subjects: list[str] | None = None, incomplete: bool = False
) -> PublishedDataset:
    """THINGS-EEG2, preprocessed recordings.

    Args:
        source: The folder with `sub-XX` and `image_metadata.npy`, and with pictures where they are there.
        from_onset: Without the samples before the picture appears.
        subjects: These alone are looked for.
        incomplete: Whether one part of a subject, or fewer pictures, are enough.
    """
    wanted = [number for number in SUBJECTS if subjects is None or f"subj{number}" in subjects]
    names = _names_of_pictures(source)
    people, times = [], None
    for number in wanted:
        files = {part: _file(source / f"sub-{number}" / f"preprocessed_eeg_{part}") for part in _PARTS}
        there = {part: path for part, path in files.items() if path is not None}
        if not there:
            continue
        if len(there) < len(files) and not incomplete:
            raise FmriModelsError(
                f"{one_line(source / f'sub-{number}')} has one part alone; {WHERE}, or write what is there with "
                "--option incomplete=yes."
            )
        person, own_times = _subject(number, there, names, from_onset)
        if times is not None and not np.array_equal(times, own_times):
            raise FmriModelsError(f"sub-{number} has samples at other times than the subjects before; {WHERE}.")
        people.append(person)
        times = own_times
    if times is None:
        raise FmriModelsError(f"{one_line(source)} has no sub-XX/preprocessed_eeg_training.npy; {WHERE}.")
    files_of = {stimulus: path for own in names.values() for stimulus, path in own}
    return PublishedDataset(
        name="things_eeg",
        description=(
            "EEG of subjects who looked at photographs of 1,854 kinds of objects, of which 200 are tested, each of one "
            "picture and none of the kinds that are learned from; multivariate noise normalisation by its authors."
        ),
        license=LICENSE,
        citation=(
            "A. T. Gifford, K. Dwivedi, G. Roig, R. M. Cichy (2022): A large and rich EEG dataset for modeling human "
            "visual object recognition. NeuroImage 264, 119754. osf.io/3jk45."
        ),
        script="dataset_scripts/things_eeg.py",
        script_version=2,
        subjects=people,
        stimuli=lambda ids: _pictures(source, ids, files_of),
        modality="eeg",
        windows=Windows(OF_CHANNELS, float(np.diff(times).mean()), float(times[0])),
        notes=[
            "Repetitions were mixed over sessions by its authors, so that sessions are not known. Whitening of each "
            "session has seen test trials, too, as published.",
            *(["Samples before the picture are left out."] if from_onset else []),
        ],
    )


def _file(stem: Path) -> Path | None:
    """The file of a name: `.npz` where somebody has made one, else the dictionary as published."""
    paths = (stem.with_name(f"{stem.name}{ending}") for ending in (".npz", ".npy"))
    return next((path for path in paths if os.path.lexists(path)), None)


def _arrays(path: Path) -> NpzArrays | PickledArrays:
    return (NpzArrays if path.suffix == ".npz" else PickledArrays)(path, WHERE)


def _names_of_pictures(source: Path) -> dict[str, list[tuple[str, Path]]]:
    """Part \u25b6 id and file, in the folder of its part, of each picture in the recordings' order."""
    path = _file(source / "image_metadata")
    if path is None:
        raise FmriModelsError(f"{one_line(source / 'image_metadata.npy')} is missing; {WHERE}.")
    metadata = _arrays(path)
    found = {}
    for part, key in (("training", "train"), ("test", "test")):
        concepts, files = (metadata.texts(f"{key}_img_{what}") for what in ("concepts", "files"))
        if len(concepts) != len(files) or len(set(files)) != len(files):
            raise FmriModelsError(
                f"{one_line(path)} has {len(concepts)} concepts and {len(set(files))} different files of {key} "
                f"pictures; expected one each; {WHERE}."
            )
        found[part] = [
            (Path(file).stem, Path(f"{part}_images") / Path(concept).name / Path(file).name)
            for concept, file in zip(concepts, files, strict=True)
        ]
    return found


def _subject(
    number: str, files: dict[str, Path], names: dict[str, list[tuple[str, Path]]], from_onset: bool
) -> tuple[PublishedSubject, np.ndarray]:
    recordings: list[Recording] = []
    known: tuple[list[str], np.ndarray] | None = None
    for part, path in files.items():
        arrays = _arrays(path)
        shape = arrays.shapes.get("preprocessed_eeg_data", ())
        times, channels = arrays.read("times"), arrays.texts("ch_names")
        if len(shape) != 4 or shape[2:] != (len(channels), times.size) or shape[0] != len(names[part]):
            raise FmriModelsError(
                f"{one_line(path)} has recordings of the shape {shape}; expected ({len(names[part])}, repetitions, "
                f"{len(channels)}, {times.size}), those of its pictures, channels and times; {WHERE}."
            )
        if known is not None and (known[0] != channels or not np.array_equal(known[1], times)):
            raise FmriModelsError(f"{one_line(path)} has other channels or times than the other part; {WHERE}.")
        known = channels, times
        first = int(np.argmax(times >= -1e-9)) if from_onset else 0
        recordings.append(
            Recording(
                part,
                read=lambda arrays=arrays, first=first: _blocks(arrays, first),
                stimulus_ids=[stimulus for stimulus, _ in names[part] for _ in range(shape[1])],
                part=_PARTS[part],
                files=[path],
            )
        )
    assert known is not None
    channels, times = known
    kept = times[int(np.argmax(times >= -1e-9)) if from_onset else 0 :]
    expected = TRAINED * REPETITIONS["training"] + TESTED * REPETITIONS["test"]
    voxels = windowed(KnownVoxels(len(channels), roi=channels), len(kept), OF_CHANNELS)
    return PublishedSubject(f"subj{number}", voxels, recordings, expected_trials=expected), kept


def _blocks(arrays: NpzArrays | PickledArrays, first: int) -> Iterator[np.ndarray]:
    """(n, channels x samples): all repetitions of some pictures at a time."""
    rows = arrays.rows("preprocessed_eeg_data")
    while block := list(islice(rows, _PICTURES_AT_ONCE)):
        yield np.concatenate([_flat(row[..., first:]) for row in block])


def _flat(repetitions: np.ndarray) -> np.ndarray:
    return repetitions.reshape(len(repetitions), -1)


def _pictures(source: Path, ids: Collection[str], files: dict[str, Path]) -> Iterator[dict[str, Any]]:
    folders: Sequence[Path] = (source, source / "image_set")
    for stimulus in sorted(ids):
        path = next((folder / files[stimulus] for folder in folders if (folder / files[stimulus]).is_file()), None)
        concept = files[stimulus].parent.name
        yield {
            "stimulus_id": stimulus,
            "image": None if path is None else picture_bytes(path),
            "captions": [],
            "category": concept.split("_", 1)[-1],
        }


prepare = preparation(read)
