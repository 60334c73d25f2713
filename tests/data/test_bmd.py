"""`fmri-models prepare bmd` on small files in the published layout."""

import json
import pickle

import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from tests.fabricated import bmd


def prepared(source, out, **options) -> TrialTable:
    load_preparation("bmd")(source, out, overwrite=True, **options)
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return bmd.write(tmp_path_factory.mktemp("bmd") / "source")


@pytest.fixture(scope="module")
def table(source, tmp_path_factory):
    return prepared(source, tmp_path_factory.mktemp("bmd") / "t")


def test_each_trial_is_its_clip_and_repetition(table):
    for part, first in (("train", 1), ("test", 1001)):
        trials = table.trials("subj01", ["train", "validation"] if part == "train" else part)
        assert len(trials) == {"train": 3000, "test": 1020}[part]
        clips = trials.stimulus_ids.astype(int)
        expected = np.concatenate(
            [bmd.betas(part, region)[clips - first, trials.repetitions] for region in bmd.REGIONS], axis=1
        )
        assert np.allclose(trials.fmri(), expected, rtol=1e-6)
    assert table.voxels("subj01").roi == ["lV1v"] * 3 + ["rFFA"] * 2


def test_a_clip_has_its_middle_frame_and_its_film(source, table, tmp_path):
    clip = table.stimuli.clips(["1102"])[0]
    assert (clip.file, clip.seconds) == ("mp4_h264/1102.mp4", 3.0)
    first, last = table.stimuli.images(["0001", "1102"])
    assert first.shape == (4, 4, 3) and (first != last).any()
    faces = prepared(source, tmp_path / "t", rois=["FFA"], repetitions="average_test")
    test = faces.trials("subj01", "test")
    assert faces.num_voxels("subj01") == 2 and len(test) == 102
    assert np.allclose(test.fmri()[test.stimulus_ids == "1003"][0], [11_003.045, 13_003.045])


def test_arrays_that_somebody_has_made_of_the_pickles_give_the_same(table, tmp_path):
    source = bmd.write(tmp_path / "source", pickled=False, pictures=0)
    other = prepared(source, tmp_path / "t")
    assert "no pictures" in (other.path / "README.md").read_text()
    assert np.array_equal(other.trials("subj01", "test").fmri(), table.trials("subj01", "test").fmri())


def test_a_pickle_that_runs_something_is_refused(tmp_path):
    source = bmd.write(tmp_path / "source", pictures=0)
    marker = tmp_path / "ran"
    (source / bmd.FOLDER / "sub-01_roi-lV1v_betas_normalized.pkl").write_bytes(
        b"\x80\x02cos\nmkdir\nX" + len(str(marker)).to_bytes(4, "little") + str(marker).encode() + b"\x85R."
    )
    with pytest.raises(FmriModelsError, match=r"lV1v.*names os.mkdir, which is neither called nor imported.*ds005165"):
        prepared(source, tmp_path / "t")
    assert not marker.exists()


def test_what_is_wrong_is_a_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["prepare", "bmd", "--source", str(tmp_path / "empty"), "--out", str(tmp_path / "t")]) == 1
    assert "ds005165" in capsys.readouterr().err
    source = bmd.write(tmp_path / "source", pictures=1)
    with pytest.raises(FmriModelsError, match="1101 of 1102 pictures are missing"):
        prepared(source, tmp_path / "t")
    values = {f"{part}_data_allvoxel": bmd.betas(part, "lV1v")[:-1] for part in bmd.PARTS}
    (source / bmd.FOLDER / "sub-01_roi-lV1v_betas_normalized.pkl").write_bytes(pickle.dumps(values))
    with pytest.raises(FmriModelsError, match=r"shape \(999, 3, 3\); expected \(1000, 3, voxels\)"):
        prepared(source, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_from_the_files_to_a_report(table, tmp_path):
    data, model = str(table.path), str(tmp_path / "model")
    assert main(["train", "linear", f"data={data}", f"out={model}", "generator=pixels"]) == 0
    command = ["evaluate", "--model", model, "--data", data, "--out", str(tmp_path / "report")]
    assert main([*command, "--protocol", "small_pictures", "--rows", "shuffled_brain"]) == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["data"]["test_repetitions"] == [10, 10]
