"""Published data sets: a script says what its files hold, and one step, the same for all, makes a trial table of it."""

from .dataset import KnownVoxels, PublishedDataset, PublishedSubject, Recording, VoxelGrid, windowed
from .options import SharedOptions, preparation
from .writing import write_dataset

__all__ = [
    "KnownVoxels",
    "PublishedDataset",
    "PublishedSubject",
    "Recording",
    "SharedOptions",
    "VoxelGrid",
    "preparation",
    "windowed",
    "write_dataset",
]
