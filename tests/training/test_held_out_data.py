"""Trials that a fold holds out change nothing of what it learns: not one bit, whatever table and options."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_kfold
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train

STIMULI, REPETITIONS, VOXELS = 24, 2, 12
IDS = [f"s{index:02d}" for index in range(STIMULI)]


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": lambda fmri, rng: rng.normal(size=fmri.shape),
    "large noise": lambda fmri, rng: 1e9 * rng.normal(size=fmri.shape),
    "N(0, 5)": lambda fmri, rng: 5 * rng.normal(size=fmri.shape),
    "x 100": lambda fmri, rng: 100 * fmri,
    "+ 1000": lambda fmri, rng: fmri + 1000,
    "1e9": lambda fmri, rng: 1e9 + 64 * np.arange(fmri.size).reshape(fmri.shape),
}


def write_table(
    path: Path, offset: float, dtype: type, sessions: int, changed: set[str] = frozenset(), change: str = "noise"
) -> Path:
    """Betas of linear voxels around an offset; those of some stimuli are changed."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, size=(STIMULI, 3, 3))
    pictures = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    signal = (coarse.reshape(STIMULI, 9) / 255 - 0.5) @ rng.normal(size=(9, VOXELS))
    shown = np.repeat(np.arange(STIMULI), REPETITIONS)
    fmri = offset + signal[shown] + 0.3 * rng.normal(size=(len(shown), VOXELS))
    fmri = fmri.astype(dtype).astype(np.float64)
    is_changed = np.array([IDS[index] in changed for index in shown])
    fmri[is_changed] = CHANGES[change](fmri[is_changed], rng)
    with TrialTableWriter(path, "t") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": each} for name, each in zip(IDS, pictures, strict=True))
        for part, chosen in (("train", shown < 20), ("test", shown >= 20)):
            rows = np.flatnonzero(chosen)
            writer.add_trials(
                "subj01", part, [IDS[shown[row]] for row in rows], fmri[rows], sessions=(rows % sessions + 1).tolist()
            )
    add_split(TrialTable.open(path), "kfold", split_kfold(SplitTrials.of_table(TrialTable.open(path)), seed=0, folds=4))
    return path


def trained(data: Path, out: Path, split: str, *overrides: str) -> FmriToImagePipeline:
    recipe = [f"data={data}", f"out={out}", "generator=pixels", f"split={split}", "fold=0", *overrides]
    train(load_recipe("linear", ["stages.0.objective.selection=leave_one_stimulus_out", *recipe]))
    return FmriToImagePipeline.from_pretrained(out)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("split", "offset", "dtype", "sessions"),
    [
        ("default", 0.0, np.float16, 2),
        ("default", 1000.0, np.float32, 2),
        ("kfold", 0.0, np.float16, 2),
        ("kfold", 0.0, np.float32, 3),
        ("kfold", 1000.0, np.float32, 2),
    ],
)
def test_weights_and_statistics(
    split: str, offset: float, dtype: type, sessions: int, change: str, tmp_path: Path
) -> None:
    first = write_table(tmp_path / "first", offset, dtype, sessions)
    table = TrialTable.open(first)
    assert table.matrix("subj01")._values.dtype == dtype
    tested = set(table.trials("subj01", "test", split).stimulus_ids.tolist())
    second = write_table(tmp_path / "second", offset, dtype, sessions, tested, change)
    pipelines = [
        trained(data, tmp_path / f"{data.name}-out", split, "processor.num_best_voxels=8") for data in (first, second)
    ]
    statistics = [pipeline.processor.subject("subj01") for pipeline in pipelines]
    for part in ("selected", "mean", "std", "pooled"):
        np.testing.assert_array_equal(*(getattr(each, part) for each in statistics))
    for one, other in zip(*(pipeline.brain_model.parameters() for pipeline in pipelines), strict=True):
        assert torch.equal(one, other)
