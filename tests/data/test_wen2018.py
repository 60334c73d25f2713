"""`fmri-models prepare wen2018` on small files in both layouts."""

import json

import numpy as np
import pytest
import torch

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from tests.fabricated import wen2018 as wen


def prepared(source, out, **options) -> TrialTable:
    load_preparation("wen2018")(source, out, incomplete=True, overwrite=True, **options)
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def mindvideo(tmp_path_factory):
    return wen.mindvideo(tmp_path_factory.mktemp("wen") / "mindvideo")


@pytest.fixture(scope="module")
def neuroclips(tmp_path_factory):
    return wen.neuroclips(tmp_path_factory.mktemp("wen") / "neuroclips")


def windows_by_clip(table: TrialTable) -> dict[str, np.ndarray]:
    trials = table.all_trials("subj01")
    return dict(zip(trials.stimulus_ids.tolist(), trials.windows(), strict=True))


def test_windows_are_the_volume_and_those_after_it(mindvideo, tmp_path):
    table = prepared(mindvideo, tmp_path / "t")
    assert table.window_shape("subj01") == (2, wen.WIDTH)
    assert (table.windows.seconds_per_sample, table.windows.lag_seconds) == (2, 0)
    found = windows_by_clip(table)
    assert len(found) == 4 * wen.VOLUMES
    for part, segment, volume, second in (("train", 0, 0, 1), ("train", 1, 239, 239), ("test", 0, 17, 18)):
        expected = [wen.response(part, segment, v) for v in (volume, second)]
        assert np.array_equal(found[f"{part}{segment + 1:02d}-{volume:03d}"], np.float32(expected))
    assert set(table.trials("subj01", "test").stimulus_ids) == {f"test01-{v:03d}" for v in range(wen.VOLUMES)}
    # Two of the three training segments are validation, so that no window reaches from one part into another.
    assert set(table.trials("subj01", "train").runs) == {1} and set(table.trials("subj01", "validation").runs) == {2, 3}


def test_a_lag_moves_windows_within_their_segment(mindvideo, tmp_path):
    table = prepared(mindvideo, tmp_path / "t", window=3, lag=2)
    assert table.windows.lag_seconds == 4 and table.window_shape("subj01") == (3, wen.WIDTH)
    found = windows_by_clip(table)
    assert np.array_equal(found["train01-010"], np.float32([wen.response("train", 0, v) for v in (12, 13, 14)]))
    assert np.array_equal(found["train01-237"], np.float32([wen.response("train", 0, 239)] * 3))
    assert "a window begins 4 s after" in (tmp_path / "t" / "README.md").read_text()


@pytest.mark.slow
def test_a_clip_has_its_third_frame_its_captions_and_where_it_is(mindvideo, tmp_path):
    table = prepared(mindvideo, tmp_path / "t")
    assert np.array_equal(table.stimuli.images(["train02-003"])[0], wen.frames("train")[1, 3, 2])
    assert table.stimuli.captions(["train02-003"]) == [["train 1 3"]]
    clip = table.stimuli.clips(["train02-003"])[0]
    assert (clip.file, clip.start, clip.seconds) == ("preprocessed/video_train_256_3hz.npy", 486.0, 2.0)
    whole = prepared(mindvideo, tmp_path / "t", clips="frames", scenes="single", size=3)
    assert whole.stimuli.clips(["test01-001"], frames=True)[0].pixels().shape == (6, 3, 3, 3)
    assert len(whole.trials("subj01", "test")) == wen.VOLUMES * 9 // 10 and "test01-010" not in whole.stimuli
    assert not prepared(mindvideo, tmp_path / "t", clips="none").stimuli.has_clips


def test_neuroclips_pack(neuroclips, tmp_path):
    table = prepared(neuroclips, tmp_path / "t", clips="frames")
    assert table.window_shape("subj01") == (1, wen.WIDTH)
    found = windows_by_clip(table)
    assert np.allclose(found["train02-007"][0], wen.response("train", 1, 7, 0.5), atol=0.1)
    assert np.allclose(found["test01-007"][0], wen.response("test", 0, 7, 4.5), atol=0.1)
    assert np.array_equal(table.stimuli.clips(["test01-007"], frames=True)[0].pixels(), wen.frames("test")[0, 7])
    single = prepared(neuroclips, tmp_path / "t", repeats="single")
    test = single.trials("subj01", "test")
    own = test.stimulus_ids == "test01-007"
    assert own.sum() == 10 and test.repetitions[own].tolist() == list(range(10))
    assert np.allclose(test.windows()[own][3], wen.response("test", 0, 7, 3), atol=0.1)
    with pytest.raises(FmriModelsError, match="don't say which clips follow each other"):
        prepared(neuroclips, tmp_path / "t", window=2)


def test_what_is_wrong_is_a_sentence(mindvideo, tmp_path, capsys):
    read = load_preparation("wen2018")
    with pytest.raises(FmriModelsError, match="960 trials, and not 5,520"):
        read(mindvideo, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert main(["prepare", "wen2018", "--source", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert "purr.purdue.edu" in capsys.readouterr().err
    source = wen.mindvideo(tmp_path / "tested", ("test",))
    with pytest.raises(FmriModelsError, match="has no train part"):
        read(source, tmp_path / "out")
    fmri = source / "preprocessed" / "fmri_test_subject1.npy"
    with pytest.raises(FmriModelsError, match=r"shape \(1, 239, 5\); expected \(5, 240, vertices\)"):
        np.save(fmri, np.ones((1, 239, 5)))
        prepared(source, tmp_path / "out")
    fmri.write_bytes(fmri.read_bytes()[:-9])
    with pytest.raises(FmriModelsError, match="cut short"):
        prepared(source, tmp_path / "out")
    np.save(fmri, np.full((1, 240, 5), np.nan))
    with pytest.raises(FmriModelsError, match="nothing but NaN"):
        prepared(source, tmp_path / "out")
    np.save(fmri, np.random.default_rng(0).normal(size=(1, 240, 5)))
    np.save(source / "preprocessed" / "test_seg_id_3hz.npy", np.array([["a"] * 240] * 5, dtype=object))
    with pytest.raises(FmriModelsError, match="needed for scenes=single"):
        prepared(source, tmp_path / "out", scenes="single")
    (tmp_path / "pack").mkdir()
    torch.save({"fmri": torch.ones(2)}, tmp_path / "pack" / "subj01_train_fmri.pt")
    with pytest.raises(FmriModelsError, match=r"holds a dictionary \(fmri\); expected a tensor"):
        prepared(tmp_path / "pack", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_from_the_files_to_a_report(mindvideo, tmp_path):
    out = tmp_path / "table"
    command = ["prepare", "wen2018", "--source", str(mindvideo), "--out", str(out), "--option", "incomplete=yes"]
    assert main(command) == 0
    assert main(["train", "linear", f"data={out}", f"out={tmp_path / 'model'}", "generator=pixels"]) == 0
    command = ["evaluate", "--model", str(tmp_path / "model"), "--data", str(out), "--protocol", "small_pictures"]
    assert main([*command, "--rows", "shuffled_brain", "--out", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert "2 x 5 (time x voxels)" in report["data"]["windows"] and report["data"]["num_voxels"] == {"subj01": 10}
