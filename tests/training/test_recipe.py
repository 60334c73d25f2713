"""Recipes: reading, overriding, and each sentence for a bad one."""

import json
import os
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmri_models.embedding_space import clip_image_tokens_space, stable_diffusion_latent_space
from fmri_models.errors import FmriModelsError
from fmri_models.registry import get_method
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


def test_a_generator_may_be_a_mapping():
    recipe = load_recipe("linear", ["generator={repository: a/b, revision: main, options: {image_side: 512}}"])
    assert recipe.generator == {"repository": "a/b", "revision": "main", "options": {"image_side": 512}}


def test_the_published_training_of_mindeye():
    recipe = load_recipe("mindeye_nsd")
    assert (recipe.generator, recipe.repetitions, recipe.seed) == ("versatile_diffusion", "all", 42)
    high, low = recipe.stages
    assert high.training is not None and low.training is not None
    # 8,859 pictures in batches of 32 and of 8, without the incomplete last one.
    assert high.training.num_steps(8859 // 32) == 66_240
    assert (low.training.epochs, low.training.batch_size) == (120, 8)
    for training, rate, epochs in [(high.training, 3e-4, 240), (low.training, 5e-4, 120)]:
        assert (training.learning_rate, training.weight_decay, training.weight_decay_groups) == (
            rate, 0.01, "all_but_bias",
        )  # fmt: skip
        assert training.schedule == "one_cycle"
        assert training.warmup * epochs == pytest.approx(2, abs=1e-4)
        assert training.max_grad_norm is None and training.ema_decay is None
        assert not training.keep_best
    objective = high.objective
    assert objective["mixco_share"] == pytest.approx(int(0.33 * 240) / 240, abs=1e-6)
    assert (objective["mixco_temperature"], objective["soft_clip_temperatures"]) == (0.006, [0.004, 0.0075])
    assert (objective["prior_weight"], objective["repetition_rule"]) == (30, "cycle")
    assert (low.objective["low_level_scale_factor"], low.objective["repetition_rule"]) == (0.18215, "mix")
    assert (low.objective["maps_weight"], low.objective["maps_temperature"]) == (0.1, 0.075)
    assert (high.augmentation, low.augmentation, low.teacher) == ("published", "none", None)


def test_the_published_sizes_of_mindeye():
    recipe = load_recipe("mindeye_nsd", ["model.low_level_feature_size=512"])
    method = get_method(recipe.method)
    config = method.load("config")(
        subject_names=["subj01"],
        num_voxels=[15724],
        image_embedding_space=clip_image_tokens_space().to_dict(),
        latent_space=stable_diffusion_latent_space().to_dict(),
        **recipe.model,
    )
    with torch.device("meta"):
        model = method.load("model")(config)
    parameters = {
        name: sum(parameter.numel() for parameter in part.parameters()) for name, part in model.named_children()
    }
    assert parameters["backbone"] + parameters["projector"] == 947_579_904
    # The published count of the prior has its 16 rotary rates, which are constant.
    assert (parameters["prior"] + 16, parameters["low_level"]) == (56_055_184, 206_065_604)


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
        (["repetitions=double"], "'average', 'single' or 'all'"),
        (["repetitions=all"], "stage in closed form reads its trials once"),
        (["generator=[pixels]"], "expected a name, a folder"),
        (["generator={subfolder: a}"], "mapping with name or repository"),
        (["generator={name: pixels, size: 3}"], "no keys but name, repository, revision, subfolder, dtype, options"),
        (["stages.0.augmentation=published"], "fitted in closed form"),
        (["stages.0.augmentation=much"], "expected none, published, or a mapping with some of crop_probability"),
        (["stages.0.teacher=5"], "has the teacher 5"),
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


CASES = [
    ("a: !!timestamp x", "is no valid YAML"),
    ("[" * 5000, "nested too deep"),
    (b"\xff\xfe", "no text in UTF-8"),
    ("a: &a [*a]", "leads back to itself"),
    ("\n".join(["a0: &a0 [1]", *(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 9))]), "grow beyond"),
    ("a: \x00", "is no valid YAML"),
    ("method: linear\n5: x\nstages: [{name: a}]", "unknown key 5"),
    ("method: linear\nstages: [{name: a, objective: {5: x}}]", r"stages\.0\.objective has the key 5; expected a text"),
    ("method: linear\nstages: [{name: a}]\nmodel: {a: 2001-01-01}", r"model\.a is datetime\.date.* \(date\)"),
    ("method: linear\nstages: [{name: a}]\nmodel: {a: !!set {x}}", r"model\.a is \{'x'\} \(set\)"),
    ("method: linear\nstages: [{name: a, train_on: 5}]", r"stages\.0\.train_on is 5; expected list"),
    ("method: linear\nstages: [{name: a, validate_on: [5]}]", r"stages\.0\.validate_on has 5 as '0'; expected string"),
    ("method: 5\nstages: [{name: a}]", "method is 5; expected string"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), CASES)
def test_files_of_any_content_are_sentences(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FmriModelsError, match=message) as caught:
        load_recipe(str(path))
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_a_sentence(tmp_path, make):
    make(tmp_path / "mine.yaml")
    with pytest.raises(FmriModelsError, match="is a folder|no regular file"):
        load_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.0.train_on=" + "[" * 3000], "nested too deep"),
        (["seed=" + "9" * 100], "seed is a number beyond"),
        (["fold=-1"], "fold is -1"),
        (["processor.rois=.nan"], r"processor\.rois is nan; expected a finite number"),
        (["subjects=[]"], r"subjects is \[\]"),
        (["subjects=[5]"], "subjects has 5"),
        (["split=../x"], "name of the split '../x' can't be used as a file name"),
        ([r'out="a\nb"'], "recipe's out .* has the character U\\+000A"),
        ([r'stages.0.name="a\eb"'], "name of a stage .* has the character U\\+001B"),
        (["stages.0.name=.."], "named '..'"),
        (["stages.².name=a"], "asks for item '²'"),
        (["stages." + "9" * 5000 + "=a"], "asks for item '999"),
        (["a." * 5000 + "b=1"], "levels deep"),
        (["max_shard_size=5"], "max_shard_size is 5"),
        (["max_shard_size=0GB"], "max_shard_size is '0GB'"),
        (["trackers=[5]"], "expected a list of names"),
        (["stages.0.augmentation=5"], "augmentation is 5"),
    ],
)
def test_values_that_fit_no_field_are_sentences(overrides, message):
    with pytest.raises(FmriModelsError, match=message) as caught:
        load_recipe("linear", overrides)
    assert len(str(caught.value)) < 1000


def test_the_published_recipe_names_folders_by_their_content(tmp_path):
    folder = tmp_path / "somebody" / "base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    recipe = load_recipe("linear", [f"generator={folder}", f"initial_model={folder}"])
    published = recipe.published()
    assert str(tmp_path) not in json.dumps(published)
    assert re.fullmatch(r"base \(a folder, [0-9a-f]{16}\)", published["initial_model"])
    assert published["generator"] == published["initial_model"]
    (folder / "config.json").write_text("{ }")
    assert recipe.published()["initial_model"] != published["initial_model"]
    assert load_recipe("linear", ["generator={repository: a/b}"]).published()["generator"]["repository"] == "a/b"
    assert recipe.to_dict()["initial_model"] == str(folder)
