"""MindBridge's published checkpoints as a pipeline needs them: what they were fed with, what drew their pictures."""

from typing import Any

from ...embedding_space import clip_image_tokens_space, clip_text_tokens_space
from ...errors import FmriModelsError
from ...original_checkpoint import Checkpoint
from ...records import Conversion
from .configuration_mindbridge import MindBridgeConfig
from .modeling_mindbridge import MindBridgeModel

# Of the published loader: each repetition is pooled, and repetitions of a test picture are averaged after that.
_EXPECTS = (
    "single-trial betas of NSD at 1.8 mm in the region nsdgeneral, z-scored by voxel over the trials of each session; "
    "of a test picture the mean of its repetitions after they were pooled"
)
_PUBLISHED_WIDTH = 8192
# Voxels of nsdgeneral of each subject of NSD.
_NUM_VOXELS = {
    "subj01": 15724, "subj02": 14278, "subj03": 15226, "subj04": 13153, "subj05": 13039, "subj06": 17907,
    "subj07": 12682, "subj08": 14386,
}  # fmt: skip
# As the published script draws; noise is the same for all pictures there, and the best is chosen by the true picture
# (selection="oracle").
_DRAWING = {"num_candidates": 8, "num_inference_steps": 20, "guidance_scale": 5.0, "text_to_image_ratio": 0.5}


def convert(checkpoint: Checkpoint, low_level_checkpoint: Checkpoint | None = None, **overrides: Any) -> Conversion:
    """Reads a published checkpoint of one or several subjects.

    The processor pools what was recorded to the width that the model reads. The image generator is Versatile Diffusion
    if it takes what the model decodes.

    Args:
        checkpoint: As of [`MindBridgeModel.from_original`].
        low_level_checkpoint: There is none.
        **overrides: As of [`MindBridgeModel.from_original`].

    Raises:
        FmriModelsError: The file is unreadable, or keys are missing or unknown.
    """
    if low_level_checkpoint is not None:
        raise FmriModelsError("MindBridge has no low-level branch; leave its checkpoint out.")
    model = MindBridgeModel.from_original(checkpoint, **overrides)
    config = model.config
    drawn_from = {
        "image_embedding_space": clip_image_tokens_space(),
        "text_embedding_space": clip_text_tokens_space(),
    }
    fits = all(config.space(name) in (None, space) for name, space in drawn_from.items())
    spaces = {name: space.to_dict() for name, space in drawn_from.items() if config.space(name) is not None}
    generator = {
        "name": "versatile_diffusion",
        "repository": "shi-labs/versatile-diffusion",
        "options": {"published_scheduler": True},
        "spaces": spaces,
    }
    pooling = {"num_voxels": _recorded(config), "processor_options": {"pool_width": max(config.num_voxels)}}
    if not fits:
        return Conversion(model, _EXPECTS, **pooling)
    return Conversion(model, _EXPECTS, generator, _DRAWING, **pooling)


def _recorded(config: MindBridgeConfig) -> dict[str, int]:
    """Voxels of each subject before they are pooled: those of NSD's where the width is the published one."""
    return {
        name: _NUM_VOXELS.get(name, width) if width == _PUBLISHED_WIDTH else width
        for name, width in config.voxels_by_subject.items()
    }
