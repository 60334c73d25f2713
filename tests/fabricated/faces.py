"""A small folder in the layout of OpenNeuro's ds001761, with fMRIPrep's output of it."""

import json
from pathlib import Path

import numpy as np

from tests.fabricated import nifti as made

RUNS = [(1, 1), (1, 2), (2, 1), (2, 2)]
TESTED = ["M2156", "F1235"]
FIXATION = "placeholders/fixation.png"


def shown(run: int) -> list[tuple[str, str, str]]:
    """Kind, file and one-back mark of the five trials of a run, counted through from 0."""
    folder = f"sub01/run{run + 1:02d}"
    faces = [f"{folder}/F{10 * run + number:04d}.jpg" for number in range(2)]
    return [
        ("train_face", faces[0], "0"),
        ("train_face", faces[0], "1"),
        ("test_face", f"{folder}/{TESTED[run % 2]}.jpg", "0"),
        ("train_face", faces[1], "0"),
        ("test_face", f"{folder}/{TESTED[1 - run % 2]}.jpg", "0"),
    ]


def picture(name: str) -> np.ndarray:
    return np.random.default_rng(sum(map(ord, name))).integers(0, 256, (12, 8, 3), dtype=np.uint8)


def trials_of(run: int) -> list[int]:
    return list(range(run * len(made.ONSETS), (run + 1) * len(made.ONSETS)))


def write(root: Path, subject: str = "01") -> Path:
    """The raw folder with `derivatives/fmriprep` and `stimuli`, two sessions of two runs and a localiser's table."""
    from PIL import Image

    for run, (session, number) in enumerate(RUNS):
        below = Path(f"sub-{subject}", f"ses-0{session}", "func")
        name = f"sub-{subject}_ses-0{session}_task-faces_run-0{number}"
        rows = [
            [f"{onset:.6f}", f"{made.DURATION:.6f}", *row] for onset, row in zip(made.ONSETS, shown(run), strict=True)
        ]
        rows = [["0.1", "1.0", "Fix", FIXATION, "0"], *rows, ["150", "1.0", "Img", FIXATION, "0"]]
        made.write_events(root / below / f"{name}_events.tsv", rows, "onset duration trial_type stim_file oneback")
        # The published output of fMRIPrep writes numbers of runs without zeros, and has other spaces, too.
        short = name.replace("run-0", "run-")
        image = root / "derivatives" / "fmriprep" / below / f"{short}_space-T1w_desc-preproc_bold.nii.gz"
        made.save(image, made.bold(trials_of(run)), dtype=np.int16)
        made.save(
            image.with_name(image.name.replace("_desc-preproc_bold", "_desc-brain_mask")), made.chosen(), dtype=np.uint8
        )
        made.save(image.with_name(f"{short}_desc-preproc_bold.nii.gz"), made.bold(trials_of(run)), dtype=np.int16)
        sidecar = {"RepetitionTime": made.SECONDS, "StartTime": made.START, "TaskName": "faces"}
        image.with_name(image.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
        # The localiser has fMRIPrep's output, too, and a table of another kind.
        if run == 0:
            table = [["0.000000", "12.0", "face  "], ["12.0", "12.0", "object"]]
            localiser = name.replace("task-faces", "task-loc")
            made.write_events(root / below / f"{localiser}_events.tsv", table, "onset duration trial_type")
            other = image.with_name(image.name.replace("task-faces", "task-loc"))
            made.save(other, made.bold([0] * len(made.ONSETS)), dtype=np.int16)
        for _, file, _ in shown(run):
            path = root / "stimuli" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(path.stem)).save(path, format="PNG")
    (root / "stimuli" / "placeholders").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(root / "stimuli" / FIXATION)
    return root
