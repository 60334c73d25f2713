"""Small files in the layouts of EEG-VOA (torch) and THINGS-EEG2 (NumPy), with values that say what they are."""

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

# EEG-VOA: two subjects, three classes of six pictures; of each class four are learned from, one tells, one is tested.
SUBJECTS, CLASSES, PICTURES, CHANNELS = 2, ["n01", "n02", "n03"], 6, 128
NAMES = [f"{name}_{number}" for name in CLASSES for number in range(PICTURES)]
LENGTHS = (500, 455, 600)


def voa_value(subject: int, image: int, channel: int, sample: int) -> float:
    return 10 * image + subject + 0.01 * channel + 1e-4 * sample


def voa_trial(subject: int, image: int, samples: int) -> torch.Tensor:
    channels, times = np.arange(CHANNELS)[:, None], np.arange(samples)[None]
    return torch.from_numpy(voa_value(subject, image, channels, times)).float()


def write_voa(folder: Path, pictures: bool = True, splits: bool = True) -> Path:
    folder.mkdir(parents=True)
    trials, parts = [], {"train": [], "val": [], "test": []}
    for subject in range(1, SUBJECTS + 1):
        for image in range(len(NAMES)):
            parts["test" if image % PICTURES == 5 else "val" if image % PICTURES == 4 else "train"].append(len(trials))
            eeg = voa_trial(subject, image, LENGTHS[image % len(LENGTHS)])
            trials.append({"eeg": eeg, "image": image, "label": image // PICTURES, "subject": subject})
    # Too short, as the authors leave some out, too.
    trials[0]["eeg"] = trials[0]["eeg"][:, :440]
    torch.save({"dataset": trials, "labels": CLASSES, "images": NAMES}, folder / "eeg_5_95_std.pth")
    if splits:
        torch.save({"splits": [parts]}, folder / "block_splits_by_image_all.pth")
    for name in NAMES if pictures else []:
        place = folder / "imageNet_images" / name.split("_")[0]
        place.mkdir(parents=True, exist_ok=True)
        _picture(name).save(place / f"{name}.JPEG", quality=95)
    return folder


# THINGS-EEG2: one subject, three channels, five samples from 0.2 s before the picture.
TIMES = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
LABELS = ["O1", "Oz", "P3"]
THINGS = {"training": (12, 4), "test": (4, 8)}


def things_value(part: str) -> np.ndarray:
    """(pictures, repetitions, channels, samples)."""
    shape = (*THINGS[part], len(LABELS), len(TIMES))
    weights = [100.0, 10.0, 1.0, 0.1]
    places = np.indices(shape).astype(float)
    return sum(weight * place for weight, place in zip(weights, places, strict=True)) + 5000 * (part == "test")


def things_names(part: str) -> tuple[list[str], list[str]]:
    concepts = [f"{number + (500 if part == 'test' else 1):05d}_kind{number}" for number in range(THINGS[part][0])]
    return concepts, [f"{part}{number}_01b.jpg" for number in range(len(concepts))]


def write_things(folder: Path, pictures: bool = True, pickled: bool = True) -> Path:
    (folder / "sub-01").mkdir(parents=True)
    metadata = {}
    for part, key in (("training", "train"), ("test", "test")):
        values = {"preprocessed_eeg_data": things_value(part), "ch_names": LABELS, "times": TIMES}
        concepts, files = things_names(part)
        metadata |= {f"{key}_img_concepts": concepts, f"{key}_img_files": files}
        _save(folder / "sub-01" / f"preprocessed_eeg_{part}", values, pickled)
        for concept, file in zip(concepts, files, strict=True) if pictures else []:
            place = folder / f"{part}_images" / concept
            place.mkdir(parents=True)
            _picture(file).save(place / file, quality=95)
    _save(folder / "image_metadata", metadata, pickled)
    return folder


def _save(stem: Path, values: dict, pickled: bool) -> None:
    if pickled:
        np.save(f"{stem}.npy", values)
    else:
        np.savez(f"{stem}.npz", **values)


def _picture(name: str) -> Image.Image:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
