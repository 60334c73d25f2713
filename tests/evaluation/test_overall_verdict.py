"""The verdict on reports whose figures are known: it says what they say, and claims no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fmri_models.evaluation import Report, RowData, get_protocol, score_rows
from fmri_models.evaluation.leading_rows import best_row, deciding_metrics, lead_metric
from fmri_models.evaluation.named_metrics import get_metric
from fmri_models.evaluation.overall_verdict import verdict
from fmri_models.evaluation.report_terminal import verdict_text
from tests.evaluation.toy_report import smooth_pictures

COUNT = 24


def noisy(truth, share, seed=1):
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed))
    return (1 - share) * truth + share * noise


def report_of(truth, brain, control=None, ceiling=None, **more):
    rows = {"brain": RowData(brain)}
    if control is not None:
        rows["shuffled_brain"] = RowData(control)
    if ceiling is not None:
        rows["ceiling"] = RowData(ceiling)
    names = [f"s{number:02d}" for number in range(len(truth))]
    scores = score_rows(rows, truth, names, get_protocol("small_pictures"), permutations=100)
    return Report.from_scores(scores, get_protocol("small_pictures"), draws=200, **more)


@pytest.fixture(scope="module")
def truth():
    return smooth_pictures(COUNT, size=16)


def test_a_brain_that_is_read_beats_its_control_everywhere(truth):
    report = report_of(truth, noisy(truth, 0.4), noisy(truth, 0.4).roll(1, 0), truth, data={"simulated": False})
    found = verdict(report)
    assert found.status == "yes"
    assert found.headline == (
        "The reconstruction from measured brain activity beats the shuffled brain beyond doubt in all 2 identification "
        "and network metrics."
    )
    assert "Not beaten" not in found.text and "permutation test has p ≤ 0.010 in all 2" in found.text
    assert 1 <= len(found.sentences) <= 3
    assert "of the way" in found.text and "100 %" in found.text
    # The terminal has the same words.
    assert " ".join(verdict_text(report, 80).split()) == " ".join(found.text.split())


def test_layers_alone_are_no_reconstruction(truth):
    report = replace(report_of(truth, noisy(truth, 0.4), noisy(truth, 0.4).roll(1, 0)), guides={"layer": {}})
    assert verdict(report).headline.startswith("What was decoded beats the shuffled brain")
    drawn = replace(report, model={"image_generator": "PixelsImageGenerator"})
    assert verdict(drawn).headline.startswith("The reconstruction beats the shuffled brain")


@pytest.mark.slow
def test_noise_beats_nothing(truth):
    statuses = []
    for seed in range(20):
        noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(100 + seed))
        other = torch.rand(truth.shape, generator=torch.Generator().manual_seed(500 + seed))
        found = verdict(report_of(truth, noise, other, truth))
        statuses.append(found.status)
        if found.status == "no":
            assert "in none of 2" in found.headline and "shuffled brain in 2" in found.text
    # One in forty by luck, in a metric.
    assert statuses.count("no") >= 17 and "yes" not in statuses[:3]


def test_a_control_that_is_better_is_said_to_be(truth):
    found = verdict(report_of(truth, torch.rand(truth.shape), noisy(truth, 0.1), truth))
    assert found.status == "no" and "even better beyond doubt in 2" in found.text


def test_metrics_in_which_a_blurry_average_does_well_decide_nothing(truth):
    blurred = report_of(truth, noisy(truth, 0.4), noisy(truth, 0.4).roll(1, 0))
    pixels = {"pixcorr", "ssim", "mse"}
    assert not pixels & {metric.name for metric in deciding_metrics(blurred)}
    only = {
        row: {name: each for name, each in found.items() if name in pixels} for row, found in blurred.results.items()
    }
    found = verdict(replace(blurred, results=only))
    assert found.status == "open" and "pixels alone" in found.headline


def test_the_same_picture_for_all_is_no_reconstruction(truth):
    constant = truth.mean(0, keepdim=True).expand_as(truth)
    found = verdict(report_of(truth, constant, noisy(truth, 0.4).roll(1, 0), truth))
    assert found.status == "no" and "the same whatever was shown" in found.headline
    assert "of the way" not in found.text and "permutation" not in found.text


def test_a_reconstruction_that_varies_is_not_called_constant(truth):
    nearly = truth.mean(0, keepdim=True).expand_as(truth) + 0.01 * torch.rand(truth.shape)
    assert "whatever was shown" not in verdict(report_of(truth, nearly, truth.roll(1, 0))).headline


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_pictures_allow_no_verdict(truth, count):
    few = truth[:count]
    found = verdict(report_of(few, noisy(few, 0.2), noisy(few, 0.2).roll(1, 0), few))
    assert found.status in ("open", "no")
    assert found.status == "open" or count == 1
    assert "beats" not in found.text


def test_fewer_than_twenty_are_called_few(truth):
    some = truth[:12]
    found = verdict(report_of(some, noisy(some, 0.2), noisy(some, 0.2).roll(1, 0), some))
    assert "12 pictures are few" in found.text


def test_without_controls_there_is_none_either(truth):
    found = verdict(report_of(truth, noisy(truth, 0.2)))
    assert found.status == "open" and "no control" in found.headline
    assert "permutation test" in found.text


def test_files_have_no_brain_controls(truth):
    report = report_of(truth, noisy(truth, 0.2), model={"images": "recon"})
    shown = Report.from_scores(
        score_rows(
            {"brain": RowData(noisy(truth, 0.2)), "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth))},
            truth,
            [f"s{number}" for number in range(COUNT)],
            get_protocol("small_pictures"),
            permutations=100,
        ),
        get_protocol("small_pictures"),
        model={"images": "recon"},
        draws=200,
    )
    found = verdict(shown)
    assert found.status == "open" and "no control of files can say" in found.headline
    assert "files have no brain controls" in found.text
    assert "files have no brain controls" in verdict(report).text


def test_what_is_known_against_it_is_said(truth):
    report = report_of(truth, noisy(truth, 0.2), noisy(truth, 0.2).roll(1, 0), truth, data={"simulated": True})
    assert "simulated brain activity" in verdict(report).headline
    assert "real brain" in verdict(report).text
    doubted = replace(report, warnings=["Pictures were learned from."])
    assert verdict(doubted).status == "open"
    assert "not known to be figures of new pictures" in verdict(doubted).headline
    changed = replace(
        report,
        protocol={**report.protocol, "deviations": ["tested on 24 pictures"]},
        missing_rows={"mean_image": "Who asked for this report chose its rows; others are not drawn."},
        model={"transductive": True},
        looks=[{"time": "t"}, {"time": "t"}],
    )
    text = verdict(changed).text
    for said in ("not measured as published", "no mean image to beat", "transductive", "looked at 2 times before"):
        assert said in text
    assert len(verdict(changed).sentences) <= 3


def test_some_of_several_metrics_do_not_allow_for_their_number(truth):
    report = report_of(truth, noisy(truth, 0.2), noisy(truth, 0.2).roll(1, 0), truth)
    compared = {row: dict(found) for row, found in report.comparisons.items()}
    compared["shuffled_brain"]["identification_top1"] = {
        **compared["shuffled_brain"]["identification_top1"], "ci95": [-0.1, 0.3]
    }  # fmt: skip
    found = verdict(replace(report, comparisons=compared))
    assert found.status == "partly" and "in 1 of 2 " in found.headline
    assert "shuffled brain in 1 (top-1 pixels)" in found.text
    assert "do not allow for the number of metrics (2)" in found.text


def test_a_ceiling_that_is_no_better_measures_nothing(truth):
    brain = noisy(truth, 0.05)
    found = verdict(report_of(truth, brain, brain.clone(), brain.clone()))
    assert "measures nothing here" in found.text and "of the way" not in found.text


def test_the_leading_metric_is_of_a_network_where_there_is_one(report, truth):
    assert lead_metric(report).name == "two_way_tiny"
    assert lead_metric(report_of(truth, truth)).name == "pairwise_pixcorr"


def test_the_best_control_heeds_the_direction(report):
    rows = ["shuffled_brain", "mean_image"]
    for name, better in (("mse", min), ("pixcorr", max)):
        values = {row: report.results[row][name]["value"] for row in rows}
        assert best_row(report, rows, get_metric(name)) == better(values, key=values.get)
    assert best_row(report, ["ridge"], get_metric("mse")) is None


def test_a_report_of_an_earlier_version_has_one(report):
    bare = Report(protocol={}, results={"brain": {"pairwise_pixcorr": {"value": 0.9, "n": 3}}})
    assert verdict(bare).status == "open"
    assert verdict(Report(protocol={}, results={})).status == "open"
    assert np.isfinite(len(verdict(report).text))
