"""Natural Scenes Dataset (Allen et al. 2022): eight subjects, up to 40 sessions of 750 trials at 7 T, pictures of COCO.

Three published forms are read; which one lies in the folder is found out:

- `release`: the official one, with the folders `nsddata`, `nsddata_betas`, `nsddata_stimuli`. Betas of `nsdgeneral` in
  1.8 mm, from `betas_session*.nii.gz` (X, Y, Z, trials) or `.hdf5` (trials, Z, Y, X), integers of 300 a percent.
- `mindeye2`: `betas_all_subj0X_fp32_renorm.hdf5`, `coco_images_224_float16.hdf5`, `wds/subj0X/`; standardised.
- `mindeye`: `webdataset_avg_split/`, of which a sample has the repetitions of a picture; standardised by session.

Test sets: `shared1000`, the thousand pictures that all subjects saw (40 sessions); `shared982`, those of them that were
shown in the first 37 sessions, of which later ones are left out then. Of the release also `imagery`: what was imagined
in NSD-Imagery, `imagery_vision`: the same pictures seen there, and `synthetic`: NSD-Synthetic; trials of shared
pictures are left out then.

Captions are COCO's, in any form: its annotations beside the table of NSD's pictures, where the release and MindBridge
have them or in the folder itself, or MindEye's `COCO_73k_annots_curated.npy`.

Layout read in: ozcelikfu/brain-diffuser 1c07200 (`data/prepare_nsddata.py`, the captions' array, too),
yu-takagi/StableDiffusionReconstruction f471823 (`codes/utils/nsd_access/nsda.py`, `make_subjmri.py`),
MedARC-AI/MindEyeV2 0541a41 (`src/Train.py`), MedARC-AI/fMRI-reconstruction-NSD (`src/utils.py`) and
littlepure2333/MindBridge 17bb4ab (`README.md`, `src/nsd_access.py`). NSD-Synthetic in gifale95/RNC's evaluation of
encoding models (betas, order and pictures); NSD-Imagery in three public readers of it that agree in the order of its
runs, in that an attention trial has two betas, and in which picture a cue stands for. A fourth has the runs in another
order; the number of the run in each table decides.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models import progress
from fmri_models.data import schema
from fmri_models.data.brain_images.opening import image_values, open_image, opened_hdf5, required_package
from fmri_models.data.matlab import read_mat
from fmri_models.data.published import (
    KnownVoxels,
    PublishedDataset,
    PublishedSubject,
    Recording,
    VoxelGrid,
    preparation,
)
from fmri_models.data.published.bdata import first_region
from fmri_models.data.published.picture_files import picture_bytes, picture_files
from fmri_models.data.published.webdataset_tars import Sample, array_of, bytes_of, samples_of
from fmri_models.errors import FmriModelsError
from fmri_models.names import listed, one_line
from fmri_models.reading import read_object, read_text

SUBJECTS = 8
SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
VOXELS = (15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386)
TRIALS_OF_SESSION = 750
PICTURES = 73_000
SHARED = 1000
# Sessions that were public when the first papers were written.
FIRST_SESSIONS = 37
SHARED_OF_FIRST = 982
SHARED_1000, SHARED_982 = "shared1000", "shared982"
IMAGERY, IMAGERY_VISION, SYNTHETIC = "imagery", "imagery_vision", "synthetic"
# In the order in which they were made, with how many betas a trial has.
IMAGERY_RUNS = {
    "visA": 1, "attA": 2, "imgA_1": 1, "visB": 1, "attB": 2, "imgB_1": 1,
    "visC": 1, "attC": 2, "imgC_1": 1, "imgA_2": 1, "imgB_2": 1, "imgC_2": 1,
}  # fmt: skip
IMAGERY_TRIALS = 48
# Of the sets A and B; the words of set C have no picture of their own.
IMAGERY_PICTURES = {
    "H": "bar_000.0deg_450L_43W", "R": "bar_045.0deg_450L_43W", "V": "bar_090.0deg_450L_43W",
    "L": "bar_135.0deg_450L_43W", "P": "crs_000.0deg_450L_43W", "E": "crs_045.0deg_450L_43W",
    "W": "shared0385_nsd28752", "K": "shared0413_nsd30857", "B": "shared0741_nsd53882",
    "C": "shared0842_nsd61178", "D": "shared0907_nsd65873", "T": "shared0000_nsd00000",
}  # fmt: skip
SYNTHETIC_TRIALS, SYNTHETIC_PICTURES, COLOR_PICTURES = 744, 220, 64
SYNTHETIC_RUN = 93
# What integers of the release are divided by, for percent signal change.
SCALE = 300.0
BETAS = "betas_fithrf_GLMdenoise_RR"
SPACE = "func1pt8mm"
_TRIALS_A_BLOCK = 25
_MOST_BYTES_OF_CAPTIONS = 2**30
_FIELDS_OF_BEHAVIOUR = 17
_REGIONS = ("V1", "V2", "V3", "V4", "higher_vis")
CURATED = "COCO_73k_annots_curated.npy"

PAPER = {
    "title": "A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence",
    "authors": (
        "Allen, Emily J.", "St-Yves, Ghislain", "Wu, Yihan", "Breedlove, Jesse L.", "Prince, Jacob S.",
        "Dowdle, Logan T.", "Nau, Matthias", "Caron, Brad", "Pestilli, Franco", "Charest, Ian",
        "Hutchinson, J. Benjamin", "Naselaris, Thomas", "Kay, Kendrick",
    ),
    "year": 2022,
    "url": "https://doi.org/10.1038/s41593-021-00962-x",
    "venue": "Nature Neuroscience",
}  # fmt: skip
ORIGIN = "https://naturalscenesdataset.org"
LICENSE = "NSD Terms and Conditions (data access form; research, not to be passed on); pictures: COCO Terms of Use"
CITATION = (
    "E. J. Allen, G. St-Yves, Y. Wu et al. (2022): A massive 7T fMRI dataset to bridge cognitive neuroscience and "
    "artificial intelligence. Nature Neuroscience 25, 116-126."
)
WHERE = "ask for access at naturalscenesdataset.org"
_MEND = f"get the file again ({WHERE})"
DESCRIPTION = (
    "Single trials of subjects who looked at pictures of COCO for three seconds each, up to three times; voxels of the "
    "region nsdgeneral, {form}."
)


def read(
    source: Path,
    form: str = "",
    sessions: int = 0,
    atlases: list[str] | None = None,
    test_set: str = "",
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """The Natural Scenes Dataset, in one of its three public forms.

    Args:
        source: The folder with the files of a form.
        form: `release`, `mindeye2` or `mindeye`; what is in the folder if empty.
        sessions: Reads the first so many sessions alone; all that there are if 0.
        atlases: Of the release, in which the label of a voxel is looked for, one after the other.
        test_set: `shared1000`, or `shared982` with the first 37 sessions; of the release also `imagery`,
            `imagery_vision` and `synthetic`.
        subjects: These alone are looked for.
    """
    found = form or _form(source)
    if found not in _FORMS:
        raise FmriModelsError(f"There is no form {one_line(repr(found), 60)} of NSD; there are {', '.join(_FORMS)}.")
    if not 0 <= sessions <= max(SESSIONS):
        raise FmriModelsError(f"{sessions} sessions were asked for; expected 1 to {max(SESSIONS)}, or 0 for all.")
    if test_set in (IMAGERY, IMAGERY_VISION, SYNTHETIC) and found != "release":
        raise FmriModelsError(f"The test set {test_set} is in the release alone; this is the form {found} of NSD.")
    most = min(sessions or max(SESSIONS), FIRST_SESSIONS if test_set == SHARED_982 else max(SESSIONS))
    wanted = [name for name in _names() if subjects is None or name in subjects]
    if not (source / CURATED).is_file() and _coco(source) is None:
        progress.say(
            "The pictures will have no captions, from which MindBridge learns and no other method. For them, put "
            f"{CURATED}, or nsd_stim_info_merged.csv and COCO's annotations/captions_*.json, into {one_line(source)} "
            "first."
        )
    return _FORMS[found](source, wanted, most, ["prf-visualrois", "streams"] if atlases is None else atlases, test_set)


def _names() -> list[str]:
    return [f"subj{number:02d}" for number in range(1, SUBJECTS + 1)]


def _number(subject: str) -> int:
    return int(subject.removeprefix("subj"))


def stimulus_id(index: int) -> str:
    """Of a picture, by its place in the 73,000, from 0.

    Raises:
        FmriModelsError: There is no such place.
    """
    if not 0 <= index < PICTURES:
        raise FmriModelsError(f"The files name the picture {index} of {PICTURES} (from 0); {_MEND}.")
    return f"nsd{index:05d}"


def _index(stimulus: str) -> int:
    return int(stimulus.removeprefix("nsd"))


def _form(source: Path) -> str:
    if not source.is_dir():
        raise FmriModelsError(f"{one_line(source)} is no folder; give the one with the files of NSD ({WHERE}).")
    if (source / "nsddata_betas").is_dir():
        return "release"
    if any(source.glob("betas_all_subj0?_fp32_renorm.hdf5")):
        return "mindeye2"
    if (source / "webdataset_avg_split").is_dir() or any(source.glob("*/*_subj0?_*.tar")):
        return "mindeye"
    raise FmriModelsError(
        f"{one_line(source)} has no form of NSD: expected the folders nsddata, nsddata_betas and nsddata_stimuli of "
        "the release, or betas_all_subj0X_fp32_renorm.hdf5 with coco_images_224_float16.hdf5 and wds/ (MindEye2), or "
        f"webdataset_avg_split/ (MindEye); {WHERE}."
    )


def _dataset(form: str, subjects: Sequence[PublishedSubject], **known: Any) -> PublishedDataset:
    return PublishedDataset(
        name="nsd",
        description=DESCRIPTION.format(form=form),
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/nsd.py",
        script_version=1,
        subjects=subjects,
        **known,
    )


def _expected(subject: str, most: int) -> dict[str, int]:
    number = _number(subject) - 1
    return {
        "expected_trials": TRIALS_OF_SESSION * min(most, SESSIONS[number]),
        "expected_voxels": VOXELS[number],
    }


# ------------------------------------------------------------------------------------------------------ the release


@dataclass(frozen=True)
class _Design:
    """`nsd_expdesign.mat`, with all numbers from 0.

    Args:
        pictures: (subjects, 30000) the picture of each trial, of the 73,000.
        shared: The thousand that all subjects saw.
    """

    pictures: np.ndarray
    shared: frozenset[int]

    @classmethod
    def read(cls, source: Path) -> "_Design":
        path = source / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
        _need(path, "the design of the experiment")
        found = read_mat(path, ["masterordering", "subjectim", "sharedix"], f"copy it again ({WHERE})")
        ordering, images = (np.asarray(found[name]).astype(np.int64) for name in ("masterordering", "subjectim"))
        shared = np.asarray(found["sharedix"]).astype(np.int64).ravel()
        trials = TRIALS_OF_SESSION * max(SESSIONS)
        if ordering.size != trials or images.ndim != 2 or images.shape[0] != SUBJECTS or shared.size != SHARED:
            raise FmriModelsError(
                f"{one_line(path)} has masterordering of {ordering.size}, subjectim of {images.shape} and sharedix of "
                f"{shared.size} numbers; expected {trials}, ({SUBJECTS}, 10000) and {SHARED}: copy it again."
            )
        return cls(images[:, ordering.ravel() - 1] - 1, frozenset((shared - 1).tolist()))

    def stimuli(self, subject: str, session: int) -> list[str]:
        """Those of a session's trials."""
        start = TRIALS_OF_SESSION * (session - 1)
        shown = self.pictures[_number(subject) - 1, start : start + TRIALS_OF_SESSION]
        return [stimulus_id(index) for index in shown.tolist()]

    def test_sets(self) -> dict[str, list[str]]:
        """The two customs."""
        first = self.shared & set(self.pictures[0, : TRIALS_OF_SESSION * FIRST_SESSIONS].tolist())
        if len(first) != SHARED_OF_FIRST:
            raise FmriModelsError(
                f"nsd_expdesign.mat has {len(first)} shared pictures in the first {FIRST_SESSIONS} sessions, and not "
                f"{SHARED_OF_FIRST}, so that it is another design; {_MEND}."
            )
        return {
            SHARED_1000: [stimulus_id(index) for index in sorted(self.shared)],
            SHARED_982: [stimulus_id(index) for index in sorted(first)],
        }


def _release(source: Path, wanted: Sequence[str], most: int, atlases: Sequence[str], test_set: str) -> PublishedDataset:
    design = _Design.read(source)
    stimuli = source / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    _need(stimuli, "the pictures")
    subjects = []
    for name in wanted:
        folder = source / "nsddata_betas" / "ppdata" / name / SPACE / BETAS
        files = {session: _betas_file(folder, session) for session in range(1, most + 1)}
        files = {session: path for session, path in files.items() if path is not None}
        if files:
            subjects.append(_subject_of_release(source, name, folder, files, design, atlases, most))
    if test_set in (IMAGERY, IMAGERY_VISION, SYNTHETIC) and subjects:
        return _tested_elsewhere(source, subjects, design, test_set)
    if not subjects:
        place = source / "nsddata_betas" / "ppdata" / "subj0X" / SPACE / BETAS
        raise FmriModelsError(f"There are no betas_session*.nii.gz or .hdf5 in {one_line(place)}; {WHERE}.")
    return _dataset(
        f"{BETAS} of the release in 1.8 mm, percent signal change",
        subjects,
        stimuli=lambda ids: _pictures_of_release(source, stimuli, ids),
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
    design: _Design,
    atlases: Sequence[str],
    most: int,
) -> PublishedSubject:
    rois = source / "nsddata" / "ppdata" / name / SPACE / "roi"
    _need(rois / "nsdgeneral.nii.gz", f"the region of {name}")
    general = open_image(rois / "nsdgeneral.nii.gz", mend=_MEND)
    volume = image_values(general, rois / "nsdgeneral.nii.gz", mend=_MEND)
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
            read=lambda path=path: _blocks(path, volume.shape, indices),
            stimulus_ids=design.stimuli(name, session),
            session=session,
            runs=runs.get(session, 1),
            files=[path, rois / "nsdgeneral.nii.gz"],
        )
        for session, path in sorted(files.items())
    ]
    return PublishedSubject(name, voxels, recordings, **_expected(name, most))


def _blocks(
    path: Path, shape: tuple[int, ...], indices: np.ndarray, count: int = TRIALS_OF_SESSION
) -> Iterator[np.ndarray]:
    """Percent signal change (n, voxels) of some trials of a session at a time."""
    if path.suffix == ".hdf5":
        with opened_hdf5(path, _MEND) as file:
            betas = file.get("betas")
            # MATLAB's order of axes is turned round in HDF5.
            expected = (count, *reversed(shape))
            _check_shape(path, None if betas is None else betas.shape, expected, count)
            for start in range(0, count, _TRIALS_A_BLOCK):
                block = np.asarray(betas[start : start + _TRIALS_A_BLOCK])
                yield block.transpose(0, 3, 2, 1).reshape(len(block), -1)[:, indices] / np.float32(SCALE)
        return
    image = open_image(path, mend=_MEND)
    _check_shape(path, image.shape, (*shape, count), count)
    for start in range(0, count, _TRIALS_A_BLOCK):
        block = image_values(image, path, slice(start, start + _TRIALS_A_BLOCK), _MEND)
        yield block.reshape(-1, block.shape[-1])[indices].T / np.float32(SCALE)


def _say_other_directions(path: Path | None, affine: np.ndarray, name: str) -> None:
    """Says where headers have the axes of betas and region in other directions: both have the same shape if flipped."""
    if path is None:
        return
    directions = required_package("nibabel").aff2axcodes
    found, expected = ("".join(map(str, directions(each))) for each in (open_image(path, mend=_MEND).affine, affine))
    if found != expected:
        progress.say(
            f"{name}: by their headers, the axes of {one_line(path.name)} go to {found}, and those of nsdgeneral to "
            f"{expected}. Voxels are taken by their place in the arrays; if files were converted, one may be flipped."
        )


def _check_shape(
    path: Path, found: tuple[int, ...] | None, expected: tuple[int, ...], count: int = TRIALS_OF_SESSION
) -> None:
    if found != expected:
        raise FmriModelsError(
            f"{one_line(path)} has the shape {found}; expected {expected}, of the region nsdgeneral (and {count} "
            "trials)."
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
        image = open_image(path, mend=_MEND)
        _check_shape(path, image.shape, shape)
        values = image_values(image, path, mend=_MEND).reshape(-1)[indices]
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
            lines = (line.split() for line in read_text(path, "table of labels", _MEND).splitlines())
            found = {int(line[0]): line[1] for line in lines if len(line) >= 2 and line[0].isdecimal()}
            if not found:
                raise FmriModelsError(f"{one_line(path)} names no region; {_MEND}, or remove it.")
            return found
    return {}


def _ncsnr(folder: Path, shape: tuple[int, ...], indices: np.ndarray) -> np.ndarray | None:
    """Of the release, which includes the tested trials."""
    path = folder / "ncsnr.nii.gz"
    if not os.path.lexists(path):
        return None
    image = open_image(path, mend=_MEND)
    _check_shape(path, image.shape, shape)
    return image_values(image, path, mend=_MEND).reshape(-1)[indices]


def _runs(source: Path, name: str) -> dict[int, list[int]]:
    """Session ▶ run of each of its trials, of the table of behaviour; empty where that is not there."""
    path = source / "nsddata" / "ppdata" / name / "behav" / "responses.tsv"
    if not os.path.lexists(path):
        return {}
    runs: dict[int, list[int]] = {}
    for row in _table(path, ("SESSION", "RUN"), "\t"):
        runs.setdefault(row[0], []).append(row[1])
    return {session: values for session, values in runs.items() if len(values) == TRIALS_OF_SESSION}


def _pictures_of_release(source: Path, path: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    captions = _captions(source, ids)
    with opened_hdf5(path, _MEND) as file:
        pictures = _bricks(file, path, (PICTURES, 425, 425, 3))
        for stimulus in sorted(ids):
            index = _index(stimulus)
            yield {
                "stimulus_id": stimulus,
                "image": np.asarray(pictures[index]),
                "captions": captions.get(stimulus, []),
                "category": None,
            }


def _bricks(file: Any, path: Path, published: tuple[int, int, int, int]) -> Any:
    """The pictures of an HDF5 file, as many as were published and in colours; their size is what the file has."""
    pictures = file.get("imgBrick")
    if pictures is None or pictures.ndim != 4 or (pictures.shape[0], pictures.shape[3]) != (published[0], published[3]):
        raise FmriModelsError(f"{one_line(path)} has no imgBrick of {published}; copy it again.")
    return pictures


# ------------------------------------------------------------------------------------- NSD-Imagery and NSD-Synthetic


def _tested_elsewhere(
    source: Path, subjects: Sequence[PublishedSubject], design: _Design, test_set: str
) -> PublishedDataset:
    """Learned from are pictures of a subject's own, tested is another experiment of the same people."""
    shared = {stimulus_id(index) for index in design.shared}
    test = _synthetic if test_set == SYNTHETIC else partial(_imagery, is_imagined=test_set == IMAGERY)
    people, tested = [], set[str]()
    for each in subjects:
        recordings = test(source, each)
        tested |= {name for recording in recordings for name in recording.stimulus_ids}
        learned = [_of_rows(own, [name not in shared for name in own.stimulus_ids]) for own in each.recordings]
        learned = [replace(own, part=schema.TRAIN) for own in learned]
        people.append(replace(each, recordings=[*learned, *recordings], expected_trials=None))
    stimuli = source / "nsddata_stimuli" / "stimuli"

    def records(ids: Collection[str]) -> Iterator[dict[str, Any]]:
        yield from _pictures_of_release(source, stimuli / "nsd" / "nsd_stimuli.hdf5", set(ids) - tested)
        others = set(ids) & tested
        yield from (
            _pictures_of_synthetic(stimuli / "nsdsynthetic", others)
            if test_set == SYNTHETIC
            else (_pictures_of_imagery(source, others))
        )

    what = {
        IMAGERY: "pictures that were imagined (NSD-Imagery, sets A and B)",
        IMAGERY_VISION: "the seen pictures of NSD-Imagery (sets A and B)",
        SYNTHETIC: "NSD-Synthetic",
    }[test_set]
    return _dataset(
        f"{BETAS} of the release in 1.8 mm, percent signal change, without trials of shared pictures; tested on {what}",
        people,
        stimuli=records,
        test_sets={test_set: sorted(tested)},
    )


def _of_rows(recording: Recording, kept: Sequence[bool]) -> Recording:
    """Some trials of a recording."""
    mask = np.asarray(kept, dtype=bool)

    def read() -> Iterator[np.ndarray]:
        start = 0
        for block in recording.read():
            rows = mask[start : start + len(block)]
            start += len(block)
            if rows.any():
                yield block[rows]

    return replace(
        recording,
        read=read,
        stimulus_ids=[name for name, keep in zip(recording.stimulus_ids, kept, strict=True) if keep],
        runs=[run for run, keep in zip(recording.run_numbers, kept, strict=True) if keep],
    )


def _betas_of(source: Path, subject: PublishedSubject, part: str, count: int) -> tuple[Path, Callable[[], Iterable]]:
    """The file with the betas of another experiment, and how they are read."""
    folder = source / "nsddata_betas" / "ppdata" / subject.name / SPACE / f"{part}{BETAS}"
    paths = [folder / f"betas_{part}{ending}" for ending in (".hdf5", ".nii.gz", ".nii")]
    path = next((path for path in paths if path.is_file()), paths[0])
    _need(path, f"the betas of {subject.name} in {part}")
    grid = subject.voxels.grid
    assert grid is not None
    return path, partial(_blocks, path, grid.shape, grid.indices, count)


def _imagery(source: Path, subject: PublishedSubject, is_imagined: bool) -> list[Recording]:
    """The trials of a kind, of all runs in their order."""
    count = IMAGERY_TRIALS * sum(IMAGERY_RUNS.values())
    path, read = _betas_of(source, subject, "nsdimagery", count)
    shown: list[str] = []
    runs: list[int] = []
    files = [path]
    for number, (run, times) in enumerate(IMAGERY_RUNS.items(), 1):
        wanted = run.startswith("img" if is_imagined else "vis") and run[3] != "C"
        names = [""] * IMAGERY_TRIALS
        if wanted:
            table = source / "nsddata" / "bdata" / "nsdimagery" / f"nsdimagery_{subject.name}_{run}.tsv"
            _need(table, f"what was shown in the run {run}")
            files.append(table)
            names = _cued(table, number)
        shown += [name for name in names for _ in range(times)]
        runs += [number] * (IMAGERY_TRIALS * times)
    whole = Recording(
        "NSD-Imagery",
        read,
        shown,
        session=max(SESSIONS) + 1,
        runs=runs,
        part=schema.TEST,
        imagery=is_imagined,
        files=files,
    )
    return [_of_rows(whole, [name != "" for name in shown])]


def _cued(path: Path, number: int) -> list[str]:
    """The picture that each trial's cue stands for."""
    rows = list(csv.DictReader(io.StringIO(read_text(path, "table of trials", _MEND), newline=""), delimiter="\t"))
    cues = [(row.get("CONDITION") or "").strip() for row in rows]
    unknown = sorted(set(cues) - set(IMAGERY_PICTURES))
    if len(cues) != IMAGERY_TRIALS or unknown:
        raise FmriModelsError(
            f"{one_line(path)} has {len(cues)} trials{f' and the cue {one_line(unknown[0], 20)!r}' if unknown else ''};"
            f" expected {IMAGERY_TRIALS} with cues of {''.join(IMAGERY_PICTURES)} in the column CONDITION: copy it "
            "again."
        )
    said = {(row.get("RUN") or "").strip().removesuffix(".0").lstrip("0") for row in rows} - {""}
    if said != {str(number)}:
        raise FmriModelsError(
            f"{one_line(path)} is of the run {listed(sorted(said)) or '(none)'}, and not of {number}, by which its "
            "betas are found; copy it again."
        )
    return [IMAGERY_PICTURES[cue] for cue in cues]


def _pictures_of_imagery(source: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    folder = source / "nsddata" / "experiments" / "nsdimagery" / "rawtargetimages"
    found = picture_files([folder])
    if missing := sorted(set(ids) - set(found)):
        raise FmriModelsError(f"{one_line(folder)} has no picture {listed(missing)}; {WHERE}.")
    for name in sorted(ids):
        yield {"stimulus_id": name, "image": picture_bytes(found[name]), "captions": [], "category": None}


def _synthetic(source: Path, subject: PublishedSubject) -> list[Recording]:
    path, read = _betas_of(source, subject, "nsdsynthetic", SYNTHETIC_TRIALS)
    design = source / "nsddata" / "experiments" / "nsdsynthetic" / "nsdsynthetic_expdesign.mat"
    _need(design, "the design of NSD-Synthetic")
    found = read_mat(design, ["masterordering"], f"copy it again ({WHERE})").get("masterordering")
    order = np.zeros(0, dtype=np.int64) if found is None else np.asarray(found).astype(np.int64).ravel()
    most = SYNTHETIC_PICTURES + COLOR_PICTURES
    if len(order) != SYNTHETIC_TRIALS or order.min() < 1 or order.max() > most:
        raise FmriModelsError(
            f"{one_line(design)} has a masterordering of {len(order)} numbers; expected {SYNTHETIC_TRIALS} of 1 to "
            f"{most}: copy it again."
        )
    shown = [_synthetic_id(number - 1, subject.name) for number in order.tolist()]
    runs = [1 + place // SYNTHETIC_RUN for place in range(SYNTHETIC_TRIALS)]
    return [
        Recording(
            "NSD-Synthetic", read, shown, session=max(SESSIONS) + 2, runs=runs, part=schema.TEST, files=[path, design]
        )
    ]


def _synthetic_id(place: int, subject: str) -> str:
    """Of a picture by its place; the last 64 are each subject's own, in colours as bright for them."""
    own = place - SYNTHETIC_PICTURES
    return f"synthetic{place:03d}" if own < 0 else f"synthetic_color{own:02d}_{subject}"


def _pictures_of_synthetic(folder: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    subjects = sorted({name.rpartition("_")[2] for name in ids if name.startswith("synthetic_color")})
    files = {"nsdsynthetic_stimuli.hdf5": ("", SYNTHETIC_PICTURES)}
    files |= {f"nsdsynthetic_colorstimuli_{name}.hdf5": (name, COLOR_PICTURES) for name in subjects}
    for name, (subject, count) in files.items():
        path = folder / name
        _need(path, "pictures of NSD-Synthetic")
        with opened_hdf5(path, _MEND) as file:
            pictures = _bricks(file, path, (count, 714, 1360, 3))
            for place in range(count):
                stimulus = _synthetic_id(SYNTHETIC_PICTURES + place if subject else place, subject)
                if stimulus in ids:
                    image = np.asarray(pictures[place])
                    yield {"stimulus_id": stimulus, "image": image, "captions": [], "category": None}


# ---------------------------------------------------------------------------------------------------------- MindEye2


def _mindeye2(
    source: Path, wanted: Sequence[str], most: int, atlases: Sequence[str], test_set: str
) -> PublishedDataset:
    pictures = source / "coco_images_224_float16.hdf5"
    _need(pictures, "the pictures")
    tested: dict[str, set[int]] = {SHARED_1000: set(), SHARED_982: set()}
    subjects = []
    for name in wanted:
        path = source / f"betas_all_{name}_fp32_renorm.hdf5"
        if path.is_file():
            trials, own = _trials_of_mindeye2(source, name)
            tested = {key: tested[key] | own[key] for key in tested}
            subjects.append(_subject_of_mindeye2(source, path, name, trials[trials[:, 2] <= most], most))
    sets = {key: [stimulus_id(index) for index in sorted(values)] for key, values in tested.items() if values}
    return _dataset(
        "as MindEye2 has standardised them (224 pixels)",
        subjects,
        stimuli=lambda ids: _pictures_of_mindeye2(source, pictures, ids),
        test_sets=sets,
    )


def _trials_of_mindeye2(source: Path, name: str) -> tuple[np.ndarray, dict[str, set[int]]]:
    """(n, 17) behaviour of all trials in their order, and the pictures of both test sets."""
    folder = source / "wds" / name
    paths = sorted(folder.glob("train/*.tar"), key=lambda path: _natural(path.stem))
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


def _natural(text: str) -> tuple[int, str]:
    return (int(text) if text.isdigit() else 0, text)


def _behaviour(path: Path) -> np.ndarray:
    """(n, 17) of the samples of a tar: picture, subject, session, run, trial, row of the betas …"""
    rows = [
        array_of(path, members, "behav.npy").reshape(-1)[:_FIELDS_OF_BEHAVIOUR] for members in samples_of(path, _MEND)
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
    with opened_hdf5(path, _MEND) as file:
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
                read=lambda rows=own[:, 5]: _rows(path, rows),
                stimulus_ids=[stimulus_id(index) for index in own[:, 0].tolist()],
                session=session,
                runs=own[:, 3].tolist(),
                files=[path],
            )
        )
    voxels = KnownVoxels(shape[1], roi=_regions_of_mindeye2(source, name, shape[1]))
    return PublishedSubject(name, voxels, recordings, **_expected(name, most))


def _rows(path: Path, rows: np.ndarray) -> Iterator[np.ndarray]:
    with opened_hdf5(path, _MEND) as file:
        for start in range(0, len(rows), TRIALS_OF_SESSION // 3):
            yield np.asarray(file["betas"][rows[start : start + TRIALS_OF_SESSION // 3]])


def _regions_of_mindeye2(source: Path, name: str, count: int) -> list[str] | None:
    """(V,) labels of `brain_region_masks.hdf5`, whose masks are of the betas' columns; None where it is not there."""
    path = source / "brain_region_masks.hdf5"
    if not os.path.lexists(path):
        return None
    with opened_hdf5(path, _MEND) as file:
        known = file.get(name, {})
        masks = {region: np.asarray(known[region]).astype(bool).ravel() for region in _REGIONS if region in known}
    for mask in masks.values():
        _check_shape(path, mask.shape, (count,))
    return first_region(masks, count, _REGIONS)


def _pictures_of_mindeye2(source: Path, path: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    captions = _captions(source, ids)
    with opened_hdf5(path, _MEND) as file:
        pictures = file.get("images")
        if pictures is None or pictures.ndim != 4 or pictures.shape[:2] != (PICTURES, 3):
            raise FmriModelsError(f"{one_line(path)} has no images of ({PICTURES}, 3, 224, 224); copy it again.")
        for stimulus in sorted(ids):
            values = np.asarray(pictures[_index(stimulus)], dtype=np.float32)
            levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
            yield {
                "stimulus_id": stimulus,
                "image": levels,
                "captions": captions.get(stimulus, []),
                "category": None,
            }


# ----------------------------------------------------------------------------------------------------------- MindEye

_PARTS = {"train": "train", "val": "validation", "test": "test"}


def _mindeye(source: Path, wanted: Sequence[str], most: int, atlases: Sequence[str], test_set: str) -> PublishedDataset:
    if test_set == SHARED_1000:
        raise FmriModelsError("MindEye's files have the 982 pictures of 37 sessions; take --option test_set=shared982.")
    folder = source / "webdataset_avg_split" if (source / "webdataset_avg_split").is_dir() else source
    subjects, tars = [], []
    for name in wanted:
        own = {part: _tars(folder / part, part, name) for part in _PARTS}
        if not any(own.values()):
            continue
        _check_totals(folder, name, own)
        paths = [(part, path) for part, found in own.items() for path in found]
        tars += [path for _, path in paths]
        looked_at = progress.bar(paths, f"Looking through the tars of {name}", unit="file", delay=1)
        recordings = [_recording_of_tar(path, part) for part, path in looked_at]
        width = _width(paths[0][1])
        # Which trials of which session a sample has is not told.
        subjects.append(
            PublishedSubject(name, KnownVoxels(width), recordings, expected_voxels=VOXELS[_number(name) - 1])
        )
    if not subjects and any(folder.glob("train/subj0?/*.nsdgeneral.npy")):
        raise FmriModelsError(
            f"{one_line(folder)} has samples that were unpacked, as for MindBridge's code; expected the tars "
            f"themselves, such as train/train_subj01_0.tar: put them there, too ({WHERE})."
        )
    return _dataset(
        "as MindEye has standardised them, each repetition a trial",
        subjects,
        stimuli=lambda ids: _pictures_of_tars(source, tars, ids),
        # Which samples are tested, the tars say; the custom has its name all the same.
        test_sets={SHARED_982: _shown(subjects, "test")},
    )


def _shown(subjects: Sequence[PublishedSubject], part: str) -> list[str]:
    recordings = [each for subject in subjects for each in subject.recordings if each.part == part]
    return sorted({stimulus for each in recordings for stimulus in each.stimulus_ids})


def _tars(folder: Path, part: str, name: str) -> list[Path]:
    return sorted(folder.glob(f"{part}_{name}_*.tar"), key=lambda path: _natural(path.stem.rsplit("_", 1)[1]))


def _check_totals(folder: Path, name: str, tars: Mapping[str, Sequence[Path]]) -> None:
    """Compares the number of samples with what `metadata_subj0X.json` says, where that is there."""
    path = folder / f"metadata_{name}.json"
    if not os.path.lexists(path):
        return
    totals = read_object(path, "table of samples", _MEND).get("totals")
    if not isinstance(totals, dict):
        raise FmriModelsError(f"{one_line(path)} has no totals; {_MEND}, or remove it.")
    differs = []
    for part, found in tars.items():
        count = sum(1 for each in found for _ in samples_of(each, _MEND))
        if part in totals and found and count != totals[part]:
            differs.append(f"{part} has {count} samples, and not {totals[part]}")
    if differs:
        raise FmriModelsError(f"Tars of {name} are missing: {listed(differs)} as {one_line(path)} says; get the rest.")


def _recording_of_tar(path: Path, part: str) -> Recording:
    stimuli: list[str] = []
    for members in samples_of(path, _MEND):
        index = int(array_of(path, members, "coco73k.npy").reshape(-1)[0])
        stimuli += [stimulus_id(index)] * _repeats(path, members)
    return Recording(path.stem, read=lambda: _repetitions(path), stimulus_ids=stimuli, part=_PARTS[part], files=[path])


def _repeats(path: Path, members: Sample) -> int:
    """How many of a sample's three repetitions are no copies of another one."""
    return int(array_of(path, members, "num_uniques.npy").reshape(-1)[0])


def _repetitions(path: Path) -> Iterator[np.ndarray]:
    for members in samples_of(path, _MEND):
        values = array_of(path, members, "nsdgeneral.npy")
        _, first = np.unique(values, axis=0, return_index=True)
        count = _repeats(path, members)
        if values.ndim != 2 or len(first) != count:
            raise FmriModelsError(
                f"{one_line(path)} has a sample of {len(first)} different repetitions, of which num_uniques.npy says "
                f"that there are {count}; get the file again."
            )
        yield values[np.sort(first)].astype(np.float32)


def _width(path: Path) -> int:
    for members in samples_of(path, _MEND):
        return int(array_of(path, members, "nsdgeneral.npy").shape[-1])
    raise FmriModelsError(f"{one_line(path)} has no samples; get the file again.")


def _pictures_of_tars(source: Path, paths: Sequence[Path], ids: Collection[str]) -> Iterator[dict[str, Any]]:
    captions = _captions(source, ids)
    left = set(ids)
    for path in paths:
        for members in samples_of(path, _MEND):
            stimulus = stimulus_id(int(array_of(path, members, "coco73k.npy").reshape(-1)[0]))
            if stimulus not in left:
                continue
            left.discard(stimulus)
            ending = next((each for each in ("jpg", "png") if each in members), None)
            if ending is None:
                raise FmriModelsError(f"{one_line(path)} has a sample without a picture; get the file again.")
            yield {
                "stimulus_id": stimulus,
                "image": bytes_of(path, members, ending),
                "captions": captions.get(stimulus, []),
                "category": None,
            }


# ---------------------------------------------------------------------------------------------------------- captions


def _coco(source: Path) -> tuple[Path, Path] | None:
    """The table that says which picture of COCO each one is, and the folder of COCO's annotations, where both are."""
    tables = (source / "nsddata" / "experiments" / "nsd", source)
    folders = (source / "nsddata_stimuli" / "stimuli" / "nsd" / "annotations", source / "annotations", source)
    table = next((path for each in tables if (path := each / "nsd_stim_info_merged.csv").is_file()), None)
    folder = next((each for each in folders if any(each.glob("captions_*.json"))), None)
    return None if table is None or folder is None else (table, folder)


def _captions(source: Path, ids: Collection[str]) -> dict[str, list[str]]:
    """Picture ▶ its captions; empty where no files have them."""
    wanted = {_index(stimulus) for stimulus in ids}
    coco = _coco(source)
    if coco is not None:
        found = _captions_of_coco(*coco, wanted)
    elif (source / CURATED).is_file():
        found = _curated_captions(source / CURATED, wanted)
    else:
        found = {}
    return {stimulus_id(index): captions for index, captions in found.items()}


def _captions_of_coco(table: Path, folder: Path, wanted: Collection[int]) -> dict[int, list[str]]:
    of_coco: dict[str, dict[int, int]] = {}
    rows = _table(table, ("cocoId",), ",", "cocoSplit")
    if len(rows) != PICTURES:
        raise FmriModelsError(f"{one_line(table)} has {len(rows)} rows; expected {PICTURES}: {_MEND}.")
    for place, row in enumerate(rows):
        if place in wanted:
            of_coco.setdefault(row[1], {})[row[0]] = place
    captions: dict[int, list[str]] = {}
    for split, pictures in of_coco.items():
        path = folder / f"captions_{split}.json"
        if os.path.lexists(path):
            for image, caption in _annotations(path):
                if (place := pictures.get(image)) is not None:
                    captions.setdefault(place, []).append(_one_line_of_text(caption))
    return captions


def _annotations(path: Path) -> list[tuple[int, str]]:
    """Pictures' ids in COCO, and their captions."""
    # COCO's files of captions are larger than other JSON that is read here.
    text = read_text(path, "captions of COCO", _MEND, _MOST_BYTES_OF_CAPTIONS)
    try:
        found = [(each["image_id"], each["caption"]) for each in json.loads(text)["annotations"]]
        if not all(isinstance(image, int) and isinstance(caption, str) for image, caption in found):
            raise TypeError("an annotation is no number and caption")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FmriModelsError(
            f"{one_line(path)} is no file of COCO's captions ({one_line(error, 80)}); {_MEND}, or remove it."
        ) from error
    return found


def _curated_captions(path: Path, wanted: Collection[int]) -> dict[int, list[str]]:
    """Of MindEye's array, a row a picture, with empty texts where one has fewer captions than others."""
    try:
        texts = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FmriModelsError(
            f"{one_line(path)} can't be read as an array of texts ({one_line(error, 80)}); get the file again."
        ) from error
    if texts.ndim != 2 or len(texts) != PICTURES or texts.dtype.kind != "U":
        raise FmriModelsError(
            f"{one_line(path)} has the shape {texts.shape} of {texts.dtype}; expected texts of ({PICTURES}, captions)."
        )
    captions = {index: [_one_line_of_text(text) for text in texts[index].tolist()] for index in sorted(wanted)}
    return {index: [text for text in own if text] for index, own in captions.items()}


def _one_line_of_text(text: str) -> str:
    return " ".join(text.split())


# -------------------------------------------------------------------------------------------------------- all of them


def _table(path: Path, columns: Sequence[str], delimiter: str, *texts: str) -> list[tuple[Any, ...]]:
    """The rows of a table: whole numbers of some columns, then what others say."""
    text = read_text(path, "table", _MEND)
    try:
        rows = [
            (*(int(row[name]) for name in columns), *(row[name] for name in texts))
            for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise FmriModelsError(
            f"{one_line(path)} is no table with {listed([*columns, *texts])} in each row ({one_line(error, 80)}); "
            f"{_MEND}."
        ) from error
    if not rows:
        raise FmriModelsError(f"{one_line(path)} has no rows of {listed([*columns, *texts])}; {_MEND}.")
    return rows


def _need(path: Path, what: str) -> None:
    if not path.is_file():
        found = "is a folder, and not" if path.is_dir() else "is missing,"
        raise FmriModelsError(f"{one_line(path)} {found} {what}; {WHERE}.")


_FORMS = {"release": _release, "mindeye2": _mindeye2, "mindeye": _mindeye}
prepare = preparation(read)
