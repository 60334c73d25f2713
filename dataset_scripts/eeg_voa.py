"""EEG-VOA (Spampinato et al. 2017, Palazzo et al. 2020): EEG of six subjects, 40 ImageNet classes of 50 pictures.

Reads `eeg_5_95_std.pth` (or `eeg_14_70_std.pth`, `eeg_55_95_std.pth`): a dictionary with `dataset`, a list of
dictionaries with `eeg` (128 channels, samples at 1 kHz), `image`, `label` and `subject`, and the lists `labels` and
`images`; parts from `block_splits_by_image_all.pth` (`splits`, a list of `train`, `val`, `test` with numbers of
trials), pictures from `<class>/<picture>.JPEG`. As its authors do, a trial is samples 20 to 460, and trials of fewer
than 450 or more than 600 samples are left out.

All pictures of a class were shown one after the other, in a block: class and time of recording are confounded, which
the table's card and every report of it say.

Layout read in: perceivelab/eeg_visual_classification at 9108fb4 (`eeg_signal_classification.py`, README) and
bbaaii/DreamDiffusion at 7188ea3 (`code/dataset.py`, for names of pictures).
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fmri_models.data.published import (
    KnownVoxels,
    PublishedDataset,
    PublishedSubject,
    Recording,
    preparation,
    windowed,
)
from fmri_models.data.published.picture_files import picture_bytes
from fmri_models.data.published.torch_files import torch_mapping
from fmri_models.data.windows import OF_CHANNELS, Windows
from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line

CHANNELS, CLASSES = 128, 40
FIRST, LAST = 20, 460
FEWEST, MOST = 450, 600
# Published; trials of other lengths are left out, so that a subject has fewer of them.
PICTURES, FEWEST_PICTURES = 2000, 1500
TRIALS = 11_964
SECONDS_PER_SAMPLE = 0.001
_PARTS = {"train": "train", "val": "validation", "test": "test"}
_TRIALS_AT_ONCE = 64
CAUTION = (
    "EEG-VOA has a block design: all 50 pictures of a class were shown one after the other, so that the class and the "
    "time of recording are confounded, and tested pictures come from the blocks of training pictures. A decoder of the "
    "time alone decodes the class (Li et al., 2021, doi 10.1109/TPAMI.2020.2973153); scores on these data are no "
    "evidence that what was seen can be read."
)

PAPER = {
    "title": "Decoding brain representations by multimodal learning of neural activity and visual features",
    "authors": (
        "Palazzo, Simone", "Spampinato, Concetto", "Kavasidis, Isaak", "Giordano, Daniela", "Schmidt, Joseph",
        "Shah, Mubarak",
    ),
    "year": 2021,
    "url": "https://doi.org/10.1109/TPAMI.2020.2995909",
    "venue": "IEEE Transactions on Pattern Analysis and Machine Intelligence",
}  # fmt: skip
ORIGIN = "https://github.com/perceivelab/eeg_visual_classification"
LICENSE = "none stated where the files are published; academic. Pictures by ImageNet's terms"
WHERE = (
    "the README of github.com/perceivelab/eeg_visual_classification links eeg_5_95_std.pth, its other bands and "
    "block_splits_by_image_all.pth"
)


def read(
    source: Path,
    band: Literal["5_95", "14_70", "55_95"] = "5_95",
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """EEG-VOA, of which class and time of recording are confounded.

    Args:
        source: The folder with the files, and with pictures in `imageNet_images/<class>` or `<class>`.
        band: Which of the filtered recordings, in Hz.
        subjects: These alone are read.
    """
    path = source / f"eeg_{band}_std.pth"
    if not os.path.lexists(path):
        raise FmriModelsError(f"{one_line(path)} is missing; {WHERE}.")
    found = torch_mapping(path, ("dataset", "labels", "images"), WHERE)
    trials = _trials(found, path)
    part_of, splits = _parts(source / "block_splits_by_image_all.pth", len(trials))
    names = [str(name) for name in found["images"]]
    classes = [str(name) for name in found["labels"]]
    kept = [
        place
        for place, trial in enumerate(trials)
        if FEWEST <= trial["eeg"].shape[1] <= MOST and (not splits or place in part_of)
    ]
    people = sorted({trials[place]["subject"] for place in kept})
    wanted = [number for number in people if subjects is None or f"subj{number:02d}" in subjects]
    label_of = {names[trials[place]["image"]]: classes[trials[place]["label"]] for place in kept}
    left_out = len(trials) - len(kept)
    return PublishedDataset(
        name="eeg_voa",
        description=(
            f"EEG of subjects who looked at pictures of {CLASSES} ImageNet classes for half a second each, class after "
            f"class; filtered to {band.replace('_', ' to ')} Hz by its authors."
        ),
        license=LICENSE,
        citation=(
            "C. Spampinato, S. Palazzo, I. Kavasidis, D. Giordano, N. Souly, M. Shah (2017): Deep learning human mind "
            "for automated visual classification. CVPR; S. Palazzo et al. (2021). github.com/perceivelab/"
            "eeg_visual_classification."
        ),
        script="dataset_scripts/eeg_voa.py",
        script_version=1,
        subjects=[
            _subject(
                path, number, [place for place in kept if trials[place]["subject"] == number], trials, names, part_of
            )
            for number in wanted
        ],
        stimuli=lambda ids: _pictures(source, ids, label_of),
        modality="eeg",
        windows=Windows(OF_CHANNELS, SECONDS_PER_SAMPLE, FIRST * SECONDS_PER_SAMPLE),
        cautions=[CAUTION],
        notes=[
            f"{left_out} trials of fewer than {FEWEST} or more than {MOST} samples, or of no part, are left out.",
            "A run is the block of a class.",
        ],
    )


def _trials(found: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    trials, images, labels = found["dataset"], found["images"], found["labels"]
    if not all(isinstance(each, list | tuple) for each in (trials, images, labels)) or not trials:
        raise FmriModelsError(f"{one_line(path)} has no lists of trials, pictures and classes; {WHERE}.")
    checked = []
    for place, trial in enumerate(trials):
        eeg = trial.get("eeg") if isinstance(trial, Mapping) else None
        if not isinstance(eeg, torch.Tensor) or eeg.ndim != 2 or eeg.shape[0] != CHANNELS:
            shape = tuple(eeg.shape) if isinstance(eeg, torch.Tensor) else type(trial).__name__
            raise FmriModelsError(
                f"Trial {place} of {one_line(path)} is {shape}; expected `eeg` of ({CHANNELS}, samples); {WHERE}."
            )
        numbers = {key: _number(trial.get(key)) for key in ("image", "label", "subject")}
        limits = {"image": range(len(images)), "label": range(len(labels)), "subject": range(1, 100)}
        if any(numbers[key] not in limits[key] for key in numbers):
            raise FmriModelsError(
                f"Trial {place} of {one_line(path)} names the picture, class and subject {list(numbers.values())}; "
                f"expected numbers of its {len(images)} pictures and {len(labels)} classes; {WHERE}."
            )
        checked.append({"eeg": eeg, **numbers})
    return checked


def _number(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return int(value) if isinstance(value, int | float) and value == int(value) else None


def _parts(path: Path, count: int) -> tuple[dict[int, str], bool]:
    """Number of a trial \u25b6 its part, as published; nothing where the file is not there."""
    if not os.path.lexists(path):
        return {}, False
    splits = torch_mapping(path, ("splits",), WHERE)["splits"]
    first = splits[0] if isinstance(splits, list | tuple) and splits else {}
    part_of: dict[int, str] = {}
    for key, part in _PARTS.items():
        numbers = first.get(key) if isinstance(first, Mapping) else None
        numbers = numbers.tolist() if isinstance(numbers, torch.Tensor) else numbers
        if not isinstance(numbers, list | tuple):
            raise FmriModelsError(f"{one_line(path)} has no {key} in its first split; {WHERE}.")
        for number in map(_number, numbers):
            if number is None or not 0 <= number < count or number in part_of:
                raise FmriModelsError(
                    f"{one_line(path)} has the trial {number} in {key}; expected each of {count} once at most: are the "
                    f"splits those of all subjects?; {WHERE}."
                )
            part_of[number] = part
    return part_of, True


def _subject(
    path: Path,
    number: int,
    places: Sequence[int],
    trials: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    part_of: Mapping[int, str],
) -> PublishedSubject:
    recordings = []
    for part in dict.fromkeys(part_of.get(place) for place in places):
        own = [place for place in places if part_of.get(place) == part]
        recordings.append(
            Recording(
                part or "all trials",
                read=lambda own=own: _blocks(trials, own),
                stimulus_ids=[names[trials[place]["image"]] for place in own],
                runs=[trials[place]["label"] + 1 for place in own],
                part=part,
                files=[path],
            )
        )
    name, seen = f"subj{number:02d}", len({trials[place]["image"] for place in places})
    return PublishedSubject(
        name,
        windowed(KnownVoxels(CHANNELS), LAST - FIRST, OF_CHANNELS),
        recordings,
        differs=[f"{name} has {seen:,} pictures, and not {FEWEST_PICTURES:,} to {PICTURES:,}"]
        if seen < FEWEST_PICTURES
        else [],
    )


def _blocks(trials: Sequence[Mapping[str, Any]], places: Sequence[int]) -> Iterator[np.ndarray]:
    """(n, channels x samples) of some trials; shorter ones than the window end with their last sample."""
    for start in range(0, len(places), _TRIALS_AT_ONCE):
        block = np.zeros((len(places[start : start + _TRIALS_AT_ONCE]), CHANNELS, LAST - FIRST), dtype=np.float32)
        for row, place in zip(block, places[start : start + _TRIALS_AT_ONCE], strict=True):
            values = trials[place]["eeg"].float().numpy()[:, FIRST:LAST]
            row[:, : values.shape[1]] = values
            row[:, values.shape[1] :] = values[:, -1:]
        yield block.reshape(len(block), -1)


def _pictures(source: Path, ids: Collection[str], label_of: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    folders = [source / "imageNet_images", source]
    for stimulus in sorted(ids):
        file = Path(stimulus.split("_")[0]) / f"{stimulus}.JPEG"
        path = next((folder / file for folder in folders if (folder / file).is_file()), None)
        picture = None if path is None else picture_bytes(path)
        yield {"stimulus_id": stimulus, "image": picture, "captions": [], "category": label_of[stimulus]}


prepare = preparation(read)
