"""CIFTI's grayordinates and GIFTI's vertices as a trial table."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable
from fmri_models.data.brain_images.surfaces import CiftiSeries, GiftiSeries
from tests.data.test_nifti import in_order, prepare, prepared
from tests.fabricated import surfaces as made

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("nilearn")


def written(table: TrialTable) -> np.ndarray:
    return in_order(table)[0]


def test_maps_of_a_dense_file(tmp_path: Path) -> None:
    made.write_dscalar(tmp_path / "in")
    table = prepared(tmp_path / "in", tmp_path / "out", name="surfaces")
    assert np.allclose(written(table), [made.beta(trial) for trial in range(6)], atol=2e-3)
    voxels = table.voxels("sub-01")
    left, right, deep = made.COUNTS
    assert voxels.roi == ["CORTEX_LEFT"] * left + ["CORTEX_RIGHT"] * right + ["THALAMUS_LEFT"] * deep
    assert np.isnan(voxels.coordinates[: left + right]).all()
    assert np.allclose(voxels.coordinates[-1], made.AFFINE[:3, :3] @ made.INDICES[-1] + made.AFFINE[:3, 3])
    assert voxels.grid is None


def test_labels_of_a_dense_atlas(tmp_path: Path) -> None:
    made.write_dscalar(tmp_path / "in")
    atlas = made.write_dlabel(tmp_path / "atlas.dlabel.nii")
    table = prepared(tmp_path / "in", tmp_path / "out", f"atlas={atlas}", "rois=V1", name="surfaces")
    assert table.voxels("sub-01").source_columns.tolist() == [0, 3, 6, 9, 12]
    assert np.allclose(written(table), [made.beta(trial)[::3] for trial in range(6)], atol=2e-3)


@pytest.mark.parametrize("form", ["dtseries", "gifti"])
def test_time_series(tmp_path: Path, form: str) -> None:
    write = made.write_dtseries if form == "dtseries" else made.write_gifti
    write(tmp_path / "in")
    options = ["tr=2"] if form == "gifti" else []
    table = prepared(tmp_path / "in", tmp_path / "out", *options, name="surfaces")
    truth = np.array([made.beta(trial) for trial in range(5)])
    fmri = written(table)
    assert np.corrcoef(fmri.ravel(), truth.ravel())[0, 1] > 0.99 and np.abs(fmri - truth).max() < 1
    if form == "gifti":
        assert table.voxels("sub-01").roi == ["left"] * 9 + ["right"] * (made.WIDTH - 9)


def test_series_are_read_in_parts(tmp_path: Path) -> None:
    root = made.write_dtseries(tmp_path / "in")
    series = CiftiSeries(next(root.rglob("*.dtseries.nii")))
    assert (series.count, series.width, series.seconds) == (made.VOLUMES, made.WIDTH, 2.0)
    assert np.allclose(series.read(3, 7), made.bold()[3:7], rtol=1e-5)
    made.write_gifti(tmp_path / "gifti")
    pair = sorted((tmp_path / "gifti").rglob("*.func.gii"))
    assert np.allclose(GiftiSeries((pair[0], pair[1])).read(3, 7), made.bold()[3:7], rtol=1e-5)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: next(root.rglob("*hemi-R*")).unlink(), "has no right hemisphere"),
        (lambda root: next(root.rglob("*hemi-R*")).write_text("<GIFTI"), "is damaged, cut short, or no GIFTI file"),
        (lambda root: next(root.rglob("*_events.tsv")).unlink(), "There is no table of events"),
        (lambda root: None, "give --option tr=SECONDS"),
    ],
)
def test_other_files_are_a_sentence(tmp_path: Path, capsys, break_it, sentence: str) -> None:
    made.write_gifti(tmp_path / "in")
    break_it(tmp_path / "in")
    assert prepare(tmp_path / "in", tmp_path / "out", name="surfaces") == 1
    error = capsys.readouterr().err
    assert sentence in error and "unexpected" not in error
    assert not (tmp_path / "out").exists()


def test_parcels_are_refused(tmp_path: Path, capsys) -> None:
    root = made.write_dscalar(tmp_path / "in")
    made.write_parcels(next(root.rglob("*.dscalar.nii")))
    assert prepare(tmp_path / "in", tmp_path / "out", name="surfaces") == 1
    assert "is of parcels or connections" in capsys.readouterr().err
