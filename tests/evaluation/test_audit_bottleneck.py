"""Decoders of a few dimensions: on brains whose dimensions are planted, on noise, and in what is said of them."""

import copy
import json

import numpy as np
import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.audit import PARTS
from fmri_models.evaluation.bottleneck_curve import (
    BottleneckContent,
    curve_content,
    curve_notes,
    is_below,
    numbers_of_dimensions,
)
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report import Report
from fmri_models.evaluation.report_pages import to_html, to_markdown
from fmri_models.evaluation.scores import Scores
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.evaluation.damaged_audit import check_damaged
from tests.evaluation.regional_table import Region, write_regional_table
from tests.small_table import PARTS as SMALL_PARTS
from tests.small_table import write_kfold, write_small_table

BOTTLENECK = PARTS["bottleneck"]
ROWS = ["floor", "ceiling"]


def audited(folder, data, *options, model="model", report="report"):
    overrides = [f"data={data}", f"out={folder / model}", "generator=pixels", "targets=[latents]", *options]
    train(load_recipe("linear", overrides))
    return evaluate(folder / model, data, folder / report, "small_pictures", rows=ROWS, audit=["bottleneck"])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Voxels that hold two of sixteen patches, and hardly any noise."""
    folder = tmp_path_factory.mktemp("bottleneck")
    data = write_regional_table(folder / "data", {"subj01": [Region("V1", 40, 2)]}, noise=0.05)
    # Targets that nothing predicts would be noise at full strength otherwise.
    return audited(folder, data, "stages.0.objective.restore_variance=false")


@pytest.fixture(scope="module")
def of_noise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    data = write_regional_table(folder / "data", {"subj01": [Region("V1", 40, 0)]}, noise=1.0)
    return audited(folder, data)


def test_two_planted_dimensions_are_enough_and_one_is_not(planted):
    content = planted.audit["bottleneck"]
    assert content["dimensions"][:3] == [0, 1, 2]
    assert content["smallest"]["pairwise_pixcorr"] == 2
    one, two = (content["shares"][k]["mse"] for k in ("1", "2"))
    assert one["ci95"][1] < 0.9 and two["value"] == pytest.approx(1, abs=0.05)
    assert content["results"]["full"] == planted.results["brain"]
    assert content["results"]["floor"] == planted.results["floor"]
    difference = content["below_full"]["1"]["pairwise_pixcorr"]
    assert difference["ci95"][0] > 0 and difference["stimuli"] == 30


def test_a_decoder_that_reads_nothing_draws_the_mean_and_identifies_at_chance(planted):
    nothing = planted.audit["bottleneck"]["results"]["0"]
    assert nothing["pairwise_pixcorr"]["value"] == pytest.approx(0.5)
    assert nothing["mse"]["value"] == pytest.approx(planted.results["floor"]["mse"]["value"], abs=0.1)


def test_of_noise_it_says_that_the_score_is_no_sign_of_the_brain(of_noise):
    content = of_noise.audit["bottleneck"]
    assert content["smallest"]["pairwise_pixcorr"] == 0
    assert all(shares["pairwise_pixcorr"] is None for shares in content["shares"].values())
    first = next(note for note in of_noise.notes if note.startswith("Bottleneck, two-way pixels"))
    assert "no sign that the brain was read" in first


def test_notes_tables_and_pages(planted):
    notes = [note for note in planted.notes if note.startswith("Bottleneck")]
    assert "One dimension of the voxels gives" in notes[0]
    assert "from 2 dimensions on no score is beyond doubt below" in notes[1] and "(30 stimuli" in notes[1]
    summary, every = BOTTLENECK.tables(planted.audit["bottleneck"])
    assert {len(line) for line in summary.lines} == {len(summary.header)}
    assert len(every.lines) == len(summary.lines) * len(planted.audit["bottleneck"]["dimensions"])
    assert "## Bottleneck" in to_markdown(planted)
    pytest.importorskip("matplotlib")
    assert "dimensions of the voxels that the decoder reads" in to_html(planted, None)


def test_a_report_is_read_again_and_one_that_was_tampered_with_is_refused(planted, tmp_path):
    assert Report.load(planted.folder).audit == planted.audit
    content = json.loads((planted.folder / "report.json").read_text())
    for change in (
        lambda audit: audit["results"].pop("1"),
        lambda audit: audit["dimensions"].append(1),
        lambda audit: audit["shares"]["1"]["mse"].update(value=1e300),
        lambda audit: audit["shares"].pop("2"),
        lambda audit: audit.update(map="magic"),
    ):
        changed = copy.deepcopy(content)
        change(changed["audit"]["bottleneck"])
        (tmp_path / "report.json").write_text(json.dumps(changed))
        with pytest.raises(FmriModelsError, match="an audit says of bottleneck"):
            Report.load(tmp_path)


def test_damaged_files_are_refused_or_shown(planted):
    pytest.importorskip("matplotlib")
    shown, refused = check_damaged("bottleneck", planted.audit["bottleneck"])
    assert shown > 2 and refused > 5


@pytest.mark.slow
def test_several_subjects_and_folds_are_one_curve(tmp_path):
    data = write_small_table(tmp_path / "data")
    write_kfold(data, "kfold3", 3)
    report = audited(tmp_path, data, "split=kfold3", "folds=all")
    content = report.audit["bottleneck"]
    for name in ("0", "1", "5", "full"):
        result = content["results"][name]["pixcorr"]
        assert (result["n"], result["stimuli"]) == (2 * sum(SMALL_PARTS.values()), sum(SMALL_PARTS.values()))
    values = [content["results"][str(k)]["pixcorr"]["value"] for k in content["dimensions"]]
    assert values == sorted(values)


def test_a_method_that_learns_by_gradient_is_told_of_the_script(tmp_path, monkeypatch):
    data = write_small_table(tmp_path / "data", ("subj02",))
    train(load_recipe("linear", [f"data={data}", f"out={tmp_path / 'm'}", "generator=pixels", "targets=[latents]"]))
    monkeypatch.setattr("fmri_models.evaluation.controls.LinearReferences.ridge_is_evaluated", False)
    report = evaluate(tmp_path / "m", data, tmp_path / "r", "small_pictures", rows=ROWS, audit=["bottleneck"])
    assert "bottleneck_curve.py" in report.audit["bottleneck"]["not_defined"]
    assert any(note.startswith("Bottleneck: ") for note in report.notes)
    assert Report.load(tmp_path / "r").audit == report.audit


# ------------------------------------------------------------------------------------------------------ of given scores


def content_of(rows, count=30):
    ids = np.array([f"s{index:02d}" for index in range(count)])
    scores = Scores(
        {row: {"pairwise_pixcorr": np.asarray(values, float)} for row, values in rows.items()},
        np.array(["subj01"] * count),
        ids,
        np.zeros(count, dtype=np.int64),
    )
    dimensions = sorted(int(row) for row in rows if row.isdigit())
    content = curve_content(scores, dimensions, "linear", "decodes the mean", 30, "reduced_rank", 0)
    BottleneckContent.model_validate(content)
    return content


def test_a_curve_that_falls_again_is_enough_from_the_last_doubtful_number_on():
    rng = np.random.default_rng(0)
    full = rng.uniform(0.8, 1, 30)
    below, alike = full - rng.uniform(0.2, 0.3, 30), full - rng.normal(0, 0.05, 30)
    content = content_of({"0": full - 0.4 - 0.01 * rng.random(30), "1": alike, "2": below, "5": alike, "full": full})
    assert content["smallest"]["pairwise_pixcorr"] == 5
    assert content_of({"0": below, "1": below, "full": full})["smallest"]["pairwise_pixcorr"] is None


def test_too_few_stimuli_and_equal_scores_say_nothing_of_scatter():
    content = content_of({"0": [0.5] * 4, "1": [0.7] * 4, "full": [0.9, 0.8, 1, 0.9]}, count=4)
    assert content["shares"]["1"]["pairwise_pixcorr"] is None
    assert content["smallest"]["pairwise_pixcorr"] is None
    assert "4 stimuli are too few" in curve_notes(content)[0]
    full = np.linspace(0.7, 1, 30)
    same = content_of({"0": np.linspace(0.3, 0.9, 30), "1": full, "full": full})
    assert same["shares"]["1"]["pairwise_pixcorr"] == {"value": 1.0, "ci95": None, "n": 30, "stimuli": 30}
    assert same["smallest"]["pairwise_pixcorr"] == 1
    assert is_below({"ci95": None, "difference": 0.2, "stimuli": 30})


def test_items_without_a_score_are_left_out_of_both_sides():
    rng = np.random.default_rng(1)
    full = rng.uniform(0.8, 1, 30)
    full[3] = np.nan
    content = content_of({"0": rng.uniform(0.3, 0.6, 30), "1": rng.uniform(0.6, 0.8, 30), "full": full})
    assert content["shares"]["1"]["pairwise_pixcorr"]["n"] == 29
    assert content["below_full"]["1"]["pairwise_pixcorr"]["n"] == 29


def test_numbers_of_dimensions():
    assert numbers_of_dimensions(60) == [1, 2, 5, 10, 20, 50]
    assert numbers_of_dimensions(1) == [1]
    assert numbers_of_dimensions(10**6)[-1] == 1000
