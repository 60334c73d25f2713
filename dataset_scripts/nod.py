"""NOD, Natural Object Dataset (Gong et al. 2023): 30 subjects, 57,000 ImageNet pictures once and 120 of COCO, 3 T.

Betas of the cortex on fsLR (59,412 vertices) as OpenNeuro's ds004496 has them:
`derivatives/ciftify/sub-01/results/ses-imagenet01_task-imagenet_run-1/…_beta.dscalar.nii`, a map a trial, with
`…_label.txt` (a line a map), and likewise for `ses-coco_task-coco`, whose maps are each picture's response in a run.
Pictures lie in `stimuli/imagenet/<synset>/` and `stimuli/coco/`.

Layout read in github.com/BNUCNL/NOD-fmri, commit 3594551 (`validation/GLM.py`, `nod_utils.py`, `reliability_coco.py`),
and github.com/OpenNeuroDatasets/ds004496, commit 01cf686 (README, names of all files, tables of events).
"""

import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fmri_models.data.brain_images.series import blocks
from fmri_models.data.brain_images.surfaces import CiftiSeries
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.picture_files import check_pictures, picture_bytes, picture_files
from fmri_models.errors import FmriModelsError
from fmri_models.names import listed, one_line
from fmri_models.reading import read_text

VERSION = 1
PAPER = {
    "title": "A large-scale fMRI dataset for the visual processing of naturalistic scenes",
    "authors": ("Gong, Zhengxin", "Zhou, Ming", "Dai, Yuxuan", "Wen, Yushan", "Liu, Youyi", "Zhen, Zonglei"),
    "year": 2023,
    "url": "https://doi.org/10.1038/s41597-023-02471-x",
    "venue": "Scientific Data",
}
ORIGIN = "https://openneuro.org/datasets/ds004496"
LICENSE = "CC0 1.0 (OpenNeuro ds004496); the pictures are ImageNet's and COCO's"
CITATION = (
    "Z. Gong, M. Zhou, Y. Dai, Y. Wen, Y. Liu, Z. Zhen (2023): A large-scale fMRI dataset for the visual processing of "
    "naturalistic scenes. Scientific Data 10:559. OpenNeuro ds004496."
)
DESCRIPTION = (
    "Natural Object Dataset: cortical betas on fsLR of 4,000 ImageNet pictures a subject (nine subjects) or 1,000 (21 "
    "subjects), each once; the nine saw 120 pictures of COCO in each of ten or eleven runs, which are tested."
)
MEND = "give the folder of OpenNeuro ds004496 with derivatives/ciftify"
VERTICES = 59412
FIRST_SUBJECTS = 9
# A fifth session of sub-01 has pictures of which the release does not say what they are for.
SESSIONS = ("imagenet01", "imagenet02", "imagenet03", "imagenet04", "coco")
COCO = "coco"
_RUN = re.compile(r"ses-(imagenet\d\d|coco)_task-(?:imagenet|coco)_run-(\d+)")
_SYNSET = re.compile(r"(n\d{8})_\d+")


def read(
    source: Path,
    atlas: str = "",
    images: Path | None = None,
    incomplete: bool = False,
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """What the folder holds; betas and pictures are read later.

    Args:
        source: The data set's folder.
        atlas: A `.dlabel.nii` file of the same 59,412 vertices, for regions; hemispheres if empty.
        images: The folder with the pictures; `stimuli` if None.
        incomplete: Whether pictures may be missing.
        subjects: These alone are looked for, such as `sub-01`.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    root = source / "derivatives" / "ciftify"
    folders = [path for path in sorted(root.glob("sub-*")) if (path / "results").is_dir()]
    found = [path for path in folders if subjects is None or path.name in subjects]
    if not found:
        there = listed([path.name for path in folders], 5) or "no subject"
        raise FmriModelsError(f"{one_line(root)} has {there}; {MEND}.")
    people = [_subject(path, atlas) for path in found]
    if images is not None and not images.is_dir():
        raise FmriModelsError(f"The pictures' folder {one_line(images)} does not exist.")
    places = [images] if images is not None else [source / "stimuli" / kind for kind in ("imagenet", COCO)]
    files = {stimulus_id(path.name): path for path in picture_files(each for each in places if each.is_dir()).values()}
    shown = {name for each in people for recording in each.recordings for name in recording.stimulus_ids}
    check_pictures(shown, files, "get stimuli/imagenet and stimuli/coco of ds004496", incomplete)
    tested = sorted(name for name in shown if name.startswith(COCO))
    return PublishedDataset(
        name="nod",
        description=DESCRIPTION,
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/nod.py",
        script_version=VERSION,
        subjects=people,
        stimuli=partial(_stimuli, files),
        # Of subjects who saw none of COCO a test is drawn.
        test_sets={COCO: tested} if tested else {},
        notes=[] if files.keys() & shown else ["The table has no pictures, which are in the folder stimuli."],
    )


def stimulus_id(name: str) -> str:
    """Of a picture by its file: `n03131574_8247`, or `coco_000000124419`."""
    stem = re.sub(r"\.(jpe?g|png)$", "", name.strip().replace("\\", "/").rpartition("/")[2], flags=re.IGNORECASE)
    return f"{COCO}_{stem}" if stem.isdecimal() else stem


def _subject(folder: Path, atlas: str) -> PublishedSubject:
    runs: dict[tuple[str, int], Path] = {}
    for path in sorted((folder / "results").glob("ses-*")):
        match = _RUN.fullmatch(path.name)
        if match is not None and match[1] in SESSIONS and path.is_dir():
            runs[match[1], int(match[2])] = path
    if not runs:
        raise FmriModelsError(f"{one_line(folder / 'results')} has no ses-imagenet01_task-imagenet_run-1; {MEND}.")
    ordered = sorted(runs, key=lambda key: (SESSIONS.index(key[0]), key[1]))
    first = CiftiSeries(_betas(runs[ordered[0]]))
    recordings = []
    for session, run in ordered:
        path = _betas(runs[session, run])
        series = CiftiSeries(path)
        if series.order != first.order:
            raise FmriModelsError(
                f"{one_line(path)} has other vertices ({series.width:,}) than {one_line(first.path.name)} "
                f"({first.width:,}); copy it again."
            )
        label = path.with_name(f"{runs[session, run].name}_label.txt")
        recordings.append(
            Recording(
                f"{session}, run {run}",
                partial(_read, path),
                _shown(label, series.count, path),
                session=SESSIONS.index(session) + 1,
                runs=run,
                files=[path, label],
            )
        )
    number = int(folder.name.removeprefix("sub-"))
    coco = 1200 if number == 1 else 1320
    labels = first.labels(Path(atlas.replace("{subject}", folder.name))) if atlas else first.structures
    return PublishedSubject(
        folder.name,
        KnownVoxels(first.width, roi=labels),
        recordings,
        expected_trials=4000 + coco if number <= FIRST_SUBJECTS else 1000,
        expected_voxels=VERTICES,
    )


def _betas(folder: Path) -> Path:
    path = folder / f"{folder.name}_beta.dscalar.nii"
    if not path.is_file():
        raise FmriModelsError(f"{one_line(path)} is missing; get the betas of all runs, or remove the run's folder.")
    return path


def _read(path: Path) -> Iterator[Any]:
    yield from blocks(CiftiSeries(path))


def _shown(path: Path, count: int, betas: Path) -> list[str]:
    lines = read_text(path, "list of what the maps are of", MEND).split()
    names = [stimulus_id(line) for line in lines]
    unknown = [name for name in names if not _SYNSET.fullmatch(name) and not name.startswith(f"{COCO}_")]
    if len(names) != count or unknown:
        raise FmriModelsError(
            f"{one_line(path)} names {len(names)} pictures{f' such as {one_line(unknown[0], 40)!r}' if unknown else ''}"
            f" for the {count} maps of {one_line(betas.name)}; expected a line a map, as n03131574/n03131574_8247.JPEG "
            "or 000000124419.jpg."
        )
    return names


def _stimuli(files: dict[str, Path], shown: Collection[str]) -> Iterator[dict[str, Any]]:
    for name in sorted(shown):
        match = _SYNSET.fullmatch(name)
        image = picture_bytes(files[name]) if name in files else None
        yield {"stimulus_id": name, "image": image, "category": match[1] if match else None}


prepare = preparation(read)
