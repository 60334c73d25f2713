"""`fmri-models prepare vim2` on small files in the published layout."""

import json

import h5py
import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import vim2

pytest.importorskip("h5py")
GOOD = [voxel for voxel in vim2.CHOSEN if voxel != vim2.BAD]


def prepared(source, out, **options) -> TrialTable:
    load_preparation("vim2")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return vim2.write(tmp_path_factory.mktemp("vim2") / "source")


@pytest.fixture(scope="module")
def table(source, tmp_path_factory):
    return prepared(source, tmp_path_factory.mktemp("vim2") / "t")


def test_a_window_is_the_volumes_after_the_lag(table):
    assert table.window_shape("subj01") == (4, len(GOOD)) and table.windows.lag_seconds == 4
    trials = table.all_trials("subj01")
    for stimulus, window in zip(trials.stimulus_ids.tolist(), trials.windows(), strict=True):
        part, second = stimulus.split("-")
        expected = [[vim2.value(v, int(second) + 4 + k, part == "test") for v in GOOD] for k in range(4)]
        assert np.allclose(window, expected, rtol=1e-6)
    # Runs of 600 s and 40 s, of which the second is validation; no window reaches past its run.
    counts = {part: len(table.trials("subj01", part)) for part in ("train", "validation", "test")}
    assert counts == {"train": 593, "validation": 33, "test": 23}
    assert table.voxels("subj01").roi[: len(GOOD)] == ["v1lh", "v1lh", "v1rh", "v2lh", "MTlh", "v1lh"]


@pytest.mark.slow
def test_films_are_upright_and_say_where_they_are(source, table, tmp_path):
    assert np.array_equal(table.stimuli.images(["train-0100"])[0], vim2.frames("train")[1507])
    clip = table.stimuli.clips(["train-0100"])[0]
    assert (clip.file, clip.start, clip.seconds) == ("Stimuli.mat/st", 100.0, 1.0)
    more = prepared(source, tmp_path / "t", clips="frames", rois=["v1"], repeats="single", lag=0, window=1)
    assert np.array_equal(more.stimuli.clips(["test-0003"], frames=True)[0].pixels(), vim2.frames("test")[45:60])
    test = more.trials("subj01", "test")
    own = test.stimulus_ids == "test-0003"
    assert len(test) == 300 and own.sum() == 10 and more.window_shape("subj01") == (1, 4)
    first = test.windows()[own][:, 0, 0]
    assert np.allclose(first, [vim2.value(5, 3, True, repeat) for repeat in range(10)])


def test_films_may_be_numbers_from_0_to_1(tmp_path):
    folder = vim2.write(tmp_path / "source")
    for scale, said in ((1 / 255, ""), (2.0, "has pixels of float32 from 0.0 to 510.0")):
        (folder / "Stimuli.mat").unlink()
        with h5py.File(folder / "Stimuli.mat", "w") as file:
            for name, part in (("st", "train"), ("sv", "test")):
                file[name] = np.float32(vim2.frames(part).transpose(0, 3, 2, 1) * scale)
        if said:
            with pytest.raises(FmriModelsError, match=said):
                prepared(folder, tmp_path / "t")
        else:
            images = prepared(folder, tmp_path / "t").stimuli.images(["test-0002"])
            assert np.array_equal(images[0], vim2.frames("test")[37])


def test_what_is_wrong_is_a_sentence(source, tmp_path, capsys):
    read = load_preparation("vim2")
    with pytest.raises(FmriModelsError, match="has rt of 640 s; expected 7200"):
        read(source, tmp_path / "t")
    (tmp_path / "empty").mkdir()
    assert main(["prepare", "vim2", "--source", str(tmp_path / "empty"), "--out", str(tmp_path / "t")]) == 1
    assert "crcns.org/data-sets/vc/vim-2" in capsys.readouterr().err
    with pytest.raises(FmriModelsError, match="window 1 or more"):
        prepared(source, tmp_path / "t", window=0)
    folder = tmp_path / "other"
    folder.mkdir()
    with h5py.File(folder / "VoxelResponses_subject1.mat", "w") as file:
        file["roi/v1lh"] = np.ones((2, 3, 4))
    with pytest.raises(FmriModelsError, match="Stimuli.mat is missing"):
        read(folder, tmp_path / "t")
    (folder / "Stimuli.mat").write_bytes(b"cut")
    with pytest.raises(FmriModelsError, match="roi/v1lh of 24 voxels; expected 73728"):
        read(folder, tmp_path / "t")
    data = (source / "VoxelResponses_subject1.mat").read_bytes()
    (folder / "VoxelResponses_subject1.mat").write_bytes(data[: len(data) // 2])
    with pytest.raises(FmriModelsError, match="cut short"):
        read(folder, tmp_path / "t", incomplete=True)
    assert not (tmp_path / "t").exists()


def test_the_archive_s_terms_forbid_to_pass_it_on(table):
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.redistribution) == ("vim-2", "forbidden")


def test_from_the_files_to_a_report(table, tmp_path):
    data, model = str(table.path), str(tmp_path / "model")
    assert main(["train", "linear", f"data={data}", f"out={model}", "generator=pixels"]) == 0
    command = ["evaluate", "--model", model, "--data", data, "--out", str(tmp_path / "report")]
    assert main([*command, "--protocol", "small_pictures", "--rows", "shuffled_brain"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert "a window begins 4 s after" in report["data"]["windows"]
