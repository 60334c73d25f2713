"""MOSAIC (Lahner et al. 2025): eight data sets, 93 subjects, one pipeline, betas on fsLR (91,282 grayordinates).

A file a subject and data set, `sub-01_NSD.hdf5` and so on (BOLD5000, BMD, GOD, HAD, NOD, NSD, THINGS, deeprecon), of
the public storage `s3://mosaicfmri`. In the group `betas`, each trial is an array of its own,
`sub-01_NSD_stimulus-<name>_phase-train_rep-0` (91,282,), standardised by session; neither sessions nor runs are told.

Layout read in github.com/blahner/mosaic-preprocessing, commit 62d58a0
(`src/fmriDatasetPreparation/create_hdf5/create_hdf5_pkl.py`), and the package mosaic-dataset 0.0.6 (names of files).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmri_models.data import schema
from fmri_models.data.brain_images.masks import names_of
from fmri_models.data.brain_images.opening import damage_as_sentences, open_image, opened_hdf5
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.picture_files import check_pictures, picture_bytes, picture_files
from fmri_models.errors import FmriModelsError
from fmri_models.names import listed, one_line

VERSION = 1
ORIGIN = "https://mosaic.csail.mit.edu"
LICENSE = "that of each data set (CC0 1.0 on OpenNeuro; NSD: not to be passed on); pictures by their own terms"
CITATION = "B. Lahner et al. (2025): MOSAIC. Files of s3://mosaicfmri, fMRIPrep 23.2.0 and GLMsingle 1.2."
OPEN = "CC0 1.0 (OpenNeuro); pictures by their own terms"
DESCRIPTION = (
    "MOSAIC: single trials of {datasets}, preprocessed alike, on fsLR, standardised by session; parts are MOSAIC's."
)
MEND = "give the folder with sub-01_NSD.hdf5 and so on of s3://mosaicfmri (betas/GLMsinglev1_2)"
DATASETS = ("BMD", "BOLD5000", "GOD", "HAD", "NOD", "NSD", "THINGS", "deeprecon")
GRAYORDINATES, CORTEX, LEFT = 91282, 59412, 29696
_FILE = re.compile(rf"(sub-\d\d)_({'|'.join(DATASETS)})\.hdf5")
_TRIAL = re.compile(r"sub-\d\d_[^_]+_stimulus-(.+)_phase-(train|test)_rep-(\d+)")
_IMAGENET = re.compile(r"n\d{8}_\d+")
_TRIALS_A_RECORDING = 1000
_ROWS_AT_ONCE = 64


def read(
    source: Path,
    images: Path | None = None,
    vertices: Literal["cortex", "all"] = "cortex",
    atlas: Path | None = None,
    datasets: list[str] | None = None,
    incomplete: bool = False,
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """What the files hold; betas and pictures are read later.

    Args:
        source: The folder with the files, or one of them.
        images: A folder with pictures by the names of the stimuli; the table has none if None.
        vertices: The cortex' 59,412, or all grayordinates.
        atlas: A `.dlabel.nii` file of the cortex' vertices or of all grayordinates, for regions.
        datasets: These alone, such as `NSD`.
        incomplete: Whether pictures may be missing.
        subjects: These alone are looked for, such as `sub-01_NSD`.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    paths = [source] if source.is_file() else sorted(source.rglob("sub-*.hdf5"))
    files = {match[1] + "_" + match[2]: (path, match[2]) for path in paths if (match := _FILE.fullmatch(path.name))}
    if unknown := sorted(set(datasets or ()) - set(DATASETS)):
        raise FmriModelsError(f"MOSAIC has no {one_line(unknown[0], 40)!r}; it has {', '.join(DATASETS)}.")
    chosen = {
        name: each
        for name, each in files.items()
        if (subjects is None or name in subjects) and (datasets is None or each[1] in datasets)
    }
    if not chosen:
        raise FmriModelsError(f"{one_line(source)} has no such file of MOSAIC ({listed(files, 5) or 'none'}); {MEND}.")
    count = CORTEX if vertices == "cortex" else GRAYORDINATES
    labels = _labels(atlas, count)
    trials = {name: _trials(path, dataset) for name, (path, dataset) in chosen.items()}
    tested = {each.stimulus for own in trials.values() for each in own if each.part == schema.TEST}
    people, left_out = [], 0
    for name, (path, _) in chosen.items():
        kept = [each for each in trials[name] if each.part == schema.TEST or each.stimulus not in tested]
        left_out += len(trials[name]) - len(kept)
        people.append(PublishedSubject(name, KnownVoxels(count, roi=labels), _recordings(path, kept, count)))
    if images is not None and not images.is_dir():
        raise FmriModelsError(f"The pictures' folder {one_line(images)} does not exist.")
    found = picture_files([images]) if images is not None else {}
    named = {each.stimulus: each.name for own in trials.values() for each in own}
    pictures = {stimulus: found[name] for stimulus, name in named.items() if name in found}
    if images is not None:
        check_pictures(named, pictures, "put the pictures of all data sets into the folder", incomplete)
    notes = []
    if left_out:
        notes.append(f"{left_out} training trials show pictures that are tested elsewhere, and are left out.")
    notes += [] if pictures else ["The table has no pictures, which the data sets publish (images=DIR)."]
    used = sorted({each for _, each in chosen.values()})
    return PublishedDataset(
        name="mosaic",
        description=DESCRIPTION.format(datasets=", ".join(used)),
        license=LICENSE if "NSD" in used else OPEN,
        citation=CITATION,
        script="dataset_scripts/mosaic.py",
        script_version=VERSION,
        subjects=people,
        stimuli=partial(_stimuli, pictures),
        notes=notes,
    )


class _Trial:
    """A trial by the name of its array: what was shown, in which part, and which repetition it is."""

    def __init__(self, key: str, dataset: str, path: Path) -> None:
        match = _TRIAL.fullmatch(key)
        if match is None:
            raise FmriModelsError(
                f"{one_line(path)} has the array {one_line(key, 100)!r} in betas; expected names as "
                f"sub-01_NSD_stimulus-NAME_phase-train_rep-0; {MEND}."
            )
        self.key, self.name, self.repetition = key, match[1], int(match[3])
        self.part = schema.TRAIN if match[2] == "train" else schema.TEST
        # Pictures of ImageNet have one name in all data sets.
        self.stimulus = match[1] if _IMAGENET.fullmatch(match[1]) else _plain(f"{dataset}_{match[1]}")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:128]


def _trials(path: Path, dataset: str) -> list[_Trial]:
    """All of a file, tested ones last."""
    with opened_hdf5(path, MEND) as file:
        group = file.get("betas")
        keys = sorted(group) if hasattr(group, "keys") else []
        shape = group[keys[0]].shape if keys else ()
    if shape != (GRAYORDINATES,):
        raise FmriModelsError(
            f"{one_line(path)} has {len(keys)} betas of the shape {shape}; expected arrays of ({GRAYORDINATES},); "
            f"{MEND}."
        )
    found = [_Trial(key, dataset, path) for key in keys]
    counts = Counter((each.stimulus, each.part, each.repetition) for each in found)
    twice = [key for key, times in counts.items() if times > 1]
    if twice:
        raise FmriModelsError(
            f"Two stimuli in {one_line(path)} would both have the id {twice[0][0]!r}; leave the file out."
        )
    return sorted(found, key=lambda each: (each.part == schema.TEST, each.stimulus, each.repetition))


def _recordings(path: Path, trials: Sequence[_Trial], count: int) -> list[Recording]:
    made: list[Recording] = []
    for part in (schema.TRAIN, schema.TEST):
        own = [each for each in trials if each.part == part]
        for start in range(0, len(own), _TRIALS_A_RECORDING):
            some = own[start : start + _TRIALS_A_RECORDING]
            made.append(
                Recording(
                    f"{part}, trials from {start}",
                    partial(_blocks, path, [each.key for each in some], count),
                    [each.stimulus for each in some],
                    part=part,
                    files=[path],
                )
            )
    return made


def _blocks(path: Path, keys: Sequence[str], count: int) -> Iterator[np.ndarray]:
    with opened_hdf5(path, MEND) as file:
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            yield np.stack([np.asarray(file["betas"][key][:count]) for key in keys[start : start + _ROWS_AT_ONCE]])


def _labels(atlas: Path | None, count: int) -> list[str]:
    """Of each grayordinate: its region by an atlas, or its structure, in the order of the HCP's 91,282."""
    structures = ["CORTEX_LEFT"] * LEFT + ["CORTEX_RIGHT"] * (CORTEX - LEFT) + ["SUBCORTEX"] * (count - CORTEX)
    if atlas is None:
        return structures
    image = open_image(atlas, "CIFTI file")
    with damage_as_sentences(atlas, "CIFTI file"):
        tables = image.header.get_axis(0)
        numbers = np.asarray(image.dataobj[0]).astype(np.int64)
    if not hasattr(tables, "label") or len(numbers) not in (CORTEX, GRAYORDINATES):
        raise FmriModelsError(
            f"{one_line(atlas)} has {len(numbers):,} grayordinates or no labels; give a .dlabel.nii file of "
            f"{CORTEX:,} or {GRAYORDINATES:,}."
        )
    names = {number: name for number, (name, _) in tables.label[0].items()}
    regions = names_of(numbers[:count], names)
    return [*regions, *structures[len(regions) :]]


def _stimuli(pictures: dict[str, Path], shown: Collection[str]) -> Iterator[dict[str, Any]]:
    for name in sorted(shown):
        image = picture_bytes(pictures[name]) if name in pictures else None
        yield {"stimulus_id": name, "image": image, "category": None}


# Grayordinates at the border of the slices have NaN in some trials.
prepare = preparation(read, {"drop_bad_voxels": True})
