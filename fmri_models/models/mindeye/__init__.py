"""MindEye: contrastive learning, a diffusion prior and a low-level branch (Scotti et al., 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...records import Method

METHOD = Method.of_folder(
    __name__,
    "MindEye",
    title="MindEye: contrastive backbone, diffusion prior, low-level branch (Scotti et al., 2023)",
    converter=f"{__name__}.published_mindeye:convert",
    quick=("stages.0.training.epochs=20", "stages.1.training.epochs=6", "stages.2.training.epochs=3"),
)
# Its modules are models that can be loaded by themselves.
_MODULES = {
    "MindEyeLowLevelModel": "low_level_mindeye",
    "MindEyeLowLevelOutput": "low_level_mindeye",
    "MindEyePrior": "prior_mindeye",
}

if TYPE_CHECKING:
    from .configuration_mindeye import MindEyeConfig
    from .low_level_mindeye import MindEyeLowLevelModel, MindEyeLowLevelOutput
    from .modeling_mindeye import MindEyeModel, MindEyeOutput
    from .objective_mindeye import MindEyeObjective
    from .pipeline_mindeye import MindEyePipeline
    from .prior_mindeye import MindEyePrior

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
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return METHOD.find(name)
