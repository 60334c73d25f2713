"""Trials of further tables beside the recipe's own, in every step."""

import json

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from fmri_models.training.interruption import TrainingInterrupted
from fmri_models.training.sources import source_tables
from fmri_models.training.trainer import train
from tests.small_table import write_small_table
from tests.training.test_gradient import stage_of_subjects


@pytest.fixture(scope="session")
def other_data(tmp_path_factory):
    """A table of one subject that is wider than those of the small table, under a name that both have."""
    return write_small_table(tmp_path_factory.mktemp("other") / "data", ("subj07",), name="other", first_picture=10)


@pytest.fixture
def with_source(make_recipe, other_data):
    def make(*overrides, source=None):
        return make_recipe("out", "subjects=[subj02]", f"sources={source or other_data}", *overrides)

    return make


def test_each_step_has_as_many_rows_of_source_and_target(with_source):
    stage, subjects = stage_of_subjects(with_source())
    assert subjects.subject_names == ["subj02", "other.subj07"] == stage.model.config.subject_names
    batches = stage.batches(2)
    for _ in range(4):
        batch = next(batches)
        assert batch["subject_ids"].bincount().tolist() == [8, 8]
        assert batch["fmri"].shape == (16, 60) and not batch["fmri"][batch["subject_ids"] == 0][:, 45:].any()
    again = stage.batches(0)
    later = [next(again)["stimulus_ids"] for _ in range(6)][5]
    assert later == next(stage.batches(5))["stimulus_ids"]
    assert len(stage.held_out) == 10 and stage.held_out[0]["subject_ids"].tolist() == [0]


def test_the_same_picture_of_two_tables_has_one_number(with_source):
    stage, _ = stage_of_subjects(with_source("stages.0.training.batch_size=120"))
    batch = next(stage.batches(0))
    of = {0: set(), 1: set()}
    for subject, number in zip(batch["subject_ids"].tolist(), batch["stimulus"].tolist(), strict=True):
        of[subject].add(number)
    # Pictures 10 to 59 are training pictures of both tables.
    assert len(of[0] & of[1]) == 50


def test_share_of_sources_and_balanced_subjects(make_recipe, small_data, other_data):
    sources = f"sources=[{{data: {other_data}}}, {{data: {small_data}, subjects: [subj07]}}]"
    options = ["stages.0.training.sampling=balanced", "stages.0.training.source_share=0.75"]
    stage, subjects = stage_of_subjects(make_recipe("out", "subjects=[subj02]", sources, *options))
    assert subjects.subject_names == ["subj02", "other.subj07", "small.subj07"]
    assert next(stage.batches(0))["subject_ids"].bincount().tolist() == [4, 6, 6]


def test_the_pipeline_has_the_target_alone_and_the_record_all(with_source, other_data, tmp_path):
    recipe = with_source("stages.0.training.steps=6")
    (folder,) = train(recipe)
    pipeline = FmriToImagePipeline.from_pretrained(folder)
    assert pipeline.brain_model.config.subject_names == pipeline.processor.subject_names == ["subj02"]
    assert pipeline.brain_model.config.num_voxels == [45]
    record = json.loads((folder / "training.json").read_text())
    own, source = record["learned_from"]
    table = TrialTable.open(other_data)
    assert (source["table"], source["table_fingerprint"]) == ("other", table.fingerprint)
    assert source["parts"] == ["train"] and source["fmri_of"] is None and own["table"] == "small"
    assert record["recipe"]["sources"][0]["data"] == f"other ({table.fingerprint})"
    fmri = TrialTable.open(recipe.data).trials("subj02", "test").fmri(np.arange(2))
    assert len(pipeline(fmri, subject="subj02", session=1).images) == 2


def test_resuming_is_exact(with_source, tmp_path, monkeypatch):
    import signal

    from tests.training.small_method import SmallObjective

    train(with_source(f"out={tmp_path / 'whole'}"))
    losses, calls = SmallObjective.losses, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 17:
            signal.raise_signal(signal.SIGINT)
        return losses(self, *arguments)

    recipe = with_source(f"out={tmp_path / 'halted'}")
    with monkeypatch.context() as patch:
        patch.setattr(SmallObjective, "losses", interrupted)
        with pytest.raises(TrainingInterrupted):
            train(recipe)
    train(recipe, resume=True)
    whole, halted = (
        FmriToImagePipeline.from_pretrained(tmp_path / name).brain_model.state_dict() for name in ("whole", "halted")
    )
    assert all(torch.equal(values, halted[name]) for name, values in whole.items())


@pytest.mark.parametrize(
    ("overrides", "source", "message"),
    [
        ([], "{parts: [test]}", "'test' of"),
        ([], "{subjects: [subj99]}", "has no subject 'subj99'"),
        ([], "{part: [train]}", "part"),
        (["stages.0.augmentation=published"], "{}", "makes pictures or trials anew"),
        (["stages.0.training.batch_size=1"], "{}", "none of the sources"),
        (["selection={candidates: [{}, {model.hidden_size: 8}]}"], "{}", "sources and a selection"),
    ],
)
def test_what_is_no_source(make_recipe, other_data, overrides, source, message):
    stated = f"sources=[{{data: {other_data}, {source[1:]}]"
    with pytest.raises(FmriModelsError, match=message):
        stage_of_subjects(make_recipe("out", "subjects=[subj02]", stated, *overrides))


def test_the_own_subjects_are_no_source(make_recipe, small_data):
    with pytest.raises(FmriModelsError, match="no subject that is not learned from"):
        stage_of_subjects(make_recipe("out", f"sources={small_data}"))
    with pytest.raises(FmriModelsError, match="learned from already"):
        stage_of_subjects(make_recipe("out", f"sources=[{{data: {small_data}, subjects: [subj07]}}]"))


def test_pictures_that_are_tested_are_refused(make_recipe, tmp_path_factory, tmp_path):
    leaking = write_small_table(
        tmp_path_factory.mktemp("leaking") / "data", ("subj07",), name="leaking", first_picture=20
    )
    with pytest.raises(FmriModelsError, match="shows 10 of the 12 pictures that the split 'default' tests"):
        train(make_recipe("out", "subjects=[subj02]", f"sources={leaking}"))


def test_a_source_may_be_a_folder_or_a_mapping():
    assert [source.data for source in source_tables(["a", {"data": "b", "parts": ["validation"]}])] == ["a", "b"]
    with pytest.raises(FmriModelsError, match="names no table"):
        source_tables([{"parts": ["train"]}])
