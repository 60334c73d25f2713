"""Miyawaki et al. 2008: one subject, black and white patterns of 10 x 10 squares, V1 to V4 at 3 T.

Two forms are read. The folder that `nilearn.datasets.fetch_miyawaki2008` downloads: `func/data_random_run01.nii.gz` to
20 and `func/data_figure_run01.nii.gz` to 12, `label/data_random_run01_label.csv` and so on (a row a volume, 100
squares in columns first order, -1 at rest), `mask/mask.nii.gz` and a mask a region (`mask/LHV1d.nii.gz` ...); random
patterns are learned from, figures are tested. Layout read in nilearn 0.14, `nilearn/datasets/func.py`, and in its
example `examples/02_decoding/plot_miyawaki_reconstruction.py`, commit 00dd6e4.

`miyawaki_figures_2_5.npz` with `voxels` (80, 967), `images` (80, 28, 28), `image_id` and `condition` (80,): responses
of V1 to ten figures, eight times each (github.com/braindecoding/prepromiyawaki); read in the file itself. Nothing of
it is a published test: leave one picture out with `--option folds=10`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.data import schema
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.nifti_volumes import grid_of, masked_volumes, opened_image, places_of, read_mask
from fmri_models.data.published.npz_arrays import NpzArrays
from fmri_models.errors import FmriModelsError
from fmri_models.names import listed, one_line
from fmri_models.reading import read_text

VERSION = 1
PAPER = {
    "title": (
        "Visual image reconstruction from human brain activity using a combination of multiscale local image decoders"
    ),
    "authors": (
        "Miyawaki, Yoichi",
        "Uchida, Hajime",
        "Yamashita, Okito",
        "Sato, Masa-aki",
        "Morito, Yusuke",
        "Tanabe, Hiroki C.",
        "Sadato, Norihiro",
        "Kamitani, Yukiyasu",
    ),
    "year": 2008,
    "url": "https://doi.org/10.1016/j.neuron.2008.11.004",
    "venue": "Neuron",
}
ORIGIN = "https://nilearn.github.io/stable/modules/generated/nilearn.datasets.fetch_miyawaki2008.html"
LICENSE = "not stated (nilearn says unknown); for research"
CITATION = (
    "Y. Miyawaki, H. Uchida, O. Yamashita, M. Sato, Y. Morito, H. C. Tanabe, N. Sadato, Y. Kamitani (2008): Visual "
    "image reconstruction from human brain activity using a combination of multiscale local image decoders. Neuron "
    "60, 915-929."
)
DESCRIPTION = "Miyawaki et al. (2008): responses of the visual cortex to black and white patterns of 10 x 10 squares."
FILES = "the folder of nilearn.datasets.fetch_miyawaki2008 (func, label, mask), or miyawaki_figures_2_5.npz"
MEND = f"give {FILES}"
SUBJECT = "subj01"
SIDE = 10
REST = -1
RUNS = {"random": 20, "figure": 12}
NUM_VOXELS = 5438
FIGURES = "miyawaki_figures_2_5.npz"
_FUNC = re.compile(r"data_(random|figure)_run(\d\d)\.nii(\.gz)?")
_REGION = re.compile(r"[LR]H(V1|V2|V3A|V3|V4|VP)[dv]?\.nii\.gz")


def read(
    source: Path,
    shift: int = 2,
    detrend: bool = True,
    incomplete: bool = False,
) -> PublishedDataset:
    """What the files hold; betas are read later.

    Args:
        source: nilearn's folder, or the `.npz` file or the folder that has it.
        shift: By how many volumes (of two seconds) a response follows what is shown; of nilearn's folder.
        detrend: Whether the linear trend and the mean of each run are taken away; of nilearn's folder.
        incomplete: Whether runs may be missing.

    Raises:
        FmriModelsError: The files aren't there or are others.
    """
    if shift < 0:
        raise FmriModelsError(f"The shift is {shift} volumes; expected 0 or more.")
    runs, npz = _runs(source), _npz(source)
    if npz is not None and not runs:
        return _of_npz(npz)
    if not runs:
        raise FmriModelsError(f"{one_line(source)} has no files of Miyawaki et al.; expected {FILES}.")
    return _of_nilearn(runs, shift, detrend, incomplete)


def _npz(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix == ".npz" else None
    return next(iter(sorted(source.rglob(FIGURES))), None)


def _runs(source: Path) -> dict[tuple[str, int], Path]:
    """Kind and number of a run ▶ its volumes."""
    found: dict[tuple[str, int], Path] = {}
    for path in sorted(source.rglob("data_*_run*.nii*")) if source.is_dir() else ():
        if match := _FUNC.fullmatch(path.name):
            other = found.setdefault((match[1], int(match[2])), path)
            if other != path:
                raise FmriModelsError(f"{one_line(other)} and {one_line(path)} are the same run; leave one of them.")
    return dict(sorted(found.items(), key=lambda each: (list(RUNS).index(each[0][0]), each[0][1])))


def _of_nilearn(runs: Mapping[tuple[str, int], Path], shift: int, detrend: bool, incomplete: bool) -> PublishedDataset:
    missing = [(kind, run) for kind, count in RUNS.items() for run in range(1, count + 1) if (kind, run) not in runs]
    if missing and not incomplete:
        names = listed(f"data_{kind}_run{run:02d}.nii.gz" for kind, run in missing)
        raise FmriModelsError(f"{len(missing)} runs are missing ({names}); {MEND}, or write those that are there with "
                              "--option incomplete=yes.")  # fmt: skip
    root = next(iter(runs.values())).parent.parent
    mask, image = read_mask(root / "mask" / "mask.nii.gz", MEND)
    patterns: dict[str, np.ndarray] = {}
    recordings = [
        _recording(kind, run, path, root, mask, shift, detrend, patterns) for (kind, run), path in runs.items()
    ]
    subject = PublishedSubject(
        SUBJECT,
        KnownVoxels(
            int(mask.sum()),
            roi=_regions(root / "mask", mask, image),
            coordinates=places_of(mask, image.affine),
            space="native",
            grid=grid_of(mask, image.affine),
        ),
        recordings,
        expected_voxels=NUM_VOXELS,
    )
    notes = [f"A trial is the mean of the volumes of a block, {shift} volumes after what was shown."]
    if detrend:
        notes.append("The linear trend and the mean of each run were taken away.")
    return _dataset(subject, lambda ids: ({"stimulus_id": each, "image": patterns[each]} for each in ids), notes)


def _dataset(subject: PublishedSubject, stimuli: Any, notes: Collection[str]) -> PublishedDataset:
    return PublishedDataset(
        name="miyawaki2008",
        description=DESCRIPTION,
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/miyawaki2008.py",
        script_version=VERSION,
        subjects=[subject],
        stimuli=stimuli,
        notes=list(notes),
    )


def _recording(
    kind: str,
    run: int,
    path: Path,
    root: Path,
    mask: np.ndarray,
    shift: int,
    detrend: bool,
    patterns: dict[str, np.ndarray],
) -> Recording:
    volumes = opened_image(path, 4, MEND).shape[3]
    of_labels = root / "label" / f"data_{kind}_run{run:02d}_label.csv"
    labels = _labels(of_labels, volumes)
    blocks = _blocks(labels[: volumes - shift])
    shown = [_name(kind, labels[block.start], patterns) for block in blocks]
    if not shown:
        raise FmriModelsError(f"The labels of {one_line(path)} name no pattern; {MEND}.")

    def betas() -> Iterator[np.ndarray]:
        # Of a run alone: some 150 volumes of 5,438 voxels.
        values = np.concatenate(list(masked_volumes(path, mask, MEND)))
        if len(values) > 1 and (values == values[0]).all():
            raise FmriModelsError(
                f"{one_line(path)} has the same pattern in all of its {len(values)} volumes, which no brain has; "
                f"{MEND}."
            )
        if detrend and np.isfinite(values).all():
            from scipy.signal import detrend as without_trend

            values = without_trend(values, axis=0)
        moved = values[shift:]
        yield np.stack([moved[block].mean(axis=0) for block in blocks]).astype(np.float32)

    return Recording(
        f"{kind}, run {run:02d}",
        betas,
        shown,
        runs=run if kind == "random" else RUNS["random"] + run,
        part=schema.TRAIN if kind == "random" else schema.TEST,
        files=[path, of_labels, root / "mask" / "mask.nii.gz"],
    )


def _labels(path: Path, volumes: int) -> np.ndarray:
    """(volumes, 100) of -1 at rest, 0 and 1."""
    lines = [line for line in read_text(path, "labels of a run", MEND).splitlines() if line.strip()]
    try:
        values = np.array([[float(value) for value in line.split(",")] for line in lines])
    except ValueError as error:
        raise FmriModelsError(f"{one_line(path)} is no table of numbers ({one_line(error, 80)}); {MEND}.") from error
    if values.shape != (volumes, SIDE * SIDE) or not np.isin(values, (REST, 0, 1)).all():
        raise FmriModelsError(
            f"{one_line(path)} is of the shape {values.shape}; expected ({volumes}, {SIDE * SIDE}) of -1, 0 and 1, a "
            f"row a volume; {MEND}."
        )
    return values.astype(np.int8)


def _blocks(labels: np.ndarray) -> list[slice]:
    """Rows that follow each other and show one pattern."""
    changes = np.flatnonzero((labels[1:] != labels[:-1]).any(axis=1)) + 1
    edges = [0, *changes.tolist(), len(labels)]
    whole = [slice(start, stop) for start, stop in pairwise(edges) if stop > start]
    return [block for block in whole if labels[block.start, 0] != REST]


def _name(kind: str, label: np.ndarray, patterns: dict[str, np.ndarray]) -> str:
    """An id for each pattern, by what it is, so that what is shown again has the same one."""
    # The squares of a pattern are written column by column.
    picture = np.where(label.reshape(SIDE, SIDE, order="F") > 0, 255, 0).astype(np.uint8)[..., None]
    digits = np.packbits(label.astype(bool)).tobytes().hex()
    name = f"{kind}_{digits}"
    patterns[name] = picture
    return name


def _regions(folder: Path, mask: np.ndarray, image: Any) -> list[str] | None:
    labels = np.full(mask.shape, "", dtype=object)
    for path in sorted(folder.glob("*.nii.gz")):
        if match := _REGION.fullmatch(path.name):
            own = read_mask(path, MEND, image)[0]
            labels[own & (labels == "")] = match[1]
    found: list[str] = labels[mask].tolist()
    return found if any(found) else None


def _of_npz(path: Path) -> PublishedDataset:
    arrays = NpzArrays(path, MEND)
    voxels, images, ids = (arrays.shapes.get(name, ()) for name in ("voxels", "images", "image_id"))
    if len(voxels) != 2 or len(images) != 3 or ids != voxels[:1] or images[:1] != voxels[:1]:
        raise FmriModelsError(
            f"{one_line(path)} has voxels {voxels}, images {images} and image_id {ids}; expected (trials, voxels), "
            f"(trials, height, width) and (trials,); {MEND}."
        )
    pictures = arrays.read("images")
    if not np.isfinite(pictures).all() or pictures.min() < 0 or pictures.max() > 1:
        raise FmriModelsError(f"The pictures of {one_line(path)} have other values than 0.0 to 1.0; {MEND}.")
    shown = [f"figure_{number:02d}" for number in arrays.read("image_id").tolist()]
    first: dict[str, int] = {}
    for row, name in enumerate(shown):
        if not np.array_equal(pictures[row], pictures[first.setdefault(name, row)]):
            raise FmriModelsError(f"{name} of {one_line(path)} is two different pictures; {MEND}.")
    subject = PublishedSubject(
        SUBJECT,
        KnownVoxels(voxels[1], roi=["V1"] * voxels[1]),
        [Recording("figures", lambda: iter([arrays.read("voxels")]), shown, files=[path])],
        expected_trials=80,
        expected_voxels=967,
    )

    def stimuli(wanted: Iterable[str]) -> Iterator[dict[str, Any]]:
        for name in wanted:
            yield {"stimulus_id": name, "image": np.rint(pictures[first[name]] * 255).astype(np.uint8)[..., None]}

    notes = ["Of ten figures, no test is published; leave one out: split=kfold10, folds=all."]
    return _dataset(subject, stimuli, notes)


prepare = preparation(read)
