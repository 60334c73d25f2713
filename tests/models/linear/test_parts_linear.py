"""Targets that are fitted with options of their own: against the original code, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.encoders.disk_backed import move_to_disk
from fmri_models.errors import FmriModelsError
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.linear import LinearConfig, LinearModel, LinearObjective, LinearPipeline
from fmri_models.processing_fmri import FmriProcessor

FOLDER = Path(__file__).parents[2] / "fixtures" / "linear_family"


def fixture(name: str) -> tuple[dict[str, np.ndarray], dict]:
    return load_file(FOLDER / f"{name}.safetensors"), json.loads((FOLDER / f"{name}.json").read_text())


def make_model(num_voxels: int, shape: list[int], **options) -> LinearModel:
    space = {"encoder": "tiny", "layer": "latent", "shape": shape}
    config = LinearConfig(
        subject_names=["subj01"], num_voxels=[num_voxels], latent_space=space, targets_a_block=4, **options
    )
    return LinearModel(config).double()


def trials_of(x: np.ndarray, values: np.ndarray, index: np.ndarray, **options) -> ClosedFormTrials:
    targets = {"latents": IndexedTargets(values.reshape(len(values), -1), index)}
    return ClosedFormTrials(x, np.array([f"s{number}" for number in index]), targets, **options)


def fitted(trials: ClosedFormTrials, part: dict, model_options: dict | None = None, shape=None, **options):
    model = make_model(trials.fmri.shape[1], shape or [trials.targets["latents"].num_targets], **(model_options or {}))
    objective = LinearObjective(parts={"latents": part}, **options)
    errors = objective.fit(model, {"subj01": trials})
    return model, errors["subj01"]["latents"]


def decoded(model: LinearModel, x: np.ndarray) -> np.ndarray:
    return model.decode(torch.from_numpy(x)).latents.numpy()


def make_trials(seed: int = 0, stimuli: int = 40, voxels: int = 20, noise: float = 1.0, units: int = 6):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(stimuli, units)) + 3
    index = np.repeat(np.arange(stimuli), 2)
    mixing = np.random.default_rng(7).normal(size=(units, voxels))
    x = values[index] @ mixing + rng.normal(size=(2 * stimuli, voxels)) * noise
    rois = np.array(["V1"] * 8 + ["V2"] * 6 + [""] * (voxels - 14))
    return trials_of(x - x.mean(axis=0), values, index, rois=rois)


# ------------------------------------------------------------------------------------------------ as the original code


@pytest.mark.parametrize("layer", ["conv", "fc"])
def test_the_whole_order_of_the_kamitani_lab(layer):
    of, about = fixture("kamitani_decoding_maps")
    _, index = np.unique(of["in.labels"], return_inverse=True)
    x, x_test = of["in.x"][:, of["in.roi"] > 0], of["in.x_test"][:, of["in.roi"] > 0]
    mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
    features = of[f"in.features.{layer}"]
    part = {
        "penalties": [about["alpha"]],
        "penalise_intercept": True,
        "standardise_targets": True,
    }
    trials = trials_of((x - mean) / std, features, index)
    model, _ = fitted(trials, part, {"voxels_per_target": about["num_voxels"]}, list(features.shape[1:]))
    averages = np.stack([x_test[of["in.test_labels"] == label].mean(0) for label in np.unique(of["in.test_labels"])])
    np.testing.assert_allclose(decoded(model, (averages - mean) / std), of[f"out.{layer}.decoded"], atol=2e-3)


@pytest.mark.parametrize(("fit_intercept", "kind"), [(False, "official"), (True, "with_intercept")])
def test_takagis_ridge(fit_intercept, kind):
    of, about = fixture("takagi_ridge")
    x, x_test = of["in.x.ventral"], of["in.x_test.ventral"]
    x, x_test = ((values - x.mean(axis=0)) / x.std(axis=0) for values in (x, x_test))
    part = {"penalty_per": "target", "folds": 5, "folds_of": "rows", "fit_intercept": fit_intercept}
    trials = trials_of(x.astype(np.float64), of["in.y"].astype(np.float64), np.arange(len(x)))
    model, errors = fitted(trials, {**part, "penalties": about["alphas"]})
    found = decoded(model, x_test.astype(np.float64))
    np.testing.assert_allclose(found, of[f"out.{kind}"], rtol=2e-3, atol=2e-3)
    assert len(errors) == len(about["alphas"]) and model.config.parts["latents"]["penalty_per"] == "target"


def test_a_penalty_for_each_unit_on_folds_of_rows():
    of, about = fixture("ridge_per_target")
    trials = trials_of(of["in.x"], of["in.y"], np.arange(len(of["in.x"])))
    model, _ = fitted(trials, {"penalty_per": "target", "folds": 5, "penalties": about["alphas"]})
    np.testing.assert_allclose(decoded(model, of["in.x_test"]), of["out.rows.predicted"], atol=1e-5)
    assert model.config.penalties["subj01"]["latents"] == pytest.approx(np.median(of["out.rows.alphas"]))


def test_sparse_regression_on_selected_voxels_as_in_generic_object_decoding():
    of, _ = fixture("god_feature_prediction")
    x = (of["in.x"] - of["in.x"].mean(axis=0)) / of["in.x"].std(axis=0, ddof=1)
    x_test = (of["in.x_test"] - of["in.x"].mean(axis=0)) / of["in.x"].std(axis=0, ddof=1)
    trials = trials_of(x, of["in.y"], np.arange(len(x)))
    part = {"solver": "sparse", "standardise_targets": True}
    model, _ = fitted(trials, part, {"voxels_per_target": 20})
    np.testing.assert_allclose(decoded(model, x_test), of["out.slir.predicted"], atol=1e-4)


@pytest.mark.parametrize("name", ["brain_diffuser_clipvision", "brain_diffuser_vdvae"])
def test_predictions_get_mean_and_spread_of_the_training_targets_over_the_whole_test_set(name):
    of, about = fixture(name)
    x, x_test = of["in.x"] / 300, of["in.x_test"] / 300
    x, x_test = ((values - x.mean(axis=0)) / x.std(axis=0, ddof=1) for values in (x, x_test))
    trials = trials_of(x.astype(np.float64), of["in.y"], np.arange(len(x)))
    shape = list(of["in.y"].shape[1:])
    model, _ = fitted(trials, {"restandardise": "test", "penalties": [float(about["alpha"])]}, shape=shape)
    decoding = model.decode(torch.from_numpy(x_test.astype(np.float64)))
    np.testing.assert_allclose(decoding.latents.numpy(), of["out.raw"], atol=1e-4)
    assert model.is_transductive
    found = model.restandardised(decoding).latents.numpy()
    np.testing.assert_allclose(found, of["out.official"], rtol=2e-3, atol=2e-3)
    with pytest.raises(FmriModelsError, match="there is one pattern of subj01"):
        model.restandardised(model.decode(torch.from_numpy(x_test[:1].astype(np.float64))))


# ------------------------------------------------------------------------------------------------------ what is our own


def test_a_part_reads_the_voxels_of_its_regions():
    trials = make_trials()
    model, _ = fitted(trials, {"rois": ["V2"], "penalties": [3.0]})
    weight = torch.cat([block.weight for block in model.head("latents", "subj01").blocks])
    assert weight[:, 8:14].abs().min() > 0 and weight[:, :8].abs().max() == 0 and weight[:, 14:].abs().max() == 0
    alone = replace(trials, fmri=trials.fmri[:, 8:14])
    expected, _ = fitted(alone, {"penalties": [3.0]})
    np.testing.assert_allclose(decoded(model, trials.fmri), decoded(expected, alone.fmri), atol=1e-9)
    selected, _ = fitted(trials, {"rois": ["V1", "V2"]}, {"voxels_per_target": 3}, penalties=[3.0])
    indices = torch.cat([block.indices for block in selected.head("latents", "subj01").blocks])
    assert indices.shape == (6, 3) and indices.max() < 14


@pytest.mark.parametrize("per", ["group", "target"])
def test_voxels_are_selected_anew_in_each_fold(per):
    rng = np.random.default_rng(0)
    # Nothing to learn: voxels that were selected with the held-out rows would seem to predict them.
    x, values = rng.normal(size=(60, 400)), rng.normal(size=(60, 5))
    trials = trials_of(x, values, np.arange(60))
    _, errors = fitted(
        trials, {"penalty_per": per}, {"voxels_per_target": 10}, penalties=[1.0, 100.0, 1e5], restore_variance=False
    )
    assert errors["100"] > errors["100000"] > 0.9 * values.var()


def test_selected_voxels_decode_and_survive_saving(tmp_path):
    trials, other = make_trials(noise=2.0, stimuli=100), make_trials(1, noise=2.0, stimuli=100)
    model, _ = fitted(trials, {"restandardise": "train"}, {"voxels_per_target": 6})
    model.save_pretrained(tmp_path)
    loaded = LinearModel.from_pretrained(tmp_path)
    found, true = decoded(loaded.double(), other.fmri), other.targets["latents"].columns(slice(None))
    np.testing.assert_allclose(found, decoded(model, other.fmri), atol=1e-12)
    assert np.mean([np.corrcoef(found[:, unit], true[:, unit])[0, 1] for unit in range(6)]) > 0.6
    assert 0.7 < (found.std(axis=0) / true.std(axis=0)).mean() < 1.3


def test_a_model_that_needs_the_whole_test_set_is_saved_and_no_pipeline_decodes_with_it(tmp_path):
    generator = PixelsImageGenerator(3, 4, 4)
    rng = np.random.default_rng(0)
    betas, values = rng.normal(size=(30, 9)), rng.random(size=(30, 48))
    model = LinearModel(
        LinearConfig(subject_names=["subj01"], num_voxels=[9], latent_space=generator.latent_space.to_dict())
    )
    processor = FmriProcessor.fit(betas)
    LinearObjective(penalties=[10.0], parts={"latents": {"restandardise": "test"}}).fit(
        model, {"subj01": trials_of(processor(betas, return_tensors="np")["fmri"], values, np.arange(30))}
    )
    pipeline = LinearPipeline(model, processor, generator)
    pipeline.save_pretrained(tmp_path)
    loaded = LinearPipeline.from_pretrained(tmp_path)
    head = loaded.brain_model.head("latents", "subj01")
    np.testing.assert_allclose(head.target_std.numpy(), values.std(axis=0), rtol=1e-5)
    with pytest.raises(FmriModelsError, match="statistics of the whole test set.*fmri-models evaluate"):
        loaded(betas[:2])


def test_one_penalty_and_selected_voxels_need_no_validation_trials():
    trials = make_trials(noise=2.0)
    model, errors = fitted(
        trials, {"restandardise": "train"}, {"voxels_per_target": 6}, penalties=[10.0], selection="validation"
    )
    assert errors == {} and model.config.penalties == {"subj01": {"latents": 10.0}}
    with pytest.raises(FmriModelsError, match="no validation trials to choose the penalty on"):
        fitted(trials, {}, {"voxels_per_target": 6}, penalties=[1.0, 10.0], selection="validation")


def test_selected_weights_beyond_memory_live_in_files(tmp_path):
    trials = make_trials()
    expected, _ = fitted(trials, {"penalties": [3.0]}, {"voxels_per_target": 4})
    with torch.device("meta"):
        model = make_model(20, [6], voxels_per_target=4).float()
    move_to_disk(model, tmp_path)
    LinearObjective(parts={"latents": {"penalties": [3.0]}}).fit(model, {"subj01": trials})
    model.save_pretrained(tmp_path / "saved", max_shard_size=200)
    loaded = LinearModel.from_pretrained(tmp_path / "saved").double()
    np.testing.assert_allclose(decoded(loaded, trials.fmri), decoded(expected, trials.fmri), rtol=1e-4, atol=1e-4)


def test_the_intercept_of_a_sparse_part_without_selection_is_dense():
    model, _ = fitted(make_trials(), {"solver": "sparse"})
    assert isinstance(model.head("latents", "subj01").blocks[0], torch.nn.Linear)
    assert model.config.penalties == {"subj01": {}}


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("part", "options", "message"), [
    ({"rois": ["V1", "V4"]}, {}, "the rois V4 for latents, and subj01 has no voxel there; its regions are V1, V2"),
    ({"rois": ["V2"]}, {"voxels_per_target": 7}, "is 7, and there are 6 voxels of subj01 in V2"),
    ({"folds": 50}, {}, "have 40 stimuli .* and folds is 50; give 40 folds at most"),
    ({"fit_intercept": False, "penalise_intercept": True}, {}, "no intercept to penalise"),
    ({"roi": ["V1"]}, {}, "the option 'roi' for latents.*rois"),
    ({"solver": "lasso"}, {}, "expected ridge or sparse"),
    ({}, {"voxels_per_target": 21}, "is 21, and there are 20 voxels of subj01"),
    ({}, {"voxels_per_target": {"text_embeds": 2}}, "'text_embeds', and the model decodes latents"),
    ({}, {"standardises_patterns": True}, "voxels_per_target is not set"),
])  # fmt: skip
def test_what_does_not_fit_is_a_sentence(part, options, message):
    with pytest.raises(Exception, match=message):
        fitted(make_trials(), part, options)


def test_parts_and_regions_that_nobody_knows_are_sentences():
    with pytest.raises(FmriModelsError, match="no region of the processed voxels of subj01 is known"):
        fitted(replace(make_trials(), rois=None), {"rois": ["V1"]})
    with pytest.raises(FmriModelsError, match="names 'guides', and the model decodes latents"):
        LinearObjective(parts={"guides": {}}).fit(make_model(20, [6]), {"subj01": make_trials()})


def test_constant_targets_are_a_sentence_and_some_constant_units_are_told(caplog):
    trials = make_trials()
    values = trials.targets["latents"].values.copy()
    values[:, 2] = 5.0
    some = replace(trials, targets={"latents": IndexedTargets(values, trials.targets["latents"].index)})
    with caplog.at_level("WARNING", logger="fmri_models"):
        model, _ = fitted(some, {"standardise_targets": True}, {"voxels_per_target": 4}, penalties=[1.0])
    assert "1 of 6 units of the latents of subj01 are constant" in " ".join(caplog.text.split())
    np.testing.assert_allclose(decoded(model, trials.fmri)[:, 2], 5.0)
    none = replace(some, targets={"latents": IndexedTargets(values * 0, some.targets["latents"].index)})
    with pytest.raises(FmriModelsError, match="latents of all 80 training trials of subj01 are the same"):
        fitted(none, {}, penalties=[1.0])
