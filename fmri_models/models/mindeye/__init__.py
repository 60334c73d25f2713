"""MindEye: contrastive learning, a diffusion prior and a low-level branch (Scotti et al., 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...registry import Method

METHOD = Method(
    name="mindeye",
    title="MindEye: contrastive backbone, diffusion prior, low-level branch (Scotti et al., 2023)",
    config=f"{__name__}.configuration_mindeye:MindEyeConfig",
    model=f"{__name__}.modeling_mindeye:MindEyeModel",
    output=f"{__name__}.modeling_mindeye:MindEyeOutput",
    pipeline=f"{__name__}.pipeline_mindeye:MindEyePipeline",
    objective=f"{__name__}.objective_mindeye:MindEyeObjective",
    converter=f"{__name__}.published_mindeye:convert",
)
_PARTS = ("MindEyeLowLevelModel", "MindEyeLowLevelOutput", "MindEyePrior")

if TYPE_CHECKING:
    from .configuration_mindeye import MindEyeConfig
    from .modeling_mindeye import (
        MindEyeLowLevelModel,
        MindEyeLowLevelOutput,
        MindEyeModel,
        MindEyeOutput,
        MindEyePrior,
    )
    from .objective_mindeye import MindEyeObjective
    from .pipeline_mindeye import MindEyePipeline

__all__ = [
    "METHOD",
    "MindEyeConfig",
    "MindEyeLowLevelModel",
    "MindEyeLowLevelOutput",
    "MindEyeModel",
    "MindEyeObjective",
    "MindEyeOutput",
    "MindEyePipeline",
    "MindEyePrior",
]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return getattr(import_module(f"{__name__}.modeling_mindeye"), name)
    return METHOD.find(name)
