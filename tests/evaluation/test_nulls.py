"""Reconstructions that know nothing: p is uniform, or conservative, in every metric and design."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import binom

from fmri_models.evaluation import Report, RowData, Scores, score_rows
from fmri_models.evaluation.bootstrap import PERMUTATIONS
from fmri_models.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from tests.evaluation.toy_report import Classifier, TinyExtractor

NOT_TESTED = ("factor_accuracy_colour", "factor_accuracy_place")
ALL = (*PROTOCOLS["standard"].metrics, *PROTOCOLS["small_pictures"].metrics, "distance_efficientnet_lite0")
METRICS = tuple(name for name in dict.fromkeys(ALL) if name not in NOT_TESTED)
PROTOCOL = Protocol("null", "", METRICS)
SIZE = 64


@dataclass
class Design:
    """Which items there are; equal `source` means the same reconstruction, which is all that makes items depend."""

    stimuli: list[str]
    subjects: list[str]
    folds: list[int]
    source: list[int]


def one_subject() -> Design:
    return Design([f"s{i}" for i in range(12)], ["a"] * 12, [0] * 12, list(range(12)))


def subjects_trials_and_seeds() -> Design:
    """Six stimuli for two subjects, each shown two or three times; what is drawn depends on the stimulus alone."""
    shown = [(f"s{i}", subject, i) for subject in "ab" for i in range(6) for _ in range(3 if i == 0 else 2)]
    stimuli, subjects, source = (list(column) for column in zip(*shown, strict=True))
    return Design(stimuli, subjects, [0] * len(shown), source)


def folds_of_stimuli() -> Design:
    return Design([f"s{i}" for i in range(12)], ["a"] * 12, [i % 3 for i in range(12)], list(range(12)))


def categories_in_every_run() -> Design:
    """The same six stimuli are tested in each of three folds."""
    return Design([f"s{i}" for i in range(6)] * 3, ["a"] * 18, [0] * 6 + [1] * 6 + [2] * 6, list(range(6)) * 3)


DESIGNS = (one_subject, subjects_trials_and_seeds, folds_of_stimuli, categories_in_every_run)


def pictures(count, generator):
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear").clamp(0, 1)


def permuted(design, reconstructions, embeds, generator, permutations=99, blank=False):
    """The permutation test of some reconstructions, one for each number in the design's `source`."""
    names = sorted(set(design.stimuli))
    which = [names.index(stimulus) for stimulus in design.stimuli]
    truth, gallery = pictures(len(names), generator), torch.randn(len(names), 6, generator=generator)
    if blank:
        truth[1], gallery[1] = 1.0, 0.0
    scores = score_rows(
        {"brain": RowData(reconstructions[design.source], embeds[design.source])},
        truth[which],
        design.stimuli,
        PROTOCOL,
        subjects=design.subjects,
        folds=design.folds,
        gallery_embeds=gallery[which],
        backgrounds=[f"{index % 2}" for index in which],
        factors=[{"kind": "bright" if truth[index].mean() > 0.5 else "dark"} for index in which],
        extractors={"efficientnet_lite0": TinyExtractor()},
        factor_classifier=Classifier(),
        permutations=permutations,
        seed=int(torch.randint(2**31, (), generator=generator)),
    )
    return Report.from_scores(scores, PROTOCOL, draws=20).permutation


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("repeats", [30, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("design", DESIGNS)
def test_p_of_noise_is_not_small_more_often_than_it_says(design, repeats, blank):
    made = design()
    found = {}
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(repeat)
        count = max(made.source) + 1
        noise, embeds = pictures(count, generator), torch.randn(count, 6, generator=generator)
        for metric, test in permuted(made, noise, embeds, generator, blank=blank).items():
            found.setdefault(metric, []).append(test["p"])
    assert len(found) >= 9
    for metric, values in found.items():
        assert len(values) == repeats
        for level in (0.05, 0.1, 0.25, 0.5):
            small = int(np.sum(np.array(values) <= level + 1e-9))
            # Of some hundred such comparisons none is to fail by luck.
            assert small <= binom.ppf(1 - 1e-5, repeats, level), (metric, level, small)


@pytest.mark.parametrize("design", DESIGNS)
def test_one_picture_for_all_is_as_good_in_every_pairing(design):
    made = design()
    for repeat in range(3):
        generator = torch.Generator().manual_seed(repeat)
        count = max(made.source) + 1
        same = (
            pictures(1, generator).expand(count, -1, -1, -1),
            torch.randn(1, 6, generator=generator).expand(count, -1),
        )
        counts = {made.stimuli.count(stimulus) for stimulus in made.stimuli}
        for metric, test in permuted(made, *same, generator).items():
            # Where a stimulus has more trials than another, a pairing that gives it an easier picture is another one.
            assert test["p"] == 1 or len(counts) > 1, metric


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("blank", [False, True])
def test_one_constant_picture_for_all_identifies_nothing(design, blank):
    made, generator = design(), torch.Generator().manual_seed(0)
    count = max(made.source) + 1
    tests = permuted(made, torch.full((count, 3, SIZE, SIZE), 0.4), torch.zeros(count, 6), generator, blank=blank)
    for metric in ("pairwise_pixcorr", "identification_top1", "retrieval_query_brain_top1"):
        if metric in tests:
            assert (tests[metric]["mean"], tests[metric]["p"]) == (0, 1), metric


@pytest.mark.parametrize(("count", "pairings"), [(1, 1), (2, 2), (3, 6), (4, 24)])
def test_few_stimuli_have_all_their_pairings(count, pairings):
    truth = pictures(count, torch.Generator().manual_seed(0))
    protocol = PROTOCOLS["small_pictures"]
    scores = score_rows({"brain": RowData(truth)}, truth, [f"s{i}" for i in range(count)], protocol)
    report = Report.from_scores(scores, protocol)
    test = report.permutation["ssim"]
    assert test["exhaustive"]
    assert (test["n"], test["p"], test["smallest_p"]) == (pairings, 1 / pairings, 1 / pairings)
    assert any(
        "Permutation test" in note and ("says nothing" in note or "no p can be" in note) for note in report.notes
    )


def test_folds_and_subjects_of_their_own_are_no_partners():
    truth = pictures(4, torch.Generator().manual_seed(0))
    protocol = Protocol("test", "", ("pixcorr",))
    for options in ({"folds": [0, 0, 1, 1]}, {"subjects": ["a", "a", "b", "b"]}):
        scores = score_rows({"brain": RowData(truth)}, truth, list("wxyz"), protocol, **options)
        assert scores.permuted["pixcorr"].shape == (4, 4)
        assert scores.exhaustive
    alone = score_rows({"brain": RowData(truth)}, truth, list("wxyz"), protocol, folds=range(4))
    assert alone.permuted["pixcorr"].shape == (1, 4)


def test_equal_pictures_have_exactly_equal_scores_in_every_row_and_pairing():
    generator = torch.Generator().manual_seed(0)
    truth, recon = pictures(9, generator), pictures(9, generator)
    rows = {"brain": RowData(recon), "same": RowData(recon)}
    protocol = Protocol("test", "", ("pixcorr", "ssim", "ssim_uniform", "mse"))
    scores = score_rows(rows, truth, list("abcdefghi"), protocol, permutations=30)
    for metric in protocol.metrics:
        assert (scores.values["brain"][metric] == scores.values["same"][metric]).all(), metric
        true = np.flatnonzero((scores.permuted[metric] == scores.values["brain"][metric]).any(0))
        assert len(true) > 0
        assert scores.permuted[metric].dtype == np.float64


def test_joined_folds_of_few_stimuli_are_paired_independently():
    truth = pictures(6, torch.Generator().manual_seed(0))
    protocol = Protocol("test", "", ("mse",))
    parts = [
        score_rows({"brain": RowData(truth[part])}, truth[part], list("abcdef")[part], protocol)
        for part in (slice(0, 3), slice(3, 6))
    ]
    joined = Scores.concatenate(parts)
    assert joined.permuted["mse"].shape == (PERMUTATIONS, 6)
    assert not joined.exhaustive
    # 0 is the own picture: one of six pairings in either fold, and not in the same draws.
    own = [(joined.permuted["mse"][:, part] == 0).all(1) for part in (slice(0, 3), slice(3, 6))]
    assert all(10 < each.sum() < 70 for each in own)
    assert (own[0] != own[1]).any()
    assert Report.from_scores(joined, protocol).permutation["mse"]["smallest_p"] == 1 / (1 + PERMUTATIONS)


def ridge_on_noise(source, num_stimuli=40, num_folds=2, penalty=100.0):
    """Pictures, their folds, and what a ridge that was fitted on the other folds' noise makes of each."""
    voxels, pictures = source.normal(size=(num_stimuli, 60)), source.random((num_stimuli, 64))
    folds = np.arange(num_stimuli) % num_folds
    reconstructed = np.empty_like(pictures)
    for fold in range(num_folds):
        train, test = folds != fold, folds == fold
        mean, centre = voxels[train].mean(0), pictures[train].mean(0)
        known, asked = voxels[train] - mean, voxels[test] - mean
        weights = np.linalg.solve(known @ known.T + penalty * np.eye(train.sum()), pictures[train] - centre)
        # Deviations, as large as 8 bits show them, whatever the penalty leaves of them.
        deviations = asked @ known.T @ weights
        reconstructed[test] = centre + 0.1 * deviations / deviations.std()
    return pictures, folds, reconstructed.clip(0, 1)


@pytest.mark.slow
def test_folds_that_learn_from_each_others_test_stimuli_are_no_more_significant():
    p, covered, draws = [], [], 250
    for seed in range(draws):
        pictures, folds, reconstructed = ridge_on_noise(np.random.default_rng(seed))
        truth, made = (torch.from_numpy(each).float().reshape(-1, 1, 8, 8) for each in (pictures, reconstructed))
        protocol = Protocol("null", "", ("pixcorr", "pairwise_pixcorr"))
        ids = [f"s{index}" for index in range(len(truth))]
        scores = score_rows({"brain": RowData(images=made)}, truth, ids, protocol, folds=folds.tolist(), seed=seed)
        report = Report.from_scores(scores, protocol, draws=200)
        p.append(report.permutation["pixcorr"]["p"])
        low, high = report.results["brain"]["pairwise_pixcorr"]["ci95"]
        covered.append(low <= 0.5 <= high)
    assert any("learned from each other's test stimuli" in note for note in report.notes)
    assert (np.array(p) <= 0.05).sum() <= binom.ppf(0.99, draws, 0.05)
    assert sum(covered) >= binom.ppf(0.01, draws, 0.95)


def test_stimuli_of_the_very_same_picture_are_one_stimulus():
    """Nobody can tell them apart: never each other's distractors, one unit of intervals, exchanged together."""
    protocol, names = get_protocol("small_pictures"), [f"p{number:02d}" for number in range(20)]
    truth = torch.rand(10, 3, 12, 12, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    scores = score_rows({"brain": RowData(truth)}, truth, names, protocol, gallery_embeds=truth.flatten(1))
    report = Report.from_scores(scores, protocol, draws=20)
    found = report.results["brain"]
    assert found["identification_top1"]["value"] == found["pairwise_pixcorr"]["value"] == 1
    assert {(each["n"], each["stimuli"]) for each in found.values() if each} == {(20, 10)}
    assert scores.chances["identification_top1"] == pytest.approx(1 / 10) and scores.pool_size == 10
    # Both items of a picture go to the same other one.
    pairs = scores.permuted["mse"].reshape(-1, 10, 2)
    assert (pairs[..., 0] == pairs[..., 1]).all() and (pairs > 0).any()
    assert report.same_pictures == [[f"p{number:02d}", f"p{number + 1:02d}"] for number in range(0, 20, 2)]
    assert any("20 test stimuli show 10 pictures under different ids (p00 = p01, " in note for note in report.notes)
    # The names of items stay as they are, and other pictures have no such note.
    assert scores.stimulus_ids.tolist() == names
    other = score_rows({"brain": RowData(truth[::2])}, truth[::2], names[::2], protocol)
    assert other.pictures.tolist() == names[::2] and not any("under different ids" in note for note in other.notes)


def test_where_all_pictures_are_the_same_there_is_nothing_to_identify():
    truth = torch.rand(1, 3, 12, 12).expand(6, -1, -1, -1)
    scores = score_rows({"brain": RowData(truth)}, truth, list("abcdef"), get_protocol("small_pictures"))
    assert scores.values["brain"]["identification_top1"] is None and scores.exhaustive
    assert Report.from_scores(scores, get_protocol("small_pictures")).results["brain"]["mse"]["stimuli"] == 1


def test_what_one_part_knows_to_be_the_same_picture_holds_for_all():
    protocol, truth = Protocol("test", "", ("mse",)), torch.rand(3, 3, 12, 12)
    parts = [
        score_rows({"brain": RowData(pictures)}, pictures, names, protocol, folds=[fold] * 3)
        for fold, (names, pictures) in enumerate(
            [(["b", "c", "d"], truth[[0, 0, 1]]), (["a", "b", "e"], truth[[0, 0, 2]])]
        )
    ]
    assert Scores.concatenate(parts).units.tolist() == ["a", "a", "d", "a", "a", "e"]
