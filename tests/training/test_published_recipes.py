"""Recipes of published data sets, tried from fabricated files to a report at a tiny size."""

from pathlib import Path

import pytest

from fmri_models import DoubleConditionedImageGenerator
from fmri_models.cli.main import main
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.fabricated import bold5000, god

TINY = [
    "drawing.num_inference_steps=2",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.num_attention_heads=2",
    "model.decoder_hidden_size=16",
    "model.decoder_num_hidden_layers=1",
    "model.decoder_num_attention_heads=2",
    "processor.patch_size=2",
    "model.patch_size=2",
    "stages.0.training.epochs=1",
    "stages.0.training.mixed_precision=no",
    "stages.1.training.epochs=1",
]
# What differs between the published trainings of the two data sets.
BATCHES = {"mindvis_god": 5, "mindvis_bold5000": 25}


@pytest.mark.parametrize("name", BATCHES)
def test_published_hyper_parameters(name: str) -> None:
    recipe = load_recipe(name)
    masked, conditioner = (stage.training for stage in recipe.stages)
    assert masked is not None and conditioner is not None
    assert (masked.batch_size, masked.learning_rate, masked.max_grad_norm, masked.epochs) == (100, 2.5e-4, 0.8, 500)
    assert (conditioner.learning_rate, conditioner.weight_decay, conditioner.max_grad_norm) == (5.3e-5, 0.01, 0.5)
    assert conditioner.batch_size == BATCHES[name] and conditioner.schedule == "constant"
    assert recipe.processor["patch_size"] == recipe.model["patch_size"] == 16
    # Nothing of the test is learned from, and no checkpoint is chosen by it.
    assert all("test" not in [*stage.train_on, *stage.validate_on] for stage in recipe.stages)
    assert recipe.stages[1].image_generator == {"train": ["cross_attention"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "write", "subject"),
    [
        ("mindvis_god", "god", god.write_published, "subj01"),
        ("mindvis_bold5000", "bold5000", bold5000.write_arrays, "CSI1"),
    ],
)
def test_from_files_to_a_report(name: str, data: str, write, subject: str, tmp_path: Path) -> None:
    write(tmp_path / "source")
    command = ["prepare", data, "--source", str(tmp_path / "source"), "--out", str(tmp_path / "table")]
    options = ["incomplete=yes", "repetitions=average_test", "size=8"]
    options += ["imagery=no"] if data == "god" else []
    assert main([*command, *(part for each in options for part in ("--option", each))]) == 0
    # A folder, as the converted diffusion model of the paper is one.
    generator = DoubleConditionedImageGenerator.for_stimuli(
        (3, 8, 8), block_out_channels=[8, 16], context_dim=8, num_context_tokens=4
    )
    generator.save_pretrained(tmp_path / "image_generator")
    place = f"generator={{name: double_conditioned, repository: {tmp_path / 'image_generator'}}}"
    overrides = [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", f"subjects=[{subject}]", place, *TINY]
    train(load_recipe(name, overrides))
    record = TrainingRecord.load(tmp_path / "model")
    assert record is not None and [stage["stage"] for stage in record.stages] == ["pretraining", "fine_tuning"]
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    tested = god.TESTED if data == "god" else bold5000.REPEATED
    assert report.data["test_items"] == len(tested)
