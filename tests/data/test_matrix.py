import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmri_models.data import TrialTable, TrialTableWriter, cache
from fmri_models.data.matrix import FmriMatrix
from fmri_models.errors import FmriModelsError


def materialize(fmri: np.ndarray, name: str = "f", size: int = 7) -> FmriMatrix:
    def blocks() -> list[np.ndarray]:
        return [fmri[start : start + size] for start in range(0, len(fmri), size)]

    return FmriMatrix.materialize(name, "subj01", fmri.shape, blocks)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(width=32)),
)
def test_every_float32_comes_back_as_it_was(fmri: np.ndarray) -> None:
    values = materialize(fmri, f"f{hash((fmri.tobytes(), fmri.shape))}")
    np.testing.assert_array_equal(values.gather(np.arange(len(fmri))), fmri)


def test_float16_stays_as_it_is() -> None:
    fmri = np.random.default_rng(0).normal(5, 1, (70, 3)).astype(np.float16)
    values = FmriMatrix.materialize("f", "subj01", (70, 3), lambda: [fmri], np.float16)
    assert np.load(values.folder / "values.npy", mmap_mode="r").dtype == np.float16
    read = values.gather(np.arange(70)[::-1])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, fmri[::-1])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e7])
def test_training_trials_read_the_same_whatever_the_others_are(scale: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train = (scale * (500 + rng.normal(size=(30, 6)))).astype(np.float32)
    read = []
    for number, test in enumerate((scale * rng.normal(size=(5, 6)), np.full((5, 6), 1e30))):
        with TrialTableWriter(tmp_path / str(number), "t") as writer:
            writer.add_stimuli({"stimulus_id": name, "image": None} for name in ("a", "b"))
            writer.add_trials("subj01", "train", ["a"] * 30, train, sessions=[1] * 5 + [2] * 25)
            writer.add_trials("subj01", "test", ["b"] * 5, test)
        read.append(TrialTable.open(tmp_path / str(number)).trials("subj01", "train").fmri())
    np.testing.assert_array_equal(*read)
    np.testing.assert_allclose(read[0], train, atol=1e-3 * scale)


def test_a_matrix_that_a_former_version_has_scaled_is_written_again(own_cache: Path) -> None:
    fmri = np.arange(8, dtype=np.float32).reshape(4, 2)
    folder = materialize(fmri).folder
    np.save(folder / "values.npy", np.zeros((4, 2), np.float16))
    np.save(folder / "scaling.npy", np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(materialize(fmri).gather(np.arange(4)), fmri)
    assert sorted(path.name for path in folder.iterdir()) == ["values.npy"]


def test_rows_come_in_the_order_asked_for() -> None:
    fmri = np.arange(40, dtype=np.float32).reshape(20, 2)
    rows = np.array([13, 2, 2, 19, 0])
    np.testing.assert_allclose(materialize(fmri).gather(rows), fmri[rows], atol=0.01)


def test_written_once_and_again_after_an_interruption(own_cache: Path) -> None:
    fmri = np.ones((4, 2), np.float32)
    calls = []

    def blocks() -> list[np.ndarray]:
        calls.append(1)
        return [fmri]

    for _ in range(2):
        FmriMatrix.materialize("f", "subj01", (4, 2), blocks)
    assert len(calls) == 1

    def killed() -> Iterator[np.ndarray]:
        yield fmri[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FmriMatrix.materialize("g", "subj01", (4, 2), killed)
    # What a process that was killed outright leaves behind.
    left = own_cache / "matrices/g/.partial-fmri_models-subj01-abcdefgh"
    left.mkdir()
    (left / "values.npy").write_bytes(b"half")
    again = FmriMatrix.materialize("g", "subj01", (4, 2), lambda: [fmri])
    np.testing.assert_array_equal(again.gather(np.array([0, 3])), fmri[[0, 3]])
    assert not left.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(FmriModelsError, match=r"cache folder .* can't be written .*FMRI_MODELS_CACHE"):
        materialize(np.ones((2, 2), np.float32))
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "readonly"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(FmriModelsError, match="no permission to write"):
        materialize(np.ones((2, 2), np.float32))


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.npy, "write_array_header_1_0", full)
    with pytest.raises(FmriModelsError, match="disk is full"):
        materialize(np.ones((2, 2), np.float32))
    assert [path.name for path in (own_cache / "matrices/f").iterdir()] == ["subj01.lock"]


def test_all_splits_share_one_matrix(table_path: Path, own_cache: Path) -> None:
    table = TrialTable.open(table_path)
    for split in ("train", "validation", "test"):
        table.trials("subj01", split).fmri()
    assert len(list((own_cache / "matrices").glob("*/*/values.npy"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's own peak memory as Linux counts it")
def test_betas_are_never_in_memory_whole(tmp_path: Path) -> None:
    rows, voxels = 6000, 5000
    block = np.random.default_rng(0).normal(size=(500, voxels)).astype(np.float32)
    with TrialTableWriter(tmp_path / "t", "t") as writer:
        writer.add_stimuli([{"stimulus_id": "s", "image": None}])
        writer.add_trials("subj01", "train", ["s"] * rows, (block for _ in range(rows // 500)))
    code = (
        "import resource, sys; from fmri_models.data import TrialTable;"
        "import torch; t = TrialTable.open(sys.argv[1]).trials('subj01');"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "t.fmri([0]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "t"], capture_output=True, text=True, check=True)
    assert int(result.stdout) * 1024 < rows * voxels * 4 / 2
