"""Maps to a few dimensions of the voxels: on planted codes, on noise, and beside what they shorten."""

import numpy as np
import pytest
import torch

from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.encoders.reduced_rank import principal_map, reduced_rank_map
from fmri_models.encoders.ridge import RidgeSolver, choose_alpha
from fmri_models.errors import FmriModelsError

RANK, TRAINED, TESTED, TARGETS = 3, 120, 200, 40
ALPHAS = tuple(10.0**power for power in range(8))


def planted(num_voxels, noise, seed=0):
    """Voxels and targets of one code, and noise in the voxels alone."""
    rng = np.random.default_rng(seed)
    code = rng.normal(size=(TRAINED + TESTED, RANK))
    targets = (code @ rng.normal(size=(RANK, TARGETS))).astype(np.float32)
    fmri = (code @ rng.normal(size=(RANK, num_voxels)) + noise * rng.normal(size=(len(code), num_voxels))) + 2
    index = np.arange(TRAINED)
    groups = {"image_embeds": IndexedTargets(targets[:TRAINED], index)}
    # A group of far larger numbers counts as much.
    groups["latents"] = IndexedTargets(1000 * targets[:TRAINED, :7], index)
    trials = ClosedFormTrials(fmri[:TRAINED].astype(np.float32), index.astype(str), groups)
    return trials, fmri[TRAINED:].astype(np.float32), targets[TRAINED:]


def fitted(trials):
    solver = RidgeSolver(trials.fmri)
    alphas = {
        name: choose_alpha(solver, trials, name, ALPHAS, "leave_one_stimulus_out").alpha for name in trials.targets
    }
    return solver, alphas, reduced_rank_map(solver, trials, alphas)


def explained(dimensions, targets, other_dimensions, other_targets):
    """Share of the variance of other targets that a regression on dimensions explains."""

    def with_intercept(values):
        return torch.cat([values.double(), torch.ones(len(values), 1)], dim=1)

    weights = torch.linalg.lstsq(with_intercept(dimensions), torch.from_numpy(targets).double()).solution
    true = torch.from_numpy(other_targets).double()
    missed = true - with_intercept(other_dimensions) @ weights
    return 1 - float((missed**2).sum() / ((true - true.mean(dim=0)) ** 2).sum())


@pytest.mark.parametrize("num_voxels", [300, 50])
def test_a_code_of_three_dimensions_is_found_with_three_and_not_with_fewer(num_voxels):
    trials, fmri, targets = planted(num_voxels, noise=0.5)
    _, _, found = fitted(trials)
    learned = trials.targets["image_embeds"].values
    shares = [explained(found.training[:, :k], learned, found(fmri)[:, :k], targets) for k in (1, 2, 3)]
    assert shares[0] < 0.8 and shares[0] < shares[1] < shares[2] and shares[2] > 0.97
    assert found.first(2).rank == 2
    assert torch.equal(found.first(2)(fmri), found(fmri)[:, :2])


@pytest.mark.parametrize("num_voxels", [300, 50])
@pytest.mark.parametrize("penalty", [1.0, 1e7])
def test_dimensions_of_noise_tell_nothing_of_the_examples_that_they_were_fitted_on(num_voxels, penalty):
    """Neither what was learned by heart (a small penalty), nor the mean of the others (a large one)."""
    trials, _, _ = planted(num_voxels, noise=1e4)
    trials.fmri = trials.fmri / 1e4
    found = reduced_rank_map(RidgeSolver(trials.fmri), trials, {"image_embeds": penalty})
    learned = trials.targets["image_embeds"].values
    # By chance five of 120 examples' dimensions explain a 24th.
    assert explained(found.training[:, :5], learned, found.training[:, :5], learned) < 0.12


@pytest.mark.parametrize("num_voxels", [300, 50])
def test_what_the_map_gives_for_an_example_is_that_of_a_map_fitted_without_its_stimulus(num_voxels):
    """Of one target, the dimension is its prediction, but for a factor."""
    trials, _, _ = planted(num_voxels, noise=1.0)
    target = trials.targets["image_embeds"].values[:, :1]
    trials.targets = {"latents": IndexedTargets(target, np.arange(TRAINED))}
    trials.stimulus_ids = (np.arange(TRAINED) // 2).astype(str)
    found = reduced_rank_map(RidgeSolver(trials.fmri), trials, {"latents": 10.0})
    assert found.rank == 1
    ratios = []
    for stimulus in ("0", "7", "30"):
        own = trials.stimulus_ids == stimulus
        others = RidgeSolver(trials.fmri[~own])
        weights, _ = others.weights(torch.from_numpy(target[~own]), 10.0)
        expected = (torch.from_numpy(trials.fmri[own]).double() - others.mean) @ weights.T
        ratios += (found.training[torch.from_numpy(own)] / expected)[:, 0].tolist()
    weights, _ = RidgeSolver(trials.fmri).weights(torch.from_numpy(target), 10.0)
    factor = float((found.weights @ weights.T) / (weights @ weights.T))
    assert ratios == pytest.approx([factor] * 6, rel=1e-6)


@pytest.mark.parametrize("num_voxels", [300, 50])
def test_principal_components_are_those_of_a_singular_value_decomposition(num_voxels):
    trials, fmri, _ = planted(num_voxels, noise=0.5)
    found = principal_map(RidgeSolver(trials.fmri), most=10)
    centred = torch.from_numpy(trials.fmri).double()
    mean = centred.mean(dim=0)
    components = torch.linalg.svd(centred - mean, full_matrices=False).Vh[:10]
    assert torch.allclose((found.weights @ components.T).abs(), torch.eye(10, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(found(fmri), (torch.from_numpy(fmri).double() - mean) @ found.weights.T, atol=1e-6)
    assert torch.allclose(found(trials.fmri), found.training, atol=1e-6)


def test_patterns_are_as_long_as_those_of_the_voxels():
    trials, _, _ = planted(50, noise=0.5)
    solver, _, found = fitted(trials)
    assert float((found.training**2).sum(dim=1).mean()) == pytest.approx(solver.pattern_length)


def test_targets_that_are_all_alike_are_refused():
    trials, _, _ = planted(50, noise=0.5)
    trials.targets = {"latents": IndexedTargets(np.ones((TRAINED, 4), np.float32), np.arange(TRAINED))}
    with pytest.raises(FmriModelsError, match="nothing to decode"):
        reduced_rank_map(RidgeSolver(trials.fmri), trials, {"latents": 1.0})
