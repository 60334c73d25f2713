"""MinD-Vis' published checkpoints as a pipeline needs them: what they were fed with, and what drew their pictures."""

from typing import Any

from ...errors import FmriModelsError
from ...generation.double_conditioned import DoubleConditionedImageGenerator
from ...generation.double_conditioned_original import UNET_PREFIX
from ...generation.weights_digest import weights_digest
from ...original_checkpoint import Checkpoint, read_state
from ...records import Conversion
from .modeling_mindvis import MindVisModel

# Chen et al. (2023) and the published loader, whose test patterns kept their own scale by mistake.
_EXPECTS = (
    "voxels of the visual cortex of the subject that the checkpoint was trained on, wrapped around to a multiple of "
    "the patch, less the mean and divided by the standard deviation of all values of the training trials"
)


def convert(checkpoint: Checkpoint, low_level_checkpoint: Checkpoint | None = None, **overrides: Any) -> Conversion:
    """Reads a fine-tuned checkpoint with its diffusion model, or one of masked modelling, which draws nothing.

    Args:
        checkpoint: As of [`MindVisModel.from_original`].
        low_level_checkpoint: There is none.
        **overrides: As of [`MindVisModel.from_original`].

    Raises:
        FmriModelsError: The file is unreadable, or keys are missing or unknown.
    """
    if low_level_checkpoint is not None:
        raise FmriModelsError("MinD-Vis has no low-level branch; leave its checkpoint out.")
    state = read_state(checkpoint)
    model = MindVisModel.from_original(state, **overrides)
    if model.conditioner is None or not any(key.startswith(UNET_PREFIX) for key in state):
        return Conversion(model, _EXPECTS)
    generator = DoubleConditionedImageGenerator.from_original(state)
    generator.register_to_config(condition_revision=weights_digest([generator.unet]))
    generator.name_learned_spaces(model.config)
    # Five samples a pattern, as published, of 250 steps.
    return Conversion(model, _EXPECTS, generator, {"num_candidates": 5, "num_inference_steps": 250})
