"""Guides from a recipe to a report: trained, saved, decoded, written, measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report import Report
from fmri_models.modeling_outputs import FmriDecoding
from fmri_models.subject_adapters import _in_order
from fmri_models.training.estimate import estimate
from fmri_models.training.recipe import Recipe, load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table

RECIPE = """
method: linear
generator: null
targets: [guides]
guides: {network: scene_vgg, layers: [conv3_2, fc4]}
processor: {statistics: session}
stages:
  - name: ridge
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_table(tmp_path_factory.mktemp("guides") / "data")


def recipe(folder: Path, table: Path, *overrides: str) -> Recipe:
    path = folder / "guides.yaml"
    path.write_text(RECIPE)
    return load_recipe(str(path), [f"data={table}", f"out={folder / 'out'}", *overrides])


def test_layers_alone(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = recipe(tmp_path, table)
    assert "scene_vgg.conv3_2 (16,384), scene_vgg.fc4 (128)" in estimate(chosen)
    train(chosen)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["recipe"]["guides"] == [
        {"network": "scene_vgg", "weights": None, "layers": ["conv3_2", "fc4"], "units": None}
    ]
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert pipeline.image_generator is None
    assert pipeline.brain_model.config.guides["scene_vgg.conv3_2"].shape == (64, 16, 16)
    report = evaluate(tmp_path / "out", table, tmp_path / "report")
    brain, exchanged = (report.results[row]["guide_identification"] for row in ("brain", "shuffled_brain"))
    assert brain["value"] > 0.8 and brain["n"] == 24 and exchanged["value"] < 0.65
    assert report.permutation["guide_identification"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert report.permutation["guide_identification"]["p"] < 0.05
    assert set(report.guides) == {"scene_vgg.conv3_2", "scene_vgg.fc4"}
    fc4 = report.guides["scene_vgg.fc4"]
    assert fc4["units"] == 128 and fc4["profile_correlation"]["brain"] > fc4["profile_correlation"]["shuffled_brain"]
    again = Report.load(tmp_path / "report")
    assert again.guides["scene_vgg.fc4"]["results"] == fc4["results"]
    for name in ("report.md", "report.html"):
        page = (tmp_path / "report" / name).read_text()
        assert "Decoded layers" in page and "scene_vgg.conv3_2" in page
    capsys.readouterr()
    given = ["--model", str(tmp_path / "out"), "--fmri", str(table), "--subject", "subj02"]
    assert main(["reconstruct", *given, "--out", str(tmp_path / "decoded")]) == 0
    assert "wrote 2 decoded layers and trials.csv" in capsys.readouterr().out
    written = load_file(tmp_path / "decoded" / "guides" / "scene_vgg.fc4.safetensors")
    assert list(written) == ["scene_vgg.fc4"] and written["scene_vgg.fc4"].shape == (12, 128)
    assert len((tmp_path / "decoded" / "trials.csv").read_text().splitlines()) == 13
    assert not list((tmp_path / "decoded").glob("*.png"))
    with pytest.raises(FmriModelsError, match="draws no pictures, which --audit is for"):
        evaluate(tmp_path / "out", table, tmp_path / "other", audit=["overlap"])
    with pytest.raises(FmriModelsError, match="weights of vgg19, and the model decodes layers of scene_vgg"):
        evaluate(tmp_path / "out", table, tmp_path / "other", guide_weights={"vgg19": "here"})


def test_layers_beside_pictures(table: Path, tmp_path: Path) -> None:
    targets = ["generator=pixels", "targets=[latents,guides]", "subjects=[subj02]"]
    parts = "stages.0.objective.parts={guides: {standardise_targets: true}}"
    train(recipe(tmp_path, table, *targets, parts))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    trials = TrialTable.open(table).trials("subj02", "test")
    drawn = pipeline(trials.fmri(), session=trials.sessions, output_type="pt").images
    assert drawn.shape == (36, 1, 12, 12)
    report = evaluate(tmp_path / "out", table, tmp_path / "report", "small_pictures", rows=["permuted_training"])
    assert report.results["brain"]["pixcorr"]["value"] > 0.6
    assert report.guides["scene_vgg.fc4"]["results"]["brain"]["guide_identification"]["value"] > 0.7
    given = ["--model", str(tmp_path / "out"), "--fmri", str(table), "--subject", "subj02"]
    assert main(["reconstruct", *given, "--out", str(tmp_path / "drawn")]) == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 12
    values = load_file(tmp_path / "drawn" / "guides" / "scene_vgg.fc4.safetensors")["scene_vgg.fc4"]
    assert np.isfinite(values).all() and len(values) == 12


def test_rows_of_subjects_with_adapters_of_their_own() -> None:
    """What groups of rows decode is put together by name, in the order of the rows."""
    parts = [FmriDecoding(guides={"net.a": torch.tensor([[float(row)] for row in rows])}) for rows in ([2, 0], [1])]
    joined = _in_order(parts, [[2, 0], [1]], 3)
    assert joined.guides["net.a"].flatten().tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("overrides", "sentence"), [
    (["targets=[latents]", "generator=pixels"], "has guides and no guides among its targets"),
    (["guides=null"], "has guides as a target and no guides:"),
    (["method=mindeye"], "The method 'mindeye' decodes no guides; take the method linear"),
    (["guides.network=vgg19", "guides.layers=null"], "vgg19 needs its weights"),
    (["guides.layers=[conv9]"], "scene_vgg has no layer 'conv9'"),
    (["targets=null"], "no image generator .*decode guides alone"),
])  # fmt: skip
def test_recipes_that_do_not_fit(table: Path, tmp_path: Path, overrides: list[str], sentence: str) -> None:
    with pytest.raises(FmriModelsError, match=sentence):
        train(recipe(tmp_path, table, *overrides))
