"""FmriProcessor: statistics, selection, saving, and each sentence for bad input."""

import json
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from fmri_models.errors import FmriModelsError
from fmri_models.processing.statistics_file import STATISTICS_FILE
from fmri_models.processing_fmri import FmriProcessor
from tests.new_process import run_program


@dataclass
class Labels:
    roi: list[str] | None = None
    coordinates: np.ndarray | None = None
    noise_ceiling: np.ndarray | None = None


@dataclass
class DroppedLabels(Labels):
    source_columns: np.ndarray | None = None
    source_width: int | None = None


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
    with pytest.raises(FmriModelsError, match="no voxel in V9; its ROIs are V1, V2, V4;"):
        FmriProcessor.fit(fmri, voxels={"subj01": labels}, rois=["V9"])
    with pytest.raises(FmriModelsError, match="leaves no voxel"):
        FmriProcessor.fit(fmri, voxels={"subj01": labels}, min_noise_ceiling=2.0)
    with pytest.raises(FmriModelsError, match="needs the ROI"):
        FmriProcessor.fit(fmri, rois=["V1"])


def test_voxels_of_unknown_noise_ceiling_are_never_selected_by_it():
    fmri = {"subj01": np.random.default_rng(0).normal(size=(20, 12))}
    ceiling = np.full(12, np.nan)
    ceiling[[3, 7, 9]] = [0.2, 0.0, 0.6]
    labels = {"subj01": Labels(roi=["V1", "V2"] * 6, noise_ceiling=ceiling)}
    with pytest.warns(UserWarning, match="num_best_voxels=5: only 3 of 12 voxels of subj01 have a known noise ceiling"):
        processor = FmriProcessor.fit(fmri, voxels=labels, num_best_voxels=5)
    assert processor.subject("subj01").selected.tolist() == [3, 7, 9]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor = FmriProcessor.fit(fmri, voxels=labels, num_best_voxels=2)
    assert processor.subject("subj01").selected.tolist() == [3, 9]
    with pytest.warns(UserWarning, match="only 3 of 12 voxels.*the 9 others are left out"):
        processor = FmriProcessor.fit(fmri, voxels=labels, min_noise_ceiling=-1.0)
    assert processor.subject("subj01").selected.tolist() == [3, 7, 9]
    with pytest.warns(UserWarning, match="a known score"):
        processor = FmriProcessor.fit(fmri, voxel_scores={"subj01": ceiling}, num_best_voxels=4)
    assert processor.subject("subj01").selected.tolist() == [3, 7, 9]
    for options in ({"num_best_voxels": 2}, {"min_noise_ceiling": 0.0}):
        with pytest.raises(FmriModelsError, match="None of 6 voxels of subj01 has a known noise ceiling"):
            FmriProcessor.fit(fmri, voxels=labels, rois=["V1"], **options)


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
        (
            np.where(np.arange(24) % 2, 3e38, -3e38).reshape(2, 12),
            {},
            "standardised, has .* values that are NaN or inf",
        ),
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


def test_an_unfitted_processor_is_saved_loaded_and_fitted_later(tmp_path):
    options = {"pool_width": 4, "unseen_session": "pooled", "statistics": "session", "min_session_trials": 3}
    FmriProcessor(**options).save_pretrained(tmp_path / "p")
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["preprocessor_config.json"]
    loaded = FmriProcessor.from_pretrained(tmp_path / "p", statistics="pooled")
    assert not loaded.is_fitted
    assert loaded.options == {**FmriProcessor().options, **options, "statistics": "pooled"}
    fitted = FmriProcessor.fit(make_fmri(), **loaded.options)
    assert loaded.fit(make_fmri()) is loaded
    assert loaded.to_dict() == fitted.to_dict()
    loaded.save_pretrained(tmp_path / "p")
    assert FmriProcessor.from_pretrained(tmp_path / "p").to_dict() == fitted.to_dict()
    # And back: no statistics of before stay beside a processor that has none.
    FmriProcessor().save_pretrained(tmp_path / "p")
    assert not FmriProcessor.from_pretrained(tmp_path / "p").is_fitted
    assert len(list((tmp_path / "p").iterdir())) == 1


def test_an_unfitted_processor_is_refused_where_it_is_used():
    processor = FmriProcessor(subject_names=["subj01"])
    for use in (lambda: processor(np.ones((2, 3))), lambda: processor.width, lambda: processor.subject("subj01")):
        with pytest.raises(FmriModelsError, match=r"never fitted, .* fit it on training trials"):
            use()
    with pytest.raises(FmriModelsError, match=r"is one of the subjects subj01, and the trials are of a"):
        processor.fit({"a": np.random.default_rng(0).normal(size=(9, 4))})
    fitted = processor.fit(np.random.default_rng(0).normal(size=(9, 4)))
    with pytest.raises(FmriModelsError, match=r"was fitted already.*FmriProcessor\.fit"):
        fitted.fit(np.random.default_rng(0).normal(size=(9, 4)))


def test_missing_statistics_of_a_fitted_processor_are_not_none(tmp_path):
    FmriProcessor.fit(make_fmri()).save_pretrained(tmp_path)
    (tmp_path / STATISTICS_FILE).unlink()
    with pytest.raises(FmriModelsError, match="is missing"):
        FmriProcessor.from_pretrained(tmp_path)


def test_the_processor_of_a_whole_pipeline_and_of_what_is_none(tmp_path):
    FmriProcessor.fit(make_fmri()).save_pretrained(tmp_path / "pipeline" / "processor")
    assert FmriProcessor.from_pretrained(tmp_path / "pipeline").is_fitted
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(FmriModelsError, match="is a network without a processor"):
        FmriProcessor.from_pretrained(tmp_path / "model")
    with pytest.raises(FmriModelsError, match="There is no folder"):
        FmriProcessor.from_pretrained(tmp_path / "nothing")


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


@pytest.fixture
def saved(tmp_path):
    """A processor of two subjects by session, with ROIs, as a folder without the digest of its statistics."""
    fmri = {name: make_fmri(seed=seed) for seed, name in enumerate(("subj02", "subj01"))}
    voxels = {name: Labels(roi=["V1", "V2"] * 6, coordinates=np.zeros((12, 3))) for name in fmri}
    sessions = {name: np.repeat([3, 8], 20) for name in fmri}
    processor = FmriProcessor.fit(fmri, sessions=sessions, voxels=voxels, statistics="session", rois=["V1"])
    processor.save_pretrained(tmp_path)
    change_config(tmp_path, statistics_sha256=None)
    return tmp_path


def change_config(folder, **changes):
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("tensor", "change", "message"),
    [
        ("0.mean", lambda a: a.astype(np.int64), "0.mean as I64"),
        ("0.mean", lambda a: a.reshape(-1), "0.mean as F32 of the shape"),
        ("1.std", lambda a: a[:1], r"std of subj01 has the shape \(1, 6\)"),
        ("1.std", lambda a: a[0], "expected F32 with 2 axes"),
        ("1.mean", lambda a: a[:, :5], r"mean of subj01 has the shape \(2, 5\)"),
        ("0.mean", lambda a: a * np.nan, "mean of subj02 has values that are NaN"),
        ("0.std", lambda a: np.full_like(a, np.inf), "std of subj02 has values that are NaN"),
        ("0.std", lambda a: -a, "std of subj02 has negative values"),
        ("0.std", lambda a: 0 * a, "std of subj02 is 0 in all voxels"),
        ("0.selected", lambda a: a[::-1].copy(), "selected of subj02"),
        ("0.selected", lambda a: a + 12, "selected of subj02"),
        ("0.selected", lambda a: a - 1, "selected of subj02"),
        ("0.selected", lambda a: 0 * a, "selected of subj02"),
        ("0.selected", lambda a: a + 1, "keeps voxels of subj02 outside of its rois"),
        ("0.sessions", lambda a: a[:0], "sessions of subj02 is empty"),
        ("0.sessions", lambda a: 0 * a, "sessions of subj02 has a session twice"),
        ("0.num_voxels", lambda a: -a, "num_voxels of subj02"),
        ("0.num_voxels", lambda a: a + 2**40, "num_voxels of subj02"),
        ("0.roi_codes", lambda a: a + 5, "roi_codes of subj02"),
        ("0.roi_codes", lambda a: a[:3], "roi_codes of subj02"),
        ("0.roi_names", lambda a: a + 100, "roi_names of subj02 is no text"),
        ("0.coordinates", lambda a: a[:, :2], "coordinates of subj02"),
        ("0.mean", lambda a: None, "has no 0.mean"),
        ("2.mean", lambda a: np.zeros((1, 6), np.float32), "has '2.mean', which belongs to none of 2 subjects"),
    ],
)
def test_statistics_that_no_training_trials_give_are_refused(saved, tensor, change, message):
    file = saved / "fmri_statistics.st"
    tensors = load_file(file)
    changed = change(tensors.get(tensor))
    save_file({key: v for key, v in {**tensors, tensor: changed}.items() if v is not None}, file)
    with pytest.raises(FmriModelsError, match=message) as caught:
        FmriProcessor.from_pretrained(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("part", "value"), [("mean", 0.0), ("mean", 3.0), ("std", 2.0)])
def test_statistics_that_are_the_same_in_all_voxels_are_refused(tmp_path, part, value):
    FmriProcessor.fit(make_fmri()).save_pretrained(tmp_path)
    change_config(tmp_path, statistics_sha256=None)
    tensors = load_file(tmp_path / "fmri_statistics.st")
    tensors[f"0.{part}"][:] = value
    save_file(tensors, tmp_path / "fmri_statistics.st")
    with pytest.raises(FmriModelsError, match=f"{part} of subj01 is {value:g} in all of 12 voxels"):
        FmriProcessor.from_pretrained(tmp_path)


def test_betas_that_are_centred_exactly_are_no_damage(tmp_path):
    signs = np.random.default_rng(0).choice([-3, -1, 2], size=(20, 12))
    FmriProcessor.fit(np.concatenate([signs, -signs]).astype(np.float32)).save_pretrained(tmp_path)
    FmriProcessor.from_pretrained(tmp_path)


def test_betas_that_were_standardised_before_are_no_damage(tmp_path):
    fmri = make_fmri()
    FmriProcessor.fit((fmri - fmri.mean(0)) / fmri.std(0)).save_pretrained(tmp_path)
    FmriProcessor.from_pretrained(tmp_path)


def test_any_change_of_the_statistics_is_noticed(tmp_path):
    FmriProcessor.fit(make_fmri()).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "fmri_statistics.st")
    tensors["0.mean"][0, 3] += 1
    save_file(tensors, tmp_path / "fmri_statistics.st")
    with pytest.raises(FmriModelsError, match="is not the file that the processor was saved with"):
        FmriProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_multiple": []}, "as 'pad_multiple'"),
        ({"pad_multiple": 0}, "as 'pad_multiple'"),
        ({"pool_width": 2**63}, "as 'pool_width'"),
        ({"pool_width": True}, "as 'pool_width'"),
        ({"rois": "V1"}, "as 'rois'"),
        ({"statistics": "x"}, "as 'statistics'"),
        ({"statistics": "pooled"}, "sessions of subj02 has 2 sessions"),
        ({"statistics": "identity"}, "sessions of subj02 has 2 sessions"),
        ({"subject_names": ["subj02"]}, "belongs to none of 1 subjects"),
        ({"subject_names": ["subj02", "subj02"]}, "has a subject twice"),
        ({"subject_names": ["subj02", "../x"]}, "can't be used as a file name"),
        ({"num_best_voxels": 2}, "keeps 6 voxels of subj02, more than its num_best_voxels"),
        ({"statistics_sha256": "x"}, "as 'statistics_sha256'"),
        ({"__class__": 1}, "has '__class__', which is not known there"),
        ({"auto_map": {"AutoFeatureExtractor": "evil.X"}}, "has 'auto_map', which is not known there"),
    ],
)
def test_a_changed_configuration_is_refused(saved, changes, message):
    change_config(saved, **changes)
    with pytest.raises(FmriModelsError, match=message):
        FmriProcessor.from_pretrained(saved)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', '{"a": ' + "[" * 100_000])
def test_a_configuration_that_is_none(saved, text):
    (saved / "preprocessor_config.json").write_text(text)
    with pytest.raises(FmriModelsError, match="processor's configuration"):
        FmriProcessor.from_pretrained(saved)


@pytest.mark.slow
def test_saved_processors_are_the_same_bytes_and_the_former_name_is_read(saved, tmp_path):
    processor = FmriProcessor.from_pretrained(saved)
    code = (
        "import sys\nfrom fmri_models import FmriProcessor\n"
        "FmriProcessor.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])"
    )
    for number in range(2):
        assert run_program(code, saved, tmp_path / str(number)).returncode == 0
    processor.save_pretrained(tmp_path / "2")
    for name in ("preprocessor_config.json", "fmri_statistics.st"):
        assert len({(tmp_path / str(number) / name).read_bytes() for number in range(3)}) == 1
    (tmp_path / "2" / "fmri_statistics.st").rename(tmp_path / "2" / "fmri_statistics.safetensors")
    former = FmriProcessor.from_pretrained(tmp_path / "2")
    former.save_pretrained(tmp_path / "2")
    assert not (tmp_path / "2" / "fmri_statistics.safetensors").exists()
    assert FmriProcessor.from_pretrained(tmp_path / "2").to_dict() == processor.to_dict()


# Sessions with few training trials


def by_session(counts, offset=0.0, seed=0):
    """Betas of sessions with so many trials each, which differ by some standard deviations, and their sessions."""
    sessions = np.repeat(np.arange(1, len(counts) + 1), counts)
    fmri = make_fmri(len(sessions), seed=seed)
    shift = np.random.default_rng(seed).normal(size=(len(counts), fmri.shape[1]))
    return fmri + offset * shift[sessions - 1], sessions


@pytest.mark.parametrize("few", [1, 2, 9])
def test_a_session_with_few_trials_has_the_pooled_statistics(few, tmp_path):
    fmri, sessions = by_session([30, few, 30])
    with pytest.warns(UserWarning, match=r"fewer than 10 training trials .* 2 of subj01") as caught:
        processor = FmriProcessor.fit(fmri, sessions=sessions, statistics="session")
    assert len(caught) == 1
    assert processor.pooled_sessions("subj01") == [2]
    pooled = FmriProcessor.fit(fmri)(fmri)["fmri"]
    torch.testing.assert_close(processor(fmri, session=2)["fmri"], pooled, rtol=1e-4, atol=1e-4)
    own = processor(fmri[:30], session=1)["fmri"].numpy()
    np.testing.assert_allclose(own.std(0), 1, atol=1e-3)
    processor.save_pretrained(tmp_path)
    loaded = FmriProcessor.from_pretrained(tmp_path, unseen_session="pooled")
    assert loaded.pooled_sessions("subj01") == [2]
    assert torch.equal(loaded(fmri, session=sessions)["fmri"], processor(fmri, session=sessions)["fmri"])
    torch.testing.assert_close(loaded(fmri, session=99)["fmri"], pooled, rtol=1e-4, atol=1e-4)


def test_no_pattern_of_any_design_of_sessions_becomes_zero():
    for counts in ([1, 1], [1, 2, 3], [40, 1], [9, 9, 9], [10, 1, 1]):
        fmri, sessions = by_session(counts, offset=3.0)
        processor = FmriProcessor.fit(fmri, sessions=sessions, statistics="session")
        processed = processor(make_fmri(len(fmri), seed=5), session=sessions)["fmri"]
        assert (processed != 0).all(), counts


def test_the_number_of_trials_is_an_option():
    fmri, sessions = by_session([30, 4])
    assert (
        FmriProcessor.fit(fmri, sessions=sessions, statistics="session", min_session_trials=4).pooled_sessions("subj01")
        == []
    )
    with pytest.raises(FmriModelsError, match="min_session_trials"):
        FmriProcessor.fit(fmri, min_session_trials=1)


def test_one_session_alone_is_its_own_pool():
    fmri, sessions = by_session([5])
    assert FmriProcessor.fit(fmri, sessions=sessions, statistics="session").pooled_sessions("subj01") == []


def test_a_session_of_one_stimulus_keeps_the_response_to_it():
    fmri, sessions = by_session([20, 20])
    response = 5 * fmri.std(0)
    fmri[20:] += response
    stimuli = np.array([f"s{row}" for row in range(20)] + ["same"] * 20)
    with pytest.warns(UserWarning, match="in effect fewer stimuli"):
        processor = FmriProcessor.fit(fmri, sessions=sessions, stimuli=stimuli, statistics="session")
    assert processor.pooled_sessions("subj01") == [2]
    assert processor(fmri[20:], session=2)["fmri"].mean(0).min() > 0.5
    assert FmriProcessor.fit(fmri, sessions=sessions, statistics="session").pooled_sessions("subj01") == []


@pytest.mark.parametrize(
    ("shown", "pooled"),
    [
        # Session ▶ stimuli, one a trial.
        ({s: [2 * s, 2 * s + 1] * 6 for s in range(6)}, [0, 1, 2, 3, 4, 5]),
        ({s: [3 * s, 3 * s + 1, 3 * s + 2] * 5 for s in range(6)}, [0, 1, 2, 3, 4, 5]),
        ({s: range(10 * s, 10 * s + 10) for s in range(6)}, []),
        ({0: range(40), 1: [40, 41, 42] * 6}, [1]),
        ({0: range(40), 1: [40] * 100 + [*range(30)]}, [1]),
        ({s: [*range(9 * s, 9 * s + 9)] * 2 for s in range(6)}, [0, 1, 2, 3, 4, 5]),
        # What all sessions show is nothing that sessions differ by.
        ({s: [*range(8)] * 4 for s in range(5)}, []),
        ({s: [i for i in range(8) if i != s] * 4 for s in range(5)}, []),
        ({0: [0, 1] * 8, 1: [0, 1] * 30}, []),
        ({0: [0, 1] * 8, 1: [2, 3] * 8}, [0, 1]),
        ({0: [0, 1] * 8}, []),
    ],
)
def test_sessions_of_few_stimuli_have_the_pooled_statistics(shown, pooled):
    stimuli = np.array([f"s{i}" for each in shown.values() for i in each])
    sessions = np.repeat(list(shown), [len(each) for each in shown.values()])
    fmri = make_fmri(len(sessions))
    processor = FmriProcessor.fit(fmri, sessions=sessions, stimuli=stimuli, statistics="session")
    assert processor.pooled_sessions("subj01") == pooled
    assert FmriProcessor.fit(fmri, sessions=sessions, statistics="session").pooled_sessions("subj01") == []


def test_a_voxel_that_is_constant_in_one_session_is_not_lost_there():
    fmri, sessions = by_session([20, 20])
    fmri[20:, 3] = 7.0
    processor = FmriProcessor.fit(fmri, sessions=sessions, statistics="session")
    assert processor.num_dead_voxels("subj01") == 0
    processed = processor(fmri[20:], session=2)["fmri"]
    assert (processed[:, 3].abs() < 1e-3).all()
    other = fmri[20:].copy()
    other[:, 3] += fmri[:20, 3].std()
    assert (processor(other, session=2)["fmri"][:, 3] > 0.3).all()


def test_a_voxel_that_is_constant_in_every_session_is_dead():
    fmri, sessions = by_session([20, 20])
    fmri[:20, 3], fmri[20:, 3] = 1.0, 9.0
    with pytest.warns(UserWarning, match="1 of subj01"):
        processor = FmriProcessor.fit(fmri, sessions=sessions, statistics="session")
    assert processor.num_dead_voxels("subj01") == 1


def test_statistics_of_a_former_version_are_read(tmp_path):
    fmri, sessions = by_session([20, 20], offset=2.0)
    processor = FmriProcessor.fit(fmri, sessions=sessions, statistics="session", unseen_session="pooled")
    expected = processor(fmri, session=7)["fmri"]
    processor.save_pretrained(tmp_path)
    file = tmp_path / "fmri_statistics.st"
    save_file({key: value for key, value in load_file(file).items() if key != "0.pooled"}, file)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    for key in ("min_session_trials", "noise_ceiling_source", "statistics_sha256"):
        del config[key]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    former = FmriProcessor.from_pretrained(tmp_path)
    assert torch.equal(former(fmri, session=sessions)["fmri"], processor(fmri, session=sessions)["fmri"])
    torch.testing.assert_close(former(fmri, session=7)["fmri"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("tensor", "values", "message"),
    [
        ("pooled", np.zeros((1, 6), np.float32), "pooled of subj02 has the shape"),
        ("pooled", np.full((2, 6), np.nan, np.float32), "pooled of subj02 has values that are not finite"),
        ("pooled", np.array([[1] * 6, [-1] * 6], np.float32), "pooled of subj02 has values that are not finite, or a"),
        ("pooled_sessions", np.array([4]), "pooled_sessions of subj02 has others"),
        ("source_width", np.array([13]), "source_width of subj02 is missing"),
    ],
)
def test_further_statistics_that_no_training_trials_give_are_refused(saved, tensor, values, message):
    file = saved / "fmri_statistics.st"
    save_file({**load_file(file), f"0.{tensor}": values}, file)
    with pytest.raises(FmriModelsError, match=message):
        FmriProcessor.from_pretrained(saved)


def test_sessions_of_patterns_are_whole_numbers_one_a_pattern():
    fmri, sessions = by_session([20, 20])
    processor = FmriProcessor.fit(fmri, sessions=sessions, statistics="session")
    for wrong in (1.9, True, "1", [1, 2], [1.5] * 40, [[1] * 40]):
        with pytest.raises(FmriModelsError, match="session"):
            processor(fmri, session=wrong)
    with pytest.raises(FmriModelsError, match="session"):
        FmriProcessor.fit(fmri, sessions=sessions + 0.5, statistics="session")
    for wrong in (sessions[:-1], {"subj01": sessions[:-1]}):
        with pytest.raises(FmriModelsError, match="39 sessions"):
            FmriProcessor.fit({"subj01": fmri} if isinstance(wrong, dict) else fmri, sessions=wrong)
    clips = processor(fmri.reshape(20, 2, 12), session=sessions.reshape(20, 2))["fmri"]
    assert torch.equal(clips.reshape(40, 12), processor(fmri, session=sessions)["fmri"])


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_best_voxel": 2}, "no option 'num_best_voxel'.*Did you mean 'num_best_voxels'?"),
        ({"unseen_sesion": "pooled"}, "Did you mean 'unseen_session'?"),
        ({"statistic": "pooled"}, "Did you mean 'statistics'?"),
        ({"zzz": 1}, "no option 'zzz'; it has statistics"),
        ({"subject_names": ["a"]}, "no option 'subject_names'"),
        ({"unseen_session": "poold"}, "unseen_session is 'poold'; expected one of error, pooled, from_batch"),
        ({"rois": "V1"}, "as 'rois'"),
        ({"num_best_voxels": 2.5}, "as 'num_best_voxels'"),
        ({"num_best_voxels": True}, "as 'num_best_voxels'"),
        ({"num_best_voxels": 0}, "as 'num_best_voxels'"),
        ({"min_noise_ceiling": float("nan")}, "as 'min_noise_ceiling'"),
        ({"pool_width": "8"}, "as 'pool_width'"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(FmriModelsError, match=message):
        FmriProcessor.fit(make_fmri(), **options)
    if "subject_names" not in options:
        with pytest.raises(FmriModelsError, match=message):
            FmriProcessor(**options)


def test_numbers_of_numpy_are_options():
    labels = Labels(roi=["V1"] * 12, noise_ceiling=np.linspace(0, 1, 12))
    options = {"num_best_voxels": np.int64(3), "min_noise_ceiling": np.float32(0.1), "rois": np.array(["V1"])}
    assert FmriProcessor.fit(make_fmri(), voxels={"subj01": labels}, **options).num_voxels == [3]


def test_options_in_place_of_the_saved_ones(saved):
    assert FmriProcessor.from_pretrained(saved, unseen_session="pooled").unseen_session == "pooled"
    assert FmriProcessor.from_pretrained(saved, pad_multiple=8, statistics="session").num_voxels == [8, 8]
    for options, message in (
        ({"unseen_sesion": "pooled"}, "Did you mean 'unseen_session'?"),
        ({"unseen_session": "poold"}, "unseen_session is 'poold'"),
        ({"statistics": "pooled"}, "statistics is 'session' in this processor, whose statistics were computed so"),
        ({"rois": ["V2"]}, "rois is .'V1'. in this processor"),
        ({"min_session_trials": 3}, "min_session_trials is 10"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            FmriProcessor.from_pretrained(saved, **options)


def test_unseen_sessions_by_attribute(saved):
    processor = FmriProcessor.from_pretrained(saved)
    processor.unseen_session = "pooled"
    assert torch.isfinite(processor(make_fmri(), subject="subj02", session=99)["fmri"]).all()
    with pytest.raises(FmriModelsError, match="unseen_session is 'poold'"):
        processor.unseen_session = "poold"
    with pytest.raises(FmriModelsError, match="fit a processor anew"):
        processor.statistics = "pooled"


# Input


def test_betas_of_any_kind_of_array_give_the_same():
    import pandas as pd

    fmri = make_fmri().astype(np.float32)
    processor = FmriProcessor.fit(fmri)
    expected = processor(fmri)["fmri"]
    kinds = (fmri.astype(">f4"), fmri.astype(np.longdouble), torch.from_numpy(fmri), pd.DataFrame(fmri), fmri.tolist())
    for values in (*kinds, list(fmri), [torch.from_numpy(row) for row in fmri]):
        assert torch.equal(processor(values)["fmri"], expected)
        np.testing.assert_allclose(FmriProcessor.fit(values).subject("subj01").mean, processor.subject("subj01").mean)
    short = torch.from_numpy(fmri).bfloat16()
    assert torch.equal(processor(short)["fmri"], processor(short.float())["fmri"])


def test_what_is_no_array_of_numbers_is_refused_in_fitting_and_in_use():
    fmri = make_fmri()
    processor = FmriProcessor.fit(fmri)
    for values in (np.ma.masked_less(fmri, 0), fmri > 0, fmri.astype(complex), fmri.astype(object), fmri.astype(str)):
        for call in (processor, FmriProcessor.fit, lambda block: FmriProcessor.fit({"s": iter([block])})):
            with pytest.raises(FmriModelsError, match=r"masked array|have the dtype"):
                call(values)
    with pytest.raises(FmriModelsError, match="NaN or infinite"):
        FmriProcessor.fit(fmri * 1e38)


# Voxels that were dropped in preparation


@dataclass
class LabelsOfKept(Labels):
    source_columns: np.ndarray | None = None
    source_width: int | None = None


def test_patterns_of_the_recorded_width_lose_the_voxels_that_were_dropped(tmp_path):
    recorded = make_fmri(voxels=15)
    kept = np.array([0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 14])
    labels = LabelsOfKept(source_columns=kept, source_width=15)
    processor = FmriProcessor.fit(recorded[:, kept], voxels={"subj01": labels})
    expected = processor(recorded[:, kept])["fmri"]
    processor.save_pretrained(tmp_path)
    recorded[:, 3] = np.nan
    for each in (processor, FmriProcessor.from_pretrained(tmp_path)):
        assert torch.equal(each(recorded)["fmri"], expected)
        assert torch.equal(each(recorded[:, kept])["fmri"], expected)
        assert torch.equal(each([recorded[0], recorded[1][kept]])["fmri"], expected[:2])
        with pytest.raises(FmriModelsError, match="has 14 voxels; the processor was fitted on 12, .* of 15 recorded"):
            each(recorded[:, :14])


def test_values_of_voxels_are_one_a_voxel():
    fmri = make_fmri()
    for labels, options in (
        (Labels(roi=["V1"] * 11), {"rois": ["V1"]}),
        (Labels(noise_ceiling=np.ones(13)), {"min_noise_ceiling": 0.1}),
        (Labels(noise_ceiling=np.ones(13)), {"num_best_voxels": 3}),
    ):
        with pytest.raises(FmriModelsError, match=r"there are 1[13] for 12 voxels"):
            FmriProcessor.fit(fmri, voxels={"subj01": labels}, **options)
    with pytest.raises(FmriModelsError, match="there are 2 for 12 voxels"):
        FmriProcessor.fit(fmri, voxel_scores={"subj01": np.ones(2)}, num_best_voxels=1)


@pytest.mark.parametrize(
    ("roi", "wanted", "message"),
    [
        ([""] * 12, "V9", "no voxel in V9; none of its voxels has an ROI; choose"),
        (["", "V1"] * 6, "V9", "no voxel in V9; its ROIs are V1; choose"),
        (["", "V1"] * 6, "", "no voxel in ''; its ROIs are V1; choose"),
    ],
)
def test_a_voxel_without_a_label_is_of_no_roi(roi, wanted, message):
    with pytest.raises(FmriModelsError, match=message):
        FmriProcessor.fit(make_fmri(), voxels={"subj01": Labels(roi=roi)}, rois=[wanted])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("unseen_sesion", "pooled", "has no option 'unseen_sesion'.*unseen_session"),
        ("note", "x", "has no option 'note'"),
        ("statistics_sha256", "0" * 64, "has no option"),
        ("model_input_names", ["x"], "has no option"),
        ("num_best_voxels", 3, "num_best_voxels is None in this processor"),
        ("rois", ["V1"], "rois is None in this processor"),
        ("min_noise_ceiling", 0.5, "min_noise_ceiling is None"),
        ("min_session_trials", 3, "min_session_trials is 10"),
        ("statistics", "identity", "statistics is 'pooled'"),
        ("subject_names", ["anna"], "subject_names is .'subj01'."),
        ("pool_width", 0, "pool_width"),
        ("pool_width", "3", "pool_width"),
        ("pad_multiple", 1.5, "pad_multiple"),
        ("expects", 3, "expects"),
        ("unseen_session", "poold", "unseen_session is 'poold'"),
    ],
)
def test_what_could_not_be_loaded_again_is_refused_when_it_is_assigned(name, value, message):
    processor = FmriProcessor.fit(make_fmri())
    before = processor.to_dict()
    with pytest.raises(FmriModelsError, match=message):
        setattr(processor, name, value)
    assert processor.to_dict() == before


def test_what_may_be_assigned_is_saved(tmp_path):
    processor = FmriProcessor.fit(make_fmri(), pad_multiple=np.int64(4))
    processor.pool_width, processor.expects, processor.rois = np.int32(3), "betas", None
    processor.save_pretrained(tmp_path)
    loaded = FmriProcessor.from_pretrained(tmp_path)
    assert (loaded.pool_width, loaded.pad_multiple, loaded.expects) == (3, 4, "betas")


@pytest.mark.parametrize("selected", [None, 4])
def test_a_value_that_is_not_finite_is_named_by_its_voxel_in_what_was_given(selected):
    """Also where voxels were dropped in preparation, or are not among those that the model reads."""
    kept = np.delete(np.arange(14), [3, 9])
    fmri = make_fmri(voxels=12)
    labels = DroppedLabels(noise_ceiling=np.linspace(0, 1, 12), source_columns=kept, source_width=14)
    processor = FmriProcessor.fit(fmri, voxels={"subj01": labels}, num_best_voxels=selected)
    narrow, wide = fmri[0].copy(), np.zeros(14)
    wide[kept] = narrow
    wide[3] = np.nan
    assert np.array_equal(processor(wide)["fmri"], processor(narrow)["fmri"])
    # 3e38, divided by a spread below 1, is beyond float32.
    statistics = processor.subject("subj01")
    tight = int(np.flatnonzero(statistics.std[0] < 0.9)[0])
    voxel = int(statistics.selected[tight])
    for value in (np.nan, 3.4e38):
        bad_narrow, bad_wide = narrow.copy(), wide.copy()
        bad_narrow[voxel] = bad_wide[kept[voxel]] = value
        for patterns, number in (
            (bad_narrow, voxel),
            (bad_wide, kept[voxel]),
            ([narrow, bad_wide], kept[voxel]),
            ([wide, bad_narrow], voxel),
        ):
            with pytest.raises(FmriModelsError, match=f"at voxel {number};"):
                processor(patterns)


@pytest.mark.parametrize("subject", [1, 0, True, b"subj01", [1], [b"subj01"], ["subj01", None], 1.5, np.array([1])])
def test_what_is_no_subject_is_a_sentence(subject):
    with pytest.raises(FmriModelsError, match=r"^subject is .*; expected a subject's name.* it knows subj01\.$"):
        FmriProcessor.fit(make_fmri())(make_fmri()[:2], subject=subject)


def test_subjects_of_numpy_are_names():
    processor, fmri = FmriProcessor.fit(make_fmri()), make_fmri()[:2]
    for subject in (np.array(["subj01", "subj01"]), np.str_("subj01")):
        assert processor(fmri, subject=subject)["subject_ids"].tolist() == [0, 0]


def test_without_a_kind_of_tensor_there_are_arrays():
    processor = FmriProcessor.fit(make_fmri())
    inputs = processor(make_fmri(3), return_tensors=None)
    assert all(isinstance(values, np.ndarray) for values in inputs.values())
    np.testing.assert_array_equal(inputs["fmri"], processor(make_fmri(3), return_tensors="np")["fmri"])


def test_a_session_that_is_missing_is_named_as_python_and_the_command_take_it():
    processor = FmriProcessor.fit(make_fmri(40), sessions=[1] * 20 + [2] * 20, statistics="session")
    with pytest.raises(FmriModelsError, match=r"session= \(--session on the command line\) which one these trials are"):
        processor(make_fmri(3))
