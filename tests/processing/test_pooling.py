"""Patterns of all subjects brought to one width: windows as the original's, by ROI, saved, and before the average."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmri_models import FmriProcessor
from fmri_models.data import Voxels
from fmri_models.errors import FmriModelsError
from fmri_models.processing.patterns import pooled, roi_widths

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "mindbridge"
FIXTURE = load_file(FOLDER / "pool_voxels.safetensors")
CASES = json.loads((FOLDER / "pool_voxels.json").read_text())["cases"]
NAMES = {"max": "max", "avg": "average", "resize": "resize"}


@pytest.mark.parametrize("case", CASES, ids=[case["tag"] for case in CASES])
@pytest.mark.parametrize("kind", NAMES)
def test_windows_are_those_of_the_original(case, kind):
    tag = case["tag"]
    if f"{tag}/{kind}" not in FIXTURE:
        assert kind not in case.get("kinds", [])
        return
    found = torch.from_numpy(pooled(FIXTURE[f"{tag}/in"].numpy(), case["pool_num"], NAMES[kind]))
    torch.testing.assert_close(found, FIXTURE[f"{tag}/{kind}"], rtol=0, atol=0 if kind == "max" else 1e-6)


def test_half_precision_is_pooled_in_single():
    values = FIXTURE["half/in"].numpy().astype(np.float32)
    assert torch.equal(torch.from_numpy(pooled(values, 16)), FIXTURE["half/max"].float())


def betas(trials: int, voxels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(2.0, 3.0, size=(trials, voxels))


def labels(*roi: str) -> Voxels:
    return Voxels(list(roi), None, None, None, "", 0)


SUBJECTS = {"subj01": betas(20, 30), "subj02": betas(20, 5, 1)}
ROIS = {"subj01": labels(*["V1"] * 18, *["V2"] * 6, *["LO"] * 6), "subj02": labels("V2", "V1", "V1", "V2", "V1")}


@pytest.mark.parametrize("pooling", ["max", "average", "resize"])
def test_subjects_of_any_size_have_one_width_and_keep_it(tmp_path, pooling):
    processor = FmriProcessor.fit(SUBJECTS, pool_width=12, pooling=pooling)
    assert processor.num_voxels == [12, 12]
    plain = FmriProcessor.fit(SUBJECTS)
    processor.save_pretrained(tmp_path)
    loaded = FmriProcessor.from_pretrained(tmp_path)
    assert loaded.pooling == pooling
    for name, fmri in SUBJECTS.items():
        standard = plain(fmri, subject=name)["fmri"][:, : fmri.shape[1]].numpy()
        expected = torch.from_numpy(pooled(standard, 12, pooling))
        for each in (processor, loaded):
            torch.testing.assert_close(each(fmri, subject=name)["fmri"], expected)


def test_trials_are_pooled_before_they_are_averaged():
    processor = FmriProcessor.fit({"subj01": betas(20, 30)}, pool_width=6)
    three = betas(3, 30, 7)
    single = torch.stack([processor(trial)["fmri"][0] for trial in three])
    torch.testing.assert_close(processor(three)["fmri"].mean(0), single.mean(0))
    assert not torch.allclose(processor(three.mean(0))["fmri"][0], single.mean(0))


class TestByRoi:
    def test_each_has_a_share_which_is_the_same_for_all_subjects(self, tmp_path):
        processor = FmriProcessor.fit(SUBJECTS, voxels=ROIS, pool_width=10, pool_by_roi=True)
        widths = processor.pool_by_roi
        # V1 has three fifths of the voxels of both.
        assert list(widths) == ["LO", "V1", "V2"] and sum(widths.values()) == 10
        assert widths["V1"] > widths["V2"] > widths["LO"] >= 1
        standard = FmriProcessor.fit(SUBJECTS)(SUBJECTS["subj02"], subject="subj02")["fmri"].numpy()
        found = processor(SUBJECTS["subj02"], subject="subj02")["fmri"].numpy()
        first, second = widths["LO"], widths["LO"] + widths["V1"]
        # It has no voxel there.
        assert (found[:, :first] == 0).all()
        np.testing.assert_allclose(found[:, first:second], pooled(standard[:, [1, 2, 4]], widths["V1"]))
        np.testing.assert_allclose(found[:, second:], pooled(standard[:, [0, 3]], widths["V2"]))
        processor.save_pretrained(tmp_path)
        loaded = FmriProcessor.from_pretrained(tmp_path)
        assert loaded.pool_by_roi == widths
        np.testing.assert_array_equal(loaded(SUBJECTS["subj02"], subject="subj02")["fmri"].numpy(), found)

    def test_another_fit_takes_the_same_columns(self):
        options = FmriProcessor.fit(SUBJECTS, voxels=ROIS, pool_width=10, pool_by_roi=True).options
        other = FmriProcessor.fit({"new": betas(20, 8)}, voxels={"new": labels(*["V1"] * 8)}, **options)
        assert other.pool_by_roi == options["pool_by_roi"] and other.num_voxels == [10]

    def test_shares(self):
        assert roi_widths([["a"] * 3 + ["b"]], 10) == {"a": 7, "b": 3}
        assert roi_widths([["a"] * 3 + ["b"], ["b"] * 2 + ["c"]], 9).keys() == {"a", "b", "c"}
        assert roi_widths([["a", "b", "c"]], 3) == {"a": 1, "b": 1, "c": 1}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pool_by_roi": True}, "pool_width is None"),
            ({"pool_by_roi": {"V1": 3}, "pool_width": 4}, "its columns are 3 together; set pool_width=3"),
            ({"pool_by_roi": {"V1": 0}, "pool_width": 4}, "pool_by_roi"),
            ({"pooling": "median", "pool_width": 4}, "pooling"),
            ({"pool_by_roi": True, "pool_width": 2}, "of 3 ROIs, each of which needs a column"),
            ({"pool_by_roi": {"FFA": 4}, "pool_width": 4}, "has no voxel in FFA"),
        ],
    )
    def test_what_does_not_fit_is_a_sentence(self, options, message):
        with pytest.raises(FmriModelsError, match=message):
            FmriProcessor.fit(SUBJECTS, voxels=ROIS, **options)(SUBJECTS["subj01"], subject="subj01")

    def test_voxels_without_labels_are_a_sentence(self):
        with pytest.raises(FmriModelsError, match="needs the ROI of each voxel of subj01"):
            FmriProcessor.fit(SUBJECTS, pool_width=10, pool_by_roi=True)
