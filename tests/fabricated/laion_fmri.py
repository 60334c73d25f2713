"""A small folder of LAION-fMRI, whose every beta says where it belongs.

Beta of voxel v (in C order of the volume) in trial t of session s of subject n: 10,000 n + 1,000 s + 10 t + v / 100.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = (4, 3, 3)
AFFINE = np.array([[-1.8, 0, 0, 20], [0, 1.8, 0.1, -30], [0, -0.1, 1.8, 5], [0, 0, 0, 1.0]])
SHARED = [f"shared_12rep_THINGS+_kmeans_{number}_reel.jpg" for number in range(4)]
OOD = ["shared_4rep_OOD_cropped_boy.png", "shared_4rep_OOD_shape_012_a.jpg"]
SESSIONS = 2


def unique(subject: str) -> list[str]:
    return [f"unique_LAION_initial_cluster_{number}_i2_p{subject[-2:]}.jpg" for number in range(8)]


def brain() -> np.ndarray:
    return np.random.default_rng(1).random(SHAPE) < 0.7


def regions() -> dict[str, np.ndarray]:
    """One in the other, and one that goes beyond the brain."""
    visual = np.zeros(SHAPE, dtype=bool)
    visual[:3] = True
    early = np.zeros(SHAPE, dtype=bool)
    early[:1] = True
    return {"visual": visual, "early": early}


def labels(subject: str, session: int) -> list[str]:
    own = unique(subject)
    return [*own[session::SESSIONS], *SHARED, *OOD, *own[session::SESSIONS][:1]]


def betas(subject: str, session: int) -> np.ndarray:
    """(X, Y, Z, trials)."""
    trials = len(labels(subject, session))
    first = 10_000.0 * int(subject[-2:]) + 1_000.0 * (session + 1)
    voxels = (np.arange(np.prod(SHAPE)) / 100).reshape(SHAPE)
    return first + 10.0 * np.arange(trials) + voxels[..., None]


def picture(name: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def save(path: Path, values: np.ndarray) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, dtype=np.float32), AFFINE), path)


def write(root: Path, subjects: tuple[str, ...] = ("sub-01",), pictures: bool = True) -> Path:
    for subject in subjects:
        folder = root / "derivatives" / "glmsingle-tedana" / subject
        save(folder / f"{subject}_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz", brain())
        ceiling = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
        save(folder / f"{subject}_task-images_space-T1w_desc-Noiseceiling12rep_statmap.nii.gz", ceiling)
        for name, mask in regions().items():
            save(root / "derivatives" / "atlases" / subject / "rois" / f"{name}.nii.gz", mask)
        for session in range(SESSIONS):
            name = f"{subject}_ses-{session + 1:02d}_task-images"
            func = folder / f"ses-{session + 1:02d}" / "func"
            save(func / f"{name}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz", betas(subject, session))
            rows = [
                f"ses-{session + 1:02d}\t{1 + place // 5}\t{place}\t{label}"
                for place, label in enumerate(labels(subject, session))
            ]
            # In another order than that of the volumes, which beta_index says.
            table = ["session\trun\tbeta_index\tlabel", *reversed(rows)]
            (func / f"{name}_desc-SingletrialBetas_trials.tsv").write_text("\n".join(table) + "\n")
        names = [*unique(subject), *SHARED, *OOD]
        for label in names if pictures else ():
            path = root / "stimuli" / "images" / label
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(label)).save(path, format="PNG")
        # The first unique picture is in neither part.
        tested = [SHARED[int(subject[-2:]) % len(SHARED)], unique(subject)[1]]
        learned = [each for each in [*unique(subject)[1:], *SHARED] if each not in tested]
        split = {"variants": [{"variant_id": 0, "test_ids": tested, "train_ids": learned}]}
        path = root / "splits" / "data" / subject / "tau.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(split))
    return root
