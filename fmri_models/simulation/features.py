"""What higher areas read: neither a decoder's target nor an evaluator's features.

For scenes, the factors; for other pictures, convolutions with random weights. Both are the same for every subject and
every seed of the simulator.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from . import constants
from .constants import HigherArea
from .reference import reference_pictures
from .streams import Stream, stream

if TYPE_CHECKING:
    import torch

_PICTURES_AT_ONCE = 512


def factor_features(factors: Sequence[Mapping[str, object]], area: HigherArea) -> np.ndarray:
    """Factors as vectors: a random direction for each value and for each pair of values, weighted as the area cares.

    Args:
        factors: N dicts, such as {"kind": "boat", "colour": "red"}; any keys and values that JSON takes.
        area: Whose gains weigh the factors; a pair has the product of its factors' gains.

    Returns:
        (N, FEATURE_WIDTH) float32.
    """
    features = np.zeros((len(factors), constants.FEATURE_WIDTH), np.float32)
    for row, values in zip(features, factors, strict=True):
        gains = {_word(key, value): area.gains.get(key, 1.0) for key, value in sorted(values.items())}
        for word, gain in gains.items():
            row += gain * _direction(word)
        for first, second in combinations(gains, 2):
            row += constants.INTERACTION_GAIN * gains[first] * gains[second] * _direction(f"{first} & {second}")
    return features


def picture_features(pictures: np.ndarray) -> np.ndarray:
    """Random convolutional features, whitened on the reference pictures.

    Three layers of convolution, rectification and division by the layer's root mean square; each is averaged over the
    quarters of the picture.

    Args:
        pictures: (N, 64, 64, 3) uint8.

    Returns:
        (N, WHITENED_WIDTH) float32, vectors of length 2 or so, as those of factors.
    """
    mean, whitening = _whitening()
    bounded = np.tanh((_convolve(pictures) - mean) @ whitening / 3) * 3
    return (bounded * (2 / np.sqrt(constants.WHITENED_WIDTH))).astype(np.float32)


def _word(key: str, value: object) -> str:
    return f"{key} = {json.dumps(value, sort_keys=True)}"


@cache
def _direction(word: str) -> np.ndarray:
    """A random unit vector that belongs to a word, without any list of words."""
    number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
    direction = stream(constants.FEATURE_SEED, Stream.FEATURES, 0, number).standard_normal(constants.FEATURE_WIDTH)
    return (direction / np.linalg.norm(direction)).astype(np.float32)


@cache
def _whitening() -> tuple[np.ndarray, np.ndarray]:
    features = _convolve(reference_pictures()).astype(np.float64)
    mean = features.mean(axis=0)
    _, singular, directions = np.linalg.svd(features - mean, full_matrices=False)
    kept = directions[: constants.WHITENED_WIDTH]
    # Each direction's sign is the solver's whim.
    kept = kept * np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)])[:, None]
    scale = singular[: constants.WHITENED_WIDTH] / np.sqrt(len(features))
    return mean.astype(np.float32), (kept / scale[:, None]).T.astype(np.float32)


def _convolve(pictures: np.ndarray) -> np.ndarray:
    """(N, sum of 4 x widths) float32, before whitening."""
    import torch

    rows = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _PICTURES_AT_ONCE):
            batch = torch.from_numpy(pictures[start : start + _PICTURES_AT_ONCE].astype(np.float32))
            layer = batch.permute(0, 3, 1, 2) / 127.5 - 1
            pooled = []
            for kernel, bias in _kernels():
                layer = torch.nn.functional.conv2d(layer, kernel, bias, stride=2, padding=kernel.shape[-1] // 2).relu()
                layer = layer / (layer.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-3)
                pooled.append(torch.nn.functional.adaptive_avg_pool2d(layer, 2).flatten(1))
            rows.append(torch.cat(pooled, dim=1).numpy())
    return np.concatenate(rows)


@cache
def _kernels() -> list[tuple["torch.Tensor", "torch.Tensor"]]:
    import torch

    rng = stream(constants.FEATURE_SEED, Stream.FEATURES, 1)
    kernels = []
    channels = 3
    for width, size in zip(constants.CONVOLUTION_WIDTHS, (5, 3, 3), strict=True):
        weights = rng.standard_normal((width, channels, size, size)) / np.sqrt(channels * size**2)
        bias = 0.1 * rng.standard_normal(width)
        kernels.append((torch.from_numpy(weights.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))))
        channels = width
    return kernels
