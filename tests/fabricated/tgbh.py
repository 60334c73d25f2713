"""A BIDS folder in the layout of The Grand Budapest Hotel: five runs of one subject, with films of a few seconds."""

import json
from pathlib import Path

import numpy as np

from tests.fabricated import nifti as made

SUBJECT, SECONDS, BUFFER = "sub-sid000005", 1.0, 10
# Of each run: seconds of film that the run before has shown already, and seconds of new film.
RUNS = [(0, 17), (10, 14), (20, 15), (12, 16), (11, 18)]


def series(run: int) -> np.ndarray:
    """(x, y, z, volumes) of a run from 1 on, without drifts: noise about a baseline."""
    overlap, new = RUNS[run - 1]
    rng = np.random.default_rng(run)
    return 100 + rng.normal(size=(*made.SHAPE, 2 * BUFFER + overlap + new + 1))


def onset(run: int) -> float:
    """Of the new film."""
    return float(BUFFER + RUNS[run - 1][0])


def write(root: Path) -> Path:
    for run, (overlap, new) in enumerate(RUNS, 1):
        name = f"{SUBJECT}_task-movie_run-{run}"
        rows = [[f"{BUFFER:.1f}", f"{overlap:.1f}", "overlap_with_previous_run"]] if overlap else []
        rows.append([f"{onset(run):.1f}", f"{new:.1f}", "movie"])
        made.write_events(root / SUBJECT / "func" / f"{name}_events.tsv", rows, "onset duration trial_type")
        folder = root / "derivatives" / "fmriprep" / SUBJECT / "func"
        image = made.save(folder / f"{name}_space-T1w_desc-preproc_bold.nii.gz", series(run))
        image.with_name(image.name.replace(".nii.gz", ".json")).write_text(json.dumps({"RepetitionTime": SECONDS}))
        made.save(folder / f"{name}_space-T1w_desc-brain_mask.nii.gz", made.chosen(), dtype=np.uint8)
    return root


def write_frames(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir()
    for run, (_, new) in enumerate(RUNS, 1):
        for clip in range(new // 2):
            pixels = np.random.default_rng(100 * run + clip).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"movie_run-{run}-{clip:04d}.png")
    return folder
