"""Small files of BOLD5000 in its three published layouts, whose every number says where it belongs.

Beta of voxel v in trial t of subject s: 100,000 s + 100 t + v. Sizes as published would be 5,254 trials; here there are
12 pictures over two sessions of two runs, of which three are repeated, and one more is in the list of the repeated that
the second subject, who has one session, was not shown.
"""

from pathlib import Path

import h5py
import nibabel
import numpy as np
from PIL import Image

SUBJECTS = ("CSI1", "CSI4")
SCENES = ["airplanehangar1.jpg", "concert5.jpg", "concert6.jpg"]
PICTURES = [
    "n01930112_19568.JPEG",
    "n03733281_29214.JPEG",
    "n07695742_5848.JPEG",
    "COCO_train2014_000000312003.jpg",
    "COCO_train2014_000000292845.jpg",
    "COCO_train2014_000000296474.jpg",
    *SCENES,
]
REPEATED = [PICTURES[1], PICTURES[3], SCENES[1]]
# A session's runs; repetitions have the mark in the lists of runs.
RUNS = [
    [[PICTURES[0], PICTURES[1], PICTURES[3]], [PICTURES[2], SCENES[1], PICTURES[1]]],
    [[PICTURES[4], PICTURES[3], PICTURES[5]], [SCENES[0], SCENES[1], SCENES[2], PICTURES[1]]],
]
SESSIONS = {"CSI1": 2, "CSI4": 1}
FOLDERS = {"n": "ImageNet", "C": "COCO"}
REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
WIDTHS = {f"{side}{region}": 2 + (side == "RH") for region in REGIONS for side in ("LH", "RH")}
SHAPE = (4, 5, 3)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 2, -10], [0, 0, 0, 1]])
BETAS = "GLMbetas-TYPED-FITHRF-GLMDENOISE-RR"


def shown(subject: str) -> list[str]:
    return [name for session in RUNS[: SESSIONS[subject]] for run in session for name in run]


def stem(name: str) -> str:
    return name.rpartition(".")[0]


def all_betas(subject: str, width: int) -> np.ndarray:
    return (
        100_000.0 * int(subject[-1]) + 100.0 * np.arange(len(shown(subject)))[:, None] + np.arange(width)
    )  # fmt: skip


def picture(name: str) -> np.ndarray:
    return np.random.default_rng(sum(map(ord, name))).integers(0, 256, (15, 15, 3), dtype=np.uint8)


def write_stimuli(folder: Path, subjects: tuple[str, ...] = SUBJECTS, lists: bool = True) -> None:
    """`BOLD5000_Stimuli` with pictures, the list of the repeated, and what each run showed."""
    scenes = folder / "BOLD5000_Stimuli" / "Scene_Stimuli"
    for name in PICTURES:
        place = scenes / "Presented_Stimuli" / FOLDERS.get(name[0], "Scene")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(name)).save(place / name, format="PNG")
    (scenes / "repeated_stimuli_113_list.txt").write_text("\n".join([*REPEATED, "never_shown.jpg"]) + "\n")
    for subject in subjects if lists else ():
        seen: set[str] = set()
        for number, session in enumerate(RUNS[: SESSIONS[subject]], start=1):
            place = folder / f"BOLD5000_Stimuli/Stimuli_Presentation_Lists/{subject}/{subject}_sess{number:02d}"
            place.mkdir(parents=True, exist_ok=True)
            for run, names in enumerate(session, start=1):
                lines = []
                for name in names:
                    lines.append(f"rep_{name}" if name in seen else name)
                    seen.add(name)
                (place / f"CSI_sess{number:02d}_run{run:02d}.txt").write_text("\n".join(lines) + "\n")


def write_arrays(folder: Path, subjects: tuple[str, ...] = SUBJECTS) -> Path:
    """`BOLD5000_GLMsingle_ROI_betas/py`, as MinD-Vis has it."""
    place = folder / "BOLD5000_GLMsingle_ROI_betas" / "py"
    place.mkdir(parents=True)
    for subject in subjects:
        betas, start = all_betas(subject, sum(WIDTHS.values())), 0
        for name, width in WIDTHS.items():
            np.save(place / f"{subject}_{BETAS}_allses_{name}.npy", betas[:, start : start + width])
            start += width
    write_stimuli(folder, subjects)
    return folder


def write_first_release(folder: Path, subjects: tuple[str, ...] = SUBJECTS) -> Path:
    """`ROIs` of release 1, whose lists are of all trials."""
    (folder / "ROIs" / "stim_lists").mkdir(parents=True)
    for subject in subjects:
        place = folder / "ROIs" / subject / "h5"
        place.mkdir(parents=True)
        betas, start = all_betas(subject, sum(WIDTHS.values())), 0
        with h5py.File(place / f"{subject}_ROIs_TR34.h5", "w") as file:
            for name, width in WIDTHS.items():
                file[name] = betas[:, start : start + width]
                start += width
        names, lines = shown(subject), []
        for place_in_list, name in enumerate(names):
            lines.append(f"rep_{name}" if name in names[:place_in_list] else name)
        number = f"CSI0{subject[-1]}"
        (folder / "ROIs" / "stim_lists" / f"{number}_stim_lists.txt").write_text("\n".join(lines) + "\n")
    write_stimuli(folder, lists=False)
    return folder


def region_masks() -> dict[str, np.ndarray]:
    """Two voxels each, and one that is in two regions."""
    masks = {}
    for number, name in enumerate(WIDTHS):
        mask = np.zeros(SHAPE, dtype=np.uint8)
        mask.flat[[4 + 3 * number, 5 + 3 * number]] = 1
        masks[name] = mask
    masks["RHEarlyVis"].flat[5] = 1
    return masks


def brain() -> np.ndarray:
    mask = np.ones(SHAPE, dtype=np.uint8)
    mask.flat[:4] = 0
    return mask


def write_volumes(folder: Path, subjects: tuple[str, ...] = SUBJECTS) -> Path:
    """Release 2 on figshare and the masks of ds001499, with the names that some of these have."""
    folder.mkdir(parents=True, exist_ok=True)
    other = {"LHLOC": "LHLO", "RHLOC": "RHLO", "RHRSC": "RHRRSC"}
    for subject in subjects:
        values = all_betas(subject, int(np.prod(SHAPE)))
        start = 0
        for number, session in enumerate(RUNS[: SESSIONS[subject]], start=1):
            count = sum(len(run) for run in session)
            volumes = values[start : start + count].T.reshape(*SHAPE, count).astype(np.float32)
            # Not the subject's affine, as in the published files.
            nibabel.Nifti1Image(volumes, np.diag([2.0, 2, 2, 1])).to_filename(
                folder / f"{subject}_{BETAS}_ses-{number:02d}.nii.gz"
            )
            start += count
        nibabel.Nifti1Image(brain(), AFFINE).to_filename(folder / f"{subject}_brainmask.nii.gz")
        (folder / f"{subject}_imgnames.txt").write_text("\n".join(shown(subject)) + "\n")
        masks = folder / f"sub-{subject}"
        masks.mkdir()
        for name, mask in region_masks().items():
            known = other.get(name, name) if subject == "CSI1" else name
            nibabel.Nifti1Image(mask, AFFINE).to_filename(masks / f"sub-{subject}_mask-{known}.nii.gz")
    write_stimuli(folder, lists=False)
    return folder
