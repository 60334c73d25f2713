"""Areas V1 to V4: receptive field x Gabor energy, compressed."""

import numpy as np

from . import constants
from .anatomy import Anatomy
from .constants import EarlyArea
from .energy import HUE_ANGLES, HUE_CHANNELS, NUM_CHANNELS, NUM_GABORS, channels

_PICTURES_AT_ONCE = 512
_VOXELS_AT_ONCE = 512
_NEGLIGIBLE = 1e-7


class EarlyVision:
    """The early voxels of one subject.

    The response of voxel v to a picture is (sum over channels c of w[v,c] x sum over cells p of g[v,p] x E[c,p])^n
    with energies E, receptive field g, tuning w and the area's exponent n. There are two tunings w for each voxel: the
    one it has, and the one into which it drifts.

    Args:
        anatomy: The subject's voxels.
        rng: Where the tunings are drawn from.
    """

    def __init__(self, anatomy: Anatomy, rng: np.random.Generator) -> None:
        self.receptive_fields = receptive_fields(anatomy.centers, anatomy.sizes)
        areas = {area.name: area for area in constants.EARLY_AREAS}
        self._areas = [areas[name] for name in anatomy.roi[: anatomy.num_early]]
        self._exponents = np.array([area.exponent for area in self._areas], np.float32)
        eccentricity = np.hypot(*anatomy.centers.T)
        self.tunings = tuple(_tuning(self._areas, eccentricity, rng) for _ in range(2))

    @property
    def num_voxels(self) -> int:
        return len(self._areas)

    def respond(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Responses of all early voxels with either tuning.

        Args:
            pictures: (N, 64, 64, 3) uint8.

        Returns:
            Two (N, E) float32 arrays, not scaled.
        """
        responses = tuple(np.empty((len(pictures), self.num_voxels), np.float32) for _ in self.tunings)
        for start in range(0, len(pictures), _PICTURES_AT_ONCE):
            rows = slice(start, start + _PICTURES_AT_ONCE)
            energies = channels(pictures[rows])
            flat = energies.reshape(len(energies), -1)
            for first in range(0, self.num_voxels, _VOXELS_AT_ONCE):
                voxels = slice(first, first + _VOXELS_AT_ONCE)
                for tuning, response in zip(self.tunings, responses, strict=True):
                    weights = tuning[voxels, :, None] * self.receptive_fields[voxels, None, :]
                    drive = flat @ weights.reshape(len(weights), -1).T
                    response[rows, voxels] = np.maximum(drive, 0) ** self._exponents[voxels]
        return responses[0], responses[1]


def receptive_fields(centers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Gaussians on the cells of the picture; what lies beyond its edge is missing from the sum.

    Args:
        centers: (V, 2) degrees right and up of the fixation point, the picture's center.
        sizes: (V,) sigma in degrees.

    Returns:
        (V, GRID * GRID) float32, rows of cells from the top; a field well inside the picture sums to 1.
    """
    cell = constants.PICTURE_DEGREES / constants.GRID
    places = (np.arange(constants.GRID) - (constants.GRID - 1) / 2) * cell
    right = np.exp(-((places - centers[:, :1]) ** 2) / (2 * sizes[:, None] ** 2))
    up = np.exp(-((-places - centers[:, 1:]) ** 2) / (2 * sizes[:, None] ** 2))
    fields = up[:, :, None] * right[:, None, :] * (cell**2 / (2 * np.pi * sizes[:, None, None] ** 2))
    # Tails that add nothing would be denormal numbers, on which arithmetic is thirty times slower.
    fields[fields < _NEGLIGIBLE] = 0
    return fields.reshape(len(centers), -1).astype(np.float32)


def _tuning(areas: list[EarlyArea], eccentricity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weights of the channels for each voxel: (V, C) float32, rows sum to 1."""
    colour_share = _colour_shares(areas, rng)[:, None]
    gabors = _orientation_tuning(areas, rng) * _frequency_tuning(areas, eccentricity, rng)
    gabors = gabors.reshape(len(areas), -1) * _jitter((len(areas), NUM_GABORS), rng)
    colours = _jitter((len(areas), NUM_CHANNELS - NUM_GABORS), rng)
    colours[:, HUE_CHANNELS] *= constants.HUE_WEIGHT * _hue_tuning(len(areas), rng)
    gabors *= (1 - colour_share) / gabors.sum(axis=1, keepdims=True)
    colours *= colour_share / colours.sum(axis=1, keepdims=True)
    return np.concatenate([gabors, colours], axis=1).astype(np.float32)


def _colour_shares(areas: list[EarlyArea], rng: np.random.Generator) -> np.ndarray:
    """(V,) share of colour and brightness in each voxel's drive; some voxels are all but blind to them."""
    mean = np.array([area.colour_share for area in areas])
    return rng.beta(mean * constants.COLOUR_CONCENTRATION, (1 - mean) * constants.COLOUR_CONCENTRATION)


def _hue_tuning(num_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """(V, hues): a cosine around the voxel's preferred hue."""
    preferred = rng.uniform(0, 2 * np.pi, (num_voxels, 1))
    return 1 + np.cos(np.array(HUE_ANGLES) - preferred)


def _orientation_tuning(areas: list[EarlyArea], rng: np.random.Generator) -> np.ndarray:
    """(V, 1, orientations)"""
    depth = np.array([area.orientation_depth for area in areas])[:, None] * rng.random((len(areas), 1))
    preferred = rng.uniform(0, np.pi, (len(areas), 1))
    angles = np.arange(constants.ORIENTATIONS) * np.pi / constants.ORIENTATIONS
    return (1 + depth * np.cos(2 * (angles - preferred)))[:, None, :]


def _frequency_tuning(areas: list[EarlyArea], eccentricity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V, frequencies, 1)"""
    scale = np.array([area.frequency_scale for area in areas])
    period = constants.PERIOD_SLOPE * eccentricity + constants.PERIOD_AT_FOVEA
    preferred = np.log2(scale * constants.PICTURE_DEGREES / period)
    preferred += constants.FREQUENCY_JITTER_OCTAVES * rng.standard_normal(len(areas))
    octaves = np.log2(constants.FREQUENCIES) - preferred[:, None]
    # Far outside the channels' range the nearest channel is what is left of the tuning, not nothing.
    octaves -= np.sign(octaves) * np.abs(octaves).min(axis=1, keepdims=True)
    return np.exp(-(octaves**2) / (2 * constants.FREQUENCY_SIGMA_OCTAVES**2))[:, :, None]


def _jitter(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return np.exp(constants.TUNING_JITTER * rng.standard_normal(shape))
