"""Networks that turn pictures into the features that metrics compare."""

from .efficientnet_lite0 import EfficientNetLite0, pair_state_dicts
from .feature_extractor import KNOWN_WEIGHTS, UNKNOWN_WEIGHTS, FeatureExtractor, NamedExtractor
from .named_extractors import (
    EXTRACTORS,
    check_extractor,
    check_weights,
    extractor_of_all,
    has_known_weights,
    load_extractor,
)
from .network_extractor import NetworkExtractor, NodeReader
from .onnx_networks import InstalledOnnx, OnnxReader
from .preprocessing import Preprocessing
from .published_extractor import Layout, PublishedExtractor
from .weights_files import MissingWeightsError, WeightsFile

__all__ = [
    "EXTRACTORS",
    "KNOWN_WEIGHTS",
    "UNKNOWN_WEIGHTS",
    "EfficientNetLite0",
    "FeatureExtractor",
    "InstalledOnnx",
    "Layout",
    "MissingWeightsError",
    "NamedExtractor",
    "NetworkExtractor",
    "NodeReader",
    "OnnxReader",
    "Preprocessing",
    "PublishedExtractor",
    "WeightsFile",
    "check_extractor",
    "check_weights",
    "extractor_of_all",
    "has_known_weights",
    "load_extractor",
    "pair_state_dicts",
]
