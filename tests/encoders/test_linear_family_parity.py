"""Solvers of the linear family against numbers that the original code has computed (tests/fixtures/linear_family)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.encoders.ridge import RidgeSolver, choose_alpha_of_each, consecutive_folds
from fmri_models.encoders.selected_linear import SelectedLinear
from fmri_models.encoders.selected_ridge import SelectedRidge, SelectedSparse
from fmri_models.encoders.sparse_regression import sparse_regression

FOLDER = Path(__file__).parents[1] / "fixtures" / "linear_family"


def fixture(name: str) -> tuple[dict[str, np.ndarray], dict]:
    return load_file(FOLDER / f"{name}.safetensors"), json.loads((FOLDER / f"{name}.json").read_text())


def dense(selected, num_voxels: int) -> np.ndarray:
    """(V, T) the matrix that selected weights stand for."""
    matrix = torch.zeros(len(selected.bias), num_voxels, dtype=selected.weights.dtype)
    return matrix.scatter_add(1, selected.indices, selected.weights).T.numpy()


def predicted(weights: torch.Tensor, bias: torch.Tensor, x: np.ndarray) -> np.ndarray:
    return x @ weights.numpy().T + bias.numpy()


def test_a_penalised_intercept_is_fastl2lirs():
    of, about = fixture("fastl2lir_all_voxels")
    solver = RidgeSolver(of["in.x"], "penalised")
    weights, bias = solver.weights(torch.from_numpy(of["in.y"]), about["fit"]["alpha"])
    np.testing.assert_allclose(weights.numpy().T, of["out.W"], atol=1e-9)
    np.testing.assert_allclose(bias.numpy()[None], of["out.b"], atol=1e-9)
    np.testing.assert_allclose(predicted(weights, bias, of["in.x_test"]), of["out.predicted"], atol=1e-9)


def test_each_target_has_the_voxels_and_weights_of_fastl2lir():
    of, about = fixture("fastl2lir_select")
    solver = SelectedRidge(of["in.x"], about["fit"]["n_feat"], "penalised")
    found = solver.weights(torch.from_numpy(of["in.y"]), about["fit"]["alpha"])
    np.testing.assert_allclose(dense(found, of["in.x"].shape[1]), of["out.W"], atol=1e-9)
    np.testing.assert_allclose(found.bias.numpy()[None], of["out.b"], atol=1e-9)
    assert 3 not in found.indices
    np.testing.assert_allclose(found.predict(of["in.x_test"]).numpy(), of["out.predicted"], atol=1e-9)


def test_patterns_standardised_over_selected_voxels_and_missing_targets_are_fastl2lirs():
    of, about = fixture("fastl2lir_spatial_norm")
    solver = SelectedRidge(of["in.x"], about["fit"]["n_feat"], "penalised", standardises_patterns=True)
    found = solver.weights(torch.from_numpy(of["in.y"]), about["fit"]["alpha"])
    np.testing.assert_array_equal(
        np.stack([np.flatnonzero(column) for column in of["out.selected"].T]), found.indices.numpy()
    )
    np.testing.assert_allclose(dense(found, of["in.x"].shape[1]), of["out.W"], atol=1e-9)
    np.testing.assert_allclose(found.bias.numpy()[None], of["out.b"], atol=1e-9)
    layer = SelectedLinear(of["in.x"].shape[1], of["in.y"].shape[1], about["fit"]["n_feat"], True).double()
    with torch.no_grad():
        layer.indices.copy_(found.indices)
        layer.weight.copy_(found.weights)
        layer.bias.copy_(found.bias)
    np.testing.assert_allclose(
        layer(torch.from_numpy(of["in.x_test"])).detach().numpy(), of["out.predicted"], atol=1e-9
    )


@pytest.mark.parametrize("name", ["slir_wide", "slir_tall"])
def test_sparse_regression_is_slirs(name):
    of, _ = fixture(name)
    found = sparse_regression(torch.from_numpy(of["in.x"]), torch.from_numpy(of["in.y"]))
    np.testing.assert_array_equal(found.kept.numpy(), of["out.valid_index"])
    np.testing.assert_allclose(found.weights.numpy(), of["out.coef"], atol=1e-6)
    np.testing.assert_allclose(found.noise_variance, of["out.noise_variance"][0], rtol=1e-5)
    np.testing.assert_allclose(found.variances.numpy(), of["out.weight_variance"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of["in.x_test"] @ found.weights.numpy(), of["out.predicted"], atol=1e-6)


@pytest.mark.parametrize("folds_of", ["rows", "stimuli"])
def test_a_penalty_for_each_target_is_himalayas(folds_of):
    of, about = fixture("ridge_per_target")
    rows = np.arange(len(of["in.x"]))
    folds = consecutive_folds(rows, 5) if folds_of == "rows" else of["in.group_folds"].argmax(axis=0)
    targets = IndexedTargets(of["in.y"], rows)
    trials = ClosedFormTrials(of["in.x"], of["in.stimulus"].astype(str), {"latents": targets})
    solver = RidgeSolver(of["in.x"])
    choice = choose_alpha_of_each(solver, trials, "latents", about["alphas"], folds)
    np.testing.assert_allclose(choice.alphas, of[f"out.{folds_of}.alphas"], rtol=1e-9)
    for alpha in np.unique(choice.alphas):
        own = choice.alphas == alpha
        weights, bias = solver.weights(torch.from_numpy(of["in.y"][:, own]), alpha)
        np.testing.assert_allclose(weights.numpy().T, of[f"out.{folds_of}.coef"][:, own], atol=1e-8)
        np.testing.assert_allclose(bias.numpy(), of[f"out.{folds_of}.intercept"][own], atol=1e-8)
        expected = of[f"out.{folds_of}.predicted"][:, own]
        np.testing.assert_allclose(predicted(weights, bias, of["in.x_test"]), expected, atol=1e-8)


@pytest.mark.parametrize(("intercept", "kind"), [("none", "official"), ("free", "with_intercept")])
def test_takagis_ridge_without_and_with_an_intercept(intercept, kind):
    of, about = fixture("takagi_ridge")
    x, x_test = of["in.x.ventral"], of["in.x_test.ventral"]
    mean, std = x.mean(axis=0), x.std(axis=0)
    # In single precision, as there: what is left of the mean is predicted from where there is no intercept.
    x, x_test = ((values - mean) / std for values in (x, x_test))
    y = of["in.y"].reshape(len(x), -1).astype(np.float64)
    rows = np.arange(len(x))
    trials = ClosedFormTrials(x, rows.astype(str), {"latents": IndexedTargets(y, rows)})
    solver = RidgeSolver(x, intercept)
    alphas = choose_alpha_of_each(solver, trials, "latents", about["alphas"], consecutive_folds(rows, 5)).alphas
    np.testing.assert_allclose(alphas, of[f"out.{'official' if intercept == 'none' else kind}_alphas"], rtol=1e-5)
    found = np.empty((len(x_test), y.shape[1]))
    for alpha in np.unique(alphas):
        own = alphas == alpha
        found[:, own] = predicted(*solver.weights(torch.from_numpy(y[:, own]), alpha), x_test)
    np.testing.assert_allclose(found, of[f"out.{kind}"], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["brain_diffuser_clipvision", "brain_diffuser_vdvae"])
def test_brain_diffusers_ridge(name):
    of, about = fixture(name)
    x, x_test = of["in.x"].astype(np.float64) / 300, of["in.x_test"].astype(np.float64) / 300
    mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
    y = of["in.y"].reshape(len(x), -1)
    solver = RidgeSolver((x - mean) / std)
    found = predicted(*solver.weights(torch.from_numpy(y), about["alpha"]), (x_test - mean) / std)
    np.testing.assert_allclose(found, of["out.raw"].reshape(len(x_test), -1), atol=1e-4)


@pytest.mark.parametrize("kind", ["ols", "slir"])
def test_generic_object_decoding(kind):
    of, _ = fixture("god_feature_prediction")
    x, x_test = of["in.x"], of["in.x_test"]
    mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
    x, x_test = (x - mean) / std, (x_test - mean) / std
    y_mean, y_std = of["in.y"].mean(axis=0), of["in.y"].std(axis=0, ddof=1)
    y = torch.from_numpy((of["in.y"] - y_mean) / np.where(y_std > 0, y_std, 1))
    found = SelectedRidge(x, 20).weights(y, 0.0) if kind == "ols" else SelectedSparse(x, 20).weights(y)
    decoded = found.predict(x_test).numpy() * y_std + y_mean
    np.testing.assert_allclose(decoded, of[f"out.{kind}.predicted"], atol=1e-8 if kind == "ols" else 1e-5)
