"""GOD, Generic Object Decoding (Horikawa and Kamitani 2017): five subjects, ImageNet pictures seen and imagined, 3 T.

Two forms of the same responses are read; neither has pictures that everybody may have.

`Subject1.h5` to `Subject5.h5`, as published (figshare 7387130), with all trials: 1,200 of training, 1,750 of the test
(50 pictures, 35 times each) and 500 of imagery. Layout read in github.com/KamitaniLab/bdpy, `bdpy/bdata/bdata.py`,
commit d86199f (the file format), and github.com/KamitaniLab/GenericObjectDecoding, commit b0cecdc,
`code/python/analysis_FeaturePrediction.py` and `data/` (columns, `DataType` 1 to 3, `stimulus_id` as category.picture).

`sbj_1.npz` to `sbj_5.npz` with `images_256.npz`, `imagenet_class_index.json`, `imagenet_training_label.csv` and
`imagenet_testing_label.csv`, as MinD-Vis takes them (without imagery). Layout read in github.com/zjc062/mind-vis,
`code/dataset.py`, commit 08d5386, and github.com/WeizmannVision/SelfSuperReconst,
`self_super_reconst/utils/datasets.py`, commit e27dfa5 (`arr_4` tells what the 1,750 test trials showed).
"""

import csv
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.data import schema
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.bdata import BData, first_region
from fmri_models.data.published.npz_arrays import NpzArrays
from fmri_models.data.published.picture_files import check_pictures, picture_bytes, picture_files
from fmri_models.errors import FmriModelsError
from fmri_models.names import listed, one_line
from fmri_models.reading import read_object, read_text

VERSION = 1
PAPER = {
    "title": "Generic decoding of seen and imagined objects using hierarchical visual features",
    "authors": ("Horikawa, Tomoyasu", "Kamitani, Yukiyasu"),
    "year": 2017,
    "url": "https://doi.org/10.1038/ncomms15037",
    "venue": "Nature Communications",
}
ORIGIN = "https://github.com/KamitaniLab/GenericObjectDecoding"
LICENSE = "CC0 1.0 (OpenNeuro ds001246); the pictures are ImageNet's and come by a request form"
CITATION = (
    "T. Horikawa, Y. Kamitani (2017): Generic decoding of seen and imagined objects using hierarchical visual "
    "features. Nature Communications 8:15037. Files of figshare 7387130, or as MinD-Vis (Chen et al. 2023) has them."
)
DESCRIPTION = (
    "Generic Object Decoding: responses of the visual cortex to 1,200 pictures of 150 ImageNet categories, each once, "
    "and to 50 pictures of 50 other categories, 35 times each; no category is both learned from and tested."
)
PICTURES = "ask for them at https://forms.gle/ujvA34948Xg49jdn9 and put n01443537_22563.JPEG and so on into the folder"
FILES = "Subject1.h5 to Subject5.h5 of figshare 7387130, or sbj_1.npz to sbj_5.npz as MinD-Vis has them"
MEND = f"give {FILES}"

# Trials of each kind, and voxels of the visual cortex, as the papers count them.
TRIALS = {1: 1200, 2: 1750, 3: 500}
VOXELS = {1: 4466, 2: 4404, 3: 4643, 4: 4133, 5: 4370}
NUM_TEST_PICTURES = 50
KINDS = {1: "training", 2: "test", 3: "imagery"}
# Of the regions that contain each other, a voxel is labelled by the first that it is in.
REGIONS = ("V1", "V2", "V3", "V4", "LOC", "FFA", "PPA", "LVC", "HVC", "VC")
CORTEX = "VC"
# Of the .npz form, what is no mask of a region.
_ARRAYS = [f"arr_{number}" for number in range(7)]


@dataclass
class Pictures:
    """What is known of the stimuli.

    Args:
        images: Id ▶ what gives the picture; ids without one are left out.
        categories: Id ▶ category.
        rows: Goes through pictures that lie in one file in their order, instead of `images`.
    """

    images: Mapping[str, Callable[[], Any]]
    categories: Mapping[str, str]
    rows: Callable[[Collection[str]], Iterator[tuple[str, Any]]] | None = None

    def records(self, shown: Collection[str]) -> Iterator[dict[str, Any]]:
        """What `TrialTableWriter.add_stimuli` takes."""
        left = set(shown)
        for name, picture in self.rows(shown) if self.rows else ():
            left.discard(name)
            yield {"stimulus_id": name, "image": picture, "category": self.categories[name]}
        for name in sorted(left):
            read = self.images.get(name)
            yield {
                "stimulus_id": name,
                "image": None if read is None else read(),
                "category": self.categories.get(name, name.partition("_")[0]),
            }


def read(
    source: Path,
    images: Path | None = None,
    imagery: bool = True,
    cortex: bool = True,
    incomplete: bool = False,
) -> PublishedDataset:
    """What the files hold; pictures and betas are read later.

    Args:
        source: The folder with the files of either form, or one of them.
        images: The folder with the pictures (`n01443537_22563.JPEG` ...); looked for in the source if None. Pictures of
            the form of MinD-Vis lie in its `images_256.npz`.
        imagery: Whether imagery trials are read, as test trials with the mark `imagery`.
        cortex: Whether only voxels of the visual cortex (`ROI_VC`) are read, as the paper has it.
        incomplete: Whether pictures may be missing.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    published = _files(source, "Subject", ".h5")
    of_mindvis = _files(source, "sbj_", ".npz")
    if published and of_mindvis:
        raise FmriModelsError(f"{one_line(source)} has both Subject*.h5 and sbj_*.npz; give the folder of one form.")
    if not published and not of_mindvis:
        raise FmriModelsError(f"{one_line(source)} has no files of GOD; expected {FILES}.")
    if published:
        subjects, pictures, notes = _read_published(source, published, images, imagery, cortex, incomplete)
    else:
        subjects, pictures, notes = _read_of_mindvis(of_mindvis, cortex)
    _check_categories(subjects, pictures)
    return PublishedDataset(
        name="god",
        description=DESCRIPTION,
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/god.py",
        script_version=VERSION,
        subjects=subjects,
        stimuli=pictures.records,
        notes=notes,
    )


def _files(source: Path, beginning: str, ending: str) -> dict[int, Path]:
    """Number of a subject ▶ its file."""
    if not source.is_dir():
        paths = [source]
    else:
        paths = [path for path in sorted(source.rglob(f"{beginning}*{ending}")) if path.is_file()]
    found: dict[int, Path] = {}
    for path in paths:
        number = path.name.removeprefix(beginning).removesuffix(ending)
        if path.name.startswith(beginning) and path.name.endswith(ending) and number.isdecimal():
            other = found.setdefault(int(number), path)
            if other != path:
                raise FmriModelsError(
                    f"{path.name} is in {one_line(source)} twice ({one_line(other)}, {one_line(path)}); give one "
                    "folder."
                )
    return dict(sorted(found.items()))


def _read_published(
    source: Path, files: Mapping[int, Path], images: Path | None, imagery: bool, cortex: bool, incomplete: bool
) -> tuple[list[PublishedSubject], Pictures, list[str]]:
    if images is not None and not images.is_dir():
        raise FmriModelsError(f"The pictures' folder {one_line(images)} does not exist; {PICTURES}.")
    folder = images or (source if source.is_dir() else source.parent)
    found = {stimulus: path for name, path in picture_files([folder]).items() if (stimulus := _id_of_file(name))}
    notes: list[str] = []
    subjects = [_subject_of_bdata(number, path, imagery, cortex, notes) for number, path in files.items()]
    shown = {name for each in subjects for recording in each.recordings for name in recording.stimulus_ids}
    check_pictures(shown, found, PICTURES, incomplete)
    if not found.keys() & shown:
        notes.append(f"The table has no pictures: {PICTURES}.")
    pictures = Pictures(
        {name: partial(picture_bytes, path) for name, path in found.items()},
        {name: name.partition("_")[0] for name in shown},
    )
    return subjects, pictures, list(dict.fromkeys(notes))


def _id_of_file(name: str) -> str | None:
    """`n01518878_5958` of a picture's name, also where its number has leading zeros; None of another file."""
    category, _, number = name.partition("_")
    if category[:1] == "n" and category[1:].isdecimal() and number.isdecimal():
        return f"n{int(category[1:]):08d}_{int(number)}"
    return None


def _subject_of_bdata(number: int, path: Path, imagery: bool, cortex: bool, notes: list[str]) -> PublishedSubject:
    data = BData(path, MEND)
    kept = data.marked("VoxelData")
    if cortex:
        kept &= data.marked(f"ROI_{CORTEX}")
    columns = np.flatnonzero(kept)
    if not len(columns):
        raise FmriModelsError(f"{one_line(path)} has no voxels of the visual cortex; {MEND}.")
    kinds = data.of_trials("DataType")
    if unknown := sorted(set(kinds.tolist()) - set(KINDS)):
        raise FmriModelsError(
            f"{one_line(path)} has trials of the DataType {unknown[0]:g}; expected 1, 2 and 3; {MEND}."
        )
    ids = _stimulus_ids(data, kinds)
    sessions = data.whole_numbers("Session") if "Session" in data.keys else np.ones(len(kinds), dtype=np.int64)
    runs = (
        _distinct_runs(data.whole_numbers("Run"), kinds) if "Run" in data.keys else np.ones(len(kinds), dtype=np.int64)
    )
    if "Session" not in data.keys:
        notes.append(
            "The files do not say sessions: all trials are of session 1, runs of the test follow those before."
        )
    if imagery:
        notes.append(
            "An imagery trial has the tested picture of the category that was imagined; no picture was shown in it."
        )
    recordings = [
        Recording(
            f"{KINDS[kind]}, session {session}",
            partial(data.blocks, columns, rows),
            ids[rows].tolist(),
            session=session,
            runs=runs[rows].tolist(),
            part=schema.TRAIN if kind == 1 else schema.TEST,
            imagery=kind == 3,
            files=[path],
        )
        for kind in KINDS
        if imagery or kind != 3
        for session in sorted(set(sessions[kinds == kind].tolist()))
        for rows in [(kinds == kind) & (sessions == session)]
    ]
    return PublishedSubject(
        f"subj{number:02d}",
        data.voxels(columns, REGIONS),
        recordings,
        expected_trials=sum(count for kind, count in TRIALS.items() if imagery or kind != 3),
        expected_voxels=VOXELS.get(number) if cortex else None,
    )


def _stimulus_ids(data: BData, kinds: np.ndarray) -> np.ndarray:
    """(rows,) `n01518878_5958` of 1518878.005958; imagery, which names the category alone, gets its tested picture."""
    key = "stimulus_id" if "stimulus_id" in data.keys else "Label"
    categories, numbers = data.synsets_and_pictures(key)
    ids = np.array([f"n{c:08d}_{n}" for c, n in zip(categories.tolist(), numbers.tolist(), strict=True)], dtype=object)
    tested = {int(categories[row]): ids[row] for row in np.flatnonzero(kinds == 2)}
    for row in np.flatnonzero(kinds == 3):
        category = int(categories[row])
        ids[row] = tested.get(category, f"n{category:08d}")
    seen = numbers[kinds != 3]
    if (seen == 0).any():
        raise FmriModelsError(f"The {key} of {one_line(data.path)} names categories, not pictures; {MEND}.")
    return ids


def _distinct_runs(runs: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Runs of the test counted on from those of training, and of imagery from both, where they begin again."""
    runs = runs.copy()
    last = 0
    for kind in KINDS:
        rows = kinds == kind
        if rows.any():
            if runs[rows].min() <= last:
                runs[rows] += last
            last = int(runs[rows].max())
    return runs


def _read_of_mindvis(files: Mapping[int, Path], cortex: bool) -> tuple[list[PublishedSubject], Pictures, list[str]]:
    folder = next(iter(files.values())).parent
    lists = [folder / f"imagenet_{part}_label.csv" for part in ("training", "testing")]
    training, tested = (_listed_ids(path) for path in lists)
    names = _names_of_categories(folder / "imagenet_class_index.json")
    notes: list[str] = []
    subjects = [
        _subject_of_npz(number, [path, *lists], cortex, training, tested, notes) for number, path in files.items()
    ]
    categories = {name: names.get(name.partition("_")[0], name.partition("_")[0]) for name in [*training, *tested]}
    found = sorted(folder.glob("images_*.npz"))
    if not found:
        notes.append(f"The table has no pictures, which are in images_256.npz: {PICTURES}.")
        return subjects, Pictures({}, categories), list(dict.fromkeys(notes))
    if len(found) > 1:
        raise FmriModelsError(f"{one_line(folder)} has {listed(each.name for each in found)}; leave one of them there.")
    arrays = NpzArrays(found[0], MEND)
    for name, ids in (("train_images", training), ("test_images", tested)):
        shape = arrays.shapes.get(name, ())
        if len(shape) != 4 or shape[0] != len(ids) or shape[3] not in (1, 3):
            raise FmriModelsError(
                f"{name} in {one_line(found[0])} is {shape or 'not there'}; expected ({len(ids)}, height, width, 3), a "
                f"picture for each line of imagenet_{'training' if ids is training else 'testing'}_label.csv."
            )

    def rows(shown: Collection[str]) -> Iterator[tuple[str, Any]]:
        for name, ids in (("train_images", training), ("test_images", tested)):
            for stimulus, picture in zip(ids, arrays.rows(name), strict=True):
                if stimulus in shown:
                    yield stimulus, _pixels(picture, stimulus)

    return subjects, Pictures({}, categories, rows), list(dict.fromkeys(notes))


def _pixels(picture: np.ndarray, name: str) -> np.ndarray:
    """uint8; earlier files have shares of 1."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype.kind != "f" or not np.isfinite(picture).all() or picture.min() < 0 or picture.max() > 1:
        raise FmriModelsError(f"The picture {name} has other values than 0 to 255 or 0.0 to 1.0; {MEND}.")
    return np.rint(picture * 255).astype(np.uint8)


def _listed_ids(path: Path) -> list[str]:
    """Ids of the pictures, in their order in `images_256.npz`; a line is `1518878.010042,n01518878_10042.JPEG`."""
    lines = [line for line in csv.reader(io.StringIO(read_text(path, "list of pictures", MEND))) if line]
    ids = [_id_of_line(line, path) for line in lines]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise FmriModelsError(f"{one_line(path)} has the picture {twice} twice; {MEND}.")
    return ids


def _id_of_line(line: list[str], path: Path) -> str:
    category, _, number = line[0].strip().partition(".")
    # 1621127.01902 is picture 19020: six decimals, of which a table program may have dropped the last zeros.
    if not category.isdecimal() or not number.isdecimal() or len(number) > 6:
        raise FmriModelsError(
            f"{one_line(path)} has the line {one_line(line[0], 40)!r}; expected one as 1518878.010042."
        )
    said = f"n{int(category):08d}_{int(number.ljust(6, '0'))}"
    named = _id_of_file(Path(line[1].strip()).stem) if len(line) > 1 else None
    if named not in (None, said):
        raise FmriModelsError(
            f"{one_line(path)} has a line of the picture {said} with the file {one_line(line[1], 60)}; it is "
            f"damaged or cut short: {MEND}."
        )
    return said


def _names_of_categories(path: Path) -> dict[str, str]:
    """`n01440764` ▶ its name."""
    if not os.path.lexists(path):
        return {}
    found: dict[str, str] = {}
    for value in read_object(path, "index of categories", MEND).values():
        if not isinstance(value, list) or len(value) < 2 or not all(isinstance(each, str) for each in value):
            raise FmriModelsError(
                f"{one_line(path)} has {one_line(repr(value), 60)}; expected ['n01440764', ..., name]."
            )
        found |= dict.fromkeys(value[:-1], value[-1])
    return found


def _subject_of_npz(
    number: int, files: list[Path], cortex: bool, training: list[str], tested: list[str], notes: list[str]
) -> PublishedSubject:
    path = files[0]
    arrays = NpzArrays(path, MEND)
    width = (arrays.shapes.get("arr_0") or (0,))[-1]
    for name in ("arr_0", "arr_1", "arr_2"):
        if name in arrays and (len(arrays.shapes[name]) != 2 or arrays.shapes[name][1] != width):
            raise FmriModelsError(
                f"{name} in {one_line(path)} is of the shape {arrays.shapes[name]}; expected (trials, {width}) as in "
                f"arr_0; {MEND}."
            )
    masks = {name: arrays.read(name).astype(bool) for name in arrays.shapes if name not in _ARRAYS}
    for name, mask in masks.items():
        if mask.shape != (width,):
            raise FmriModelsError(
                f"The region {one_line(name, 40)} of {one_line(path)} is of the shape {mask.shape}; expected "
                f"({width},), a mark for each voxel."
            )
    if cortex and CORTEX not in masks:
        raise FmriModelsError(
            f"{one_line(path)} has no mask {CORTEX} of the visual cortex; it has {listed(masks, 20)}."
        )
    columns = np.flatnonzero(masks[CORTEX]) if cortex else np.arange(width)
    shown = _picked(arrays, "arr_3", training)
    # What the single test trials showed is in newer files alone; those of MinD-Vis' miniature have the means.
    single = "arr_4" in arrays
    test = _picked(arrays, "arr_4", tested) if single else tested
    if not single:
        notes.append("The files do not say what the single test trials showed: each test trial is the mean of 35.")
    return PublishedSubject(
        f"subj{number:02d}",
        KnownVoxels(
            len(columns),
            roi=first_region({name: mask[columns] for name, mask in masks.items()}, len(columns), REGIONS),
            regions={name: mask[columns] for name, mask in masks.items()},
        ),
        [
            Recording(
                "training",
                lambda: iter([arrays.read("arr_0")[:, columns]]),
                shown,
                part=schema.TRAIN,
                files=files,
            ),
            Recording(
                "test",
                lambda: iter([arrays.read("arr_1" if single else "arr_2")[:, columns]]),
                test,
                runs=2,
                part=schema.TEST,
                files=files,
            ),
        ],
        expected_trials=TRIALS[1] + (TRIALS[2] if single else NUM_TEST_PICTURES),
    )


def _picked(arrays: NpzArrays, name: str, ids: list[str]) -> list[str]:
    """Which picture each trial showed, of an array of their places."""
    places = arrays.read(name)
    if places.dtype.kind not in "iu" or places.ndim != 1 or not ((places >= 0) & (places < len(ids))).all():
        raise FmriModelsError(
            f"{name} in {one_line(arrays.path)} doesn't say for each trial which of {len(ids)} pictures was shown; "
            f"{MEND}."
        )
    return [ids[place] for place in places.tolist()]


def _check_categories(subjects: Collection[PublishedSubject], pictures: Pictures) -> None:
    """No category that is tested is learned from: it is what the data set is for."""
    categories: dict[str, set[str]] = {schema.TRAIN: set(), schema.TEST: set()}
    for recording in (recording for each in subjects for recording in each.recordings):
        categories[str(recording.part)] |= {name.partition("_")[0] for name in recording.stimulus_ids}
    if shared := sorted(categories[schema.TRAIN] & categories[schema.TEST]):
        raise FmriModelsError(
            f"{len(shared)} tested categories are learned from, too ({listed(shared)}); those of GOD are new in the "
            f"test, so that these are other files; {MEND}."
        )


prepare = preparation(read)
