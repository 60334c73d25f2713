"""Reads the published checkpoints of MindBridge.

Each tensor of a model has its published name, given by the tables below; what names and shapes tell becomes the
configuration.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from transformers import PreTrainedModel

from ...embedding_space import EmbeddingSpace, clip_image_tokens_space, clip_text_tokens_space
from ...errors import FmriModelsError
from ...names import listed, one_line
from ...original_checkpoint import Checkpoint, State, listed_keys, read_state
from ...original_model import Rules, configured, count_of, filled, renamed, shape_of
from .configuration_mindbridge import MindBridgeConfig

_CLIP_WIDTH = 768
_SUBJECT = re.compile(r"embedder\.([^.]+)\.")
_OF_SUBJECTS = re.compile(r"(?:embedder|builder)\.([^.]+)\.")
_MOST_LISTED = 20

_EMBEDDER_RULES: Rules = [(r"adapter\.", "0."), (r"linear\.", "1."), (r"norm\.", "2.")]
_BUILDER_RULES: Rules = [(r"linear\.", "0."), (r"norm\.", "1."), (r"adapter\.", "3.")]
_SHARED_RULES: Rules = [
    (r"translator\.(\d+)\.linear\.", r"translator.mlp.\1.0."),
    (r"translator\.(\d+)\.norm_activation\.norm\.", r"translator.mlp.\1.1."),
    (r"image_head\.", "head_image."),
    (r"text_head\.", "head_text."),
]


def load_model(model_class: type[PreTrainedModel], checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> Any:
    """A `MindBridgeModel` from a published checkpoint; see its `from_original`."""
    state = read_state(checkpoint)
    originals = _chosen_subjects(state, overrides.get("subject_names"))
    left_out = {*_subjects(state)} - {*originals.values()}
    with_builders = overrides.get("use_builders") is not False
    state = {key: value for key, value in state.items() if _is_kept(key, left_out, with_builders)}
    options = _options(state, originals)
    config = configured(MindBridgeConfig, options, {**overrides, "subject_names": list(originals)})

    def original_key(key: str) -> str:
        part, _, rest = key.partition(".")
        if part not in ("embedders", "builders"):
            return renamed(key, _SHARED_RULES)
        subject, _, name = rest.partition(".")
        rules = _EMBEDDER_RULES if part == "embedders" else _BUILDER_RULES
        return f"{part.removesuffix('s')}.{originals[unquote(subject)]}.{renamed(name, rules)}"

    return filled(model_class, config, state, original_key)


def _chosen_subjects(state: State, wanted: Any) -> dict[str, str]:
    """Name of each subject of the model ▶ what it is called in the checkpoint.

    Args:
        state: The checkpoint's tensors.
        wanted: Names of some of its subjects, or new names for all; None takes all as they are.
    """
    found = _subjects(state)
    if not found:
        raise FmriModelsError(
            f"The checkpoint has no embedder of a subject (embedder.1.1.weight) but {listed_keys(sorted(state))}; it "
            "is of another method."
        )
    names: dict[str, str] = {}
    for original in found:
        if (other := names.setdefault(_name(original), original)) != original:
            raise FmriModelsError(
                f"The checkpoint has embedders of the subjects {one_line(repr(other), 80)} and "
                f"{one_line(repr(original), 80)}, which both are {_name(original)}; take one of them out of the file."
            )
    if wanted is None:
        return names
    is_list = isinstance(wanted, list | tuple) and all(isinstance(name, str) for name in wanted)
    if is_list and wanted and set(wanted) <= names.keys():
        return {name: names[name] for name in wanted}
    if is_list and len(set(wanted)) == len(found) and not set(wanted) & names.keys():
        return dict(zip(wanted, found, strict=True))
    raise FmriModelsError(
        f"The checkpoint has the subjects {listed(list(names), _MOST_LISTED)}; give as subject_names some of these, "
        "which are then kept, or as many new names."
    )


def _name(original: str) -> str:
    """Subjects of NSD are numbers there."""
    return f"subj{int(original):02d}" if original.isascii() and original.isdecimal() else original


def _subjects(state: State) -> list[str]:
    """Subjects by the checkpoint's embedders, as they are called there."""
    return list(dict.fromkeys(match[1] for key in state if (match := _SUBJECT.match(key))))


def _is_kept(key: str, left_out: Collection[str], with_builders: bool) -> bool:
    if key.startswith("builder.") and not with_builders:
        return False
    match = _OF_SUBJECTS.match(key)
    return match is None or match[1] not in left_out


def _options(state: State, originals: Mapping[str, str]) -> dict[str, Any]:
    weights = [shape_of(state, f"embedder.{original}.1.weight", 2) for original in originals.values()]
    first = next(iter(originals.values()))
    options: dict[str, Any] = {
        "num_voxels": [shape[1] for shape in weights],
        "hidden_size": weights[0][0],
        "adapter_size": shape_of(state, f"embedder.{first}.0.down_proj.weight", 2)[0],
        "num_hidden_layers": count_of(state, r"translator\.mlp\.(\d+)\."),
        "use_builders": any(key.startswith("builder.") for key in state),
    }
    spaces = {"image": clip_image_tokens_space(), "text": clip_text_tokens_space()}
    for head, space in spaces.items():
        if f"head_{head}.weight" in state:
            size = shape_of(state, f"head_{head}.weight", 2)[0]
            options[f"{head}_embedding_space"] = replace(space, shape=_token_shape(size, space)).to_dict()
    if not any(f"head_{head}.weight" in state for head in spaces):
        raise FmriModelsError(
            "The checkpoint lacks both heads (head_image.weight, head_text.weight), so that nothing could be decoded; "
            "it is damaged or of another layout."
        )
    return options


def _token_shape(size: int, space: EmbeddingSpace) -> tuple[int, ...]:
    """As published, tokens of CLIP's width, or a single one where they can't be."""
    if size == space.size:
        return space.shape
    return (size // _CLIP_WIDTH, _CLIP_WIDTH) if size % _CLIP_WIDTH == 0 else (1, size)
