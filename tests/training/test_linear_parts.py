"""Recipes of the linear method with options for each target, from the command line's words to a report."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable
from fmri_models.encoders.selected_linear import SelectedLinear
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.evaluation.regional_table import Region, write_regional_table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    regions = {"subj01": [Region("V1", 30, 16), Region("V2", 20, 8), Region("", 10, 0)]}
    return write_regional_table(tmp_path_factory.mktemp("regional") / "data", regions)


def trained(data: Path, out: Path, *overrides: str) -> FmriToImagePipeline:
    shared = [f"data={data}", f"out={out}", "generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [*shared, *overrides]))
    return FmriToImagePipeline.from_pretrained(out)


def test_options_of_a_part_reach_the_fit(data, tmp_path):
    pipeline = trained(
        data, tmp_path / "linear",
        "processor.statistics_over=averages", "processor.ddof=1",
        "model.voxels_per_target=8",
        "stages.0.objective.parts.latents.rois=[V1, V2]",
        "stages.0.objective.parts.latents.penalty_per=target",
        "stages.0.objective.parts.latents.folds=4",
        "stages.0.objective.parts.latents.penalise_intercept=true",
        "stages.0.objective.parts.latents.standardise_targets=true",
    )  # fmt: skip
    stated = {
        "rois": ["V1", "V2"], "penalty_per": "target", "folds": 4, "penalise_intercept": True,
        "standardise_targets": True,
    }  # fmt: skip
    assert pipeline.brain_model.config.parts == {"latents": stated}
    assert (pipeline.processor.statistics_over, pipeline.processor.ddof) == ("averages", 1)
    (block,) = pipeline.brain_model.head("latents", "subj01").blocks
    assert isinstance(block, SelectedLinear) and block.indices.max() < 50
    trials = TrialTable.open(data).trials("subj01", "test")
    found = pipeline(trials.fmri(), output_type="pt").images.flatten(1)
    shown = torch.from_numpy(trials.table.stimuli.images(trials.stimulus_ids)[..., 0] / 255.0).flatten(1)
    assert np.corrcoef(found.mean(0), shown.mean(0))[0, 1] > 0.5
    scores = [np.corrcoef(a, b)[0, 1] for a, b in zip(found, shown, strict=True)]
    assert np.mean(scores) > 0.7


def test_statistics_of_the_whole_test_set_mark_the_report(data, tmp_path):
    restandardised = "stages.0.objective.parts.latents.restandardise=test"
    pipeline = trained(data, tmp_path / "linear", restandardised, "stages.0.objective.penalties=[1000]")
    trials = TrialTable.open(data).trials("subj01", "test")
    with pytest.raises(FmriModelsError, match="statistics of the whole test set"):
        pipeline(trials.fmri())
    report = evaluate(tmp_path / "linear", data, tmp_path / "report", "small_pictures")
    assert report.model["transductive"] is True
    assert any("mean and spread of all predictions of the test set" in note for note in report.notes)
    other = trained(data, tmp_path / "plain", "stages.0.objective.penalties=[1000]")
    plain = evaluate(tmp_path / "plain", data, tmp_path / "plain-report", "small_pictures")
    assert other.brain_model.is_transductive is False and plain.model["transductive"] is False
    assert {"ridge", "permuted_training"} <= set(report.results)


@pytest.mark.parametrize(("override", "message"), [
    ("stages.0.objective.parts.latents.rois=[V4]", "has the rois V4 for latents, and subj01 has no voxel there"),
    ("stages.0.objective.parts.latents.penalty=3", "has the unknown key 'penalty'; did you mean 'penalty_per'"),
    ("model.voxels_per_target=61", "is 61, and there are 60 voxels of subj01"),
])  # fmt: skip
def test_what_does_not_fit_is_a_sentence(data, tmp_path, override, message):
    with pytest.raises(FmriModelsError, match=message):
        trained(data, tmp_path / "linear", override)
