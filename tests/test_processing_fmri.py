"""FmriProcessor: statistics, selection, saving, and each sentence for bad input."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmri_models.errors import FmriModelsError
from fmri_models.processing_fmri import FmriProcessor


@dataclass
class Labels:
    roi: list[str] | None = None
    coordinates: np.ndarray | None = None
    noise_ceiling: np.ndarray | None = None


def make_fmri(rows: int = 40, voxels: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(loc=rng.normal(size=voxels) * 100, scale=rng.uniform(0.5, 3, voxels), size=(rows, voxels))


def test_pooled_statistics_are_those_of_the_training_trials():
    fmri = make_fmri()
    processed = FmriProcessor.fit(fmri)(fmri)["fmri"].numpy()
    np.testing.assert_allclose(processed, (fmri - fmri.mean(0)) / fmri.std(0), atol=1e-3)


def test_blocks_give_the_statistics_of_the_whole():
    fmri = make_fmri()
    whole = FmriProcessor.fit({"subj01": fmri}).subject("subj01")
    blocks = FmriProcessor.fit({"subj01": (fmri[start : start + 7] for start in range(0, 40, 7))}).subject("subj01")
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(blocks.std, whole.std, rtol=1e-6)


def test_session_statistics():
    fmri, sessions = make_fmri(), np.repeat([3, 8], 20)
    fmri[20:] += 50
    processor = FmriProcessor.fit(fmri, sessions=sessions, statistics="session")
    processed = processor(fmri, session=sessions)["fmri"].numpy()
    for session in (3, 8):
        rows = sessions == session
        np.testing.assert_allclose(processed[rows].mean(0), 0, atol=1e-3)
        np.testing.assert_allclose(processed[rows].std(0), 1, atol=1e-3)


def test_unseen_sessions():
    fmri, sessions = make_fmri(), np.repeat([1, 2], 20)
    fit = {"sessions": sessions, "statistics": "session"}
    with pytest.raises(FmriModelsError, match="Session 9 of subj01 is unknown.*sessions 1, 2"):
        FmriProcessor.fit(fmri, **fit)(fmri, session=9)
    pooled = FmriProcessor.fit(fmri, unseen_session="pooled", **fit)
    expected = FmriProcessor.fit(fmri)(fmri)["fmri"]
    torch.testing.assert_close(pooled(fmri, session=9)["fmri"], expected, rtol=1e-3, atol=1e-3)
    assert not pooled.is_transductive
    from_batch = FmriProcessor.fit(fmri, unseen_session="from_batch", **fit)
    np.testing.assert_allclose(from_batch(fmri[:9], session=9)["fmri"].numpy().std(0), 1, atol=1e-3)
    assert from_batch.is_transductive
    with pytest.raises(FmriModelsError, match="at least two"):
        from_batch(fmri[:1], session=9)


def test_leading_dimensions_are_kept():
    processor = FmriProcessor.fit(make_fmri())
    clip = processor(make_fmri(30).reshape(5, 6, 12))
    assert clip["fmri"].shape == (5, 6, 12)
    assert clip["subject_ids"].shape == (5,)
    assert processor(make_fmri(1)[0])["fmri"].shape == (1, 12)


def test_subjects_of_different_width_come_in_one_batch():
    fmri = {"subj02": make_fmri(voxels=5, seed=1), "subj01": make_fmri(voxels=9, seed=2)}
    processor = FmriProcessor.fit(fmri, subjects=["subj02", "subj01"])
    assert processor.num_voxels == [5, 9]
    batch = processor([fmri["subj01"][0], fmri["subj02"][0]], subject=["subj01", "subj02"])
    assert batch["subject_ids"].tolist() == [1, 0]
    assert batch["fmri"].shape == (2, 9)
    assert (batch["fmri"][1, 5:] == 0).all()
    torch.testing.assert_close(batch["fmri"][1, :5], processor(fmri["subj02"][0], subject="subj02")["fmri"][0, :5])


def test_selection_by_roi_ceiling_and_rank():
    fmri = make_fmri()
    labels = Labels(roi=["V1", "V2", "V4"] * 4, noise_ceiling=np.linspace(0, 1, 12))
    assert FmriProcessor.fit(fmri, voxels={"subj01": labels}, rois=["V1", "V4"]).num_voxels == [8]
    assert FmriProcessor.fit(fmri, voxels={"subj01": labels}, min_noise_ceiling=0.5).num_voxels == [6]
    best = FmriProcessor.fit(fmri, voxels={"subj01": labels}, rois=["V1"], num_best_voxels=2)
    np.testing.assert_array_equal(best.subject("subj01").selected, [6, 9])
    with pytest.raises(FmriModelsError, match="no voxel in V9; its ROIs are V1, V2, V4"):
        FmriProcessor.fit(fmri, voxels={"subj01": labels}, rois=["V9"])
    with pytest.raises(FmriModelsError, match="leaves no voxel"):
        FmriProcessor.fit(fmri, voxels={"subj01": labels}, min_noise_ceiling=2.0)
    with pytest.raises(FmriModelsError, match="needs the ROI"):
        FmriProcessor.fit(fmri, rois=["V1"])


def test_pooling_and_padding():
    fmri = make_fmri()
    standard = FmriProcessor.fit(fmri)(fmri)["fmri"]
    pooled = FmriProcessor.fit(fmri, pool_width=4)(fmri)["fmri"]
    torch.testing.assert_close(pooled, standard.reshape(40, 4, 3).amax(2))
    padded = FmriProcessor.fit(fmri, pad_multiple=8)(fmri)["fmri"]
    torch.testing.assert_close(padded, torch.cat([standard, standard[:, :4]], dim=1))


def test_dead_voxels_become_zero_with_one_warning():
    fmri = make_fmri()
    fmri[:, [2, 7]] = 5.0
    with pytest.warns(UserWarning, match="2 of subj01") as caught:
        processor = FmriProcessor.fit(fmri)
    assert len(caught) == 1
    assert processor.num_dead_voxels("subj01") == 2
    processed = processor(fmri + 1)["fmri"]
    assert (processed[:, [2, 7]] == 0).all()
    assert torch.isfinite(processed).all()


def test_identity_passes_betas_on():
    fmri = make_fmri().astype(np.float32)
    processor = FmriProcessor.fit(fmri, statistics="identity", expects="z-scored betas")
    torch.testing.assert_close(processor(fmri)["fmri"], torch.from_numpy(fmri))


def test_everything_survives_saving(tmp_path):
    fmri = {"subj07": make_fmri(voxels=12), "subj02": make_fmri(voxels=6, seed=3)}
    sessions = {name: np.repeat([4, 5], 20) for name in fmri}
    labels = {
        "subj07": Labels(roi=["V1", "hV4 é"] * 6, coordinates=np.arange(36.0).reshape(12, 3)),
        "subj02": Labels(roi=["V1"] * 6),
    }
    processor = FmriProcessor.fit(
        fmri,
        sessions=sessions,
        voxels=labels,
        statistics="session",
        rois=["V1"],
        unseen_session="pooled",
        pad_multiple=4,
    )
    processor.save_pretrained(tmp_path / "processor")
    loaded = FmriProcessor.from_pretrained(tmp_path / "processor")
    assert loaded.subject_names == ["subj07", "subj02"]
    assert loaded.unseen_session == "pooled"
    for name, values in fmri.items():
        assert torch.equal(
            loaded(values, subject=name, session=5)["fmri"], processor(values, subject=name, session=5)["fmri"]
        )
        assert loaded.subject(name).roi == labels[name].roi
    np.testing.assert_array_equal(loaded.subject("subj07").coordinates, labels["subj07"].coordinates)
    assert loaded.subject("subj02").coordinates is None


@pytest.mark.parametrize(
    ("fmri", "options", "message"),
    [
        (np.ones((2, 11)), {}, "has 11 voxels; the processor was fitted on 12"),
        (np.full((2, 12), np.nan), {}, "24 values that are NaN or infinite"),
        (np.array([[0.0] * 11 + [np.inf]]), {}, "pattern 0 at voxel 11"),
        (np.ones((2, 12)), {}, "value 1 in every voxel"),
        (np.array([["a"] * 12]), {}, "dtype <U1"),
        (np.zeros((0, 12)), {}, "not empty"),
        (np.arange(24.0).reshape(2, 12), {"subject": "subj99"}, "'subj99' is unknown.*subj01"),
        (np.arange(24.0).reshape(2, 12), {"subject": ["subj01"] * 3}, "3 subjects were given for 2"),
        (np.arange(24.0).reshape(2, 12), {"session": [1, 2, 3]}, "3 sessions were given for 2"),
        (np.arange(24.0).reshape(2, 12), {"return_tensors": "tf"}, "return_tensors is 'tf'"),
    ],
)
def test_bad_betas_are_sentences(fmri, options, message):
    with pytest.raises(FmriModelsError, match=message):
        FmriProcessor.fit(make_fmri())(fmri, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fmri": make_fmri(), "statistics": "mean"}, "statistics is 'mean'"),
        ({"fmri": make_fmri(1)}, "at least 2"),
        ({"fmri": np.full((4, 3), np.nan)}, "NaN"),
        ({"fmri": make_fmri(), "statistics": "session"}, "needs the session"),
        ({"fmri": {"subj01": make_fmri()}, "subjects": ["subj01", "subj02"]}, "No trials were given for subj02"),
        ({"fmri": {"subj01": iter([np.zeros((2, 3)), np.zeros((2, 4))])}}, "of 3 and of 4 voxels"),
        ({"fmri": make_fmri(), "subjects": ["subj01"]}, "1 subjects were given for 40 trials"),
    ],
)
def test_bad_training_trials_are_sentences(arguments, message):
    with pytest.raises(FmriModelsError, match=message):
        FmriProcessor.fit(**arguments)


def test_damaged_folders_are_sentences(tmp_path):
    processor = FmriProcessor.fit(make_fmri())
    with pytest.raises(FmriModelsError, match="There is no processor"):
        FmriProcessor.from_pretrained(tmp_path)
    processor.save_pretrained(tmp_path / "p")
    statistics = tmp_path / "p" / "fmri_statistics.st"
    statistics.write_bytes(statistics.read_bytes()[:-10])
    with pytest.raises(FmriModelsError, match="is damaged"):
        FmriProcessor.from_pretrained(tmp_path / "p")
    statistics.unlink()
    with pytest.raises(FmriModelsError, match="is missing"):
        FmriProcessor.from_pretrained(tmp_path / "p")
    config = tmp_path / "p" / "preprocessor_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "fmri_schema": 2}))
    with pytest.raises(FmriModelsError, match="newer version"):
        FmriProcessor.from_pretrained(tmp_path / "p")


def test_an_unfitted_processor_is_not_saved(tmp_path):
    with pytest.raises(FmriModelsError, match="never fitted"):
        FmriProcessor().save_pretrained(tmp_path / "p")


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 14)), elements=st.floats(width=32)))
def test_any_array_gives_finite_voxels_or_a_sentence(fmri):
    processor = FmriProcessor.fit(make_fmri())
    try:
        processed = processor(fmri)["fmri"]
    except FmriModelsError as error:
        assert "\n" not in str(error)
    else:
        assert processed.shape == (len(fmri), 12)
        assert torch.isfinite(processed).all()
