"""Recipes: reading, overriding, and each sentence for a bad one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmri_models.errors import FmriModelsError
from fmri_models.training.recipe import load_recipe, recipe_names


def test_shipped_recipes():
    assert {"linear", "digits69_linear"} <= set(recipe_names())
    assert load_recipe("digits69_linear").generator == "pixels"


def test_overrides_reach_nested_values():
    recipe = load_recipe(
        "linear",
        [
            "data=a b", "subjects=[subj02, subj01]", "processor.rois=[V1]", "model.targets_a_block=5", "seed=3",
            "stages.0.objective.selection=leave_one_stimulus_out", "folds=all",
        ],
    )  # fmt: skip
    assert recipe.data == "a b"
    assert recipe.subjects == ["subj02", "subj01"]
    assert recipe.processor == {"statistics": "session", "rois": ["V1"]}
    assert recipe.model == {"targets_a_block": 5}
    assert recipe.stages[0].objective == {"selection": "leave_one_stimulus_out", "restore_variance": True}
    assert (recipe.folds, recipe.seed) == ("all", 3)


def test_a_recipe_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: linear\nstages: [{name: only, train_on: [train, validation]}]\n")
    assert load_recipe(str(path)).train_parts == ["train", "validation"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dta=x"], "unknown key 'dta'; did you mean 'data'"),
        (["stages.0.objectiv=1"], "unknown key 'objectiv'; did you mean 'objective'"),
        (["stages.7.name=x"], "item '7' of a list of 1"),
        (["seed"], "not of the form key=value"),
        (["seed=x"], "seed is 'x'"),
        (["seed=[1"], "no valid YAML"),
        (["method=mindreader"], "no method 'mindreader'"),
        (["method.deep=1"], "reaches into 'method'"),
        (["repetitions=double"], "'average' or 'single'"),
        (["folds=3"], "expected 'all'"),
        (["stages=[]"], "no stages"),
        (["stages=[a]"], "no list of mappings"),
        (["stages=[{}]"], "has no name"),
        (["stages.0.name=a/b"], "named 'a/b'"),
        (["stages.0.validate_on=[test]"], "test trials in validate_on"),
        (["stages.0.train_on=[]"], "learns from no part"),
        (["trackers=tensorboard"], "expected a list of names"),
    ],
)
def test_bad_overrides_are_sentences(overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        load_recipe("linear", overrides)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "no valid YAML"), ("- 1", "no mapping"), ("stages: []", "no method")]
)
def test_bad_files_are_sentences(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(FmriModelsError, match=message):
        load_recipe(str(path))


def test_missing_recipes_are_sentences():
    with pytest.raises(FmriModelsError, match="no recipe 'liner'; shipped are"):
        load_recipe("liner")
    with pytest.raises(FmriModelsError, match="no recipe file missing.yaml"):
        load_recipe("missing.yaml")


@given(st.text(max_size=30))
def test_any_override_is_applied_or_a_sentence(text):
    try:
        load_recipe("linear", [text])
    except FmriModelsError as error:
        assert str(error)
