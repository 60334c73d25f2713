"""Small files of Deep Image Reconstruction as published, whose every number says where it belongs.

Beta of voxel v in row r of the file of kind k of subject s: 100,000 s + 10,000 k + 100 r + v.
"""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests.fabricated.god import CORTEX, REGIONS, TESTED, TRAINED, WIDTH, identity, picture

PARTS = {
    "training": "perceptionNaturalImageTraining",
    "natural": "perceptionNaturalImageTest",
    "shapes": "perceptionArtificialImage",
    "letters": "perceptionLetterImage",
    "imagery": "imagery",
}
SHAPES = {1: "colorExpStim01_red_square", 19: "colorExpStim19_yellow_+", 40: "colorExpStim40_black_X"}
LETTERS = {7: "letter_black_img028_R", 10: "letter_black_img031_U"}


def rows(kind: str) -> list[tuple[float, str, int]]:
    """Number in the file, id in the table, and run of each row."""
    if kind == "training":
        return [(identity(name), name, 1 + repeat) for repeat in range(2) for name in TRAINED]
    if kind == "natural":
        return [(identity(name), name, 1 + repeat) for repeat in range(3) for name in TESTED]
    if kind == "imagery":
        return [(label, f"imagined{label:02d}" if label < 26 else "", 1) for label in (26, 1, 25, 3)]
    names = SHAPES if kind == "shapes" else LETTERS
    return [
        (float(number), name.replace("+", "plus"), 1 + repeat) for repeat in range(2) for number, name in names.items()
    ]


def betas(kind: str, subject: int) -> np.ndarray:
    first = 100_000.0 * subject + 10_000.0 * list(PARTS).index(kind)
    return first + 100.0 * np.arange(len(rows(kind)))[:, None] + np.arange(WIDTH)


def write(folder: Path, subjects: tuple[int, ...] = (1,), kinds: tuple[str, ...] = tuple(PARTS)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        for kind in kinds:
            write_bdata(folder / f"sub-{subject:02d}_{PARTS[kind]}_original_VC.h5", kind, subject)
    for names, ending in ((TRAINED + TESTED, "JPEG"), (SHAPES.values(), "tiff"), (LETTERS.values(), "tif")):
        (folder / "images" / ending).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.fromarray(picture(name)).save(folder / "images" / ending / f"{name}.{ending}", format="PNG")
    return folder


def write_bdata(path: Path, kind: str, subject: int) -> None:
    values, trials = betas(kind, subject), rows(kind)
    key = "Label" if kind == "imagery" else "stimulus_id"
    columns = [
        *values.T,
        *(np.asarray(each, dtype=float) for each in zip(*[(run, label) for label, _, run in trials], strict=True)),
    ]
    metadata = {
        name: np.full(len(columns), np.nan)
        for name in ("VoxelData", *REGIONS, "Run", key, "voxel_x", "voxel_y", "voxel_z")
    }
    for name, marks in REGIONS.items():
        metadata[name][:WIDTH] = marks
    metadata["VoxelData"][:WIDTH] = 1
    for axis in "xyz":
        metadata[f"voxel_{axis}"][:WIDTH] = np.arange(WIDTH)
    metadata["Run"][WIDTH] = 1
    metadata[key][WIDTH + 1] = 1
    with h5py.File(path, "w") as file:
        file.create_dataset("/dataset", data=np.stack(columns, axis=1))
        file.create_dataset("/metadata/key", data=[name.encode() for name in metadata])
        file.create_dataset("/metadata/description", data=[b"made up"] * len(metadata))
        file.create_dataset("/metadata/value", data=np.stack(list(metadata.values())))


__all__ = ["CORTEX", "LETTERS", "PARTS", "SHAPES", "TESTED", "TRAINED", "betas", "picture", "rows", "write"]
