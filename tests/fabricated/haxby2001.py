"""Small files in the two layouts in which haxby2001 is published: PyMVPA's (OpenfMRI) and nilearn's fetcher."""

from pathlib import Path

import numpy as np

from .nifti import AFFINE, BASELINE, SHAPE, chosen, save

__all__ = ["BASELINE", "SHAPE", "chosen"]

CATEGORIES = ["house", "scrambledpix", "cat", "shoe", "bottle", "scissors", "chair", "face"]
SECONDS, VOLUMES, RUNS = 2.5, 121, 4
# Blocks of nine volumes with rest between them, as published.
ONSETS = [15.0, 52.5, 87.5, 122.5, 157.5, 195.0, 230.0, 265.0]
DURATION = 22.5
LAG = 2


def order(run: int) -> list[str]:
    return np.random.default_rng(run).permutation(CATEGORIES).tolist()


def response(run: int, category: str) -> np.ndarray:
    """(x, y, z) in percent of the baseline."""
    noise = np.random.default_rng(100 + 10 * run + CATEGORIES.index(category)).normal(size=SHAPE)
    return np.random.default_rng(CATEGORIES.index(category)).normal(size=SHAPE) + 0.2 * noise


def bold(run: int) -> np.ndarray:
    """(x, y, z, volumes): what is shown is answered LAG volumes later, as long as it is there."""
    values = np.full((*SHAPE, VOLUMES), BASELINE)
    for onset, category in zip(ONSETS, order(run), strict=True):
        first = int(onset / SECONDS) + LAG
        values[..., first : first + 10] += BASELINE / 100 * response(run, category)[..., None]
    return values


def write_openfmri(root: Path, flavours: tuple[str, ...] = ("25mm",)) -> Path:
    (root / "models" / "model001").mkdir(parents=True)
    (root / "scan_key.txt").write_text("TR 2.5\n")
    keys = [f"task001 cond{number:03d} {name}\n" for number, name in enumerate(CATEGORIES, 1)]
    (root / "models" / "model001" / "condition_key.txt").write_text("".join(keys))
    for run in range(1, RUNS + 1):
        for flavour in flavours:
            save(
                root / "sub001" / "BOLD" / f"task001_run{run:03d}" / f"bold_{flavour}.nii.gz", bold(run), dtype=np.int16
            )
        onsets = root / "sub001" / "model" / "model001" / "onsets" / f"task001_run{run:03d}"
        onsets.mkdir(parents=True)
        for onset, category in zip(ONSETS, order(run), strict=True):
            (onsets / f"cond{CATEGORIES.index(category) + 1:03d}.txt").write_text(f"{onset} {DURATION} 1\n")
    save(root / "sub001" / "masks" / "25mm" / "brain.nii.gz", chosen(), dtype=np.uint8)
    return root


def write_nilearn(root: Path, subject: int = 1) -> Path:
    folder = root / f"subj{subject}"
    lines = ["labels chunks"]
    for run in range(1, RUNS + 1):
        labels = ["rest"] * VOLUMES
        for onset, category in zip(ONSETS, order(run), strict=True):
            first = int(onset / SECONDS)
            labels[first : first + 9] = [category] * 9
        lines += [f"{label} {run - 1}" for label in labels]
    save(folder / "bold.nii.gz", np.concatenate([bold(run) for run in range(1, RUNS + 1)], axis=-1), dtype=np.int16)
    (folder / "labels.txt").write_text("\n".join(lines) + "\n")
    save(root / "mask.nii.gz", chosen(), AFFINE, np.uint8)
    inside = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    save(folder / "mask4_vt.nii.gz", inside < 30, dtype=np.uint8)
    save(folder / "mask8_face_vt.nii.gz", inside < 10, dtype=np.uint8)
    return root
