"""The examples that the package carries: what `load_example` gives is what their reports have measured."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

import fmri_models
from fmri_models import FmriModelsError, FmriToImagePipeline, TrialTable
from fmri_models.evaluation import pixcorr, ssim
from fmri_models.evaluation.report import Report
from fmri_models.examples import EXAMPLES_FOLDER, TRIALS_FOLDER, example_names
from fmri_models.hub.card_check import card_differences
from fmri_models.training_record import TrainingRecord
from tests.new_process import python

NAMES = ["linear-scenes", "mindeye-scenes"]
EACH = pytest.mark.parametrize("name", NAMES)
_MOST_BYTES = 16 * 2**20
# What two processors may differ by in a mean over 24 pictures.
_NUMERICAL = 0.01


@pytest.fixture(scope="module")
def loaded():
    return {name: fmri_models.load_example(name) for name in NAMES}


@pytest.fixture(scope="module")
def pictures(loaded):
    """Name ▶ (24, 3, 64, 64) what the pipeline draws of the trials, with the report's seeds."""
    drawn = {}
    for name, (pipeline, trials) in loaded.items():
        seeds = [torch.Generator().manual_seed(index) for index in range(len(trials))]
        output = pipeline(
            trials.fmri(), subject=trials.subject, session=trials.sessions, generator=seeds, output_type="pt"
        )
        drawn[name] = output.images
    return drawn


def shown(trials) -> torch.Tensor:
    return torch.from_numpy(trials.table.stimuli.images(trials.stimulus_ids)).permute(0, 3, 1, 2) / 255


def report(name: str) -> Report:
    return Report.load(EXAMPLES_FOLDER / name / "report.json")


def test_these_are_carried():
    assert example_names() == NAMES


def test_all_of_it_is_small():
    assert sum(path.stat().st_size for path in EXAMPLES_FOLDER.rglob("*") if path.is_file()) <= _MOST_BYTES


@EACH
def test_a_pipeline_and_24_test_trials_are_loaded(loaded, name):
    pipeline, trials = loaded[name]
    assert isinstance(pipeline, FmriToImagePipeline)
    assert type(pipeline).__name__.lower().startswith(name.partition("-")[0])
    assert len(trials) == 24 and len(set(trials.stimulus_ids.tolist())) == 24
    assert trials.table.simulated
    assert trials.num_voxels == pipeline.processor.subject(trials.subject).num_voxels
    assert not pipeline.brain_model.training


@EACH
def test_weights_are_in_half_precision_and_the_generator_is_named(name):
    folder = EXAMPLES_FOLDER / name
    assert not (folder / "image_generator").exists()
    assert json.loads((folder / "model_index.json").read_text())["image_generator_source"]["name"] == "embedded"
    with safe_open(folder / "brain_model" / "model.safetensors", "pt") as weights:
        dtypes = {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118
    assert dtypes == {"F16"}


@EACH
def test_it_computes_in_what_was_asked_for(name):
    assert fmri_models.load_example(name)[0].dtype == torch.float32
    assert fmri_models.load_example(name, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.slow
@EACH
def test_the_report_has_measured_these_pictures(loaded, pictures, name):
    truth = shown(loaded[name][1])
    measured = report(name).results["brain"]
    assert measured["pixcorr"]["n"] == 24
    assert pixcorr(truth, pictures[name]) == pytest.approx(measured["pixcorr"]["value"], abs=_NUMERICAL)
    assert ssim(truth, pictures[name]) == pytest.approx(measured["ssim"]["value"], abs=_NUMERICAL)


@pytest.mark.slow
@EACH
def test_exchanged_brains_give_other_pictures(loaded, pictures, name):
    """The figures come from the brain, not from pictures that are alike."""
    truth = shown(loaded[name][1])
    assert pixcorr(truth, pictures[name].roll(1, 0)) < pixcorr(truth, pictures[name]) - 0.4


def test_mindeye_is_not_below_linear():
    linear, mindeye = (report(name).results["brain"] for name in NAMES)
    compared = [name for name, found in linear.items() if found is not None and found["value"] is not None]
    assert len(compared) >= 12
    for name in compared:
        better = mindeye[name]["value"] - linear[name]["value"]
        better = -better if name == "mse" else better
        # What few of the pictures define differs by chance.
        is_of_few = linear[name]["n"] < 24 and mindeye[name]["ci95"][1] > linear[name]["value"]
        assert better >= 0 or is_of_few, name


@EACH
def test_the_trials_were_held_out(loaded, name):
    pipeline, trials = loaded[name]
    record = TrainingRecord.load(EXAMPLES_FOLDER / name)
    assert record is not None and record.learned_from is not None and not record.unknown_initial_models
    assert pipeline.training_record == record
    hashes = trials.table.stimuli.content_hashes(trials.stimulus_ids)
    assert all(training.pictures is not None for training in record.learned_from)
    assert not any(any(training.knows(hashes)) for training in record.learned_from)


@EACH
def test_the_card_says_what_the_report_says(name):
    assert card_differences(EXAMPLES_FOLDER / name) == []


def test_the_trials_are_a_table_like_any():
    table = TrialTable.open(EXAMPLES_FOLDER / TRIALS_FOLDER)
    assert table.subjects == ["subj01"]
    assert np.isfinite(table.trials("subj01", "test").fmri()).all()


def test_an_unknown_name_is_told_with_those_that_there_are():
    with pytest.raises(FmriModelsError, match="no example 'mindeye-scene'.*linear-scenes.*mindeye-scenes"):
        fmri_models.load_example("mindeye-scene")


@pytest.mark.slow
def test_it_is_saved_and_loaded_like_any_pipeline(loaded, tmp_path):
    pipeline, trials = loaded["linear-scenes"]
    pipeline.save_pretrained(tmp_path / "saved")
    again = FmriToImagePipeline.from_pretrained(tmp_path / "saved")
    arguments = {"subject": trials.subject, "session": trials.sessions[:2], "output_type": "np"}
    first, second = (
        each(trials.fmri([0, 1]), generator=torch.Generator().manual_seed(0), **arguments).images
        for each in (pipeline, again)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert (tmp_path / "saved" / "report.json").is_file() and again.training_record == pipeline.training_record


@pytest.mark.slow
def test_a_new_process_needs_no_network_and_no_home(tmp_path):
    code = "import fmri_models; p, t = fmri_models.load_example(); print(len(t), t.fmri().shape)"
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path / "none"),
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    told = subprocess.run([*python(), "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert told.stdout.split("\n")[0] == "24 (24, 1000)", told.stderr
