"""What a network that judges pictures has to be, and how it is found by name.

None of these networks had a part in training the decoders that they judge.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from os import PathLike
from typing import Protocol

from torch import Tensor

KNOWN_WEIGHTS = "known"
UNKNOWN_WEIGHTS = "unknown weights"


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


@dataclass(frozen=True)
class NamedExtractor(ABC):
    """An entry of the table of extractors: what its weights are, and how it is loaded.

    Args:
        name: As in metric names.
        known_sha256: SHA-256 of weights files that are known to be the published ones, or how they begin: torchvision's
            file names state the first eight digits, which is what PyTorch itself checks downloads by.
        networks: Other names of the same network, such as its repository on the Hub. An image generator that embeds
            pictures with one of them may not choose the candidates that this extractor scores.
        has_many_features: Whether those of all training pictures may be more than memory holds.
    """

    name: str
    known_sha256: tuple[str, ...]
    networks: tuple[str, ...] = ()
    has_many_features: bool = False

    @abstractmethod
    def load(self, folder: str | PathLike | None = None) -> FeatureExtractor:
        """The extractor with its published weights.

        Args:
            folder: Where its weights may lie; None looks in the usual places alone.

        Raises:
            FmriModelsError: The weights can't be had, are damaged or of another network, or a package is missing.
        """

    @abstractmethod
    def check(self, folder: str | PathLike | None = None) -> None:
        """Refuses weights that can't be had, before any work; reads none of them. The arguments are those of `load`."""

    def knows(self, sha256: str) -> bool:
        """Whether a weights file of this digest is known to be a published one."""
        return any(sha256.startswith(known) for known in self.known_sha256)
