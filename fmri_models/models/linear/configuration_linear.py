"""Configuration of the linear method."""

from typing import Any

from huggingface_hub.dataclasses import strict

from ...configuration_fmri import FmriConfig


@strict
class LinearConfig(FmriConfig):
    """Configuration of a [`LinearModel`].

    Args:
        targets_a_block: Targets whose weights are kept in one tensor; bounds the memory of fitting and saving.
        restores_variance: Whether predictions were scaled to spread as the targets do.
        penalties: Subject ▶ target group ▶ the penalty that was chosen; None before fitting.

    Example:
        >>> from fmri_models import LinearConfig, LinearModel
        >>> space = {"encoder": "pixels", "layer": "latent", "shape": [1, 28, 28]}
        >>> model = LinearModel(LinearConfig(subject_names=["subj01"], num_voxels=[3092], latent_space=space))
    """

    model_type = "fmri-linear"

    targets_a_block: int = 4096
    restores_variance: bool = False
    penalties: dict[str, Any] | None = None
