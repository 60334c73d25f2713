"""LPIPS: how far apart two pictures are for a network whose layers were weighted by people's judgements."""

import hashlib
import importlib.util
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FmriModelsError
from ..names import one_line
from ..original_checkpoint import check_finite, read_state
from .metrics import Reduction, checked_pictures, reduce

BACKBONE_FILE = "alexnet-owt-7be5be79.pth"
"""AlexNet's ImageNet weights, under the name that torchvision publishes them by."""
LINEAR_FILE = "alex.pth"
"""The weights of LPIPS' layers (version 0.1), under their name in the package `lpips`."""
_LINEAR_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"

SMALLEST_PICTURE = 32

# What the authors subtract from pictures in [-1, 1], and divide by: ImageNet's means and deviations on that scale.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
# Position in AlexNet's `features` of each convolution that is compared after its ReLU: channels in and out, size,
# stride, padding, and whether pooling comes before it.
_CONVOLUTIONS = {
    0: (3, 64, 11, 4, 2, False),
    3: (64, 192, 5, 1, 2, True),
    6: (192, 384, 3, 1, 1, True),
    8: (384, 256, 3, 1, 1, False),
    10: (256, 256, 3, 1, 1, False),
}
_PICTURES_AT_ONCE = 16


class LpipsAlexNet:
    """The network of LPIPS (Zhang et al. 2018, version 0.1) with AlexNet, as a feature extractor.

    Two pictures' LPIPS is the squared distance of their features: at each of five layers activations of unit length
    along channels, weighted by the square roots of the layer's weights over its number of places. Pictures keep their
    size; the distance depends on it.

    Args:
        backbone: State dict of torchvision's AlexNet; its classifier is not looked at.
        linear: State dict of the layers' weights, `lin0.model.1.weight` to `lin4.model.1.weight`.
        sha256: Of AlexNet's file; of both if the layers' is not the published one.

    Raises:
        FmriModelsError: A tensor is missing or has another shape, or a layer's weight is below 0.
    """

    name = "lpips_alexnet"

    def __init__(self, backbone: Mapping[str, Tensor], linear: Mapping[str, Tensor], sha256: str = "unknown") -> None:
        self.sha256 = sha256
        self.layers, self.roots = nn.ModuleList(), []
        for place, (position, convolution) in enumerate(_CONVOLUTIONS.items()):
            inside, outside, size, stride, padding, _ = convolution
            layer = nn.Conv2d(inside, outside, size, stride, padding)
            weights = {
                name: _tensor(backbone, f"features.{position}.{name}", tuple(value.shape), "AlexNet")
                for name, value in layer.state_dict().items()
            }
            layer.load_state_dict(weights)
            self.layers.append(layer)
            check_finite(weights, "weights of AlexNet")
            weight = _tensor(linear, f"lin{place}.model.1.weight", (1, outside, 1, 1), "LPIPS")
            check_finite({f"lin{place}": weight}, "weights of LPIPS")
            if not (weight >= 0).all():
                raise FmriModelsError(f"The weights lin{place} of LPIPS are not all from 0; give those of version 0.1.")
            self.roots.append(weight.float().sqrt())
        self.layers.eval().requires_grad_(False)

    @classmethod
    def from_folder(cls, folder: str | PathLike) -> "LpipsAlexNet":
        """Reads `alexnet-owt-7be5be79.pth` (torchvision's) and `alex.pth` (LPIPS' own, 6 kB).

        Without the latter in the folder, that of the installed package `lpips` is taken.

        Raises:
            FmriModelsError: A file is missing, or is no file of these tensors.
        """
        backbone = Path(folder) / BACKBONE_FILE
        if not backbone.is_file():
            raise FmriModelsError(
                f"LPIPS needs the file {one_line(backbone)}, which is not there; take it from "
                f"https://download.pytorch.org/models/{BACKBONE_FILE}, or leave LPIPS out."
            )
        return cls.from_files(backbone, linear_file(folder))

    @classmethod
    def from_files(cls, backbone: Path, linear: Path) -> "LpipsAlexNet":
        """Reads AlexNet's file and that of LPIPS' layers; the arguments of `from_folder` say which.

        Raises:
            FmriModelsError: One is no file of these tensors.
        """
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (backbone, linear)]
        # AlexNet's file says with what was measured, as long as the layers are those that everybody has.
        digest = digests[0] if digests[1] == _LINEAR_SHA256 else hashlib.sha256("".join(digests).encode()).hexdigest()
        return cls(_tensors(backbone), _tensors(linear), digest)

    def __call__(self, images: Tensor) -> Tensor:
        """Features whose squared distances are LPIPS.

        Args:
            images: (N, 3, H, W) or (N, 1, H, W) float in [0, 1]; one channel is repeated.

        Returns:
            (N, F) float32.

        Raises:
            FmriModelsError: Pictures are smaller than 32x32.
        """
        if min(images.shape[-2:]) < SMALLEST_PICTURE:
            raise FmriModelsError(
                f"LPIPS needs pictures of at least {SMALLEST_PICTURE}x{SMALLEST_PICTURE} pixels, but they are "
                f"{images.shape[-2]}x{images.shape[-1]}; resize them, or leave LPIPS out."
            )
        return torch.cat([self._features(batch) for batch in images.split(_PICTURES_AT_ONCE)])

    @torch.inference_mode()
    def _features(self, images: Tensor) -> Tensor:
        images = images.float().expand(-1, 3, -1, -1)
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        values = (2 * images - 1 - shift) / scale
        features = []
        for layer, root, (*_, pooled) in zip(self.layers, self.roots, _CONVOLUTIONS.values(), strict=True):
            if pooled:
                values = nn.functional.max_pool2d(values, 3, 2)
            values = layer(values).relu()
            unit = values / (values.square().sum(1, keepdim=True).sqrt() + 1e-10)
            places = values.shape[-2] * values.shape[-1]
            features.append((unit * root / places**0.5).flatten(1))
        return torch.cat(features, 1)


def lpips(truth: Tensor, recon: Tensor, network: LpipsAlexNet, reduction: Reduction = "mean") -> Any:
    """Learned perceptual distance of each picture and its reconstruction (lower is better), at the pictures' size.

    Args:
        truth: (N, C, H, W) float in [0, 1].
        recon: The same shape.
        network: With weights that were handed in or read from a folder; the value says nothing without them.
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (N,) float64.

    Raises:
        FmriModelsError: Shapes differ, values are NaN or outside [0, 1], or pictures are smaller than 32x32.
    """
    truth, recon = checked_pictures(truth, recon)
    scores = []
    for one, other in zip(truth.split(_PICTURES_AT_ONCE), recon.split(_PICTURES_AT_ONCE), strict=True):
        scores.append((network(one).double() - network(other).double()).square().sum(1))
    return reduce(torch.cat(scores), reduction)


def linear_file(folder: str | PathLike | None) -> Path:
    """The weights of LPIPS' layers: in a folder, or in the installed package `lpips`.

    Raises:
        FmriModelsError: They are in neither.
    """
    for path in (None if folder is None else Path(folder) / LINEAR_FILE, _of_package()):
        if path is not None and path.is_file():
            return path
    where = "" if folder is None else f" that is not in {one_line(folder)}"
    raise FmriModelsError(
        f'LPIPS needs the file {LINEAR_FILE}{where}, or the package lpips (pip install "fmri_models[lpips]"); leave '
        "LPIPS out, or get one of them."
    )


def _tensor(source: Mapping[str, Tensor], name: str, shape: tuple[int, ...], what: str) -> Tensor:
    found = source.get(name)
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        there = "missing" if found is None else f"of the shape {tuple(getattr(found, 'shape', ()))}"
        raise FmriModelsError(f"The tensor {name} of {what}'s weights is {there}; expected the shape {shape}.")
    return found


def _tensors(file: Path) -> Mapping[str, Tensor]:
    try:
        return read_state(file)
    except FmriModelsError as error:
        raise FmriModelsError(f"{one_line(file)} holds no weights: {one_line(error)}") from error


def _of_package() -> Path | None:
    """The layers' weights in the package `lpips`, which is not imported for them."""
    found = importlib.util.find_spec("lpips")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "weights" / "v0.1" / LINEAR_FILE
