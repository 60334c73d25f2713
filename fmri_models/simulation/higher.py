"""Ventral, lateral and parietal areas: features of what is shown through a random two-layer network, compressed."""

from collections.abc import Mapping, Sequence

import numpy as np

from . import constants
from .anatomy import Anatomy, smooth_functions
from .features import factor_features, picture_features
from .streams import Stream, stream

_TOPOGRAPHIC_FUNCTIONS = 64


class HigherVision:
    """The higher voxels of one subject.

    With features x of a stimulus, hidden units h = relu(A x + b) that all subjects share, and weights u[v] of a voxel,
    the response is softplus(z)^n where z is u[v] . h, standardized over the subject's stimuli. Part of u varies
    smoothly over cortex and is the same map in all subjects. As in early areas, each voxel has a second set of weights
    to drift to.

    Args:
        anatomy: The subject's voxels.
        rng: Where the voxels' own weights are drawn from.
    """

    def __init__(self, anatomy: Anatomy, rng: np.random.Generator) -> None:
        roi = anatomy.roi[anatomy.num_early :]
        coordinates = anatomy.coordinates[anatomy.num_early :]
        topography = _topographic_weights(coordinates)
        self.num_voxels = len(roi)
        self._columns = {area.name: np.flatnonzero(roi == area.name) for area in constants.HIGHER_AREAS}
        share = constants.TOPOGRAPHIC_SHARE
        self._weights = tuple(
            np.sqrt(share) * topography
            + np.sqrt(1 - share) * rng.standard_normal((constants.HIDDEN_WIDTH, len(roi)), dtype=np.float32)
            for _ in range(2)
        )

    def respond(
        self, pictures: np.ndarray, factors: Sequence[Mapping[str, object] | None] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Responses of all higher voxels with either set of weights.

        Args:
            pictures: (N, 64, 64, 3) uint8; read only if a stimulus has no factors.
            factors: N dicts, or None.

        Returns:
            Two (N, H) float32 arrays, not scaled.
        """
        responses = tuple(np.zeros((len(pictures), self.num_voxels), np.float32) for _ in self._weights)
        known = [entry for entry in factors or [] if entry]
        features = None if len(known) == len(pictures) else picture_features(pictures)
        for index, area in enumerate(constants.HIGHER_AREAS):
            columns = self._columns[area.name]
            hidden = _hidden(factor_features(known, area) if features is None else features, index)
            for weights, response in zip(self._weights, responses, strict=True):
                response[:, columns] = _response(hidden, weights[:, columns])
        return responses[0], responses[1]


def _hidden(features: np.ndarray, area_index: int) -> np.ndarray:
    rng = stream(constants.FEATURE_SEED, Stream.FEATURES, 2, area_index, features.shape[1])
    weights = rng.standard_normal((features.shape[1], constants.HIDDEN_WIDTH), dtype=np.float32)
    bias = rng.standard_normal(constants.HIDDEN_WIDTH, dtype=np.float32)
    return np.maximum(features @ weights + bias, 0)


def _response(hidden: np.ndarray, weights: np.ndarray) -> np.ndarray:
    drive = hidden @ weights
    spread = drive.std(axis=0)
    # Rounding is no variance: equal stimuli would give noise otherwise. It is as large as the summands ask for, however
    # small a sum they make.
    varies = spread > 1e-4 * np.sqrt(np.square(hidden).mean(axis=0) @ np.square(weights))
    standardized = np.where(varies, (drive - drive.mean(axis=0)) / np.where(varies, spread, 1), 0)
    return np.logaddexp(standardized, np.float32(0)) ** np.float32(constants.HIGHER_EXPONENT)


def _topographic_weights(coordinates: np.ndarray) -> np.ndarray:
    """(hidden, V) float32, unit variance, smooth over cortex; the same function of place in every subject."""
    rng = stream(constants.FEATURE_SEED, Stream.TOPOGRAPHY)
    functions = smooth_functions(coordinates, constants.TOPOGRAPHY_MM, _TOPOGRAPHIC_FUNCTIONS, rng)
    return rng.standard_normal((constants.HIDDEN_WIDTH, _TOPOGRAPHIC_FUNCTIONS), dtype=np.float32) @ functions
