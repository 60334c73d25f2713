"""Recipes: reading, overriding, and each sentence for a bad one."""

import json
import os
import re
from dataclasses import replace
from importlib import resources

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fmri_models.embedding_space import clip_image_tokens_space, stable_diffusion_latent_space
from fmri_models.errors import FmriModelsError
from fmri_models.registry import get_method
from fmri_models.training.recipe import Recipe, Selection, load_recipe
from fmri_models.training.recipe_files import recipe_names
from fmri_models.training.run_folder import differences
from fmri_models.training.selection_record import described
from fmri_models.training.stage_objectives import stage_objective, with_current_names
from fmri_models.typed_values import check_given_once


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
    assert recipe.stages[0].objective["selection"] == "leave_one_stimulus_out"
    assert (recipe.folds, recipe.seed) == ("all", 3)


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("out=runs/run #3", lambda recipe: recipe.out, "runs/run #3"),
        ("out=on", lambda recipe: recipe.out, "on"),
        ("out=2025", lambda recipe: recipe.out, "2025"),
        ("out=a: b", lambda recipe: recipe.out, "a: b"),
        ("out=a, 'b' and [c]", lambda recipe: recipe.out, "a, 'b' and [c]"),
        ("out=a=b", lambda recipe: recipe.out, "a=b"),
        ("out = 'in quotes'", lambda recipe: recipe.out, "in quotes"),
        ("data=2024", lambda recipe: recipe.data, "2024"),
        ("data=2024-01-02", lambda recipe: recipe.data, "2024-01-02"),
        ("data=[x]", lambda recipe: recipe.data, "[x]"),
        ("split=1e3", lambda recipe: recipe.split, "1e3"),
        ("initial_model=null", lambda recipe: recipe.initial_model, None),
        ("subjects=[01]", lambda recipe: recipe.subjects, ["01"]),
        ("subjects=[1_0, 0x1, no, ~]", lambda recipe: recipe.subjects, ["1_0", "0x1", "no", "~"]),
        ("subjects=subj01", lambda recipe: recipe.subjects, ["subj01"]),
        ("targets=image_embeds", lambda recipe: recipe.targets, ["image_embeds"]),
        ("trackers=tensorboard", lambda recipe: recipe.trackers, ["tensorboard"]),
        ("seed=1e1", lambda recipe: recipe.seed, 10),
        ("fold=03", lambda recipe: recipe.fold, 3),
        ("generator=2025/on", lambda recipe: recipe.generator, "2025/on"),
        ("generator={repository: 1/2, revision: 0123, options: {image_side: 512}}", lambda recipe: recipe.generator,
         {"repository": "1/2", "revision": "0123", "options": {"image_side": 512}}),
        ("generator={name: clip, options: {antialias: yes}}", lambda recipe: recipe.generator,
         {"name": "clip", "options": {"antialias": True}}),
        ("stages.0.train_on=train", lambda recipe: recipe.stages[0].train_on, ["train"]),
        ("stages.00.train_on=train", lambda recipe: recipe.stages[0].train_on, ["train"]),
        ("stages.0.name=01", lambda recipe: recipe.stages[0].name, "01"),
        ("stages.0.objective.penalties=1e2", lambda recipe: recipe.stages[0].objective["penalties"], [100.0]),
        ("stages.0.objective.penalties=[1, 1e-1]", lambda recipe: recipe.stages[0].objective["penalties"], [1.0, 0.1]),
        ("stages.0.objective.penalties={01: {latents: 1e3}}", lambda recipe: recipe.stages[0].objective["penalties"],
         {"01": {"latents": 1000.0}}),
        ("stages.0.objective.penalties.01={latents: 5}", lambda recipe: recipe.stages[0].objective["penalties"],
         {"01": {"latents": 5.0}}),
        ("processor.rois=V1", lambda recipe: recipe.processor["rois"], ["V1"]),
        ("processor.rois=1", lambda recipe: recipe.processor["rois"], ["1"]),
        ("processor.rois=[1,2]", lambda recipe: recipe.processor["rois"], ["1", "2"]),
        ("processor.rois=null", lambda recipe: recipe.processor["rois"], None),
        ("processor.min_noise_ceiling=1e-1", lambda recipe: recipe.processor["min_noise_ceiling"], 0.1),
        ("processor.num_best_voxels=1e1", lambda recipe: recipe.processor["num_best_voxels"], 10),
        ("processor={statistics: pooled}", lambda recipe: recipe.processor, {"statistics": "pooled"}),
        ("model.targets_a_block=1e1", lambda recipe: recipe.model["targets_a_block"], 10),
    ],
)  # fmt: skip
def test_values_are_read_by_their_declared_types(override, read, expected):
    found = read(load_recipe("linear", [override]))
    assert found == expected and type(found) is type(expected)


def test_values_of_training_by_gradient_are_read_by_their_declared_types(tmp_path):
    recipe = load_recipe(
        "mindeye",
        [
            "model.input_dropout=1e-1", "model.norm=batch", "model.use_prior=off", "stages.0.training.steps=1e2",
            "stages.0.training.epochs=null", "stages.0.training.mixed_precision=no", "stages.0.training.keep_best=no",
            "stages.0.training.learning_rate=1e-3", "stages.0.objective.modules=backbone", "stages.1.teacher=2025",
            "stages.0.objective.soft_clip_temperatures=[1e-1, 5e-2]", "stages.0.objective.voxel_noise=1e-1",
            "stages.0.augmentation={crop_scale: [5e-1, 1], crop_first: no}", "stages.2.simulation.noise=2e0",
            "selection={candidates: [{}, {model.hidden_size: 1e2, stages.0.objective.modules: backbone}], folds: 2e0}",
        ],
    )  # fmt: skip
    assert (
        recipe.model["input_dropout"] == 0.1 and recipe.model["norm"] == "batch" and recipe.model["use_prior"] is False
    )
    first, second, third = recipe.stages
    assert (first.training.steps, first.training.epochs, first.training.mixed_precision) == (100, None, "no")
    assert (first.training.keep_best, first.training.learning_rate) == (False, 1e-3)
    assert first.objective["modules"] == ["backbone"] and first.objective["voxel_noise"] == 0.1
    assert first.objective["soft_clip_temperatures"] == [0.1, 0.05]
    assert first.augmentation == {"crop_scale": [0.5, 1.0], "crop_first": False}
    assert second.teacher == "2025" and third.simulation == {"noise": 2.0}
    assert recipe.selection.candidates == [{}, {"model.hidden_size": 100, "stages.0.objective.modules": ["backbone"]}]
    assert recipe.selection.folds == 2


def test_an_option_by_its_former_name_is_read_with_a_warning():
    with pytest.warns(FutureWarning, match="'parts' of stages.0.objective of the recipe mindeye is 'modules' now"):
        recipe = load_recipe(
            "mindeye",
            [
                "stages.0.objective.parts=prior", "stages.1.objective={parts: [low_level], voxel_noise: 1}",
                "selection={candidates: [{}, {stages.0.objective.parts: backbone}]}",
            ],
        )  # fmt: skip
    assert recipe.stages[0].objective["modules"] == ["prior"] and "parts" not in recipe.stages[0].objective
    assert recipe.stages[1].objective == {"modules": ["low_level"], "voxel_noise": 1}
    assert recipe.selection.candidates == [{}, {"stages.0.objective.modules": ["backbone"]}]
    chosen = recipe.with_values({"stages.0.objective.parts": ["low_level"]})
    assert chosen.stages[0].objective["modules"] == ["low_level"]


def test_a_recorded_recipe_says_options_by_their_names_of_today():
    now = load_recipe("mindeye").published()
    recorded = json.loads(json.dumps(now))
    for stage in recorded["stages"]:
        stage["objective"]["parts"] = stage["objective"].pop("modules")
    assert list(differences({"recipe": recorded}, {"recipe": now})) == []
    assert with_current_names({"stages": 5}) == {"stages": 5}
    with pytest.warns(FutureWarning, match="'modules' now"):
        assert Recipe.from_published(recorded, "of a test").published() == now


def test_files_are_read_as_the_command_line_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "method: linear\ndata: 2024\nout: on\nsubjects: [01, 1e3]\nsplit: 007\nprocessor: {rois: 1}\n"
        "initial_model:\nseed: 1e1\nstages: [{name: 1, train_on: train, objective: {restore_variance: yes}}]\n"
    )
    recipe = load_recipe(str(path))
    assert (recipe.data, recipe.out, recipe.subjects, recipe.split) == ("2024", "on", ["01", "1e3"], "007")
    assert (recipe.processor, recipe.initial_model, recipe.seed) == ({"rois": ["1"]}, None, 10)
    assert (recipe.stages[0].name, recipe.stages[0].train_on) == ("1", ["train"])
    assert recipe.stages[0].objective == {"restore_variance": True}


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_what_yaml_reads(name):
    text = resources.files("fmri_models.training").joinpath("recipes", f"{name}.yaml").read_text()
    written, found = yaml.safe_load(text), load_recipe(name).to_dict()
    stages = written.pop("stages")
    assert {key: found[key] for key in written} == written
    for stage, read in zip(stages, found["stages"], strict=True):
        training = stage.pop("training", None)
        assert {key: read[key] for key in stage} == stage
        assert training is None or {key: read["training"][key] for key in training} == training


@pytest.mark.parametrize("name", recipe_names())
def test_a_saved_recipe_loads_again(name, tmp_path):
    # An adaptation has its initial model's processor.
    rois = [] if load_recipe(name).adaptation else ["processor.rois=[on, 'null']"]
    recipe = load_recipe(name, ["subjects=[01]", *rois, "seed=7"])
    (tmp_path / "saved.yaml").write_text(json.dumps(recipe.to_dict()))
    assert load_recipe(str(tmp_path / "saved.yaml")) == recipe


def test_an_override_changes_nothing_that_yaml_refers_to(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: mindeye\nstages: [{name: a, training: &t {steps: 5}}, {name: b, training: *t}]\n")
    recipe = load_recipe(str(path), ["stages.0.training.steps=7"])
    assert [stage.training.steps for stage in recipe.stages] == [7, 5]


MISSPELT = [
    ("linear", "sead=1", "'sead'; did you mean 'seed'"),
    ("linear", "Seed=1", "'Seed'; did you mean 'seed'"),
    ("linear", "processor.statistic=pooled",
     "processor of the recipe linear has the unknown key 'statistic'; did you mean 'statistics'"),
    ("linear", "processor={num_best_voxel: 3}", "'num_best_voxel'; did you mean 'num_best_voxels'"),
    ("linear", "model.targets_per_block=5", "'targets_per_block'; did you mean 'targets_a_block'"),
    ("linear", "stages.0.objective.penalty=5", "'penalty'; did you mean 'penalties'"),
    ("linear", "stages.0.trainon=train", "'trainon'; did you mean 'train_on'"),
    ("mindeye", "stages.0.training.batchsize=5", "'batchsize'; did you mean 'batch_size'"),
    ("mindeye", "stages.0.augmentation.flip=1", "'flip'; did you mean 'flip_probability'"),
    ("mindeye", "stages.0.simulation.noize=1", "'noize'; did you mean 'noise'"),
    ("mindeye", "stages.0.objective.voxelnoise=1", "'voxelnoise'; did you mean 'voxel_noise'"),
    ("linear", "selection={candidate: []}", "'candidate'; did you mean 'candidates'"),
    ("linear", "selection.candidates=[{}, {stages.0.objective.penalty: 3}]", "'penalty'; did you mean 'penalties'"),
    ("linear", "selection.candidates=[{}, {processor.statistic: 3}]", "'statistic'; did you mean 'statistics'"),
    ("linear", "generator={name: clip, revison: a}", "Did you mean 'revision'"),
    ("linear", "generator={name: clip, options: {antialiasing: yes}}", "Did you mean 'antialias'"),
    ("linear", "generator={name: pixel}", "Did you mean 'pixels'"),
    ("linear", "method=linera", "Did you mean 'linear'"),
    ("linera", "seed=1", "Did you mean 'linear'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "override", "message"), MISSPELT)
def test_misspelt_names_are_refused_with_the_nearest(name, override, message):
    with pytest.raises(FmriModelsError, match=message):
        load_recipe(name, [override])


@pytest.mark.parametrize(
    ("overrides", "repeated"),
    [
        (["seed=1", "seed=2"], "seed"),
        (["processor.rois=V1", "processor={statistics: pooled}"], "processor.rois"),
        (["stages.0.name=a", "stages.00.name=b"], "stages.0.name"),
    ],
)
def test_a_key_is_given_once(overrides, repeated):
    with pytest.raises(FmriModelsError, match=f"replaces {repeated}, which another one before it has set"):
        check_given_once(overrides)
    check_given_once(["processor={statistics: pooled}", "processor.rois=V1", "seed=1", "split=a", "splits=b"])
    recipe = load_recipe("linear", ["processor={statistics: pooled}", "processor.rois=V1"])
    assert recipe.processor == {"statistics": "pooled", "rois": ["V1"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "flot16"), ("dtype", "[a]"), ("architectures", "[x]"), ("id2label", "x"), ("return_dict", "maybe"),
        ("fmri_models_version", "3"), ("fmri_schema", "1"), ("subject_names", "[a]"), ("num_voxels", "3"),
        ("latent_space", "{a: 1}"), ("penalties", "{}"), ("restores_variance", "true"),
    ],
)  # fmt: skip
def test_what_is_none_of_the_methods_options_is_refused(key, value):
    for override in (f"model.{key}={value}", f"selection.candidates=[{{}}, {{model.{key}: {value}}}]"):
        with pytest.raises(FmriModelsError, match=rf"model\.{key} is none of the method's options"):
            load_recipe("linear", [override])


@pytest.mark.parametrize("key", ["subject_name", "num_voxel", "hidden", "nonsense"])
def test_an_unknown_option_of_the_model_is_refused_with_those_that_a_recipe_may_set(key):
    known = r"(standardises_patterns, )?targets_a_block, voxels_per_target(, standardises_patterns)?"
    expected = rf"odel.* has the unknown key '{key}'; known keys: {known}\."
    for override in (f"model.{key}=1", f"selection.candidates=[{{}}, {{model.{key}: 1}}]"):
        with pytest.raises(FmriModelsError, match=expected):
            load_recipe("linear", [override])
    with pytest.raises(FmriModelsError, match=expected):
        replace(load_recipe("linear"), model={key: 1})


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("drawing.num_inference_steps=1e1", {"num_inference_steps": 10}),
        ("drawing.num_candidates=2.0", {"num_candidates": 2}),
        ("drawing={guidance_scale: '2'}", {"guidance_scale": 2.0}),
        ("drawing.strength=null", {"strength": None}),
    ],
)
def test_drawing_is_read_by_its_declared_types(override, expected):
    assert load_recipe("linear", [override]).drawing == expected


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("linear", "drawing.selection=on", r"^drawing\.selection is 'on'; expected 'brain', 'first'"),
        (
            "linear",
            "drawing.num_candidates=0",
            r"^drawing\.num_candidates is 0; expected a whole number from 1 to 1000",
        ),
        ("linear", "drawing.steps=3", "unknown key 'steps'"),
        ("linear", "seed=1e400", "^seed is 1e400; expected a whole number"),
        ("linear", "seed=on", "^seed is 'on'; expected a whole number"),
        ("linear", "processor.min_noise_ceiling=1e400", "is 1e400; expected a finite number"),
        ("linear", "subjects=[]", r"^subjects is \[\]; expected at least 1 item"),
        ("linear", "max_shard_size=2GiB", "is '2GiB'; expected a number and one of KB, MB, GB and TB"),
        ("linear", "generator={name: thumbnail, revision: 1}", "has a revision and no repository"),
        ("linear", "generator={name: thumbnail, subfolder: 03}", "has a subfolder and no repository"),
        ("linear", "generator={repository: /tmp, revision: a}", "is a folder and has none"),
        ("mindeye_nsd", "stages.1.training.batch_size=0", r"^stages\.1\.training\.batch_size is 0"),
        ("mindeye_nsd", "stages.1.augmentation=x", r"^stages\.1\.augmentation is 'x'"),
        ("mindeye_nsd", "stages.1.training.epochs=null", r"^stages\.1\.training has neither steps nor epochs"),
    ],
)
def test_sentences_show_the_whole_key_and_what_was_typed(name, override, message):
    with pytest.raises(FmriModelsError, match=message):
        load_recipe(name, [override])


@pytest.mark.parametrize(
    ("key", "value"),
    [("voxel_noise", -1), ("mixco_probability", 2), ("mixco_temperature", 0), ("prior_weight", -1), ("mixco_beta", 0)],
)
def test_numbers_of_an_objective_are_in_range(key, value):
    recipe = load_recipe("mindeye_nsd", [f"stages.1.objective.{key}={value}"])
    with pytest.raises(FmriModelsError, match=rf"^stages\.1\.objective\.{key} is {value}.*; expected a"):
        stage_objective(recipe, recipe.stages[1])


@pytest.mark.parametrize("name", ["mine.YAML", "mine.Yml", "mine.json"])
def test_endings_of_recipe_files(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"method": "linear", "stages": [{"name": "only"}], "seed": 3}')
    assert load_recipe(str(path)).seed == 3
    path.rename(tmp_path / "mine.txt")
    with pytest.raises(FmriModelsError, match=r"mine\.txt has none of the endings of recipes, \.yaml, \.yml, \.json"):
        load_recipe(str(tmp_path / "mine.txt"))


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
        (["=1"], "not of the form key=value"),
        (["out="], "'out=' has no value"),
        (["initial_model= "], "has no value"),
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
        (["stages.0.teacher=5"], "fitted in closed form"),
        (["folds=3"], "expected 'all'"),
        (["stages=[]"], "no stages"),
        (["stages=[a]"], "no list of mappings"),
        (["stages={name: a}"], "no list of mappings"),
        (["stages=[{}]"], "has no name"),
        (["stages.0.name=a/b"], "named 'a/b'"),
        (["stages.0.validate_on=[test]"], "test trials in validate_on"),
        (["stages.0.train_on=[]"], "learns from no part"),
        (["trackers={tensorboard: 1}"], "trackers is a mapping; expected a list of texts"),
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
    with pytest.raises(FmriModelsError, match=r"no recipe 'liner'\. Did you mean 'linear'\? Give one "):
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
    ("method: linear\n5: x\nstages: [{name: a}]", "unknown key '5'"),
    ("method: linear\nstages: [{name: a, objective: {5: x}}]",
     r"stages\.0\.objective of the recipe .* has the unknown key '5'"),
    ("method: linear\nstages: [{name: a}]\nmodel: {penalties: {a: !!timestamp 2001-01-01}}",
     r"model\.penalties\.a is datetime\.date.* \(date\)"),
    ("method: linear\nstages: [{name: a}]\nmodel: {penalties: {a: !!set {x}}}",
     r"model\.penalties\.a is \{'x'\} \(set\)"),
    ("method: linear\nstages: [{name: a, train_on: {b: 5}}]",
     r"stages\.0\.train_on is a mapping; expected a list of texts"),
    ("method: linear\nstages: [{name: a, validate_on: [[5]]}]",
     r"stages\.0\.validate_on\.0 is a list; expected a text"),
    ("method: linear\nstages: [{name: a, validate_on: }]", r"stages\.0\.validate_on is null; expected a list of texts"),
    ("method: 5\nstages: [{name: a}]", "There is no method '5'"),
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
        (["stages.0.train_on=" + "[" * 3000], "does not end with ]"),
        (["seed=" + "9" * 100], "seed is a number beyond"),
        (["fold=-1"], "fold is -1"),
        (["processor.min_noise_ceiling=.nan"], r"processor\.min_noise_ceiling is nan; expected a finite number"),
        (["subjects=[]"], r"subjects is \[\]"),
        (["subjects=[[5]]"], r"subjects\.0 is a list; expected a text"),
        (["split=../x"], "name of the split '../x' can't be used as a file name"),
        ([r'out="a\nb"'], "recipe's out .* has the character U\\+000A"),
        ([r'stages.0.name="a\eb"'], "name of a stage .* has the character U\\+001B"),
        (["stages.0.name=.."], "named '..'"),
        (["stages.².name=a"], "asks for item '²'"),
        (["stages." + "9" * 5000 + "=a"], "asks for item '999"),
        (["a." * 5000 + "b=1"], "levels deep"),
        (["max_shard_size=5"], "max_shard_size is '5'"),
        (["max_shard_size=0GB"], "max_shard_size is '0GB'"),
        (["trackers=[[5]]"], r"trackers\.0 is a list; expected a text"),
        (["stages.0.augmentation=5"], "augmentation is '5'"),
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


@pytest.mark.parametrize("text", ["[" * 5000, "a\0b", "a/" + "b" * 5000])
@pytest.mark.parametrize("key", ["generator", "data", "initial_model"])
def test_what_can_be_no_path_is_a_sentence(key, text):
    try:
        recipe = load_recipe("linear", [f"{key}='{text}'"])
    except FmriModelsError as error:
        assert "\n" not in str(error)
    else:
        assert getattr(recipe, key) == text


def test_what_is_published_names_folders_by_their_content(tmp_path):
    teacher, generator = tmp_path / "teacher", tmp_path / "generator"
    for folder in (teacher, generator):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    recipe = load_recipe("mindeye", [f"generator={generator}", "data=/data/me/table", "out=/data/me/out"])
    recipe = replace(recipe, selection=Selection([{"stages.1.teacher": str(teacher)}, {"model.hidden_dropout": 0.1}]))
    text = json.dumps([recipe.published(), described(recipe.selection)])
    assert str(tmp_path) not in text and "/data/me" not in text
    assert text.count("teacher (a folder, ") == 2 and text.count("generator (a folder, ") == 1


def test_captions_and_posterior_are_for_what_is_learned() -> None:
    for override, message in (
        ("captions=mean", "captions is 'mean', and text_embeds is none of the recipe's targets"),
        ("captions=all", "captions"),
        ("posterior=draw", "posterior"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            load_recipe("linear", [override])
    with pytest.raises(FmriModelsError, match="posterior is 'sample', and latents is none"):
        load_recipe("linear", ["posterior=sample", "targets=[image_embeds]"])
    recipe = load_recipe("linear", ["captions=mean", "posterior=sample", "targets=[latents, text_embeds]", "seed=4"])
    assert recipe.target_options.described == [
        "text_embeds are means over all captions",
        "latents are drawn from the posterior (seed 4)",
    ]
    assert recipe.published()["captions"] == "mean"


def test_trainings_of_versions_before_had_the_first_caption_and_the_mode() -> None:
    now = load_recipe("linear").published()
    before = {key: value for key, value in now.items() if key not in ("captions", "posterior")}
    assert list(differences({"recipe": before}, {"recipe": now})) == []
    other = now | {"posterior": "sample"}
    (found,) = differences({"recipe": before}, {"recipe": other})
    assert found == "has posterior 'mode', and now it is 'sample'"
