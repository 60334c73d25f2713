"""Ridge regression against scikit-learn and against refitting."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from fmri_models.closed_form_trials import IndexedTargets
from fmri_models.encoders.ridge import RidgeSolver
from fmri_models.errors import FmriModelsError


def make_problem(rows: int, voxels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fmri = (rng.normal(size=(rows, voxels)) + 3).astype(np.float32)
    targets = fmri[:, :6] @ rng.normal(size=(6, 7)) + rng.normal(size=(rows, 7)) + 10
    return fmri, targets


SHAPES = pytest.mark.parametrize(("rows", "voxels"), [(50, 120), (240, 40)], ids=["dual", "primal"])


@SHAPES
def test_weights_are_scikit_learns(rows, voxels):
    fmri, targets = make_problem(rows, voxels)
    solver = RidgeSolver(fmri)
    assert solver.dual == (rows < voxels)
    weights, bias = solver.weights(torch.from_numpy(targets), alpha=20.0)
    expected = Ridge(20.0).fit(fmri, targets)
    np.testing.assert_allclose(weights.numpy(), expected.coef_, atol=1e-5)
    np.testing.assert_allclose(bias.numpy(), expected.intercept_, atol=1e-4)


@SHAPES
def test_held_out_errors_are_those_of_predictions(rows, voxels):
    fmri, targets = make_problem(rows, voxels)
    other, other_targets = make_problem(30, voxels, seed=1)
    errors = RidgeSolver(fmri).held_out_errors(
        other, torch.from_numpy(targets), torch.from_numpy(other_targets), [1.0, 100.0]
    )
    for alpha, error in zip([1.0, 100.0], errors, strict=True):
        predicted = Ridge(alpha).fit(fmri, targets).predict(other)
        assert error == pytest.approx(((predicted - other_targets) ** 2).mean(), rel=1e-4)


@SHAPES
def test_leaving_a_stimulus_out_equals_refitting_without_all_its_repetitions(rows, voxels):
    fmri, targets = make_problem(rows, voxels)
    # Groups of one, two and three rows, in mixed order.
    groups = np.random.default_rng(2).permutation(np.repeat(np.arange(rows), np.arange(rows) % 3 + 1)[:rows])
    errors = RidgeSolver(fmri).leave_one_group_out_errors(torch.from_numpy(targets), groups, [5.0, 500.0])
    for alpha, error in zip([5.0, 500.0], errors, strict=True):
        squares = [
            (
                Ridge(alpha).fit(fmri[groups != g], targets[groups != g]).predict(fmri[groups == g])
                - targets[groups == g]
            )
            ** 2
            for g in np.unique(groups)
        ]
        assert error == pytest.approx(np.concatenate(squares).mean(), rel=1e-4)


@SHAPES
@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
def test_one_decomposition_leaves_out_as_each_penalty_by_itself(rows, voxels, intercept):
    fmri, targets = make_problem(rows, voxels)
    targets = torch.from_numpy(targets)
    folds = np.arange(rows) % 4
    solver = RidgeSolver(fmri, intercept)
    errors = solver.fold_errors_of_each(targets, folds, [2.0, 200.0])
    for alpha, error in zip([2.0, 200.0], errors, strict=True):
        factor = solver.factor(alpha)
        assert factor is not None
        squares = solver.left_out_residuals(targets, folds, alpha, factor).numpy() ** 2
        each = np.mean([squares[folds == fold].mean(axis=0) for fold in range(4)], axis=0)
        np.testing.assert_allclose(error, each, rtol=1e-8)


def test_large_problems_are_solved_in_single_precision_and_agree(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr("fmri_models.encoders.ridge._FLOAT64_SIZE", 1024)
    fmri = rng.normal(size=(2500, 1100)).astype(np.float32)
    targets = fmri[:, :5] @ rng.normal(size=(5, 3)) + rng.normal(size=(2500, 3))
    solver = RidgeSolver(fmri)
    assert solver.dtype == torch.float32
    weights, _ = solver.weights(torch.from_numpy(targets), alpha=300.0)
    np.testing.assert_allclose(weights.numpy(), Ridge(300.0).fit(fmri, targets).coef_, atol=1e-4)


def test_a_voxel_without_variance_gets_no_weight():
    fmri, targets = make_problem(60, 20)
    fmri[:, 4] = 0.0
    weights, _ = RidgeSolver(fmri).weights(torch.from_numpy(targets), alpha=1.0)
    np.testing.assert_allclose(weights[:, 4].numpy(), 0.0, atol=1e-8)


def test_targets_are_read_by_trial():
    values = np.arange(12.0).reshape(4, 3)
    targets = IndexedTargets(values, np.array([2, 2, 0]))
    np.testing.assert_array_equal(targets.columns(slice(1, 3)), [[7, 8], [7, 8], [1, 2]])


def test_bad_voxels_are_sentences():
    with pytest.raises(FmriModelsError, match="at least 2"):
        RidgeSolver(np.zeros((1, 3), np.float32))
    with pytest.raises(FmriModelsError, match="NaN or infinite"):
        RidgeSolver(np.array([[1.0, np.nan], [2.0, 1.0]], np.float32))


def test_a_penalty_that_is_too_small_is_never_chosen_and_refused_by_name():
    fmri = np.tile(np.random.default_rng(0).normal(size=(40, 1)), (1, 8)).astype(np.float32)
    targets = torch.randn(40, 2)
    solver = RidgeSolver(fmri)
    errors = solver.leave_one_group_out_errors(targets, np.arange(40), [1e-30, 1.0])
    assert np.isinf(errors[0])
    assert np.isfinite(errors[1])
    with pytest.raises(FmriModelsError, match="1e-30 is too small"):
        solver.weights(targets, 1e-30)


@pytest.mark.parametrize("repetitions", [1, 3])
def test_small_penalties_have_the_left_out_errors_of_double_precision_in_single_precision(repetitions):
    # Centred examples have no length along the ones, where rounding once made the error of small penalties 0.
    fmri, targets = make_problem(300, 900)
    groups, alphas = np.arange(300) // repetitions, [1e-4, 1e-2, 1.0, 100.0]
    single, double = (
        RidgeSolver(fmri, dtype=dtype).leave_one_group_out_errors(torch.from_numpy(targets), groups, alphas)
        for dtype in (torch.float32, torch.float64)
    )
    np.testing.assert_allclose(single, double, rtol=1e-3)


def test_tiny_penalties_leave_out_what_refitting_does():
    fmri, targets = make_problem(60, 100)
    groups = np.arange(60) // 9
    found = RidgeSolver(fmri).fold_errors_of_each(torch.from_numpy(targets), groups, [1e-8])[0]
    squares = np.empty_like(targets)
    for group in np.unique(groups):
        others = groups != group
        fitted = Ridge(1e-8, solver="svd").fit(fmri[others].astype(float), targets[others])
        squares[~others] = (targets[~others] - fitted.predict(fmri[~others].astype(float))) ** 2
    expected = np.mean([squares[groups == group].mean(axis=0) for group in np.unique(groups)], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_fold_leaves_nothing_to_learn_from():
    fmri, targets = make_problem(20, 9)
    with pytest.raises(FmriModelsError, match="in one fold"):
        RidgeSolver(fmri).fold_errors_of_each(torch.from_numpy(targets), np.zeros(20), [1.0])
