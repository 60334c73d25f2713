"""Reads the published checkpoints of MindEye.

Each tensor of a model has its published name, given by the tables below; what the shapes tell becomes the
configuration.
"""

import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ...embedding_space import EmbeddingSpace
from ...errors import FmriModelsError
from .configuration_mindeye import MindEyeConfig

Checkpoint = str | os.PathLike | Mapping[str, Any]
State = dict[str, torch.Tensor]
Rules = list[tuple[str, str]]

_CLIP_WIDTH = 768
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
        (r"input\.layers\.0\.", "lin0.0."),
        (r"input_norm_activation\.norm\.", f"lin0.{norm_position}."),
        (r"blocks\.(\d+)\.linear\.", r"mlp.\1.0."),
        (r"blocks\.(\d+)\.norm_activation\.norm\.", rf"mlp.\1.{norm_position}."),
        (r"output\.", "lin1."),
    ]


def load_prior(model_class: type[PreTrainedModel], checkpoint: Checkpoint, overrides: dict[str, Any]) -> Any:
    """The prior alone; arguments as of `MindEyePrior.from_original`."""
    state = read_state(checkpoint)
    if any(key.startswith("net.") for key in state):
        state = {key.removeprefix("net."): value for key, value in state.items() if not key.startswith("voxel2clip.")}
    options = _prior_options(state)
    options["image_embedding_space"] = _image_space(_shape(state, "null_brain_embeds"))
    config = _config(options, overrides, "prior_")
    return _filled(model_class, config, state, lambda key: _renamed(key.removeprefix("network."), _PRIOR_RULES))


def load_low_level(model_class: type[PreTrainedModel], checkpoint: Checkpoint, overrides: dict[str, Any]) -> Any:
    """The low-level branch alone; arguments as of `MindEyeLowLevelModel.from_original`."""
    state = _with_old_attention_names(read_state(checkpoint))
    config = _config(_low_level_options(state) | _subject_options(state), overrides, "low_level_")
    return _filled(model_class, config, state, _original_low_level_key)


def load_model(
    model_class: type[PreTrainedModel],
    checkpoint: Checkpoint,
    low_level_checkpoint: Checkpoint | None,
    overrides: dict[str, Any],
) -> Any:
    """All that the checkpoints hold; arguments as of `MindEyeModel.from_original`."""
    state, low_level = read_state(checkpoint), None
    if low_level_checkpoint is not None:
        low_level = read_state(low_level_checkpoint)
    elif "upsampler.conv_in.weight" in state:
        state, low_level = {}, state
    if "lin0.0.weight" in state:
        state = {f"voxel2clip.{key}": value for key, value in state.items()}
    options: dict[str, Any] = {}
    norm_position = 1
    if state:
        options |= _backbone_options(state)
        norm_position = 2 if options["activation_first"] else 1
    if low_level is not None:
        low_level = _with_old_attention_names(low_level)
        options |= _low_level_options(low_level)
        options |= _subject_options(low_level)
        state |= {f"low_level.{key}": value for key, value in low_level.items()}
    if "voxel2clip.lin0.0.weight" in state:
        options |= _subject_options(state, "voxel2clip.")

    def original_key(key: str) -> str:
        if key.startswith("backbone."):
            return "voxel2clip." + _renamed(key.removeprefix("backbone."), _encoder_rules(norm_position))
        if key.startswith("projector."):
            return f"voxel2clip.{key}"
        if key.startswith("prior."):
            return "net." + _renamed(key.removeprefix("prior.network."), _PRIOR_RULES)
        return "low_level." + _original_low_level_key(key.removeprefix("low_level."))

    return _filled(model_class, _config(options, overrides, "prior_"), state, original_key)


def read_state(checkpoint: Checkpoint) -> State:
    """The state dict in a file, a whole checkpoint or a state dict, without the prefix of distributed training.

    Raises:
        FmriModelsError: The file can't be read, or there is no state dict in it.
    """
    values: Any = checkpoint if isinstance(checkpoint, Mapping) else _read_file(Path(checkpoint))
    if isinstance(values, Mapping) and "model_state_dict" in values:
        values = values["model_state_dict"]
    if not isinstance(values, Mapping) or not values or not all(torch.is_tensor(value) for value in values.values()):
        raise FmriModelsError(
            "The checkpoint holds no state dict; expected tensors by name, or these as 'model_state_dict'."
        )
    state = {str(key): value for key, value in values.items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    # A dictionary stays its owner's: training the model must not change it.
    return {key: value.clone() for key, value in state.items()} if isinstance(checkpoint, Mapping) else state


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise FmriModelsError(f"There is no file {path}; give a published checkpoint, such as last.pth.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FmriModelsError(
            f"{path} holds more than tensors, or is no checkpoint at all, and code from a file is not run; save its "
            "model_state_dict alone."
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError) as error:
        raise FmriModelsError(
            f"{path} is incomplete or no checkpoint ({_first_line(error)}); download it again."
        ) from error


def _backbone_options(state: State) -> dict[str, Any]:
    if "voxel2clip.lin0.0.weight" not in state:
        raise FmriModelsError(
            "The checkpoint has no backbone (voxel2clip.lin0.0.weight); a prior alone is read by "
            "MindEyePrior.from_original."
        )
    activation_first = "voxel2clip.lin0.2.weight" in state
    norm_position = 2 if activation_first else 1
    options: dict[str, Any] = {
        "hidden_size": _shape(state, "voxel2clip.lin0.0.weight")[0],
        "num_hidden_layers": _count(state, r"voxel2clip\.mlp\.(\d+)\."),
        "activation_first": activation_first,
        "norm": "batch" if f"voxel2clip.lin0.{norm_position}.running_mean" in state else "layer",
        "use_projector": any(key.startswith("voxel2clip.projector.") for key in state),
        "use_prior": any(key.startswith("net.") for key in state),
    }
    if options["use_projector"]:
        options["projector_size"] = _shape(state, "voxel2clip.projector.2.weight")[0]
    if options["use_prior"]:
        prior = {key.removeprefix("net."): value for key, value in state.items()}
        options |= _prior_options(prior)
    options["image_embedding_space"] = _image_space(_token_shape(state))
    return options


def _token_shape(state: State) -> tuple[int, int]:
    size = _shape(state, "voxel2clip.lin1.weight")[0]
    if "net.null_brain_embeds" in state:
        width = _shape(state, "net.null_brain_embeds")[1]
    elif "voxel2clip.projector.0.weight" in state:
        width = _shape(state, "voxel2clip.projector.0.weight")[0]
    else:
        width = _CLIP_WIDTH if size % _CLIP_WIDTH == 0 else size
    return size // width, width


def _prior_options(state: State) -> dict[str, Any]:
    num_tokens, size = _shape(state, "null_brain_embeds")
    options: dict[str, Any] = {
        "prior_num_layers": _count(state, r"causal_transformer\.layers\.(\d+)\."),
        "prior_num_attention_heads": _shape(state, "causal_transformer.rel_pos_bias.relative_attention_bias.weight")[1],
        "prior_attention_head_dim": _shape(state, "causal_transformer.layers.0.0.null_kv")[1],
        "prior_feed_forward_multiplier": _shape(state, "causal_transformer.layers.0.1.5.weight")[1] // size,
        "prior_learned_query_mode": "none",
    }
    if "learned_query" in state:
        # A table as long as the picture is added to its tokens, as published, unless an override says otherwise.
        per_token = len(state["learned_query"]) == num_tokens
        options["prior_learned_query_mode"] = "pos_emb" if per_token else "all_pos_emb"
    if "noise_scheduler.betas" in state:
        options["prior_num_timesteps"] = len(state["noise_scheduler.betas"])
    return options


def _low_level_options(state: State) -> dict[str, Any]:
    start_channels = _shape(state, "norm.weight")[0]
    start_size = math.isqrt(_shape(state, "lin1.weight")[0] // start_channels)
    num_blocks = _count(state, r"upsampler\.up_blocks\.(\d+)\.")
    channels = [
        _shape(state, f"upsampler.up_blocks.{index}.resnets.0.conv1.weight")[0] for index in reversed(range(num_blocks))
    ]
    side = start_size * 2 ** (num_blocks - 1)
    space = EmbeddingSpace(
        encoder="stable-diffusion-image-variations/vae",
        layer="latent_mode",
        shape=(_shape(state, "upsampler.conv_out.weight")[0], side, side),
        normalisation="times 0.18215",
        preprocessing="512 bilinear antialias, RGB in [-1, 1]",
    )
    has_maps = "maps_projector.0.weight" in state
    return {
        "latent_space": space.to_dict(),
        "low_level_hidden_size": _shape(state, "lin0.0.weight")[0],
        "low_level_num_hidden_layers": _count(state, r"mlp\.(\d+)\."),
        "low_level_start_channels": start_channels,
        "low_level_block_out_channels": channels,
        "low_level_layers_per_block": _count(state, r"upsampler\.up_blocks\.0\.resnets\.(\d+)\.") - 1,
        "low_level_feature_size": _shape(state, "maps_projector.0.weight")[0] if has_maps else None,
    }


def _subject_options(state: State, prefix: str = "") -> dict[str, Any]:
    # Only the first subject's weights were published.
    return {"subject_names": ["subj01"], "num_voxels": [_shape(state, f"{prefix}lin0.0.weight")[1]]}


def _image_space(token_shape: Iterable[int]) -> dict[str, Any]:
    num_tokens, size = token_shape
    space = EmbeddingSpace(
        encoder="openai/clip-vit-large-patch14",
        layer="projected_tokens" if num_tokens > 1 else "image_embeds",
        shape=(num_tokens, size),
        normalisation="cls_norm",
        preprocessing="224 bicubic without antialias, centre crop, CLIP mean and standard deviation",
    )
    return space.to_dict()


def _config(options: dict[str, Any], overrides: dict[str, Any], prefix: str) -> MindEyeConfig:
    names = {field.name for field in fields(MindEyeConfig)}
    for name, value in overrides.items():
        full_name = name if name in names else f"{prefix}{name}"
        if full_name not in names:
            raise FmriModelsError(f"MindEyeConfig has no field {name!r}; see its documentation for those it has.")
        options[full_name] = value
    return MindEyeConfig(**options)


def _filled(model_class: type[PreTrainedModel], config: MindEyeConfig, state: State, original_key: Any) -> Any:
    """A model in eval mode whose tensors are the checkpoint's.

    Raises:
        FmriModelsError: Names the checkpoint's keys that are missing, unknown or of another shape.
    """
    with torch.device("meta"):
        model = model_class(config)
    expected = model.state_dict()
    originals = {key: original_key(key) for key in expected}
    state = {key: value for key, value in state.items() if not _CONSTANTS.fullmatch(key)}
    # Batch norm counts batches in a scalar, which some formats store as a vector of one.
    state = {key: value.reshape(()) if key.endswith(".num_batches_tracked") else value for key, value in state.items()}
    missing = [key for key in originals.values() if key not in state]
    unknown = sorted(state.keys() - set(originals.values()))
    if missing or unknown:
        problems = [f"lacks {_listed(missing)}"] if missing else []
        problems += [f"has the unknown {_listed(unknown)}"] if unknown else []
        raise FmriModelsError(
            f"The checkpoint {' and '.join(problems)}; it is damaged or not of {model_class.__name__}'s layout."
        )
    for key, original in originals.items():
        if state[original].shape != expected[key].shape:
            raise FmriModelsError(
                f"{original} of the checkpoint has shape {tuple(state[original].shape)}, and the configuration asks "
                f"for {tuple(expected[key].shape)}; leave out overrides that contradict the checkpoint."
            )
    values = {
        key: state[original].float() if expected[key].is_floating_point() else state[original]
        for key, original in originals.items()
    }
    model.load_state_dict(values, assign=True)
    return model.eval()


def _original_low_level_key(key: str) -> str:
    if key.startswith("encoder."):
        return _renamed(key.removeprefix("encoder."), _encoder_rules(norm_position=1))
    return _old_attention_name(key)


def _with_old_attention_names(state: State) -> State:
    return {_old_attention_name(key): value for key, value in state.items()}


def _old_attention_name(key: str) -> str:
    for new, old in _ATTENTION_NAMES.items():
        key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
    return key


def _renamed(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        renamed, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            return renamed
    return key


def _shape(state: State, key: str) -> tuple[int, ...]:
    if key not in state:
        raise FmriModelsError(f"The checkpoint lacks {key}; it is damaged or of another layout.")
    return tuple(state[key].shape)


def _count(state: State, pattern: str) -> int:
    """How many indices the pattern finds among the keys."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
