"""Reads the published checkpoints of MindEye.

Each tensor of a model has its published name, given by the tables below; what the shapes tell becomes the
configuration.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from ...embedding_space import clip_image_tokens_space, stable_diffusion_latent_space
from ...errors import FmriModelsError
from ...original_checkpoint import Checkpoint, State, listed_keys, read_state
from ...original_model import Rules, configured, count_of, filled, renamed, shape_of
from .configuration_mindeye import MindEyeConfig

# Names by which the layouts are known: of the backbone, with the checkpoint's prefix and without, of the prior,
# likewise, and of the low-level branch.
_KNOWN_BY = (
    "voxel2clip.lin0.0.weight",
    "lin0.0.weight",
    "net.null_brain_embeds",
    "null_brain_embeds",
    "upsampler.conv_in.weight",
)

# What a trainer of one's own may hold beside the network.
_BESIDE_NETWORK = re.compile(r"[^.]*(?:loss|criterion|metric)[^.]*\.")

_CLIP_WIDTH = 768
# Each upsampling block doubles the size.
_MOST_BLOCKS = 10
# Computed, never read: the noise schedule and the rates of the rotary embedding.
_CONSTANTS = re.compile(r"noise_scheduler\..*|.*\.rotary_emb\.freqs")
# diffusers renamed the attention of its decoder after the checkpoints were made.
_ATTENTION_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

_PRIOR_RULES: Rules = [
    (r"time_embedding\.linear_1\.", "to_time_embeds.0.1.net.0.0."),
    (r"time_embedding\.linear_2\.", "to_time_embeds.0.1.net.1.0."),
    (r"time_embedding\.linear_3\.", "to_time_embeds.0.1.net.2."),
    (r"relative_position_bias\.table\.", "causal_transformer.rel_pos_bias.relative_attention_bias."),
    (r"layers\.(\d+)\.attention\.norm\.weight", r"causal_transformer.layers.\1.0.norm.g"),
    (r"layers\.(\d+)\.attention\.null_key_value", r"causal_transformer.layers.\1.0.null_kv"),
    (r"layers\.(\d+)\.attention\.to_query\.", r"causal_transformer.layers.\1.0.to_q."),
    (r"layers\.(\d+)\.attention\.to_key_value\.", r"causal_transformer.layers.\1.0.to_kv."),
    (r"layers\.(\d+)\.attention\.to_out\.", r"causal_transformer.layers.\1.0.to_out.0."),
    (r"layers\.(\d+)\.attention\.out_norm\.weight", r"causal_transformer.layers.\1.0.to_out.1.g"),
    (r"layers\.(\d+)\.feed_forward\.norm\.weight", r"causal_transformer.layers.\1.1.0.g"),
    (r"layers\.(\d+)\.feed_forward\.expand\.", r"causal_transformer.layers.\1.1.1."),
    (r"layers\.(\d+)\.feed_forward\.contract\.", r"causal_transformer.layers.\1.1.5."),
    (r"norm\.weight", "causal_transformer.norm.g"),
    (r"project_out\.", "causal_transformer.project_out."),
    (r"null_image_embeds", "null_image_embed"),
]


def _encoder_rules(norm_position: int) -> Rules:
    return [
        (r"input\.layers\.[^.]+\.", "lin0.0."),
        (r"input_norm_activation\.norm\.", f"lin0.{norm_position}."),
        (r"blocks\.(\d+)\.linear\.", r"mlp.\1.0."),
        (r"blocks\.(\d+)\.norm_activation\.norm\.", rf"mlp.\1.{norm_position}."),
        (r"output\.", "lin1."),
    ]


def load_prior(model_class: type[PreTrainedModel], checkpoint: Checkpoint, overrides: dict[str, Any]) -> Any:
    """The prior alone; arguments as of `MindEyePrior.from_original`."""
    state = _state_of(checkpoint)
    if any(key.startswith("net.") for key in state):
        state = {key.removeprefix("net."): value for key, value in state.items() if not key.startswith("voxel2clip.")}
    options = _prior_options(state)
    options["image_embedding_space"] = _image_space(shape_of(state, "null_brain_embeds", 2)[:2])
    config = configured(MindEyeConfig, options, overrides, "prior_")
    return filled(
        model_class, config, _without_constants(state), lambda key: renamed(key.removeprefix("network."), _PRIOR_RULES)
    )


def load_low_level(model_class: type[PreTrainedModel], checkpoint: Checkpoint, overrides: dict[str, Any]) -> Any:
    """The low-level branch alone; arguments as of `MindEyeLowLevelModel.from_original`."""
    state = _low_level_state(_state_of(checkpoint))
    config = configured(MindEyeConfig, _low_level_options(state) | _subject_options(state), overrides, "low_level_")
    return filled(model_class, config, _without_constants(state), _original_low_level_key)


def load_model(
    model_class: type[PreTrainedModel],
    checkpoint: Checkpoint,
    low_level_checkpoint: Checkpoint | None,
    overrides: dict[str, Any],
) -> Any:
    """All that the checkpoints hold; arguments as of `MindEyeModel.from_original`."""
    state, low_level = _state_of(checkpoint), None
    if low_level_checkpoint is not None:
        low_level = _state_of(low_level_checkpoint)
        _check_low_level(state, low_level)
    elif "upsampler.conv_in.weight" in state:
        state, low_level = {}, state
    if "lin0.0.weight" in state:
        state = {f"voxel2clip.{key}": value for key, value in state.items()}
    if overrides.get("use_prior") is False:
        state = {key: value for key, value in state.items() if not key.startswith("net.")}
    options: dict[str, Any] = {}
    norm_position = 1
    if state:
        options |= _backbone_options(state)
        norm_position = 2 if options["activation_first"] else 1
    if low_level is not None:
        low_level = _low_level_state(low_level)
        options |= _low_level_options(low_level)
        options |= _subject_options(low_level)
        state |= {f"low_level.{key}": value for key, value in low_level.items()}
    if "voxel2clip.lin0.0.weight" in state:
        found, low_level_voxels = _subject_options(state, "voxel2clip."), options.get("num_voxels")
        if low_level_voxels not in (None, found["num_voxels"]):
            raise FmriModelsError(
                f"The checkpoint reads {found['num_voxels'][0]} voxels and the low-level checkpoint "
                f"{low_level_voxels[0]}; give two checkpoints of one subject."
            )
        options |= found

    def original_key(key: str) -> str:
        if key.startswith("backbone."):
            return "voxel2clip." + renamed(key.removeprefix("backbone."), _encoder_rules(norm_position))
        if key.startswith("projector."):
            return f"voxel2clip.{key}"
        if key.startswith("prior."):
            return "net." + renamed(key.removeprefix("prior.network."), _PRIOR_RULES)
        return "low_level." + _original_low_level_key(key.removeprefix("low_level."))

    config = configured(MindEyeConfig, options, overrides, "prior_")
    return filled(model_class, config, _without_constants(state), original_key)


def _state_of(checkpoint: Checkpoint) -> State:
    """The tensors by their published names, without what a trainer of one's own has put around the network.

    Lightning calls the network by the attribute that holds it (`model.`, `net.` ...), and modules may have been wrapped
    for distributed training one by one (`voxel2clip.module.`).
    """
    state = read_state(checkpoint)
    unwrapped = {key.replace(".module.", "."): value for key, value in state.items()}
    state = unwrapped if len(unwrapped) == len(state) else state
    wrapped = not any(name in state for name in _KNOWN_BY)
    inner = {key: each for key, each in state.items() if not (wrapped and _BESIDE_NETWORK.match(key))}
    while not any(name in inner for name in _KNOWN_BY):
        first = {key.partition(".")[0] for key in inner}
        if len(first) != 1 or not all("." in key for key in inner):
            # None of the layouts; messages name what is in the file.
            return state
        inner = {key.partition(".")[2]: value for key, value in inner.items()}
    return inner


def _backbone_options(state: State) -> dict[str, Any]:
    if "voxel2clip.lin0.0.weight" not in state:
        raise FmriModelsError(
            f"The checkpoint has no backbone (voxel2clip.lin0.0.weight) but {listed_keys(sorted(state))}; it is of "
            "another method, or a prior alone, which is read by MindEyePrior.from_original."
        )
    activation_first = "voxel2clip.lin0.2.weight" in state
    norm_position = 2 if activation_first else 1
    options: dict[str, Any] = {
        "hidden_size": shape_of(state, "voxel2clip.lin0.0.weight")[0],
        "num_hidden_layers": count_of(state, r"voxel2clip\.mlp\.(\d+)\."),
        "activation_first": activation_first,
        "norm": "batch" if f"voxel2clip.lin0.{norm_position}.running_mean" in state else "layer",
        "use_projector": any(key.startswith("voxel2clip.projector.") for key in state),
        "use_prior": any(key.startswith("net.") for key in state),
    }
    if options["use_projector"]:
        options["projector_size"] = shape_of(state, "voxel2clip.projector.2.weight")[0]
    if options["use_prior"]:
        if "net.null_brain_embeds" not in state:
            raise FmriModelsError(
                "The checkpoint's prior has no net.null_brain_embeds, so it is of another architecture than MindEye's; "
                "leave it out with use_prior=False, which keeps retrieval."
            )
        prior = {key.removeprefix("net."): value for key, value in state.items()}
        options |= _prior_options(prior)
    options["image_embedding_space"] = _image_space(_token_shape(state))
    return options


def _token_shape(state: State) -> tuple[int, int]:
    size = shape_of(state, "voxel2clip.lin1.weight")[0]
    if "net.null_brain_embeds" in state:
        width = shape_of(state, "net.null_brain_embeds", 2)[1]
    elif "voxel2clip.projector.0.weight" in state:
        width = shape_of(state, "voxel2clip.projector.0.weight")[0]
    else:
        width = _CLIP_WIDTH if size % _CLIP_WIDTH == 0 else size
    if size % width:
        raise FmriModelsError(
            f"voxel2clip.lin1.weight of the checkpoint has {size} rows, which are no tokens of {width} values; it is "
            "damaged or of another layout."
        )
    return size // width, width


def _prior_options(state: State) -> dict[str, Any]:
    num_tokens, size = shape_of(state, "null_brain_embeds", 2)[:2]
    bias = "causal_transformer.rel_pos_bias"
    options: dict[str, Any] = {
        "prior_num_layers": count_of(state, r"causal_transformer\.layers\.(\d+)\."),
        "prior_num_attention_heads": shape_of(state, f"{bias}.relative_attention_bias.weight", 2)[1],
        "prior_attention_head_dim": shape_of(state, "causal_transformer.layers.0.0.null_kv", 2)[1],
        "prior_feed_forward_multiplier": shape_of(state, "causal_transformer.layers.0.1.5.weight", 2)[1] // size,
        "prior_learned_query_mode": "none",
    }
    if "learned_query" in state:
        # A table as long as the picture is added to its tokens, as published, unless an override says otherwise.
        per_token = shape_of(state, "learned_query")[0] == num_tokens
        options["prior_learned_query_mode"] = "pos_emb" if per_token else "all_pos_emb"
    if "noise_scheduler.betas" in state:
        options["prior_num_timesteps"] = shape_of(state, "noise_scheduler.betas")[0]
    return options


def _check_low_level(state: State, low_level: State) -> None:
    if "upsampler.conv_in.weight" in low_level and "upsampler.conv_in.weight" not in state:
        return
    found = "that of the low-level branch" if "upsampler.conv_in.weight" in state else "one without upsampler"
    raise FmriModelsError(
        f"The first checkpoint is {found}, and the low-level checkpoint begins with {listed_keys(sorted(low_level))}; "
        "give the one with voxel2clip first, and the one with upsampler as the low-level checkpoint."
    )


def _low_level_options(state: State) -> dict[str, Any]:
    start_channels = shape_of(state, "norm.weight")[0]
    start_size = math.isqrt(shape_of(state, "lin1.weight")[0] // start_channels)
    num_blocks = count_of(state, r"upsampler\.up_blocks\.(\d+)\.", most=_MOST_BLOCKS)
    channels = [
        shape_of(state, f"upsampler.up_blocks.{index}.resnets.0.conv1.weight")[0]
        for index in reversed(range(num_blocks))
    ]
    side = start_size * 2 ** (num_blocks - 1)
    shape = (shape_of(state, "upsampler.conv_out.weight")[0], side, side)
    has_maps = "maps_projector.0.weight" in state
    return {
        "latent_space": replace(stable_diffusion_latent_space(), shape=shape).to_dict(),
        "low_level_hidden_size": shape_of(state, "lin0.0.weight")[0],
        "low_level_num_hidden_layers": count_of(state, r"mlp\.(\d+)\."),
        "low_level_start_channels": start_channels,
        "low_level_block_out_channels": channels,
        "low_level_layers_per_block": count_of(state, r"upsampler\.up_blocks\.0\.resnets\.(\d+)\.") - 1,
        "low_level_feature_size": shape_of(state, "maps_projector.0.weight")[0] if has_maps else None,
    }


def _subject_options(state: State, prefix: str = "") -> dict[str, Any]:
    # Only the first subject's weights were published.
    return {"subject_names": ["subj01"], "num_voxels": [shape_of(state, f"{prefix}lin0.0.weight", 2)[1]]}


def _image_space(token_shape: Iterable[int]) -> dict[str, Any]:
    shape = tuple(token_shape)
    space = clip_image_tokens_space()
    if shape[0] == 1:
        # The release's model for retrieval: the picture's embedding itself.
        space = replace(space, layer="image_embeds")
    return replace(space, shape=shape).to_dict()


def _original_low_level_key(key: str) -> str:
    if key.startswith("encoder."):
        return renamed(key.removeprefix("encoder."), _encoder_rules(norm_position=1))
    return _old_attention_name(key)


def _low_level_state(state: State) -> State:
    """With the attention's old names, and without a projector of feature maps that does not fit the map.

    The published class for 16-fold upsampling has one for the 64 channels of another size, which cannot be run.
    """
    start, maps = state.get("norm.weight"), state.get("maps_projector.0.weight")
    fits = start is not None and maps is not None and maps.shape[1:2] == start.shape[:1]
    kept = {key: value for key, value in state.items() if fits or not key.startswith("maps_projector.")}
    return {_old_attention_name(key): value for key, value in kept.items()}


def _old_attention_name(key: str) -> str:
    for new, old in _ATTENTION_NAMES.items():
        key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
    return key


def _without_constants(state: State) -> State:
    return {key: value for key, value in state.items() if not _CONSTANTS.fullmatch(key)}
