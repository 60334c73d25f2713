"""THINGS-fMRI (Hebart et al. 2023): three subjects, twelve sessions at 3 T, pictures of 720 kinds of objects.

Reads the single-trial betas in the form of tables (`betas_csv`): `sub-0X_ResponseData.h5`,
`sub-0X_StimulusMetadata.csv` and `sub-0X_VoxelMetadata.csv`; pictures from `images/<concept>/<stimulus>` beside them,
where they are there. The hundred test pictures were shown in each session, all others once. Concepts of test pictures
occur among training pictures too, under other photographs: `leave_out_tested_concepts` leaves those trials out.

Layout read in: ViCCo-Group/THINGS-data (`MRI/thingsmri/dataset.py` and its notebooks) and three further public readers
of the same files, of which one reads `ResponseData/block0_values` as (voxels, trials).
"""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmri_models.data.brain_images.opening import opened_hdf5
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.errors import FmriModelsError
from fmri_models.names import listed, one_line
from fmri_models.reading import read_bytes, read_text

SUBJECTS = ("01", "02", "03")
TRIALS = 9840
TEST_REPETITIONS = 12
_COLUMNS = ("trial_type", "session", "run", "stimulus", "concept")
# Of retinotopy and localisers, from the earliest; each voxel has the label of its first one.
REGIONS = (
    "V1", "V2", "V3", "hV4", "VO1", "VO2", "LO1 (prf)", "LO2 (prf)", "TO1", "TO2", "V3a", "V3b",
    "lFFA", "rFFA", "lOFA", "rOFA", "lEBA", "rEBA", "lSTS", "rSTS", "lPPA", "rPPA", "lRSC", "rRSC", "lTOS", "rTOS",
    "lLOC", "rLOC", "IT",
)  # fmt: skip
_TRIALS_A_BLOCK = 100
# Of the voxels' table, which has a row for each of some 211,000.
_MOST_BYTES = 2**30
_COORDINATES = ("voxel_x", "voxel_y", "voxel_z")
VOXEL_MM = 2.0

PAPER = {
    "title": (
        "THINGS-data, a multimodal collection of large-scale datasets for investigating object representations in "
        "human brain and behavior"
    ),
    "authors": (
        "Hebart, Martin N.", "Contier, Oliver", "Teichmann, Lina", "Rockter, Adam H.", "Zheng, Charles Y.",
        "Kidder, Alexis", "Corriveau, Anna", "Vaziri-Pashkam, Maryam", "Baker, Chris I.",
    ),
    "year": 2023,
    "url": "https://doi.org/10.7554/eLife.82580",
    "venue": "eLife",
}  # fmt: skip
ORIGIN = "https://plus.figshare.com/articles/dataset/20492835"
LICENSE = "CC0 1.0 for responses; pictures of THINGS: for research, by their own terms (a password in their archive)"
WHERE = "betas_csv is at plus.figshare.com/articles/dataset/20492835, the pictures at osf.io/jum2f"


def read(
    source: Path,
    voxels: Literal["regions", "all"] = "regions",
    leave_out_tested_concepts: bool = False,
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """THINGS-fMRI, single-trial betas in the form of tables.

    Args:
        source: The folder `betas_csv`, or the one that it and `images` are in.
        voxels: `regions`: those that are in a region of retinotopy or a localiser; `all`: all 211,000 of the brain.
        leave_out_tested_concepts: Without training trials of concepts that are tested, so that these are new.
        subjects: These alone are looked for.
    """
    folder = source / "betas_csv" if (source / "betas_csv").is_dir() else source
    images = next((path for path in (source / "images", folder.parent / "images") if path.is_dir()), None)
    wanted = [number for number in SUBJECTS if subjects is None or f"subj{number}" in subjects]
    numbers = [number for number in wanted if (folder / f"sub-{number}_ResponseData.h5").is_file()]
    if not numbers:
        raise FmriModelsError(
            f"{one_line(folder)} has no sub-0X_ResponseData.h5, sub-0X_StimulusMetadata.csv and "
            f"sub-0X_VoxelMetadata.csv; {WHERE}."
        )
    tables = {number: _stimuli_of(folder, number) for number in numbers}
    concepts = {_id(row): row for rows in tables.values() for row in rows}
    return PublishedDataset(
        name="things_fmri",
        description=(
            "Single trials of subjects who looked at photographs of 720 kinds of objects, of which a hundred were "
            "shown in each of twelve sessions and are tested; GLM betas of data cleaned by ICA."
        ),
        license=LICENSE,
        citation=(
            "M. N. Hebart, O. Contier, L. Teichmann et al. (2023): THINGS-data, a multimodal collection of large-scale "
            "datasets for investigating object representations in human brain and behavior. eLife 12, e82580."
        ),
        script="dataset_scripts/things_fmri.py",
        script_version=1,
        subjects=[_subject(folder, number, tables[number], voxels, leave_out_tested_concepts) for number in numbers],
        stimuli=lambda ids: _pictures(images, ids, concepts),
        notes=[] if images is not None else ["The pictures of THINGS were not there, so that the table has none."],
    )


def _stimuli_of(folder: Path, number: str) -> list[dict[str, str]]:
    path = folder / f"sub-{number}_StimulusMetadata.csv"
    rows = _rows(path)
    missing = [name for name in _COLUMNS if rows and name not in rows[0]]
    if not rows or missing:
        raise FmriModelsError(f"{one_line(path)} has no columns {listed(missing or list(_COLUMNS))}; {WHERE}.")
    if empty := next((name for row in rows for name in _COLUMNS if not row[name]), None):
        raise FmriModelsError(f"{one_line(path)} has a row without {empty}; it may be cut off: {WHERE}.")
    unknown = {row["trial_type"] for row in rows} - {"train", "test"}
    if unknown:
        raise FmriModelsError(
            f"{one_line(path)} has trials of the type {listed(sorted(unknown))}; expected train and test; {WHERE}."
        )
    if wrong := next((row for row in rows if not (row["session"].isdecimal() and row["run"].isdecimal())), None):
        raise FmriModelsError(
            f"{one_line(path)} has the session {one_line(repr(wrong['session']), 40)} and the run "
            f"{one_line(repr(wrong['run']), 40)}; expected whole numbers; {WHERE}."
        )
    return rows


def _rows(path: Path) -> list[dict[str, str]]:
    text = read_text(path, "table", WHERE, _MOST_BYTES)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise FmriModelsError(f"{one_line(path)} is no table ({one_line(error, 80)}); {WHERE}.") from error
    for place, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise FmriModelsError(
                f"Row {place} of {one_line(path)} has another number of columns than the first line; it may be cut "
                f"off: {WHERE}."
            )
    return rows


def _number(row: dict[str, str], column: str, path: Path) -> float:
    """What a table says, NaN where it is empty."""
    try:
        return float(row[column] or "nan")
    except ValueError as error:
        raise FmriModelsError(
            f"{one_line(path)} has {one_line(repr(row[column]), 40)} as {column}; expected a number; {WHERE}."
        ) from error


def _id(row: dict[str, str]) -> str:
    return Path(row["stimulus"]).stem


def _subject(folder: Path, number: str, rows: list[dict[str, str]], which: str, leaves_out: bool) -> PublishedSubject:
    path = folder / f"sub-{number}_ResponseData.h5"
    table, shown = (folder / f"sub-{number}_{name}Metadata.csv" for name in ("Voxel", "Stimulus"))
    known = _rows(table)
    with opened_hdf5(path, WHERE) as file:
        values = file.get("ResponseData/block0_values")
        shape = None if values is None else values.shape
    if shape != (len(known), len(rows)):
        raise FmriModelsError(
            f"{one_line(path)} has responses of the shape {shape}; expected ({len(known)}, {len(rows)}), the voxels "
            f"and trials of the tables beside it; {WHERE}."
        )
    regions = [region for region in REGIONS if known and region in known[0]]
    labels = [next((region for region in regions if _number(row, region, table) == 1), "") for row in known]
    chosen = np.array([place for place, label in enumerate(labels) if label or which == "all"], dtype=np.int64)
    if not len(chosen):
        raise FmriModelsError(f"No voxel of sub-{number} is in a region of {listed(list(REGIONS))}; take voxels=all.")
    tested = {row["concept"] for row in rows if row["trial_type"] == "test"}
    kept = [
        place
        for place, row in enumerate(rows)
        if row["trial_type"] == "test" or not (leaves_out and row["concept"] in tested)
    ]
    recordings = []
    for session in sorted({int(rows[place]["session"]) for place in kept}):
        for part in ("train", "test"):
            own = [
                place for place in kept if (int(rows[place]["session"]), rows[place]["trial_type"]) == (session, part)
            ]
            if own:
                recordings.append(_recording([path, table, shown], rows, own, session, part, chosen))
    ceilings = np.array([_number(row, "nc_testset", table) for row in known if "nc_testset" in row] or [np.nan])
    if np.isinf(ceilings).any():
        raise FmriModelsError(f"{one_line(table)} has infinite noise ceilings (nc_testset); {WHERE}.")
    has_ceilings = bool(np.isfinite(ceilings).any())
    has_places = bool(known) and all(name in known[0] for name in _COORDINATES)
    return PublishedSubject(
        f"subj{number}",
        KnownVoxels(
            len(chosen),
            roi=[labels[place] for place in chosen],
            coordinates=_places(known, chosen, table) if has_places else None,
            space=f"sub-{number}, {VOXEL_MM:g} mm from the first voxel of the volume" if has_places else "",
            noise_ceiling=np.clip(ceilings[chosen] / 100, 0, 1) if has_ceilings else None,
            repetitions=TEST_REPETITIONS,
        ),
        recordings,
        expected_trials=None if leaves_out else TRIALS,
    )


def _places(known: list[dict[str, str]], chosen: np.ndarray, table: Path) -> np.ndarray:
    """(V, 3) float32 in mm; the table has indices, and no affine."""
    indices = [[_number(known[place], name, table) for name in _COORDINATES] for place in chosen.tolist()]
    return np.array(indices, dtype=np.float32) * VOXEL_MM


def _recording(
    files: list[Path], rows: list[dict[str, str]], places: list[int], session: int, part: str, chosen: np.ndarray
) -> Recording:
    return Recording(
        f"session {session}, {part}",
        read=lambda: _blocks(files[0], np.array(places), chosen),
        stimulus_ids=[_id(rows[place]) for place in places],
        session=session,
        runs=[int(rows[place]["run"]) for place in places],
        part=part,
        files=files,
    )


def _blocks(path: Path, places: np.ndarray, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """(n, voxels) of some trials at a time; the file has a row a voxel."""
    with opened_hdf5(path, WHERE) as file:
        values = file["ResponseData/block0_values"]
        for start in range(0, len(places), _TRIALS_A_BLOCK):
            yield np.asarray(values[:, places[start : start + _TRIALS_A_BLOCK]])[chosen].T


def _pictures(
    images: Path | None, ids: Collection[str], concepts: dict[str, dict[str, str]]
) -> Iterator[dict[str, Any]]:
    for stimulus in sorted(ids):
        row = concepts[stimulus]
        picture = None
        if images is not None:
            path = images / row["concept"] / row["stimulus"]
            picture = read_bytes(path, "picture", WHERE)
        yield {"stimulus_id": stimulus, "image": picture, "captions": [], "category": row["concept"]}


prepare = preparation(read)
