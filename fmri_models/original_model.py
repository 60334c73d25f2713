"""Builds a model from the tensors of a published checkpoint: sizes by their shapes, and each tensor in its place."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from .configuration_fmri import FmriConfig
from .errors import FmriModelsError
from .names import did_you_mean, one_line
from .original_checkpoint import State, check_tensors
from .weights import StoredTensor, on_meta

# Far beyond what was published.
_MOST_LAYERS = 1000
_Config = TypeVar("_Config", bound=FmriConfig)
# Patterns of the beginnings of names, and what takes their place.
Rules = list[tuple[str, str]]


def shape_of(state: State, key: str, dimensions: int = 1) -> tuple[int, ...]:
    """The shape of a tensor that has so many dimensions at least, and values.

    Raises:
        FmriModelsError: It is missing, or has another shape.
    """
    if key not in state:
        raise FmriModelsError(f"The checkpoint lacks {key}; it is damaged or of another layout.")
    shape = tuple(state[key].shape)
    if len(shape) < dimensions or 0 in shape:
        raise FmriModelsError(f"{key} of the checkpoint has shape {shape}; it is damaged or of another layout.")
    return shape


def count_of(state: State, pattern: str, most: int = _MOST_LAYERS) -> int:
    """How many indices a pattern finds among the keys.

    Raises:
        FmriModelsError: None, or more than any published checkpoint has.
    """
    count = len({match[1] for key in state if (match := re.match(pattern, key))})
    if not 1 <= count <= most:
        raise FmriModelsError(
            f"The checkpoint has {count} parts {pattern.replace(chr(92), '')} and 1 to {most} were expected; it is "
            "damaged or of another layout."
        )
    return count


def renamed(key: str, rules: Rules) -> str:
    """A name with its beginning replaced by the first rule that fits; as it is where none does."""
    for pattern, replacement in rules:
        found, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            return found
    return key


def configured(
    config_class: type[_Config], options: dict[str, Any], overrides: dict[str, Any], prefix: str = ""
) -> _Config:
    """The configuration that a checkpoint's shapes and the caller's overrides make.

    Args:
        config_class: Its class.
        options: Fields by the shapes.
        overrides: Fields by the caller, with or without the prefix; they take the place of the others.
        prefix: What fields of the part that is read begin with.

    Raises:
        FmriModelsError: An override is no field, or a value does not fit.
    """
    options = dict(options)
    typed: Any = config_class
    names = {field.name for field in fields(typed)}
    for name, value in overrides.items():
        full_name = name if name in names else f"{prefix}{name}"
        if full_name not in names:
            raise FmriModelsError(
                f"{config_class.__name__} has no field {one_line(repr(name), 80)}; see its documentation for those it "
                f"has.{did_you_mean(name, names)}"
            )
        options[full_name] = value
    try:
        return config_class(**options)
    except FmriModelsError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, StrictDataclassError) as error:
        raise FmriModelsError(
            f"The configuration has a value that does not fit: {one_line(' '.join(str(error).split()))}; correct the "
            "override."
        ) from error


def filled(
    model_class: type[PreTrainedModel], config: FmriConfig, state: State, original_key: Callable[[str], str]
) -> Any:
    """A model in eval mode whose tensors are the checkpoint's.

    Args:
        model_class: Its class.
        config: Its configuration.
        state: The checkpoint's tensors, each of which has a place.
        original_key: Name of a tensor of the model ▶ its name in the checkpoint.

    Raises:
        FmriModelsError: Names the checkpoint's keys that are missing, unknown or of another shape.
    """
    model = _empty(model_class, config, state)
    expected = model.state_dict()
    originals = {key: original_key(key) for key in expected}
    # Batch norm counts batches in a scalar, which some formats store as a vector of one.
    state = {key: value.reshape(()) if key.endswith(".num_batches_tracked") else value for key, value in state.items()}
    check_tensors(state, expected, model_class.__name__, original_key)
    values = {
        key: state[original].float() if expected[key].is_floating_point() else state[original]
        for key, original in originals.items()
    }
    model.load_state_dict(values, assign=True)
    return model.eval()


def _empty(model_class: type[PreTrainedModel], config: FmriConfig, state: State) -> PreTrainedModel:
    """The model without memory for its weights; overrides may ask for a much larger one than the checkpoint's."""
    stored = {key: StoredTensor(Path(), tuple(value.shape), "float") for key, value in state.items()}
    try:
        return cast(PreTrainedModel, on_meta(lambda: model_class(config), stored, "The checkpoint"))
    except FmriModelsError as error:
        if error.__cause__ is None:
            raise
        reason = one_line(error.__cause__) or type(error.__cause__).__name__
        raise FmriModelsError(
            f"The overrides and the sizes of the checkpoint make no {model_class.__name__} ({reason}); leave out "
            "overrides that contradict the checkpoint."
        ) from error
