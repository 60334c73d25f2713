"""The networks themselves, of torchvision, transformers and open_clip, without weights."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ...guides.layers_of_networks import torchvision_models


def alexnet() -> nn.Module:
    """Torchvision's AlexNet (Krizhevsky 2014)."""
    return torchvision_models().alexnet()


def inception_v3() -> nn.Module:
    """Torchvision's Inception-v3, which takes ImageNet's normalisation and makes its own of it, as its weights need."""
    return torchvision_models().inception_v3(aux_logits=True, transform_input=True, init_weights=False)


def efficientnet_b1() -> nn.Module:
    """Torchvision's EfficientNet-B1."""
    return torchvision_models().efficientnet_b1()


def swav_resnet50() -> nn.Module:
    """A ResNet-50 without its classifier, which SwAV does not train."""
    network = torchvision_models().resnet50()
    network.fc = nn.Identity()
    return network


def vit_h14() -> nn.Module:
    """Torchvision's ViT-H/14 at 518 pixels (SWAG, end to end)."""
    return torchvision_models().vit_h_14(image_size=518)


@dataclass(frozen=True)
class VisionTower:
    """Sizes of a CLIP's vision tower, as its published weights have them; those of ViT-L/14 by default."""

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    embed_dim: int = 768


def clip_vision(tower: VisionTower | None = None) -> nn.Module:
    """The vision tower of an OpenAI CLIP with its projection, of transformers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tower = tower or VisionTower()
    config = CLIPVisionConfig(
        hidden_size=tower.width,
        intermediate_size=4 * tower.width,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        patch_size=tower.patch_size,
        image_size=tower.image_size,
        projection_dim=tower.embed_dim,
        hidden_act="quick_gelu",
    )
    return CLIPVisionModelWithProjection(config)


def open_clip_vision(tower: VisionTower | None = None) -> nn.Module:
    """The same tower in open_clip's layout."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    tower = tower or VisionTower()
    return VisionTransformer(
        image_size=tower.image_size,
        patch_size=tower.patch_size,
        width=tower.width,
        layers=tower.layers,
        heads=tower.heads,
        mlp_ratio=4.0,
        output_dim=tower.embed_dim,
        act_layer=QuickGELU,
    )


def fid_inception() -> nn.Module:
    """The Inception of 2015 that FID is defined with: torchvision's, with the poolings that TensorFlow's had.

    Its average poolings leave out the padding, and the last of its blocks takes a maximum in their place; the
    classifier has 1,008 classes (Heusel et al. 2017; torch-fidelity and torchmetrics call it inception-v3-compat).
    """
    inception = importlib.import_module("torchvision.models.inception")
    network = inception.inception_v3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False)
    average: Callable[[Tensor], Tensor] = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    for name, block in list(network.named_children()):
        if isinstance(block, inception.InceptionA | inception.InceptionC | inception.InceptionE):
            pool = nn.MaxPool2d(3, 1, 1) if name == "Mixed_7c" else average
            setattr(network, name, _with_pooling(block, pool))
    # Features of the first block are averages over the picture, too.
    network.maxpool1 = nn.Sequential(network.maxpool1, _BlockMean())
    return network


class _BlockMean(nn.Module):
    """Lets feature maps through; `mean` beside them is what FID with 64 features takes."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)

    def forward(self, maps: Tensor) -> Tensor:
        self.mean(maps)
        return maps


def _with_pooling(block: nn.Module, pool: Callable[[Tensor], Tensor]) -> nn.Module:
    """A block of torchvision's Inception whose branch of pooling pools otherwise."""

    class Pooled(type(block)):  # type: ignore[misc]
        def _forward(self, x: Tensor) -> list[Tensor]:
            *others, _ = super()._forward(x)
            return [*others, self.branch_pool(pool(x))]

    Pooled.__name__ = f"Fid{type(block).__name__}"
    block.__class__ = Pooled
    return block


def not_installed(package: str) -> str:
    """A sentence about a package that is missing."""
    return (
        f'The evaluation network needs the package {package}, which is not installed; pip install "fmri_models[demo]".'
    )
