"""Reads the published checkpoints of MinD-Vis.

Each tensor of a model has its published name, given by the tables below; what the shapes tell becomes the
configuration.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from ...embedding_space import LEARNED, EmbeddingSpace
from ...errors import FmriModelsError
from ...generation.double_conditioned_original import TIME_CONDITION_PREFIX, UNET_PREFIX, VAE_PREFIX
from ...original_checkpoint import Checkpoint, State, listed_keys, read_state
from ...original_model import Rules, configured, count_of, filled, renamed, shape_of
from .configuration_mindvis import MindVisConfig

_CONDITIONER = "cond_stage_model."
# Of the noise schedule, which the image generator computes.
_SCHEDULE = re.compile(r"(?:betas|logvar|alphas_cumprod(?:_prev)?|(?:sqrt|log|posterior)_\w+)")
# The conditioning encoder has one of the encoder's width, which is in no sequence.
_UNUSED_MASK_TOKEN = "mae.mask_token"

_LAYER_RULES: Rules = [
    (r"layers\.(\d+)\.attention\.", r"blocks.\1.attn."),
    (r"layers\.(\d+)\.fc", r"blocks.\1.mlp.fc"),
    (r"layers\.(\d+)\.", r"blocks.\1."),
]
_ENCODER_RULES: Rules = [
    *_LAYER_RULES,
    (r"patch_embed\.", "patch_embed.proj."),
    (r"position_embeddings", "pos_embed"),
]
_DECODER_RULES: Rules = [
    *((pattern, f"decoder_{name}") for pattern, name in _LAYER_RULES),
    (r"embed\.", "decoder_embed."),
    (r"position_embeddings", "decoder_pos_embed"),
    (r"norm\.", "decoder_norm."),
    (r"prediction\.", "decoder_pred."),
]
_MAPPER_RULES: Rules = [(r"first\.", "0."), (r"second\.", "1.")]


def load_pretraining(model_class: type[PreTrainedModel], checkpoint: Checkpoint, overrides: dict[str, Any]) -> Any:
    """A `MindVisForPreTraining` from a published checkpoint; see its `from_original`."""
    state = _encoder_state(checkpoint)
    if "decoder_embed.weight" not in state:
        raise FmriModelsError(
            f"The checkpoint has no decoder (decoder_embed.weight) but {listed_keys(sorted(state))}; the one of masked "
            "modelling is fmri_encoder.pth, and MindVisEncoder reads an encoder alone."
        )
    config = configured(MindVisConfig, {**_encoder_options(state), **_decoder_options(state)}, overrides)
    return filled(model_class, config, with_positions_for(config.num_patches, state), _original_key)


def load_encoder(
    model_class: type[PreTrainedModel], checkpoint: Checkpoint, keeps_norms: bool, overrides: dict[str, Any]
) -> Any:
    """A `MindVisEncoder` from a published checkpoint; see its `from_original`."""
    state = _encoder_state(checkpoint)
    state = {key: value for key, value in state.items() if not key.startswith("decoder_") and key != "mask_token"}
    config = configured(MindVisConfig, _encoder_options(state), overrides)
    if not keeps_norms:
        state = {key: _initial_norm(key, value) for key, value in state.items()}
    state = with_positions_for(config.num_patches, state)
    return filled(model_class, config, state, lambda key: _original_key(f"encoder.{key}"))


def load_model(model_class: type[PreTrainedModel], checkpoint: Checkpoint, overrides: dict[str, Any]) -> Any:
    """A `MindVisModel` from a published checkpoint; see its `from_original`."""
    state = _fine_tuned_state(read_state(checkpoint))
    if not any(key.startswith("dim_mapper.") for key in state):
        return load_pretraining(model_class, state, overrides)
    encoder = {key.removeprefix("mae."): value for key, value in state.items() if key.startswith("mae.")}
    options = {**_encoder_options(encoder), **_conditioner_options(state), "use_decoder": False}
    config = configured(MindVisConfig, options, overrides)
    state = {key: _as_linear(key.removeprefix("mae."), value) for key, value in state.items()}

    def original_key(key: str) -> str:
        if key.startswith("encoder."):
            return f"mae.{_original_key(key)}"
        return _original_conditioner_key(key.removeprefix("conditioner."), config.global_pool)

    return filled(model_class, config, state, original_key)


def with_positions_for(num_patches: int, state: Mapping[str, torch.Tensor]) -> State:
    """Codes of places for so many patches, the nearest of those there are; that of the class token stays."""
    found = dict(state)
    for key, codes in state.items():
        is_positions = key.endswith(("pos_embed", "position_embeddings"))
        if is_positions and codes.ndim == 3 and codes.shape[1] - 1 not in (num_patches, 0):
            places = F.interpolate(codes[:, 1:].float().transpose(1, 2), size=num_patches, mode="nearest")
            found[key] = torch.cat([codes[:, :1].float(), places.transpose(1, 2)], dim=1).to(codes)
    return found


def _fine_tuned_state(state: State) -> State:
    """What belongs to the brain model of a whole fine-tuned checkpoint, by the names of its conditioner; anything else
    as it is.

    Raises:
        FmriModelsError: The checkpoint has something besides that is neither the generator's.
    """
    if not any(key.startswith(_CONDITIONER) for key in state):
        return {key: value for key, value in state.items() if key != _UNUSED_MASK_TOKEN}
    own, unknown = {}, []
    for key, value in state.items():
        if key.startswith(_CONDITIONER):
            own[key.removeprefix(_CONDITIONER)] = value
        elif key.startswith(TIME_CONDITION_PREFIX):
            own[f"time_mapper.{key.removeprefix(TIME_CONDITION_PREFIX)}"] = value
        elif not (key.startswith((UNET_PREFIX, VAE_PREFIX)) or _SCHEDULE.fullmatch(key)):
            unknown.append(key)
    if unknown:
        raise FmriModelsError(
            f"The checkpoint has the unknown {listed_keys(sorted(unknown))}; it is damaged or not of MinD-Vis' layout."
        )
    return {key: value for key, value in own.items() if key != _UNUSED_MASK_TOKEN}


def _encoder_state(checkpoint: Checkpoint) -> State:
    """The tensors of an encoder, and of a decoder if there is one, by their published names."""
    state = _fine_tuned_state(read_state(checkpoint))
    inner = {key.removeprefix("mae."): value for key, value in state.items() if key.startswith("mae.")}
    return {key: _as_linear(key, value) for key, value in (inner or state).items()}


def _as_linear(key: str, value: torch.Tensor) -> torch.Tensor:
    """The convolution whose stride is its width, as the linear map that it is."""
    is_patches = key == "patch_embed.proj.weight" and value.ndim == 3 and value.shape[1] == 1
    return value[:, 0] if is_patches else value


def _encoder_options(state: State) -> dict[str, Any]:
    if "patch_embed.proj.weight" not in state:
        raise FmriModelsError(
            f"The checkpoint has no encoder (patch_embed.proj.weight) but {listed_keys(sorted(state))}; it is of "
            "another method."
        )
    weight = shape_of(state, "patch_embed.proj.weight", 2)
    patch_size, num_patches = weight[-1], shape_of(state, "pos_embed", 3)[1] - 1
    return {
        "subject_names": ["subj01"],
        "num_voxels": [num_patches * patch_size],
        "patch_size": patch_size,
        "hidden_size": weight[0],
        "num_hidden_layers": count_of(state, r"blocks\.(\d+)\."),
        "mlp_ratio": shape_of(state, "blocks.0.mlp.fc1.weight")[0] / weight[0],
    }


def _decoder_options(state: State) -> dict[str, Any]:
    return {
        "decoder_hidden_size": shape_of(state, "decoder_embed.weight")[0],
        "decoder_num_hidden_layers": count_of(state, r"decoder_blocks\.(\d+)\."),
    }


def _conditioner_options(state: State) -> dict[str, Any]:
    pooled = "channel_mapper.0.weight" not in state
    num_tokens = 1 if pooled else shape_of(state, "channel_mapper.1.weight")[0]
    context = (num_tokens, shape_of(state, "dim_mapper.weight")[0])
    options: dict[str, Any] = {
        "global_pool": pooled,
        "encoder_hidden_states_space": learned_space("encoder_hidden_states", context),
    }
    if any(key.startswith("time_mapper.") for key in state):
        last = "time_mapper.0.weight" if pooled else "time_mapper.2.weight"
        options["time_embeds_space"] = learned_space("time_embeds", shape_of(state, last)[:1])
    return options


def learned_space(layer: str, shape: tuple[int, ...], revision: str | None = None) -> dict[str, Any]:
    """Space of a condition that a generator has learned to read."""
    return EmbeddingSpace(encoder=LEARNED, layer=layer, shape=shape, revision=revision).to_dict()


def _original_key(key: str) -> str:
    """The published name of a tensor of encoder or decoder."""
    part, _, name = key.partition(".")
    return renamed(name, _ENCODER_RULES if part == "encoder" else _DECODER_RULES)


def _original_conditioner_key(key: str, pooled: bool) -> str:
    part, _, name = key.partition(".")
    if part == "time_projection":
        return f"time_mapper.{0 if pooled else 2}.{name}"
    return f"{part}.{renamed(name, _MAPPER_RULES)}"


def _initial_norm(key: str, value: torch.Tensor) -> torch.Tensor:
    if "norm" not in key:
        return value
    return torch.zeros_like(value) if key.endswith(".bias") else torch.ones_like(value)
