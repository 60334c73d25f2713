"""NSD-Imagery and NSD-Synthetic, which the same people took part in: test sets of the release."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import FmriModelsError
from ....names import listed, one_line
from ....reading import read_text
from ... import schema
from ...brain_images.opening import opened_hdf5
from ...matlab import read_mat
from ..dataset import PublishedSubject, Recording
from ..picture_files import picture_bytes, picture_files
from .experiment import (
    BETAS,
    IMAGERY,
    IMAGERY_VISION,
    MEND,
    SESSIONS,
    SPACE,
    SYNTHETIC,
    WHERE,
    FormOfNsd,
    need,
    stimulus_id,
)
from .release_files import Design, blocks_of_trials, bricks, pictures_of_release

# In the order in which they were made, with how many betas a trial has.
IMAGERY_RUNS = {
    "visA": 1, "attA": 2, "imgA_1": 1, "visB": 1, "attB": 2, "imgB_1": 1,
    "visC": 1, "attC": 2, "imgC_1": 1, "imgA_2": 1, "imgB_2": 1, "imgC_2": 1,
}  # fmt: skip
IMAGERY_TRIALS = 48
# Of the sets A and B; the words of set C have no picture of their own.
IMAGERY_PICTURES = {
    "H": "bar_000.0deg_450L_43W", "R": "bar_045.0deg_450L_43W", "V": "bar_090.0deg_450L_43W",
    "L": "bar_135.0deg_450L_43W", "P": "crs_000.0deg_450L_43W", "E": "crs_045.0deg_450L_43W",
    "W": "shared0385_nsd28752", "K": "shared0413_nsd30857", "B": "shared0741_nsd53882",
    "C": "shared0842_nsd61178", "D": "shared0907_nsd65873", "T": "shared0000_nsd00000",
}  # fmt: skip
SYNTHETIC_TRIALS, SYNTHETIC_PICTURES, COLOR_PICTURES = 744, 220, 64
SYNTHETIC_RUN = 93


def tested_elsewhere(source: Path, subjects: Sequence[PublishedSubject], design: Design, test_set: str) -> FormOfNsd:
    """Learned from are pictures of a subject's own, tested is another experiment of the same people."""
    shared = {stimulus_id(index) for index in design.shared}
    test = _synthetic if test_set == SYNTHETIC else partial(_imagery, is_imagined=test_set == IMAGERY)
    people, tested = [], set[str]()
    for each in subjects:
        recordings = test(source, each)
        tested |= {name for recording in recordings for name in recording.stimulus_ids}
        learned = [_of_rows(own, [name not in shared for name in own.stimulus_ids]) for own in each.recordings]
        learned = [replace(own, part=schema.TRAIN) for own in learned]
        people.append(replace(each, recordings=[*learned, *recordings], expected_trials=None))
    stimuli = source / "nsddata_stimuli" / "stimuli"

    def records(ids: Collection[str]) -> Iterator[dict[str, Any]]:
        yield from pictures_of_release(source, stimuli / "nsd" / "nsd_stimuli.hdf5", set(ids) - tested)
        others = set(ids) & tested
        yield from (
            _pictures_of_synthetic(stimuli / "nsdsynthetic", others)
            if test_set == SYNTHETIC
            else (_pictures_of_imagery(source, others))
        )

    what = {
        IMAGERY: "pictures that were imagined (NSD-Imagery, sets A and B)",
        IMAGERY_VISION: "the seen pictures of NSD-Imagery (sets A and B)",
        SYNTHETIC: "NSD-Synthetic",
    }[test_set]
    return FormOfNsd(
        f"{BETAS} of the release in 1.8 mm, percent signal change, without trials of shared pictures; tested on {what}",
        people,
        stimuli=records,
        test_sets={test_set: sorted(tested)},
    )


def _of_rows(recording: Recording, kept: Sequence[bool]) -> Recording:
    """Some trials of a recording."""
    mask = np.asarray(kept, dtype=bool)

    def read() -> Iterator[np.ndarray]:
        start = 0
        for block in recording.read():
            rows = mask[start : start + len(block)]
            start += len(block)
            if rows.any():
                yield block[rows]

    return replace(
        recording,
        read=read,
        stimulus_ids=[name for name, keep in zip(recording.stimulus_ids, kept, strict=True) if keep],
        runs=[run for run, keep in zip(recording.run_numbers, kept, strict=True) if keep],
    )


def _betas_of(source: Path, subject: PublishedSubject, part: str, count: int) -> tuple[Path, Callable[[], Iterable]]:
    """The file with the betas of another experiment, and how they are read."""
    folder = source / "nsddata_betas" / "ppdata" / subject.name / SPACE / f"{part}{BETAS}"
    paths = [folder / f"betas_{part}{ending}" for ending in (".hdf5", ".nii.gz", ".nii")]
    path = next((path for path in paths if path.is_file()), paths[0])
    need(path, f"the betas of {subject.name} in {part}")
    grid = subject.voxels.grid
    assert grid is not None
    return path, partial(blocks_of_trials, path, grid.shape, grid.indices, count)


def _imagery(source: Path, subject: PublishedSubject, is_imagined: bool) -> list[Recording]:
    """The trials of a kind, of all runs in their order."""
    count = IMAGERY_TRIALS * sum(IMAGERY_RUNS.values())
    path, read = _betas_of(source, subject, "nsdimagery", count)
    shown: list[str] = []
    runs: list[int] = []
    files = [path]
    for number, (run, times) in enumerate(IMAGERY_RUNS.items(), 1):
        wanted = run.startswith("img" if is_imagined else "vis") and run[3] != "C"
        names = [""] * IMAGERY_TRIALS
        if wanted:
            table = source / "nsddata" / "bdata" / "nsdimagery" / f"nsdimagery_{subject.name}_{run}.tsv"
            need(table, f"what was shown in the run {run}")
            files.append(table)
            names = _cued(table, number)
        shown += [name for name in names for _ in range(times)]
        runs += [number] * (IMAGERY_TRIALS * times)
    whole = Recording(
        "NSD-Imagery",
        read,
        shown,
        session=max(SESSIONS) + 1,
        runs=runs,
        part=schema.TEST,
        imagery=is_imagined,
        files=files,
    )
    return [_of_rows(whole, [name != "" for name in shown])]


def _cued(path: Path, number: int) -> list[str]:
    """The picture that each trial's cue stands for."""
    rows = list(csv.DictReader(io.StringIO(read_text(path, "table of trials", MEND), newline=""), delimiter="\t"))
    cues = [(row.get("CONDITION") or "").strip() for row in rows]
    unknown = sorted(set(cues) - set(IMAGERY_PICTURES))
    if len(cues) != IMAGERY_TRIALS or unknown:
        raise FmriModelsError(
            f"{one_line(path)} has {len(cues)} trials{f' and the cue {one_line(unknown[0], 20)!r}' if unknown else ''};"
            f" expected {IMAGERY_TRIALS} with cues of {''.join(IMAGERY_PICTURES)} in the column CONDITION: copy it "
            "again."
        )
    said = {(row.get("RUN") or "").strip().removesuffix(".0").lstrip("0") for row in rows} - {""}
    if said != {str(number)}:
        raise FmriModelsError(
            f"{one_line(path)} is of the run {listed(sorted(said)) or '(none)'}, and not of {number}, by which its "
            "betas are found; copy it again."
        )
    return [IMAGERY_PICTURES[cue] for cue in cues]


def _pictures_of_imagery(source: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    folder = source / "nsddata" / "experiments" / "nsdimagery" / "rawtargetimages"
    found = picture_files([folder])
    if missing := sorted(set(ids) - set(found)):
        raise FmriModelsError(f"{one_line(folder)} has no picture {listed(missing)}; {WHERE}.")
    for name in sorted(ids):
        yield {"stimulus_id": name, "image": picture_bytes(found[name]), "captions": [], "category": None}


def _synthetic(source: Path, subject: PublishedSubject) -> list[Recording]:
    path, read = _betas_of(source, subject, "nsdsynthetic", SYNTHETIC_TRIALS)
    design = source / "nsddata" / "experiments" / "nsdsynthetic" / "nsdsynthetic_expdesign.mat"
    need(design, "the design of NSD-Synthetic")
    found = read_mat(design, ["masterordering"], f"copy it again ({WHERE})").get("masterordering")
    order = np.zeros(0, dtype=np.int64) if found is None else np.asarray(found).astype(np.int64).ravel()
    most = SYNTHETIC_PICTURES + COLOR_PICTURES
    if len(order) != SYNTHETIC_TRIALS or order.min() < 1 or order.max() > most:
        raise FmriModelsError(
            f"{one_line(design)} has a masterordering of {len(order)} numbers; expected {SYNTHETIC_TRIALS} of 1 to "
            f"{most}: copy it again."
        )
    shown = [_synthetic_id(number - 1, subject.name) for number in order.tolist()]
    runs = [1 + place // SYNTHETIC_RUN for place in range(SYNTHETIC_TRIALS)]
    return [
        Recording(
            "NSD-Synthetic", read, shown, session=max(SESSIONS) + 2, runs=runs, part=schema.TEST, files=[path, design]
        )
    ]


def _synthetic_id(place: int, subject: str) -> str:
    """Of a picture by its place; the last 64 are each subject's own, in colours as bright for them."""
    own = place - SYNTHETIC_PICTURES
    return f"synthetic{place:03d}" if own < 0 else f"synthetic_color{own:02d}_{subject}"


def _pictures_of_synthetic(folder: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    subjects = sorted({name.rpartition("_")[2] for name in ids if name.startswith("synthetic_color")})
    files = {"nsdsynthetic_stimuli.hdf5": ("", SYNTHETIC_PICTURES)}
    files |= {f"nsdsynthetic_colorstimuli_{name}.hdf5": (name, COLOR_PICTURES) for name in subjects}
    for name, (subject, count) in files.items():
        path = folder / name
        need(path, "pictures of NSD-Synthetic")
        with opened_hdf5(path, MEND) as file:
            pictures = bricks(file, path, (count, 714, 1360, 3))
            for place in range(count):
                stimulus = _synthetic_id(SYNTHETIC_PICTURES + place if subject else place, subject)
                if stimulus in ids:
                    image = np.asarray(pictures[place])
                    yield {"stimulus_id": stimulus, "image": image, "captions": [], "category": None}
