"""LPIPS' network as an entry of the table of extractors: AlexNet's published file, and the layers' small one."""

from dataclasses import dataclass, field
from os import PathLike

from ..perceptual import LpipsAlexNet, linear_file
from .feature_extractor import NamedExtractor
from .weights_files import WeightsFile, find_weights


@dataclass(frozen=True)
class PublishedLpips(NamedExtractor):
    """[`LpipsAlexNet`] with the weights of two files.

    Args:
        backbone: AlexNet's.
    """

    backbone: WeightsFile = field(kw_only=True)

    def load(self, folder: str | PathLike | None = None) -> LpipsAlexNet:
        return LpipsAlexNet.from_files(find_weights(self.name, (self.backbone,), folder)[1], linear_file(folder))

    def check(self, folder: str | PathLike | None = None) -> None:
        linear_file(folder)
        find_weights(self.name, (self.backbone,), folder)
