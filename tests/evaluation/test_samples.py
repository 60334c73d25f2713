"""Several pictures of each response, as published evaluations draw them."""

import numpy as np
import pytest
import torch

from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, RowData, protocols, score_rows, two_way_identification
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.protocols import Protocol, get_protocol
from fmri_models.evaluation.seeded_drawing import SAMPLE_STRIDE
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.evaluation.toy_report import TinyExtractor
from tests.small_table import write_small_table

PIXELS = ("pixcorr", "mse", "pairwise_pixcorr")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    data = write_small_table(folder / "data", noise=1.0)
    for name, generator in (("drawn", "embedded"), ("given", "pixels")):
        train(load_recipe("linear", [f"data={data}", f"out={folder / name}", f"generator={generator}"]))
    return folder


def evaluated(workplace, model, name, **options):
    settings = {"num_inference_steps": 4} if model == "drawn" else None
    options = {"protocol": Protocol("mine", "For tests.", PIXELS), "settings": settings, "rows": ["floor"], **options}
    return evaluate(workplace / model, workplace / "data", workplace / name, **options)


@pytest.mark.slow
def test_scores_are_means_over_the_pictures_of_a_response(workplace):
    alone = [evaluated(workplace, "drawn", f"seed{s}", seed=s * SAMPLE_STRIDE) for s in range(2)]
    both = evaluated(workplace, "drawn", "both", samples=2)
    assert both.protocol["samples"] == 2 and both.data["test_items"] == 24
    assert both.data["test_stimuli"] == alone[0].data["test_stimuli"]
    for row in ("brain", "floor"):
        for metric in PIXELS:
            values = [each.results[row][metric] for each in alone]
            assert both.results[row][metric]["value"] == pytest.approx(np.mean([v["value"] for v in values]), abs=1e-5)
            assert both.results[row][metric]["n"] == 2 * values[0]["n"]
            assert both.results[row][metric]["stimuli"] == values[0]["stimuli"]
    page = (workplace / "both" / "report.md").read_text()
    assert "pictures of each response: 2" in page
    # The pictures themselves differ, and are all there.
    assert alone[0].results["brain"]["mse"]["value"] != alone[1].results["brain"]["mse"]["value"]
    pictures = sorted(path.name for path in (workplace / "both" / "images" / "brain" / "subj02").iterdir())
    assert len(pictures) == 2 * both.data["test_stimuli"] and sum("-2.png" in name for name in pictures) * 2 == len(
        pictures
    )


def test_one_picture_is_all_that_there_is_where_nothing_is_random(workplace):
    report = evaluated(workplace, "given", "given5", protocol="takagi", without=["unavailable"], samples=5, rows=[])
    assert report.results["brain"]["pixcorr"]["n"] == report.data["test_items"] == 24
    assert report.protocol["samples"] == 1 and "picture of each response" not in " ".join(report.protocol["deviations"])


@pytest.mark.slow
def test_another_number_than_the_published_is_said(workplace, capsys):
    report = evaluated(workplace, "drawn", "two", protocol="mind-vis", without=["unavailable"], samples=2, rows=[])
    assert "2 pictures of each response, and not the mean score of 5" in report.protocol["deviations"]
    assert Report.load(workplace / "two").protocol["samples"] == 2
    command = ["evaluate", "--model", str(workplace / "drawn"), "--data", str(workplace / "data"), "--samples", "0"]
    assert main([*command, "--out", str(workplace / "none")]) == 1
    assert "from 1 to" in capsys.readouterr().err
    with pytest.raises(FmriModelsError, match="from 1 to"):
        get_protocol("takagi").drawing_samples(10_000)


def test_correlations_are_averaged_as_takagi_has_it(monkeypatch):
    protocol = Protocol(
        "mine", "For tests.", ("two_way_tiny",), distractors="reconstruction", samples=5, sample_average="correlations"
    )
    monkeypatch.setitem(protocols.PROTOCOLS, "mine", protocol)
    draw = torch.Generator().manual_seed(0)
    # As many levels as are scored, so that the features are the same.
    truth = (torch.rand(7, 3, 32, 32, generator=draw) * 255).round() / 255
    noise = torch.rand(5, 7, 3, 32, 32, generator=draw)
    recon = ((0.2 * truth + 0.8 * noise) * 255).round() / 255
    recon[2, 3] = 0.5019607843137255
    ids = [f"s{number}" for number in range(7)] * 5
    scores = score_rows(
        {"brain": RowData(recon.flatten(0, 1))},
        truth.repeat(5, 1, 1, 1),
        ids,
        protocol,
        seeds=[sample for sample in range(5) for _ in range(7)],
        responses=ids,
        extractors={"tiny": TinyExtractor()},
        permutations=0,
    )
    network = TinyExtractor()
    features = [network(pictures) for pictures in (truth, *recon)]
    expected = two_way_identification(
        features[0], torch.stack(features[1:], dim=1), "reconstruction", samples=True, reduction="none"
    )
    found = scores.values["brain"]["two_way_tiny"].reshape(5, 7)
    assert np.allclose(found, expected.numpy())
    # Another number than the mean of the scores of single pictures.
    single = [two_way_identification(features[0], each, "reconstruction") for each in features[1:]]
    assert abs(float(expected.mean()) - np.mean(single)) > 0.02
