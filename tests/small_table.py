"""A small trial table whose voxels really hold what was shown: for tests of training and evaluation."""

from pathlib import Path

import numpy as np

from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_kfold

NUM_VOXELS = {"subj07": 60, "subj02": 45}
PARTS = {"train": 60, "validation": 10, "test": 12}
SIZE = 12


def write_small_table(
    path: Path,
    subjects: tuple[str, ...] = ("subj07", "subj02"),
    noise: float = 0.5,
    name: str = "small",
    first_picture: int = 0,
    subject_names: dict[str, str] | None = None,
) -> Path:
    """Blurred random pictures, three repetitions in three sessions of slightly different gain, noisy linear voxels."""
    pictures = _pictures(first_picture + sum(PARTS.values()))[first_picture:]
    ids = [f"picture{index:03d}" for index in range(len(pictures))]
    with TrialTableWriter(
        path, name=name, simulated=True, description="For tests.", license="CC0", source="drawn"
    ) as writer:
        writer.add_stimuli(
            {"stimulus_id": stimulus, "image": picture, "captions": [], "category": None, "factors": None}
            for stimulus, picture in zip(ids, pictures, strict=True)
        )
        for number, subject in enumerate(subjects):
            named = (subject_names or {}).get(subject, subject)
            _add_subject(writer, named, number, ids, pictures, noise, NUM_VOXELS[subject])
    return path


def _pictures(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, size=(count, 4, 4))
    return coarse.repeat(3, axis=1).repeat(3, axis=2).astype(np.uint8)


def _add_subject(
    writer: TrialTableWriter,
    subject: str,
    number: int,
    ids: list[str],
    pictures: np.ndarray,
    noise: float,
    num_voxels: int,
) -> None:
    rng = np.random.default_rng(100 + number)
    weights = rng.normal(size=(SIZE * SIZE, num_voxels)) / SIZE
    expected = (pictures.reshape(len(pictures), -1) / 255 - 0.5) @ weights
    writer.add_voxels(subject, num_voxels, roi=["V1"] * num_voxels)
    first, trial = 0, 0
    for part, count in PARTS.items():
        rows = np.repeat(np.arange(first, first + count), 3)
        repetitions = np.tile(np.arange(3), count)
        sessions = repetitions + 1
        gains = 1 + 0.1 * (sessions[:, None] - 2)
        noisy = expected[rows] + rng.normal(size=(len(rows), expected.shape[1])) * noise * expected.std()
        betas = noisy * gains + 0.1 * gains
        writer.add_trials(
            subject,
            part,
            stimulus_ids=[ids[row] for row in rows],
            sessions=sessions.tolist(),
            runs=[1] * len(rows),
            trials=list(range(trial, trial + len(rows))),
            repetitions=repetitions.tolist(),
            fmri=betas.astype(np.float32),
        )
        if part == "test":
            noise_free = (expected[rows[::3]] + 0.1).astype(np.float32)
            writer.add_noise_free(subject, [ids[row] for row in rows[::3]], noise_free)
        first, trial = first + count, trial + len(rows)


def write_kfold(path: Path, name: str, folds: int) -> None:
    """Adds a k-fold split to a table that does not have it yet."""
    table = TrialTable.open(path)
    if name not in table.split_names():
        add_split(table, name, split_kfold(SplitTrials.of_table(table), seed=0, folds=folds))
