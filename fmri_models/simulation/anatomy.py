"""Where the voxels of a subject are: areas, receptive fields, positions in millimetres."""

from dataclasses import dataclass

import numpy as np

from . import constants
from .constants import EarlyArea, HigherArea
from .streams import Stream, stream


@dataclass(frozen=True)
class Anatomy:
    """The voxels of one subject, early areas first.

    Args:
        roi: (V,) str, name of the area.
        coordinates: (V, 3) float32, millimetres: left to right, back to front, down to up.
        centers: (E, 2) float32, receptive field centers of the E early voxels in degrees: right, up.
        sizes: (E,) float32, sigma of the receptive fields in degrees.
    """

    roi: np.ndarray
    coordinates: np.ndarray
    centers: np.ndarray
    sizes: np.ndarray

    @property
    def num_voxels(self) -> int:
        return len(self.roi)

    @property
    def num_early(self) -> int:
        return len(self.sizes)


def voxel_count(num_voxels: int, subject: int) -> int:
    """Number of voxels of a subject (an index); depends on nothing but the subjects before it.

    The first has exactly `num_voxels`; the others spread evenly within `VOXEL_COUNT_SPREAD`, no two alike.
    """
    counts: list[int] = []
    for index in range(subject + 1):
        # Multiples of the golden ratio fill an interval evenly however many there are.
        offset = 2 * (index * 0.618_033_988_75 % 1) - 1 if index else 0.0
        count = max(1, round(num_voxels * (1 + constants.VOXEL_COUNT_SPREAD * offset)))
        while count in counts:
            count += 1
        counts.append(count)
    return counts[-1]


def build_anatomy(num_voxels: int, early_share: float, seed: int, subject: int) -> Anatomy:
    """Draws the voxels of a subject.

    Args:
        num_voxels: V.
        early_share: Share of the voxels that lie in V1 to V4.
        seed: The simulator's seed.
        subject: Index of the subject.
    """
    rng = stream(seed, Stream.ANATOMY, subject)
    areas: list[EarlyArea | HigherArea] = [*constants.EARLY_AREAS, *constants.HIGHER_AREAS]
    shares = [early_share * area.share for area in constants.EARLY_AREAS]
    shares += [(1 - early_share) * area.share for area in constants.HIGHER_AREAS]
    counts = _apportion(num_voxels, shares)
    roi, coordinates, centers, sizes = [], [], [], []
    for index, (area, count) in enumerate(zip(areas, counts, strict=True)):
        roi.append(np.full(count, area.name))
        if isinstance(area, EarlyArea):
            center = _receptive_field_centers(count, rng)
            centers.append(center)
            sizes.append(_receptive_field_sizes(area, center, rng))
            coordinates.append(_retinotopic_positions(index, center, rng))
        else:
            coordinates.append(_cluster_positions(area, count, rng))
    return Anatomy(
        np.concatenate(roi),
        np.concatenate(coordinates).astype(np.float32),
        np.concatenate(centers).astype(np.float32),
        np.concatenate(sizes).astype(np.float32),
    )


def _apportion(total: int, shares: list[float]) -> list[int]:
    """Whole numbers with the given sum, as near to the shares as can be."""
    edges = np.rint(np.cumsum([0.0, *shares]) / sum(shares) * total).astype(int)
    return np.diff(edges).tolist()


def _receptive_field_centers(count: int, rng: np.random.Generator) -> np.ndarray:
    """Centers with the density that cortical magnification gives voxels of equal size: (count, 2) degrees."""
    limit, half = constants.CENTER_LIMIT_DEGREES, constants.MAGNIFICATION_HALF_DEGREES
    eccentricities = np.linspace(0, limit * np.sqrt(2), 2_000)
    density = eccentricities / (eccentricities + half) ** 2
    cumulative = np.cumsum(density) / density.sum()
    centers = np.empty((0, 2))
    while len(centers) < count:
        eccentricity = np.interp(rng.random(count), cumulative, eccentricities)
        angle = rng.uniform(-np.pi, np.pi, count)
        drawn = eccentricity[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        centers = np.concatenate([centers, drawn[(np.abs(drawn) <= limit).all(axis=1)]])
    return centers[:count]


def _receptive_field_sizes(area: EarlyArea, centers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mean = area.size_at_fovea + area.size_slope * np.hypot(*centers.T)
    return mean * np.exp(constants.SIZE_JITTER * rng.standard_normal(len(centers)))


def _retinotopic_positions(area_index: int, centers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Neighbors in the visual field are neighbors on cortex; what is on the right is seen by the left hemisphere."""
    right, up = centers.T
    eccentricity = np.hypot(right, up)
    along = constants.MAGNIFICATION_MM * np.log1p(eccentricity / constants.MAGNIFICATION_HALF_DEGREES)
    across = 10.0 * np.arctan2(up, np.abs(right))
    side = np.where(right >= 0, -1.0, 1.0)
    positions = np.stack([side * (8.0 + 8.0 * area_index), along - 100.0, across], axis=1)
    return positions + constants.POSITION_JITTER_MM * rng.standard_normal(positions.shape)


def _cluster_positions(area: HigherArea, count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions in a ball on either side of the brain."""
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = constants.HIGHER_RADIUS_MM * np.cbrt(rng.random((count, 1)))
    side = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    return np.array(area.center) * np.stack([side, np.ones(count), np.ones(count)], axis=1) + radius * direction


def smooth_functions(
    coordinates: np.ndarray, length: float, num_functions: int, rng: np.random.Generator
) -> np.ndarray:
    """Random functions that vary smoothly over cortex (random Fourier features, Rahimi and Recht 2007).

    Their random sums have the correlation exp(-d^2 / (2 length^2)) between voxels at distance d and unit variance.

    Args:
        coordinates: (V, 3) millimetres.
        length: Millimetres.
        num_functions: K.
        rng: Where frequencies and phases are drawn from.

    Returns:
        (K, V) float32, each column of norm 1.
    """
    frequencies = rng.standard_normal((num_functions, 3)) / length
    phases = rng.uniform(0, 2 * np.pi, (num_functions, 1))
    values = np.cos(frequencies @ coordinates.T.astype(np.float64) + phases)
    return (values / np.linalg.norm(values, axis=0)).astype(np.float32)
