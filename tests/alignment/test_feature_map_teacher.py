"""The teacher of feature maps: what it computes, saving, and the published layout."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import ConvNextModel

from fmri_models.alignment.feature_map_teacher import FeatureMapTeacher, FeatureMapTeacherConfig
from fmri_models.errors import FmriModelsError


def tiny_config(**options: object) -> FeatureMapTeacherConfig:
    sizes = {"depths": [1, 2, 1, 1], "hidden_sizes": [4, 6, 8, 10], "projector_sizes": [7, 7, 5], "image_size": 64}
    return FeatureMapTeacherConfig(**{**sizes, **options})


def tiny_teacher(**options: object) -> FeatureMapTeacher:
    torch.manual_seed(0)
    teacher = FeatureMapTeacher(tiny_config(**options)).eval()
    # Fresh norms are the identity, and fresh weights so small that nothing but norms would count.
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_(std=0.5)
    return teacher


def original_layout(teacher: FeatureMapTeacher) -> dict[str, torch.Tensor]:
    """The weights under VICRegL's names, as its distributed training saved them."""
    convnext = teacher.convnext
    named: dict[str, torch.nn.Module] = {
        "backbone.downsample_layers.0.0": convnext.embeddings.patch_embeddings,
        "backbone.downsample_layers.0.1": convnext.embeddings.layernorm,
        "backbone.norm": convnext.layernorm,
        "maps_projector": teacher.maps_projector,
    }
    blocks = {"dwconv": "dwconv", "layernorm": "norm", "pwconv1": "pwconv1", "pwconv2": "pwconv2"}
    for number, stage in enumerate(convnext.encoder.stages):
        for place, layer in enumerate(stage.downsampling_layer):
            named[f"backbone.downsample_layers.{number}.{place}"] = layer
        for place, layer in enumerate(stage.layers):
            named |= {f"backbone.stages.{number}.{place}.{new}": getattr(layer, old) for old, new in blocks.items()}
    state = {f"{name}.{key}": value for name, part in named.items() for key, value in part.state_dict().items()}
    for number, stage in enumerate(convnext.encoder.stages):
        for place, layer in enumerate(stage.layers):
            if layer.layer_scale_parameter is not None:
                state[f"backbone.stages.{number}.{place}.gamma"] = layer.layer_scale_parameter.detach()
    state["projector.0.weight"] = torch.zeros(3, 10)
    return {f"module.{key}": value for key, value in state.items()}


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_maps_are_normed_at_each_position_and_projected(pictures):
    teacher = tiny_teacher()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.228, 0.224, 0.225])
    network = ConvNextModel(teacher.config).eval()
    network.load_state_dict(teacher.convnext.state_dict())
    hidden = network((pictures - mean[:, None, None]) / std[:, None, None]).last_hidden_state
    assert hidden.shape == (2, 10, 2, 2)
    corner = F.layer_norm(hidden[:, :, 0, 1], (10,), network.layernorm.weight, network.layernorm.bias, eps=1e-6)
    with torch.no_grad():
        maps = teacher(pictures)
        assert maps.shape == (2, 4, 5)
        torch.testing.assert_close(maps[:, 1], teacher.maps_projector(corner))


def test_the_defaults_are_the_published_sizes():
    with torch.device("meta"):
        teacher = FeatureMapTeacher(FeatureMapTeacherConfig())
        maps = teacher(torch.empty(1, 3, 512, 512))
    assert maps.shape == (1, 256, 512)
    assert [type(layer).__name__ for layer in teacher.maps_projector] == [
        "Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU", "Linear",
    ]  # fmt: skip


def test_pictures_of_other_sizes_and_grey_ones_are_fitted(pictures):
    teacher = tiny_teacher()
    with torch.no_grad():
        assert teacher(pictures[:, :, :50, :40]).shape == (2, 4, 5)
        grey = pictures[:, :1]
        assert torch.equal(teacher(grey), teacher(grey.repeat(1, 3, 1, 1)))


def test_a_saved_teacher_is_the_same(pictures, tmp_path: Path):
    teacher = tiny_teacher()
    teacher.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(FeatureMapTeacher.from_pretrained(tmp_path).eval()(pictures), teacher(pictures))


@pytest.mark.parametrize("layer_scale", [0.0, 0.5])
def test_the_published_layout_is_read(pictures, tmp_path: Path, layer_scale: float):
    teacher = tiny_teacher(layer_scale_init_value=layer_scale)
    torch.save({"epoch": 1, "model": original_layout(teacher)}, tmp_path / "full.pth")
    read = FeatureMapTeacher.from_original(tmp_path / "full.pth")
    assert (read.config.depths, read.config.projector_sizes) == ([1, 2, 1, 1], [7, 7, 5])
    read.config.image_size = 64
    with torch.no_grad():
        assert torch.equal(read(pictures), teacher(pictures))


def test_a_checkpoint_without_a_part_is_a_sentence():
    state = original_layout(tiny_teacher())
    with pytest.raises(FmriModelsError, match="no ConvNeXt with a maps projector"):
        FeatureMapTeacher.from_original({key: value for key, value in state.items() if "maps_projector" not in key})
    state.pop("module.backbone.stages.1.1.pwconv2.bias")
    with pytest.raises(FmriModelsError, match=r"lacks convnext.encoder.stages.1.layers.1.pwconv2.bias"):
        FeatureMapTeacher.from_original(state)
