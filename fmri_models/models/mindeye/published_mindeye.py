"""MindEye's published checkpoints as a pipeline needs them: what they were fed with, and what drew their pictures."""

from typing import Any

from ...embedding_space import clip_image_tokens_space, stable_diffusion_latent_space
from ...original_checkpoint import Checkpoint
from ...records import Conversion
from .modeling_mindeye import MindEyeModel

# Appendix of Scotti et al. (2023) and the published loader: single trials for training, the mean of three for a test.
_EXPECTS = (
    "single-trial betas of NSD at 1.8 mm in the region nsdgeneral, z-scored by voxel over the trials of each session; "
    "of a test picture the mean of its repetitions after that"
)


def convert(checkpoint: Checkpoint, low_level_checkpoint: Checkpoint | None = None, **overrides: Any) -> Conversion:
    """Reads published checkpoints; arguments as of [`MindEyeModel.from_original`].

    The image generator is Versatile Diffusion if it takes what the model decodes. It does not take the single token of
    the model that was made for retrieval.

    Raises:
        FmriModelsError: A file is unreadable, or keys are missing or unknown.
    """
    model = MindEyeModel.from_original(checkpoint, low_level_checkpoint=low_level_checkpoint, **overrides)
    drawn_from = {
        "image_embedding_space": clip_image_tokens_space(),
        "latent_space": stable_diffusion_latent_space(),
    }
    decoded = {name: model.config.space(name) for name in drawn_from}
    fits = all(space is None or space == drawn_from[name] for name, space in decoded.items())
    spaces = {name: space.to_dict() for name, space in drawn_from.items()}
    generator = {
        "name": "versatile_diffusion",
        "repository": "shi-labs/versatile-diffusion",
        # UniPC, as published; which version's is not known, see docs/generators/versatile_diffusion.md.
        "options": {"published_scheduler": True},
        "spaces": spaces,
    }
    # Sixteen samples of the prior, as published; the generator's class knows the rest.
    return Conversion(model, _EXPECTS, generator, {"num_candidates": 16}) if fits else Conversion(model, _EXPECTS)
