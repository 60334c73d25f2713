"""`fmri-models prepare eeg_voa` and `things_eeg` on small files in the published layouts."""

import json

import numpy as np
import pytest
import torch

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from tests.fabricated import eeg


def prepared(name, source, out, **options) -> TrialTable:
    load_preparation(name)(source, out, overwrite=True, **options)
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def voa(tmp_path_factory):
    return eeg.write_voa(tmp_path_factory.mktemp("voa") / "source")


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return eeg.write_things(tmp_path_factory.mktemp("things") / "source")


def test_voa_trials_are_channels_by_samples(voa, tmp_path, capsys):
    table = prepared("eeg_voa", voa, tmp_path / "t", incomplete=True)
    assert (table.modality, table.subjects) == ("eeg", ["subj01", "subj02"])
    assert table.window_shape("subj01") == (128, 440) and table.windows.axes == ("channels", "time")
    assert (table.windows.seconds_per_sample, table.windows.lag_seconds) == (0.001, 0.02)
    trials = table.all_trials("subj02")
    assert len(trials) == len(eeg.NAMES) and len(table.all_trials("subj01")) == len(eeg.NAMES) - 1
    for stimulus, run, window in zip(trials.stimulus_ids, trials.runs, trials.windows(), strict=True):
        image = eeg.NAMES.index(stimulus)
        assert run == image // eeg.PICTURES + 1
        for channel, sample in ((0, 0), (127, 0), (3, 400)):
            assert window[channel, sample] == pytest.approx(eeg.voa_value(2, image, channel, sample + 20), abs=1e-4)
    # A shorter trial ends with its last sample.
    short = trials.windows()[trials.stimulus_ids == "n01_1"][0]
    assert (short[5, 435:] == short[5, 434]).all() and short[5, 434] == pytest.approx(eeg.voa_value(2, 1, 5, 454))
    parts = {part: set(table.trials("subj01", part).stimulus_ids.tolist()) for part in ("train", "validation", "test")}
    assert parts["test"] == {"n01_5", "n02_5", "n03_5"} and parts["validation"] == {"n01_4", "n02_4", "n03_4"}
    assert set(table.stimuli.categories()) == set(eeg.CLASSES)
    card = (tmp_path / "t" / "README.md").read_text().replace("\\", "")
    assert "class and the time of recording are confounded" in card and "EEG, not fMRI" in card and "- eeg\n" in card
    assert main(["data", "info", str(tmp_path / "t")]) == 0
    assert "are confounded" in capsys.readouterr().out


def test_voa_without_published_parts_or_pictures(tmp_path):
    source = eeg.write_voa(tmp_path / "source", pictures=False, splits=False)
    table = prepared("eeg_voa", source, tmp_path / "t", subjects=["subj02"], incomplete=True)
    assert len(table.trials("subj02", "test")) and not any(table.stimuli.content_hashes())


def test_what_is_wrong_with_voa_is_a_sentence(tmp_path):
    read = load_preparation("eeg_voa")
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(FmriModelsError, match=r"eeg_14_70_std.pth is missing; the README of github.com/perceivelab"):
        read(source, tmp_path / "t", band="14_70")
    file = source / "eeg_5_95_std.pth"
    good = {"eeg": torch.ones(128, 500), "image": 0, "label": 0, "subject": 1}
    for content, said in (
        (torch.ones(3), "holds a Tensor without dataset, labels, images"),
        ({"dataset": [good], "labels": ["a"]}, r"a dictionary \(dataset, labels\) without images"),
        ({"dataset": [], "labels": ["a"], "images": ["b"]}, "no lists of trials"),
        ({"dataset": [{**good, "eeg": torch.ones(64, 500)}], "labels": ["a"], "images": ["b"]}, r"is \(64, 500\)"),
        ({"dataset": [{**good, "image": 3}], "labels": ["a"], "images": ["b"]}, r"class and subject \[3, 0, 1\]"),
    ):
        torch.save(content, file)
        with pytest.raises(FmriModelsError, match=said):
            read(source, tmp_path / "t")
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(FmriModelsError, match="incomplete or no checkpoint"):
        read(source, tmp_path / "t")
    torch.save({"dataset": [good], "labels": ["a"], "images": ["b"]}, file)
    torch.save({"splits": [{"train": [0], "val": [], "test": [7]}]}, source / "block_splits_by_image_all.pth")
    with pytest.raises(FmriModelsError, match="has the trial 7 in test"):
        read(source, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_things_trials_are_channels_by_samples(things, tmp_path):
    table = prepared("things_eeg", things, tmp_path / "t", incomplete=True)
    assert table.window_shape("subj01") == (3, 5) and table.modality == "eeg"
    assert table.voxels("subj01").roi == [label for label in eeg.LABELS for _ in range(5)]
    assert "0.2 s before" in table.windows.sentence()
    test = table.trials("subj01", "test")
    for place in range(len(test)):
        picture = int(test.stimulus_ids[place].removeprefix("test").split("_")[0])
        expected = eeg.things_value("test")[picture, test.repetitions[place]]
        assert np.allclose(test.windows(place)[0], expected)
    assert len(test) == 32 and len(table.trials("subj01", ["train", "validation"])) == 48
    later = prepared("things_eeg", things, tmp_path / "t", incomplete=True, from_onset=True, rois=["Oz"])
    assert later.window_shape("subj01") == (1, 3) and later.windows.lag_seconds == 0
    assert np.allclose(
        np.sort(later.trials("subj01", "test").windows().ravel()),
        np.sort(eeg.things_value("test")[:, :, 1, 2:].ravel()),
    )


def test_arrays_that_somebody_has_made_of_the_pickles_give_the_same(things, tmp_path):
    source = eeg.write_things(tmp_path / "source", pickled=False, pictures=False)
    first, second = (
        prepared("things_eeg", each, tmp_path / each.parent.name, incomplete=True) for each in (things, source)
    )
    assert np.array_equal(first.trials("subj01", "test").fmri(), second.trials("subj01", "test").fmri())
    assert first.voxels("subj01").roi == second.voxels("subj01").roi


def test_a_pickle_that_runs_something_is_refused(tmp_path):
    source = eeg.write_things(tmp_path / "source", pictures=False)
    marker = tmp_path / "ran"
    (source / "image_metadata.npy").write_bytes(
        b"\x80\x02cos\nmkdir\nX" + len(str(marker)).to_bytes(4, "little") + str(marker).encode() + b"\x85R."
    )
    with pytest.raises(FmriModelsError, match=r"image_metadata.npy is not as expected \(it names os.mkdir"):
        prepared("things_eeg", source, tmp_path / "t", incomplete=True)
    assert not marker.exists()


def test_what_is_wrong_with_things_is_a_sentence(things, tmp_path):
    read = load_preparation("things_eeg")
    with pytest.raises(FmriModelsError, match="80 trials, and not 82,160"):
        read(things, tmp_path / "t")
    source = eeg.write_things(tmp_path / "source", pictures=False)
    (source / "sub-01" / "preprocessed_eeg_test.npy").unlink()
    with pytest.raises(FmriModelsError, match="has one part alone"):
        read(source, tmp_path / "t")
    values = {"preprocessed_eeg_data": np.ones((11, 4, 3, 5)), "ch_names": eeg.LABELS, "times": eeg.TIMES}
    np.save(source / "sub-01" / "preprocessed_eeg_training.npy", values)
    with pytest.raises(FmriModelsError, match=r"shape \(11, 4, 3, 5\); expected \(12, repetitions, 3, 5\)"):
        read(source, tmp_path / "t", incomplete=True)
    (source / "image_metadata.npy").unlink()
    with pytest.raises(FmriModelsError, match=r"image_metadata.npy is missing; .* osf.io/3jk45"):
        read(source, tmp_path / "t", incomplete=True)


FEW_STEPS = ["stages.0.training.steps=2", "stages.1.training.steps=2", "model.prior_num_inference_steps=2"]


@pytest.mark.parametrize(("recipe", "few"), [("linear", []), ("digits69_mindeye", FEW_STEPS)])
def test_a_report_of_voa_says_that_class_and_time_are_confounded(voa, tmp_path, recipe, few, capsys):
    out, model = str(tmp_path / "table"), str(tmp_path / "model")
    command = ["prepare", "eeg_voa", "--source", str(voa), "--out", out, "--option", "subjects=subj02"]
    assert main(command) == 1 and "pictures, and not 1,500 to 2,000" in capsys.readouterr().err
    assert main([*command, "--option", "incomplete=yes"]) == 0
    # All 56,320 values would be too many weights for a quick test.
    narrow = "processor.pool_width=64"
    assert main(["train", recipe, f"data={out}", f"out={model}", "generator=pixels", *few, narrow]) == 0
    command = ["evaluate", "--model", model, "--data", out, "--out", str(tmp_path / "report")]
    assert main([*command, "--protocol", "small_pictures", "--rows", "shuffled_brain"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["data"]["modality"] == "eeg" and "128 x 440 (channels x time)" in report["data"]["windows"]
    assert any("class and the time of recording are confounded" in warning for warning in report["warnings"])
    for name in ("report.md", "report.html"):
        assert "time of recording are confounded" in (tmp_path / "report" / name).read_text()
