"""The method itself, trained on exchanged pairs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.training.exchanged_pairs import exchanged_partners, refit_on_exchanged_pairs
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.small_table import PARTS, write_small_table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchanged")
    write_small_table(folder / "data")
    return folder


@pytest.fixture(scope="module")
def linear(workplace):
    values = [f"data={workplace / 'data'}", f"out={workplace / 'linear'}", "generator=pixels", "targets=[latents]"]
    train(load_recipe("linear", values))
    return workplace / "linear"


@pytest.fixture(scope="module")
def mindeye(workplace):
    """Two short stages, of which the first one keeps its best weights."""
    text = """
method: mindeye
generator: pixels
targets: [image_embeds]
model: {hidden_size: 48, num_hidden_layers: 1, use_projector: false, prior_num_layers: 1, prior_num_attention_heads: 2,
        prior_attention_head_dim: 8, prior_num_inference_steps: 5, prior_adds_condition: true, input_dropout: 0,
        hidden_dropout: 0}
stages:
  - name: backbone
    objective: {modules: [backbone], mixco_beta: null, token_weight: 30, soft_clip_temperatures: [0.05, 0.05]}
    training: {steps: 200, batch_size: 30, learning_rate: 3.0e-3, validate_every: 40, keep_best: true}
  - name: prior
    objective: {modules: [prior], prior_weight: 30}
    training: {steps: 20, batch_size: 30, learning_rate: 1.0e-3, keep_best: false}
"""
    (workplace / "recipe.yaml").write_text(text)
    values = [f"data={workplace / 'data'}", f"out={workplace / 'mindeye'}"]
    train(load_recipe(str(workplace / "recipe.yaml"), values))
    return workplace / "mindeye"


def opened(workplace, model):
    table = TrialTable.open(workplace / "data")
    record = TrainingRecord.load(model)
    return FmriToImagePipeline.from_pretrained(model), table, record


def test_training_and_validation_stimuli_are_exchanged_among_themselves(workplace, mindeye):
    table = TrialTable.open(workplace / "data")
    recipe = load_recipe(str(workplace / "recipe.yaml"))
    for seed in range(3):
        partners = exchanged_partners(recipe, table, seed)
        parts = {
            part: set(table.trials("subj07", part).stimulus_ids.tolist()) for part in ("train", "validation", "test")
        }
        assert partners.keys() == parts["train"] | parts["validation"] == set(partners.values())
        for own, other in partners.items():
            assert own != other
            assert (own in parts["train"]) == (other in parts["train"])
    exchanged = table.with_exchanged_stimuli(partners)
    for part in parts:
        own, other = table.trials("subj02", part), exchanged.trials("subj02", part)
        assert (own.trials == other.trials).all()
        assert (own.fmri() == other.fmri()).all()
        assert [partners.get(stimulus, stimulus) for stimulus in own.stimulus_ids] == other.stimulus_ids.tolist()


def test_the_linear_method_itself_on_exchanged_pairs(workplace, linear):
    pipeline, table, record = opened(workplace, linear)
    state = torch.get_rng_state()
    refitted = refit_on_exchanged_pairs(pipeline, table, record, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert refitted.config.model_type == "fmri-linear"
    again = refit_on_exchanged_pairs(pipeline, table, record, seed=1)
    for (name, one), (_, other) in zip(refitted.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    own = pipeline.brain_model.state_dict()
    assert any(not torch.allclose(own[name].float(), value.float()) for name, value in refitted.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "mindeye"])
def test_the_row_is_at_chance_and_the_model_stays(workplace, method, request, tmp_path):
    model = request.getfixturevalue(method)
    before = {path: path.read_bytes() for path in sorted(model.rglob("*")) if path.is_file()}
    arguments = (model, workplace / "data", tmp_path / "r", "small_pictures")
    report = evaluate(*arguments, refit=refit_on_exchanged_pairs)
    assert report.rows["permuted_training_own"]["kind"] == "control"
    brain, own = (report.results[row]["pairwise_pixcorr"] for row in ("brain", "permuted_training_own"))
    assert brain["value"] > 0.8
    assert 0.2 < own["value"] < 0.8
    assert own["n"] == 2 * PARTS["test"]
    assert report.comparisons["permuted_training_own"]["pairwise_pixcorr"]["ci95"][0] > 0
    assert not any("--refit-permuted" in note for note in report.notes)
    assert {path: path.read_bytes() for path in sorted(model.rglob("*")) if path.is_file()} == before
    assert not list(workplace.glob(".*training*"))
    assert Report.load(tmp_path / "r").to_dict() == report.to_dict()


def test_without_it_a_report_says_what_permuted_training_is(workplace, mindeye, linear, tmp_path):
    report = evaluate(mindeye, workplace / "data", tmp_path / "r", "small_pictures")
    assert "permuted_training_own" not in report.results
    assert sum("permuted_training is ridge regression" in note for note in report.notes) == 1
    assert "ridge" in report.rows["permuted_training"]["label"]


def test_what_can_not_be_trained_anew_is_a_sentence(workplace, linear, tmp_path):
    pipeline, table, record = opened(workplace, linear)
    with pytest.raises(FmriModelsError, match="no recipe"):
        refit_on_exchanged_pairs(pipeline, table, replace(record, recipe={}), 0)
    begun = {**record.recipe, "initial_model": "earlier (a folder, 0123456789abcdef)"}
    with pytest.raises(FmriModelsError, match="initial_model earlier .*keeps no path"):
        refit_on_exchanged_pairs(pipeline, table, replace(record, recipe=begun), 0)
    with pytest.raises(FmriModelsError, match="unknown key 'nonsense'"):
        refit_on_exchanged_pairs(pipeline, table, replace(record, recipe={**record.recipe, "nonsense": 1}), 0)


def test_the_command_has_the_option(workplace, linear, tmp_path, capsys):
    arguments = ["evaluate", "--model", str(linear), "--data", str(workplace / "data"), "--out", str(tmp_path / "r")]
    assert main([*arguments, "--protocol", "small_pictures", "--refit-permuted"]) == 0
    assert "permuted training (own)" in capsys.readouterr().out
    assert main(["evaluate", "--images", "a", "--truth", "b", "--out", "c", "--refit-permuted"]) == 2


def test_trials_of_one_stimulus_are_not_exchanged_with_each_other(workplace, linear, tmp_path):
    """Ridge on exchanged pairs, learned from single trials."""
    from fmri_models.evaluation.controls import LinearReferences

    pipeline, table, record = opened(workplace, linear)
    references = LinearReferences(
        pipeline, pipeline.image_generator, table, replace(record, repetitions="single"), seed=0
    )
    trials = references.trials["subj02"]
    exchanged = references._exchanged(trials)
    for kind, targets in trials.targets.items():
        assert (targets.index != exchanged.targets[kind].index).all()
        assert (np.sort(targets.index) == np.sort(exchanged.targets[kind].index)).all()
