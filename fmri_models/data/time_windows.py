"""From a time series of volumes to patterns: means over windows, as resting-state recordings are read."""

import numpy as np

from ..errors import FmriModelsError
from ..in_memory import as_numbers


def window_means(series: np.ndarray, frames: int) -> np.ndarray:
    """The mean of each window of a recording without events.

    Windows are as equal as can be: a rest of less than a window makes the first ones a frame longer. MinD-Vis takes 10
    frames of a run of the Human Connectome Project (7.2 s).

    Args:
        series: (time, voxels) values of one run.
        frames: Volumes of a window.

    Returns:
        (time // frames, voxels) of the type of `series`, at least float32.

    Raises:
        FmriModelsError: The series is none, or shorter than a window.
    """
    values = as_numbers(series, "A time series")
    if values.ndim != 2:
        raise FmriModelsError(f"A time series has the shape {values.shape}; expected (time, voxels).")
    if not 1 <= frames <= len(values):
        raise FmriModelsError(f"A window has {frames} frames; expected 1 to {len(values)}, those of the series.")
    values = values.astype(np.result_type(values, np.float32), copy=False)
    return np.stack([window.mean(axis=0) for window in np.array_split(values, len(values) // frames)])
