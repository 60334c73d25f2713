"""An extractor made of any network: what it sees, which of its layers is read, and how many pictures at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...errors import FmriModelsError
from ...guides.layers_of_networks import outputs_of, tensor_of
from .preprocessing import Preprocessing

_DIGITS_OF_SHA256 = 64


class NodeReader:
    """Runs a network up to one of its modules and gives what that puts out.

    Nothing behind the module is computed, and nothing that it has put out is changed by what follows in place.

    Args:
        network: Of torchvision, timm, transformers, or any other.
        node: Name of the module, such as `"features.4"`; empty for the output of the network itself.

    Raises:
        FmriModelsError: The network has no such module.
    """

    def __init__(self, network: nn.Module, node: str = "") -> None:
        self.network, self.node = network, node
        modules = dict(network.named_modules())
        if node not in modules:
            raise FmriModelsError(
                f"{type(network).__name__} has no layer {node!r}; it has {', '.join(name for name in modules if name)}."
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """What the module puts out, of preprocessed pictures."""
        if not self.node:
            return tensor_of(self.network(pixels), self.network, self.node)
        return outputs_of(self.network, {self.node: self.node}, pixels)[self.node]


class NetworkExtractor:
    """Features of pictures, from a network of any library.

    A network of your own is handed to [`score_rows`] or [`evaluate_images`] as `extractors={"mine": …}`.

    Args:
        name: As in metric names.
        read: Preprocessed pictures (n, 3, h, w) to features (n, …), such as a [`NodeReader`] or an [`OnnxReader`].
        preprocessing: What is done to pictures before.
        sha256: Of the weights file; features of true pictures are kept on disk by it, and not where it is none.
        batch_size: Pictures that go through the network at a time, which bounds its memory.
        file: Name of the weights file.
        node: Name of the layer, for the report.
        device: Where the network computes.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        sha256: str = "",
        batch_size: int = 8,
        file: str = "",
        node: str = "",
        device: str | torch.device = "cpu",
    ) -> None:
        self.name, self.sha256, self.batch_size = name, sha256, batch_size
        self.read, self.preprocess, self.device = read, preprocessing, torch.device(device)
        self.file, self.node = file, node

    def __call__(self, images: Tensor) -> Tensor:
        """(N, F) float32 of pictures (N, 3 or 1, H, W) in [0, 1]; (0, 0) of none."""
        if not len(images):
            return torch.zeros(0, 0)
        with torch.inference_mode():
            batches = images.split(self.batch_size)
            features = torch.cat([self.read(self._input(batch)).flatten(1).float().cpu() for batch in batches])
        # Outside of inference mode nobody could compute gradients of what comes from it.
        return features.clone()

    def described(self) -> dict[str, str]:
        """What a report says of it, beside the digest."""
        return {"file": self.file, "layer": self.node or "output", "preprocessing": self.preprocess.description}

    @property
    def cache_key(self) -> dict[str, str] | None:
        """What features depend on beside the pictures; None where that is not known."""
        if len(self.sha256) != _DIGITS_OF_SHA256:
            return None
        return {"extractor": self.name, "sha256": self.sha256, **self.described()}

    def _input(self, batch: Tensor) -> Tensor:
        return self.preprocess(batch.to(self.device))
