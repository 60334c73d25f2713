"""The form of MindEye: tars of which a sample has the repetitions of a picture."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .... import progress
from ....errors import FmriModelsError
from ....names import listed, one_line
from ....reading import read_object
from ..dataset import KnownVoxels, PublishedSubject, Recording
from ..webdataset_tars import Sample, array_of, bytes_of, samples_of
from .captions import captions_of
from .experiment import (
    MEND,
    SHARED_982,
    SHARED_1000,
    VOXELS,
    WHERE,
    FormOfNsd,
    natural_order,
    stimulus_id,
    subject_number,
)

_PARTS = {"train": "train", "val": "validation", "test": "test"}


def read_mindeye(source: Path, wanted: Sequence[str], most: int, atlases: Sequence[str], test_set: str) -> FormOfNsd:
    """Single repetitions out of samples of a picture each.

    Args:
        source: The folder with its files.
        wanted: Subjects that are looked for.
        most: The last session that is read.
        atlases: Not read, as there are none.
        test_set: Must not be `shared1000`, of which there are 982 alone.

    Raises:
        FmriModelsError: A file is missing or has other contents than published.
    """
    if test_set == SHARED_1000:
        raise FmriModelsError("MindEye's files have the 982 pictures of 37 sessions; take --option test_set=shared982.")
    folder = source / "webdataset_avg_split" if (source / "webdataset_avg_split").is_dir() else source
    subjects, tars = [], []
    for name in wanted:
        own = {part: _tars(folder / part, part, name) for part in _PARTS}
        if not any(own.values()):
            continue
        _check_totals(folder, name, own)
        paths = [(part, path) for part, found in own.items() for path in found]
        tars += [path for _, path in paths]
        looked_at = progress.bar(paths, f"Looking through the tars of {name}", unit="file", delay=1)
        recordings = [_recording_of_tar(path, part) for part, path in looked_at]
        width = _width(paths[0][1])
        # Which trials of which session a sample has is not told.
        subjects.append(
            PublishedSubject(name, KnownVoxels(width), recordings, expected_voxels=VOXELS[subject_number(name) - 1])
        )
    if not subjects and any(folder.glob("train/subj0?/*.nsdgeneral.npy")):
        raise FmriModelsError(
            f"{one_line(folder)} has samples that were unpacked, as for MindBridge's code; expected the tars "
            f"themselves, such as train/train_subj01_0.tar: put them there, too ({WHERE})."
        )
    return FormOfNsd(
        "as MindEye has standardised them, each repetition a trial",
        subjects,
        stimuli=lambda ids: _pictures_of_tars(source, tars, ids),
        # Which samples are tested, the tars say; the custom has its name all the same.
        test_sets={SHARED_982: _shown(subjects, "test")},
    )


def _shown(subjects: Sequence[PublishedSubject], part: str) -> list[str]:
    recordings = [each for subject in subjects for each in subject.recordings if each.part == part]
    return sorted({stimulus for each in recordings for stimulus in each.stimulus_ids})


def _tars(folder: Path, part: str, name: str) -> list[Path]:
    return sorted(folder.glob(f"{part}_{name}_*.tar"), key=lambda path: natural_order(path.stem.rsplit("_", 1)[1]))


def _check_totals(folder: Path, name: str, tars: Mapping[str, Sequence[Path]]) -> None:
    """Compares the number of samples with what `metadata_subj0X.json` says, where that is there."""
    path = folder / f"metadata_{name}.json"
    if not os.path.lexists(path):
        return
    totals = read_object(path, "table of samples", MEND).get("totals")
    if not isinstance(totals, dict):
        raise FmriModelsError(f"{one_line(path)} has no totals; {MEND}, or remove it.")
    differs = []
    for part, found in tars.items():
        count = sum(1 for each in found for _ in samples_of(each, MEND))
        if part in totals and found and count != totals[part]:
            differs.append(f"{part} has {count} samples, and not {totals[part]}")
    if differs:
        raise FmriModelsError(f"Tars of {name} are missing: {listed(differs)} as {one_line(path)} says; get the rest.")


def _recording_of_tar(path: Path, part: str) -> Recording:
    stimuli: list[str] = []
    for members in samples_of(path, MEND):
        index = int(array_of(path, members, "coco73k.npy").reshape(-1)[0])
        stimuli += [stimulus_id(index)] * _repeats(path, members)
    return Recording(path.stem, read=lambda: _repetitions(path), stimulus_ids=stimuli, part=_PARTS[part], files=[path])


def _repeats(path: Path, members: Sample) -> int:
    """How many of a sample's three repetitions are no copies of another one."""
    return int(array_of(path, members, "num_uniques.npy").reshape(-1)[0])


def _repetitions(path: Path) -> Iterator[np.ndarray]:
    for members in samples_of(path, MEND):
        values = array_of(path, members, "nsdgeneral.npy")
        _, first = np.unique(values, axis=0, return_index=True)
        count = _repeats(path, members)
        if values.ndim != 2 or len(first) != count:
            raise FmriModelsError(
                f"{one_line(path)} has a sample of {len(first)} different repetitions, of which num_uniques.npy says "
                f"that there are {count}; get the file again."
            )
        yield values[np.sort(first)].astype(np.float32)


def _width(path: Path) -> int:
    for members in samples_of(path, MEND):
        return int(array_of(path, members, "nsdgeneral.npy").shape[-1])
    raise FmriModelsError(f"{one_line(path)} has no samples; get the file again.")


def _pictures_of_tars(source: Path, paths: Sequence[Path], ids: Collection[str]) -> Iterator[dict[str, Any]]:
    captions = captions_of(source, ids)
    left = set(ids)
    for path in paths:
        for members in samples_of(path, MEND):
            stimulus = stimulus_id(int(array_of(path, members, "coco73k.npy").reshape(-1)[0]))
            if stimulus not in left:
                continue
            left.discard(stimulus)
            ending = next((each for each in ("jpg", "png") if each in members), None)
            if ending is None:
                raise FmriModelsError(f"{one_line(path)} has a sample without a picture; get the file again.")
            yield {
                "stimulus_id": stimulus,
                "image": bytes_of(path, members, ending),
                "captions": captions.get(stimulus, []),
                "category": None,
            }
