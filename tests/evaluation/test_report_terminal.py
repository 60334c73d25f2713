import re
from dataclasses import replace

import torch

from fmri_models.evaluation import Report, RowData, get_protocol, score_rows
from fmri_models.evaluation.report_terminal import notes_text, results_table
from tests.evaluation.toy_report import smooth_pictures


def test_the_terminal_gets_the_rows_that_matter():
    truth = smooth_pictures(6, size=16)
    noisy = (truth + torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))) / 2
    far = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1))
    images = {"brain": truth, "shuffled_brain": far, "mean_image": noisy, "ridge": noisy, "ceiling": truth}
    images["brain_low_level"] = noisy
    scores = score_rows(
        {name: RowData(each) for name, each in images.items()}, truth, list("abcdef"), get_protocol("small_pictures")
    )
    report = Report.from_scores(scores, get_protocol("small_pictures"))
    table = results_table(report, width=80)
    header, _, first, *_ = table.splitlines()
    assert re.split(r"\s{2,}", header) == ["metric", "chance", "brain", "ridge", "best control", "ceiling"]
    assert "two-way pixels" in first and first.split()[-5] == "0.500"
    first = next(line for line in table.splitlines() if line.startswith("PixCorr"))
    best = report.results["mean_image"]["pixcorr"]["value"]
    assert first.split()[-2] == f"{best:.3f}" and report.results["shuffled_brain"]["pixcorr"]["value"] < best
    assert "--all-rows" in table
    assert max(map(len, table.splitlines())) <= 80
    assert "low level only" in results_table(report, all_rows=True, width=80)


def test_a_control_that_is_alone_is_called_by_its_name():
    truth = smooth_pictures(6, size=16)
    images = {"brain": truth, "mean_image": truth.mean(0, keepdim=True).expand_as(truth)}
    rows = {name: RowData(each) for name, each in images.items()}
    report = Report.from_scores(
        score_rows(rows, truth, list("abcdef"), get_protocol("small_pictures")), get_protocol("small_pictures")
    )
    header, *_ = results_table(report, width=80).splitlines()
    assert re.split(r"\s{2,}", header) == ["metric", "chance", "brain", "mean image"]


def test_notes_on_a_terminal_have_the_names_of_the_table_and_its_width(report):
    notes = [
        "nearest_train scores 0.711 in ssim (the brain row 0.742), 0.560 in identification_top1 and more. Nothing.",
        "The row noise_free is missing; permuted_training is ridge regression, and --refit-permuted adds another.",
        "x" * 100,
    ]
    # Numbers of metrics that no row has stay as they are; so does what has a name in it.
    told = notes_text(replace(report, notes=[*notes, "unknown_metric of my_ssim"], warnings=[]), width=50)
    lines = told.splitlines()
    assert all(len(line) <= 50 and line[:2] in ("- ", "  ") for line in lines)
    assert len([line for line in lines if line.startswith("- ")]) == 4
    joined = " ".join(line[2:] for line in lines)
    labels = [metric.label for metric in report.metrics() if metric.name in ("ssim", "identification_top1")]
    assert labels == ["SSIM", "top-1 pixels"]
    assert "nearest training scores 0.711 in SSIM (the brain row 0.742), 0.560 in top-1 pixels and" in joined
    assert "The row noise-free is missing; permuted training (ridge) is ridge regression, and --refit" in joined
    assert "unknown_metric of my_ssim" in joined
