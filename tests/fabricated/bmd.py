"""Small files in the layout of BOLD Moments' version B: the pickles of two regions, or arrays made of them."""

import pickle
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

REGIONS = {"lV1v": 3, "rFFA": 2}
PARTS = {"train": (1000, 3, 1), "test": (102, 10, 1001)}
FOLDER = "derivatives/versionB/MNI152/prepared_allvoxel_pkl/sub-01"


def betas(part: str, region: str) -> np.ndarray:
    """(clips, repetitions, voxels): each value says what it is of."""
    clips, repetitions, first = PARTS[part]
    clip, repetition, voxel = np.indices((clips, repetitions, REGIONS[region]))
    return (clip + first) + 0.01 * repetition + 2000.0 * voxel + (10_000 if region == "rFFA" else 0)


def write(folder: Path, pickled: bool = True, pictures: int = 1102) -> Path:
    into = folder / FOLDER
    into.mkdir(parents=True)
    for region in REGIONS:
        values = {f"{part}_data_allvoxel": betas(part, region) for part in PARTS}
        name = into / f"sub-01_roi-{region}_betas_normalized"
        if pickled:
            name.with_suffix(".pkl").write_bytes(pickle.dumps({**values, "noiseceiling": 3}))
        else:
            np.savez(name, **values)
    frames = folder / "derivatives/stimuli_metadata/frames_middle"
    frames.mkdir(parents=True)
    for number in range(1, pictures + 1):
        rng = np.random.default_rng(zlib.crc32(str(number).encode()))
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(
            frames / f"{number:04d}_a-film.jpg", quality=95
        )
    return folder
