"""haxby2001 (Haxby et al. 2001): six subjects, blocks of eight categories of objects, ventral temporal cortex at 3 T.

Reads either layout in which the data are published:

* OpenfMRI (PyMVPA's test data): `sub001/BOLD/task001_run001/bold.nii.gz`, onsets in
  `sub001/model/model001/onsets/task001_run001/cond001.txt`, names of conditions in `models/model001/condition_key.txt`,
  seconds from volume to volume in `scan_key.txt`. Where a run has several images (`bold_25mm`, `bold_1slice`), `image`
  chooses one; its mask is `sub001/masks/<flavour>/brain.nii.gz`, or computed from the first run (nilearn's EPI mask).
* nilearn's fetcher (`fetch_haxby`): `subj1/bold.nii.gz` of all runs, `subj1/labels.txt` with a row a volume,
  `mask.nii.gz`, and masks of regions (`mask4_vt`, `mask8_face_vt`, `mask8_house_vt`).

A trial is a block of 22.5 s: the mean of its volumes after a lag. A stimulus is a category: what was shown second by
second is not published with these files, so that there are no pictures. All categories are in each run: the default
split and folds leave runs out.

Layouts read in: PyMVPA/PyMVPA, `mvpa2/datasets/sources/openfmri.py`, commit 00861d76, and its test data (runs, headers,
tables and masks); nilearn 0.14.1, `nilearn/datasets/func.py`, `fetch_haxby`.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.data.brain_images.events import Events
from fmri_models.data.brain_images.masks import Mask, read_mask
from fmri_models.data.brain_images.opening import open_image, required_package
from fmri_models.data.brain_images.series import VolumeSeries
from fmri_models.data.brain_images.single_trials import TrialModel, single_trial_betas
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.errors import FmriModelsError
from fmri_models.names import check_name, listed, one_line
from fmri_models.reading import read_text

PAPER = {
    "title": "Distributed and Overlapping Representations of Faces and Objects in Ventral Temporal Cortex",
    "authors": (
        "Haxby, James V.", "Gobbini, M. Ida", "Furey, Maura L.", "Ishai, Alumit", "Schouten, Jennifer L.",
        "Pietrini, Pietro",
    ),
    "year": 2001,
    "url": "https://doi.org/10.1126/science.1063736",
    "venue": "Science",
}  # fmt: skip
ORIGIN = "http://data.pymvpa.org/datasets/haxby2001/"
LICENSE = "CC BY-SA 3.0"
CITATION = (
    "J. V. Haxby, M. I. Gobbini, M. L. Furey, A. Ishai, J. L. Schouten, P. Pietrini (2001): Distributed and "
    "overlapping representations of faces and objects in ventral temporal cortex. Science 293, 2425-2430."
)
VERSION = 1
SECONDS = 2.5
CATEGORIES = ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe")
REST = "rest"
RUNS = 12
# Of the fifth subject, run 9 has no labels.
RUNS_OF_FIFTH = 11
# The regions of nilearn's files, in the order in which they have a voxel that several claim.
_REGIONS = {"mask8_face_vt": "face", "mask8_house_vt": "house", "mask4_vt": "VT"}
_MEND = (
    "give the folder that nilearn's fetch_haxby fills (subj1/bold.nii.gz, subj1/labels.txt), or PyMVPA's in OpenfMRI's "
    "layout (sub001/BOLD/task001_run001/bold.nii.gz)"
)


def read(
    source: Path,
    image: str = "",
    mask: str = "",
    lag: float = 5.0,
    high_pass: float = 0.0,
    percent: bool = True,
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """What the folder holds.

    Args:
        source: The folder.
        image: Which image of a run, where OpenfMRI's folders have several, such as `bold_25mm`.
        mask: A NIfTI mask in place of the data set's own; `{subject}` stands for `subj01` ….
        lag: Seconds from a block to the response that is averaged.
        high_pass: Of the drifts that are taken away, in Hz; 0 for the mean alone.
        percent: Whether values are in percent of a voxel's mean over the run.
        subjects: These alone, such as `subj01`.

    Raises:
        FmriModelsError: The folder has neither layout, or a file is missing or another one.
    """
    model = TrialModel("lag", lag=lag, high_pass=high_pass, percent=percent)
    root = next((each for each in (source, source / "haxby2001") if _is_openfmri(each) or _is_nilearn(each)), None)
    if root is None:
        raise FmriModelsError(f"{one_line(source)} has no files of haxby2001; {_MEND}.")
    find: Callable[..., Iterable[PublishedSubject]] = _of_openfmri if _is_openfmri(root) else _of_nilearn
    found = list(find(root, image, mask, model, subjects))
    return PublishedDataset(
        name="haxby2001",
        description=(
            f"Blocks of {len(CATEGORIES)} categories of objects, one of each in a run. A trial is the mean over a "
            "block of 22.5 s; a stimulus is a category, without a picture."
        ),
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/haxby2001.py",
        script_version=VERSION,
        subjects=found,
        stimuli=_stimuli,
        split_by="run",
        repeats_stimuli=(
            "All eight categories are shown in every run: scores say how well responses generalise over runs."
        ),
        notes=[f"Volumes from {lag:g} s after a block's begin to {lag:g} s after its end are averaged."],
    )


def trials_of(subject: str) -> int:
    """As the data set's description counts them: a block of each category in each run."""
    return len(CATEGORIES) * (RUNS_OF_FIFTH if subject == "subj05" else RUNS)


def _stimuli(shown: Collection[str]) -> Iterator[Mapping[str, Any]]:
    return iter([{"stimulus_id": name, "image": None, "category": name} for name in sorted(shown)])


def _chosen(names: Mapping[str, Path], subjects: list[str] | None) -> dict[str, Path]:
    chosen = {name: path for name, path in names.items() if subjects is None or name in subjects}
    # The shared step says which there are.
    return chosen or dict(names)


def _place(mask: str, subject: str) -> Path | None:
    return Path(mask.replace("{subject}", subject)) if mask else None


# OpenfMRI


def _is_openfmri(root: Path) -> bool:
    return any(root.glob("sub[0-9]*/BOLD/task001_run*"))


def _of_openfmri(
    root: Path, image: str, mask: str, model: TrialModel, subjects: list[str] | None
) -> Iterator[PublishedSubject]:
    folders = {f"subj{int(path.name[3:]):02d}": path for path in sorted(root.glob("sub[0-9][0-9][0-9]"))}
    seconds, conditions = _scan_seconds(root), _conditions(root)
    for name, folder in _chosen(folders, subjects).items():
        runs = sorted((folder / "BOLD").glob("task001_run*"))
        if not runs:
            raise FmriModelsError(f"{one_line(folder)} has no BOLD/task001_run001; {_MEND}.")
        images = {run: _image_of(run, image) for run in runs}
        voxels = _openfmri_mask(folder, next(iter(images.values())), _place(mask, name), list(images.values()))
        recordings = []
        for number, (run, path) in enumerate(images.items(), 1):
            events = _onsets(folder / "model" / "model001" / "onsets" / run.name, conditions)
            VolumeSeries(path, voxels)
            reading = partial(_trials, path, voxels, 0, None, events, seconds, model, f"{name}, {run.name}")
            files = [path, *([voxels.path] if voxels.path != path else [])]
            recordings.append(Recording(run.name, reading, events.shown, runs=number, files=files))
        yield PublishedSubject(name, _known(voxels, None), recordings, expected_trials=trials_of(name))


def _scan_seconds(root: Path) -> float:
    file = root / "scan_key.txt"
    if not os.path.lexists(file):
        return SECONDS
    words = read_text(file, "scan key", _MEND).split()
    try:
        return float(words[words.index("TR") + 1])
    except (ValueError, IndexError) as error:
        raise FmriModelsError(f"{one_line(file)} has no line `TR 2.5`; {_MEND}.") from error


def _conditions(root: Path) -> dict[str, str]:
    """`cond001` ▶ category."""
    file = root / "models" / "model001" / "condition_key.txt"
    rows = [line.split() for line in read_text(file, "condition key", _MEND).splitlines() if line.strip()]
    found = {row[1]: row[2] for row in rows if len(row) >= 3 and row[0] == "task001"}
    if sorted(found.values()) != sorted(CATEGORIES):
        raise FmriModelsError(
            f"{one_line(file)} names the conditions {listed(found.values(), 10)}; expected {', '.join(CATEGORIES)}."
        )
    return found


def _image_of(run: Path, image: str) -> Path:
    files = sorted(path for path in run.glob("*.nii.gz") if not path.name.startswith("."))
    named = {path.name.removesuffix(".nii.gz"): path for path in files}
    if image in named:
        return named[image]
    if image or len(named) != 1:
        what = f"no {one_line(image, 60)}.nii.gz" if image else "no image" if not named else "several images"
        raise FmriModelsError(
            f"{one_line(run)} has {what}; there are {listed(named, 10) or 'none'}: choose one with --option image=NAME."
        )
    return files[0]


def _onsets(folder: Path, conditions: Mapping[str, str]) -> Events:
    blocks_shown = []
    for condition, category in conditions.items():
        file = folder / f"{condition}.txt"
        # A run needn't show all conditions.
        if not os.path.lexists(file):
            continue
        lines = [line for line in read_text(file, "file of onsets", _MEND).splitlines() if line.strip()]
        if not lines:
            raise FmriModelsError(f"{one_line(file)} is empty; expected a line a block, or no such file; {_MEND}.")
        for line in lines:
            try:
                onset, duration, _ = map(float, line.split())
            except ValueError as error:
                raise FmriModelsError(
                    f"{one_line(file)} has the line {one_line(repr(line), 60)}; expected onset, duration, weight."
                ) from error
            blocks_shown.append((onset, duration, category))
    if not blocks_shown:
        raise FmriModelsError(f"{one_line(folder)} has no onsets; {_MEND}.")
    return _events(folder, sorted(blocks_shown))


def _openfmri_mask(folder: Path, path: Path, given: Path | None, images: list[Path]) -> Mask:
    if given is not None:
        return read_mask(given)
    flavour = path.name.removesuffix(".nii.gz").partition("_")[2]
    own = folder / "masks" / (flavour or "orig") / "brain.nii.gz"
    return read_mask(own) if os.path.lexists(own) else _computed_mask(images)


def _computed_mask(images: list[Path]) -> Mask:
    """Nilearn's mask of the mean of a run's volumes; of the first run, so that no other one is looked at."""
    nibabel, masking = required_package("nibabel"), required_package("nilearn.masking")
    first = open_image(images[0])
    mean = np.zeros(first.shape[:3])
    for volume in range(first.shape[3]):
        mean += np.asarray(first.dataobj[..., volume])
    mean /= first.shape[3]
    # Without opening: a single slice would be eroded away.
    found = masking.compute_epi_mask(nibabel.Nifti1Image(mean, first.affine), opening=0, ensure_finite=True)
    return Mask(images[0], np.asarray(first.affine, dtype=np.float64), np.asarray(found.dataobj) > 0)


# nilearn's fetcher


def _is_nilearn(root: Path) -> bool:
    return any(root.glob("subj[1-6]/bold.nii.gz"))


def _of_nilearn(
    root: Path, image: str, mask: str, model: TrialModel, subjects: list[str] | None
) -> Iterator[PublishedSubject]:
    if image:
        raise FmriModelsError("nilearn's files have one image a subject; leave --option image away.")
    folders = {f"subj{int(path.name[4:]):02d}": path for path in sorted(root.glob("subj[1-6]"))}
    for name, folder in _chosen(folders, subjects).items():
        path, labels = folder / "bold.nii.gz", folder / "labels.txt"
        voxels = read_mask(_place(mask, name) or root / "mask.nii.gz")
        series = VolumeSeries(path, voxels)
        rows = _labels(labels)
        if len(rows) != series.count:
            raise FmriModelsError(
                f"{one_line(path)} has {series.count} volumes, and {one_line(labels)} {len(rows)} rows; expected a row "
                "a volume: fetch both again."
            )
        chunks = sorted({chunk for _, chunk in rows})
        recordings = []
        for number, chunk in enumerate(chunks, 1):
            own = [place for place, row in enumerate(rows) if row[1] == chunk]
            if own != list(range(own[0], own[-1] + 1)):
                raise FmriModelsError(
                    f"{one_line(labels)}: the volumes of chunk {chunk} are not together; fetch it again."
                )
            events = _blocks_of_labels(labels, [rows[place][0] for place in own])
            if not events.shown:
                # Run 9 of subject 5 has no labels.
                continue
            reading = partial(_trials, path, voxels, own[0], len(own), events, SECONDS, model, f"{name}, run {number}")
            recordings.append(
                Recording(f"run {number}", reading, events.shown, runs=number, files=[path, labels, voxels.path])
            )
        yield PublishedSubject(
            name, _known(voxels, _regions(folder, voxels)), recordings, expected_trials=trials_of(name)
        )


def _labels(file: Path) -> list[tuple[str, int]]:
    """(label, chunk) of each volume."""
    lines = read_text(file, "table of labels", _MEND).splitlines()
    rows = [line.split() for line in lines if line.strip()]
    if not rows or [word.strip('"') for word in rows[0]] != ["labels", "chunks"]:
        raise FmriModelsError(f"{one_line(file)} does not begin with `labels chunks`; {_MEND}.")
    try:
        found = [(label, int(chunk)) for label, chunk in rows[1:]]
    except ValueError as error:
        raise FmriModelsError(f"{one_line(file)} has a row that is no label and number ({one_line(error)}).") from error
    if unknown := sorted({label for label, _ in found} - {*CATEGORIES, REST}):
        raise FmriModelsError(
            f"{one_line(file)} has the label {one_line(unknown[0], 60)!r}; expected {', '.join(CATEGORIES)}."
        )
    return found


def _blocks_of_labels(file: Path, labels: list[str]) -> Events:
    """Volumes of one label in a row are a block."""
    starts = [place for place, label in enumerate(labels) if place == 0 or labels[place - 1] != label]
    ends = [*starts[1:], len(labels)]
    shown = [
        (start * SECONDS, (end - start) * SECONDS, labels[start])
        for start, end in zip(starts, ends, strict=True)
        if labels[start] != REST
    ]
    return _events(file, shown)


def _regions(folder: Path, mask: Mask) -> list[str] | None:
    regions = np.full(len(mask.positions), "", dtype=object)
    for name, region in _REGIONS.items():
        file = folder / f"{name}.nii.gz"
        if os.path.lexists(file):
            found = read_mask(file)
            mask.check_same_grid(file, found.shape, found.affine)
            regions[found.chosen[mask.chosen] & (regions == "")] = region
    return list(regions) if (regions != "").any() else None


# Both


def _events(path: Path, shown: list[tuple[float, float, str]]) -> Events:
    onsets, durations, names = ([row[place] for row in shown] for place in range(3))
    ids = [check_name(str(name), "category") for name in names]
    return Events(path, "category", ids, [""] * len(ids), onsets, durations, list(range(len(ids))), len(ids))


def _known(mask: Mask, regions: list[str] | None) -> KnownVoxels:
    return KnownVoxels(len(mask.positions), regions, mask.coordinates, "scanner", grid=mask.grid)


def _trials(
    path: Path,
    mask: Mask,
    first: int,
    length: int | None,
    events: Events,
    seconds: float,
    model: TrialModel,
    where: str,
) -> Iterator[np.ndarray]:
    series = VolumeSeries(path, mask, first, length)
    return single_trial_betas(series, events, seconds, 0.0, None, model, where)


prepare = preparation(read)
