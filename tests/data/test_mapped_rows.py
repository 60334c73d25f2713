"""Rows of memory maps: what is read, and what stays in memory of it."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import mapped_rows
from fmri_models.data.mapped_rows import MappedRows


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    np.save(tmp_path / "a.npy", np.arange(512 * 4096, dtype=np.float32).reshape(512, 4096))
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def resident(path: object) -> int:
    """KiB of a file that count as this process's memory."""
    here = total = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            here = line.endswith(f" {path}")
        elif here and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


@pytest.mark.parametrize("positions", [[3, 1, 3, 500], [0, 1, 2], [7], []])
def test_rows_come_in_the_order_asked_for(mapped: np.ndarray, positions: list[int]) -> None:
    found = MappedRows(mapped).take(np.array(positions, dtype=np.int64))
    assert type(found) is np.ndarray and found.flags.c_contiguous and found.flags.writeable
    np.testing.assert_array_equal(found, np.asarray(mapped)[np.array(positions, dtype=np.int64)])


def test_fractions_are_those_of_whole_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.arange(256, dtype=np.uint8).reshape(32, 2, 4))
    rows, chosen = np.load(tmp_path / "b.npy", mmap_mode="r"), np.array([31, 0, 5, 0])
    found = MappedRows(rows).fractions(chosen, 255)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows[chosen].astype(np.float32) / np.float32(255))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("shape", [(512, 4096), (512, 64, 64)])
def test_what_was_read_does_not_stay(mapped: np.ndarray, shape: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    # A view of another shape is of the same file.
    rows, order = MappedRows(mapped.reshape(shape)), np.random.default_rng(0).permutation(512).reshape(8, 64)
    monkeypatch.setattr(mapped_rows, "_BYTES_KEPT", 2**30)
    for chosen in order:
        rows.take(chosen)
    assert resident(mapped.filename) > 7000
    monkeypatch.setattr(mapped_rows, "_BYTES_KEPT", 1)
    for chosen in order:
        found = rows.take(chosen)
        assert resident(mapped.filename) < 100
    np.testing.assert_array_equal(found.reshape(64, -1), np.asarray(mapped)[order[-1]])


def test_what_was_changed_in_memory_alone_is_kept(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_rows, "_BYTES_KEPT", 1)
    changed = np.load(mapped.filename, mmap_mode="c")
    changed[5] = -1
    assert (MappedRows(changed).take(np.array([5])) == -1).all()
    assert (MappedRows(changed).take(np.array([5])) == -1).all()
    plain = np.ones((3, 2))
    np.testing.assert_array_equal(MappedRows(plain).take(np.array([2, 0])), plain[[2, 0]])


def test_it_goes_to_another_process(mapped: np.ndarray) -> None:
    rows = pickle.loads(pickle.dumps(MappedRows(mapped)))
    np.testing.assert_array_equal(rows.take(np.array([4])), np.asarray(mapped)[[4]])
