"""MindBridge trained on a small table: subjects of unequal voxels, pooled or not, and what is saved of them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.evaluation.synthesis import synthesis_of_table
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import NUM_VOXELS, write_small_table

SMALL = [
    "generator=pixels", "targets=[image_embeds]", "model.hidden_size=64", "model.num_hidden_layers=1",
    "model.adapter_size=8", "stages.0.training.epochs=null", "stages.0.training.steps=60",
    "stages.0.training.batch_size=24", "stages.0.training.mixed_precision='no'",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_table(tmp_path_factory.mktemp("table") / "data")


def trained(data: Path, out: Path, *overrides: str) -> Any:
    train(load_recipe("mindbridge", [f"data={data}", f"out={out}", *SMALL, *overrides]))
    return FmriToImagePipeline.from_pretrained(out)


def test_both_subjects_are_decoded_and_turned_into_each_other(data, tmp_path):
    pipeline = trained(data, tmp_path / "out", "processor.pool_width=50")
    assert pipeline.brain_model.config.num_voxels == [50, 50]
    table = TrialTable.open(data)
    # Decoded embeddings are as long as those of training pictures.
    assert pipeline.brain_model.config.image_embedding_norm > 0
    for pair in synthesis_of_table(pipeline, table).values():
        assert pair["target"].two_way > 0.6 and pair["synthetic"].two_way > 0.55
        assert pair["synthetic"].pattern_correlation > 0.05


def test_subjects_of_unequal_widths_and_repetitions(data, tmp_path):
    options = ["repetitions=all", "stages.0.objective.cycle=newest", "stages.0.training.steps=4"]
    pipeline = trained(data, tmp_path / "out", *options, "subjects=[subj07, subj02]")
    assert pipeline.brain_model.config.num_voxels == [NUM_VOXELS["subj07"], NUM_VOXELS["subj02"]]
    assert all(each.isfinite().all() for each in pipeline.brain_model.parameters())


def test_the_same_recipe_gives_the_same_weights(data, tmp_path):
    first, second = (trained(data, tmp_path / name, "stages.0.training.steps=4").brain_model for name in ("a", "b"))
    assert first.config.image_embedding_norm == second.config.image_embedding_norm
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
