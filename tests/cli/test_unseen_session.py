"""Test trials in a session of their own: named before training, and a way that works from every command."""

import json
import shutil

import numpy as np
import pytest

from fmri_models import FmriProcessor, FmriToImagePipeline, TrialTable
from fmri_models.cli.main import main
from fmri_models.data import TrialTableWriter
from fmri_models.errors import FmriModelsError

SUBJECT = "subj01"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A table whose test trials are session 9, with two training trials in session 2, and a model trained on it."""
    folder = tmp_path_factory.mktemp("unseen")
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, size=(30, 3, 3))
    pictures = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    fmri = (coarse.reshape(30, 9) / 255 - 0.5) @ rng.normal(size=(9, 20)) + 0.1 * rng.normal(size=(30, 20))
    ids = [f"s{index:02d}" for index in range(30)]
    with TrialTableWriter(folder / "data", "t") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": each} for name, each in zip(ids, pictures, strict=True))
        ratios = np.linspace(0, 1, 20)
        writer.add_voxels(SUBJECT, 20, ncsnr=ratios, source="release", repetitions=1)
        writer.add_trials(SUBJECT, "train", ids[:20], fmri[:20], sessions=[1] * 18 + [2] * 2)
        writer.add_trials(SUBJECT, "validation", ids[20:25], fmri[20:25], sessions=[1] * 5)
        writer.add_trials(SUBJECT, "test", ids[25:], fmri[25:], sessions=[9] * 5)
    np.save(folder / "new.npy", fmri[25:].astype(np.float32))
    options = [f"data={folder / 'data'}", f"out={folder / 'model'}", "generator=pixels", "processor.num_best_voxels=15"]
    assert main(["train", "linear", *options]) == 0
    return folder


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, capsys.readouterr().err


def test_reconstruct_and_retrieve(workplace, tmp_path, capsys):
    own = ["--model", workplace / "model", "--subject", SUBJECT]
    for fmri in ([workplace / "data"], [workplace / "new.npy", "--session", 9]):
        status, said = run(capsys, "reconstruct", *own, "--fmri", *fmri, "--out", tmp_path / "no")
        assert status == 1 and "--unseen-session pooled" in said
        pooled = ["--unseen-session", "pooled"]
        out = tmp_path / str(len(fmri))
        assert run(capsys, "reconstruct", *own, "--fmri", *fmri, "--out", out, *pooled)[0] == 0
        assert run(capsys, "retrieve", *own, "--fmri", *fmri, "--gallery", out, *pooled)[0] == 0


def test_evaluate_says_how_trials_were_standardised_and_voxels_chosen(workplace, tmp_path, capsys):
    command = ["evaluate", "--model", workplace / "model", "--data", workplace / "data", "--protocol", "small_pictures"]
    status, said = run(capsys, *command, "--out", tmp_path / "no")
    assert status == 1 and "--unseen-session pooled" in said
    assert run(capsys, *command, "--out", tmp_path / "report", "--unseen-session", "pooled")[0] == 0
    notes = "\n".join(json.loads((tmp_path / "report" / "report.json").read_text())["notes"])
    assert "subj01 has test trials in sessions without training trials (9)" in notes
    assert "subj01 has sessions with fewer than 10 training trials, or in effect fewer stimuli (2)" in notes
    assert "chosen by the noise ceilings of a release" in notes


def test_fit_processor(workplace, tmp_path, capsys):
    shutil.copytree(workplace / "model", tmp_path / "model")
    command = ["fit-processor", tmp_path / "model", "--data", workplace / "data", "--unseen-session", "pooled"]
    assert run(capsys, *command)[0] == 0
    assert FmriProcessor.from_pretrained(tmp_path / "model" / "processor").unseen_session == "pooled"


def test_python(workplace):
    betas = TrialTable.open(workplace / "data").trials(SUBJECT, "test").fmri([0])
    pipeline = FmriToImagePipeline.from_pretrained(workplace / "model")
    with pytest.raises(FmriModelsError, match='load it with unseen_session="pooled"'):
        pipeline(betas, session=9)
    pipeline.processor.unseen_session = "pooled"
    by_attribute = pipeline(betas, session=9, output_type="np").images
    loaded = FmriToImagePipeline.from_pretrained(workplace / "model", unseen_session="pooled")
    np.testing.assert_array_equal(loaded(betas, session=9, output_type="np").images, by_attribute)
    with pytest.raises(FmriModelsError, match="unseen_session is 'poold'"):
        FmriToImagePipeline.from_pretrained(workplace / "model", unseen_session="poold")


def test_training_by_the_recipe(workplace, tmp_path, capsys):
    options = [f"data={workplace / 'data'}", f"out={tmp_path / 'model'}", "generator=pixels"]
    assert run(capsys, "train", "linear", *options, "processor.unseen_session=pooled")[0] == 0
    command = ["reconstruct", "--model", tmp_path / "model", "--subject", SUBJECT, "--fmri", workplace / "data"]
    assert run(capsys, *command, "--out", tmp_path / "out")[0] == 0


def test_misspelt_options_of_the_processor_in_recipes(workplace, tmp_path, capsys):
    options = [f"data={workplace / 'data'}", f"out={tmp_path / 'model'}", "generator=pixels"]
    status, said = run(capsys, "train", "linear", *options, "processor.statistic=pooled")
    assert status == 1 and "'statistics'" in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "model").exists()
