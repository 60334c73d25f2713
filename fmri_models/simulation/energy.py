"""What early vision measures at each place of a picture: Gabor energy, colour contrast, colour and brightness."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft
from PIL import Image

from . import constants
from .reference import reference_pictures

# The picture lies in a grey field of half its width more, so that its left edge does not touch its right one in the
# circular convolution.
_FIELD = 96
_MARGIN = 14
_CELLS = _FIELD * constants.GRID // constants.EYE_SIZE
_WORKERS = 2
_BATCH = 32

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_RED_GREEN = np.array([1.0, -1.0, 0.0], np.float32)
_BLUE_YELLOW = np.array([-0.5, -0.5, 1.0], np.float32)

NUM_GABORS = len(constants.FREQUENCIES) * constants.ORIENTATIONS
NUM_CHANNELS = NUM_GABORS + 2 * len(constants.CHROMATIC_FREQUENCIES) + 6

# Among the channels that follow the Gabor energies: redder, greener, bluer and yellower than grey, and where these lie
# on the circle of hues.
HUE_CHANNELS = slice(2 * len(constants.CHROMATIC_FREQUENCIES), 2 * len(constants.CHROMATIC_FREQUENCIES) + 4)
HUE_ANGLES = (0.0, np.pi, 1.5 * np.pi, 0.5 * np.pi)


def eye_picture(pixels: np.ndarray) -> np.ndarray:
    """A picture as the simulated eye gets it: whole, on grey where it isn't square.

    Args:
        pixels: (H, W, 1) or (H, W, 3) uint8.

    Returns:
        (64, 64, 3) uint8.
    """
    height, width = pixels.shape[:2]
    colour = np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))
    size = constants.EYE_SIZE
    if (height, width) == (size, size):
        return colour
    scale = size / max(height, width)
    fitted = Image.fromarray(colour).resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC
    )
    eye = Image.new("RGB", (size, size), (128, 128, 128))
    eye.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.array(eye)


def channels(pictures: np.ndarray) -> np.ndarray:
    """Local responses, each channel divided by its mean over the reference pictures.

    Args:
        pictures: (N, 64, 64, 3) uint8.

    Returns:
        (N, C, GRID * GRID) float32, never negative: 32 Gabor energies (frequency, then orientation), 4 energies of
        red-green and blue-yellow contrast, and the squares of what is redder, greener, bluer, yellower, brighter and
        darker than grey.
    """
    return raw_channels(pictures) / _reference_means()[:, None]


def raw_channels(pictures: np.ndarray) -> np.ndarray:
    """As `channels`, without the division."""
    energies = np.empty((len(pictures), NUM_CHANNELS, constants.GRID**2), np.float32)
    for start in range(0, len(pictures), _BATCH):
        _fill(energies[start : start + _BATCH], pictures[start : start + _BATCH])
    return energies


@cache
def _reference_means() -> np.ndarray:
    return raw_channels(reference_pictures()).mean(axis=(0, 2))


def _fill(energies: np.ndarray, pictures: np.ndarray) -> None:
    values = pictures.astype(np.float32) / 255
    luminance = _spectrum(values @ _LUMINANCE - 0.5)
    opponents = [_spectrum(values @ weights) for weights in (_RED_GREEN, _BLUE_YELLOW)]
    filters = [(luminance, gabor) for gabor in _gabors()]
    filters += [(spectrum, ring) for spectrum in opponents for ring in _rings()]
    for index, (spectrum, band) in enumerate(filters):
        energies[:, index] = _energy(spectrum, band)
    for index, spectrum in enumerate((*opponents, luminance)):
        surface = _cells(_filtered(spectrum, _blur()).real)
        first = len(filters) + 2 * index
        energies[:, first] = np.maximum(surface, 0) ** 2
        energies[:, first + 1] = np.maximum(-surface, 0) ** 2


def _spectrum(planes: np.ndarray) -> np.ndarray:
    field = np.zeros((len(planes), _FIELD, _FIELD), np.float32)
    end = _MARGIN + constants.EYE_SIZE
    field[:, _MARGIN:end, _MARGIN:end] = planes
    return scipy.fft.fft2(field, workers=_WORKERS)


@dataclass(frozen=True)
class _Band:
    """A filter on a square window of the frequency plane.

    The window is moved to frequency zero before the inverse transform: that turns the phase of the result, not its
    modulus, and needs no more samples than the filter is wide.
    """

    rows: np.ndarray
    columns: np.ndarray
    gain: np.ndarray


@cache
def _gabors() -> tuple[_Band, ...]:
    """Quadrature pairs, each as one filter: a Gaussian on one side of the frequency plane, peak gain 2."""
    bands = []
    for frequency in constants.FREQUENCIES:
        sigma = constants.RELATIVE_BANDWIDTH * frequency
        for orientation in range(constants.ORIENTATIONS):
            angle = np.pi * orientation / constants.ORIENTATIONS
            across, down = frequency * np.cos(angle), frequency * np.sin(angle)
            bands.append(_band(across, down, sigma, peak=2))
    return tuple(bands)


@cache
def _rings() -> tuple[_Band, ...]:
    """Band-pass filters without orientation: double-opponent cells."""
    return tuple(
        _band(0, 0, constants.RELATIVE_BANDWIDTH * frequency, radius=frequency)
        for frequency in constants.CHROMATIC_FREQUENCIES
    )


@cache
def _blur() -> _Band:
    """A low-pass filter that leaves what a cell of the grid can show."""
    return _band(0, 0, constants.GRID / 5, keep_mean=True)


def _band(
    across: float,
    down: float,
    sigma: float,
    radius: float = 0,
    peak: float = 1,
    keep_mean: bool = False,
) -> _Band:
    """A Gaussian of the distance from a point, or from a circle around it; all in cycles a picture."""
    bins = _FIELD / constants.EYE_SIZE
    width = _CELLS if 6 * sigma * bins <= _CELLS or (not across and not down) else 2 * _CELLS
    offsets = np.fft.fftfreq(width, 1 / width).astype(int)
    rows, columns = round(down * bins) + offsets, round(across * bins) + offsets
    distance = np.hypot(columns[None, :] / bins - across, rows[:, None] / bins - down) - radius
    gain = peak * np.exp(-(distance**2) / (2 * sigma**2))
    if not keep_mean:
        gain[(rows[:, None] == 0) & (columns[None, :] == 0)] = 0
    # The inverse transform on the window divides by the window's size, not by the field's.
    return _Band(rows[:, None], columns, (gain * (width / _FIELD) ** 2).astype(np.float32))


def _filtered(spectrum: np.ndarray, band: _Band) -> np.ndarray:
    return scipy.fft.ifft2(spectrum[:, band.rows, band.columns] * band.gain, workers=_WORKERS, overwrite_x=True)


def _energy(spectrum: np.ndarray, band: _Band) -> np.ndarray:
    """Squared modulus of the filtered picture, mean over the samples in each cell: (N, GRID * GRID)."""
    filtered = _filtered(spectrum, band)
    energy = filtered.real**2 + filtered.imag**2
    samples = len(band.columns) // _CELLS
    if samples > 1:
        energy = energy.reshape(-1, _CELLS, samples, _CELLS, samples).mean(axis=(2, 4))
    return _cells(energy)


def _cells(field: np.ndarray) -> np.ndarray:
    """The cells of the grid that the picture covers."""
    start = (_CELLS - constants.GRID) // 2
    return field[:, start : start + constants.GRID, start : start + constants.GRID].reshape(len(field), -1)
