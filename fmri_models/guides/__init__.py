"""Guides: layers of networks that see pictures, decoded from the brain beside or in place of a generator's embeddings.

A guide is named by its network and layer, such as `vgg19.conv1_1`. Its network is found by name ([`FEATURE_NETWORKS`]),
and its weights are a file or folder that a recipe names, or come with the package.
"""

from .feature_network import FeatureNetwork
from .guide_set import GuideSet
from .guide_sources import GuideSource, guide_sources
from .named_networks import FEATURE_NETWORKS, NamedNetwork, named_network

__all__ = [
    "FEATURE_NETWORKS",
    "FeatureNetwork",
    "GuideSet",
    "GuideSource",
    "NamedNetwork",
    "guide_sources",
    "named_network",
]
