"""`fmri-models prepare nsd` on small files in the three published layouts."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from tests.fabricated import nsd

INDICES = np.flatnonzero(nsd.region() > 0)


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("nsd")(source, out, incomplete=True, **options)
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return nsd.write_release(tmp_path_factory.mktemp("nsd") / "release")


@pytest.fixture(scope="module")
def release(folder, tmp_path_factory):
    return prepared(folder, tmp_path_factory.mktemp("nsd") / "table")


def expected(session: int) -> np.ndarray:
    """(750, voxels) percent signal change."""
    return nsd.stored(session).reshape(-1, nsd.TRIALS)[INDICES].T / 300


def test_the_release_is_read_trial_by_trial(release):
    trials = release.all_trials("subj01")
    order = np.argsort(trials.trials)
    assert np.allclose(trials.fmri()[order], np.concatenate([expected(1), expected(2)]), atol=1e-6)
    assert trials.stimulus_ids[order].tolist() == [f"nsd{index:05d}" for index in nsd.shown(1)[:1500]]
    assert trials.sessions[order].tolist() == [1] * 750 + [2] * 750
    assert trials.runs[order][:750].tolist() == [1 + trial * 12 // 750 for trial in range(750)]


def test_pictures_captions_and_voxels_of_the_release(release):
    first = int(nsd.shown(1)[0])
    assert np.array_equal(release.stimuli.images([f"nsd{first:05d}"])[0], nsd.pictures()[first])
    split = "val2017" if first % 20 == 0 else "train2017"
    assert release.stimuli.captions([f"nsd{first:05d}"]) == [[f"A picture of {split}"]]
    voxels = release.voxels("subj01")
    places = np.stack(np.unravel_index(INDICES, nsd.SHAPE), axis=1)
    assert voxels.roi == ["early" if x < 3 else "midventral" if x < 5 else "" for x, _, _ in places]
    assert np.allclose(voxels.coordinates, places * 1.8 + nsd.AFFINE[:3, 3], atol=1e-4)
    assert voxels.source == "release" and np.allclose(voxels.ncsnr, INDICES / 500)


def test_shared_pictures_are_tested_and_nothing_straddles(release, folder, tmp_path):
    _, _, shared = nsd.design()
    parts = {
        part: set(release.trials("subj01", part).stimulus_ids.tolist()) for part in ("train", "validation", "test")
    }
    assert parts["test"] == {f"nsd{i:05d}" for i in nsd.shown(1)[:1500]} & {f"nsd{i - 1:05d}" for i in shared}
    assert not parts["test"] & (parts["train"] | parts["validation"]) and not parts["train"] & parts["validation"]
    fewer = prepared(folder, tmp_path / "one", sessions=1, test_set="shared982")
    assert len(fewer.all_trials("subj01")) == 750


def test_hdf5_has_its_axes_turned_round(release, tmp_path):
    source = nsd.write_release(tmp_path / "hdf5", sessions=1, as_hdf5=True)
    table = prepared(source, tmp_path / "table")
    trials = table.all_trials("subj01")
    assert np.allclose(trials.fmri()[np.argsort(trials.trials)], expected(1), atol=1e-6)


def test_the_grid_is_on_record(release):
    grid = json.loads((release.path / "table.json").read_text())["grids"]["subj01"]
    assert grid["shape"] == list(nsd.SHAPE) and np.allclose(grid["affine"], nsd.AFFINE) and len(grid["sha256"]) == 64


def test_what_is_not_complete_is_refused(folder, tmp_path):
    with pytest.raises(
        FmriModelsError, match="subj01 has 1,500 trials, and not 30,000; subj01 has .* voxels, and not 15,724"
    ):
        load_preparation("nsd")(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "nsddata/experiments/nsd/nsd_expdesign.mat").unlink(), "nsd_expdesign.mat is missing"),
        (lambda f: (f / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink(), "nsd_stimuli.hdf5 is missing"),
        (lambda f: (f / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz").unlink(), "the region of subj01"),
        (lambda f: cut(betas(f)), "betas_session01.* (damaged|cut off)"),
        (lambda f: cut(f / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"), "is damaged, cut short, or no HDF5 file"),
        (lambda f: wrong_region(f), r"has the shape \(7, 6, 5, 750\); expected \(7, 6, 4, 750\)"),
    ],
)  # fmt: skip
def test_damaged_files_are_a_sentence(tmp_path, damage, message):
    source = nsd.write_release(tmp_path / "release", sessions=1)
    damage(source)
    with pytest.raises(FmriModelsError, match=message):
        prepared(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def betas(folder: Path) -> Path:
    return folder / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.nii.gz"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def wrong_region(folder: Path) -> None:
    nsd._write_volume(folder / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz", nsd.region()[..., :4])
    (folder / "nsddata/ppdata/subj01/func1pt8mm/roi/streams.nii.gz").unlink()
    (betas(folder).parent / "ncsnr.nii.gz").unlink()


def test_a_folder_of_something_else_is_a_sentence(tmp_path, capsys):
    (tmp_path / "other").mkdir()
    assert main(["prepare", "nsd", "--source", str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 1
    assert "has no form of NSD" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- MindEye2


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return nsd.write_mindeye2(tmp_path_factory.mktemp("nsd") / "mindeye2")


def test_mindeye2_has_trials_in_their_sessions(second, tmp_path):
    table = prepared(second, tmp_path / "table")
    trials, rows = table.all_trials("subj01"), nsd.behaviour()
    order = np.argsort(trials.trials)
    assert np.array_equal(trials.fmri()[order], nsd.standardised())
    assert trials.stimulus_ids[order].tolist() == [f"nsd{int(index):05d}" for index in rows[:, 0]]
    assert trials.sessions[order].tolist() == rows[:, 2].astype(int).tolist()
    assert trials.runs[order].tolist() == rows[:, 3].astype(int).tolist()
    assert table.voxels("subj01").roi == ["V1"] * 3 + [""] * 3 + ["higher_vis"] * 6
    test = table.trials("subj01", "test")
    assert set(test.stimulus_ids.tolist()) == {"nsd00011", "nsd00022", "nsd00033", "nsd00044"} and len(test) == 16
    shown = int(rows[1, 0])
    assert np.array_equal(table.stimuli.images([f"nsd{shown:05d}"])[0], nsd.pictures()[shown])


def test_both_test_sets_of_mindeye2(second, tmp_path):
    old = prepared(second, tmp_path / "old", test_set="shared982").trials("subj01", "test")
    assert set(old.stimulus_ids.tolist()) == {"nsd00011", "nsd00022", "nsd00033"}


def test_betas_with_fewer_rows_than_the_tars_name_are_refused(tmp_path):
    source = nsd.write_mindeye2(tmp_path / "source")
    with h5py.File(source / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = nsd.standardised()[:50]
    with pytest.raises(FmriModelsError, match=r"betas of the shape \(50, 12\); .* row 79"):
        prepared(source, tmp_path / "out")


# ----------------------------------------------------------------------------------------------------------- MindEye


def test_mindeye_has_each_repetition_once(tmp_path):
    table = prepared(nsd.write_mindeye(tmp_path / "source"), tmp_path / "table")
    parts = {"train": range(6), "validation": range(6, 8), "test": range(8, 11)}
    for part, indices in parts.items():
        trials = table.trials("subj01", part)
        assert sorted(set(trials.stimulus_ids.tolist())) == [f"nsd{index:05d}" for index in indices]
        for index in indices:
            own = trials.fmri()[trials.stimulus_ids == f"nsd{index:05d}"]
            assert np.array_equal(own, nsd.repetitions(index)[: nsd.UNIQUE[index % 3]])
    assert table.stimuli.images(["nsd00000"]).shape == (1, 8, 8, 3)


def test_missing_and_damaged_tars_are_a_sentence(tmp_path):
    source = nsd.write_mindeye(tmp_path / "source")
    tar = source / "webdataset_avg_split/train/train_subj01_1.tar"
    whole = tar.read_bytes()
    tar.unlink()
    with pytest.raises(FmriModelsError, match="train has 3 samples, and not 6"):
        prepared(source, tmp_path / "out")
    tar.write_bytes(whole[: len(whole) // 2])
    (source / "webdataset_avg_split/metadata_subj01.json").unlink()
    with pytest.raises(FmriModelsError, match="train_subj01_1.tar is cut off; get the file again"):
        prepared(source, tmp_path / "out")
    with pytest.raises(FmriModelsError, match="982 pictures of 37 sessions"):
        prepared(source, tmp_path / "out", test_set="shared1000")


@pytest.mark.slow
def test_from_the_release_to_a_report(folder, tmp_path):
    out = tmp_path / "table"
    options = ["--option", "incomplete=yes", "--option", "rois=early", "--option", "repetitions=average_test"]
    assert (
        main(["prepare", "nsd", "--source", str(folder), "--out", str(out), *options, "--option", "zscore=session"])
        == 0
    )
    model, report = tmp_path / "model", tmp_path / "report"
    assert main(["train", "linear", f"data={out}", f"out={model}", "generator=pixels"]) == 0
    command = ["evaluate", "--model", str(model), "--data", str(out), "--protocol", "small_pictures"]
    assert main([*command, "--rows", "shuffled_brain", "--out", str(report)]) == 0
    found = json.loads((report / "report.json").read_text())
    assert found["data"]["name"] == "nsd" and found["data"]["test_stimuli"] > 50


# ---------------------------------------------------------------------------------------------------------- captions


@pytest.mark.parametrize("write", [nsd.write_captions, nsd.write_curated_captions])
def test_any_form_has_captions_where_their_files_are(tmp_path, write):
    source = nsd.write_mindeye(tmp_path / "source")
    write(source)
    captions = prepared(source, tmp_path / "table").stimuli.captions(["nsd00000", "nsd00007"])
    assert [own[0] for own in captions] == [nsd.caption(0), nsd.caption(7)]
    assert all(text for own in captions for text in own)


def test_mindeye2_has_captions(second, tmp_path):
    copy = shutil.copytree(second, tmp_path / "source")
    nsd.write_curated_captions(copy)
    assert prepared(copy, tmp_path / "table").stimuli.captions(["nsd00011"]) == [[nsd.caption(11)]]


def test_files_of_captions_may_lie_in_the_folder_itself(tmp_path):
    source = nsd.write_mindeye(tmp_path / "source")
    nsd.write_captions(tmp_path / "elsewhere")
    shutil.move(tmp_path / "elsewhere/nsddata/experiments/nsd/nsd_stim_info_merged.csv", source)
    shutil.move(tmp_path / "elsewhere/nsddata_stimuli/stimuli/nsd/annotations", source)
    assert prepared(source, tmp_path / "table").stimuli.captions(["nsd00001"])[0][0] == nsd.caption(1)


def test_where_there_are_no_captions_is_said(tmp_path, capsys):
    source, out = nsd.write_mindeye(tmp_path / "source"), tmp_path / "table"
    command = ["prepare", "nsd", "--source", str(source), "--out", str(out), "--option", "incomplete=yes"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "will have no captions" in said.err and "COCO_73k_annots_curated.npy" in said.err
    assert "Incomplete: subj01 has 12 voxels, and not 15,724.\n" in said.err
    recipes = said.out.rpartition("in the place of linear: ")[2].strip().split(", ")
    assert {"mindbridge_nsd", "mindbridge_nsd_new_subject", "mindeye_nsd", "takagi_nsd"} <= set(recipes)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (np.array([["a"]], dtype=object), "can't be read as an array of texts"),
        (np.array([["a"], ["b"]]), r"has the shape \(2, 1\) of <U1; expected texts of \(73000, captions\)"),
        (np.zeros((73_000, 5)), r"has the shape \(73000, 5\) of float64"),
    ],
)
def test_other_arrays_of_captions_are_refused(tmp_path, texts, message):
    source = nsd.write_mindeye(tmp_path / "source")
    np.save(source / "COCO_73k_annots_curated.npy", texts)
    with pytest.raises(FmriModelsError, match=message):
        prepared(source, tmp_path / "table")


def test_mindeye_is_the_test_set_of_982(tmp_path):
    source = nsd.write_mindeye(tmp_path / "source", (1, 2))
    table = prepared(source, tmp_path / "table", test_set="shared982", subjects=["subj02"])
    assert table.subjects == ["subj02"]
    assert set(table.trials("subj02", "test").stimulus_ids.tolist()) == {"nsd00008", "nsd00009", "nsd00010"}


def test_subjects_with_commas_between_them_are_a_list(tmp_path, capsys):
    source = nsd.write_mindeye(tmp_path / "source", (1, 2, 5))
    command = ["prepare", "nsd", "--source", str(source), "--out", str(tmp_path / "out"), "--option"]
    assert main([*command, "subjects=subj01,subj05", "--option", "incomplete=yes"]) == 0
    assert TrialTable.open(tmp_path / "out").subjects == ["subj01", "subj05"]
    assert main([*command, "subjects=subj04", "--overwrite"]) == 1
    assert "No files of subj04 of nsd were found" in capsys.readouterr().err


def test_tars_that_were_unpacked_are_a_sentence(tmp_path):
    own = tmp_path / "source/webdataset_avg_split/train/subj01"
    own.mkdir(parents=True)
    np.save(own / "sample000000300.nsdgeneral.npy", np.zeros((3, 2)))
    with pytest.raises(FmriModelsError, match="samples that were unpacked.*expected the tars"):
        prepared(tmp_path / "source", tmp_path / "table")
