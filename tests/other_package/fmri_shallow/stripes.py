"""Stripes: pictures of bars and the responses to them, in one file of NumPy."""

from pathlib import Path

import numpy as np

from fmri_models import TrialTableWriter


def prepare(source: Path, out: Path, overwrite: bool = False) -> None:
    """Writes the trial table of `stripes.npz` with `pictures` (N, H, W) and `fmri` (N, voxels)."""
    with np.load(source) as file:
        pictures, fmri = file["pictures"], file["fmri"]
    names = [f"bar{number:03d}" for number in range(len(pictures))]
    with TrialTableWriter(out, "stripes", license="CC0", source="drawn", overwrite=overwrite) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": picture, "captions": [], "category": None}
            for name, picture in zip(names, pictures, strict=True)
        )
        writer.add_voxels("subj01", fmri.shape[1])
        first, second = len(names) // 2, 3 * len(names) // 4
        for part, chosen in (
            ("train", slice(first)),
            ("validation", slice(first, second)),
            ("test", slice(second, None)),
        ):
            writer.add_trials("subj01", part, stimulus_ids=names[chosen], fmri=fmri[chosen])
