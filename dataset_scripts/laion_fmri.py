"""LAION-fMRI (ViCCo 2026): five subjects, up to 34 sessions, 5,833 pictures each and 371 unusual ones, 7 T.

As published on `s3://laion-fmri` and fetched by the package laion_fmri:
`derivatives/glmsingle-tedana/sub-01/ses-01/func/sub-01_ses-01_task-images_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz`
(X, Y, Z, trials), beside it `…_desc-SingletrialBetas_trials.tsv` (session, run, beta_index, label), above them the
brain mask and the noise ceilings in percent; `derivatives/atlases/sub-01/rois/*.nii.gz`; where somebody has asked for
them, pictures in `stimuli/images`.

Layout read in github.com/ViCCo-Group/LAION-fMRI, commit eee8400: `laion_fmri/_paths.py`, `io.py`, `subject.py`,
`splits/`, `docs/source/glmsingle_betas.rst`, `train_test_splits.rst`, and the fixtures of its tests.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmri_models.data.brain_images.opening import image_values
from fmri_models.data.csv_files import read_csv
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.nifti_volumes import grid_of, masked_volumes, opened_image, places_of, read_mask
from fmri_models.data.published.picture_files import picture_bytes, picture_files
from fmri_models.errors import FmriModelsError
from fmri_models.names import did_you_mean, listed, one_line
from fmri_models.reading import read_bytes, read_object

VERSION = 1
ORIGIN = "https://laion-fmri.hebartlab.com"
LICENSE = "CC0 1.0 (LAION-fMRI responses); pictures come by a closed agreement"
CITATION = "LAION-fMRI (2026), ViCCo Group: https://laion-fmri.hebartlab.com, s3://laion-fmri."
DESCRIPTION = (
    "LAION-fMRI: single trials of subjects who looked at pictures of LAION, THINGS and NSD, shared ones four or twelve "
    "times; betas of GLMsingle (all its steps). Tested by the split {split}."
)
MEND = "give the folder that laion_fmri.download writes, with derivatives/glmsingle-tedana and derivatives/atlases"
# Each subject saw so many, and unusual ones besides.
PICTURES = 5833
SUBJECTS = ("sub-01", "sub-03", "sub-05", "sub-06", "sub-07")
# These need no file: what a picture is for stands in its name.
SHARED, OOD = "shared", "ood"
SPLITS = (SHARED, OOD, "tau", *(f"cluster_k5_{k}" for k in range(5)), *(f"random_{k}" for k in range(5)))
_IS_SHARED, _IS_OOD = "shared_", "shared_4rep_OOD_"
_CEILING, _REPETITIONS = "Noiseceiling12rep", 12
_MOST_TRIALS = 100_000
_PERCENT = 100.0


def read(
    source: Path,
    test_set: str = "",
    splits: Path | None = None,
    images: Path | None = None,
    voxels: Literal["rois", "brain"] = "rois",
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """What the folder holds; betas and pictures are read later.

    Args:
        source: The folder that has `derivatives`.
        test_set: `shared` (the default): pictures that all subjects saw; `ood`: the 371 unusual ones; `tau`,
            `cluster_k5_0` to `_4`, `random_0` to `_4`: the release's splits of each subject's pictures. Trials of a
            picture that is in neither part of a subject's split, or that another subject's split tests, are left out.
        splits: The folder `laion_fmri/splits/data` of the package; looked for in the source if None.
        images: The folder with the pictures; `stimuli/images` if None.
        voxels: Those in a region of `derivatives/atlases`, or all of the brain mask.
        subjects: These alone are looked for, such as `sub-01`.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    split = test_set or SHARED
    if split not in SPLITS:
        raise FmriModelsError(
            f"There is no split {one_line(repr(split), 60)} of LAION-fMRI; there are {', '.join(SPLITS)}."
            f"{did_you_mean(split, SPLITS)}"
        )
    root = source / "derivatives" / "glmsingle-tedana"
    found = [name for name in SUBJECTS if (root / name).is_dir() and (subjects is None or name in subjects)]
    if not found:
        raise FmriModelsError(f"{one_line(source)} has no subject of LAION-fMRI ({', '.join(SUBJECTS)}); {MEND}.")
    if images is not None and not images.is_dir():
        raise FmriModelsError(f"The pictures' folder {one_line(images)} does not exist.")
    trials = {name: _sessions(root / name, name) for name in found}
    parts = _parts(split, splits or source / "splits" / "data", trials)
    people = [_subject(source, name, trials[name], parts[name], voxels) for name in found]
    folder = images or source / "stimuli" / "images"
    pictures = {stimulus_id(name): path for name, path in picture_files([folder]).items()} if folder.is_dir() else {}
    tested = sorted({name for tested, _ in parts.values() for name in tested})
    return PublishedDataset(
        name="laion_fmri",
        description=DESCRIPTION.format(split=split),
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/laion_fmri.py",
        script_version=VERSION,
        subjects=people,
        stimuli=partial(_stimuli, pictures),
        test_sets={split: tested},
        notes=[] if pictures else ["The table has no pictures, which come by an agreement (images=DIR)."],
    )


def stimulus_id(name: str) -> str:
    """Of a picture's file; ids have no plus sign."""
    return re.sub(r"\.(png|jpe?g)$", "", name, flags=re.IGNORECASE).replace("+", "plus")


class _Session:
    """One session's files and what its trials showed."""

    def __init__(self, folder: Path, subject: str) -> None:
        self.name = folder.name
        self.number = _number(folder.name, f"The session {folder}")
        beginning = f"{subject}_{folder.name}_task-images_"
        self.betas = folder / "func" / f"{beginning}space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
        path = folder / "func" / f"{beginning}desc-SingletrialBetas_trials.tsv"
        what = f"The table of trials {one_line(path)}"
        names = ["run", "beta_index", "label"]
        columns = read_csv(read_bytes(path, "table of trials", MEND), what, names, _MOST_TRIALS, known=names)
        places = [_number(text, what) for text in columns["beta_index"]]
        if sorted(places) != list(range(len(places))):
            raise FmriModelsError(f"{what} has other values of beta_index than 0 to {len(places) - 1}; copy it again.")
        order = np.argsort(places).tolist()
        self.files = [self.betas, path]
        self.shown = [stimulus_id(columns["label"][row]) for row in order]
        self.runs = [_number(columns["run"][row], what) for row in order]


def _number(text: str, what: str) -> int:
    """The number in `run-03`, `ses-03` or `3`."""
    digits = re.fullmatch(r"[a-z-]*0*(\d+)(?:\.0)?", text.strip())
    if digits is None:
        raise FmriModelsError(f"{what} has {one_line(repr(text), 40)} where a number is expected; copy it again.")
    return int(digits[1])


def _sessions(folder: Path, subject: str) -> list[_Session]:
    found = [_Session(path, subject) for path in sorted(folder.glob("ses-*")) if (path / "func").is_dir()]
    if not found:
        raise FmriModelsError(f"{one_line(folder)} has no session (ses-01/func); {MEND}.")
    for each in found:
        if not each.betas.is_file():
            raise FmriModelsError(f"{one_line(each.betas)} is missing; download the session's betas, or remove it.")
    return found


def _parts(
    split: str, folder: Path, trials: dict[str, list[_Session]]
) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Subject ▶ pictures that are tested, and learned from; none is tested for one and learned from by another."""
    own: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    for name, sessions in trials.items():
        shown = frozenset(stimulus for each in sessions for stimulus in each.shown)
        if split in (SHARED, OOD):
            tested = frozenset(each for each in shown if each.startswith(_IS_SHARED if split == SHARED else _IS_OOD))
            own[name] = tested, shown - tested
        else:
            own[name] = _of_file(folder / name / f"{split}.json")
    everybody = frozenset().union(*(tested for tested, _ in own.values()))
    return {name: (tested, learned - everybody) for name, (tested, learned) in own.items()}


def _of_file(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    said = read_object(
        path, "split of LAION-fMRI", "give laion_fmri/splits/data of github.com/ViCCo-Group/LAION-fMRI, with --option "
        "splits=DIR"
    )  # fmt: skip
    variants = said.get("variants")
    first = variants[0] if isinstance(variants, list) and variants and isinstance(variants[0], dict) else {}
    ids = [first.get(f"{part}_ids") for part in ("test", "train")]
    if not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in ids):
        raise FmriModelsError(f"{one_line(path)} has no variants with train_ids and test_ids; get the package again.")
    tested, learned = (frozenset(map(stimulus_id, each)) for each in ids if each is not None)
    return tested, learned


def _subject(
    source: Path,
    name: str,
    sessions: Sequence[_Session],
    parts: tuple[frozenset[str], frozenset[str]],
    voxels: Literal["rois", "brain"],
) -> PublishedSubject:
    folder = source / "derivatives" / "glmsingle-tedana" / name
    brain, image = read_mask(folder / f"{name}_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz", MEND)
    rois = source / "derivatives" / "atlases" / name / "rois"
    regions = {
        path.name.removesuffix(".nii.gz"): read_mask(path, MEND, image)[0] & brain
        for path in sorted(rois.glob("*.nii.gz"))
    }
    chosen = brain if voxels == "brain" or not regions else np.logical_or.reduce(list(regions.values()))
    if not chosen.any():
        raise FmriModelsError(f"No voxel of the brain mask of {name} is in a region of {one_line(rois)}; {MEND}.")
    masks = {region: mask[chosen] for region, mask in regions.items()}
    labels = np.full(int(chosen.sum()), "", dtype=object)
    # Of regions that contain others, a voxel is labelled by the smallest.
    for region in sorted(masks, key=lambda each: -int(masks[each].sum())):
        labels[masks[region]] = region
    known = KnownVoxels(
        int(chosen.sum()),
        roi=labels.tolist() if masks else None,
        coordinates=places_of(chosen, image.affine),
        space=f"{name}, T1w",
        noise_ceiling=_ceiling(folder / f"{name}_task-images_space-T1w_desc-{_CEILING}_statmap.nii.gz", chosen),
        repetitions=_REPETITIONS,
        grid=grid_of(chosen, image.affine),
        regions=masks,
    )
    used = parts[0] | parts[1]
    recordings = [_recording(each, chosen, used) for each in sessions]
    pictures = len({stimulus for each in sessions for stimulus in each.shown})
    return PublishedSubject(
        name,
        known,
        [each for each in recordings if each.stimulus_ids],
        differs=[f"{name} has {pictures:,} pictures in {len(sessions)} sessions, and not {PICTURES:,} or more"]
        if pictures < PICTURES
        else [],
    )


def _ceiling(path: Path, chosen: np.ndarray) -> np.ndarray | None:
    """Share of explainable variance of twelve averaged repetitions, tested ones too; None where it is missing."""
    if not path.is_file():
        return None
    values = image_values(opened_image(path, 3, MEND), path, mend=MEND)
    if values.shape != chosen.shape:
        raise FmriModelsError(f"{one_line(path)} is of the shape {values.shape}; expected {chosen.shape}; {MEND}.")
    return np.clip(np.nan_to_num(values[chosen]) / _PERCENT, 0.0, 1.0)


def _recording(session: _Session, chosen: np.ndarray, used: Collection[str]) -> Recording:
    kept = np.array([name in used for name in session.shown])
    if (count := int(opened_image(session.betas, 4, MEND).shape[3])) != len(kept):
        raise FmriModelsError(
            f"{one_line(session.betas)} has {count} trials, and its table {len(kept)} rows; copy both again."
        )
    return Recording(
        session.name,
        partial(_blocks, session.betas, chosen, kept),
        [name for name, keep in zip(session.shown, kept, strict=True) if keep],
        session=session.number,
        runs=[run for run, keep in zip(session.runs, kept, strict=True) if keep],
        files=session.files,
    )


def _blocks(path: Path, chosen: np.ndarray, kept: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for block in masked_volumes(path, chosen, MEND):
        rows = kept[start : start + len(block)]
        start += len(block)
        if rows.any():
            yield block[rows]


def _stimuli(pictures: dict[str, Path], shown: Collection[str]) -> Iterator[dict[str, Any]]:
    missing = sorted(set(shown) - set(pictures)) if pictures else []
    if missing:
        raise FmriModelsError(
            f"{len(missing)} of {len(set(shown))} pictures are missing ({listed(missing)}); get the rest, or give an "
            "empty folder with --option images=DIR for a table without pictures."
        )
    for name in sorted(shown):
        image = picture_bytes(pictures[name]) if name in pictures else None
        yield {"stimulus_id": name, "image": image, "category": None}


# Voxels at the edge of the mask have NaN in some trials.
prepare = preparation(read, {"drop_bad_voxels": True})
