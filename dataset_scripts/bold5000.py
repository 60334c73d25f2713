"""BOLD5000 (Chang et al. 2019): four subjects, 5,254 pictures of SUN, COCO and ImageNet, 3 T.

Three forms of the responses are read, each with the lists of what was shown:

- `BOLD5000_GLMsingle_ROI_betas/py/CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_LHEarlyVis.npy` and so on (release
  2, a file a region, trials x voxels), as MinD-Vis takes them. Layout read in github.com/zjc062/mind-vis,
  `code/dataset.py`, commit 08d5386.
- `CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz` (release 2, a file a session), `CSI1_brainmask.nii.gz`,
  `CSI1_imgnames.txt`, and the regions `sub-CSI1_mask-LHEarlyVis.nii.gz` of OpenNeuro ds001499 (`derivatives/spm`).
  Layout read in github.com/BonnerLab/bonner-libraries, `src/bonner/datasets/chang2019_bold5000/_data.py`, commit
  0232cd6, and in the README of github.com/BOLD5000-dataset/BOLD5000, commit cfe0544.
- `ROIs/CSI1/h5/CSI1_ROIs_TR34.h5` and `ROIs/stim_lists/CSI01_stim_lists.txt` (release 1). Layout read in
  github.com/mattgorb/cnn_bold5000, `dataloaders/bold5000_dataset.py`, commit 0a210f8 (which reads `CSI1_ROIs_TR1.h5`).

Lists of what was shown are `Stimuli_Presentation_Lists/CSI1/CSI1_sess01/*.txt`, a file a run, or one list of all
trials; repetitions may begin with `rep_`. Which sessions had ten runs was read in github.com/facebookresearch/neuroai,
`neuralfetch-repo/neuralfetch/studies/chang2019bold5000.py`, commit 3903bac. Pictures lie in
`BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmri_models.data.brain_images.opening import opened_hdf5
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.nifti_volumes import grid_of, masked_volumes, opened_image, places_of, read_mask
from fmri_models.data.published.picture_files import check_pictures, picture_bytes, picture_files
from fmri_models.errors import FmriModelsError
from fmri_models.names import listed, one_line
from fmri_models.reading import read_array, read_text

VERSION = 1
PAPER = {
    "title": "BOLD5000, a public fMRI dataset while viewing 5000 visual images",
    "authors": (
        "Chang, Nadine",
        "Pyles, John A.",
        "Marcus, Austin",
        "Gupta, Abhinav",
        "Tarr, Michael J.",
        "Aminoff, Elissa M.",
    ),
    "year": 2019,
    "url": "https://doi.org/10.1038/s41597-019-0052-3",
    "venue": "Scientific Data",
}
ORIGIN = "https://bold5000-dataset.github.io/website/download.html"
LICENSE = "CC0 1.0 (OpenNeuro ds001499); the pictures are of SUN, COCO and ImageNet, with terms of their own"
CITATION = (
    "N. Chang, J. A. Pyles, A. Marcus, A. Gupta, M. J. Tarr, E. M. Aminoff (2019): BOLD5000, a public fMRI dataset "
    "while viewing 5000 visual images. Scientific Data 6:49. OpenNeuro ds001499; release 2 is figshare 14456124."
)
DESCRIPTION = (
    "BOLD5000: responses to 4,916 pictures of scenes (SUN), COCO and ImageNet, of which 113 were shown several times; "
    "these are the test. CSI4 has nine of the fifteen sessions."
)
FILES = (
    "CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_LHEarlyVis.npy and so on, the same of ses-01.nii.gz and so on, or "
    "CSI1_ROIs_TR34.h5"
)
MEND = "give the files of figshare 14456124 (release 2)"
PICTURES = (
    "get BOLD5000_Stimuli.zip from bold5000-dataset.github.io and put its folder BOLD5000_Stimuli beside the betas"
)

SUBJECTS = ("CSI1", "CSI2", "CSI3", "CSI4")
TRIALS = {"CSI1": 5254, "CSI2": 5254, "CSI3": 5254, "CSI4": 3108}
REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
HEMISPHERES = ("LH", "RH")
BETAS = "GLMbetas-TYPED-FITHRF-GLMDENOISE-RR"
# Some masks of ds001499 have other names than the rest.
OTHER_NAMES = {"LHLOC": "LHLO", "RHLOC": "RHLO", "RHRSC": "RHRRSC"}
TRIALS_OF_A_RUN = 37
NUM_SESSIONS = {"CSI1": 15, "CSI2": 15, "CSI3": 15, "CSI4": 9}
# The others had nine.
SESSIONS_OF_TEN_RUNS = {
    "CSI1": (1, 2, 3, 5, 7, 10, 15),
    "CSI2": (1, 3, 4, 5, 11, 12, 14),
    "CSI3": (1, 3, 5, 6, 7, 11, 15),
    "CSI4": (1, 4, 9),
}
NUM_REPEATED = 113
REPEATED_LIST = "repeated_stimuli_113_list.txt"
ROWS_AT_ONCE = 256
_MARK = "rep_"


@dataclass
class Shown:
    """What a subject was shown.

    Args:
        names: Of all trials, without endings.
        sessions: Of each, or empty where nobody says.
        runs: Of each.
        files: Which lists say so.
    """

    names: list[str]
    sessions: list[int]
    runs: list[int]
    files: list[Path]


def read(
    source: Path,
    form: Literal["", "arrays", "volumes", "first_release"] = "",
    voxels: Literal["regions", "brain"] = "regions",
    images: Path | None = None,
    subjects: list[str] | None = None,
    incomplete: bool = False,
) -> PublishedDataset:
    """What the files hold; pictures and betas are read later.

    Args:
        source: The folder with betas, lists and pictures, at any depth.
        form: Which form is read, where several are there: `arrays` (a `.npy` a region), `volumes` (NIfTI) or
            `first_release` (`CSI1_ROIs_TR34.h5`).
        voxels: Of volumes: those of the ten regions, or all of the brain mask.
        images: The folder with the pictures; looked for in the source if None.
        subjects: These alone are looked for; all whose files are there if None.
        incomplete: Whether sessions and pictures may be missing.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    if not source.is_dir():
        raise FmriModelsError(f"{one_line(source)} is no folder; expected the one that has {FILES}.")
    files = sorted(path for path in source.rglob("*") if path.suffix in (".npy", ".gz", ".nii", ".h5", ".txt"))
    by_name: dict[str, list[Path]] = {}
    for path in files:
        by_name.setdefault(path.name, []).append(path)
    forms: dict[str, Callable[[str], PublishedSubject | None]] = {
        "arrays": lambda name: _of_arrays(name, source, by_name),
        "volumes": lambda name: _of_volumes(name, source, by_name, voxels, incomplete),
        "first_release": lambda name: _of_first_release(name, source, by_name),
    }
    wanted = [name for name in SUBJECTS if subjects is None or name in subjects] or list(SUBJECTS)
    kinds = [each for each in forms if any(_has(each, name, by_name) for name in wanted)]
    if form:
        kinds = [each for each in kinds if each == form]
    if not kinds:
        raise FmriModelsError(f"{one_line(source)} has no betas of BOLD5000; expected {FILES}; {MEND}.")
    if len(kinds) > 1:
        raise FmriModelsError(f"{one_line(source)} has several forms of the betas; name one: --option form={kinds[0]}.")
    found = [each for name in wanted if (each := forms[kinds[0]](name)) is not None]
    shown = {name for each in found for recording in each.recordings for name in recording.stimulus_ids}
    pictures = _pictures(source, images)
    check_pictures(shown, pictures, PICTURES, incomplete)
    notes = [] if pictures.keys() & shown else [f"The table has no pictures: {PICTURES}."]
    if kinds[0] == "volumes":
        notes.append("Where voxels lie is that of the brain mask: the affine in the betas' files is not the subject's.")
    return PublishedDataset(
        name="bold5000",
        description=DESCRIPTION,
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/bold5000.py",
        script_version=VERSION,
        subjects=found,
        stimuli=lambda ids: _records(ids, pictures),
        test_sets={"repeated113": _repeated(source, by_name, found, incomplete)},
        notes=notes,
    )


def _has(form: str, subject: str, by_name: Mapping[str, Sequence[Path]]) -> bool:
    beginnings = {
        "arrays": f"{subject}_{BETAS}_allses_",
        "volumes": f"{subject}_{BETAS}_ses-",
        "first_release": f"{subject}_ROIs_TR34.h5",
    }
    return any(name.startswith(beginnings[form]) for name in by_name)


def _one(name: str, by_name: Mapping[str, Sequence[Path]]) -> Path | None:
    """The one file of a name; None if there is none.

    Raises:
        FmriModelsError: Two folders have one.
    """
    paths = by_name.get(name, [])
    if len(paths) > 1:
        raise FmriModelsError(f"{name} is there twice ({one_line(paths[0])}, {one_line(paths[1])}); leave one of them.")
    return paths[0] if paths else None


def _needed(name: str, by_name: Mapping[str, Sequence[Path]], source: Path, mend: str = MEND) -> Path:
    path = _one(name, by_name)
    if path is None:
        raise FmriModelsError(f"{one_line(source)} has no {name}; {mend}.")
    return path


def _of_arrays(subject: str, source: Path, by_name: Mapping[str, Sequence[Path]]) -> PublishedSubject | None:
    """Regions in the order in which MinD-Vis puts them beside each other."""
    if not _has("arrays", subject, by_name):
        return None
    names = [f"{side}{region}" for region in REGIONS for side in HEMISPHERES]
    paths = [_needed(f"{subject}_{BETAS}_allses_{name}.npy", by_name, source) for name in names]
    arrays = [read_array(path, "betas", MEND, memory_map=True) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.ndim != 2 or len(array) != len(arrays[0]):
            raise FmriModelsError(
                f"{one_line(path)} is of the shape {array.shape}; expected ({len(arrays[0])}, voxels), a row a trial "
                f"as in {paths[0].name}; {MEND}."
            )
    shown = _shown(subject, source, by_name)
    _check_length(subject, shown, len(arrays[0]), paths[0])

    def blocks(rows: slice) -> Iterator[np.ndarray]:
        for start in range(rows.start, rows.stop, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, rows.stop)
            yield np.concatenate([array[start:stop] for array in arrays], axis=1)

    return _subject(subject, _regions_beside(names, [array.shape[1] for array in arrays]), shown, blocks, paths)


def _of_first_release(subject: str, source: Path, by_name: Mapping[str, Sequence[Path]]) -> PublishedSubject | None:
    path = _one(f"{subject}_ROIs_TR34.h5", by_name)
    if path is None:
        return None
    names = [f"{side}{region}" for region in REGIONS for side in HEMISPHERES]
    mend = "give ROIs.zip of figshare 6459449 (release 1)"
    with opened_hdf5(path, mend) as file:
        shapes = {name: tuple(file[name].shape or ()) for name in names if name in file}
    if missing := [name for name in names if len(shapes.get(name, ())) != 2]:
        raise FmriModelsError(f"{one_line(path)} has no matrix {listed(missing)}; {mend}.")
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise FmriModelsError(f"The regions of {one_line(path)} have different numbers of trials; {mend}.")
    shown = _shown(subject, source, by_name)
    _check_length(subject, shown, shapes[names[0]][0], path)

    def blocks(rows: slice) -> Iterator[np.ndarray]:
        with opened_hdf5(path, mend) as file:
            for start in range(rows.start, rows.stop, ROWS_AT_ONCE):
                stop = min(start + ROWS_AT_ONCE, rows.stop)
                yield np.concatenate([file[name][start:stop] for name in names], axis=1)

    return _subject(subject, _regions_beside(names, [shapes[name][1] for name in names]), shown, blocks, [path])


def _subject(
    subject: str,
    voxels: KnownVoxels,
    shown: Shown,
    blocks: Callable[[slice], Iterable[np.ndarray]],
    files: Sequence[Path],
) -> PublishedSubject:
    """With a recording a session."""
    recordings = []
    sessions = np.asarray(shown.sessions)
    for session in dict.fromkeys(shown.sessions):
        rows = np.flatnonzero(sessions == session)
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        recordings.append(
            Recording(
                f"session {session:02d}",
                partial(blocks, part),
                shown.names[part],
                session=session,
                runs=shown.runs[part],
                files=[*files, *shown.files],
            )
        )
    return PublishedSubject(subject, voxels, recordings, expected_trials=TRIALS[subject])


def _regions_beside(names: Sequence[str], widths: Sequence[int]) -> KnownVoxels:
    sides = np.repeat(np.asarray(names), widths)
    return KnownVoxels(
        len(sides),
        roi=[name[2:] for name in sides.tolist()],
        regions={name: sides == name for name in names},
    )


def _of_volumes(
    subject: str,
    source: Path,
    by_name: Mapping[str, Sequence[Path]],
    voxels: str,
    incomplete: bool,
) -> PublishedSubject | None:
    beginning, ending = f"{subject}_{BETAS}_ses-", ".nii.gz"
    numbers = sorted(
        int(name.removeprefix(beginning).removesuffix(ending))
        for name in by_name
        if name.startswith(beginning) and name.endswith(ending)
    )
    if not numbers:
        return None
    # Trials are told by their place in the list, so that a session amid others can't be missing.
    if numbers != list(range(1, len(numbers) + 1)):
        raise FmriModelsError(
            f"{subject} has the sessions {listed(numbers, 15)}; expected all from 1 on without a gap, because the "
            f"list of pictures does not say sessions; {MEND}."
        )
    of_brain = _needed(f"{subject}_brainmask.nii.gz", by_name, source)
    brain, image = read_mask(of_brain, MEND)
    of_regions = _region_files(subject, source, by_name, voxels)
    masks = {
        name: read_mask(path, "give derivatives/spm of OpenNeuro ds001499", image)[0]
        for name, path in of_regions.items()
    }
    chosen = np.any(list(masks.values()), axis=0) if voxels == "regions" else brain
    paths = [_needed(f"{beginning}{number:02d}{ending}", by_name, source) for number in numbers]
    counts = []
    for path in paths:
        shape = opened_image(path, 4, MEND).shape
        if shape[:3] != brain.shape:
            raise FmriModelsError(
                f"The volumes of {one_line(path)} are of the shape {shape[:3]}, and the brain mask is {brain.shape}; "
                f"{MEND}."
            )
        counts.append(shape[3])
    shown = _shown(subject, source, by_name)
    if not incomplete or sum(counts) > len(shown.names):
        _check_length(subject, shown, sum(counts), paths[0])
    labels = np.full(chosen.shape, "", dtype=object)
    for name, mask in masks.items():
        labels[mask & (labels == "")] = name[2:]
    starts = np.cumsum([0, *counts])
    recordings = [
        Recording(
            f"session {number:02d}",
            partial(masked_volumes, path, chosen, MEND),
            shown.names[start : start + count],
            session=number,
            runs=[1 + place // TRIALS_OF_A_RUN for place in range(count)],
            files=[path, of_brain, *of_regions.values(), *shown.files],
        )
        for number, path, start, count in zip(numbers, paths, starts, counts, strict=False)
    ]
    known = KnownVoxels(
        int(chosen.sum()),
        roi=labels[chosen].tolist(),
        coordinates=places_of(chosen, image.affine),
        space="native",
        grid=grid_of(chosen, image.affine),
        regions={name: mask[chosen] for name, mask in masks.items()},
    )
    return PublishedSubject(subject, known, recordings, expected_trials=TRIALS[subject])


def _region_files(subject: str, source: Path, by_name: Mapping[str, Sequence[Path]], voxels: str) -> dict[str, Path]:
    """Region of a hemisphere ▶ its mask; those that there are, where all of the brain is read."""
    found: dict[str, Path] = {}
    for name in (f"{side}{region}" for region in REGIONS for side in HEMISPHERES):
        paths = [_one(f"sub-{subject}_mask-{each}.nii.gz", by_name) for each in (name, OTHER_NAMES.get(name, ""))]
        mask = next((each for each in paths if each is not None), None)
        if mask is not None:
            found[name] = mask
        elif voxels == "regions":
            raise FmriModelsError(
                f"{one_line(source)} has no sub-{subject}_mask-{name}.nii.gz; give derivatives/spm of OpenNeuro "
                "ds001499, or read all of the brain mask with --option voxels=brain."
            )
    return found


def _shown(subject: str, source: Path, by_name: Mapping[str, Sequence[Path]]) -> Shown:
    """What was shown, of the lists of the runs, or of one list of all trials."""
    folders = [path for path in sorted(source.rglob("Stimuli_Presentation_Lists")) if (path / subject).is_dir()]
    sessions = sorted(path for path in (folders[0] / subject).iterdir() if path.is_dir()) if folders else []
    if any(any(session.glob("*.txt")) for session in sessions):
        shown = Shown([], [], [], [])
        for number, session in enumerate(sessions, start=1):
            for run, path in enumerate(sorted(session.glob("*.txt")), start=1):
                names = _listed(path)
                shown.names += names
                shown.sessions += [number] * len(names)
                shown.runs += [run] * len(names)
                shown.files.append(path)
        return shown
    names_of_lists = (f"{subject}_imgnames.txt", f"{subject[:3]}0{subject[3:]}_stim_lists.txt")
    for name in names_of_lists:
        if whole := _one(name, by_name):
            names = _listed(whole)
            return Shown(names, *_sessions_and_runs(subject, len(names)), [whole])
    raise FmriModelsError(
        f"{one_line(source)} doesn't say what {subject} was shown; expected "
        f"BOLD5000_Stimuli/Stimuli_Presentation_Lists/{subject}, or {' or '.join(names_of_lists)}."
    )


def _sessions_and_runs(subject: str, trials: int) -> tuple[list[int], list[int]]:
    """Of the trials of a list that says neither; of a list that isn't whole, all are of one session."""
    if trials != TRIALS[subject]:
        return [1] * trials, [1 + place // TRIALS_OF_A_RUN for place in range(trials)]
    pairs = [
        (session, run)
        for session in range(1, NUM_SESSIONS[subject] + 1)
        for run in range(1, 11 if session in SESSIONS_OF_TEN_RUNS[subject] else 10)
        for _ in range(TRIALS_OF_A_RUN)
    ]
    return [session for session, _ in pairs], [run for _, run in pairs]


def _listed(path: Path) -> list[str]:
    """Names of the pictures in a list, without endings and without the mark of repetitions."""
    lines = [line.strip() for line in read_text(path, "list of pictures", MEND).splitlines()]
    return [Path(line.removeprefix(_MARK)).stem for line in lines if line]


def _check_length(subject: str, shown: Shown, trials: int, path: Path) -> None:
    if len(shown.names) != trials:
        raise FmriModelsError(
            f"{subject} has {trials:,} trials of betas ({one_line(path)}) and lists of {len(shown.names):,} pictures; "
            "give all betas and lists of the subject."
        )


def _repeated(
    source: Path, by_name: Mapping[str, Sequence[Path]], subjects: Sequence[PublishedSubject], incomplete: bool
) -> Collection[str]:
    """The 113 pictures that were to be repeated: of their list, or of what was shown several times."""
    if by_name.get(REPEATED_LIST):
        listing = by_name[REPEATED_LIST][0]
        named = set(_listed(listing))
        if not named or (len(named) != NUM_REPEATED and not incomplete):
            raise FmriModelsError(
                f"{one_line(listing)} names {len(named)} pictures, and not {NUM_REPEATED}; get it again with "
                "BOLD5000_Stimuli.zip of bold5000-dataset.github.io."
            )
        return named
    repeated: set[str] = set()
    for each in subjects:
        counts = Counter(name for recording in each.recordings for name in recording.stimulus_ids)
        repeated |= {name for name, count in counts.items() if count > 1}
    if len(repeated) != NUM_REPEATED:
        raise FmriModelsError(
            f"{len(repeated)} pictures were shown several times to {listed(each.name for each in subjects)}, and not "
            f"{NUM_REPEATED}; give {REPEATED_LIST} of BOLD5000_Stimuli/Scene_Stimuli, which says what is tested."
        )
    return repeated


def _pictures(source: Path, images: Path | None) -> dict[str, Path]:
    if images is not None and not images.is_dir():
        raise FmriModelsError(f"The pictures' folder {one_line(images)} does not exist; {PICTURES}.")
    folders = [images] if images is not None else sorted(source.rglob("Presented_Stimuli"))
    found = picture_files(folders)
    pickled = [path for folder in folders for path in folder.rglob("img_dict.npy")]
    if pickled and not found:
        raise FmriModelsError(
            f"{one_line(pickled[0])} is a pickled dictionary, which may run programs and is not read here; {PICTURES}."
        )
    return found


def _records(shown: Iterable[str], pictures: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    for name in shown:
        path = pictures.get(name)
        yield {
            "stimulus_id": name,
            "image": None if path is None else picture_bytes(path),
            "category": _category(name),
        }


def _category(name: str) -> str | None:
    """The synset of a picture of ImageNet, the kind of a scene; COCO's have many objects."""
    if name.startswith("COCO_"):
        return None
    beginning = name.partition("_")[0]
    if beginning[:1] == "n" and beginning[1:].isdecimal():
        return beginning
    return name.rstrip("0123456789") or None


prepare = preparation(read)
