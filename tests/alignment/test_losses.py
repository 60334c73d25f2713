"""Contrastive losses and MixCo: against the original's numbers, and in what the original has no case for."""

import pytest
import torch

from fmri_models.alignment.losses import (
    bimixco_loss,
    cosine_anneal,
    draw_mixco,
    effective_betas,
    mixco,
    mixed_labels,
    normalised,
    retrieval_top1,
    similarity,
    soft_clip_loss,
    soft_contrastive_loss,
)
from fmri_models.errors import FmriModelsError
from tests.models.mindeye.original import original


@pytest.fixture(scope="module")
def fixture():
    return original("losses")[0]


def assert_close(found: torch.Tensor | float, expected: torch.Tensor, atol: float = 1e-5) -> None:
    found = torch.as_tensor(found)
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("temperature", [0.004, 0.006, 0.0075, 0.125])
def test_soft_clip_loss_and_gradient_are_the_originals(fixture, temperature):
    predicted = fixture["preds"].clone().requires_grad_()
    loss = soft_clip_loss(predicted, fixture["targs"], temperature)
    assert_close(loss, fixture[f"soft_clip.{temperature}"])
    loss.backward()
    assert_close(predicted.grad, fixture[f"soft_clip_grad.{temperature}"])


@pytest.mark.parametrize("temperature", [0.004, 0.006, 0.0075])
def test_soft_clip_loss_with_really_soft_labels(fixture, temperature):
    predicted = fixture["preds_c"].clone().requires_grad_()
    loss = soft_clip_loss(predicted, fixture["targs_c"], temperature)
    assert_close(loss, fixture[f"soft_clip_c.{temperature}"])
    loss.backward()
    assert_close(predicted.grad, fixture[f"soft_clip_c_grad.{temperature}"], atol=1e-4)


@pytest.mark.parametrize("suffix", ["", "_c"])
@pytest.mark.parametrize("temperature", [0.075, 0.2])
def test_soft_contrastive_loss_is_the_originals(fixture, suffix, temperature):
    views = [fixture[f"{name}{suffix}"] for name in ("preds", "targs", "targs_aug")]
    assert_close(soft_contrastive_loss(*views, temperature), fixture[f"soft_cont{suffix}.{temperature}"])


@pytest.mark.parametrize("name", ["vox", "vox3"])
def test_mixed_voxels_are_the_originals(fixture, name):
    mixed = mixco(fixture[name], fixture["perm"], fixture["betas_in"], fixture["select"])
    assert_close(mixed, fixture[f"{name}_mixed"], atol=1e-6)
    assert torch.equal(effective_betas(fixture["betas_in"], fixture["select"]), fixture["betas_out"])


def test_bimixco_loss_and_gradient_are_the_originals(fixture):
    draw = (fixture["perm"], fixture["betas_in"], fixture["select"])
    predicted = fixture["preds"].clone().requires_grad_()
    loss = bimixco_loss(predicted, fixture["targs"], *draw)
    assert_close(loss, fixture["mixco_nce.bi1"])
    loss.backward()
    assert_close(predicted.grad, fixture["mixco_nce_grad.bi1"])
    assert_close(bimixco_loss(fixture["preds_c"], fixture["targs_c"], *draw), fixture["mixco_nce_c"])
    assert_close(mixed_labels(fixture["perm"], fixture["betas_out"]), fixture["probs"], atol=1e-7)


def test_rows_that_stay_in_place_lose_their_label_as_published(fixture):
    permutation, betas = fixture["perm_fixed"], fixture["betas_fixed"]
    labels = mixed_labels(permutation, betas)
    assert_close(labels, fixture["probs_fixed"], atol=1e-7)
    assert labels[9].sum() == 0
    everywhere = torch.ones(len(betas), dtype=torch.bool)
    loss = bimixco_loss(fixture["preds"], fixture["targs"], permutation, betas, everywhere)
    assert_close(loss, fixture["mixco_nce_fixed"])


def test_draws_are_in_the_originals_order(fixture):
    draw = draw_mixco(torch.zeros(12, dtype=torch.long), torch.Generator().manual_seed(99))
    assert torch.equal(draw.permutation, fixture["seed99_perm"])
    assert torch.equal(draw.select, fixture["seed99_select"])
    assert_close(effective_betas(draw.betas, draw.select), fixture["seed99_betas"], atol=1e-6)
    mixed = mixco(fixture["vox"], draw.permutation, draw.betas, draw.select)
    assert_close(mixed, fixture["seed99_mixed"], atol=1e-6)


def test_draws_advance_their_generator_and_no_other():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(5)
    first, second = (draw_mixco(torch.zeros(8, dtype=torch.long), generator) for _ in range(2))
    assert not torch.equal(first.betas, second.betas)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_rows_mix_within_their_subject():
    subjects = torch.tensor([0, 1, 0, 2, 1, 0, 1, 2, 0, 1])
    draws = [draw_mixco(subjects, torch.Generator().manual_seed(seed)) for seed in range(20)]
    for draw in draws:
        assert torch.equal(draw.permutation.sort().values, torch.arange(10))
        assert torch.equal(subjects[draw.permutation], subjects)
    assert len({tuple(draw.permutation.tolist()) for draw in draws}) > 10


@pytest.mark.parametrize(("epochs", "steps"), [(240, 161), (150, 101)])
def test_annealing_is_the_originals(fixture, epochs, steps):
    found = torch.tensor([cosine_anneal(0.004, 0.0075, step / (steps - 1)) for step in range(steps)])
    assert_close(found, fixture[f"anneal_{epochs}"], atol=1e-8)


def test_one_row_is_a_sentence(fixture):
    row, draw = fixture["preds"][:1], (torch.tensor([0]), torch.tensor([1.0]), torch.tensor([True]))
    with pytest.raises(FmriModelsError, match="this batch has one row; train with a batch size of 2"):
        soft_clip_loss(row, row, 0.006)
    with pytest.raises(FmriModelsError, match="this batch has one row"):
        bimixco_loss(row, row, *draw)


def test_similarities_stay_in_single_precision_under_autocast(fixture):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity(fixture["preds"], fixture["targs"], 0.006)
    assert torch.equal(found, similarity(fixture["preds"], fixture["targs"], 0.006))


def test_retrieval_counts_rows_whose_own_picture_is_nearest():
    target = normalised(torch.eye(4).reshape(4, 2, 2))
    assert retrieval_top1(target, target) == 1
    assert retrieval_top1(target[[0, 1, 3, 2]], target) == 0.5
