"""Small files in the layout of vim-2: HDF5 as MATLAB writes it, all voxels of a volume and few seconds of film."""

from pathlib import Path

import h5py
import numpy as np

VOXELS, TRAINED, TESTED, REPEATS = 18 * 64 * 64, 640, 30, 10
# Region of a hemisphere \u25b6 its voxels; one is of two regions, and one has no values.
REGIONS = {"v1lh": [5, 9, 70_000], "v1rh": [11], "v2lh": [9, 12], "MTlh": [40_000, 13]}
BAD = 13
CHOSEN = [5, 9, 11, 12, 13, 40_000, 70_000]
SIZE = 6


def value(voxel: int, second: int, tested: bool = False, repeat: float = 4.5) -> float:
    return voxel / 10 + second + (10_000 + repeat if tested else 0)


def frames(part: str) -> np.ndarray:
    """(frames, rows, columns, 3) uint8, as they are seen."""
    count = 15 * (TRAINED if part == "train" else TESTED)
    return np.random.default_rng(part == "test").integers(0, 256, (count, SIZE, SIZE + 1, 3), dtype=np.uint8)


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with h5py.File(folder / "VoxelResponses_subject1.mat", "w") as file:
        rt = file.create_dataset("rt", (VOXELS, TRAINED), np.float32, compression="gzip", chunks=(512, TRAINED))
        rv = file.create_dataset("rv", (VOXELS, TESTED), np.float32, compression="gzip", chunks=(512, TESTED))
        rva = file.create_dataset("rva", (VOXELS, REPEATS, TESTED), np.float32, compression="gzip")
        for voxel in CHOSEN:
            rt[voxel] = [value(voxel, second) for second in range(TRAINED)]
            rv[voxel] = [value(voxel, second, True) for second in range(TESTED)]
            rva[voxel] = [[value(voxel, second, True, r) for second in range(TESTED)] for r in range(REPEATS)]
        rt[BAD, 7] = np.nan
        for name, voxels in REGIONS.items():
            inside = np.zeros(VOXELS)
            inside[voxels] = 1
            file[f"roi/{name}"] = inside.reshape(18, 64, 64)
    with h5py.File(folder / "Stimuli.mat", "w") as file:
        for name, part in (("st", "train"), ("sv", "test")):
            file[name] = frames(part).transpose(0, 3, 2, 1)
    return folder
