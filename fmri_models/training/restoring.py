"""Weights and states of checkpoints, put back into a model and a stage; those of other spaces are refused."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from transformers.utils import logging

from ..conditions import CONDITION_SPACES
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..original_checkpoint import check_finite
from .checkpoints import GENERATOR_FILE, MODEL_FILE, Checkpoints, Learned, StageState, damaged, read_state
from .gradient import GradientStage

logger = logging.get_logger(__name__)


def resumed_state(model: FmriPreTrainedModel, checkpoints: Checkpoints, fresh: StageState) -> tuple[StageState, Any]:
    """Puts a stage's newest checkpoint into the model.

    Returns:
        The stage's state, and the folder of the checkpoint for [`restore_stage`]; `fresh` and None where there is none.
    """
    folder = checkpoints.latest(fresh.stage)
    if folder is None:
        return fresh, None
    restore_model(model, folder)
    return read_state(folder), folder


def restore_stage(stage: GradientStage, state: StageState, folder: Path) -> None:
    """Puts the optimiser and the moving average of a checkpoint into a stage."""
    names = ["optimizer"] if stage.weights.average is None else ["optimizer", "ema"]
    tensors = {name: restore_tensors(folder, name) for name in names}
    try:
        stage.weights.restore(tensors, state.extra)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise FmriModelsError(damaged(folder, f"{type(error).__name__}: {error}")) from error
    logger.info(f"Going on from {folder}.")


def restore_model(model: FmriPreTrainedModel, folder: Path) -> None:
    """Puts a checkpoint's weights and configuration into a model of the same build.

    Raises:
        FmriModelsError: The checkpoint's spaces differ from the model's, or it is damaged.
    """
    try:
        saved = type(model.config).from_pretrained(folder)
    except FmriModelsError:
        raise
    # What the configuration's own checks, and those of transformers, raise on other values than they know.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, StrictDataclassError) as error:
        raise FmriModelsError(damaged(folder, error)) from error
    check_spaces(saved, model, f"the checkpoint {folder}")
    try:
        load_model(model, str(folder / MODEL_FILE))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise FmriModelsError(damaged(folder, error)) from error
    try:
        check_finite(model.state_dict())
    except FmriModelsError as error:
        raise FmriModelsError(damaged(folder, error)) from error
    # What a stage has set in the configuration, such as the penalties of a closed-form fit.
    model.config.__dict__.update({key: value for key, value in vars(saved).items() if not key.startswith("_")})


@torch.no_grad()
def restore_learned(learned: Learned, folder: Path) -> None:
    """Puts what an image generator had learned at a checkpoint into its parameters.

    Args:
        learned: Name ▶ parameter that has learned; nothing where none has.
        folder: The checkpoint.

    Raises:
        FmriModelsError: The checkpoint has other parameters, or is damaged.
    """
    if not learned:
        return
    saved = restore_tensors(folder, GENERATOR_FILE.removesuffix(".safetensors"))
    shapes = {name: tuple(values.shape) for name, values in learned.items()}
    if {name: tuple(values.shape) for name, values in saved.items()} != shapes:
        raise FmriModelsError(damaged(folder, "its image generator has other parameters"))
    try:
        check_finite(saved)
    except FmriModelsError as error:
        raise FmriModelsError(damaged(folder, error)) from error
    for name, values in saved.items():
        learned[name].copy_(values)


def restore_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Further tensors of a checkpoint.

    Raises:
        FmriModelsError: They are missing or damaged.
    """
    try:
        return load_file(folder / f"{name}.safetensors")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FmriModelsError(damaged(folder, error)) from error


def check_spaces(saved: Any, model: FmriPreTrainedModel, saved_name: str) -> None:
    """Refuses weights that were trained for other spaces than the image generator's.

    Args:
        saved: The configuration that goes with the weights.
        model: Built for the recipe's image generator.
        saved_name: What the weights are called in the message.

    Raises:
        FmriModelsError: Names the first difference.
    """
    for name in CONDITION_SPACES.values():
        own, other = saved.space(name), model.config.space(name)
        if own is not None and other is not None:
            own.require_equal(other, saved_name, "the image generator")
        elif own != other:
            has, lacks = (saved_name, "the model") if other is None else ("the model", saved_name)
            raise FmriModelsError(
                f"{has} has a {name} and {lacks} has none; use the generator and targets that the weights were trained "
                "for, or train anew."
            )
