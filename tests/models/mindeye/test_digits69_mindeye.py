"""The recipe digits69_mindeye: on the published data, and on a person's own arrays."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from safetensors.torch import load_file

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.training.inner_folds import inner_split
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord

FEW_STEPS = [
    "stages.0.training.steps=2",
    "stages.1.training.steps=2",
    "model.prior_num_inference_steps=2",
    "selection={folds: 2, candidates: [{stages.0.simulation.noise: 1}, {stages.0.simulation.noise: 3}]}",
]


def trained(data: Path, out: Path, *overrides: str) -> tuple[dict[str, torch.Tensor], TrainingRecord]:
    """Weights and record of a short training; the tables' processors come with the weights."""
    train(load_recipe("digits69_mindeye", [f"data={data}", f"out={out}", *FEW_STEPS, *overrides]))
    weights = load_file(out / "brain_model" / "model.safetensors")
    weights |= load_file(out / "processor" / "fmri_statistics.st")
    record = TrainingRecord.load(out)
    assert record is not None
    return weights, record


@pytest.mark.slow
def test_nothing_of_the_test_trials_enters_training(test_data: Path, tmp_path: Path) -> None:
    contents = scipy.io.loadmat(test_data / "data/digit69/digit69_28x28.mat")
    table = prepared(contents, tmp_path, "table")
    first, record = trained(table, tmp_path / "first")

    other_test = prepared(changed(contents, "Test", slice(None)), tmp_path, "other_test")
    second, second_record = trained(other_test, tmp_path / "second")
    assert TrialTable.open(other_test).fingerprint != TrialTable.open(table).fingerprint
    assert record.selection == second_record.selection
    assert all(torch.equal(first[name], second[name]) for name in first)

    # One trial that is learned from, so that the comparison above can fail.
    other_training = prepared(changed(contents, "Trn", slice(1)), tmp_path, "other_training")
    third, third_record = trained(other_training, tmp_path / "third")
    assert record.selection != third_record.selection
    assert not torch.equal(first["backbone.output.weight"], third["backbone.output.weight"])


@pytest.mark.slow
def test_each_of_the_ten_folds_learns_from_its_own_trials_alone(test_data: Path, tmp_path: Path) -> None:
    data = prepared(scipy.io.loadmat(test_data / "data/digit69/digit69_28x28.mat"), tmp_path, "table")
    recipe = load_recipe("digits69_mindeye", [f"data={data}", "split=kfold10"])
    table = TrialTable.open(data)
    for fold in range(10):
        test = set(table.trials("subj01", "test", "kfold10", fold).stimulus_ids.tolist())
        inner = inner_split(replace(recipe, fold=fold), table, 2)
        shown = {row["stimulus_id"] for row in inner.to_pylist()}
        assert len(shown) == 90 and not shown & test
    assert set(recipe.train_parts) == {"train", "validation"}


def changed(contents: dict, part: str, rows: slice) -> dict:
    """The file with other pictures and voxels in some trials of its part `Trn` or `Test`."""
    result = {name: value.copy() for name, value in contents.items() if not name.startswith("__")}
    result[f"stim{part}"][rows] = 255 - result[f"stim{part}"][rows]
    result[f"fmri{part}"][rows] *= -2
    return result


def check_draws_what_was_shown(table: Path, pipeline_folder: Path) -> None:
    """Each training trial is drawn more like its own picture than like those of others."""
    trials = TrialTable.open(table).trials("subj01", "train")
    pipeline = FmriToImagePipeline.from_pretrained(pipeline_folder)
    drawn = pipeline(trials.fmri(), "subj01", output_type="np").images.reshape(len(trials), -1)
    shown = TrialTable.open(table).stimuli.images(trials.stimulus_ids).reshape(len(trials), -1)
    correlations = np.corrcoef(drawn, shown)[: len(trials), len(trials) :]
    own = np.diagonal(correlations)
    assert own.mean() > 0.5
    # Beside the pictures of other trials, which are alike.
    assert own.mean() - correlations.mean() > 0.05


def prepared(contents: dict, folder: Path, name: str) -> Path:
    """The table of a file's contents."""
    source, out = folder / f"{name}-source" / "digit69_28x28.mat", folder / name
    source.parent.mkdir()
    scipy.io.savemat(source, {key: value for key, value in contents.items() if not key.startswith("__")})
    assert main(["prepare", "digits69", "--source", str(source), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def own_arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table from a person's betas and grey pictures of 12 x 16 pixels, prepared by the command."""
    folder = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 3, 4), dtype=np.uint8)
    pictures = coarse.repeat(4, axis=1).repeat(4, axis=2)
    betas = (coarse.reshape(40, -1) / 255 - 0.5) @ rng.normal(size=(12, 50)) + 0.3 * rng.normal(size=(40, 50))
    (folder / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "pictures" / f"p{number:02d}.png")
    np.save(folder / "betas.npy", betas.astype(np.float32))
    with (folder / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["stimulus_id"], *([f"p{number:02d}"] for number in range(40))])
    files = ["--fmri", folder / "betas.npy", "--events", folder / "events.csv", "--stimuli", folder / "pictures"]
    assert main(["prepare", "arrays", *map(str, files), "--out", str(folder / "table")]) == 0
    return folder / "table"


@pytest.mark.slow
def test_own_arrays_train_with_the_same_recipe(own_arrays: Path, tmp_path: Path) -> None:
    steps = ["stages.0.training.steps=80", "stages.1.training.steps=10"]
    candidates = "selection={folds: 2, candidates: [{stages.0.simulation.noise: 1}, {stages.0.simulation.noise: 1000}]}"
    command = ["train", "digits69_mindeye", f"data={own_arrays}", f"out={tmp_path / 'out'}", *steps, candidates]
    assert main(command) == 0
    record = TrainingRecord.load(tmp_path / "out")
    assert record is not None and record.selection is not None
    # Simulated voxels that are drowned in noise are the worse choice, and are not chosen.
    scores = [candidate["score"] for candidate in record.selection["candidates"]]
    assert record.selection["chosen"] == 0 and scores[0] > scores[1]
    pipeline, table = FmriToImagePipeline.from_pretrained(tmp_path / "out"), TrialTable.open(own_arrays)
    trials = table.trials("subj01", "train")
    drawn = pipeline(trials.fmri(), "subj01", output_type="np").images
    shown = table.stimuli.images(trials.stimulus_ids) / 255
    assert drawn.shape == shown.shape
    assert np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(drawn, shown, strict=True)]) > 0.5


def test_mindeye_trains_on_own_arrays_with_the_pixels(own_arrays: Path, tmp_path: Path) -> None:
    small = ["model.hidden_size=32", "model.projector_size=16", "model.prior_num_layers=1",
             "model.low_level_hidden_size=32", "model.low_level_block_out_channels=[8]",
             "model.low_level_start_channels=8", "model.low_level_norm_num_groups=4"]  # fmt: skip
    stages = range(len(load_recipe("mindeye").stages))
    steps = [f"stages.{number}.training.{key}" for number in stages for key in ("epochs=null", "steps=2")]
    command = ["train", "mindeye", f"data={own_arrays}", f"out={tmp_path / 'out'}", "generator=pixels", *small, *steps]
    assert main(command) == 0
    assert FmriToImagePipeline.from_pretrained(tmp_path / "out").image_generator.image_size == (1, 12, 16)


def test_pictures_outside_the_embedded_generators_domain_are_reported(
    own_arrays: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["generator=embedded", "targets=[latents]", "model.low_level_hidden_size=16"]
    recipe = load_recipe("digits69_mindeye", [f"data={own_arrays}", f"out={tmp_path / 'out'}", *overrides])
    with (
        caplog.at_level("WARNING", logger="fmri_models"),
        pytest.raises(FmriModelsError, match="leave the stage out, or choose a generator with embeddings"),
    ):
        train(recipe)
    assert "outside its domain" in caplog.text and "small pictures go with generator=pixels" in caplog.text
