"""Small files of vim-1 as published, whose every number says where it belongs.

Response of voxel v to photograph r of part p of subject s: 1,000 s + 100 p + r + v / 100.
"""

from pathlib import Path

import h5py
import numpy as np

TRAINED, TESTED = 14, 5
WIDTH = {1: 9, 2: 7}
ROIS = [0, 1, 1, 2, 3, 4, 5, 6, 7]
BAD = 3


def responses(subject: int, part: int) -> np.ndarray:
    rows = (TRAINED, TESTED)[part]
    return 1000.0 * subject + 100.0 * part + np.arange(rows)[:, None] + np.arange(WIDTH[subject]) / 100


def photographs(part: int) -> np.ndarray:
    """From -1 to 1, upright, with a mark in the upper left corner."""
    rows = (TRAINED, TESTED)[part]
    values = np.random.default_rng(part).uniform(-0.5, 0.5, (rows, 8, 8)).astype(np.float32)
    values[:, 0, 1] = 1.0
    values[0, 7, 0] = -1.0
    return values


def write(folder: Path, stimuli: bool = True) -> Path:
    import scipy.io

    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "EstimatedResponses.mat", "w") as file:
        for subject, width in WIDTH.items():
            for part, name in enumerate(("Trn", "Val")):
                values = responses(subject, part)
                # As in the original, a voxel has no response to some photographs.
                values[2, BAD] = np.nan
                file[f"data{name}S{subject}"] = values
            file[f"roiS{subject}"] = np.asarray(ROIS[:width], dtype=float)[None]
            file[f"voxIdxS{subject}"] = np.arange(1, width + 1, dtype=float)[None]
    if stimuli:
        scipy.io.savemat(
            folder / "Stimuli.mat",
            {"stimTrn": photographs(0), "stimVal": photographs(1), "seqTrn": np.zeros(3), "seqVal": np.zeros(3)},
        )
    return folder
