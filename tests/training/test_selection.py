"""Nested selection, on a small real method and on the linear one."""

import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.data import schema
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.metrics import pixcorr
from fmri_models.training.estimate import estimate
from fmri_models.training.inner_folds import INNER_SPLIT, inner_split
from fmri_models.training.interruption import TrainingInterrupted
from fmri_models.training.picture_scores import METRICS, picture_scores
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.small_table import PARTS, write_kfold
from tests.training.small_method import SmallObjective

# One that learns nothing and one that learns.
CANDIDATES = "selection.candidates=[{stages.0.training.learning_rate: 1e-9}, {stages.0.training.learning_rate: 1e-2}]"


def weights(folder):
    return load_file(folder / "brain_model" / "model.safetensors")


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def interrupt(monkeypatch):
    """Has SIGINT arrive in the middle of a step, counted over all trainings."""

    def arrange(step):
        losses, calls = SmallObjective.losses, []

        def interrupted(self, *arguments):
            calls.append(None)
            if len(calls) == step:
                signal.raise_signal(signal.SIGINT)
            return losses(self, *arguments)

        monkeypatch.setattr(SmallObjective, "losses", interrupted)

    yield arrange
    monkeypatch.undo()


@pytest.mark.slow
def test_the_better_candidate_is_trained_as_the_recipe_says(make_recipe, tmp_path):
    train(make_recipe("selected", CANDIDATES, "selection.folds=2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["selected", "small.yaml"]
    record = TrainingRecord.load(tmp_path / "selected")
    selection = record.selection
    assert (selection["metric"], selection["inner_folds"], selection["chosen"]) == ("pixcorr", 2, 1)
    nothing, something = selection["candidates"]
    assert something["values"] == {"stages.0.training.learning_rate": 1e-2}
    assert nothing["score"] < 0.15 < something["score"]
    assert (record.recipe["selection"], record.split, record.fold) == (None, "default", 0)
    train(make_recipe("alone", "stages.0.training.learning_rate=1e-2"))
    assert_same_weights(tmp_path / "selected", tmp_path / "alone")
    assert TrainingRecord.load(tmp_path / "alone").selection is None


def test_metrics_where_less_is_better_and_closed_forms(small_data, tmp_path):
    overrides = [f"data={small_data}", f"out={tmp_path / 'out'}", "generator=pixels", "stages.0.train_on=[train]"]
    candidates = "[{stages.0.objective.penalties: [1e7]}, {stages.0.objective.penalties: [10]}]"
    selection = [f"selection.candidates={candidates}", "selection.metric=mse", "selection.folds=3"]
    train(load_recipe("linear", [*overrides, *selection]))
    record = TrainingRecord.load(tmp_path / "out")
    scores = [candidate["score"] for candidate in record.selection["candidates"]]
    assert record.selection["chosen"] == 1 and scores[1] < scores[0]
    assert record.recipe["stages"][0]["objective"]["penalties"] == [10]


def test_each_stimulus_that_is_not_tested_is_left_out_once(make_recipe, small_data):
    table, recipe = TrialTable.open(small_data), make_recipe("out", CANDIDATES)
    test = {s for name in table.subjects for s in table.trials(name, "test").stimulus_ids.tolist()}
    inner = table.with_split(INNER_SPLIT, inner_split(recipe, table, 3))
    left_out = []
    for fold in range(3):
        parts = [
            {s for name in table.subjects for s in inner.trials(name, part, INNER_SPLIT, fold).stimulus_ids.tolist()}
            for part in schema.SPLITS
        ]
        assert sum(map(len, parts)) == len(set.union(*parts)) == PARTS["train"] + PARTS["validation"]
        assert len(parts[1]) == round(len(parts[0] | parts[1]) * PARTS["validation"] / 70)
        assert not set.union(*parts) & test
        left_out += parts[2]
    assert len(left_out) == len(set(left_out)) == 70
    assert INNER_SPLIT not in table.split_names() and INNER_SPLIT not in TrialTable.open(small_data).split_names()


def test_where_nothing_is_validated_all_others_are_learned_from(make_recipe, small_data):
    table = TrialTable.open(small_data)
    recipe = make_recipe("out", CANDIDATES, "stages.0.train_on=[train, validation]", "subjects=[subj02]")
    inner = table.with_split(INNER_SPLIT, inner_split(recipe, table, 2))
    assert len(inner.trials("subj02", "validation", INNER_SPLIT)) == 0
    assert len(inner.trials("subj02", "train", INNER_SPLIT)) == 35 * 3
    assert len(inner.trials("subj07", schema.SPLITS, INNER_SPLIT)) == 0


@pytest.mark.slow
def test_folds_choose_each_for_itself(make_recipe, small_data, tmp_path):
    write_kfold(small_data, "kfold2", 2)
    train(make_recipe("out", CANDIDATES, "selection.folds=2", "split=kfold2", "folds=all", "subjects=[subj02]"))
    records = [TrainingRecord.load(tmp_path / "out" / f"fold{fold:02d}") for fold in range(2)]
    assert [record.fold for record in records] == [0, 1]
    assert records[0].selection["candidates"] != records[1].selection["candidates"]


def test_scores_are_those_of_the_pictures(small_data, tmp_path):
    train(load_recipe("linear", [f"data={small_data}", f"out={tmp_path / 'out'}", "generator=pixels"]))
    pipeline, table = FmriToImagePipeline.from_pretrained(tmp_path / "out"), TrialTable.open(small_data)
    trials = {name: table.trials(name, "test") for name in ("subj02", "subj07")}
    scores = picture_scores(pipeline, trials, table, "pixcorr").reshape(2, -1)
    for subject, found in zip(trials, scores, strict=True):
        shown = trials[subject]
        processed = pipeline.processor(shown.fmri(), subject=subject, session=shown.sessions)
        # The table has the three repetitions of a stimulus after each other.
        fmri = processed["fmri"].reshape(len(found), 3, -1).mean(dim=1)
        drawn = pipeline.brain_model.decode(fmri, [subject] * len(found)).latents.clamp(0, 1)
        pictures = torch.from_numpy(table.stimuli.images(shown.stimulus_ids[::3])).permute(0, 3, 1, 2) / 255
        expected = pixcorr(pictures, drawn, reduction="none")
        # Pictures are scored as they are saved, with 8 bits, and drawn from latents and embeddings.
        np.testing.assert_allclose(found, expected, atol=0.02)


# The first training of 40 steps, the third one, and the last one, which is that of the chosen candidate.
@pytest.mark.slow
@pytest.mark.parametrize("step", [15, 85, 175])
def test_an_interruption_resumes_to_the_bit(make_recipe, tmp_path, interrupt, monkeypatch, step):
    options = (CANDIDATES, "selection.folds=2", "subjects=[subj02]")
    train(make_recipe("whole", *options))
    interrupt(step)
    with pytest.raises(TrainingInterrupted, match="--resume"):
        train(make_recipe("out", *options))
    monkeypatch.undo()
    with pytest.raises(FmriModelsError, match="was interrupted and has its checkpoints in"):
        train(make_recipe("out", *options))
    calls = []
    losses = SmallObjective.losses
    monkeypatch.setattr(SmallObjective, "losses", lambda self, *rest: calls.append(0) or losses(self, *rest))
    train(make_recipe("out", *options), resume=True)
    assert len(calls) == 200 - step
    assert_same_weights(tmp_path / "out", tmp_path / "whole")
    first, second = (TrainingRecord.load(tmp_path / name).selection for name in ("whole", "out"))
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.yaml", "whole"]


@pytest.mark.slow
def test_resuming_something_else_or_damage_is_a_sentence(make_recipe, tmp_path, interrupt, monkeypatch):
    options = (CANDIDATES, "selection.folds=2", "subjects=[subj02]")
    interrupt(50)
    with pytest.raises(TrainingInterrupted):
        train(make_recipe("out", *options))
    monkeypatch.undo()
    with pytest.raises(FmriModelsError, match=r"has selection\.folds 2, and now it is 3; resume with the same recipe"):
        train(make_recipe("out", CANDIDATES, "selection.folds=3", "subjects=[subj02]"), resume=True)
    scores = tmp_path / ".out.selection" / "scores.json"
    assert list(json.loads(scores.read_text())) == ["candidate00-fold00"]
    scores.write_text("{")
    with pytest.raises(FmriModelsError, match=r"scores\.json is damaged .* delete it, and --resume selects again"):
        train(make_recipe("out", *options), resume=True)
    train(make_recipe("out", "subjects=[subj02]"), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.yaml"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["selection=3"], "has a selection that is no mapping with candidates"),
        (["selection.metric=ssim"], "has a selection that is no mapping with candidates"),
        (["selection.candidates=3"], r"selection\.candidates is 3; expected a list of mappings"),
        (["selection.candidates=[{}]"], "has 1 settings, which is no choice"),
        ([CANDIDATES, "selection.fold=3"], "unknown key 'fold'; did you mean 'folds'?"),
        ([CANDIDATES, "selection.folds=1"], r"selection\.folds is 1; expected a whole number from 2"),
        (["selection.candidates=[{seed: 1}, {}]"], "sets 'seed'; expected keys into model, processor or stages"),
        (["selection.candidates=[{stages.0.training.stepz: 1}, {}]"], "unknown key 'stepz'; did you mean 'steps'"),
        (["selection.candidates=[{stages.1.training.steps: 1}, {}]"], "asks for item '1' of a list of 1"),
        (["selection.candidates=[{stages.0.training.steps: -1}, {}]"], r"training\.steps is -1"),
        ([CANDIDATES, "stages.0.train_on=[train, test]"], "learns from test trials and has a selection"),
    ],
)
def test_bad_selections_are_sentences(make_recipe, overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        make_recipe("out", *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([CANDIDATES, "selection.metric=fid"], f"metric is 'fid'; expected {', '.join(METRICS)}"),
        (["selection.candidates=[{}, {model.hidden_sizes: 3}]"], "'hidden_sizes'; did you mean 'hidden_size'"),
        (
            ["selection.candidates=[{}, {stages.0.objective.noisy: 3}]"],
            "stages.0.objective .* has the unknown key 'noisy'",
        ),
        ([CANDIDATES, "selection.folds=71"], "number of stimuli is 70; expected at least 71 for 71 folds"),
    ],
)
def test_what_cannot_work_is_said_before_training(make_recipe, tmp_path, overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        train(make_recipe("out", *overrides))
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_the_estimate_counts_the_trainings(make_recipe):
    assert "2 candidates on 4 inner folds before that: 8 trainings on 75% of the stimuli each" in estimate(
        make_recipe("out", CANDIDATES, "selection.folds=4")
    )
