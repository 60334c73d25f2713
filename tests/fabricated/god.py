"""Small files of Generic Object Decoding in both published layouts, whose every number says where it belongs.

Beta of voxel v in row r of the file of subject s: 10,000 s + 100 r + v.
"""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

TRAINED = [f"n{1518878 + category:08d}_{5958 + 10 * number}" for category in range(3) for number in range(4)]
# The second one's id has a zero at the end of its decimals, which a float drops: 1621127.01902.
TESTED = ["n01443537_22563", "n01621127_19020", "n01677366_18182", "n01846331_17038"]
REPEATS, IMAGINED = 3, 2
# Two of the ten are not in the visual cortex, and V1 ends where V2 begins.
REGIONS = {
    "ROI_VC": [1, 1, 1, 1, 1, 1, 0, 1, 1, 0],
    "ROI_LVC": [1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
    "ROI_HVC": [0, 0, 0, 0, 1, 1, 0, 1, 0, 0],
    "ROI_V1": [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    "ROI_V2": [0, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    "ROI_LOC": [0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
}
WIDTH = 10
CORTEX = [0, 1, 2, 3, 4, 5, 7, 8]


def order(subject: int, seed: int = 0) -> np.ndarray:
    """Each subject saw the training pictures in an order of its own."""
    return np.random.default_rng(10 * seed + subject).permutation(len(TRAINED))


def rows(subject: int) -> list[tuple[int, str, int]]:
    """Data type, picture and run of each row."""
    found = [(1, TRAINED[place], 1 + number // 6) for number, place in enumerate(order(subject))]
    found += [(2, name, 1 + repeat) for repeat in range(REPEATS) for name in TESTED]
    return found + [(3, name, 1 + repeat) for repeat in range(IMAGINED) for name in TESTED]


def all_betas(subject: int) -> np.ndarray:
    return 10_000.0 * subject + 100.0 * np.arange(len(rows(subject)))[:, None] + np.arange(WIDTH)


def picture(name: str, size: int = 16) -> np.ndarray:
    return np.random.default_rng(sum(map(ord, name))).integers(0, 256, (size, size, 3), dtype=np.uint8)


def identity(name: str) -> float:
    category, number = name.removeprefix("n").split("_")
    return float(f"{int(category)}.{int(number):06d}")


def write_published(folder: Path, subjects: tuple[int, ...] = (1,), pictures: bool = True) -> Path:
    """`Subject1.h5` and the pictures of the request form."""
    folder.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        write_bdata(folder / f"Subject{subject}.h5", subject)
    if pictures:
        for part, names in (("training", TRAINED), ("test", TESTED)):
            (folder / "images" / part).mkdir(parents=True, exist_ok=True)
            for name in names:
                # Lossless behind a published name, so that values can be compared.
                Image.fromarray(picture(name)).save(folder / "images" / part / f"{name}.JPEG", format="PNG")
    return folder


def write_bdata(path: Path, subject: int, sessions: bool = False) -> None:
    trials = rows(subject)
    betas = all_betas(subject)
    # Imagery is told by its category alone.
    ids = [identity(name) if kind != 3 else float(int(identity(name))) for kind, name, _ in trials]
    labels = {
        "DataType": [kind for kind, _, _ in trials],
        "Run": [run for _, _, run in trials],
        "stimulus_id": ids,
        "category_index": [1] * len(trials),
        "image_index": [1] * len(trials),
    }
    if sessions:
        # Training took two.
        labels["Session"] = [kind if kind > 1 else run for kind, _, run in trials]
    # One label stands before the voxels, as columns are found by their names alone.
    columns = [np.asarray(labels["DataType"], dtype=float), *betas.T]
    columns += [np.asarray(values, dtype=float) for name, values in labels.items() if name != "DataType"]
    width = len(columns)
    voxels = slice(1, 1 + WIDTH)
    metadata: dict[str, np.ndarray] = {}

    def mark(key: str, where: slice | int, values: object) -> None:
        metadata[key] = np.full(width, np.nan)
        metadata[key][where] = values

    mark("VoxelData", voxels, 1)
    for axis, scale in zip("xyz", (3.0, -3.0, 1.5), strict=True):
        mark(f"voxel_{axis}", voxels, scale * np.arange(WIDTH))
    for key, values in REGIONS.items():
        mark(key, voxels, values)
    mark("DataType", 0, 1)
    for number, key in enumerate(name for name in labels if name != "DataType"):
        mark(key, 1 + WIDTH + number, 1)
    with h5py.File(path, "w") as file:
        file.create_dataset("/dataset", data=np.stack(columns, axis=1))
        file.create_group("/metadata")
        file.create_dataset("/metadata/key", data=[key.encode() for key in metadata])
        file.create_dataset("/metadata/description", data=[b"made up"] * len(metadata))
        file.create_dataset("/metadata/value", data=np.stack(list(metadata.values())))


def write_mindvis(folder: Path, subjects: tuple[int, ...] = (1,), labels_of_test: bool = True) -> Path:
    """`Kamitani/npz` as MinD-Vis has it."""
    folder.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        trials = rows(subject)
        betas = all_betas(subject)
        kinds = np.array([kind for kind, _, _ in trials])
        single = betas[kinds == 2]
        arrays = {
            "arr_0": betas[kinds == 1],
            "arr_1": single,
            "arr_2": single.reshape(REPEATS, len(TESTED), WIDTH).mean(axis=0),
            "arr_3": order(subject),
            "arr_5": np.ones(WIDTH),
            "arr_6": np.ones(WIDTH),
            **{key.removeprefix("ROI_"): np.asarray(values, dtype=bool) for key, values in REGIONS.items()},
        }
        if labels_of_test:
            arrays["arr_4"] = np.tile(np.arange(len(TESTED)), REPEATS)
        np.savez(folder / f"sbj_{subject}.npz", **arrays)
    np.savez(
        folder / "images_256.npz",
        train_images=np.stack([picture(name) for name in TRAINED]),
        test_images=np.stack([picture(name) for name in TESTED]),
    )
    index = {"0": ["n01518878", "ostrich"], "1": ["n01443537", "n99999999", "goldfish"]}
    (folder / "imagenet_class_index.json").write_text(json.dumps(index))
    for name, ids in (("training", TRAINED), ("testing", TESTED)):
        with (folder / f"imagenet_{name}_label.csv").open("w", newline="") as file:
            csv.writer(file).writerows([f"{identity(each):.6f}", f"{each}.JPEG"] for each in ids)
    return folder
