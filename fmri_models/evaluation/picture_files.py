"""The pictures of a report as files: how they are named, written, and known again by the next report."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import FmriModelsError
from ..names import file_name, is_name
from .items_file import ITEMS_FILE, picture_counts
from .scores import Scores


def save_pictures(folder: Path, truth: Tensor, images: Mapping[str, Tensor], scores: Scores) -> None:
    """Writes `truth/<stimulus_id>.png` and `<row>/<stimulus_id>.png` into a new folder.

    With several subjects the pictures of a row lie in a folder for each subject; with several trials or seeds of a
    stimulus the later ones have a number behind the name.

    Raises:
        FmriModelsError: A row has a name that no folder can have.
    """
    stems = _stems(scores.stimulus_ids.tolist())
    names = item_names(scores)
    _, first = np.unique(scores.stimulus_ids, return_index=True)
    for item in first:
        _save(truth[item], folder / "truth" / file_name(stems[scores.stimulus_ids[item]], ".png"))
    for row, pictures in images.items():
        place = folder / file_name(row, "", what="row")
        for name, picture in zip(names, pictures, strict=True):
            _save(picture, place / name)


def item_names(scores: Scores) -> list[str]:
    """Relative file name of each item's picture within a row's folder."""
    subjects, stimuli = scores.subjects.tolist(), scores.stimulus_ids.tolist()
    stems, folders = _stems(stimuli), _stems(subjects)
    taken = {folder: set(stems.values()) for folder in folders.values()}
    names: list[str] = []
    count: Counter[tuple[str, str]] = Counter()
    for subject, stimulus in zip(subjects, stimuli, strict=True):
        folder, stem = folders[subject], stems[stimulus]
        count[folder, stem] += 1
        number = "" if count[folder, stem] == 1 else _free_number(stem, count[folder, stem], taken[folder])
        taken[folder].add(f"{stem}{number}")
        name = file_name(stem, f"{number}.png")
        names.append(f"{file_name(folder, '')}/{name}" if len(folders) > 1 else name)
    return names


def earlier_pictures(folder: Path, written: Collection[str] = ()) -> list[str]:
    """Pictures of the report in a folder, relative to it, as far as they are there and are not written again.

    They are known by its items, so that a picture that somebody else has put beside them stays. Without readable items
    all of them stay.
    """
    try:
        counts = picture_counts(folder / ITEMS_FILE)
    except FmriModelsError:
        return []
    stems = _stems([each for _, subject, stimulus in counts for each in (subject, stimulus)])
    names = set()
    for (row, subject, stimulus), count in counts.items():
        stem = file_name(stems[stimulus], "")
        names.add(f"images/truth/{stem}.png")
        for name in [stem, *(f"{stem}-{number}" for number in range(2, count + 1))] if is_name(row) else []:
            names |= {f"images/{row}/{name}.png", f"images/{row}/{stems[subject]}/{name}.png"}
    return sorted(name for name in names - set(written) if (folder / name).is_file())


def to_pil(picture: Tensor) -> Image.Image:
    """A picture (3 or 1, H, W) float in [0, 1] as PIL image, rounded to 8 bits."""
    # NumPy, because torch's threads cost more than they bring for thousands of small pictures.
    values = torch.as_tensor(picture).detach().cpu().float().numpy()
    levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(levels[0]) if len(levels) == 1 else Image.fromarray(levels.transpose(1, 2, 0))


def _stems(ids: Sequence[str]) -> dict[str, str]:
    """File names of ids, without an ending: the id itself where it is one, as those of tables are.

    Pictures of anybody's have other names, too; theirs are changed so that they are names and differ.
    """
    stems = {each: each for each in ids if is_name(each)}
    taken = set(stems)
    for each in sorted(set(ids) - taken):
        changed = re.sub(r"[^A-Za-z0-9_.-]", "_", each).lstrip(".-")[:100] or "_"
        stems[each] = changed if changed not in taken else f"{changed}{_free_number(changed, 2, taken)}"
        taken.add(stems[each])
    return stems


def _free_number(stem: str, number: int, taken: Collection[str]) -> str:
    """A number to be put behind a name, so that it differs from all others."""
    while f"{stem}-{number}" in taken:
        number += 1
    return f"-{number}"


def _save(picture: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(picture).save(path)
