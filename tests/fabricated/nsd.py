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
    ordering = rng.permutation(np.repeat(np.arange(1, 10_001), 3))
    shared = np.sort(rng.permutation(PICTURES)[:1000] + 1)
    own = np.setdiff1d(np.arange(1, PICTURES + 1), shared)
    images = np.stack([np.concatenate([shared, own[9000 * s : 9000 * (s + 1)]]) for s in range(8)])
    return ordering, images, shared


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
    with (experiment / "nsd_stim_info_merged.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "cocoId", "cocoSplit", "nsdId"])
        table.writerows([place, 100_000 + place, "val2017" if place % 20 == 0 else "train2017", place]
                        for place in range(PICTURES))  # fmt: skip
    stimuli = folder / "nsddata_stimuli" / "stimuli" / "nsd"
    (stimuli / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        first = {"image_id": 100_000 + int(shown(1)[0]), "caption": f"A picture\nof {split} "}
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


# ---------------------------------------------------------------------------------------------------------- MindEye2

WIDTH = 12
TRIALS_A_SESSION = 40


def behaviour(sessions: int = 2) -> np.ndarray:
    """(trials, 17): picture, subject, session, run, trial, row of the betas … and whether it is a shared one."""
    trials = sessions * TRIALS_A_SESSION
    rows = np.full((trials, 17), -1.0)
    rng = np.random.default_rng(3)
    # Every fifth trial shows one of four shared pictures.
    index = rng.permutation(PICTURES)[:trials]
    shared = np.arange(trials) % 5 == 0
    index[shared] = np.array([11, 22, 33, 44])[np.arange(shared.sum()) % 4]
    rows[:, 0], rows[:, 1] = index, 1
    rows[:, 2] = 1 + np.arange(trials) // TRIALS_A_SESSION
    rows[:, 3] = 1 + np.arange(trials) % TRIALS_A_SESSION // 10
    rows[:, 4], rows[:, 5], rows[:, 16] = np.arange(trials) % 10, np.arange(trials), shared
    return rows


def standardised(sessions: int = 2) -> np.ndarray:
    """(trials, voxels) float32."""
    return np.random.default_rng(4).normal(size=(sessions * TRIALS_A_SESSION, WIDTH)).astype(np.float32)


def write_mindeye2(folder: Path) -> Path:
    """Betas and pictures in HDF5, behaviour in tars: one a session for training, and two test sets."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = standardised()
    with h5py.File(folder / "coco_images_224_float16.hdf5", "w") as file:
        file["images"] = (pictures().transpose(0, 3, 1, 2) / 255).astype(np.float16)
    with h5py.File(folder / "brain_region_masks.hdf5", "w") as file:
        for name, columns in (("nsd_general", range(WIDTH)), ("V1", range(3)), ("higher_vis", range(6, WIDTH))):
            file[f"subj01/{name}"] = np.isin(np.arange(WIDTH), list(columns))
    rows = behaviour()
    shared = rows[:, 16] == 1
    for session in (1, 2):
        _write_behaviour(folder / f"wds/subj01/train/{session - 1}.tar", rows[(rows[:, 2] == session) & ~shared])
    _write_behaviour(folder / "wds/subj01/new_test/0.tar", rows[shared])
    _write_behaviour(folder / "wds/subj01/test/0.tar", rows[shared & (rows[:, 0] != 44)])
    return folder


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


def repetitions(index: int) -> np.ndarray:
    """(3, voxels): fewer than three are filled with copies."""
    values = np.random.default_rng(index).normal(size=(3, WIDTH)).astype(np.float32)
    count = UNIQUE[index % 3]
    return values[[0, 0, 0] if count == 1 else [0, 1, 0] if count == 2 else [0, 1, 2]]


def write_mindeye(folder: Path) -> Path:
    """`webdataset_avg_split/{train,val,test}/{part}_subj01_{n}.tar`."""
    base = folder / "webdataset_avg_split"
    index = 0
    for part, count in SAMPLES.items():
        (base / part).mkdir(parents=True)
        for tar in range(2):
            with tarfile.open(base / part / f"{part}_subj01_{tar}.tar", "w") as archive:
                for number in range(tar, count, 2):
                    _write_sample(archive, number, index)
                    index += 1
    (base / "metadata_subj01.json").write_text(json.dumps({"totals": {"train": 6, "val": 2}}))
    return folder


def _write_sample(archive: tarfile.TarFile, number: int, index: int) -> None:
    key = f"sample{number:09d}"
    _add(archive, f"{key}.coco73k.npy", _npy(np.array([index])))
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "PNG")
    _add(archive, f"{key}.png", file.getvalue())
    _add(archive, f"{key}.nsdgeneral.npy", _npy(repetitions(index)))
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
