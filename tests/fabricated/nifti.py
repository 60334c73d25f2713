"""Small images in the layouts of fMRIPrep, BIDS and GLMsingle, whose every beta says which trial and voxel it is of."""

import json
from pathlib import Path

import numpy as np

SHAPE = (5, 4, 3)
# Oblique, so that an exchanged axis is noticed.
AFFINE = np.array([[-2.0, 0.1, 0, 30], [0.1, 2.5, 0, -40], [0, 0, 3, 10], [0, 0, 0, 1.0]])
SECONDS, VOLUMES, START = 2.0, 90, 1.0
ONSETS = [4.0, 30.0, 60.0, 92.0, 124.0]
DURATION = 2.0
BASELINE = 200.0
PICTURES = 12


def chosen() -> np.ndarray:
    """(x, y, z) bool: the brain."""
    return np.random.default_rng(5).random(SHAPE) < 0.6


def beta(trial: int) -> np.ndarray:
    """(x, y, z) percent of the baseline, different in each voxel and trial."""
    rng = np.random.default_rng(1000 + trial)
    return rng.uniform(1, 5, SHAPE) * np.where(rng.random(SHAPE) < 0.5, -1, 1)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, dtype: type = np.float32) -> Path:
    """Writes a NIfTI file; integers are scaled by the header, as scanners and NSD have them."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.asarray(values, dtype=np.float64), affine)
    image.set_data_dtype(dtype)
    if np.ndim(values) == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], SECONDS))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def bold(trials: list[int], drift: float = 0.0) -> np.ndarray:
    """(x, y, z, volumes) of a run with so many trials at ONSETS, by nilearn's response function."""
    from nilearn.glm.first_level.hemodynamic_models import compute_regressor

    times = START + SECONDS * np.arange(VOLUMES)
    values = np.full((*SHAPE, VOLUMES), BASELINE)
    for trial, onset in zip(trials, ONSETS, strict=True):
        condition = np.array([[onset], [DURATION], [1.0]])
        regressor = compute_regressor(condition, "glover", times, con_id="trial")[0][:, 0]
        values += BASELINE / 100 * beta(trial)[..., None] * regressor
    return values + drift * np.cos(np.pi * (np.arange(VOLUMES) + 0.5) / VOLUMES)


def stimulus(trial: int) -> str:
    return f"pictures/cat {trial % PICTURES:02d}.png"


def write_events(path: Path, rows: list[list[str]], columns: str = "onset duration trial_type stim_file") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns.split()), *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def event_rows(trials: list[int]) -> list[list[str]]:
    """BIDS rows, with a fixation and a button that show nothing."""
    rows = [
        [str(onset), str(DURATION), "animal" if trial % 2 else "thing", stimulus(trial)]
        for trial, onset in zip(trials, ONSETS, strict=True)
    ]
    return [["0", "2", "fixation", "n/a"], *rows[:2], ["50", "n/a", "button", "n/a"], *rows[2:]]


def write_pictures(folder: Path) -> Path:
    from PIL import Image

    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / stimulus(number))
    return folder


def trials_of(session: int, run: int) -> list[int]:
    """Numbers of the trials of a run of one of two sessions of two runs."""
    first = ((session - 1) * 2 + run - 1) * len(ONSETS)
    return list(range(first, first + len(ONSETS)))


def write_fmriprep(root: Path, subjects: tuple[str, ...] = ("01",), dtype: type = np.int16) -> Path:
    """A BIDS folder with `derivatives/fmriprep`: two sessions of two runs, brain masks, confounds, sidecars.

    Returns:
        fMRIPrep's folder.
    """
    derivatives = root / "derivatives" / "fmriprep"
    rng = np.random.default_rng(0)
    for subject in subjects:
        for session in (1, 2):
            for run in (1, 2):
                name = f"sub-{subject}_ses-0{session}_task-see_run-{run}"
                below = Path(f"sub-{subject}", f"ses-0{session}", "func")
                trials = trials_of(session, run)
                write_events(root / below / f"{name}_events.tsv", event_rows(trials))
                image = derivatives / below / f"{name}_space-T1w_desc-preproc_bold.nii.gz"
                save(image, bold(trials, drift=3.0), dtype=dtype)
                save(derivatives / below / f"{name}_space-T1w_desc-brain_mask.nii.gz", chosen(), dtype=np.uint8)
                sidecar = {"RepetitionTime": SECONDS, "StartTime": START, "TaskName": "see"}
                image.with_name(image.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
                names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
                values = rng.normal(size=(VOLUMES, len(names))) * 1e-3
                table = "\n".join(["\t".join(names), *("\t".join(map(repr, row)) for row in values.tolist())])
                confounds = derivatives / below / f"{name}_desc-confounds_timeseries.tsv"
                confounds.write_text(table + "\n")
                confounds.with_suffix(".json").write_text("{}")
    return derivatives


def write_glmsingle(root: Path, form: str = "hdf5", trials: int = 10) -> Path:
    """A folder of GLMsingle's for one subject: `hdf5` of Python's, `mat` of MATLAB's, or Python's `npy`."""
    import h5py

    folder = root / "sub-01" / "ses-01" / "glmsingle"
    folder.mkdir(parents=True, exist_ok=True)
    betas = np.stack([beta(trial) for trial in range(trials)], axis=-1).astype(np.float32)
    path = folder / f"TYPED_FITHRF_GLMDENOISE_RR.{form}"
    if form == "npy":
        np.save(path, {"betasmd": betas}, allow_pickle=True)
        return path
    with h5py.File(path, "w") as file:
        if form == "hdf5":
            file["betasmd"] = betas
            file["R2"] = betas.mean(-1)
            file.attrs["pcnum"] = 3
        else:
            # MATLAB's arrays have their axes reversed in HDF5.
            file["modelmd"] = betas.transpose(3, 2, 1, 0)
    return path
