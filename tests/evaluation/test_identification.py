"""Identification by any similarity, by category, of single trials: parity with bdpy, Takagi and the GOD scripts."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import (
    category_identification,
    identification_accuracy,
    n_way_identification,
    pairwise_identification,
    pattern_correlation,
    profile_correlation,
    score_rows,
    seen_and_imagined_identification,
    ssim,
    ssim_matrix,
    two_way_identification,
)
from fmri_models.evaluation.identification import normalised_features
from fmri_models.evaluation.protocols import Protocol
from fmri_models.evaluation.row_data import RowData
from fmri_models.evaluation.similarities import correlation_matrix

FIXTURES = Path(__file__).parent.parent / "fixtures" / "evaluation"
FAMILY = FIXTURES.parent / "linear_family"


def close(found, expected, atol):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def test_bdpy():
    fixture = load_file(FIXTURES / "bdpy_identification.safetensors")
    true, pred = fixture["in.true"], fixture["in.pred"]
    for options, name in (
        ({}, "identification"),
        ({"similarity": "euclidean"}, "identification_euclidean"),
    ):
        close(pairwise_identification(true, pred, **options, reduction="none"), fixture[f"out.{name}"], 0)
    assert two_way_identification(true, pred, reduction="none").tolist() == fixture["out.identification"].tolist()
    found = pairwise_identification(true, fixture["in.pred_nan"], reduction="none")
    close(found, fixture["out.identification_nan"], 0)
    found = pairwise_identification(true, fixture["in.single_pred"], fixture["in.single_index"], reduction="none")
    close(found, fixture["out.identification_single"], 0)
    close(profile_correlation(true, pred), fixture["out.profile"][0], 1e-10)
    close(pattern_correlation(true, pred, reduction="none"), fixture["out.pattern"], 1e-10)
    scale = fixture["in.mean"], fixture["in.std"]
    close(pattern_correlation(true, pred, *scale, reduction="none"), fixture["out.pattern_normalised"], 1e-10)
    close(correlation_matrix(pred, true), fixture["out.cross"], 1e-10)
    normalised = (normalised_features(each, *scale) for each in (pred, true))
    close(correlation_matrix(*normalised), fixture["out.cross_normalised"], 1e-10)


def scored_categories(decoded, shown, categories):
    """Category identification as reports have it, of one item a stimulus."""
    rng = torch.Generator().manual_seed(0)
    pictures = torch.rand(len(shown), 1, 8, 8, generator=rng)
    mine = Protocol("mine", "Categories.", ("category_identification",))
    names = [f"s{place}" for place in range(len(shown))]
    rows = {"brain": RowData(pictures, decoded)}
    return score_rows(rows, pictures, names, mine, gallery_embeds=shown, categories=categories)


def test_a_report_identifies_categories_as_the_function_does():
    rng = torch.Generator().manual_seed(1)
    shown = torch.randn(12, 20, generator=rng)
    decoded = shown + 2 * torch.randn(12, 20, generator=rng)
    decoded[3] = 5.0
    index = torch.arange(12) // 3
    means = torch.stack([shown[index == each].mean(0) for each in range(4)])
    scores = scored_categories(decoded, shown, [f"c{each}" for each in index.tolist()])
    expected = [category_identification(decoded[i : i + 1], index[i : i + 1], means) for i in range(12)]
    assert expected[3] == 0 and 0.5 < np.mean(expected) < 1
    np.testing.assert_allclose(scores.values["brain"]["category_identification"], expected)
    assert scores.chances["category_identification"] == 0.5
    # Of pictures without category each is one of its own.
    found = scored_categories(decoded, shown, None).values["brain"]["category_identification"]
    alone = [category_identification(decoded[i : i + 1], [i], shown) for i in range(12)]
    np.testing.assert_allclose(found, alone)
    np.testing.assert_allclose(
        scored_categories(decoded, shown, [None] * 12).values["brain"]["category_identification"], alone
    )


def test_equal_categories_count_as_right_in_a_report_and_constant_ones_do_not():
    decoded = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [2.0, 0.0, 1.0]])
    shown = torch.stack([decoded[0], 2 * decoded[0] + 1, decoded[2], torch.ones(3)])
    found = scored_categories(decoded, shown, list("abcd")).values["brain"]["category_identification"]
    expected = [category_identification(decoded[i : i + 1], [i], shown) for i in range(4)]
    # The first two correlate alike with everything, and nothing correlates with the last one.
    assert expected[0] == pytest.approx(2 / 3) and expected[3] == 0
    np.testing.assert_allclose(found, expected)


def test_one_category_alone_has_no_score():
    shown = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    scores = scored_categories(shown, shown, ["a"] * 4)
    assert scores.values["brain"].get("category_identification") is None
    assert any("of two categories to compare" in note for note in scores.notes)


def test_takagi():
    fixture = load_file(FIXTURES / "takagi_identification.safetensors")
    found = two_way_identification(
        fixture["in.original"], fixture["in.generated"], "reconstruction", samples=True, reduction="none"
    )
    close(found, fixture["out.accuracy"], 1e-15)


def bdpys_shares(pred, true, index, metric):
    """As bdpy computes it, candidates whose distance is undefined left out."""
    known = ~(np.isnan(pred).any(0) | np.isnan(true).any(0))
    similar = 1 - cdist(pred[:, known], true[:, known], metric)
    scores = []
    for own, row in zip(index, similar, strict=True):
        apart = (row - row[own])[~np.isnan(row - row[own])]
        scores.append(np.sum(apart < 0) / (len(apart) - 1) + 0.0)
    return torch.tensor(scores)


@pytest.mark.parametrize("metric", ["correlation", "euclidean"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bdpys_treatment_of_ties_and_nan(metric, seed):
    """Equal and constant true patterns, constant decoded ones, single trials, and units that are NaN in one sample."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, size=(8, 19)).astype(float)
    index = rng.integers(0, 8, size=20)
    pred = true[index] + rng.integers(-2, 3, size=(20, 19))
    true[3], true[5], pred[4] = true[2], 2.0, 1.0
    pred[0], index[0], index[1] = true[2], 2, 5
    pred[2, 7], true[6, 0], pred[9, 0] = np.nan, np.nan, np.nan
    # 16 units are left, so that the mean of a constant pattern is exact for everybody.
    pred[11, 12] = np.nan
    expected = bdpys_shares(pred, true, index, metric)
    options = {"similarity": metric, "reduction": "none"}
    close(pairwise_identification(true, pred, index, constant_truth="failure", **options), expected, 1e-15)
    found = pairwise_identification(true, pred, index, **options)
    assert found.isnan().tolist() == [metric == "correlation" and own == 5 for own in index]
    close(found[~found.isnan()], expected[~found.isnan()], 1e-15)


def test_seen_and_imagined_apart():
    rng = torch.Generator().manual_seed(4)
    own, others = torch.randn(5, 12, generator=rng), torch.randn(9, 12, generator=rng)
    categories = torch.arange(5).repeat(6)
    imagined = torch.arange(30) >= 20
    decoded = own[categories] + torch.randn(30, 12, generator=rng) * torch.where(imagined, 4.0, 0.5)[:, None]
    found = seen_and_imagined_identification(decoded, categories, imagined, own, others)
    assert found["seen"] == 1 and 0 < found["imagined"] < 1
    for kind, marked in (("seen", ~imagined), ("imagined", imagined)):
        assert found[kind] == category_identification(decoded[marked], categories[marked], own, others)
    seen = ~imagined
    assert set(seen_and_imagined_identification(decoded[seen], categories[seen], imagined[seen], own)) == {"seen"}


@pytest.mark.parametrize("folder", [FIXTURES, FAMILY], ids=["evaluation", "linear_family"])
@pytest.mark.parametrize("fit", ["ols", "slir"])
def test_categories_of_god(fit, folder):
    fixture = load_file(folder / "god_feature_prediction.safetensors")
    _, shown = fixture["in.test_labels"].unique(return_inverse=True)
    candidates = fixture["in.category_features"], fixture["in.other_category_features"]
    found = category_identification(fixture[f"out.{fit}.predicted"], shown, *candidates, reduction="none")
    close(found, fixture[f"out.{fit}.correct_rate"], 1e-15)


def test_mindvis_pairwise_and_five_way():
    fixture = load_file(FIXTURES / "mindvis_image_metrics.safetensors")
    truth, recon = (fixture[name].permute(0, 3, 1, 2).double() / 255 for name in ("in.gt", "in.pred"))
    similar = ssim_matrix(truth, recon, "uniform", channels="separate")
    close(similar.diagonal(), fixture["out.value_ssim"], 1e-6)
    close(identification_accuracy(similar, reduction="none"), fixture["out.pairwise_ssim"], 0)
    for name, values in (("ssim", similar), ("pcc", correlation_matrix(truth, recon))):
        drawn = identification_accuracy(values, 5, trials=20, seed=np.random.RandomState(12), reduction="none")
        close(drawn, fixture[f"out.nway5_{name}"], 1e-12)
        assert drawn.tolist() == identification_accuracy(values, 5, reduction="none").tolist()


def test_ssim_of_all_pairs():
    truth, recon = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = ssim_matrix(truth, recon, resize=20)
    expected = ssim(truth[[0, 2]], recon[[1, 1]], resize=20, reduction="none")
    torch.testing.assert_close(found[[0, 2], [1, 1]], expected)


def test_the_expectation_is_the_mean_over_all_draws():
    similarity = torch.randint(0, 4, (6, 6), generator=torch.Generator().manual_seed(1)).double()
    for n_way, top_k in ((2, 1), (4, 2), (5, 1)):
        found = identification_accuracy(similarity, n_way, top_k, reduction="none")
        for j in range(6):
            others = [i for i in range(6) if i != j]
            beaten = [
                sum(float(similarity[i, j] >= similarity[j, j]) for i in drawn) < top_k
                for drawn in combinations(others, n_way - 1)
            ]
            assert found[j] == pytest.approx(np.mean(beaten))
        drawn = identification_accuracy(similarity, n_way, top_k, trials=4000, seed=0, reduction="none")
        assert (drawn - found).abs().max() < 0.04
    assert identification_accuracy(torch.eye(6), None) == 1


def test_two_way_is_two_way():
    truth, recon = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(2))
    recon += truth
    expected = two_way_identification(truth, recon, reduction="none")
    torch.testing.assert_close(n_way_identification(truth, recon, 2, reduction="none"), expected)
    torch.testing.assert_close(pairwise_identification(truth, recon, reduction="none"), expected)


def test_what_is_constant():
    truth, recon = torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(3))
    truth[2], recon[4] = 0.1, 0.7
    for found in (
        n_way_identification(truth, recon, 3, reduction="none"),
        n_way_identification(truth, recon, 3, trials=5, reduction="none"),
        pairwise_identification(truth, recon, reduction="none"),
        pattern_correlation(truth, recon, reduction="none"),
    ):
        assert found.isnan().tolist() == [False, False, True, False, False, False]
        assert found[4] == 0
    assert category_identification(torch.ones(2, 9), [0, 1], truth[:2]) == 0
    several = torch.stack([recon, recon.roll(1, 0)], 1)
    several[4] = 0.5
    for distractors in ("truth", "reconstruction"):
        scores = two_way_identification(truth, several, distractors, samples=True, reduction="none")
        assert scores[2].isnan() and scores[4] == 0 and scores.isnan().sum() == 1


def test_equal_categories_tie_whatever_rounding_makes_of_them():
    """Products of matrices may differ in the last bits of equal rows."""
    source = np.random.default_rng(0)
    for count in (3, 17, 61):
        own = source.normal(size=(2, 301)).astype(np.float32) + 5
        decoded = own + source.normal(size=own.shape)
        others = np.concatenate([own[:1] * np.float32(2.0**scale) for scale in range(count)])
        scores = category_identification(decoded[:1], [0], own, others, reduction="none")
        assert scores.tolist() == [1]
        scores = category_identification(decoded[:1], [0], own, others, ties="failure", reduction="none")
        assert scores.tolist() == [1 / (count + 1)]


def test_ties_of_categories():
    own = torch.eye(4)[:3]
    tied = own[:1] + own[1:2]
    assert category_identification(tied, [0], own) == 1
    assert category_identification(tied, [0], own, ties="failure") == 0.5


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: identification_accuracy(torch.rand(3, 4)), r"shape \(3, 4\)"),
        (lambda: identification_accuracy(torch.rand(3, 3), 4), "not defined with 3 pictures"),
        (lambda: identification_accuracy(torch.rand(1, 1)), "not defined with 1 pictures"),
        (lambda: identification_accuracy(torch.rand(3, 3), trials=0), "trials is 0"),
        (lambda: pairwise_identification(torch.rand(3, 4), torch.rand(3, 5)), "same units"),
        (lambda: pairwise_identification(torch.rand(3, 4), torch.rand(2, 4)), "truth_index"),
        (lambda: pairwise_identification(torch.rand(3, 4), torch.rand(1, 4), [3]), "indices from 3 to 3"),
        (lambda: pairwise_identification(torch.full((2, 1), torch.nan), torch.rand(2, 1)), "Every unit"),
        (lambda: pairwise_identification(torch.rand(3, 4), torch.rand(3, 4), similarity="x"), "'euclidean'"),
        (lambda: category_identification(torch.rand(3, 4), [0, 1, 3], torch.rand(3, 4)), "from 0 to 2"),
        (lambda: category_identification(torch.rand(3, 4), [0, 0, 0], torch.rand(1, 4)), "two categories"),
        (lambda: category_identification(torch.full((1, 4), torch.nan), [0], torch.rand(2, 4)), "NaN"),
        (lambda: pairwise_identification(torch.rand(3, 4), torch.rand(3, 4), constant_truth="x"), "'failure'"),
        (
            lambda: seen_and_imagined_identification(torch.rand(3, 4), [0, 1, 2], [0, 1, 0], torch.rand(3, 4)),
            "imagined of .* and int64; expected a category and a bool",
        ),
        (lambda: pattern_correlation(torch.rand(3, 4), torch.rand(3, 4), std=torch.zeros(4)), "not above 0"),
        (lambda: pattern_correlation(torch.rand(3, 4), torch.rand(3, 4), mean=torch.zeros(5)), "5 values for 4"),
        (lambda: two_way_identification(torch.rand(3, 4), torch.rand(3, 4), samples=True), "several"),
    ],
)
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        call()
