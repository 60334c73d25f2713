"""The recipe digits69_mindvis on the published data: each fold trains a diffusion model of the pixels from nothing."""

from pathlib import Path

import pytest
import scipy.io
import torch
from safetensors.torch import load_file

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.models.mindeye.test_digits69_mindeye import changed, check_draws_what_was_shown, prepared

MAT_FILE = "data/digit69/digit69_28x28.mat"


def trained(data: Path, out: Path, steps: int = 2) -> dict[str, torch.Tensor]:
    """Weights after a short training, of the brain model and the UNet, and the processor's statistics."""
    few = [f"stages.{number}.training.{key}={steps}" for number in (0, 1) for key in ("steps", "checkpoint_every")]
    train(load_recipe("digits69_mindvis", [f"data={data}", f"out={out}", *few]))
    return {
        **load_file(out / "brain_model" / "model.safetensors"),
        **load_file(out / "image_generator" / "unet" / "diffusion_pytorch_model.safetensors"),
        **load_file(out / "processor" / "fmri_statistics.st"),
    }


def test_recipe() -> None:
    recipe = load_recipe("digits69_mindvis")
    pretraining, generator = recipe.stages
    assert (
        pretraining.objective["module"] == "masked" and not pretraining.unpaired and pretraining.image_generator is None
    )
    assert generator.objective["module"] == "conditioner" and generator.image_generator == {"train": ["all"]}
    # All of the fold but its test trials, and no choice by validation.
    assert set(recipe.train_parts) == {"train", "validation"} and recipe.selection is None
    assert all(not stage.held_out_parts for stage in recipe.stages)
    assert recipe.processor["patch_size"] == recipe.model["patch_size"]


@pytest.mark.slow
def test_nothing_of_the_test_trials_enters_training(test_data: Path, tmp_path: Path) -> None:
    contents = scipy.io.loadmat(test_data / MAT_FILE)
    table = prepared(contents, tmp_path, "table")
    first = trained(table, tmp_path / "first")

    other_test = prepared(changed(contents, "Test", slice(None)), tmp_path, "other_test")
    second = trained(other_test, tmp_path / "second")
    assert TrialTable.open(other_test).fingerprint != TrialTable.open(table).fingerprint
    assert all(torch.equal(first[name], second[name]) for name in first)

    # One trial that is learned from, so that the comparison above can fail: brain model and UNet learn from it.
    other_training = prepared(changed(contents, "Trn", slice(1)), tmp_path, "other_training")
    third = trained(other_training, tmp_path / "third")
    assert not torch.equal(first["encoder.patch_embed.weight"], third["encoder.patch_embed.weight"])
    assert not torch.equal(first["conv_out.weight"], third["conv_out.weight"])


@pytest.mark.slow
def test_record_says_that_the_generator_was_trained(test_data: Path, tmp_path: Path) -> None:
    table = prepared(scipy.io.loadmat(test_data / MAT_FILE), tmp_path, "table")
    trained(table, tmp_path / "out")
    record = TrainingRecord.load(tmp_path / "out")
    assert record is not None and [stage["stage"] for stage in record.stages] == ["pretraining", "generator"]
    assert set(record.train_parts) == {"train", "validation"}
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert pipeline.has_trained_generator and pipeline.image_generator.image_size == (1, 28, 28)


@pytest.mark.slow
def test_a_short_training_draws_what_was_shown(test_data: Path, tmp_path: Path) -> None:
    table = prepared(scipy.io.loadmat(test_data / MAT_FILE), tmp_path, "table")
    trained(table, tmp_path / "out", steps=150)
    check_draws_what_was_shown(table, tmp_path / "out")
