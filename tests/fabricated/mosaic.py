"""Small files of MOSAIC, whose every beta says where it belongs.

Beta of grayordinate g of trial t of a file (in the order in which they are written): 1,000 t + the
subject's number + g / 100.
"""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image

GRAYORDINATES, CORTEX, LEFT = 91282, 59412, 29696
BAD = 7
# Shown in two data sets under one name; in the first it is tested.
COMMON = "n01443537_22563"


def trials(dataset: str) -> list[tuple[str, str, int]]:
    """Stimulus, phase and repetition of each array."""
    learned = [f"{dataset.lower()} {number:02d}" for number in range(6)]
    tested = [COMMON, "n01621127_19020"] if dataset == "GOD" else ["coco_0001", "coco_0002"]
    found = [(name, "train", 0) for name in learned]
    if dataset == "NOD":
        found.append((COMMON, "train", 0))
    return found + [(name, "test", repetition) for name in tested for repetition in range(2)]


def beta(place: int, file: str = "sub-01_GOD") -> np.ndarray:
    return 1_000.0 * place + int(file[4:6]) + np.arange(GRAYORDINATES) / 100


def picture(name: str) -> np.ndarray:
    return np.random.default_rng(sum(place * ord(each) for place, each in enumerate(name))).integers(
        0, 256, (8, 8, 3), dtype=np.uint8
    )


def write(folder: Path, files: tuple[str, ...] = ("sub-01_GOD", "sub-02_NOD"), pictures: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        dataset = name.partition("_")[2]
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            file.attrs["dataset_name"] = dataset
            group = file.create_group("betas", track_order=True)
            for place, (stimulus, phase, repetition) in enumerate(trials(dataset)):
                values = beta(place, name)
                if place == 0:
                    values[BAD] = np.nan
                key = f"{name}_stimulus-{stimulus}_phase-{phase}_rep-{repetition}"
                array = group.create_dataset(key, data=values, compression="gzip", compression_opts=1)
                array.attrs["phase"], array.attrs["repetition"] = phase, repetition
                array.attrs["presented_stimulus_filename"] = f"{stimulus}.JPEG"
            file.create_group("noiseceilings")
            file["nan_indices_all"] = np.array([BAD])
        for stimulus, _, _ in trials(dataset) if pictures else ():
            path = folder.parent / "pictures" / f"{stimulus}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(stimulus)).save(path)
    return folder


def write_atlas(path: Path) -> Path:
    """Labels of the cortex: V1 at the first ten vertices of the left, V2 at the first ten of the right."""
    import nibabel
    from nibabel.cifti2 import BrainModelAxis, LabelAxis

    left = BrainModelAxis.from_surface(np.arange(LEFT), 32492, name="cortex_left")
    axis = left + BrainModelAxis.from_surface(np.arange(CORTEX - LEFT), 32492, name="cortex_right")
    values = np.zeros((1, CORTEX), dtype=np.float32)
    values[0, :10], values[0, LEFT : LEFT + 10] = 1, 2
    names = {0: ("???", (0, 0, 0, 0)), 1: ("V1", (1, 0, 0, 1)), 2: ("V2", (0, 1, 0, 1))}
    nibabel.save(nibabel.Cifti2Image(values, (LabelAxis(["areas"], names), axis)), path)
    return path
