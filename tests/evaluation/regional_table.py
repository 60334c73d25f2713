"""A small trial table whose regions hold what a test says of the pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fmri_models.data import TrialTableWriter

SIZE = 12
PARTS = {"train": 80, "test": 30}


class Region(NamedTuple):
    """Voxels of one label.

    Attributes:
        name: Label; empty for none.
        voxels: How many.
        dimensions: Of how many of the pictures' 16 patches the voxels hold something; 0 for noise alone.
    """

    name: str
    voxels: int
    dimensions: int


def write_regional_table(
    folder: Path, subjects: dict[str, Sequence[Region]], noise: float = 0.3, parts: dict[str, int] | None = None
) -> Path:
    """Pictures of 4 x 4 grey patches, each shown once; voxels are linear in some patches, with noise."""
    parts = parts or PARTS
    rng = np.random.default_rng(5)
    count = sum(parts.values())
    patches = rng.uniform(0, 1, (count, 16))
    pictures = (255 * patches.reshape(count, 4, 4)).repeat(3, axis=1).repeat(3, axis=2).astype(np.uint8)
    ids = [f"picture{index:03d}" for index in range(count)]
    with TrialTableWriter(
        folder, name="regional", simulated=True, description="For tests.", license="CC0", source="drawn"
    ) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": picture, "captions": [], "category": None, "factors": None}
            for name, picture in zip(ids, pictures, strict=True)
        )
        for subject, regions in subjects.items():
            writer.add_voxels(
                subject,
                sum(each.voxels for each in regions),
                roi=[each.name for each in regions for _ in range(each.voxels)],
            )
            fmri = np.concatenate([_responses(rng, patches, each, noise) for each in regions], axis=1)
            start = 0
            for part, length in parts.items():
                own = slice(start, start + length)
                writer.add_trials(
                    subject,
                    part,
                    stimulus_ids=ids[own],
                    sessions=[1] * length,
                    runs=[1] * length,
                    trials=list(range(start, start + length)),
                    repetitions=[0] * length,
                    fmri=fmri[own].astype(np.float32),
                )
                start += length
    return folder


def _responses(rng: np.random.Generator, patches: np.ndarray, region: Region, noise: float) -> np.ndarray:
    seen = patches[:, : region.dimensions] - 0.5
    weights = rng.normal(size=(region.dimensions, region.voxels))
    return seen @ weights + noise * rng.normal(size=(len(patches), region.voxels))
