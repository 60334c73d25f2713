"""Small CIFTI and GIFTI files, whose every beta says which trial and grayordinate it is of."""

from pathlib import Path
from typing import Any

import numpy as np

from .nifti import BASELINE, DURATION, ONSETS, SECONDS, VOLUMES, write_events

# Vertices of the left and right cortex, and voxels below it.
COUNTS = (5, 6, 3)
WIDTH = sum(COUNTS)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0]) + np.array([[0, 0, 0, -9], [0, 0, 0, -7], [0, 0, 0, -5], [0, 0, 0, 0]])
INDICES = np.array([[1, 2, 3], [2, 2, 3], [3, 1, 0]])
_FUNC = Path("sub-01", "func")


def beta(trial: int) -> np.ndarray:
    """(WIDTH,) percent of the baseline."""
    rng = np.random.default_rng(50 + trial)
    return rng.uniform(1, 5, WIDTH) * np.where(rng.random(WIDTH) < 0.5, -1, 1)


def axis() -> Any:
    from nibabel.cifti2 import BrainModelAxis

    # Some vertices of more, as without the medial wall.
    left = BrainModelAxis.from_surface(np.array([0, 2, 3, 5, 8]), 10, name="cortex_left")
    right = BrainModelAxis.from_surface(np.array([1, 2, 4, 6, 7, 9]), 10, name="cortex_right")
    deep = BrainModelAxis(["thalamus_left"] * len(INDICES), voxel=INDICES, affine=AFFINE, volume_shape=(5, 5, 5))
    return left + right + deep


def bold() -> np.ndarray:
    """(VOLUMES, WIDTH) of five trials."""
    from nilearn.glm.first_level.hemodynamic_models import compute_regressor

    times = SECONDS * np.arange(VOLUMES)
    values = np.full((VOLUMES, WIDTH), BASELINE)
    for trial, onset in enumerate(ONSETS):
        regressor = compute_regressor(np.array([[onset], [DURATION], [1.0]]), "glover", times, con_id="t")[0]
        values += BASELINE / 100 * regressor * beta(trial)
    return values


def _save(path: Path, values: np.ndarray, first: Any, second: Any) -> Path:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Cifti2Image(values.astype(np.float32), (first, second)), path)
    return path


def write_dtseries(root: Path) -> Path:
    from nibabel.cifti2 import SeriesAxis

    name = "sub-01_task-see_run-1_space-fsLR_den-91k_bold.dtseries.nii"
    _save(root / _FUNC / name, bold(), SeriesAxis(0, SECONDS, VOLUMES), axis())
    _write_timed(root)
    return root


def write_dscalar(root: Path) -> Path:
    from nibabel.cifti2 import ScalarAxis

    values = np.array([beta(trial) for trial in range(6)])
    names = [f"trial{trial}" for trial in range(6)]
    _save(root / _FUNC / "sub-01_task-see_run-1_betas.dscalar.nii", values, ScalarAxis(names), axis())
    write_events(root / _FUNC / "sub-01_task-see_run-1_events.tsv", [[f"s{trial}"] for trial in range(6)], "stim_id")
    return root


def write_dlabel(path: Path) -> Path:
    from nibabel.cifti2 import LabelAxis

    names = {0: ("???", (0, 0, 0, 0)), 4: ("V1", (1, 0, 0, 1)), 9: ("V2", (0, 1, 0, 1))}
    values = np.where(np.arange(WIDTH) % 3 == 0, 4, 9)[None]
    return _save(path, values, LabelAxis(["areas"], names), axis())


def write_parcels(path: Path) -> Path:
    from nibabel.cifti2 import ParcelsAxis, ScalarAxis

    surface = axis()
    parcels = ParcelsAxis.from_brain_models([("one", surface[:5]), ("two", surface[5:11])])
    return _save(path, np.zeros((6, 2)), ScalarAxis([f"trial{trial}" for trial in range(6)]), parcels)


def write_gifti(root: Path) -> Path:
    import nibabel

    (root / _FUNC).mkdir(parents=True, exist_ok=True)
    for hemisphere, part in (("L", slice(0, 9)), ("R", slice(9, None))):
        arrays = [
            nibabel.gifti.GiftiDataArray(row[part].astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES")
            for row in bold()
        ]
        name = f"sub-01_task-see_run-1_hemi-{hemisphere}_space-fsaverage5_bold.func.gii"
        nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), root / _FUNC / name)
    _write_timed(root)
    names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    values = np.random.default_rng(0).normal(size=(VOLUMES, 6)) * 1e-3
    confounds = root / _FUNC / "sub-01_task-see_run-1_desc-confounds_timeseries.tsv"
    confounds.write_text("\n".join(["\t".join(names), *("\t".join(map(repr, row)) for row in values.tolist())]) + "\n")
    confounds.with_suffix(".json").write_text("{}")
    return root


def _write_timed(root: Path) -> None:
    rows = [[str(onset), str(DURATION), f"s{trial}"] for trial, onset in enumerate(ONSETS)]
    write_events(root / _FUNC / "sub-01_task-see_run-1_events.tsv", rows, "onset duration stim_id")
