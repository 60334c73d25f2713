"""Small tables that the tests of this folder share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTableWriter

NUM_STIMULI = 24
WIDTHS = {"subj01": 30, "subj02": 17}


def pictures(count: int = NUM_STIMULI, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def records(count: int = NUM_STIMULI, prefix: str = "s") -> list[dict]:
    return [
        {
            "stimulus_id": f"{prefix}{i:02d}",
            "image": picture,
            "captions": [f"picture {i}", "a picture"],
            "category": f"c{i % 3}",
            "factors": {"kind": i},
        }
        for i, picture in enumerate(pictures(count))
    ]


def betas(rows: int, voxels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, voxels)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(folder))
    return folder


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Writes two subjects: 16 training stimuli shown twice over two runs, 3 for validation, 5 for test."""

    def write(name: str = "table", runs: bool = False) -> Path:
        ids = [f"s{i:02d}" for i in range(NUM_STIMULI)]
        with TrialTableWriter(tmp_path / name, "small", simulated=True) as writer:
            writer.add_stimuli(records())
            for seed, (subject, width) in enumerate(WIDTHS.items()):
                writer.add_voxels(
                    subject,
                    width,
                    roi=["V1"] * (width - 5) + [""] * 5,
                    coordinates=np.arange(width * 3, dtype=np.float32).reshape(width, 3),
                    ncsnr=np.full(width, 0.5),
                    source="simulated truth",
                    space="toy",
                )
                train = ids[:16] * 2
                values = betas(40, width, seed)
                writer.add_trials(
                    subject,
                    "train",
                    stimulus_ids=train,
                    runs=[1] * 16 + [2] * 16 if runs else None,
                    fmri=values[:32],
                )
                writer.add_trials(subject, "validation", stimulus_ids=ids[16:19], fmri=values[32:35])
                writer.add_trials(subject, "test", stimulus_ids=ids[19:24], fmri=values[35:40])
                writer.add_noise_free(subject, ids, betas(NUM_STIMULI, width, 7))
        return tmp_path / name

    return write


@pytest.fixture
def table_path(write_table: Callable[..., Path]) -> Path:
    return write_table()
