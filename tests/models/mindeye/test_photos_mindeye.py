"""The recipe mindeye_photos: retrieval and low-level pictures of photographs, and nothing beyond."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline, ThumbnailImageGenerator, TrialTable
from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report import Report
from fmri_models.hub.cards import write_card
from fmri_models.modeling_outputs import FmriDecoding
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.generation.tiny_clip import tiny_targets

# All of them read one training.
pytestmark = pytest.mark.slow

PARTS = {"train": 110, "validation": 15, "test": 30}
SMALL = [
    "model.hidden_size=128",
    "model.projector_size=64",
    "model.low_level_hidden_size=128",
    "model.low_level_start_channels=8",
    "model.low_level_block_out_channels=[8, 8]",
    "stages.0.training.epochs=60",
    "stages.0.training.batch_size=55",
    "stages.1.training.epochs=30",
    "stages.1.training.batch_size=55",
]


def simulated(test_data: Path, folder: Path, voxels: int, parts: dict[str, int], repetitions: int) -> Path:
    """The table of a brain that was shown photographs."""
    photos = test_data / "data" / "images" / "clothing_cc0_128.zip"
    amounts = [text for part, count in parts.items() for text in (f"--{part}", str(count))]
    options = ["--size", "64", "--voxels", str(voxels), "--repetitions", str(repetitions), *amounts]
    assert main(["simulate", "--stimuli", str(photos), *options, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table, pipeline and report of a small version of the recipe."""
    folder = tmp_path_factory.mktemp("photos")
    data = simulated(test_data, folder / "data", 300, PARTS, repetitions=2)
    train(load_recipe("mindeye_photos", [f"data={data}", f"out={folder / 'pipeline'}", *SMALL]))
    evaluate(folder / "pipeline", data, folder / "report", "small_pictures")
    return folder


@pytest.fixture(scope="module")
def pipeline(workplace: Path) -> FmriToImagePipeline:
    return FmriToImagePipeline.from_pretrained(workplace / "pipeline")


@pytest.fixture(scope="module")
def report(workplace: Path) -> Report:
    return Report.load(workplace / "report")


def test_pictures_are_the_low_level_ones_and_come_from_no_embedding(workplace: Path, pipeline: FmriToImagePipeline):
    assert isinstance(pipeline.image_generator, ThumbnailImageGenerator)
    assert pipeline.brain_model.prior is None
    trials = TrialTable.open(workplace / "data").trials("subj01", "test")
    options = {"subject": "subj01", "session": trials.sessions[:4].tolist(), "num_candidates": 3, "output_type": "pt"}
    drawn = pipeline(trials.fmri(slice(4)), **options)
    assert drawn.candidates is None and drawn.scores is None
    assert torch.equal(drawn.images, drawn.low_level_images)
    decoding = FmriDecoding(latents=torch.rand(2, 3, 16, 16), image_embeds=torch.rand(2, 16, 48))
    shown = pipeline.generate(decoding, output_type="pt").images
    decoding.image_embeds = None
    assert torch.equal(pipeline.generate(decoding, output_type="pt").images, shown)


def test_training_says_what_is_not_attempted(workplace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    overrides = [f"data={workplace / 'data'}", f"out={tmp_path / 'out'}", *SMALL]
    steps = [f"stages.{stage}.training.{value}" for stage in range(2) for value in ("epochs=null", "steps=1")]
    with caplog.at_level("WARNING", logger="fmri_models"):
        train(load_recipe("mindeye_photos", [*overrides, *steps]))
    assert "has learned no pictures" in caplog.text and "dB at best" in caplog.text
    assert "outside its domain" not in caplog.text


def test_the_report_has_the_rows_of_a_low_level_picture(report: Report):
    assert not {"brain_embeds_only", "brain_low_level", "ceiling_embeds_only", "background"} & set(report.results)
    assert {"brain", "ridge", "noise_free", "ceiling", "shuffled_brain", "mean_image"} <= set(report.results)
    notes = " ".join(report.notes)
    assert "has learned no pictures" in notes and "is simulated" in notes
    assert "brain is the decoded low-level picture" in notes


def test_pictures_beat_their_controls(report: Report):
    correlation = {row: values["pixcorr"]["value"] for row, values in report.results.items() if values["pixcorr"]}
    assert correlation["brain"] > correlation["shuffled_brain"] + 0.15
    assert correlation["ceiling"] > 0.85
    assert abs(correlation["permuted_training"]) < correlation["brain"]


def test_the_card_says_so_too(workplace: Path, report: Report):
    for found in (None, report):
        text = write_card(workplace / "pipeline", found).read_text()
        assert "has learned no pictures" in text.split("## Intended use and limits")[1]
        (workplace / "pipeline" / "README.md").unlink()


def test_retrieval_in_both_directions(workplace: Path, capsys: pytest.CaptureFixture[str]):
    command = ["retrieve", "--model", str(workplace / "pipeline"), "--fmri", str(workplace / "data")]
    command += ["--subject", "subj01", "--gallery", str(workplace / "report" / "images" / "truth"), "--top-k", "5"]
    for query in ("brain", "image"):
        capsys.readouterr()
        assert main([*command, "--query", query]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert len(rows) == 5 * PARTS["test"]
        # Guessing finds a sixth among the best five of thirty.
        assert np.mean([5 * (row["item"] == row["stimulus"]) for row in rows]) > 0.35


def test_a_model_of_other_thumbnails_is_refused(pipeline: FmriToImagePipeline):
    parts = pipeline.brain_model, pipeline.processor
    with pytest.raises(FmriModelsError, match="mean different things by an embedding"):
        type(pipeline)(*parts, ThumbnailImageGenerator(3, 64, 64, thumbnail_size=32))


def test_with_a_clip_and_without_the_low_level_stage_a_copy_of_the_recipe_retrieves(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tiny_targets().save_pretrained(tmp_path / "clip")
    recipe = load_recipe("mindeye_photos", [f"data={workplace / 'data'}", f"out={tmp_path / 'out'}", *SMALL])
    named = {"name": "clip", "repository": str(tmp_path / "clip")}
    train(replace(recipe, generator=named, stages=recipe.stages[:1]))
    capsys.readouterr()
    command = ["retrieve", "--model", str(tmp_path / "out"), "--fmri", str(workplace / "data"), "--subject", "subj01"]
    assert main([*command, "--gallery", str(workplace / "report" / "images" / "truth"), "--top-k", "1"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == PARTS["test"]
