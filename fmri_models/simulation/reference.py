"""Pictures that set the scale of the simulated brain's channels, whatever it is shown later.

They are dead leaves: discs of random colour and place, with sizes that make contours and power spectra like those of
natural scenes (Lee, Mumford and Huang 2001). Nothing of a user's pictures enters, so that a voxel's tuning does not
depend on what else is in the table.
"""

from functools import cache

import numpy as np

from . import constants
from .streams import Stream, stream

_NUM_PICTURES = 256
_NUM_LEAVES = 80


@cache
def reference_pictures() -> np.ndarray:
    """(256, 64, 64, 3) uint8, always the same; read-only."""
    rng = stream(constants.FEATURE_SEED, Stream.REFERENCE)
    size = constants.EYE_SIZE
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    pictures = np.empty((_NUM_PICTURES, size, size, 3), np.uint8)
    for picture in pictures:
        # Radii with density r^-3 between 3 and 32 pixels.
        radii = 1 / np.sqrt(rng.uniform(1 / 32**2, 1 / 3**2, _NUM_LEAVES))
        centers = rng.uniform(0, size, (_NUM_LEAVES, 2))
        colours = rng.integers(0, 256, (_NUM_LEAVES, 3))
        picture[:] = rng.integers(0, 256, 3)
        for radius, (row, column), colour in zip(radii, centers, colours, strict=True):
            picture[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = colour
    pictures.flags.writeable = False
    return pictures
