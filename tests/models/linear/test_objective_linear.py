"""Fitting the linear method: against scikit-learn, and the choice of penalties."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.errors import FmriModelsError
from fmri_models.models.linear import LinearConfig, LinearModel, LinearObjective, objective_linear


def make_trials(seed: int, stimuli: int = 60, voxels: int = 20, noise: float = 1.0) -> ClosedFormTrials:
    """Two noisy trials of each stimulus whose responses are linear in the targets."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(stimuli, 8)).astype(np.float32)
    index = np.repeat(np.arange(stimuli), 2)
    fmri = (
        values[index] @ np.random.default_rng(7).normal(size=(8, voxels))
        + rng.normal(size=(2 * stimuli, voxels)) * noise
    )
    ids = np.array([f"s{seed}-{row}" for row in index])
    return ClosedFormTrials(fmri.astype(np.float32), ids, {"latents": IndexedTargets(values, index)})


def make_model() -> LinearModel:
    space = {"encoder": "tiny", "layer": "latent", "shape": [2, 4]}
    return LinearModel(LinearConfig(subject_names=["subj01"], num_voxels=[20], latent_space=space, targets_a_block=3))


def test_the_weights_are_scikit_learns():
    trials, model = make_trials(0), make_model()
    LinearObjective(penalties=[30.0]).fit(model, {"subj01": trials})
    targets = trials.targets["latents"].columns(slice(None))
    expected = Ridge(30.0).fit(trials.fmri, targets).predict(trials.fmri)
    found = model(torch.from_numpy(trials.fmri)).latents.flatten(1).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert model.config.penalties == {"subj01": {"latents": 30.0}}


@pytest.mark.parametrize("selection", ["validation", "leave_one_stimulus_out"])
def test_the_penalty_with_the_smallest_held_out_error_is_taken(selection):
    trials, validation = make_trials(0, stimuli=20, noise=3.0), make_trials(1, noise=3.0)
    model = make_model()
    errors = LinearObjective(selection=selection).fit(model, {"subj01": trials}, {"subj01": validation})
    by_penalty = {float(penalty): error for penalty, error in errors["subj01"]["latents"].items()}
    chosen = model.config.penalties["subj01"]["latents"]
    assert chosen == pytest.approx(min(by_penalty, key=by_penalty.get), rel=1e-5)
    assert 1.0 < chosen < 1e6


def test_an_end_of_the_range_is_reported(caplog):
    with caplog.at_level("WARNING", logger="fmri_models"):
        LinearObjective(penalties=[1e-3, 1e-2]).fit(make_model(), {"subj01": make_trials(0, stimuli=15, noise=5.0)})
    assert "an end of the range tried" in caplog.text and "(objective.penalties in the recipe)" in caplog.text


def test_an_end_of_a_parts_own_range_names_the_parts_key(caplog):
    parts = {"latents": {"penalties": [1e-3, 1e-2]}}
    with caplog.at_level("WARNING", logger="fmri_models"):
        LinearObjective(parts=parts).fit(make_model(), {"subj01": make_trials(0, stimuli=15, noise=5.0)})
    assert "(objective.parts.latents.penalties in the recipe)" in caplog.text


@pytest.mark.parametrize(("at_edge", "said"), [(0.001, "for fewer than 1% of the units"), (0.25, "for 25% of the")])
def test_a_small_share_of_units_at_an_end_is_not_said_to_be_none(monkeypatch, caplog, at_edge, said):
    fit = objective_linear.fit_dense
    monkeypatch.setattr(objective_linear, "fit_dense", lambda *args: replace(fit(*args), at_edge=at_edge))
    parts = {"latents": {"penalty_per": "target", "folds": 3}}
    with caplog.at_level("WARNING", logger="fmri_models"):
        LinearObjective(parts=parts).fit(make_model(), {"subj01": make_trials(0)})
    assert said in caplog.text


def test_penalties_can_be_given_for_each_group():
    model = make_model()
    LinearObjective(penalties={"subj01": {"latents": 12.5}}).fit(model, {"subj01": make_trials(0)})
    assert model.config.penalties == {"subj01": {"latents": 12.5}}


def test_validation_without_trials_is_a_sentence():
    with pytest.raises(FmriModelsError, match="no validation trials"):
        LinearObjective(selection="validation").fit(make_model(), {"subj01": make_trials(0)})


@pytest.mark.parametrize("selection", ["validation", "leave_one_stimulus_out"])
def test_restored_predictions_spread_as_the_targets_do(selection):
    trials, validation, other = (make_trials(seed, stimuli=200, noise=4.0) for seed in (0, 1, 2))
    spreads = {}
    for restore in (False, True):
        model = make_model()
        objective = LinearObjective(selection=selection, restore_variance=restore)
        objective.fit(model, {"subj01": trials}, {"subj01": validation})
        assert model.config.restores_variance == restore
        predicted = model(torch.from_numpy(other.fmri)).latents.flatten(1)
        spreads[restore] = (
            predicted.std(0) / torch.from_numpy(other.targets["latents"].columns(slice(None))).std(0)
        ).mean()
    assert spreads[False] < 0.8
    assert 0.9 < spreads[True] < 1.1


def test_restoring_scales_each_target_around_its_mean():
    trials = make_trials(0, noise=4.0)
    mean = torch.from_numpy(trials.targets["latents"].columns(slice(None))).mean(0)
    predictions = []
    for restore in (False, True):
        model = make_model()
        LinearObjective(penalties=[100.0], restore_variance=restore).fit(model, {"subj01": trials})
        predictions.append(model(torch.from_numpy(trials.fmri)).latents.flatten(1).detach() - mean)
    plain, restored = predictions
    gains = restored.std(0) / plain.std(0)
    assert (gains > 1).all()
    torch.testing.assert_close(restored, plain * gains, rtol=1e-3, atol=1e-3)


def make_runs(seed: int, runs: int = 6, kinds: int = 5, each: int = 1, noise: float = 1.0) -> ClosedFormTrials:
    """Trials of few stimuli that are shown in every run, left out by run."""
    rng = np.random.default_rng(seed)
    values = np.random.default_rng(3).normal(size=(kinds, 8)).astype(np.float32)
    index = np.tile(np.repeat(np.arange(kinds), each), runs)
    fmri = values[index] @ np.random.default_rng(7).normal(size=(8, 20)) + rng.normal(size=(len(index), 20)) * noise
    targets = {"latents": IndexedTargets(values, index)}
    groups = np.repeat(np.arange(runs), kinds * each)
    return ClosedFormTrials(fmri.astype(np.float32), np.array([f"s{kind}" for kind in index]), targets, "run", groups)


def test_a_design_that_repeats_stimuli_leaves_out_runs():
    trials = make_runs(0)
    found = LinearObjective(selection="auto").fit(make_model(), {"subj01": trials})["subj01"]["latents"]
    targets = trials.targets["latents"].columns(slice(None))
    squares = np.zeros_like(targets)
    for run in range(6):
        out = trials.groups == run
        squares[out] = (Ridge(10.0).fit(trials.fmri[~out], targets[~out]).predict(trials.fmri[out]) - targets[out]) ** 2
    assert found["10"] == pytest.approx(squares.mean(), rel=1e-4)
    # Leaving stimuli out would choose to predict their mean.
    by_stimulus = replace(trials, leaves_out="stimulus", groups=None)
    model, other = make_model(), make_model()
    LinearObjective().fit(model, {"subj01": trials})
    LinearObjective().fit(other, {"subj01": by_stimulus})
    assert model.config.penalties["subj01"]["latents"] < 1e2 < other.config.penalties["subj01"]["latents"]


def test_the_restored_spread_is_that_of_left_out_runs():
    trials, other = make_runs(0, noise=3.0), make_runs(1, runs=40, noise=3.0)
    model = make_model()
    LinearObjective(restore_variance=True).fit(model, {"subj01": trials})
    predicted = model(torch.from_numpy(other.fmri)).latents.flatten(1).std(0)
    spread = predicted / torch.from_numpy(other.targets["latents"].columns(slice(None))).std(0)
    assert 0.8 < spread.mean() < 1.2


def test_where_nothing_can_be_left_out_the_penalty_is_of_the_patterns_size(caplog):
    trials = replace(make_runs(0, runs=1), leaves_out="nothing", groups=None)
    model = make_model()
    with caplog.at_level("WARNING", logger="fmri_models"):
        errors = LinearObjective(selection="auto", restore_variance=True).fit(model, {"subj01": trials})
    assert "no trial can be left out without its stimulus" in " ".join(caplog.text.split())
    length = ((trials.fmri - trials.fmri.mean(0)) ** 2).sum(1).mean()
    chosen = model.config.penalties["subj01"]["latents"]
    assert errors["subj01"]["latents"] == {} and length / 2 < chosen < length * 2
    again = make_runs(1, runs=4)
    predicted = model(torch.from_numpy(again.fmri)).latents.flatten(1).detach().numpy()
    nearest = np.argmax(np.corrcoef(predicted, again.targets["latents"].values)[: len(predicted), len(predicted) :], 1)
    assert (nearest == again.targets["latents"].index).mean() > 0.7


@pytest.mark.parametrize(("stimuli", "validation", "repeats", "expected"), [
    (100, 10, False, "validation"), (99, 10, False, "leave_one_stimulus_out"),
    (100, 0, False, "leave_one_stimulus_out"), (5000, 10, True, "leave_one_stimulus_out"),
])  # fmt: skip
def test_what_auto_comes_to(stimuli, validation, repeats, expected):
    assert LinearObjective(selection="auto").settled(stimuli, validation, repeats) == expected
    assert LinearObjective(selection="validation").settled(stimuli, validation, repeats) == "validation"
    assert LinearObjective(selection="auto", few_stimuli=0).settled(1, 1, False) == "validation"
