"""Memory while large files are read and tables written, which is bounded whatever the files' size."""

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable
from fmri_models.data.brain_images import series
from fmri_models.data.brain_images.masks import read_mask
from fmri_models.data.brain_images.series import HdfBetas, VolumeSeries
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.bdata import BData
from fmri_models.data.published.nifti_volumes import masked_volumes
from fmri_models.data.published.npz_arrays import NpzArrays
from tests.data.sources import SOURCES
from tests.fabricated import nifti

h5py = pytest.importorskip("h5py")
nibabel = pytest.importorskip("nibabel")

MEBIBYTE = 2**20


def peak(work: Callable[[], object]) -> float:
    """MiB that Python and NumPy held at most while something was done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / MEBIBYTE
    finally:
        tracemalloc.stop()


def consumed(blocks: Iterable[np.ndarray]) -> int:
    return sum(len(block) for block in blocks)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"zscore": "session", "repetitions": "average_test", "drop_bad_voxels": True}])
def test_a_table_is_written_in_parts(options: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Three times the trials take hardly more memory."""
    few, many = _peak_of_writing(tmp_path / "few", 4, options), _peak_of_writing(tmp_path / "many", 12, options)
    # Betas grow by 37 MiB; what is kept of each trial besides is small.
    assert many < few + 10
    table = TrialTable.open(tmp_path / "many" / "out")
    assert table.voxels("subj01").source == "training repetitions" and np.isfinite(table.voxels("subj01").ncsnr).all()
    said = capsys.readouterr().err
    assert "Reading subj01" in said and "12/12 recordings" in said


def _peak_of_writing(folder: Path, sessions: int, options: dict) -> float:
    width, trials = 2000, 600

    def betas(session: int) -> Iterator[np.ndarray]:
        for start in range(0, trials, 60):
            yield np.random.default_rng([session, start]).normal(size=(60, width)).astype(np.float32)

    recordings = [
        Recording(
            f"session {number}",
            partial(betas, number),
            [f"s{(number * trials + trial) // 2}" for trial in range(trials)],
            session=number,
        )
        for number in range(1, sessions + 1)
    ]
    found = PublishedDataset(
        "large", "For tests.", "CC0", "Nobody", "dataset_scripts/large.py", 1,
        [PublishedSubject("subj01", KnownVoxels(width), recordings)],
        lambda ids: ({"stimulus_id": name, "image": None} for name in ids),
        test_sets={"some": [f"s{number}" for number in range(300, 4000, 7)]},
    )  # fmt: skip
    (folder / "in").mkdir(parents=True)
    prepare = preparation(lambda source: found)
    return peak(lambda: prepare(folder / "in", folder / "out", **options))


def test_matrices_are_read_in_parts(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "Subject1.h5", "w") as file:
        file["dataset"] = np.zeros((4096, 1000))
        file["metadata/key"], file["metadata/value"] = [b"VoxelData"], np.ones((1, 1000))
    data = BData(tmp_path / "Subject1.h5", "give another")
    used = peak(lambda: consumed(data.blocks(np.arange(500), np.ones(4096, dtype=bool))))
    assert used < 8
    np.savez(tmp_path / "a.npz", pictures=np.zeros((512, 64, 64, 3)))
    assert peak(lambda: consumed(NpzArrays(tmp_path / "a.npz", "").rows("pictures"))) < 8


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_volumes_are_read_in_parts(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (32, 32, 16)
    mask = nifti.save(tmp_path / "mask.nii.gz", np.ones(shape), dtype=np.uint8)
    path = nifti.save(tmp_path / f"volumes{ending}", np.zeros((*shape, 256)), dtype=np.int16)
    monkeypatch.setattr(series, "_BYTES_AT_ONCE", 2 * MEBIBYTE)
    chosen = read_mask(mask)
    # 32 MiB as float64.
    assert peak(lambda: consumed(series.blocks(VolumeSeries(path, chosen)))) < 10
    assert peak(lambda: consumed(masked_volumes(path, chosen.chosen, "get it again"))) < 10
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        file["betasmd"] = np.zeros((*shape, 256), dtype=np.float32)
    assert peak(lambda: consumed(series.blocks(HdfBetas(tmp_path / "betas.hdf5", chosen, "betasmd", False)))) < 10


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow) if each.startswith("nsd-r") else each for each in SOURCES]
)
def test_what_is_known_of_voxels_and_files_is_written(name: str, tmp_path: Path) -> None:
    """Regions, places and ceilings that a form has; licence, source, script and checksums of each."""
    source = SOURCES[name]
    (tmp_path / "in").mkdir()
    source.write(tmp_path / "in")
    options = tuple(option for option in source.options if option != "checksums=no")
    assert replace(source, options=options).prepare(tmp_path / "in", tmp_path / "out") == 0
    table = TrialTable.open(tmp_path / "out")
    prepared = table.metadata["prepared"]
    # Settings are read by another script.
    script = "nifti" if name in ("tgbh", "nfed", "faces") else source.script
    assert prepared["script"] == f"dataset_scripts/{script}.py" and prepared["script_version"] >= 1
    assert prepared["files"] and all(len(each["sha256"]) == 64 for each in prepared["files"].values())
    card = (tmp_path / "out" / "README.md").read_text().replace("\\", "")
    assert f"dataset_scripts/{script}.py, version" in card and "SHA-256" in card
    if source.script not in ("nifti", "surfaces"):
        assert table.metadata["license"] and table.metadata["source"] and "not stated" not in table.metadata["source"]
    voxels = table.voxels(table.subjects[0])
    none = ("haxby-openfmri", "nifti-fmriprep", "nifti-betas", "wen2018", "eeg_voa", "tgbh")
    has_regions = name != "nsd-mindeye" and not name.startswith(none) and "glms" not in name
    assert bool(any(voxels.roi or [])) is has_regions
    places = (
        "nsd-release", "god-published", "bold5000-volumes", "things_fmri", "miyawaki-nilearn", "haxby", "nifti",
        "surfaces-d", "tgbh",
    )  # fmt: skip
    assert (voxels.coordinates is not None and bool(np.isfinite(voxels.coordinates).any())) is name.startswith(places)
    repeated = any(
        np.unique(table.trials(each, "train").stimulus_ids, return_counts=True)[1].max() > 1 for each in table.subjects
    )
    released = name.startswith(("nsd-release", "things_fmri"))
    if released or repeated:
        known = [table.voxels(each) for each in table.subjects]
        assert any(each.ncsnr is not None or each.noise_ceiling is not None for each in known)
        assert {each.source for each in known} <= {"release" if released else "training repetitions", None}
