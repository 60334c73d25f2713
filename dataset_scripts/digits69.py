"""digits69 (van Gerven et al. 2010): one subject, hand-written sixes and nines, V1 to V3 at 3 T.

Reads `digit69_28x28.mat`, the file that the DGMM papers published (github.com/ChangdeDu/DGMM), and writes a trial table
with their split: 90 trials to learn from, and the last five of each digit to test on. Nine stimuli of the 90 are set
aside for validation, drawn by a seed; a method that needs no validation learns from `train` and `validation` together.
A second split, `kfold10`, tests each picture once (ten folds, the digits spread evenly).

No licence is stated where the file is published, and the original data came under a data use agreement: for research.
"""

import zipfile
from pathlib import Path

import numpy as np

from fmri_models.data import TrialTableWriter
from fmri_models.data.folder_or_zip import open_zip
from fmri_models.data.matlab import read_mat
from fmri_models.data.pictures import content_sha256
from fmri_models.data.published.record import prepared_record
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import split_by_stimulus, split_kfold
from fmri_models.errors import FmriModelsError
from fmri_models.output_folders import TRIAL_TABLE, check_output_folder
from fmri_models.reading import check_regular_file

VERSION = 1
FILE = "digit69_28x28.mat"
SUBJECT = "subj01"
SIZE = 28
NUM_VOXELS = 3092
DIGITS = {1: "six", 2: "nine"}
PAPER = {
    "title": "Neural Decoding with Hierarchical Generative Models",
    "authors": ("van Gerven, Marcel A. J.", "de Lange, Floris P.", "Heskes, Tom"),
    "year": 2010,
    "url": "https://doi.org/10.1162/NECO_a_00047",
    "venue": "Neural Computation",
}
ORIGIN = "https://github.com/ChangdeDu/DGMM"
CITATION = (
    "M. A. J. van Gerven, F. P. de Lange, T. Heskes (2010): Neural decoding with hierarchical generative models. "
    "Neural Computation 22(12), 3127-3142. File as published with C. Du, C. Du, L. Huang, H. He (2019): Reconstructing "
    "perceived images from human brain activities with Bayesian deep multiview learning. IEEE TNNLS."
)
LICENSE = "none stated; the original is under a data use agreement (research only, not to be passed on)"
DESCRIPTION = (
    "100 trials of one subject who looked at 50 hand-written sixes and 50 nines (28 x 28, grey); 3,092 voxels of V1, "
    "V2 and V3. Measured at 3 T, one trial a picture. The default split is the published one: the last five sixes and "
    "the last five nines are tested; validation is drawn from the other 90."
)


def prepare(source: Path, out: Path, seed: int = 0, validation_fraction: float = 0.1, overwrite: bool = False) -> None:
    """Writes the trial table.

    Args:
        source: `digit69_28x28.mat`, or the folder or zip file that it is in.
        out: The folder to be written.
        seed: Draws the validation stimuli and the folds.
        validation_fraction: Share of the 90 training stimuli for validation.
        overwrite: Replace a folder that has content.

    Raises:
        FmriModelsError: The file isn't there or is another one.
    """
    source = Path(source)
    check_output_folder(out, overwrite, TRIAL_TABLE, inputs=[source])
    fmri, pictures, digits, is_test = read_published(source)
    ids = _stimulus_ids(digits)
    categories = dict(zip(ids, digits, strict=True))
    groups = {stimulus: content_sha256(picture) for stimulus, picture in zip(ids, pictures, strict=True)}
    if shared := {groups[i] for i, test in zip(ids, is_test, strict=True) if test} & {
        groups[i] for i, test in zip(ids, is_test, strict=True) if not test
    }:
        raise FmriModelsError(f"{len(shared)} test pictures of {source} are training pictures too; it is another file.")

    training = np.flatnonzero(~is_test)
    rows = SplitTrials([SUBJECT] * len(training), training.tolist(), [ids[row] for row in training], groups=groups)
    # What is drawn from the 90 as a "test" part is the validation part.
    drawn = split_by_stimulus(rows, seed, test_fraction=validation_fraction, validation_fraction=0)
    is_validation = np.zeros(len(ids), dtype=bool)
    is_validation[training] = np.array(drawn.table["split"].to_pylist()) == "test"
    parts = np.where(is_test, "test", np.where(is_validation, "validation", "train"))

    everything = SplitTrials([SUBJECT] * len(ids), list(range(len(ids))), ids, groups=groups, categories=categories)
    folds = split_kfold(everything, seed, folds=10, validation_fraction=validation_fraction)
    with TrialTableWriter(
        out,
        "digits69",
        description=DESCRIPTION,
        license=LICENSE,
        source=CITATION,
        created_by="dataset_scripts/digits69.py",
        overwrite=overwrite,
        inputs=[source],
    ) as writer:
        writer.add_stimuli(
            {
                "stimulus_id": stimulus,
                "image": picture,
                "captions": [f"a hand-written {digit}"],
                "category": digit,
            }
            for stimulus, picture, digit in zip(ids, pictures, digits, strict=True)
        )
        # The file doesn't say which voxel is in which of V1, V2 and V3, nor where it lies.
        writer.add_voxels(SUBJECT, fmri.shape[1], roi=["V1-V3"] * fmri.shape[1])
        for part in ("train", "validation", "test"):
            chosen = np.flatnonzero(parts == part)
            shown = [ids[row] for row in chosen]
            writer.add_trials(SUBJECT, part, stimulus_ids=shown, trials=chosen.tolist(), fmri=fmri[chosen])
        writer.add_split("kfold10", folds.table, by=folds.by, seed=seed)
        writer.extra["split"] = {"default": "published, validation drawn", "seed": seed}
        options = {"seed": seed, "validation_fraction": validation_fraction}
        writer.extra["prepared"] = prepared_record(
            "dataset_scripts/digits69.py", VERSION, options, [_file_of(source)], source
        )


def read_published(source: Path) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """The published file's contents, training rows first.

    Returns:
        Responses (100, 3092) float64, upright pictures (100, 28, 28, 1) uint8, the digits' names, and which rows are
        the published test trials.

    Raises:
        FmriModelsError: The file isn't there or is another one.
    """
    parts = {"fmri": NUM_VOXELS, "stim": SIZE * SIZE, "label": 1}
    found = _load(source, [f"{part}{which}" for part in parts for which in ("Trn", "Test")])
    arrays = {}
    for part, width in parts.items():
        for which, rows in (("Trn", 90), ("Test", 10)):
            array = found.get(f"{part}{which}")
            if not isinstance(array, np.ndarray) or array.shape != (rows, width):
                shape = getattr(array, "shape", "nothing")
                raise FmriModelsError(
                    f"{part}{which} in {source} is {shape}; expected {(rows, width)}: give the published {FILE}."
                )
            arrays[f"{part}{which}"] = array
    fmri, stimuli, labels = (np.concatenate([arrays[f"{part}Trn"], arrays[f"{part}Test"]]) for part in parts)
    if unknown := sorted(set(labels.ravel().tolist()) - set(DIGITS)):
        raise FmriModelsError(f"{source} has the label {unknown[0]}; expected 1 (six) and 2 (nine).")
    if not np.isin(stimuli, np.arange(256)).all():
        raise FmriModelsError(f"{source} has pictures with other values than 0 to 255: give the published {FILE}.")
    # MATLAB stores columns first, so that each picture lies on its side.
    pictures = stimuli.reshape(-1, SIZE, SIZE).transpose(0, 2, 1)[..., None].astype(np.uint8)
    return fmri, pictures, [DIGITS[int(label)] for label in labels.ravel()], np.arange(len(fmri)) >= 90


def _load(source: Path, names: list[str]) -> dict[str, np.ndarray]:
    mend = f"give the published {FILE}"
    source = _file_of(source)
    if zipfile.is_zipfile(check_regular_file(source, "source", mend)):
        with open_zip(source, "no zip file") as archive:
            member = next((name for name in archive.namelist() if Path(name).name == FILE), None)
        if member is None:
            raise FmriModelsError(f"{source} has no {FILE}; {mend}.")
        return read_mat(source, names, mend, member)
    return read_mat(source, names, mend)


def _file_of(source: Path) -> Path:
    """The published file, or the zip file that was given.

    Raises:
        FmriModelsError: It isn't there.
    """
    if not source.exists():
        raise FmriModelsError(f"{source} does not exist; give {FILE}, or the folder or zip file that it is in.")
    if not source.is_dir():
        return source
    files = sorted(source.rglob(FILE))
    if not files:
        raise FmriModelsError(f"{source} has no {FILE}; give that file, or the folder or zip file that it is in.")
    return files[0]


def _stimulus_ids(digits: list[str]) -> list[str]:
    """`six_01` to `six_50` and `nine_01` to `nine_50`, in the order of the file."""
    return [f"{digit}_{digits[: row + 1].count(digit):02d}" for row, digit in enumerate(digits)]
