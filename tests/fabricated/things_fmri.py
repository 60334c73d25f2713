"""Small tables in the layout of THINGS-fMRI's `betas_csv`: a row a voxel in HDF5, as pandas writes a frame."""

import csv
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

SESSIONS, TRAINED, TESTED, VOXELS = 3, 6, 2, 20
CONCEPTS = ["aardvark", "ball", "cup", "dog"]


def trials() -> list[dict[str, str]]:
    """Each session shows pictures of its own once, and the test pictures; the order is mixed."""
    rows = []
    for session in range(1, SESSIONS + 1):
        own = [
            {
                "trial_type": "train",
                "concept": CONCEPTS[n % 4],
                "stimulus": f"{CONCEPTS[n % 4]}_{n + 10 * session:02d}b.jpg",
            }
            for n in range(TRAINED)
        ]
        own += [{"trial_type": "test", "concept": c, "stimulus": f"{c}_99s.jpg"} for c in CONCEPTS[:TESTED]]
        order = np.random.default_rng(session).permutation(len(own))
        for place, number in enumerate(order):
            rows.append({"session": str(session), "run": str(1 + place // 4), "subject_id": "1", **own[number]})
    return [{"trial_id": str(place), **row} for place, row in enumerate(rows)]


def responses() -> np.ndarray:
    """(voxels, trials) float64."""
    return np.random.default_rng(7).normal(size=(VOXELS, SESSIONS * (TRAINED + TESTED)))


def regions(voxel: int) -> dict[str, int]:
    """V1, IT, both, or none."""
    return {"V1": int(voxel % 4 in (0, 2)), "IT": int(voxel % 4 in (1, 2)), "glasser-V1": 0}


def write_things(folder: Path, pictures: bool = True) -> Path:
    tables = folder / "betas_csv"
    tables.mkdir(parents=True)
    with h5py.File(tables / "sub-01_ResponseData.h5", "w") as file:
        file["ResponseData/block0_values"] = responses()
        file["ResponseData/block1_values"] = np.arange(VOXELS)[:, None]
    _write(tables / "sub-01_StimulusMetadata.csv", trials())
    _write(
        tables / "sub-01_VoxelMetadata.csv",
        [
            {
                "voxel_id": v,
                "voxel_x": v,
                "voxel_y": 1,
                "voxel_z": 2,
                "nc_singletrial": v,
                "nc_testset": 4 * v,
                **regions(v),
            }
            for v in range(VOXELS)
        ],
    )
    for row in trials() if pictures else []:
        place = folder / "images" / row["concept"]
        place.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(map(ord, row["stimulus"])))
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(place / row["stimulus"], quality=95)
    return folder


def _write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
