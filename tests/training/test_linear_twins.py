"""Recipes of published linear systems at a size that runs here, from a table to a report."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.encoders.selected_linear import SelectedLinear
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.simulation import simulate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.models.mindeye.test_digits69_mindeye import changed, prepared
from tests.small_table import write_small_table


@pytest.mark.parametrize(("name", "fewer"), [
    ("god_digits69", ["model.voxels_per_target=10", "stages.0.objective.parts.latents.iterations=10"]),
    ("dir_digits69", ["model.voxels_per_target=10"]),
])  # fmt: skip
def test_decoders_of_the_kamitani_lab(name: str, fewer: list[str], tmp_path: Path) -> None:
    data = write_small_table(tmp_path / "data", ("subj07",))
    train(load_recipe(name, [f"data={data}", f"out={tmp_path / 'out'}", *fewer]))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    (block,) = pipeline.brain_model.head("latents", "subj07").blocks
    assert isinstance(block, SelectedLinear) and block.indices.shape == (144, 10)
    assert pipeline.processor.ddof == 1 and pipeline.brain_model.config.parts["latents"]["standardise_targets"]
    report = evaluate(tmp_path / "out", data, tmp_path / "report", "small_pictures", rows=["mean_image"])
    assert report.results["brain"]["pixcorr"]["value"] > 0.6


def test_published_values_of_the_kamitani_lab() -> None:
    sparse, ridge = (load_recipe(name) for name in ("god_digits69", "dir_digits69"))
    assert sparse.stages[0].objective["parts"]["latents"]["solver"] == "sparse"
    assert sparse.stages[0].objective["parts"]["latents"]["iterations"] == 200
    assert ridge.model == {"voxels_per_target": 500} and ridge.stages[0].objective["penalties"] == [100]
    assert ridge.stages[0].objective["parts"]["latents"]["penalise_intercept"] is True
    for recipe in (sparse, ridge):
        assert recipe.repetitions == "single" and recipe.processor == {"statistics": "pooled", "ddof": 1}
        assert set(recipe.train_parts) == {"train", "validation"}


@pytest.mark.slow
def test_nothing_of_the_test_trials_is_learned_from(test_data: Path, tmp_path: Path) -> None:
    contents = scipy.io.loadmat(test_data / "data/digit69/digit69_28x28.mat")

    def weights(table: Path, out: str) -> dict[str, torch.Tensor]:
        train(load_recipe("dir_digits69", [f"data={table}", f"out={tmp_path / out}", "model.voxels_per_target=20"]))
        return FmriToImagePipeline.from_pretrained(tmp_path / out).brain_model.state_dict()

    first = weights(prepared(contents, tmp_path, "table"), "first")
    second = weights(prepared(changed(contents, "Test", slice(None)), tmp_path, "other_test"), "second")
    third = weights(prepared(changed(contents, "Trn", slice(1)), tmp_path, "other_training"), "third")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


@pytest.mark.slow
def test_another_subject_through_one_decoder(tmp_path: Path) -> None:
    data = simulate(
        "builtin:scenes", tmp_path / "data", num_subjects=2, num_voxels=80, num_train=120, num_validation=12,
        num_test=12, repetitions=1,
    )  # fmt: skip
    train(load_recipe("ferrante_cross_subject_scenes", [f"data={data}", f"out={tmp_path / 'out'}"]))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    known = pipeline.brain_model.config.alignment
    assert (known["to"], known["method"]) == ("subj01", "ridge") and known["stimuli"] >= 2
    assert set(pipeline.brain_model.config.penalties) == {"subj01"}
    trials = TrialTable.open(data).trials("subj02", "test")
    picture = pipe_picture(pipeline, trials)
    assert picture.shape == pipeline.image_generator.image_size and np.isfinite(picture).all()
    (note,) = pipeline.brain_model.config.notes_on_training
    assert "read by the decoder of subj01" in note


def pipe_picture(pipeline: FmriToImagePipeline, trials) -> np.ndarray:
    """What is drawn of the first test trial."""
    drawn = pipeline(trials.fmri([0]), subject="subj02", session=trials.sessions[0], output_type="pt").images
    return drawn[0].numpy()
