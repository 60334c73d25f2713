"""Captions of the pictures, which are COCO's."""

import json
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ....errors import FmriModelsError
from ....names import one_line
from ....reading import read_text
from .experiment import MEND, PICTURES, stimulus_id, stimulus_index, table_rows

_MOST_BYTES_OF_CAPTIONS = 2**30
CURATED = "COCO_73k_annots_curated.npy"


def coco_files(source: Path) -> tuple[Path, Path] | None:
    """The table that says which picture of COCO each one is, and the folder of COCO's annotations, where both are."""
    tables = (source / "nsddata" / "experiments" / "nsd", source)
    folders = (source / "nsddata_stimuli" / "stimuli" / "nsd" / "annotations", source / "annotations", source)
    table = next((path for each in tables if (path := each / "nsd_stim_info_merged.csv").is_file()), None)
    folder = next((each for each in folders if any(each.glob("captions_*.json"))), None)
    return None if table is None or folder is None else (table, folder)


def captions_of(source: Path, ids: Collection[str]) -> dict[str, list[str]]:
    """Picture ▶ its captions; empty where no files have them."""
    wanted = {stimulus_index(stimulus) for stimulus in ids}
    coco = coco_files(source)
    if coco is not None:
        found = _captions_of_coco(*coco, wanted)
    elif (source / CURATED).is_file():
        found = _curated_captions(source / CURATED, wanted)
    else:
        found = {}
    return {stimulus_id(index): captions for index, captions in found.items()}


def _captions_of_coco(table: Path, folder: Path, wanted: Collection[int]) -> dict[int, list[str]]:
    of_coco: dict[str, dict[int, int]] = {}
    rows = table_rows(table, ("cocoId",), ",", "cocoSplit")
    if len(rows) != PICTURES:
        raise FmriModelsError(f"{one_line(table)} has {len(rows)} rows; expected {PICTURES}: {MEND}.")
    for place, row in enumerate(rows):
        if place in wanted:
            of_coco.setdefault(row[1], {})[row[0]] = place
    captions: dict[int, list[str]] = {}
    for split, pictures in of_coco.items():
        path = folder / f"captions_{split}.json"
        if os.path.lexists(path):
            for image, caption in _annotations(path):
                if (shown := pictures.get(image)) is not None:
                    captions.setdefault(shown, []).append(_one_line_of_text(caption))
    return captions


def _annotations(path: Path) -> list[tuple[int, str]]:
    """Pictures' ids in COCO, and their captions."""
    # COCO's files of captions are larger than other JSON that is read here.
    text = read_text(path, "captions of COCO", MEND, _MOST_BYTES_OF_CAPTIONS)
    try:
        found = [(each["image_id"], each["caption"]) for each in json.loads(text)["annotations"]]
        if not all(isinstance(image, int) and isinstance(caption, str) for image, caption in found):
            raise TypeError("an annotation is no number and caption")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FmriModelsError(
            f"{one_line(path)} is no file of COCO's captions ({one_line(error, 80)}); {MEND}, or remove it."
        ) from error
    return found


def _curated_captions(path: Path, wanted: Collection[int]) -> dict[int, list[str]]:
    """Of MindEye's array, a row a picture, with empty texts where one has fewer captions than others."""
    try:
        texts = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FmriModelsError(
            f"{one_line(path)} can't be read as an array of texts ({one_line(error, 80)}); get the file again."
        ) from error
    if texts.ndim != 2 or len(texts) != PICTURES or texts.dtype.kind != "U":
        raise FmriModelsError(
            f"{one_line(path)} has the shape {texts.shape} of {texts.dtype}; expected texts of ({PICTURES}, captions)."
        )
    captions = {index: [_one_line_of_text(text) for text in texts[index].tolist()] for index in sorted(wanted)}
    return {index: [text for text in own if text] for index, own in captions.items()}


def _one_line_of_text(text: str) -> str:
    return " ".join(text.split())
