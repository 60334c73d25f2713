"""What no metric can score: one sentence each; and what fails, which is never left out of a mean."""

import math

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import (
    correlation_distance,
    frechet_distance,
    identification_top1,
    mse,
    n_way_identification,
    pairwise_identification,
    pairwise_pixcorr,
    pattern_correlation,
    pixcorr,
    retrieval_accuracy,
    ssim,
    two_way_identification,
)

OF_PICTURES = (pixcorr, ssim, mse, pairwise_pixcorr, identification_top1)
OF_FEATURES = (
    two_way_identification,
    correlation_distance,
    frechet_distance,
    pairwise_identification,
    pattern_correlation,
    retrieval_accuracy,
)
NEED_OTHERS = (
    pairwise_pixcorr,
    identification_top1,
    two_way_identification,
    pairwise_identification,
    retrieval_accuracy,
    frechet_distance,
)


def pictures(count, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def one_sentence(function, *arguments):
    with pytest.raises(FmriModelsError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300
    return text


@pytest.mark.parametrize("function", OF_PICTURES)
def test_pictures_that_do_not_fit(function):
    truth = pictures(4)
    assert "(4, 3, 16, 16)" in one_sentence(function, truth, pictures(3))
    assert "(4, 3, 16, 20)" in one_sentence(function, truth, torch.rand(4, 3, 16, 20))
    assert "NaN" in one_sentence(function, truth, truth.masked_fill(truth > 0.9, torch.nan))
    assert "values from" in one_sentence(function, truth, 2 * truth)
    assert "divide by 255" in one_sentence(function, truth, (255 * truth).byte())


@pytest.mark.parametrize("function", OF_FEATURES)
def test_features_that_do_not_fit(function):
    truth, recon = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    one_sentence(function, truth, recon[:, :5])
    if function is not frechet_distance:
        one_sentence(function, truth, recon[:3])
    if function not in (two_way_identification, pairwise_identification):
        assert "NaN" in one_sentence(function, truth, recon.masked_fill(recon > 1, torch.nan))


@pytest.mark.parametrize("function", NEED_OTHERS)
def test_one_picture_alone(function):
    both = (pictures(1), pictures(1, seed=1)) if function in OF_PICTURES else torch.randn(2, 1, 6)
    assert "two pictures" in one_sentence(function, *both)
    if function is two_way_identification:
        assert "not defined with 1 pictures" in one_sentence(n_way_identification, *both, 2)


@pytest.mark.parametrize(
    "function", [*OF_PICTURES, two_way_identification, pairwise_identification, pattern_correlation]
)
def test_a_constant_reconstruction_is_a_failure_in_the_mean(function):
    truth = pictures(4) if function in OF_PICTURES else torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    right, constant = truth.clone(), truth.clone()
    constant[2] = 0.4
    scores = function(truth, constant, reduction="none")
    assert scores.isfinite().all()
    found, best = function(truth, constant), function(truth, right)
    assert math.isfinite(found)
    assert found > best if function is mse else found < best
    assert found == pytest.approx(scores.mean().item())


def test_a_failed_network_is_a_failure_in_the_mean():
    truth = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    failed = truth.clone()
    failed[1] = torch.nan
    assert two_way_identification(truth, failed, reduction="none").tolist() == [1, 0, 1, 1]
    assert correlation_distance(truth, torch.ones_like(truth)) == 1


def test_where_nothing_was_shown_there_is_no_mean():
    blank = torch.full((3, 3, 16, 16), 0.5)
    for function in (pairwise_pixcorr, identification_top1):
        assert "None of the 3 pictures" in one_sentence(function, blank, pictures(3))
        assert function(blank, pictures(3), reduction="none").isnan().all()
