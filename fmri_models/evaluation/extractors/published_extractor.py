"""An extractor of published weights: which files, which network, which layer, which preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

from torch import nn

from ...guides.network_weights import network_from
from .feature_extractor import NamedExtractor
from .network_extractor import NetworkExtractor, NodeReader
from .preprocessing import Preprocessing
from .weights_files import WeightsFile, file_sha256, find_weights


def _same(name: str) -> str:
    return name


@dataclass(frozen=True)
class Layout:
    """A network as one library has it, and how a file names its tensors.

    Args:
        build: Makes the network without weights.
        node: The layer that is read; empty for the output.
        own_name: Name of a tensor in the file to the network's own; None for one of another part of the model.
    """

    build: Callable[[], nn.Module]
    node: str = ""
    own_name: Callable[[str], str | None] = _same


@dataclass(frozen=True)
class PublishedExtractor(NamedExtractor):
    """A network of which weights are published.

    Args:
        layouts: File to its layout; the first file that can be had is taken.
        preprocessing: As in the official evaluation.
        batch_size: Pictures that go through the network at a time.
    """

    layouts: dict[WeightsFile, Layout] = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(224))
    batch_size: int = 8

    def load(self, folder: str | PathLike | None = None) -> NetworkExtractor:
        file, path = find_weights(self.name, tuple(self.layouts), folder)
        layout = self.layouts[file]
        network = network_from(layout.build, path, layout.own_name, self.name)
        return self.of(network, layout, file_sha256(path), path.name)

    def check(self, folder: str | PathLike | None = None) -> None:
        find_weights(self.name, tuple(self.layouts), folder)

    def of(
        self, network: nn.Module, layout: Layout | None = None, sha256: str = "", file: str = ""
    ) -> NetworkExtractor:
        """The extractor of a network that has its weights.

        Args:
            network: In eval mode.
            layout: Its own; the first one if None.
            sha256: Of its weights file.
            file: Name of that.
        """
        layout = next(iter(self.layouts.values())) if layout is None else layout
        read = NodeReader(network, layout.node)
        return NetworkExtractor(
            self.name, read, self.preprocessing, sha256, self.batch_size, file=file, node=layout.node
        )

    def otherwise(self, name: str, **changes: Any) -> "PublishedExtractor":
        """The same with another name, and another preprocessing or layer."""
        return replace(self, name=name, **changes)
