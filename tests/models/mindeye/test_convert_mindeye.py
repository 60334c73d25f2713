"""Published checkpoints of MindEye: the layout at tiny sizes, written down key by key."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fmri_models.embedding_space import clip_image_tokens_space, stable_diffusion_latent_space
from fmri_models.errors import FmriModelsError
from fmri_models.models.mindeye import MindEyeLowLevelModel, MindEyeModel, MindEyePrior
from tests.models.mindeye.original import original, recipe_state_dict, state_dict

VOXELS, HIDDEN, TOKENS, WIDTH, PROJECTOR, HEADS, HEAD_DIM = 11, 6, 3, 8, 10, 2, 4


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def layer(prefix: str, *shape: int) -> dict[str, torch.Tensor]:
    return {f"{prefix}.weight": random(*shape), f"{prefix}.bias": random(shape[0])}


def backbone(norm_position: int = 1, batch_norm: bool = False) -> dict[str, torch.Tensor]:
    state = layer("lin0.0", HIDDEN, VOXELS) | layer(f"lin0.{norm_position}", HIDDEN)
    for block in range(2):
        state |= layer(f"mlp.{block}.0", HIDDEN, HIDDEN) | layer(f"mlp.{block}.{norm_position}", HIDDEN)
    if batch_norm:
        for prefix in (f"lin0.{norm_position}", f"mlp.0.{norm_position}", f"mlp.1.{norm_position}"):
            state[f"{prefix}.running_mean"] = random(HIDDEN)
            state[f"{prefix}.running_var"] = random(HIDDEN).abs()
            state[f"{prefix}.num_batches_tracked"] = torch.tensor([7])
    return state | layer("lin1", TOKENS * WIDTH, HIDDEN)


def projector() -> dict[str, torch.Tensor]:
    state = layer("projector.0", WIDTH) | layer("projector.2", PROJECTOR, WIDTH) | layer("projector.3", PROJECTOR)
    state |= layer("projector.5", PROJECTOR, PROJECTOR) | layer("projector.6", PROJECTOR)
    return state | layer("projector.8", WIDTH, PROJECTOR)


def prior() -> dict[str, torch.Tensor]:
    state = {name: random(TOKENS, WIDTH) for name in ("learned_query", "null_brain_embeds", "null_image_embed")}
    state |= layer("to_time_embeds.0.1.net.0.0", 2 * WIDTH, WIDTH)
    state |= layer("to_time_embeds.0.1.net.1.0", 2 * WIDTH, 2 * WIDTH) | layer("to_time_embeds.0.1.net.2", WIDTH, 16)
    state["causal_transformer.rel_pos_bias.relative_attention_bias.weight"] = random(32, HEADS)
    for index in range(2):
        prefix = f"causal_transformer.layers.{index}"
        state |= {
            f"{prefix}.0.null_kv": random(2, HEAD_DIM),
            f"{prefix}.0.norm.g": random(WIDTH),
            f"{prefix}.0.to_q.weight": random(HEADS * HEAD_DIM, WIDTH),
            f"{prefix}.0.to_kv.weight": random(2 * HEAD_DIM, WIDTH),
            f"{prefix}.0.rotary_emb.freqs": random(HEAD_DIM // 2),
            f"{prefix}.0.to_out.0.weight": random(WIDTH, HEADS * HEAD_DIM),
            f"{prefix}.0.to_out.1.g": random(WIDTH),
            f"{prefix}.1.0.g": random(WIDTH),
            f"{prefix}.1.1.weight": random(8 * WIDTH, WIDTH),
            f"{prefix}.1.5.weight": random(WIDTH, 4 * WIDTH),
        }
    state["causal_transformer.norm.g"] = random(WIDTH)
    state["causal_transformer.project_out.weight"] = random(WIDTH, WIDTH)
    return state


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def published() -> dict[str, torch.Tensor]:
    state = prefixed("voxel2clip.", backbone() | projector()) | prefixed("net.", prior())
    return state | {"noise_scheduler.betas": random(20), "noise_scheduler.p2_loss_weight": random(20)}


def low_level() -> dict[str, torch.Tensor]:
    """The low level's smallest layout: one upsampling, attention as diffusers 0.13 named it."""
    state = {"lin0.0.weight": random(HIDDEN, VOXELS), "mlp.0.0.weight": random(HIDDEN, HIDDEN)}
    state |= layer("lin0.1", HIDDEN) | layer("mlp.0.1", HIDDEN) | {"lin1.weight": random(5 * 4, HIDDEN)}
    state |= layer("norm", 5) | layer("upsampler.conv_in", 8, 5, 3, 3)
    for name in ("mid_block.resnets.0", "mid_block.resnets.1", "up_blocks.0.resnets.0", "up_blocks.0.resnets.1"):
        state |= resnet(f"upsampler.{name}", 8, 8)
    state |= layer("upsampler.up_blocks.0.upsamplers.0.conv", 8, 8, 3, 3)
    state |= resnet("upsampler.up_blocks.1.resnets.0", 4, 8) | resnet("upsampler.up_blocks.1.resnets.1", 4, 4)
    for name in ("query", "key", "value", "proj_attn"):
        state |= layer(f"upsampler.mid_block.attentions.0.{name}", 8, 8)
    state |= layer("upsampler.mid_block.attentions.0.group_norm", 8)
    return state | layer("upsampler.conv_norm_out", 4) | layer("upsampler.conv_out", 2, 4, 3, 3)


def resnet(prefix: str, after: int, before: int) -> dict[str, torch.Tensor]:
    state = layer(f"{prefix}.norm1", before) | layer(f"{prefix}.conv1", after, before, 3, 3)
    state |= layer(f"{prefix}.norm2", after) | layer(f"{prefix}.conv2", after, after, 3, 3)
    return state | (layer(f"{prefix}.conv_shortcut", after, before, 1, 1) if after != before else {})


def test_a_whole_checkpoint_gives_the_whole_model(tmp_path):
    state = published()
    torch.save({"epoch": 239, "model_state_dict": prefixed("module.", state), "lrs": [3e-4]}, tmp_path / "last.pth")
    model = MindEyeModel.from_original(tmp_path / "last.pth")
    assert not model.training
    config = model.config
    assert config.subject_names == ["subj01"] and config.num_voxels == [VOXELS]
    assert config.image_embedding_space["shape"] == [TOKENS, WIDTH]
    assert config.image_embedding_space["normalisation"] == "cls_norm"
    assert (config.hidden_size, config.num_hidden_layers, config.projector_size) == (HIDDEN, 2, PROJECTOR)
    assert (config.prior_num_layers, config.prior_num_attention_heads, config.prior_attention_head_dim) == (2, 2, 4)
    assert (config.prior_feed_forward_multiplier, config.prior_num_timesteps) == (4, 20)
    assert model.low_level is None
    for found, key in [
        (model.backbone.input.layers[0].weight, "voxel2clip.lin0.0.weight"),
        (model.backbone.blocks[1].norm_activation.norm.bias, "voxel2clip.mlp.1.1.bias"),
        (model.projector[8].weight, "voxel2clip.projector.8.weight"),
        (model.prior.network.layers[1].feed_forward.contract.weight, "net.causal_transformer.layers.1.1.5.weight"),
        (model.prior.network.null_image_embeds, "net.null_image_embed"),
    ]:
        assert torch.equal(found, state[key])
    assert model.decode(random(2, VOXELS)).image_embeds.shape == (2, TOKENS, WIDTH)


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "module.model.", "net.net.", "model._orig_mod.", "lit.model.module."]
)
def test_networks_inside_of_a_trainers_own(prefix, tmp_path):
    torch.save({"state_dict": prefixed(prefix, published()), "global_step": 1}, tmp_path / "last.ckpt")
    model = MindEyeModel.from_original(tmp_path / "last.ckpt")
    assert torch.equal(model.backbone.input.layers[0].weight, published()["voxel2clip.lin0.0.weight"])
    assert torch.equal(model.prior.network.null_image_embeds, published()["net.null_image_embed"])
    assert MindEyeLowLevelModel.from_original(prefixed(prefix, low_level()), norm_num_groups=2).config.latent_space
    assert MindEyePrior.from_original(prefixed(prefix, prior())).config.prior_num_layers == 2
    assert MindEyeModel.from_original(prefixed(prefix, backbone())).prior is None


def test_parts_that_were_wrapped_one_by_one():
    state = {key.replace("voxel2clip.", "voxel2clip.module."): value for key, value in published().items()}
    model = MindEyeModel.from_original(state)
    assert torch.equal(model.backbone.input.layers[0].weight, published()["voxel2clip.lin0.0.weight"])


def test_tensors_beside_the_network_are_named():
    with pytest.raises(FmriModelsError, match=r"no backbone .* extra\.weight"):
        MindEyeModel.from_original(prefixed("model.", published()) | {"extra.weight": torch.ones(1)})


def test_a_loss_beside_the_network_is_passed_over():
    beside = {"loss_fn.weight": torch.ones(1), "val_metric.total": torch.ones(1)}
    model = MindEyeModel.from_original(prefixed("model.", published()) | beside)
    assert torch.equal(model.backbone.input.layers[0].weight, published()["voxel2clip.lin0.0.weight"])


def test_a_misspelt_field_is_refused_with_the_nearest():
    with pytest.raises(FmriModelsError, match="no field 'subject_name'.* Did you mean 'subject_names'"):
        MindEyeModel.from_original(published(), subject_name=["subj02"])


def test_a_converted_model_survives_saving(tmp_path):
    model = MindEyeModel.from_original(published(), low_level_checkpoint=low_level(), low_level_norm_num_groups=2)
    model.save_pretrained(tmp_path / "model")
    loaded = MindEyeModel.from_pretrained(tmp_path / "model")
    for (name, found), expected in zip(loaded.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
    assert loaded.decode(random(2, VOXELS)).latents.shape == (2, 2, 4, 4)


@pytest.mark.parametrize("prefix", ["", "voxel2clip."])
def test_absent_parts_stay_absent(prefix):
    model = MindEyeModel.from_original(prefixed(prefix, backbone() | projector()))
    assert model.prior is None and model.projector is not None
    bare = MindEyeModel.from_original(
        prefixed(prefix, backbone()), image_embedding_space={"encoder": "x", "layer": "y", "shape": [TOKENS, WIDTH]}
    )
    assert bare.projector is None
    assert bare(random(2, VOXELS)).token_embeds.shape == (2, TOKENS, WIDTH)


@pytest.mark.parametrize(("norm_position", "batch_norm"), [(1, True), (2, False), (2, True)])
def test_options_of_the_backbone_are_inferred(norm_position, batch_norm):
    state = backbone(norm_position, batch_norm) | projector()
    model = MindEyeModel.from_original(state)
    assert model.config.activation_first == (norm_position == 2)
    assert model.config.norm == ("batch" if batch_norm else "layer")
    # By hand, in float64.
    values = {key: value.double() for key, value in state.items()}
    features = residual = None
    for prefix in ("lin0", "mlp.0", "mlp.1"):
        inputs = random(3, VOXELS).double() if features is None else features
        hidden = torch.nn.functional.linear(inputs, values[f"{prefix}.0.weight"], values[f"{prefix}.0.bias"])
        activation = torch.relu if batch_norm else torch.nn.functional.gelu
        hidden = activation(hidden) if norm_position == 2 else hidden
        gain, bias = values[f"{prefix}.{norm_position}.weight"], values[f"{prefix}.{norm_position}.bias"]
        if batch_norm:
            mean, variance = (values[f"{prefix}.{norm_position}.running_{name}"] for name in ("mean", "var"))
        else:
            mean, variance = hidden.mean(-1, keepdim=True), hidden.var(-1, keepdim=True, unbiased=False)
        hidden = (hidden - mean) / (variance + 1e-5).sqrt() * gain + bias
        hidden = hidden if norm_position == 2 else activation(hidden)
        residual = features
        features = hidden if residual is None else residual + hidden
    expected = torch.nn.functional.linear(features, values["lin1.weight"], values["lin1.bias"])
    found = model(random(3, VOXELS)).token_embeds.flatten(1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "net.", "module.net."])
def test_a_prior_alone(prefix):
    state = prefixed(prefix, prior())
    found = MindEyePrior.from_original(state, num_timesteps=30, learned_query_mode="token")
    assert found.config.prior_num_timesteps == 30
    assert found.network.learned_query_mode == "token"
    assert found(random(2, TOKENS, WIDTH), 3, random(2, TOKENS, WIDTH)).shape == (2, TOKENS, WIDTH)


@pytest.mark.parametrize(("length", "mode"), [(TOKENS, "pos_emb"), (2 * TOKENS + 1, "all_pos_emb"), (None, "none")])
def test_the_learned_querys_mode_is_inferred_where_it_can_be(length, mode):
    state = prior()
    del state["learned_query"]
    if length is not None:
        state["learned_query"] = random(length, WIDTH)
    assert MindEyePrior.from_original(state).config.prior_learned_query_mode == mode


def test_a_prior_is_found_in_a_whole_checkpoint():
    found = MindEyePrior.from_original({"model_state_dict": published()})
    whole = MindEyeModel.from_original(published())
    for name, value in whole.prior.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_a_low_level_branch_alone():
    state = low_level()
    model = MindEyeLowLevelModel.from_original(prefixed("module.", state), norm_num_groups=2)
    assert model.config.low_level_block_out_channels == [4, 8]
    assert model.config.latent_space["shape"] == [2, 4, 4]
    assert model.config.low_level_feature_size is None
    assert torch.equal(
        model.upsampler.mid_block.attentions[0].to_k.weight, state["upsampler.mid_block.attentions.0.key.weight"]
    )
    inside = MindEyeModel.from_original(state, low_level_norm_num_groups=2)
    assert inside.backbone is None
    torch.testing.assert_close(inside.decode(random(2, VOXELS)).latents, model(random(2, VOXELS)).latents)
    renamed = {key.replace(".query.", ".to_q.").replace(".proj_attn.", ".to_out.0."): v for key, v in state.items()}
    again = MindEyeLowLevelModel.from_original(renamed, norm_num_groups=2)
    torch.testing.assert_close(again(random(2, VOXELS)).latents, model(random(2, VOXELS)).latents)


@pytest.mark.parametrize("fits", [True, False])
def test_feature_maps_that_cannot_be_run_are_left_out(fits):
    state = low_level() | {"maps_projector.0.weight": random(7, 5 if fits else 64, 1, 1)}
    state |= layer("maps_projector.1", 7) | {"maps_projector.3.weight": random(7, 7, 1, 1)}
    state |= layer("maps_projector.4", 7) | layer("maps_projector.6", 7, 7, 1, 1)
    model = MindEyeLowLevelModel.from_original(state, norm_num_groups=2)
    assert model(random(2, VOXELS)).feature_maps.shape == (2, 4, 7 if fits else 5)


def test_published_sizes_are_in_the_spaces_of_the_published_generator():
    state = published()
    state["voxel2clip.lin1.weight"], state["voxel2clip.lin1.bias"] = random(257 * WIDTH, HIDDEN), random(257 * WIDTH)
    for name in ("learned_query", "null_brain_embeds", "null_image_embed"):
        state[f"net.{name}"] = random(257, WIDTH)
    config = MindEyeModel.from_original(state, low_level_checkpoint=low_level(), low_level_norm_num_groups=2).config
    found = config.space("image_embedding_space"), config.space("latent_space")
    expected = replace(clip_image_tokens_space(), shape=(257, WIDTH)), stable_diffusion_latent_space()
    assert found == (expected[0], replace(expected[1], shape=(2, 4, 4)))


def test_the_subject_can_be_named():
    assert MindEyeModel.from_original(published(), subject_names=["subj05"]).config.subject_names == ["subj05"]


def test_a_state_dict_is_not_shared_with_the_model():
    state = published()
    before = state["voxel2clip.lin1.weight"].clone()
    model = MindEyeModel.from_original(state)
    with torch.no_grad():
        model.backbone.output.weight.zero_()
    assert torch.equal(state["voxel2clip.lin1.weight"], before)


def test_missing_and_unknown_keys_are_named():
    state = published()
    del state["net.causal_transformer.layers.1.0.to_q.weight"]
    state["voxel2clip.lin2.weight"] = random(2, 2)
    message = "lacks net.causal_transformer.layers.1.0.to_q.weight and has the unknown voxel2clip.lin2.weight"
    with pytest.raises(FmriModelsError, match=message):
        MindEyeModel.from_original(state)
    damaged = low_level()
    del damaged["upsampler.conv_out.weight"]
    with pytest.raises(FmriModelsError, match=r"lacks upsampler\.conv_out\.weight"):
        MindEyeLowLevelModel.from_original(damaged)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hidden_width": 3}, "no field 'hidden_width'"),
        ({"hidden_size": 7}, r"lin0\.0\.weight of the checkpoint has shape \(6, 11\).*asks for \(7, 11\)"),
    ],
)
def test_overrides_that_do_not_fit_are_sentences(overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        MindEyeModel.from_original(published(), **overrides)


def test_a_prior_is_no_model():
    with pytest.raises(FmriModelsError, match=r"no backbone .* read by MindEyePrior\.from_original"):
        MindEyeModel.from_original(prefixed("net.", prior()))


class Code:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": published(), "other": Code()}, "last.pth")
    with pytest.raises(FmriModelsError, match="more than tensors.*code from a file is not run"):
        MindEyeModel.from_original("last.pth")
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", ["truncated", "text", "empty", "number"])
def test_unreadable_files_are_sentences(tmp_path, content):
    path = tmp_path / "last.pth"
    torch.save(3 if content == "number" else published(), path)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif content != "number":
        path.write_text("no weights" if content == "text" else "")
    with pytest.raises(FmriModelsError, match=r"last\.pth|holds no state dict") as caught:
        MindEyeModel.from_original(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FmriModelsError, match="There is no file"):
        MindEyeModel.from_original(tmp_path / "nowhere.pth")


def test_original_fixtures_load_from_files(tmp_path):
    tensors, _ = original("me1_prior_loss")
    torch.save(state_dict(tensors), tmp_path / "prior.pth")
    assert MindEyePrior.from_original(tmp_path / "prior.pth").config.prior_num_timesteps == 100
    state = recipe_state_dict(original("me1_voxel2sd_4x_recipe")[1])
    assert MindEyeLowLevelModel.from_original(state).config.low_level_feature_size == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voxel2clip.lin0.0.weight": torch.zeros(HIDDEN)}, r"voxel2clip\.lin0\.0\.weight of the checkpoint has shape"),
        ({"voxel2clip.lin0.0.weight": torch.zeros(0, VOXELS)}, "has shape"),
        ({"voxel2clip.lin1.weight": torch.zeros(7, HIDDEN)}, "has 7 rows, which are no tokens of 8 values"),
        ({"net.null_brain_embeds": torch.tensor(1.0)}, "null_brain_embeds of the checkpoint has shape"),
        ({"net.learned_query": torch.tensor(1.0)}, "learned_query of the checkpoint has shape"),
        ({"voxel2clip.lin0.0.weight": torch.zeros(HIDDEN, VOXELS, dtype=torch.int64)}, "holds torch.int64"),
        ({f"voxel2clip.mlp.{i}.0.weight": torch.zeros(1) for i in range(2000)}, "2000 parts"),
    ],
)
def test_shapes_of_no_layout_are_sentences(changes, message):
    with pytest.raises(FmriModelsError, match=message):
        MindEyeModel.from_original(published() | changes)


@pytest.mark.parametrize(
    "overrides",
    [
        {"hidden_size": 2**62}, {"hidden_size": "wide"}, {"prior_num_layers": 10**9}, {"num_voxels": [2**60]},
        {"prior_attention_head_dim": 0}, {"subject_names": 5}, {"image_embedding_space": {"encoder": "x"}},
        {"latent_space": 3}, {"projector_size": -1},
    ],
)  # fmt: skip
def test_overrides_of_no_network_are_sentences(overrides):
    with pytest.raises(FmriModelsError) as caught:
        MindEyeModel.from_original(published(), **overrides)
    assert "\n" not in str(caught.value)


def test_a_low_level_branch_without_blocks_is_a_sentence():
    state = {key: value for key, value in low_level().items() if ".up_blocks." not in key}
    with pytest.raises(FmriModelsError, match="0 parts"):
        MindEyeLowLevelModel.from_original(state)
