"""vim-2 (Nishimoto et al. 2011): three subjects watch two hours of natural films once and nine minutes ten times, 4 T.

Reads `VoxelResponses_subject{1,2,3}.mat` and `Stimuli.mat`, MATLAB's files of version 7.3, whose axes HDF5 shows
reversed: `rt` (voxels, 7200 s), `rv` (voxels, 540 s), the mean of `rva` (voxels, 10, 540), `roi/<name>` (18, 64, 64)
and `st`, `sv` (frames, colours, columns, rows), 15 a second. A trial is a window of the volumes, one a second, from
`lag` seconds after a second of film on; a second of film whose window would reach into the next run of ten minutes is
left out.

Layout read in: gallantlab/voxelwise_tutorials (`tutorials/movies_4T/02_plot_ridge_model.py` at ece4dc1, for `rt`,
`rva`, `roi` and runs of 600 s; `01_extract_motion_energy.py` at 0fd6f19, for films as uint8 or as numbers from 0 to 1),
ecobost/brain2sent at 0dba737 (`data_archive.md`, for regions and voxels without values), and a public notebook that
prints all names and shapes.
"""

import os
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmri_models.data.brain_images.opening import opened_hdf5
from fmri_models.data.published import (
    KnownVoxels,
    PublishedDataset,
    PublishedSubject,
    Recording,
    preparation,
    windowed,
)
from fmri_models.data.windows import Windows
from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line

SUBJECTS = ("1", "2", "3")
SECONDS = {"train": 7200, "test": 540}
RUN_SECONDS = 600
REPEATS = 10
FRAMES = 15
MIDDLE = 7
VOXELS = 73_728
_NAMES = {"train": ("rt", "st"), "test": ("rv", "sv")}
_VOXELS_AT_ONCE = 4096
_TRIALS_AT_ONCE = 64
# The order in which a voxel of several regions has the label of its first one: from early to late.
_ORDER = ("v1", "v2", "v3", "v4", "v3a", "v3b")

PAPER = {
    "title": "Reconstructing visual experiences from brain activity evoked by natural movies",
    "authors": (
        "Nishimoto, Shinji", "Vu, An T.", "Naselaris, Thomas", "Benjamini, Yuval", "Yu, Bin", "Gallant, Jack L.",
    ),
    "year": 2011,
    "url": "https://doi.org/10.1016/j.cub.2011.08.031",
    "venue": "Current Biology",
}  # fmt: skip
ORIGIN = "https://crcns.org/data-sets/vc/vim-2"
LICENSE = "CRCNS terms of use: science alone, not to be passed on"
WHERE = (
    "VoxelResponses_subjectX.tar.gz and Stimuli.tar.gz are at crcns.org/data-sets/vc/vim-2 (a free account); unpack "
    "them side by side"
)


def read(
    source: Path,
    lag: int = 4,
    window: int = 4,
    repeats: Literal["mean", "single"] = "mean",
    clips: Literal["reference", "frames", "none"] = "reference",
    validation_runs: int = 1,
    subjects: list[str] | None = None,
    incomplete: bool = False,
) -> PublishedDataset:
    """vim-2, a second of film and the volumes after it.

    Args:
        source: The folder with the unpacked files.
        lag: Seconds from the beginning of a second of film to the first volume of its window.
        window: Volumes of a window, one a second.
        repeats: Of tested film: the mean of ten showings as published, or each as a trial.
        clips: Whether films are said by file and time (`reference`), have their frames in the table (`frames`), or are
            left out for their middle frame alone (`none`).
        validation_runs: So many of the last training runs are validation, as neighbouring windows overlap.
        subjects: These alone are looked for.
        incomplete: Whether shorter files are enough.
    """
    if lag < 0 or window < 1 or not 0 <= validation_runs < SECONDS["train"] // RUN_SECONDS:
        raise FmriModelsError("lag is 0 or more, window 1 or more, and validation_runs 0 to 11.")
    wanted = [number for number in SUBJECTS if subjects is None or f"subj0{number}" in subjects]
    found = [number for number in wanted if os.path.lexists(_file(source, number))]
    if not found:
        raise FmriModelsError(f"{one_line(source)} has no VoxelResponses_subject1.mat and the like; {WHERE}.")
    if not os.path.lexists(source / "Stimuli.mat"):
        raise FmriModelsError(f"{one_line(source / 'Stimuli.mat')} is missing; {WHERE}.")
    return PublishedDataset(
        name="vim2",
        description=(
            "Windows of volumes after each second of natural films, two hours that were shown once and nine minutes "
            "that are tested."
        ),
        license=LICENSE,
        citation=(
            "S. Nishimoto, A. T. Vu, T. Naselaris, Y. Benjamini, B. Yu, J. L. Gallant (2011): Reconstructing visual "
            "experiences from brain activity evoked by natural movies. Current Biology 21, 1641-1646. vim-2, "
            "crcns.org/data-sets/vc/vim-2, doi 10.6080/K00Z715X."
        ),
        script="dataset_scripts/vim2.py",
        script_version=1,
        subjects=[_subject(source, number, lag, window, repeats, validation_runs, incomplete) for number in found],
        stimuli=lambda ids: _films(source / "Stimuli.mat", ids, clips),
        windows=Windows(seconds_per_sample=1.0, lag_seconds=float(lag), picture=f"its frame {MIDDLE + 1} of {FRAMES}"),
        notes=[
            f"A second of film has no trial where its window would reach past its run of {RUN_SECONDS} s; how the "
            "tested nine minutes were divided into runs is not said in the files, and they are taken for one.",
            "Training runs are standardised by run, as published; single showings of the tested film are not.",
            *([f"The last {validation_runs} training runs are validation."] if validation_runs else []),
        ],
    )


def _file(source: Path, number: str) -> Path:
    return source / f"VoxelResponses_subject{number}.mat"


def _subject(
    source: Path, number: str, lag: int, window: int, repeats: str, validation_runs: int, incomplete: bool
) -> PublishedSubject:
    path = _file(source, number)
    with opened_hdf5(path, WHERE) as file:
        regions = _regions(file, path)
        lengths = {part: _length(file, path, part, incomplete) for part in SECONDS}
        if repeats == "single" and file["rva"].shape != (VOXELS, REPEATS, lengths["test"]):
            raise FmriModelsError(
                f"{one_line(path)} has rva of the shape {file['rva'].shape}; expected ({VOXELS}, {REPEATS}, "
                f"{lengths['test']}); {WHERE}."
            )
    chosen = np.flatnonzero(np.any(list(regions.values()), axis=0))
    names = sorted(regions, key=lambda name: (_ORDER.index(name[:-2]) if name[:-2] in _ORDER else len(_ORDER), name))
    labels = [next(name for name in names if regions[name][voxel]) for voxel in chosen.tolist()]
    both = {name[:-2] for name in names}
    inside = {
        area: np.any([regions[name] for name in names if name[:-2] == area], axis=0)[chosen] for area in sorted(both)
    }

    @cache
    def series(name: str) -> np.ndarray:
        """(voxels, ...) float32 of the chosen voxels; a file is read once."""
        with opened_hdf5(path, WHERE) as opened:
            data = opened[name]
            parts = [
                np.asarray(data[start : start + _VOXELS_AT_ONCE], dtype=np.float32)[
                    chosen[(chosen >= start) & (chosen < start + _VOXELS_AT_ONCE)] - start
                ]
                for start in range(0, VOXELS, _VOXELS_AT_ONCE)
            ]
        return np.concatenate(parts)

    recordings = []
    training = range(0, lengths["train"], RUN_SECONDS)
    for run, start in enumerate(training, 1):
        stop = min(start + RUN_SECONDS, lengths["train"])
        part = "validation" if len(training) - run < min(validation_runs, len(training) - 1) else "train"
        recordings.append(
            _recording(f"run {run}", "train", part, run, start, stop, lag, window, path, _whole(series, "rt"))
        )
    tested = [("test", _whole(series, "rv"))]
    if repeats == "single":
        tested = [(f"test, showing {repeat + 1}", _showing(series, repeat)) for repeat in range(REPEATS)]
    for place, (name, values) in enumerate(tested):
        run = len(training) + 1 + place
        recordings.append(_recording(name, "test", "test", run, 0, lengths["test"], lag, window, path, values))
    lost = lag + window - 1
    expected = SECONDS["train"] // RUN_SECONDS * max(0, RUN_SECONDS - lost)
    expected += len(tested) * max(0, SECONDS["test"] - lost)
    voxels = windowed(KnownVoxels(len(chosen), roi=labels, regions=inside), window)
    return PublishedSubject(f"subj0{number}", voxels, recordings, expected_trials=expected)


def _regions(file: Any, path: Path) -> dict[str, np.ndarray]:
    """Region of a hemisphere, such as `v1lh` \u25b6 (voxels,) whether a voxel is in it."""
    group = file.get("roi")
    if group is None or not len(group):
        raise FmriModelsError(f"{one_line(path)} has no roi/v1lh and the like; {WHERE}.")
    found = {}
    for name in group:
        values = np.asarray(group[name]).reshape(-1)
        if len(values) != VOXELS:
            raise FmriModelsError(
                f"{one_line(path)} has roi/{name} of {len(values)} voxels; expected {VOXELS}; {WHERE}."
            )
        found[str(name)] = values == 1
    return found


def _length(file: Any, path: Path, part: str, incomplete: bool) -> int:
    name = _NAMES[part][0]
    values = file.get(name)
    shape = None if values is None else values.shape
    whole = SECONDS[part]
    if shape is None or len(shape) != 2 or shape[0] != VOXELS or not 0 < shape[1] <= whole:
        raise FmriModelsError(
            f"{one_line(path)} has {name} of the shape {shape}; expected ({VOXELS}, {whole}); {WHERE}."
        )
    if shape[1] < whole and not incomplete:
        raise FmriModelsError(
            f"{one_line(path)} has {name} of {shape[1]} s; expected {whole}; {WHERE}, or write what is there with "
            "--option incomplete=yes."
        )
    return int(shape[1])


def _whole(series: Callable[[str], np.ndarray], name: str) -> Callable[[], np.ndarray]:
    return lambda: series(name)


def _showing(series: Callable[[str], np.ndarray], repeat: int) -> Callable[[], np.ndarray]:
    return lambda: series("rva")[:, repeat]


def _recording(
    name: str,
    film: str,
    part: str,
    run: int,
    start: int,
    stop: int,
    lag: int,
    window: int,
    path: Path,
    values: Callable[[], np.ndarray],
) -> Recording:
    """The seconds of film of a run from `start` to `stop` whose windows lie in it."""
    seconds = np.arange(start, max(start, stop - lag - window + 1))

    def blocks() -> Iterator[np.ndarray]:
        known = values()
        for first in range(0, len(seconds), _TRIALS_AT_ONCE):
            places = seconds[first : first + _TRIALS_AT_ONCE, None] + lag + np.arange(window)
            # (voxels, n, window) to one flat window a trial, volume after volume.
            yield known[:, places].transpose(1, 2, 0).reshape(len(places), -1)

    ids = [f"{film}-{second:04d}" for second in seconds.tolist()]
    return Recording(name, blocks, ids, runs=run, part=part, files=[path])


def _films(path: Path, ids: Collection[str], clips: str) -> Iterator[dict[str, Any]]:
    with opened_hdf5(path, WHERE) as file:
        for part, (_, name) in _NAMES.items():
            seconds = sorted(int(stimulus.rpartition("-")[2]) for stimulus in ids if stimulus.startswith(f"{part}-"))
            frames = file.get(name)
            if frames is None or frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype.kind not in "uf":
                shape = None if frames is None else (frames.shape, str(frames.dtype))
                raise FmriModelsError(
                    f"{one_line(path)} has {name} of {shape}; expected numbers of (frames, 3, 128, 128); {WHERE}."
                )
            if seconds and len(frames) < FRAMES * (seconds[-1] + 1):
                raise FmriModelsError(
                    f"{one_line(path)} has {len(frames)} frames of {name}; expected "
                    f"{FRAMES * (seconds[-1] + 1)}; {WHERE}."
                )
            for second in seconds:
                # MATLAB's rows come last.
                shown = _pixels(np.asarray(frames[FRAMES * second : FRAMES * (second + 1)]), path).transpose(0, 3, 2, 1)
                record: dict[str, Any] = {"stimulus_id": f"{part}-{second:04d}", "image": shown[MIDDLE], "captions": []}
                if clips != "none":
                    about = {"file": f"{path.name}/{name}", "start": float(second), "seconds": 1.0}
                    record["clip"] = {**about, "frames": list(shown)} if clips == "frames" else about
                yield record


def _pixels(values: np.ndarray, path: Path) -> np.ndarray:
    """Pixels as uint8, which a file has so or as numbers from 0 to 1."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1):
        raise FmriModelsError(
            f"{one_line(path)} has pixels of {values.dtype} from {values.min()} to {values.max()}; expected uint8, or "
            f"numbers from 0 to 1; {WHERE}."
        )
    return np.rint(values * 255).astype(np.uint8)


# Of the voxels in regions some have no values.
prepare = preparation(read, {"drop_bad_voxels": True})
