"""Trials that a fold holds out change nothing of what it learns: not one bit, whatever table and options."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.splits import SplitRows, add_split, split_kfold
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train

STIMULI, REPETITIONS, VOXELS = 24, 2, 12
IDS = [f"s{index:02d}" for index in range(STIMULI)]


def write_table(path: Path, offset: float, changed: set[str] = frozenset(), scale: float = 1.0) -> Path:
    """Betas of linear voxels around an offset; those of some stimuli are replaced by noise of another scale."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, size=(STIMULI, 3, 3))
    pictures = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    signal = (coarse.reshape(STIMULI, 9) / 255 - 0.5) @ rng.normal(size=(9, VOXELS))
    shown = np.repeat(np.arange(STIMULI), REPETITIONS)
    fmri = offset + signal[shown] + 0.3 * rng.normal(size=(len(shown), VOXELS))
    for row, index in enumerate(shown):
        if IDS[index] in changed:
            fmri[row] = scale * np.random.default_rng(row).normal(size=VOXELS)
    with TrialTableWriter(path, "t") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": each} for name, each in zip(IDS, pictures, strict=True))
        for part, chosen in (("train", shown < 20), ("test", shown >= 20)):
            rows = np.flatnonzero(chosen)
            writer.add_trials(
                "subj01", part, [IDS[shown[row]] for row in rows], fmri[rows], sessions=(rows % 2 + 1).tolist()
            )
    add_split(TrialTable.open(path), "kfold", split_kfold(SplitRows.of_table(TrialTable.open(path)), seed=0, folds=4))
    return path


def trained(data: Path, out: Path, split: str, *overrides: str) -> FmriToImagePipeline:
    recipe = [f"data={data}", f"out={out}", "generator=pixels", f"split={split}", "fold=0", *overrides]
    train(load_recipe("linear", ["stages.0.objective.selection=leave_one_stimulus_out", *recipe]))
    return FmriToImagePipeline.from_pretrained(out)


@pytest.mark.parametrize(("split", "scale"), [("default", 1.0), ("default", 1e9), ("kfold", 1.0)])
@pytest.mark.parametrize(("offset", "dtype"), [(0.0, np.float16), (1000.0, np.float32)])
def test_weights_and_statistics(split: str, scale: float, offset: float, dtype: type, tmp_path: Path) -> None:
    first = write_table(tmp_path / "first", offset)
    table = TrialTable.open(first)
    assert table.matrix("subj01")._values.dtype == dtype
    tested = set(table.trials("subj01", "test", split).stimulus_ids.tolist())
    second = write_table(tmp_path / "second", offset, tested, scale)
    pipelines = [
        trained(data, tmp_path / f"{data.name}-out", split, "processor.num_best_voxels=8") for data in (first, second)
    ]
    statistics = [pipeline.processor.subject("subj01") for pipeline in pipelines]
    for part in ("selected", "mean", "std", "pooled"):
        np.testing.assert_array_equal(*(getattr(each, part) for each in statistics))
    for one, other in zip(*(pipeline.brain_model.parameters() for pipeline in pipelines), strict=True):
        assert torch.equal(one, other)
