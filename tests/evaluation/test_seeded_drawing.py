"""Pictures of one item are the same wherever they are drawn: report, `reconstruct`, web page."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fmri_models import FmriModelsError, FmriToImagePipeline, TrialTable
from fmri_models.cli.main import main
from fmri_models.drawing_settings import DrawingSettings
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.seeded_drawing import SeededDrawing
from fmri_models.hub.cards import write_card
from fmri_models.simulation import simulate
from fmri_models.space.decoder import Decoder
from fmri_models.space.pictures import enlarge
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train

SETTINGS = DrawingSettings(num_inference_steps=3, guidance_scale=3.0, strength=0.8, num_candidates=2)
SEED = 5
NUM_TEST = 4


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A pipeline that draws with the embedded diffusion model, and its report."""
    folder = tmp_path_factory.mktemp("drawing")
    simulate(
        "builtin:scenes", folder / "data", num_subjects=1, num_voxels=60, num_train=12, num_validation=4,
        num_test=NUM_TEST,
    )  # fmt: skip
    drawing = [f"drawing.{name}={value}" for name, value in SETTINGS.to_dict().items()]
    train(load_recipe("linear", [f"data={folder / 'data'}", f"out={folder / 'model'}", *drawing]))
    evaluate(folder / "model", folder / "data", folder / "report", "small_pictures", seed=SEED)
    return folder


def pictures(folder):
    return {path.name: np.asarray(Image.open(path), dtype=int) for path in sorted(folder.glob("*.png"))}


def difference(one, other):
    assert one.keys() == other.keys() and len(one) == NUM_TEST
    return max(np.abs(one[name] - other[name]).max() for name in one)


def reconstructed(workplace, out, *options):
    arguments = ["--model", str(workplace / "model"), "--fmri", str(workplace / "data"), "--subject", "subj01"]
    assert main(["reconstruct", *arguments, "--out", str(out), "--seed", str(SEED), *options]) == 0
    return pictures(out)


def test_the_recipes_settings_are_the_pipelines_and_the_reports(workplace):
    assert FmriToImagePipeline.from_pretrained(workplace / "model").drawing_settings == SETTINGS
    report = json.loads((workplace / "report" / "report.json").read_text())
    assert report["model"]["settings"] == {**SETTINGS.to_dict(), "seed": SEED, "precision": "float32"}
    assert "candidates 2" in (workplace / "report" / "report.md").read_text()
    record = json.loads((workplace / "model" / "training.json").read_text())
    assert record["recipe"]["drawing"] == SETTINGS.to_dict()
    card = write_card(workplace / "model").read_text()
    assert re.search(r"Drawn with:.*`num_inference_steps` 3,.*`strength` 0\.8,.*`selection` brain", card)


def test_reconstruct_draws_what_the_report_shows(workplace, tmp_path):
    shown = pictures(workplace / "report" / "images" / "brain")
    assert difference(reconstructed(workplace, tmp_path / "same"), shown) <= 1
    assert difference(reconstructed(workplace, tmp_path / "other", "--strength", "0.2"), shown) > 1
    stated = ["--steps", "3", "--guidance-scale", "3", "--strength", "0.8", "--candidates", "2", "--selection", "brain"]
    assert difference(reconstructed(workplace, tmp_path / "stated", *stated), shown) <= 1


def test_the_page_draws_what_the_report_shows(workplace):
    table = TrialTable.open(workplace / "data")
    decoder = Decoder(FmriToImagePipeline.from_pretrained(workplace / "model"), table)
    for name, shown in pictures(workplace / "report" / "images" / "brain").items():
        found = decoder.reconstruct("subj01", name.removesuffix(".png"), SEED).reconstructed
        enlarged = enlarge(Image.fromarray(shown.astype(np.uint8)))
        assert np.abs(np.asarray(found, dtype=int) - np.asarray(enlarged, dtype=int)).max() <= 1


@pytest.mark.slow
def test_a_report_with_other_settings_says_so(workplace, tmp_path):
    changed = evaluate(
        workplace / "model", workplace / "data", tmp_path / "report", "small_pictures", settings={"num_candidates": 1}
    )
    assert changed.model["settings"] == {**SETTINGS.to_dict(), "num_candidates": 1, "seed": 0, "precision": "float32"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "num_inference_steps is 0"),
        (["--strength", "1.5"], "strength is 1.5"),
        (["--guidance-scale", "nan"], "guidance_scale is nan"),
        (["--candidates", "-1"], "num_candidates is -1"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "reconstruct"])
def test_options_out_of_range_are_refused_before_any_work(command, options, message, tmp_path, capsys):
    places = {"evaluate": ["--data", "nowhere"], "reconstruct": ["--fmri", "nowhere", "--subject", "subj01"]}
    arguments = ["--model", "nowhere", *places[command], "--out", str(tmp_path / "out"), *options]
    assert main([command, *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        ("drawing.strength=2", "drawing.strength is 2.0"),
        ("drawing.strenght=0.5", "did you mean 'strength'"),
        ("drawing.selection=oracle", "expected 'brain', 'first' or null"),
        ("drawing=3", "drawing"),
    ],
)
def test_a_recipe_with_settings_that_make_no_sense_is_refused(drawing, message):
    with pytest.raises(FmriModelsError, match=message):
        load_recipe("linear", [drawing])


def test_what_an_item_is_drawn_from_depends_on_its_number_alone():
    drawing = SeededDrawing(SETTINGS, seed=3)
    together = [torch.randn(2, generator=source) for source in drawing.sources(5)]
    for number, expected in enumerate(together):
        (source,) = drawing.sources(range(number, number + 1))
        assert torch.equal(torch.randn(2, generator=source), expected)


@pytest.mark.parametrize("options", [{"precision": "float64"}, {"seed": -1}, {"seed": 2**70}, {"seed": 0.5}])
def test_seed_and_precision_are_checked(options):
    with pytest.raises(FmriModelsError, match="expected"):
        SeededDrawing(SETTINGS, **options)
