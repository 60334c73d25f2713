"""Each target on voxels of its own, where these are many: float32 with float64 behind it."""

import numpy as np
import pytest
import torch

from fmri_models.encoders.ridge import RidgeSolver
from fmri_models.encoders.selected_equations import SMALLEST_SOLVED_ALONE
from fmri_models.encoders.selected_ridge import SelectedRidge
from fmri_models.errors import FmriModelsError

MANY = SMALLEST_SOLVED_ALONE + 22


def problem(mean: float = 0.0, examples: int = 260) -> tuple[np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((examples, 12))
    fmri = common @ rng.standard_normal((12, 300)) + rng.standard_normal((examples, 300)) + mean
    targets = common @ rng.standard_normal((12, 9)) + rng.standard_normal((examples, 9)) + 3
    return fmri, torch.from_numpy(targets)


def in_double(fmri: np.ndarray, targets: torch.Tensor, own: torch.Tensor, intercept, alpha: float) -> list:
    """Weights and bias of each target on its own voxels, without anything that is shared."""
    return [
        RidgeSolver(fmri[:, voxels.numpy()], intercept).weights(targets[:, each, None], alpha)
        for each, voxels in enumerate(own)
    ]


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
def test_many_voxels_of_each_target_are_solved_for_as_by_themselves(intercept):
    fmri, targets = problem()
    solver = SelectedRidge(fmri, MANY, intercept)
    found = solver.weights(targets, 30.0)
    correlations = np.abs(np.corrcoef(fmri.T, targets.numpy().T)[:300, 300:])
    for each, (weights, bias) in enumerate(in_double(fmri, targets, found.indices, intercept, 30.0)):
        assert set(found.indices[each].tolist()) == set(np.argsort(-correlations[:, each])[:MANY].tolist())
        size = float(weights.abs().max())
        torch.testing.assert_close(found.weights[each], weights[0].double(), rtol=0, atol=3e-4 * size)
        own = fmri[:, found.indices[each].numpy()]
        expected = own @ weights[0].numpy() + bias.numpy()
        np.testing.assert_allclose(own @ found.weights[each].numpy() + found.bias[each].numpy(), expected, atol=1e-4)
    assert list(solver._grams) == [torch.float32]


def test_float64_takes_over_where_float32_is_not_precise_enough():
    fmri, targets = problem(mean=500.0)
    solver = SelectedRidge(fmri, MANY, "penalised")
    found = solver.weights(targets, 1.0)
    assert list(solver._grams) == [torch.float64]
    for each, (weights, bias) in enumerate(in_double(fmri, targets, found.indices, "penalised", 1.0)):
        torch.testing.assert_close(found.weights[each], weights[0], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found.bias[each], bias[0], rtol=1e-6, atol=1e-8)


def test_targets_that_never_vary_vouch_for_nothing():
    fmri, targets = problem(mean=500.0)
    targets = torch.cat([torch.full((len(fmri), 40), 2.0, dtype=torch.float64), targets], dim=1)
    solver = SelectedRidge(fmri - 500 + np.linspace(0, 1e-3, 300), MANY)
    solver.weights(targets[:, :40], 1.0)
    found = SelectedRidge(fmri, MANY).weights(targets, 1.0)
    torch.testing.assert_close(found.weights[:40], torch.zeros(40, MANY, dtype=torch.float64))
    torch.testing.assert_close(found.bias[:40], torch.full((40,), 2.0, dtype=torch.float64))


def test_several_penalties_of_the_same_targets_are_those_of_each_alone():
    fmri, targets = problem()
    solver = SelectedRidge(fmri, MANY)
    own = solver.select(targets)
    for alpha in (10.0, 1000.0):
        alone = SelectedRidge(fmri, MANY).weights(targets, alpha, own)
        torch.testing.assert_close(solver.weights(targets, alpha, own).weights, alone.weights)


@pytest.mark.parametrize("count", [20, MANY])
def test_a_penalty_that_is_too_small_is_refused(count):
    fmri, targets = problem(examples=12)
    with pytest.raises(FmriModelsError, match="penalty 0 is too small for the selected voxels.*choose a larger one"):
        SelectedRidge(fmri, count).weights(targets, 0.0)


def test_a_target_without_values_is_named():
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(rng.normal(size=(20, 3)))
    targets[1:, 2] = torch.nan
    with pytest.raises(FmriModelsError, match="Target 2 has a value for fewer than 2"):
        SelectedRidge(rng.normal(size=(20, 8)), 4).weights(targets, 1.0)
