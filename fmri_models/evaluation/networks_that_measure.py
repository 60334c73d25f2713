"""What a report says of the networks that scored: with which weights, which layer, and which preprocessing."""

from collections.abc import Sequence
from typing import Any

from .extractors import KNOWN_WEIGHTS, UNKNOWN_WEIGHTS, FeatureExtractor, has_known_weights


def described_networks(extractors: Sequence[FeatureExtractor]) -> dict[str, dict[str, str]]:
    """Name to digest, whether the weights are known, and, where it says so itself, file, layer and preprocessing."""
    return {extractor.name: _described(extractor) for extractor in extractors}


def notes_on_networks(extractors: Sequence[FeatureExtractor]) -> list[str]:
    """A sentence about each network that nobody knows to have its published weights."""
    return [
        f"{extractor.name}: {UNKNOWN_WEIGHTS}. The SHA-256 of its weights ({extractor.sha256[:16] or 'none'}) is not "
        "among those that are known here to be the published ones, so that its scores are comparable only with those "
        "of the very same file."
        for extractor in extractors
        if not has_known_weights(extractor)
    ]


def _described(extractor: FeatureExtractor) -> dict[str, str]:
    own: Any = getattr(extractor, "described", dict)
    weights = KNOWN_WEIGHTS if has_known_weights(extractor) else UNKNOWN_WEIGHTS
    return {"sha256": extractor.sha256, "weights": weights, **own()}
