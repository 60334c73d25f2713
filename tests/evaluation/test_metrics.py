"""Metrics: parity with the published evaluations, and what must hold for any pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import (
    correlation_distance,
    identification_top1,
    mse,
    n_way_accuracy,
    pairwise_pixcorr,
    pixcorr,
    retrieval_accuracy,
    ssim,
    two_way_identification,
)
from fmri_models.evaluation.metrics import SsimPairs, grey
from fmri_models.evaluation.similarities import correlation_matrix, identification_shares

FIXTURES = Path(__file__).parent.parent / "fixtures" / "evaluation"


def pictures(count: int = 6, size: int = 24, seed: int = 0, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------------ parity


def test_pixcorr_and_ssim_equal_the_original():
    fixture = load_file(FIXTURES / "eval_pixcorr_ssim.safetensors")
    found = pixcorr(fixture["img"], fixture["rec"], resize=425, reduction="none")
    torch.testing.assert_close(found, fixture["pixcorr"], atol=1e-6, rtol=0)
    found = ssim(fixture["img"], fixture["rec"], resize=425, reduction="none")
    torch.testing.assert_close(found, fixture["ssim"], atol=1e-6, rtol=0)


def test_two_way_counts_equal_the_original():
    fixture = load_file(FIXTURES / "eval_two_way_and_distance.safetensors")
    scores = two_way_identification(fixture["real"], fixture["pred"], reduction="none")
    assert (scores * fixture["denominator"]).round().long().tolist() == fixture["counts"].tolist()
    assert two_way_identification(fixture["real"], fixture["pred"]) == pytest.approx(fixture["perf"].item(), abs=1e-12)
    clean = two_way_identification(fixture["real"], fixture["pred_clean"])
    assert clean == pytest.approx(fixture["perf_clean"].item(), abs=1e-12)
    matrix = correlation_matrix(fixture["real"], fixture["pred_clean"], chunk_size=7)
    torch.testing.assert_close(matrix, fixture["corr_real_pred_clean"], atol=1e-12, rtol=0)


def test_correlation_distance_equals_the_original():
    fixture = load_file(FIXTURES / "eval_two_way_and_distance.safetensors")
    found = correlation_distance(fixture["feat_gt"], fixture["feat_fake"])
    assert found == pytest.approx(fixture["corr_distance"].item(), abs=1e-6)


@pytest.mark.parametrize("antialias", [False, True])
def test_mindbridge_values_depend_on_antialiasing(antialias):
    fixture = load_file(FIXTURES / "mindbridge_metrics.safetensors")
    expected = json.loads((FIXTURES / "mindbridge_metrics.json").read_text())
    name = "antialias" if antialias else "no_antialias"
    truth = torch.nn.functional.interpolate(fixture["in/images_64"], scale_factor=4)
    recon = torch.nn.functional.interpolate(fixture["in/recons_64"], scale_factor=8)
    options = {"resize": 425, "antialias": antialias}
    assert pixcorr(truth, recon, **options) == pytest.approx(expected[f"pixcorr_{name}"], abs=1e-6)
    assert ssim(truth, recon, **options) == pytest.approx(expected[f"ssim_{name}"], abs=1e-6)


def test_mindbridge_two_way_counts():
    fixture = load_file(FIXTURES / "mindbridge_metrics.safetensors")
    scores = two_way_identification(fixture["in/feat_real"], fixture["in/feat_pred"], reduction="none")
    assert (scores * 11).round().long().tolist() == fixture["out/two_way_feat_counts"].tolist()


def test_mindvis_values_of_pictures():
    fixture = load_file(FIXTURES / "mindvis_image_metrics.safetensors")
    truth, recon = (fixture[name].permute(0, 3, 1, 2).double() / 255 for name in ("in.gt", "in.pred"))
    expected = {name: fixture[f"out.value_{name}"] for name in ("pcc", "ssim", "mse_float")}
    torch.testing.assert_close(pixcorr(truth, recon, reduction="none"), expected["pcc"], atol=1e-6, rtol=0)
    found = ssim(truth, recon, window="uniform", channels="separate", reduction="none")
    torch.testing.assert_close(found, expected["ssim"], atol=1e-6, rtol=0)
    found = mse(truth, recon, reduction="none") * 255**2
    torch.testing.assert_close(found, expected["mse_float"], atol=1e-6, rtol=0)
    assert pairwise_pixcorr(truth, recon, reduction="none").tolist() == fixture["out.pairwise_pcc"].tolist()


@pytest.mark.parametrize(
    ("n_way", "top_k", "trials"), [(50, 1, 1000), (50, 1, 50), (2, 1, 40), (100, 1, 100), (50, 5, 100)]
)
def test_n_way_draws_equal_the_original(n_way, top_k, trials):
    fixture = load_file(FIXTURES / "mindvis_n_way.safetensors")
    target = fixture["in.logits_gt"].argmax(1)
    generator = np.random.RandomState(0)
    found = n_way_accuracy(fixture["in.logits_pred"], target, n_way, top_k, trials, generator, reduction="none")
    expected = fixture[f"out.acc_{n_way}way_top{top_k}_{trials}trials"]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    exact = n_way_accuracy(fixture["in.logits_pred"], target, n_way, top_k, reduction="none")
    assert ((exact - expected).abs() <= 4 * (exact * (1 - exact) / trials).sqrt() + 1e-12).all()


# ---------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("height", "width"), [(11, 11), (28, 28), (40, 33)])
def test_ssim_equals_scikit_image(height, width):
    truth, recon = torch.rand(2, 3, 3, height, width, generator=torch.Generator().manual_seed(1)).double()
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for window, options in (("gaussian", gaussian), ("uniform", {})):
        expected = [
            structural_similarity(*(rgb2gray(p.permute(1, 2, 0).numpy()) for p in pair), data_range=1, **options)
            for pair in zip(truth, recon, strict=True)
        ]
        np.testing.assert_allclose(ssim(truth, recon, window=window, reduction="none").numpy(), expected, atol=1e-12)


def test_ssim_of_pairs_equals_ssim_of_each():
    truth, recon = pictures(seed=1).double(), pictures(seed=2).double()
    i, j = torch.tensor([0, 3, 5]), torch.tensor([4, 3, 0])
    expected = ssim(truth[i], recon[j], reduction="none")
    torch.testing.assert_close(SsimPairs(grey(truth), grey(recon))(i, j), expected)


def test_perfect_reconstruction():
    truth = pictures()
    assert pixcorr(truth, truth) == pytest.approx(1)
    assert ssim(truth, truth) == pytest.approx(1)
    assert mse(truth, truth) == 0
    assert pairwise_pixcorr(truth, truth) == identification_top1(truth, truth) == 1


def test_constant_reconstruction_scores_zero_and_never_nan():
    truth = pictures()
    # A tenth has no exact binary form, so its mean may differ in the last bit.
    constant = torch.full_like(truth, 0.1)
    assert pixcorr(truth, constant) == 0
    assert pairwise_pixcorr(truth, constant) == identification_top1(truth, constant) == 0
    assert correlation_distance(truth.flatten(1), constant.flatten(1)) == 1


def test_identical_reconstructions_are_at_chance():
    truth = pictures(40)
    assert pairwise_pixcorr(truth, truth[:1].expand_as(truth)) == pytest.approx(0.5)


def test_grey_pictures_are_taken():
    truth, recon = pictures(channels=1, size=28), pictures(channels=1, size=28, seed=3)
    assert -1 < pixcorr(truth, recon) < 1
    assert ssim(truth, recon) == pytest.approx(ssim(truth.expand(-1, 3, -1, -1), recon.expand(-1, 3, -1, -1)), abs=1e-7)


@pytest.mark.parametrize("pools", [[[0, 5]], [[-1, 0]], [0, 1], [[]]])
def test_pools_of_pictures_that_there_are_not_are_refused(pools):
    truth, recon = torch.rand(2, 5, 3, 8, 8)
    with pytest.raises(FmriModelsError, match=r"pools have the shape .* with indices from 0 to 4"):
        identification_top1(truth, recon, pools=np.array(pools))
    with pytest.raises(FmriModelsError, match="pools have the shape"):
        retrieval_accuracy(truth, recon, pools=np.array(pools))


def test_identification_within_pools():
    truth, recon = pictures(6), pictures(6)
    recon[0], recon[1] = truth[1], truth[0]
    assert identification_top1(truth, recon) == pytest.approx(4 / 6)
    inside = identification_top1(truth, recon, pools=np.array([[0, 2, 3], [0, 1, 4]]), reduction="none")
    # Item 0 shows picture 1: the first pool lacks picture 1, so there it is compared with strangers only.
    assert inside[0, 1:].tolist() == [1, 1]
    assert inside[1].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x[:, :, :-1], "same number of pictures, channels, height and width"),
        (lambda x: x[:-1], "same number of pictures"),
        (lambda x: (x * 255).byte(), "dtype torch.uint8"),
        (lambda x: x * 2, r"expected \[0, 1\]"),
        (lambda x: x / 0 * 0, "NaN"),
        (lambda x: x[0], "expected"),
    ],
)
@pytest.mark.parametrize("metric", [pixcorr, ssim, mse, pairwise_pixcorr, identification_top1])
def test_bad_pictures_are_refused(metric, change, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        metric(pictures(), change(pictures(seed=1)))


def test_pictures_smaller_than_the_window_are_refused():
    with pytest.raises(FmriModelsError, match="at least 11x11"):
        ssim(pictures(size=10), pictures(size=10))
    assert ssim(pictures(size=10), pictures(size=10), window="uniform") == pytest.approx(1)


# ---------------------------------------------------------------------------------------------------- identification


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 12), size=st.integers(2, 20))
def test_two_way_equals_its_definition(seed, count, size):
    generator = np.random.default_rng(seed)
    # Few levels, so that ties and constant vectors occur.
    truth, recon = generator.integers(0, 3, (2, count, size)).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(truth, recon)[:count, count:]
    constant = {"truth": np.ptp(truth, axis=1) == 0, "reconstruction": np.ptp(recon, axis=1) == 0}

    def share(matrix, j, distractors):
        rivals = [i for i in range(count) if i != j and not constant[distractors][i]]
        if constant["truth"][j] or (not rivals and not constant["reconstruction"][j]):
            return np.nan
        if constant["reconstruction"][j]:
            return 0.0 if rivals or distractors == "reconstruction" else np.nan
        return np.mean([matrix[j, j] - matrix[i, j] > 1e-9 for i in rivals])

    for distractors, matrix in (("truth", r), ("reconstruction", r.T)):
        expected = [share(matrix, j, distractors) for j in range(count)]
        found = two_way_identification(torch.tensor(truth), torch.tensor(recon), distractors, reduction="none")
        np.testing.assert_allclose(found.numpy(), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_two_way_ignores_scale_and_shift_of_features(seed, scale, shift):
    truth, recon = torch.randn(2, 8, 30, generator=torch.Generator().manual_seed(seed)).double()
    assert two_way_identification(truth, recon) == two_way_identification(truth, recon * scale + shift)


def test_groups_restrict_distractors():
    generator = torch.Generator().manual_seed(0)
    truth, recon = torch.randn(2, 5, 30, generator=generator)
    scores = two_way_identification(truth, recon, groups=["a", "b", "a", "b", "alone"], reduction="none")
    r = correlation_matrix(truth, recon)
    assert scores[:4].tolist() == [float(r[j, j] > r[i, j]) for j, i in enumerate([2, 3, 0, 1])]
    assert scores[4].isnan()
    mean = two_way_identification(truth, recon, groups=["a", "b", "a", "b", "alone"])
    assert mean == pytest.approx(scores[:4].mean().item())


def test_shares_of_other_rows_are_those_of_a_changed_pairing():
    truth, recon = torch.randn(2, 7, 40, generator=torch.Generator().manual_seed(5))
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    shares = identification_shares(correlation_matrix(truth, recon))
    expected = two_way_identification(truth[order], recon, reduction="none")
    torch.testing.assert_close(shares[order, torch.arange(7)], expected)


@pytest.mark.parametrize("value", [0.0, 100 / 255, 1.0])
def test_a_constant_true_picture_defeats_no_other(value):
    truth = pictures()
    truth[2] = value
    others = [index for index in range(len(truth)) if index != 2]
    for metric in (pairwise_pixcorr, identification_top1):
        scores = metric(truth, truth, reduction="none")
        assert scores[2].isnan()
        assert scores[others].tolist() == [1] * len(others)
        assert metric(truth, truth) == 1
    for distractors in ("truth", "reconstruction"):
        scores = two_way_identification(truth, truth, distractors, reduction="none")
        assert scores[2].isnan() and scores[others].tolist() == [1] * len(others)
    groups = ["a", "a", "a", "a", "b", "b"][: len(truth)]
    scores = two_way_identification(truth, truth, groups=groups, reduction="none")
    assert scores[2].isnan() and scores[others].tolist() == [1] * len(others)
    pools = np.array([[2, 0, 1], [3, 2, 4]])
    inside = identification_top1(truth, truth, pools=pools, reduction="none")
    assert inside.isnan().tolist() == [[True, False, False], [False, True, False]]
    assert inside.nanmean() == 1
    # A decoder that says the same of everything is no better for it.
    same = pictures()[:1].expand_as(truth)
    assert pairwise_pixcorr(truth, torch.full_like(truth, value)) == 0
    assert identification_top1(truth, torch.full_like(truth, value)) == 0
    assert identification_top1(truth, same) <= 1 / len(others)


def test_random_features_are_at_chance():
    truth, recon = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(0))
    assert two_way_identification(truth, recon) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((torch.rand(3, 4), torch.rand(3, 5)), "shapes"),
        ((torch.rand(1, 4), torch.rand(1, 4)), "at least two"),
        ((torch.rand(3, 4), torch.rand(3, 4), "others"), "'truth' or 'reconstruction'"),
    ],
)
def test_bad_features_are_refused(arguments, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        two_way_identification(*arguments)


# ------------------------------------------------------------------------------------------------------------ classes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(3, 7), data=st.data())
def test_exact_n_way_equals_the_mean_over_all_draws(seed, classes, data):
    from itertools import combinations

    n_way = data.draw(st.integers(2, classes))
    top_k = data.draw(st.integers(1, n_way - 1))
    logits = np.random.default_rng(seed).integers(0, 4, classes)
    others = [c for c in range(classes) if c != 0]
    hits = [sum(logits[list(drawn)] >= logits[0]) < top_k for drawn in combinations(others, n_way - 1)]
    found = n_way_accuracy(torch.tensor(logits)[None].float(), torch.tensor([0]), n_way, top_k)
    assert found == pytest.approx(np.mean(hits), abs=1e-12)


def test_n_way_of_undefined_settings_is_refused():
    logits, target = torch.rand(2, 5), torch.tensor([0, 1])
    for n_way, top_k in ((6, 1), (1, 1), (3, 3)):
        with pytest.raises(FmriModelsError, match="not defined"):
            n_way_accuracy(logits, target, n_way, top_k)
    with pytest.raises(FmriModelsError, match="target"):
        n_way_accuracy(logits, torch.tensor([0, 5]), 3)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("chunk_size", [None, 5, 64])
def test_correlations_lose_no_digits_however_the_first_features_are(offset, chunk_size):
    one, other = torch.randn(2, 6, 640, generator=torch.Generator().manual_seed(4)).double()
    other += one
    # The first features are far from the others, and all are far from zero.
    one[:, :5] += 300
    other[:2, :64] -= 50
    one, other = one + offset, other - offset
    expected = np.corrcoef(one, other)[:6, 6:]
    np.testing.assert_allclose(
        correlation_matrix(one, other, chunk_size).numpy(), expected, atol=1e-11 + 1e-15 * offset
    )


def test_correlations_of_whole_numbers_and_of_half_precision():
    one, other = torch.randint(0, 255, (2, 5, 40), generator=torch.Generator().manual_seed(4)).byte()
    expected = np.corrcoef(one.double(), other.double())[:5, 5:]
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.bfloat16):
        found = correlation_matrix(one.to(dtype), other.to(dtype))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
