"""A small folder as `nilearn.datasets.fetch_miyawaki2008` makes it, and a small `miyawaki_figures_2_5.npz`.

In the block of a run, a volume is 1,000 times the run (counting those of figures from 51), plus 30 times the block,
plus the voxel's flat position; at rest it is 0. Responses follow by two volumes.
"""

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (4, 3, 2)
AFFINE = np.array([[3.0, 0, 0, -20], [0, 3, 0, -70], [0, 0, 3, 5], [0, 0, 0, 1]])
RUNS = {"random": 20, "figure": 12}
BLOCKS, VOLUMES_OF_A_BLOCK, SHIFT = 4, 3, 2
NUM_FIGURES = 5
MASKED = [1, 2, 3, 5, 8, 13, 21]
REGIONS = {"LHV1d": [1], "LHV1v": [2], "RHV1d": [2, 3], "RHV2v": [5], "LHVP": [8], "RHV3A": [13], "LHlag0to1": [21]}


def pattern(kind: str, run: int, block: int) -> np.ndarray:
    """(10, 10) of 0 and 1; figures are few, and are shown again."""
    seed = 100 * run + block if kind == "random" else 10_000 + (BLOCKS * run + block) % NUM_FIGURES
    return np.random.default_rng(seed).integers(0, 2, (10, 10))


def volumes_of(run: int) -> int:
    return 2 + BLOCKS * 2 * VOLUMES_OF_A_BLOCK + SHIFT


def beta(kind: str, run: int, block: int) -> np.ndarray:
    return 1000.0 * (run if kind == "random" else 50 + run) + 30 * block + np.arange(np.prod(SHAPE))


def write_nilearn(folder: Path) -> Path:
    for name in ("func", "label", "mask"):
        (folder / name).mkdir(parents=True)
    for kind, count in RUNS.items():
        for run in range(1, count + 1):
            labels = -np.ones((volumes_of(run), 100), dtype=int)
            volumes = np.zeros((*SHAPE, volumes_of(run)), dtype=np.float32)
            for block in range(BLOCKS):
                start = 2 + 2 * block * VOLUMES_OF_A_BLOCK
                # MATLAB writes squares column by column.
                labels[start : start + VOLUMES_OF_A_BLOCK] = pattern(kind, run, block).ravel(order="F")
                seen = slice(start + SHIFT, start + SHIFT + VOLUMES_OF_A_BLOCK)
                volumes[..., seen] = beta(kind, run, block).reshape(SHAPE)[..., None]
            np.savetxt(folder / "label" / f"data_{kind}_run{run:02d}_label.csv", labels, fmt="%d", delimiter=",")
            nibabel.Nifti1Image(volumes, AFFINE).to_filename(folder / "func" / f"data_{kind}_run{run:02d}.nii.gz")
    write_mask(folder / "mask" / "mask.nii.gz", MASKED)
    for name, voxels in REGIONS.items():
        write_mask(folder / "mask" / f"{name}.nii.gz", voxels)
    return folder


def write_mask(path: Path, voxels: list[int], affine: np.ndarray = AFFINE) -> None:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask.flat[voxels] = 1
    nibabel.Nifti1Image(mask, affine).to_filename(path)


def write_npz(path: Path) -> Path:
    """Ten pictures, eight times each, in an order of its own; the voxels hold something of what was shown."""
    rng = np.random.default_rng(0)
    identities = rng.permutation(np.repeat([0, 1, 2, 3, 4, 5, 6, 17, 18, 19], 8))
    pictures = {number: rng.integers(0, 2, (28, 28)).astype(np.float32) for number in sorted(set(identities.tolist()))}
    images = np.stack([pictures[number] for number in identities.tolist()])
    voxels = images.reshape(80, -1) @ rng.normal(size=(784, 12)) / 28 + rng.normal(size=(80, 12)) / 4
    np.savez(
        path,
        voxels=voxels.astype(np.float32),
        images=images,
        image_id=identities,
        condition=np.where(identities < 10, 2, 5).astype(np.uint16),
    )
    return path
