"""Scalar statistics and wrapping to one common width, also as the original of MinD-Vis has them."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fmri_models.data.time_windows import window_means
from fmri_models.errors import FmriModelsError
from fmri_models.processing_fmri import FmriProcessor

WRAP = {"statistics": "identity", "padding": "wrap"}


def make_fmri(trials: int = 30, voxels: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(size=voxels) * 10, rng.uniform(0.5, 3, voxels), (trials, voxels)).astype(np.float32)


@pytest.fixture(scope="module")
def helpers() -> dict[str, np.ndarray]:
    folder = os.environ.get("FMRI_MODELS_TEST_DATA")
    file = Path(folder or "", "fixtures", "mindvis", "mindvis_data_helpers.safetensors")
    if not file.is_file():
        pytest.skip("FMRI_MODELS_TEST_DATA has no numbers of the original")
    return load_file(file)


def test_scalar_statistics_are_one_number_over_voxels_and_trials(tmp_path):
    fmri = make_fmri()
    processor = FmriProcessor.fit(fmri, statistics="scalar")
    expected = (fmri - fmri.mean()) / fmri.std()
    np.testing.assert_allclose(processor(fmri)["fmri"].numpy(), expected, atol=1e-5)
    processor.save_pretrained(tmp_path)
    loaded = FmriProcessor.from_pretrained(tmp_path)
    assert loaded.options == processor.options
    np.testing.assert_array_equal(loaded(fmri)["fmri"], processor(fmri)["fmri"])


def test_scalar_statistics_are_those_of_kept_voxels():
    fmri = make_fmri()
    scores = {"subj01": np.arange(12.0)}
    processor = FmriProcessor.fit(fmri, statistics="scalar", num_best_voxels=5, voxel_scores=scores)
    kept = fmri[:, 7:]
    np.testing.assert_allclose(processor(fmri)["fmri"].numpy(), (kept - kept.mean()) / kept.std(), atol=1e-5)


def test_subjects_are_wrapped_to_one_common_width(tmp_path):
    fmri = {"a": make_fmri(voxels=12), "b": make_fmri(voxels=7, seed=1)}
    processor = FmriProcessor.fit(fmri, patch_size=5, **WRAP)
    assert (processor.width, processor.num_voxels) == (15, [15, 15])
    for name, values in fmri.items():
        found = processor(values, subject=name)["fmri"].numpy()
        np.testing.assert_array_equal(found, np.pad(values, ((0, 0), (0, 15 - values.shape[1])), mode="wrap"))
        np.testing.assert_array_equal(found, values[:, processor.column_voxels(name)])
    processor.save_pretrained(tmp_path)
    loaded = FmriProcessor.from_pretrained(tmp_path)
    assert (loaded.options, loaded.num_voxels) == (processor.options, [15, 15])
    assert FmriProcessor.from_pretrained(tmp_path, width=20).num_voxels == [20, 20]


def test_columns_say_which_voxel_they_are_where_some_are_left_out():
    processor = FmriProcessor.fit(
        make_fmri(), patch_size=4, num_best_voxels=5, voxel_scores={"subj01": np.arange(12.0)}, **WRAP
    )
    assert processor.column_voxels("subj01").tolist() == [7, 8, 9, 10, 11, 7, 8, 9]
    assert FmriProcessor.fit(make_fmri()).column_voxels("subj01").tolist() == list(range(12))
    with pytest.raises(FmriModelsError, match="pool_width=4"):
        FmriProcessor.fit(make_fmri(), pool_width=4).column_voxels("subj01")


def test_a_multiple_grows_as_in_the_original_only_where_that_is_asked_for():
    fmri = make_fmri()
    assert FmriProcessor.fit(fmri, patch_size=4, **WRAP).width == 12
    assert FmriProcessor.fit(fmri, patch_size=4, wrap_extra_patch=True, **WRAP).width == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "wrap"}, "needs patch_size"),
        ({"patch_size": 4}, "patch_size is one of padding"),
        ({"padding": "wrap", "patch_size": 4, "width": 18}, "expected a multiple of patch_size, 4"),
        ({"padding": "wrap", "patch_size": 4, "width": 8}, "needs 12 columns"),
        ({"padding": "wrap", "patch_size": 4, "pool_width": 8}, "so does pool_width"),
        ({"padding": "zero", "patch_size": 4}, "padding"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(FmriModelsError, match=message):
        FmriProcessor.fit(make_fmri(), **options)


def test_padding_and_statistics_are_those_of_the_original(helpers):
    for name, extra in (("x", False), ("x", True), ("x_multiple", True)):
        fmri = helpers[f"in.{name}"]
        processor = FmriProcessor.fit(fmri, patch_size=16, wrap_extra_patch=extra, **WRAP)
        expected = helpers[f"out.pad16{name.removeprefix('x')}"]
        np.testing.assert_allclose(processor(fmri)["fmri"].numpy(), expected, rtol=1e-6)
    fmri = helpers["in.x"]
    processor = FmriProcessor.fit(fmri, patch_size=4, width=100, **WRAP)
    np.testing.assert_allclose(processor(fmri)["fmri"].numpy()[:, None], helpers["out.pad_len"], rtol=1e-6)
    found = FmriProcessor.fit(fmri, statistics="scalar")(fmri)["fmri"].numpy()
    np.testing.assert_allclose(found, helpers["out.normalize"], atol=1e-5)


def test_window_means_are_those_of_the_original(helpers):
    windows = window_means(helpers["in.ts"], 10)
    padded = FmriProcessor.fit(windows, patch_size=16, **WRAP)(windows)["fmri"].numpy()
    expected = (padded - padded.mean()) / padded.std()
    np.testing.assert_allclose(expected, helpers["out.process_voxel_ts"], atol=1e-4)


def test_windows_are_as_equal_as_can_be():
    series = np.arange(7.0)[:, None]
    assert window_means(series, 3).ravel().tolist() == [1.5, 5.0]
    for frames in (0, 8):
        with pytest.raises(FmriModelsError, match="expected 1 to 7"):
            window_means(series, frames)
