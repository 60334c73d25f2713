"""fmri_models: a model zoo that turns voxels into images with `from_pretrained`, whichever paper a model comes from.

Public names are imported on first use, so that `import fmri_models` and `fmri-models --help` stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .library_registration import register_with_libraries as _register_with_libraries
from .log import follow_transformers as _follow_transformers
from .version import __version__

_follow_transformers()
_register_with_libraries()

_CORE = {
    "ClipTargets": "generation.clip_targets",
    "ClosedFormObjective": "objectives",
    "Conditions": "conditions",
    "DatasetRecord": "records",
    "DoubleConditionedImageGenerator": "generation.double_conditioned",
    "DrawingSettings": "drawing_settings",
    "EmbeddedImageGenerator": "generation.embedded",
    "EmbeddingSpace": "embedding_space",
    "FmriConfig": "configuration_fmri",
    "FmriDecoding": "modeling_outputs",
    "FmriModelOutput": "modeling_outputs",
    "FmriModelsError": "errors",
    "FmriPipelineOutput": "pipeline_fmri",
    "FmriPreTrainedModel": "modeling_fmri",
    "FmriProcessor": "processing_fmri",
    "FmriToImagePipeline": "pipeline_fmri",
    "GeneratorRecord": "records",
    "GradientObjective": "objectives",
    "IPAdapter": "generation.ip_adapter_network",
    "IPAdapterImageGenerator": "generation.ip_adapter",
    "ImageGenerator": "generation.image_generator",
    "ImageGeneratorOutput": "generation.image_generator",
    "KandinskyImageGenerator": "generation.kandinsky",
    "Method": "records",
    "MindEyeLowLevelModel": "models.mindeye",
    "MindEyeLowLevelOutput": "models.mindeye",
    "MindEyePrior": "models.mindeye",
    "MindVisEncoder": "models.mindvis",
    "MindVisEncoderOutput": "models.mindvis",
    "MindVisForPreTraining": "models.mindvis",
    "MindVisPreTrainingOutput": "models.mindvis",
    "OpenClipModel": "generation.open_clip_model",
    "Paper": "records",
    "PixelsImageGenerator": "generation.pixels",
    "PretrainedRecord": "records",
    "StableDiffusionImageGenerator": "generation.stable_diffusion",
    "StableUnCLIPImageGenerator": "generation.stable_unclip",
    "Stimuli": "data",
    "ThumbnailImageGenerator": "generation.thumbnail",
    "TrialTable": "data",
    "TrialTableWriter": "data",
    "Trials": "data",
    "VersatileDiffusionImageGenerator": "generation.versatile_diffusion",
    "Voxels": "data",
    "list_datasets": "registry",
    "list_generators": "registry",
    "list_methods": "registry",
    "list_pretrained": "registry",
    "list_recipes": "training.recipe_files",
    "load_example": "examples",
    "register_generator": "registry",
    "register_method": "registry",
    "show": "notebook",
}

# diffusers looks up these base classes as attributes of the package whose components it loads
# (pipeline_loading_utils.LOADABLE_CLASSES).
_LOADER_BASES = {
    "DiffusionPipeline": "diffusers",
    "FeatureExtractionMixin": "transformers",
    "ModelMixin": "diffusers",
    "PreTrainedModel": "transformers",
}

if TYPE_CHECKING:
    from .conditions import Conditions
    from .configuration_fmri import FmriConfig
    from .data import Stimuli, Trials, TrialTable, TrialTableWriter, Voxels
    from .drawing_settings import DrawingSettings
    from .embedding_space import EmbeddingSpace
    from .errors import FmriModelsError
    from .examples import load_example
    from .generation.clip_targets import ClipTargets
    from .generation.double_conditioned import DoubleConditionedImageGenerator
    from .generation.embedded import EmbeddedImageGenerator
    from .generation.image_generator import ImageGenerator, ImageGeneratorOutput
    from .generation.ip_adapter import IPAdapterImageGenerator
    from .generation.ip_adapter_network import IPAdapter
    from .generation.kandinsky import KandinskyImageGenerator
    from .generation.open_clip_model import OpenClipModel
    from .generation.pixels import PixelsImageGenerator
    from .generation.stable_diffusion import StableDiffusionImageGenerator
    from .generation.stable_unclip import StableUnCLIPImageGenerator
    from .generation.thumbnail import ThumbnailImageGenerator
    from .generation.versatile_diffusion import VersatileDiffusionImageGenerator
    from .modeling_fmri import FmriPreTrainedModel
    from .modeling_outputs import FmriDecoding, FmriModelOutput
    from .models.linear import LinearConfig, LinearModel, LinearOutput, LinearPipeline
    from .models.mindbridge import MindBridgeConfig, MindBridgeModel, MindBridgeOutput, MindBridgePipeline
    from .models.mindeye import (
        MindEyeConfig,
        MindEyeLowLevelModel,
        MindEyeLowLevelOutput,
        MindEyeModel,
        MindEyeOutput,
        MindEyePipeline,
        MindEyePrior,
    )
    from .models.mindvis import (
        MindVisConfig,
        MindVisEncoder,
        MindVisEncoderOutput,
        MindVisForPreTraining,
        MindVisModel,
        MindVisOutput,
        MindVisPipeline,
        MindVisPreTrainingOutput,
    )
    from .notebook import show
    from .objectives import ClosedFormObjective, GradientObjective
    from .pipeline_fmri import FmriPipelineOutput, FmriToImagePipeline
    from .processing_fmri import FmriProcessor
    from .records import DatasetRecord, GeneratorRecord, Method, Paper, PretrainedRecord
    from .registry import (
        list_datasets,
        list_generators,
        list_methods,
        list_pretrained,
        register_generator,
        register_method,
    )
    from .training.recipe_files import list_recipes


def __getattr__(name: str) -> Any:
    if name in _CORE:
        value = getattr(import_module(f".{_CORE[name]}", __name__), name)
    elif name in _LOADER_BASES:
        value = getattr(import_module(_LOADER_BASES[name]), name)
    # Of modules Python asks here, too; classes of other packages are looked for only where one may be meant.
    elif not name[:1].isupper():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        value = import_module(".known_classes", __name__).find_class(name)
        if value is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *import_module(".known_classes", __name__).class_names()})


__all__ = [
    "ClipTargets",
    "ClosedFormObjective",
    "Conditions",
    "DatasetRecord",
    "DoubleConditionedImageGenerator",
    "DrawingSettings",
    "EmbeddedImageGenerator",
    "EmbeddingSpace",
    "FmriConfig",
    "FmriDecoding",
    "FmriModelOutput",
    "FmriModelsError",
    "FmriPipelineOutput",
    "FmriPreTrainedModel",
    "FmriProcessor",
    "FmriToImagePipeline",
    "GeneratorRecord",
    "GradientObjective",
    "IPAdapter",
    "IPAdapterImageGenerator",
    "ImageGenerator",
    "ImageGeneratorOutput",
    "KandinskyImageGenerator",
    "LinearConfig",
    "LinearModel",
    "LinearOutput",
    "LinearPipeline",
    "Method",
    "MindBridgeConfig",
    "MindBridgeModel",
    "MindBridgeOutput",
    "MindBridgePipeline",
    "MindEyeConfig",
    "MindEyeLowLevelModel",
    "MindEyeLowLevelOutput",
    "MindEyeModel",
    "MindEyeOutput",
    "MindEyePipeline",
    "MindEyePrior",
    "MindVisConfig",
    "MindVisEncoder",
    "MindVisEncoderOutput",
    "MindVisForPreTraining",
    "MindVisModel",
    "MindVisOutput",
    "MindVisPipeline",
    "MindVisPreTrainingOutput",
    "OpenClipModel",
    "Paper",
    "PixelsImageGenerator",
    "PretrainedRecord",
    "StableDiffusionImageGenerator",
    "StableUnCLIPImageGenerator",
    "Stimuli",
    "ThumbnailImageGenerator",
    "TrialTable",
    "TrialTableWriter",
    "Trials",
    "VersatileDiffusionImageGenerator",
    "Voxels",
    "__version__",
    "list_datasets",
    "list_generators",
    "list_methods",
    "list_pretrained",
    "list_recipes",
    "load_example",
    "register_generator",
    "register_method",
    "show",
]
