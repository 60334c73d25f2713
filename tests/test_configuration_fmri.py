"""Configurations from files: typed, bounded, and nothing that tells how to load a model."""

import json

import pytest

from fmri_models.embedding_space import EmbeddingSpace
from fmri_models.errors import FmriModelsError
from fmri_models.models.linear import LinearConfig, LinearModel
from fmri_models.models.mindeye import MindEyeConfig

SPACE = {"encoder": "pixels", "layer": "latent", "shape": [1, 4, 4]}


def loaded(config_class, tmp_path, **changes):
    config_class(subject_names=["a"], num_voxels=[5], latent_space=SPACE).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return config_class.from_pretrained(tmp_path)


MINDEYE = {"low_level_block_out_channels": [64]}


@pytest.mark.parametrize(
    ("config_class", "changes", "message"),
    [
        (LinearConfig, {"targets_a_block": [1]}, "as 'targets_a_block'"),
        (LinearConfig, {"targets_a_block": True}, "as 'targets_a_block'"),
        (LinearConfig, {"targets_a_block": 0}, "as targets_a_block"),
        (LinearConfig, {"restores_variance": 1}, "as 'restores_variance'"),
        (LinearConfig, {"penalties": {"a": {"latents": "x"}}}, "as penalties of a"),
        (LinearConfig, {"penalties": []}, "as 'penalties'"),
        (LinearConfig, {"num_voxels": [2**63 - 1]}, "as 'num_voxels.0'"),
        (LinearConfig, {"num_voxels": [0]}, "as num_voxels"),
        (LinearConfig, {"num_voxels": ["5"]}, "as 'num_voxels.0'"),
        (LinearConfig, {"subject_names": "a"}, "as 'subject_names'"),
        (LinearConfig, {"subject_names": ["../a"]}, "can't be used as a file name"),
        (LinearConfig, {"subject_names": None}, "as 'subject_names'"),
        (LinearConfig, {"dtype": "xxx"}, "as 'dtype'"),
        (LinearConfig, {"transformers_version": 0}, "as 'transformers_version'"),
        (LinearConfig, {"auto_map": {"AutoModel": "evil.X"}}, "has 'auto_map'"),
        (LinearConfig, {"fmri_schema": 99}, "newer version"),
        (LinearConfig, {"fmri_schema": "1"}, "fmri_schema|version"),
        (LinearConfig, {"latent_space": {**SPACE, "shape": [2**22, 4, 4]}, "targets_a_block": 1}, "blocks at most"),
        (LinearConfig, {"latent_space": {**SPACE, "shape": [2**20, 2**20]}}, "The shape of an embedding space"),
        (LinearConfig, {"latent_space": {**SPACE, "shape": [1.5]}}, "The shape of an embedding space"),
        (LinearConfig, {"latent_space": {**SPACE, "encoder": 3}}, "The encoder of an embedding space is 3"),
        (LinearConfig, {"latent_space": {**SPACE, "encoders": 3}}, "unknown field 'encoders'"),
        (LinearConfig, {"latent_space": {"encoder": "x", "layer": "y"}}, "has no shape"),
        (LinearConfig, {"latent_space": [1]}, "as 'latent_space'"),
        (MindEyeConfig, {**MINDEYE, "hidden_size": 2**30}, "as 'hidden_size'"),
        (MindEyeConfig, {**MINDEYE, "num_hidden_layers": 2**20}, "as num_hidden_layers"),
        (MindEyeConfig, {**MINDEYE, "norm": "x"}, "as 'norm'"),
        (MindEyeConfig, {**MINDEYE, "input_dropout": 1.5}, "as input_dropout"),
        (MindEyeConfig, {**MINDEYE, "input_dropout": "x"}, "as 'input_dropout"),
        (MindEyeConfig, {**MINDEYE, "token_components": 1e308}, "as 'token_components'"),
        (MindEyeConfig, {**MINDEYE, "low_level_norm_num_groups": 0}, "as low_level_norm_num_groups"),
        (MindEyeConfig, {"low_level_block_out_channels": [-64]}, "as low_level_block_out_channels"),
    ],
)
def test_wrong_values_are_named(tmp_path, config_class, changes, message):
    with pytest.raises(FmriModelsError, match=message) as caught:
        if config_class is MindEyeConfig:
            file = tmp_path / "config.json"
            start = MindEyeConfig(subject_names=["a"], num_voxels=[5], latent_space=SPACE, **MINDEYE)
            start.save_pretrained(tmp_path)
            file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
            MindEyeConfig.from_pretrained(tmp_path)
        else:
            loaded(config_class, tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_attention_head_dim": 3}, "prior_attention_head_dim is 3; expected an even number"),
        ({"low_level_block_out_channels": []}, "low_level_block_out_channels is empty"),
    ],
)
def test_sizes_that_no_network_has(options, message):
    embeddings = {"encoder": "x", "layer": "y", "shape": [2, 4]}
    spaces = {"image_embedding_space": embeddings, "latent_space": SPACE}
    with pytest.raises(FmriModelsError, match=message):
        MindEyeConfig(subject_names=["a"], num_voxels=[5], **spaces, **{**MINDEYE, **options})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', '{"a": ' + "[" * 100_000])
def test_a_file_that_is_no_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FmriModelsError, match="model's configuration"):
        LinearConfig.from_pretrained(tmp_path)


def test_what_users_add_is_theirs(tmp_path):
    assert loaded(LinearConfig, tmp_path, note="mine").note == "mine"
    theirs = {"seed": 2**40, "numbers": [0.5] * 20_000, "nested": {"seed": -(2**70)}, "flag": None}
    config = loaded(LinearConfig, tmp_path, **theirs)
    assert {key: getattr(config, key) for key in theirs} == theirs
    with pytest.raises(FmriModelsError, match="'nested.auto_map', which tells how to load"):
        loaded(LinearConfig, tmp_path, nested={"auto_map": {"AutoModel": "evil.X"}})
    with pytest.raises(FmriModelsError, match="as 'latent_space.shape.0'"):
        loaded(LinearConfig, tmp_path, latent_space={**SPACE, "shape": [2**40]})


def test_a_model_keeps_what_its_user_added(tmp_path):
    model = LinearModel(LinearConfig(subject_names=["a"], num_voxels=[5], latent_space=SPACE))
    model.config.seed, model.config.note = 2**40, "mine"
    model.save_pretrained(tmp_path)
    config = LinearModel.from_pretrained(tmp_path).config
    assert (config.seed, config.note) == (2**40, "mine")


@pytest.mark.parametrize("shape", [(), (0,), (True,), ("3",), (2**29,), (1,) * 9, 3, None, (float("nan"),)])
def test_shapes_of_spaces(shape):
    with pytest.raises(FmriModelsError, match="The shape of an embedding space"):
        EmbeddingSpace("pixels", "latent", shape)
