"""Small files in the three published layouts of the Natural Scenes Dataset: keys, types, order of axes, scale factors.

Betas say of which trial and voxel they are; pictures have 8 pixels a side, and are as many as in the original.
"""

import csv
import io
import json
import tarfile
from functools import cache
from pathlib import Path

import h5py
import nibabel
import numpy as np
from PIL import Image
from scipy.io import savemat

SHAPE = (7, 6, 5)
PICTURES = 73_000
TRIALS = 750
SIDE = 8
FIRST_SESSIONS, NUM_LATE = 37, 18
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
AFFINE[:3, 3] = (-60, -70, -40)


@cache
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (PICTURES, SIDE, SIDE, 3), dtype=np.uint8)


def region() -> np.ndarray:
    """(X, Y, Z): 1 in nsdgeneral, else -1 or 0 as in the release."""
    return np.random.default_rng(1).choice(np.array([-1, 0, 1], dtype=np.int16), SHAPE)


def stored(session: int) -> np.ndarray:
    """(X, Y, Z, 750) int16, of which 300 are a percent."""
    trials = np.arange(TRIALS) + TRIALS * (session - 1)
    places = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    return ((places[..., None] * 131 + trials * 17) % 6000 - 3000).astype(np.int16)


@cache
def design() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """masterordering, subjectim and sharedix, as they are stored: from 1."""
    rng = np.random.default_rng(2)
    ordering = _with_late_pictures(rng.permutation(np.repeat(np.arange(1, 10_001), 3)))
    shared = np.sort(rng.permutation(PICTURES)[:1000] + 1)
    own = np.setdiff1d(np.arange(1, PICTURES + 1), shared)
    images = np.stack([np.concatenate([shared, own[9000 * s : 9000 * (s + 1)]]) for s in range(8)])
    return ordering, images, shared


def _with_late_pictures(ordering: np.ndarray) -> np.ndarray:
    """The same trials, of which 18 of the thousand shared pictures (the first) are shown in the last sessions alone."""
    ordering, late = ordering.copy(), FIRST_SESSIONS * TRIALS
    # No other shared picture is.
    early = np.flatnonzero(ordering[:late] > 1000)[:1000]
    only_late = sorted(set(range(NUM_LATE + 1, 1001)) - set(ordering[:late].tolist()))
    moved = [int(np.flatnonzero(ordering == picture)[0]) for picture in only_late]
    for one, other in zip(early[: len(moved)].tolist(), moved, strict=True):
        ordering[[one, other]] = ordering[[other, one]]
    own = np.flatnonzero(ordering[:late] <= NUM_LATE)
    free = late + np.flatnonzero(ordering[late:] > 1000)[: len(own)]
    ordering[own], ordering[free] = ordering[free], ordering[own]
    return ordering


@cache
def shown(subject: int) -> np.ndarray:
    """(30000,) picture of each trial, from 0."""
    ordering, images, _ = design()
    return images[subject - 1][ordering - 1] - 1


def write_release(folder: Path, subjects: tuple[int, ...] = (1,), sessions: int = 2, as_hdf5: bool = False) -> Path:
    """`nsddata`, `nsddata_betas` and `nsddata_stimuli`."""
    experiment = folder / "nsddata" / "experiments" / "nsd"
    experiment.mkdir(parents=True)
    ordering, images, shared = design()
    savemat(
        experiment / "nsd_expdesign.mat",
        {"masterordering": ordering[None], "subjectim": images, "sharedix": shared[None]},
    )
    _write_coco_ids(experiment / "nsd_stim_info_merged.csv")
    stimuli = folder / "nsddata_stimuli" / "stimuli" / "nsd"
    (stimuli / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        first = {"image_id": _COCO_ID + int(shown(1)[0]), "caption": f"A picture\nof {split} "}
        (stimuli / "annotations" / f"captions_{split}.json").write_text(json.dumps({"annotations": [first]}))
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = pictures()
    labels = folder / "nsddata" / "freesurfer" / "fsaverage" / "label"
    labels.mkdir(parents=True)
    (labels / "streams.mgz.ctab").write_text("0 Unknown\n1 early\n2 midventral\n")
    for subject in subjects:
        _write_subject(folder, subject, sessions, as_hdf5)
    return folder


def _write_subject(folder: Path, subject: int, sessions: int, as_hdf5: bool) -> None:
    name = f"subj{subject:02d}"
    own = folder / "nsddata" / "ppdata" / name
    rois, betas = own / "func1pt8mm" / "roi", None
    rois.mkdir(parents=True)
    _write_volume(rois / "nsdgeneral.nii.gz", region())
    streams = np.zeros(SHAPE, dtype=np.int16)
    streams[:3], streams[3:5] = 1, 2
    _write_volume(rois / "streams.nii.gz", streams)
    (own / "behav").mkdir()
    with (own / "behav" / "responses.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID"])
        for session in range(1, sessions + 1):
            for trial in range(TRIALS):
                place = TRIALS * (session - 1) + trial
                table.writerow([subject, session, 1 + trial * 12 // TRIALS, trial + 1, shown(subject)[place] + 1])
    betas = folder / "nsddata_betas" / "ppdata" / name / "func1pt8mm" / "betas_fithrf_GLMdenoise_RR"
    betas.mkdir(parents=True)
    _write_volume(betas / "ncsnr.nii.gz", (np.arange(np.prod(SHAPE)).reshape(SHAPE) / 500).astype(np.float32))
    for session in range(1, sessions + 1):
        if as_hdf5:
            with h5py.File(betas / f"betas_session{session:02d}.hdf5", "w") as file:
                file["betas"] = stored(session).transpose(3, 2, 1, 0)
        else:
            _write_volume(betas / f"betas_session{session:02d}.nii.gz", stored(session))


def _write_volume(path: Path, values: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


# ---------------------------------------------------------------------------------------------------------- captions

_COCO_ID = 100_000


def _write_coco_ids(path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "cocoId", "cocoSplit", "nsdId"])
        table.writerows([place, _COCO_ID + place, _coco_split(place), place] for place in range(PICTURES))


def _coco_split(place: int) -> str:
    return "val2017" if place % 20 == 0 else "train2017"


def caption(index: int) -> str:
    """The first of a picture."""
    return f"a {('red', 'green', 'blue')[index % 3]} picture with number {index}"


def write_captions(folder: Path) -> None:
    """COCO's annotations of every picture and the table of its ids, where the release and MindBridge have them."""
    experiment = folder / "nsddata" / "experiments" / "nsd"
    annotations = folder / "nsddata_stimuli" / "stimuli" / "nsd" / "annotations"
    for each in (experiment, annotations):
        each.mkdir(parents=True, exist_ok=True)
    _write_coco_ids(experiment / "nsd_stim_info_merged.csv")
    for split in ("train2017", "val2017"):
        own = [
            {"image_id": _COCO_ID + index, "caption": f"{caption(index)}{end}\n"}
            for index in range(PICTURES)
            if _coco_split(index) == split
            for end in ("", ", again")
        ]
        (annotations / f"captions_{split}.json").write_text(json.dumps({"annotations": own}))


def write_curated_captions(folder: Path) -> None:
    """`COCO_73k_annots_curated.npy`: a row a picture, five texts, some of them empty."""
    texts = [[caption(index), "", "", "", ""] for index in range(PICTURES)]
    np.save(folder / "COCO_73k_annots_curated.npy", np.array(texts))


# ------------------------------------------------------------------------------------- NSD-Imagery and NSD-Synthetic

CUES = {"A": "HRVLPE", "B": "WKBCDT", "C": "SZMYNF"}
TARGETS = {
    "H": "bar_000.0deg_450L_43W", "R": "bar_045.0deg_450L_43W", "V": "bar_090.0deg_450L_43W",
    "L": "bar_135.0deg_450L_43W", "P": "crs_000.0deg_450L_43W", "E": "crs_045.0deg_450L_43W",
    "W": "shared0385_nsd28752", "K": "shared0413_nsd30857", "B": "shared0741_nsd53882",
    "C": "shared0842_nsd61178", "D": "shared0907_nsd65873", "T": "shared0000_nsd00000",
}  # fmt: skip
IMAGERY_RUNS = [
    "visA",
    "attA",
    "imgA_1",
    "visB",
    "attB",
    "imgB_1",
    "visC",
    "attC",
    "imgC_1",
    "imgA_2",
    "imgB_2",
    "imgC_2",
]


def other_stored(trials: int) -> np.ndarray:
    """(X, Y, Z, trials) int16 of an experiment besides."""
    places = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    return ((places[..., None] * 59 + np.arange(trials) * 23) % 5000 - 2500).astype(np.int16)


def cues(run: str) -> list[str]:
    rng = np.random.default_rng(sum(map(ord, run)))
    return [CUES[run[3]][place] for place in rng.permutation(48) % 6]


def target(name: str) -> np.ndarray:
    return np.random.default_rng(sum(place * ord(each) for place, each in enumerate(name))).integers(
        0, 256, (SIDE, SIDE, 3), dtype=np.uint8
    )


def write_imagery(folder: Path, as_hdf5: bool = True) -> Path:
    """NSD-Imagery of subject 1, into the folder of the release."""
    betas = folder / "nsddata_betas" / "ppdata" / "subj01" / "func1pt8mm" / "nsdimagerybetas_fithrf_GLMdenoise_RR"
    betas.mkdir(parents=True)
    if as_hdf5:
        with h5py.File(betas / "betas_nsdimagery.hdf5", "w") as file:
            file["betas"] = other_stored(720).transpose(3, 2, 1, 0)
    else:
        _write_volume(betas / "betas_nsdimagery.nii.gz", other_stored(720))
    tables = folder / "nsddata" / "bdata" / "nsdimagery"
    tables.mkdir(parents=True)
    for number, run in enumerate(IMAGERY_RUNS, 1):
        with (tables / f"nsdimagery_subj01_{run}.tsv").open("w", newline="") as file:
            table = csv.writer(file, delimiter="\t")
            table.writerow(["SUBJECT", "SESSION", "RUN", "TRIAL", "CONDITION", "CUE"])
            table.writerows([1, 1, number, trial + 1, cue, cue] for trial, cue in enumerate(cues(run)))
    for letters, name in (("HRVLPE", "setA"), ("WKBCDT", "setB")):
        pictures_of = folder / "nsddata" / "experiments" / "nsdimagery" / "rawtargetimages" / name
        pictures_of.mkdir(parents=True)
        for letter in letters:
            Image.fromarray(target(TARGETS[letter])).save(pictures_of / f"{TARGETS[letter]}.png")
    return folder


def synthetic_order() -> np.ndarray:
    """(744,) from 1: each of the 284 at least twice."""
    order = np.concatenate([np.tile(np.arange(1, 285), 2), np.arange(1, 744 - 2 * 284 + 1)])
    return np.random.default_rng(6).permutation(order)


def synthetic_pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE + 4, 3), dtype=np.uint8)


def write_synthetic(folder: Path) -> Path:
    """NSD-Synthetic of subject 1, into the folder of the release."""
    betas = folder / "nsddata_betas" / "ppdata" / "subj01" / "func1pt8mm" / "nsdsyntheticbetas_fithrf_GLMdenoise_RR"
    betas.mkdir(parents=True)
    _write_volume(betas / "betas_nsdsynthetic.nii.gz", other_stored(744))
    design_of = folder / "nsddata" / "experiments" / "nsdsynthetic"
    design_of.mkdir(parents=True)
    savemat(design_of / "nsdsynthetic_expdesign.mat", {"masterordering": synthetic_order()[None]})
    stimuli = folder / "nsddata_stimuli" / "stimuli" / "nsdsynthetic"
    stimuli.mkdir(parents=True)
    for name, count in (("stimuli", 220), ("colorstimuli_subj01", 64)):
        with h5py.File(stimuli / f"nsdsynthetic_{name}.hdf5", "w") as file:
            file["imgBrick"] = synthetic_pictures(count)
    return folder


# ---------------------------------------------------------------------------------------------------------- MindEye2

WIDTH = 12
TRIALS_A_SESSION = 40


def width(subject: int) -> int:
    """Voxels of a subject in the forms of MindEye and MindEye2."""
    return WIDTH + subject - 1


def behaviour(sessions: int = 2, subject: int = 1) -> np.ndarray:
    """(trials, 17): picture, subject, session, run, trial, row of the betas … and whether it is a shared one."""
    trials = sessions * TRIALS_A_SESSION
    rows = np.full((trials, 17), -1.0)
    rng = np.random.default_rng(2 + subject)
    # Every fifth trial shows one of four shared pictures.
    index = rng.permutation(PICTURES)[:trials]
    shared = np.arange(trials) % 5 == 0
    index[shared] = np.array([11, 22, 33, 44])[np.arange(shared.sum()) % 4]
    rows[:, 0], rows[:, 1] = index, subject
    rows[:, 2] = 1 + np.arange(trials) // TRIALS_A_SESSION
    rows[:, 3] = 1 + np.arange(trials) % TRIALS_A_SESSION // 10
    rows[:, 4], rows[:, 5], rows[:, 16] = np.arange(trials) % 10, np.arange(trials), shared
    return rows


def standardised(sessions: int = 2, subject: int = 1) -> np.ndarray:
    """(trials, voxels) float32."""
    size = (sessions * TRIALS_A_SESSION, width(subject))
    return np.random.default_rng(3 + subject).normal(size=size).astype(np.float32)


def write_mindeye2(folder: Path, subjects: tuple[int, ...] = (1,)) -> Path:
    """Betas and pictures in HDF5, behaviour in tars: one a session for training, and two test sets."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "coco_images_224_float16.hdf5", "w") as file:
        file["images"] = (pictures().transpose(0, 3, 1, 2) / 255).astype(np.float16)
    with h5py.File(folder / "brain_region_masks.hdf5", "w") as file:
        for subject in subjects:
            voxels = range(width(subject))
            for region, columns in (("nsd_general", voxels), ("V1", range(3)), ("higher_vis", voxels[6:])):
                file[f"subj{subject:02d}/{region}"] = np.isin(voxels, list(columns))
    for subject in subjects:
        _write_subject_of_mindeye2(folder, subject)
    return folder


def _write_subject_of_mindeye2(folder: Path, subject: int) -> None:
    name = f"subj{subject:02d}"
    with h5py.File(folder / f"betas_all_{name}_fp32_renorm.hdf5", "w") as file:
        file["betas"] = standardised(subject=subject)
    rows = behaviour(subject=subject)
    shared = rows[:, 16] == 1
    for session in (1, 2):
        _write_behaviour(folder / f"wds/{name}/train/{session - 1}.tar", rows[(rows[:, 2] == session) & ~shared])
    _write_behaviour(folder / f"wds/{name}/new_test/0.tar", rows[shared])
    _write_behaviour(folder / f"wds/{name}/test/0.tar", rows[shared & (rows[:, 0] != 44)])


def _write_behaviour(path: Path, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, row in enumerate(rows):
            for name, values in (("behav", row[None]), ("past_behav", np.zeros((15, 17)))):
                _add(archive, f"sample{number:09d}.{name}.npy", _npy(values))


# ----------------------------------------------------------------------------------------------------------- MindEye

SAMPLES = {"train": 6, "val": 2, "test": 3}
# How many different repetitions the samples have, one after the other.
UNIQUE = (3, 2, 1)


def repetitions(index: int, subject: int = 1) -> np.ndarray:
    """(3, voxels): fewer than three are filled with copies."""
    seed = index if subject == 1 else (subject, index)
    values = np.random.default_rng(seed).normal(size=(3, width(subject))).astype(np.float32)
    count = UNIQUE[index % 3]
    return values[[0, 0, 0] if count == 1 else [0, 1, 0] if count == 2 else [0, 1, 2]]


def write_mindeye(folder: Path, subjects: tuple[int, ...] = (1,), samples: dict[str, int] = SAMPLES) -> Path:
    """`webdataset_avg_split/{train,val,test}/{part}_subj0X_{n}.tar`; all subjects have the same test pictures."""
    base = folder / "webdataset_avg_split"
    before_test = samples["train"] + samples["val"]
    for subject in subjects:
        name = f"subj{subject:02d}"
        index = 0 if subject == 1 else 1000 * subject
        for part, count in samples.items():
            (base / part).mkdir(parents=True, exist_ok=True)
            index = before_test if part == "test" else index
            for tar in range(2):
                with tarfile.open(base / part / f"{part}_{name}_{tar}.tar", "w") as archive:
                    for number in range(tar, count, 2):
                        _write_sample(archive, number, index, subject)
                        index += 1
        totals = {part: samples[part] for part in ("train", "val")}
        (base / f"metadata_{name}.json").write_text(json.dumps({"totals": totals}))
    return folder


def _write_sample(archive: tarfile.TarFile, number: int, index: int, subject: int) -> None:
    key = f"sample{number:09d}"
    _add(archive, f"{key}.coco73k.npy", _npy(np.array([index])))
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "PNG")
    _add(archive, f"{key}.png", file.getvalue())
    _add(archive, f"{key}.nsdgeneral.npy", _npy(repetitions(index, subject)))
    _add(archive, f"{key}.num_uniques.npy", _npy(np.array([UNIQUE[index % 3]])))
    _add(archive, f"{key}.trial.npy", _npy(np.array([index])))


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
