"""A picture network whose feature maps a low-level branch learns from: VICRegL's ConvNeXt with its maps projector."""

import os
import re
from dataclasses import field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn import functional as F
from transformers import ConvNextConfig, ConvNextModel, PreTrainedModel

from ..errors import FmriModelsError
from ..hub_repository import fetch_folder, fetch_options, weights_patterns
from ..library_options import take_dtype
from ..names import one_line
from ..original_checkpoint import Checkpoint, State, check_finite, listed_keys, read_state
from ..weights import check_model_folder

# ImageNet's statistics as MindEye's training wrote them, with a first deviation that is usually .229.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.228, 0.224, 0.225)

_BLOCK = re.compile(r"backbone\.stages\.(\d+)\.(\d+)\.")


@strict
class FeatureMapTeacherConfig(ConvNextConfig):
    """Configuration of a [`FeatureMapTeacher`]; the defaults are the sizes of VICRegL's ConvNeXt-XL.

    Args:
        projector_sizes: Widths of the maps projector, the last one that of the feature maps.

    All else is transformers' `ConvNextConfig`; `image_size` is the side that pictures are resized to.
    """

    model_type = "fmri-feature-map-teacher"

    hidden_sizes: list[int] | tuple[int, ...] | None = (256, 512, 1024, 2048)
    depths: list[int] | tuple[int, ...] | None = (3, 3, 27, 3)
    layer_norm_eps: float = 1e-6
    layer_scale_init_value: float | int = 0.0
    image_size: int | list[int] | tuple[int, int] = 512
    projector_sizes: list[int] = field(default_factory=lambda: [512, 512, 512])


class FeatureMapTeacher(PreTrainedModel):
    """ConvNeXt, its final norm at each position, and a projector of the maps (Bardes et al., 2022).

    It is never trained here. MindEye's low-level branch is compared with it, see
    [`soft_contrastive_loss`]; a picture of 512 pixels has 16 x 16 positions.
    """

    config: FeatureMapTeacherConfig
    config_class = FeatureMapTeacherConfig
    base_model_prefix = "teacher"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: FeatureMapTeacherConfig) -> None:
        super().__init__(config)
        assert config.hidden_sizes is not None
        self.convnext = ConvNextModel(config)
        self.maps_projector = _projector([config.hidden_sizes[-1], *config.projector_sizes])
        self.post_init()

    @classmethod
    def from_original(cls, checkpoint: Checkpoint) -> "FeatureMapTeacher":
        """Reads a full checkpoint of VICRegL with a ConvNeXt, which has the maps projector beside the network.

        Args:
            checkpoint: Path of the file, such as `convnext_xlarge_alpha0.75_fullckpt.pth`, or what it holds. Sizes are
                inferred; what belongs to VICRegL's own training is left out.

        Raises:
            FmriModelsError: The file can't be read, or lacks a part.
        """
        original = read_state(checkpoint)
        state = {_own_name(key): value for key, value in original.items() if _is_used(key)}
        if not any(key.startswith("maps_projector.") for key in state) or "convnext.layernorm.weight" not in state:
            raise FmriModelsError(
                f"The checkpoint has no ConvNeXt with a maps projector (its keys: {listed_keys(sorted(original))}); "
                "give a full checkpoint of VICRegL, not the network alone."
            )
        check_finite(state)
        teacher = cls(_inferred_config(original))
        missing, unexpected = teacher.load_state_dict(state, strict=False)
        if missing or unexpected:
            raise FmriModelsError(
                f"The checkpoint lacks {listed_keys(missing) or 'nothing'} and has "
                f"{listed_keys(unexpected) or 'nothing'} too many; give a full checkpoint of VICRegL with a ConvNeXt."
            )
        return teacher.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Loads a saved teacher, if it is whole.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            *model_args: Those of `PreTrainedModel.from_pretrained`.
            **kwargs: Likewise.

        Raises:
            FmriModelsError: There is none, or a weight is missing, unexpected, of another shape or type, or not finite.
        """
        name = os.fspath(pretrained_model_name_or_path)
        take_dtype(kwargs, f"{cls.__name__}.from_pretrained")
        subfolder = kwargs.get("subfolder") or ""
        folder = Path(name)
        if not folder.is_dir():
            prefix = f"{subfolder}/" if subfolder else ""
            patterns = [f"{prefix}config.json", *weights_patterns(prefix, kwargs.get("variant"))]
            folder = fetch_folder(name, patterns, **fetch_options(kwargs))
        what = f"The teacher in {one_line(name)}"
        check_model_folder(cls, folder / subfolder, what, kwargs.get("config"), kwargs.get("variant"))
        return super().from_pretrained(str(folder), *model_args, **{**kwargs, "use_safetensors": True})

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Feature maps.

        Args:
            pixel_values: (B, 1 or 3, H, W) float in [0, 1], of any size.

        Returns:
            (B, h·w, F) float, position by position, row after row.
        """
        pixel_values = pixel_values.expand(-1, 3, -1, -1)
        side = self.config.image_size
        size = (side, side) if isinstance(side, int) else (side[0], side[1])
        if tuple(pixel_values.shape[-2:]) != size:
            pixel_values = F.interpolate(pixel_values, size, mode="bilinear", antialias=True)
        mean, std = pixel_values.new_tensor(_MEAN), pixel_values.new_tensor(_STD)
        maps = self.convnext((pixel_values - mean[:, None, None]) / std[:, None, None]).last_hidden_state
        # transformers norms the mean over positions alone.
        return self.maps_projector(self.convnext.layernorm(maps.flatten(2).transpose(1, 2)))


def _projector(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias=False))


def _is_used(key: str) -> bool:
    return key.startswith(("backbone.", "maps_projector."))


def _own_name(key: str) -> str:
    """A key of VICRegL in the names of transformers."""
    if not key.startswith("backbone."):
        return key
    key = key.replace("backbone.downsample_layers.0.0.", "convnext.embeddings.patch_embeddings.")
    key = key.replace("backbone.downsample_layers.0.1.", "convnext.embeddings.layernorm.")
    key = re.sub(r"backbone\.downsample_layers\.(\d+)\.", r"convnext.encoder.stages.\1.downsampling_layer.", key)
    key = re.sub(_BLOCK.pattern + "norm", r"convnext.encoder.stages.\1.layers.\2.layernorm", key)
    key = re.sub(_BLOCK.pattern + "gamma", r"convnext.encoder.stages.\1.layers.\2.layer_scale_parameter", key)
    key = re.sub(_BLOCK.pattern, r"convnext.encoder.stages.\1.layers.\2.", key)
    return key.replace("backbone.norm.", "convnext.layernorm.")


def _inferred_config(original: State) -> FeatureMapTeacherConfig:
    blocks = sorted({(int(stage), int(block)) for stage, block in _BLOCK.findall("\n".join(original))})
    stages = sorted({stage for stage, _ in blocks})
    projector: dict[str, Any] = {
        key: value for key, value in original.items() if key.startswith("maps_projector.") and value.ndim == 2
    }
    places = sorted(projector, key=lambda key: int(key.split(".")[1]))
    return FeatureMapTeacherConfig(
        num_stages=len(stages),
        depths=[sum(stage == each for each, _ in blocks) for stage in stages],
        hidden_sizes=[len(original[f"backbone.stages.{stage}.0.dwconv.weight"]) for stage in stages],
        layer_scale_init_value=1.0 if "backbone.stages.0.0.gamma" in original else 0.0,
        projector_sizes=[len(projector[key]) for key in places],
    )


def load_teacher(source: str) -> FeatureMapTeacher:
    """The network that a recipe names as `teacher`.

    Args:
        source: Folder or Hub repository of a saved [`FeatureMapTeacher`].

    Raises:
        FmriModelsError: There is none.
    """
    try:
        return FeatureMapTeacher.from_pretrained(source).eval()
    except (OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise FmriModelsError(
            f"The teacher {source} can't be read as a FeatureMapTeacher ({first}); give the folder into which "
            "FeatureMapTeacher.from_original(CHECKPOINT) was saved."
        ) from error
