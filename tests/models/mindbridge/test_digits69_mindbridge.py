"""The recipe digits69_mindbridge on the published data: one subject, whose pixels are decoded as an embedding."""

from pathlib import Path

import pytest
import scipy.io
import torch
from safetensors.torch import load_file

from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.models.mindeye.test_digits69_mindeye import changed, check_draws_what_was_shown, prepared

MAT_FILE = "data/digit69/digit69_28x28.mat"


def trained(data: Path, out: Path, steps: int = 2) -> dict[str, torch.Tensor]:
    """Weights of the brain model, and the processor's statistics, after a short training."""
    few = [f"stages.0.training.{key}={steps}" for key in ("steps", "checkpoint_every")]
    train(load_recipe("digits69_mindbridge", [f"data={data}", f"out={out}", *few]))
    return {
        **load_file(out / "brain_model" / "model.safetensors"),
        **load_file(out / "processor" / "fmri_statistics.st"),
    }


def test_recipe() -> None:
    recipe = load_recipe("digits69_mindbridge")
    assert recipe.model["use_builders"] is False
    # All of the fold but its test trials, and no choice by validation.
    assert set(recipe.train_parts) == {"train", "validation"} and recipe.selection is None
    assert all(not stage.held_out_parts for stage in recipe.stages)


@pytest.mark.slow
def test_nothing_of_the_test_trials_enters_training(test_data: Path, tmp_path: Path) -> None:
    contents = scipy.io.loadmat(test_data / MAT_FILE)
    first = trained(prepared(contents, tmp_path, "table"), tmp_path / "first")
    second = trained(prepared(changed(contents, "Test", slice(None)), tmp_path, "other_test"), tmp_path / "second")
    assert all(torch.equal(first[name], second[name]) for name in first)
    # One trial that is learned from, so that the comparison above can fail.
    third = trained(prepared(changed(contents, "Trn", slice(1)), tmp_path, "other_training"), tmp_path / "third")
    assert any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.slow
def test_a_short_training_draws_what_was_shown(test_data: Path, tmp_path: Path) -> None:
    table = prepared(scipy.io.loadmat(test_data / MAT_FILE), tmp_path, "table")
    trained(table, tmp_path / "out", steps=150)
    check_draws_what_was_shown(table, tmp_path / "out")
