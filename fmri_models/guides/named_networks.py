"""The networks whose layers are guides, by name: what they are built of, and where their weights lie."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import FmriModelsError
from ..names import did_you_mean, one_line
from .blip import BlipVision, read_blip
from .feature_network import FeatureNetwork, Normalisation
from .folder_config import CONFIG_NAME, in_one_sentence, read_config, settings_of
from .layers_of_networks import torchvision_models
from .network_weights import network_from, network_of_sizes
from .scene_vgg import SceneVgg

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Of blue, green and red over ImageNet, of pixels from 0 to 255.
_CAFFE_MEAN = (104.0, 117.0, 123.0)
_CONVOLUTIONS_OF_VGG19 = (2, 2, 4, 4, 4)
_CLIP_FOLDER = Path(__file__).parent.parent / "assets" / "embedded" / "image_encoder"
_FILE = "model.safetensors"
_BLOCKS_OF_MINDDIFFUSER = 6
# 226 tokens, as Takagi & Nishimoto have them.
_SIDE_OF_BLIP = 240


@dataclass(frozen=True)
class NamedNetwork:
    """An entry of the table of networks.

    Args:
        name: As in recipes.
        description: One line.
        default_layers: Layers that are decoded where a recipe names none.
        build: Reads the weights, at a place or of the package.
        needs: Which file or folder a recipe has to name, and where it is published; None for a network of the package.
        is_folder: Whether that is a folder with `config.json` and `model.safetensors`.
    """

    name: str
    description: str
    default_layers: tuple[str, ...]
    build: Callable[[Path | None], FeatureNetwork]
    needs: str | None = None
    is_folder: bool = False

    def load(self, weights: str | None) -> FeatureNetwork:
        """The network with its weights.

        Raises:
            FmriModelsError: They are missing, damaged or of another network.
        """
        self.check_weights(weights)
        if weights is None or not self.is_folder:
            return self.build(None if weights is None else Path(weights))
        with in_one_sentence(Path(weights), str(self.needs).rpartition(" of ")[2]):
            found = self.build(Path(weights))
            # A configuration that can be built may still be none that pictures go through.
            found.spaces(self.default_layers)
            return found

    def check_weights(self, weights: str | None) -> None:
        """Refuses weights that are not there, before any work.

        Raises:
            FmriModelsError: Says what is needed.
        """
        if self.needs is None:
            if weights is not None:
                raise FmriModelsError(
                    f"The network {self.name} comes with the package, and guides has the weights "
                    f"{one_line(weights, 80)} for it; leave weights out."
                )
            return
        if weights is None:
            raise FmriModelsError(
                f"The network {self.name} needs its weights, {self.needs}; fetch them and give their place "
                "(guides: weights in a recipe, --guide-weights in a command)."
            )
        place = Path(weights)
        missing = [place] if not self.is_folder else [place / CONFIG_NAME, place / _FILE]
        for path in missing:
            if not path.is_file():
                raise FmriModelsError(
                    f"There is no file {one_line(path)} with weights of {self.name}; expected {self.needs}."
                )


# ----------------------------------------------------------------------------------------------- how pictures are given


@dataclass(frozen=True)
class _Prepared:
    """Resized, cropped, standardised.

    Args:
        size: Height and width, or with `shorter_side` the shorter side; (crop, size) resizes, crops and resizes again.
        mean: Of the three channels.
        std: Of the three channels.
        scale: Pixels are multiplied by it before.
        bgr: Whether channels are exchanged before.
        shorter_side: Keeps the proportions, without crop.
        crop_first: Side of a centre crop, of pictures whose shorter side is resized to it, before `size`.
        align_corners: Of the last resizing, which is not antialiased then.
    """

    size: int
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD
    scale: float = 1.0
    bgr: bool = False
    shorter_side: bool = False
    crop_first: int | None = None
    align_corners: bool = False

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.crop_first is not None:
            pixels = _cropped(_shorter_side(pixels, self.crop_first), self.crop_first)
        if self.align_corners:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", align_corners=True)
        elif self.shorter_side:
            pixels = _shorter_side(pixels, self.size)
        elif pixels.shape[2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)
        pixels = pixels.flip(1) if self.bgr else pixels
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels * self.scale - mean) / std

    @property
    def description(self) -> str:
        """The text for `EmbeddingSpace.preprocessing`."""
        size = f"shorter side {self.size}" if self.shorter_side else f"{self.size}x{self.size}"
        told = [f"{size} bicubic{' align_corners' if self.align_corners else ' antialias'}"]
        if self.crop_first is not None:
            told.insert(0, f"{self.crop_first} centre crop")
        channels = "BGR" if self.bgr else "RGB"
        numbers = [",".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        return ", ".join([*told, f"{channels} times {self.scale:g}, mean {numbers[0]} std {numbers[1]}"])


def _shorter_side(pixels: torch.Tensor, side: int) -> torch.Tensor:
    height, width = pixels.shape[2:]
    if min(height, width) == side:
        return pixels
    scale = side / min(height, width)
    shape = [side if each == min(height, width) else round(each * scale) for each in (height, width)]
    return F.interpolate(pixels, shape, mode="bicubic", antialias=True)


def _cropped(pixels: torch.Tensor, side: int) -> torch.Tensor:
    top, left = ((each - side) // 2 for each in pixels.shape[2:])
    return pixels[:, :, top : top + side, left : left + side]


def _network(
    name: str,
    encoder: str,
    network: nn.Module,
    nodes: Mapping[str, str],
    prepared: _Prepared,
    normalisation: Normalisation = "none",
    settings: Mapping[str, Any] | None = None,
) -> FeatureNetwork:
    return FeatureNetwork(name, encoder, network, nodes, prepared, prepared.description, normalisation, settings or {})


# --------------------------------------------------------------------------------------------------------- the networks


def _nodes_of_vgg19() -> dict[str, str]:
    """Layer ▶ module of torchvision's network, before its ReLU."""
    nodes, position = {}, 0
    for block, count in enumerate(_CONVOLUTIONS_OF_VGG19, start=1):
        for number in range(1, count + 1):
            nodes[f"conv{block}_{number}"] = f"features.{position}"
            position += 2
        position += 1
    return nodes | {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}


_VGG19_NODES = _nodes_of_vgg19()


def _of_vgg19(key: str) -> str:
    """Torchvision's name of a tensor, of that or of Caffe's (`conv1_1.weight`), with or without a prefix."""
    layer, _, kind = key.removeprefix("features.").removeprefix("classifier.").rpartition(".")
    return f"{_VGG19_NODES[layer]}.{kind}" if layer in _VGG19_NODES else key


def _vgg19(name: str, prepared: _Prepared) -> Callable[[Path | None], FeatureNetwork]:
    def build(weights: Path | None) -> FeatureNetwork:
        assert weights is not None
        network = network_from(lambda: torchvision_models().vgg19(init_weights=False), weights, _of_vgg19, name)
        return _network(name, name, network, _VGG19_NODES, prepared)

    return build


# CNN1 to CNN8 of Horikawa & Kamitani (2017) are the layers of a network of this shape.
_ALEXNET_NODES = {
    **{f"conv{number}": f"features.{place}" for number, place in enumerate((0, 3, 6, 8, 10), start=1)},
    **{f"fc{number}": f"classifier.{place}" for number, place in enumerate((1, 4, 6), start=6)},
}


def _alexnet(weights: Path | None) -> FeatureNetwork:
    assert weights is not None
    network = network_from(lambda: torchvision_models().alexnet(), weights, lambda key: key, "alexnet")
    return _network("alexnet", "alexnet", network, _ALEXNET_NODES, _Prepared(224))


_RESNET_NODES = {**{f"layer{number}": f"layer{number}" for number in range(1, 5)}, "avgpool": "avgpool"}


def _of_resnet50(key: str) -> str | None:
    """The network's own tensors, of torchvision's file or SwAV's, which has layers that were trained on top of it."""
    own = key.removeprefix("module.")
    return None if own.startswith(("fc.", "projection_head.", "prototypes.")) else own


def _resnet50(name: str, prepared: _Prepared, normalisation: Normalisation) -> Callable[[Path | None], FeatureNetwork]:
    def without_classifier() -> nn.Module:
        network: Any = torchvision_models().resnet50()
        network.fc = nn.Identity()
        return network

    def build(weights: Path | None) -> FeatureNetwork:
        assert weights is not None
        network = network_from(without_classifier, weights, _of_resnet50, name)
        return _network(name, name, network, _RESNET_NODES, prepared, normalisation)

    return build


class _ImageEmbeds(nn.Module):
    """A CLIP's vision tower whose last module is the projection."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.tower(pixel_values=pixels)


def _clip(name: str, encoder: str, folder: Path, prepared: _Prepared | None = None) -> FeatureNetwork:
    """Blocks of a CLIP's vision tower (the output of the second linear layer of their MLP) and its embedding."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    values = read_config(folder, "CLIP's configuration")
    vision = {**values.get("vision_config", values)}
    vision.setdefault("projection_dim", 512)
    if "projection_dim" in values:
        vision["projection_dim"] = values["projection_dim"]
    config = CLIPVisionConfig(**vision)

    def own_name(key: str) -> str | None:
        is_vision = key.startswith(("vision_model.", "visual_projection."))
        return f"tower.{key}" if is_vision and not key.endswith(".position_ids") else None

    network = network_of_sizes(
        lambda: _ImageEmbeds(CLIPVisionModelWithProjection(config)), folder / _FILE, own_name, name
    )
    nodes = {
        f"block{number + 1}": f"tower.vision_model.encoder.layers.{number}.mlp.fc2"
        for number in range(config.num_hidden_layers)
    }
    nodes["image_embeds"] = "tower.visual_projection"
    prepared = prepared or _Prepared(config.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    # What comes with the package can't be exchanged, and had its digest before settings were part of any.
    settings = {} if folder == _CLIP_FOLDER else settings_of(config)
    return _network(name, encoder, network, nodes, prepared, settings=settings)


def _clip_b32(weights: Path | None) -> FeatureNetwork:
    assert weights is not None
    prepared = _Prepared(224, _CLIP_MEAN, _CLIP_STD, crop_first=224)
    return _clip("clip_b32", "openai/clip-vit-base-patch32", weights, prepared)


def _embedded_clip(weights: Path | None) -> FeatureNetwork:
    return _clip("embedded_clip", "embedded/image_encoder/vision", _CLIP_FOLDER)


def _depth(weights: Path | None) -> FeatureNetwork:
    """Hidden states of a DPT (Ranftl et al., 2021) that its neck and head make a depth map of."""
    from transformers import DPTConfig, DPTForDepthEstimation

    assert weights is not None
    config = DPTConfig(**read_config(weights, "DPT's configuration"))
    if config.is_hybrid or config.backbone_config is not None:
        raise FmriModelsError(
            f"{one_line(weights)} holds a DPT with a backbone of its own, whose hidden states are feature maps; take "
            "Intel/dpt-large."
        )

    def own_name(key: str) -> str:
        return key

    network = network_of_sizes(lambda: DPTForDepthEstimation(config), weights / _FILE, own_name, "dpt")
    nodes = {
        f"hidden{number}": f"dpt.encoder.layer.{position}"
        for number, position in enumerate(config.backbone_out_indices, start=1)
    }
    prepared = _Prepared(config.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return _network("dpt", "Intel/dpt-large", network, nodes, prepared, settings=settings_of(config))


def _blip(weights: Path | None) -> FeatureNetwork:
    assert weights is not None
    tower = read_blip(weights).vision_model
    vision = BlipVision(tower).eval()
    prepared = _Prepared(_SIDE_OF_BLIP, _CLIP_MEAN, _CLIP_STD)
    return _network(
        "blip",
        "Salesforce/blip-image-captioning-base",
        vision,
        {"tokens": "tokens"},
        prepared,
        settings=settings_of(tower.config),
    )


def _scene_vgg(weights: Path | None) -> FeatureNetwork:
    network = SceneVgg.load_default()
    layers = [name for name, _ in network.named_children() if name.startswith(("conv", "fc"))]
    prepared = _Prepared(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return _network("scene_vgg", "scene_vgg", network, {name: name for name in layers}, prepared)


_TABLE = (
    NamedNetwork(
        "vgg19",
        "VGG19 with Caffe's weights, layers before their ReLU",
        tuple(_VGG19_NODES),
        _vgg19("vgg19", _Prepared(224, _CAFFE_MEAN, (1.0, 1.0, 1.0), scale=255.0, bgr=True)),
        "a file of VGG19 as Caffe trained it (VGG_ILSVRC_19_layers, converted to PyTorch as for KamitaniLab/bdpy)",
    ),
    NamedNetwork(
        "vgg19_torchvision",
        "VGG19 with torchvision's weights, layers before their ReLU",
        tuple(_VGG19_NODES),
        _vgg19("vgg19_torchvision", _Prepared(224)),
        "torchvision's file vgg19-dcbb9e9d.pth",
    ),
    NamedNetwork(
        "alexnet",
        "AlexNet of torchvision, layers before their ReLU",
        tuple(_ALEXNET_NODES),
        _alexnet,
        "torchvision's file alexnet-owt-7be5be79.pth",
    ),
    NamedNetwork(
        "resnet50",
        "ResNet-50 of torchvision, its average pool",
        ("avgpool",),
        _resnet50("resnet50", _Prepared(224, shorter_side=True), "none"),
        "torchvision's file resnet50-0676ba61.pth",
    ),
    NamedNetwork(
        "swav",
        "ResNet-50 of SwAV, its average pool at unit length",
        ("avgpool",),
        _resnet50("swav", _Prepared(224, crop_first=256, align_corners=True), "l2"),
        "the file swav_800ep_pretrain.pth.tar of facebookresearch/swav",
    ),
    NamedNetwork(
        "clip_b32",
        "CLIP ViT-B/32, the MLPs of its first six blocks and its embedding",
        (*(f"block{number}" for number in range(1, _BLOCKS_OF_MINDDIFFUSER + 1)), "image_embeds"),
        _clip_b32,
        "a folder with config.json and model.safetensors of openai/clip-vit-base-patch32",
        is_folder=True,
    ),
    NamedNetwork(
        "dpt",
        "DPT-large, the four hidden states that its depth map is made of",
        tuple(f"hidden{number}" for number in range(1, 5)),
        _depth,
        "a folder with config.json and model.safetensors of Intel/dpt-large",
        is_folder=True,
    ),
    NamedNetwork(
        "blip",
        "BLIP's tokens of a picture, of which its text decoder makes a caption",
        ("tokens",),
        _blip,
        "a folder with config.json, model.safetensors and vocab.txt of Salesforce/blip-image-captioning-base",
        is_folder=True,
    ),
    NamedNetwork(
        "embedded_clip",
        "The CLIP of the embedded generator, the MLPs of its blocks and its embedding",
        ("block1", "block2", "image_embeds"),
        _embedded_clip,
    ),
    NamedNetwork(
        "scene_vgg",
        "A small VGG that names the factors of scenes, layers before their ReLU",
        ("conv2_2", "conv3_2", "fc4", "fc5"),
        _scene_vgg,
    ),
)
FEATURE_NETWORKS: dict[str, NamedNetwork] = {each.name: each for each in _TABLE}


def named_network(name: str) -> NamedNetwork:
    """The network of that name.

    Raises:
        FmriModelsError: There is none.
    """
    if name not in FEATURE_NETWORKS:
        raise FmriModelsError(
            f"There is no network {one_line(repr(name), 80)} for guides; there are {', '.join(FEATURE_NETWORKS)}."
            f"{did_you_mean(str(name), FEATURE_NETWORKS)}"
        )
    return FEATURE_NETWORKS[name]
