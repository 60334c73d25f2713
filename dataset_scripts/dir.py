"""DIR, Deep Image Reconstruction (Shen et al. 2019): three subjects, ImageNet pictures, shapes, letters, imagery, 3 T.

`sub-01_perceptionNaturalImageTraining_original_VC.h5` and so on, as published (figshare 7033577): the 1,200 training
pictures of GOD five times, and as tests its 50 test pictures 24 times, 40 coloured shapes 20 times, ten letters 12
times, and 25 imagined pictures 20 times (with a fixation as the 26th, which is left out).

Layout read in github.com/KamitaniLab/bdpy, `bdpy/bdata/bdata.py`, commit d86199f (the file format),
github.com/KamitaniLab/End2EndDeepImageReconstruction, commit 1837ae2 (`end2end_create_lmdb.py`, `end2end_test.py`,
`data/README.md`: names of files, `stimulus_id` as category.picture), and github.com/OpenNeuroDatasets/ds001506, commit
0bd43a5 (README and all tables of events: numbers and names of shapes and letters, how often each was shown). That
`Label` of an imagery file counts 26 blocks of which the last is the fixation was read in somebody's check of the
published files against the paper; which pictures were imagined is not in them.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.data import schema
from fmri_models.data.published import PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.bdata import BData
from fmri_models.data.published.picture_files import check_pictures, picture_bytes, picture_files
from fmri_models.errors import FmriModelsError
from fmri_models.names import did_you_mean, listed, one_line

VERSION = 1
PAPER = {
    "title": "Deep image reconstruction from human brain activity",
    "authors": ("Shen, Guohua", "Horikawa, Tomoyasu", "Majima, Kei", "Kamitani, Yukiyasu"),
    "year": 2019,
    "url": "https://doi.org/10.1371/journal.pcbi.1006633",
    "venue": "PLOS Computational Biology",
}
ORIGIN = "https://doi.org/10.6084/m9.figshare.7033577"
LICENSE = "CC0 1.0 (OpenNeuro ds001506); the natural pictures are ImageNet's and come by a request form"
CITATION = (
    "G. Shen, T. Horikawa, K. Majima, Y. Kamitani (2019): Deep image reconstruction from human brain activity. PLOS "
    "Computational Biology 15(1): e1006633. Files of figshare 7033577."
)
DESCRIPTION = (
    "Deep Image Reconstruction: responses of the visual cortex to 1,200 pictures of 150 ImageNet categories, five "
    "times each; tested on {tests}."
)
PICTURES = (
    "natural ones: ask at https://forms.gle/ujvA34948Xg49jdn9 (n01443537_22563.JPEG); shapes and letters are on "
    "figshare (14876801, 14876735)"
)
FILES = "sub-01_perceptionNaturalImageTraining_original_VC.h5 and so on of figshare 7033577"
MEND = f"give {FILES}"

NATURAL, SHAPES, LETTERS, IMAGERY = "natural", "shapes", "letters", "imagery"
TRAINING = "training"
# Kind ▶ what stands in the file's name, and how many trials there are as the paper counts them.
KINDS = {
    TRAINING: ("perceptionNaturalImageTraining", 1200 * 5),
    NATURAL: ("perceptionNaturalImageTest", 50 * 24),
    SHAPES: ("perceptionArtificialImage", 40 * 20),
    LETTERS: ("perceptionLetterImage", 10 * 12),
    IMAGERY: ("imagery", 25 * 20),
}
TESTS = {
    NATURAL: "50 pictures of 50 other categories, 24 times each",
    SHAPES: "40 coloured shapes, 20 times each",
    LETTERS: "ten letters, 12 times each",
    IMAGERY: "25 imagined pictures, 20 times each",
}
VOXELS = {1: 11726, 2: 11114, 3: 9919}
CORTEX = "VC"
REGIONS = ("V1", "V2", "V3", "V4", "LOC", "FFA", "PPA", "LVC", "HVC", "VC")
_COLORS = ("red", "green", "blue", "yellow", "magenta", "cyan", "white", "black")
_FORMS = ("square", "smallring", "largering", "plus", "X")
_LETTERS = {"A": 11, "C": 13, "E": 15, "I": 19, "N": 24, "O": 25, "R": 28, "S": 29, "T": 30, "U": 31}
_IMAGINED, _FIXATION = 25, 26


def shape_ids() -> list[str]:
    """Of the shapes in the order of their numbers: those of the files, with `plus` for the sign."""
    forms = [(color, form) for color in _COLORS for form in _FORMS]
    return [f"colorExpStim{number:02d}_{color}_{form}" for number, (color, form) in enumerate(forms, 1)]


def letter_ids() -> list[str]:
    """Of the letters, likewise."""
    return [f"letter_black_img{number:03d}_{letter}" for letter, number in _LETTERS.items()]


def imagined_ids() -> list[str]:
    """Of the imagined pictures; the files number them, and say no more."""
    return [f"imagined{number:02d}" for number in range(1, _IMAGINED + 1)]


def read(
    source: Path,
    images: Path | None = None,
    tests: list[str] | None = None,
    cortex: bool = True,
    incomplete: bool = False,
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """What the files hold; pictures and betas are read later.

    Args:
        source: The folder with the files.
        images: The folder with the pictures; looked for in the source if None.
        tests: What is tested: `natural` (alone if None), `shapes`, `letters`, `imagery` (whose stimuli have no
            pictures).
        cortex: Whether only voxels of the visual cortex (`ROI_VC`) are read.
        incomplete: Whether files or pictures may be missing.
        subjects: These alone are looked for, such as `subj01`.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    tests = [NATURAL] if tests is None else tests
    for name in tests:
        if name not in TESTS:
            raise FmriModelsError(
                f"There is no test {one_line(repr(name), 60)} of DIR; there are {', '.join(TESTS)}."
                f"{did_you_mean(name, TESTS)}"
            )
    if not source.is_dir():
        raise FmriModelsError(f"{one_line(source)} is no folder; {MEND}.")
    notes: list[str] = []
    found = [
        _subject(source, number, tests, cortex, incomplete, notes) for number in VOXELS if _is_wanted(number, subjects)
    ]
    people = [each for each in found if each is not None]
    if not people:
        raise FmriModelsError(f"{one_line(source)} has no files of DIR; expected {FILES}.")
    _check_categories(people)
    if images is not None and not images.is_dir():
        raise FmriModelsError(f"The pictures' folder {one_line(images)} does not exist; {PICTURES}.")
    files = {_id_of_file(name): path for name, path in picture_files([images or source]).items()}
    shown = {name for each in people for recording in each.recordings for name in recording.stimulus_ids}
    with_pictures = {name for name in shown if not name.startswith("imagined")}
    check_pictures(with_pictures, files, PICTURES, incomplete)
    if not files.keys() & shown:
        notes.append(f"The table has no pictures; {PICTURES}.")
    if IMAGERY in tests:
        notes.append("Which pictures were imagined is not in the files, so that imagined stimuli have no picture.")
    return PublishedDataset(
        name="dir",
        description=DESCRIPTION.format(tests="; ".join(TESTS[name] for name in tests)),
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/dir.py",
        script_version=VERSION,
        subjects=people,
        stimuli=partial(_stimuli, files),
        notes=list(dict.fromkeys(notes)),
    )


def _is_wanted(number: int, subjects: Sequence[str] | None) -> bool:
    return subjects is None or f"subj{number:02d}" in subjects


def _subject(
    source: Path, number: int, tests: Sequence[str], cortex: bool, incomplete: bool, notes: list[str]
) -> PublishedSubject | None:
    paths = {kind: source / f"sub-{number:02d}_{part}_original_VC.h5" for kind, (part, _) in KINDS.items()}
    wanted = [kind for kind in KINDS if kind == TRAINING or kind in tests]
    there = [kind for kind in wanted if paths[kind].is_file()]
    if not there:
        return None
    missing = [paths[kind].name for kind in wanted if kind not in there]
    if missing and not incomplete:
        raise FmriModelsError(
            f"{one_line(source)} has {paths[there[0]].name} and not {listed(missing)}; get the rest, name other tests "
            "with --option tests=NAME, or write what is there with --option incomplete=yes."
        )
    opened = {kind: BData(paths[kind], MEND) for kind in there}
    columns = {kind: _columns(data, cortex) for kind, data in opened.items()}
    first = there[0]
    known = opened[first].voxels(columns[first], REGIONS)
    recordings: list[Recording] = []
    sessions = runs = 0
    for kind, data in opened.items():
        own = data.voxels(columns[kind], REGIONS)
        if own.count != known.count or own.roi != known.roi or not _same(own.coordinates, known.coordinates):
            raise FmriModelsError(
                f"{data.path.name} and {opened[first].path.name} have other voxels ({own.count:,} and {known.count:,}, "
                f"by region and place); {MEND}."
            )
        made = _recordings(kind, data, columns[kind], sessions, runs, notes)
        recordings += made
        sessions = max(each.session for each in made)
        runs = max(number for each in made for number in each.run_numbers)
    return PublishedSubject(
        f"subj{number:02d}",
        known,
        recordings,
        expected_trials=sum(KINDS[kind][1] for kind in wanted),
        expected_voxels=VOXELS[number] if cortex else None,
    )


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return (one is None) == (other is None) and (one is None or other is None or bool(np.array_equal(one, other)))


def _columns(data: BData, cortex: bool) -> np.ndarray:
    kept = data.marked("VoxelData")
    if cortex:
        kept &= data.marked(f"ROI_{CORTEX}")
    columns = np.flatnonzero(kept)
    if not len(columns):
        raise FmriModelsError(f"{one_line(data.path)} has no voxels of the visual cortex; {MEND}.")
    return columns


def _recordings(
    kind: str, data: BData, columns: np.ndarray, sessions: int, runs: int, notes: list[str]
) -> list[Recording]:
    """A recording a session, sessions and runs counted on from those of other files."""
    ids = _ids(kind, data)
    own_runs = data.whole_numbers("Run") if "Run" in data.keys else np.ones(len(ids), dtype=np.int64)
    if "Session" in data.keys:
        own_sessions = data.whole_numbers("Session")
    else:
        own_sessions = np.ones(len(ids), dtype=np.int64)
        notes.append("The files do not say sessions: each of them is counted as one.")
    places = {session: place for place, session in enumerate(sorted(set(own_sessions.tolist())), 1)}
    return [
        Recording(
            f"{kind}, session {session}",
            partial(data.blocks, columns, rows),
            ids[rows].tolist(),
            session=sessions + place,
            runs=(runs + own_runs[rows] - own_runs.min() + 1).tolist(),
            part=schema.TRAIN if kind == TRAINING else schema.TEST,
            imagery=kind == IMAGERY,
            files=[data.path],
        )
        for session, place in places.items()
        for rows in [(own_sessions == session) & (ids != "")]
    ]


def _ids(kind: str, data: BData) -> np.ndarray:
    """(rows,) what was shown; empty for a fixation."""
    if kind in (TRAINING, NATURAL):
        synsets, pictures = data.synsets_and_pictures("stimulus_id")
        return np.array(
            [f"n{synset:08d}_{picture}" for synset, picture in zip(synsets.tolist(), pictures.tolist(), strict=True)],
            dtype=object,
        )
    names = {SHAPES: shape_ids, LETTERS: letter_ids, IMAGERY: imagined_ids}[kind]()
    key = next((name for name in ("stimulus_id", "image_index", "Label") if name in data.keys), "Label")
    if kind == IMAGERY:
        key = "Label"
        # The last block of a run asks for no imagery.
        names = [*names, ""]
    numbers = data.whole_numbers(key)
    if numbers.min() < 1 or numbers.max() > len(names):
        raise FmriModelsError(
            f"{key} of {one_line(data.path)} has {numbers.min()} to {numbers.max()}; expected 1 to {len(names)}; "
            f"{MEND}."
        )
    return np.array(names, dtype=object)[numbers - 1]


def _id_of_file(name: str) -> str:
    """Of a picture's file, whose number may have leading zeros, and whose sign no id can have."""
    category, _, number = name.partition("_")
    if category[:1] == "n" and category[1:].isdecimal() and number.isdecimal():
        return f"n{int(category[1:]):08d}_{int(number)}"
    return name.replace("+", "plus")


def _category(name: str) -> str:
    if name.startswith("colorExpStim"):
        return " ".join(name.split("_")[1:])
    return name.rpartition("_")[2] if name.startswith("letter") else name.partition("_")[0]


def _stimuli(files: dict[str, Path], shown: Collection[str]) -> Iterator[dict[str, Any]]:
    for name in sorted(shown):
        image = picture_bytes(files[name]) if name in files else None
        yield {
            "stimulus_id": name,
            "image": image,
            "category": "imagined" if image is None and name.startswith("imag") else _category(name),
        }


def _check_categories(subjects: Collection[PublishedSubject]) -> None:
    """No category that is tested is learned from, as in GOD."""
    categories: dict[str | None, set[str]] = {schema.TRAIN: set(), schema.TEST: set()}
    for recording in (recording for each in subjects for recording in each.recordings):
        categories[recording.part] |= {name.partition("_")[0] for name in recording.stimulus_ids}
    if shared := sorted(categories[schema.TRAIN] & categories[schema.TEST]):
        raise FmriModelsError(
            f"{len(shared)} tested categories are learned from, too ({listed(shared)}); those of DIR are new in the "
            f"test, so that these are other files; {MEND}."
        )


prepare = preparation(read)
