"""A person's own volumes: fMRIPrep's folder, betas and GLMsingle's output become a trial table, value by value."""

import json
from pathlib import Path

import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.data.brain_images import series as series_module
from fmri_models.data.brain_images import single_trials
from fmri_models.data.brain_images.masks import read_mask
from fmri_models.data.brain_images.series import VolumeSeries, blocks
from fmri_models.data.validation import validate_table
from tests.fabricated import nifti as made

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("nilearn")


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bids")
    made.write_fmriprep(root)
    made.write_pictures(root / "stimuli")
    return root


def prepare(source: Path, out: Path, *options: str, name: str = "nifti") -> int:
    given = [word for option in options for word in ("--option", option)]
    return main(["prepare", name, "--source", str(source), "--out", str(out), *given])


def prepared(source: Path, out: Path, *options: str, name: str = "nifti") -> TrialTable:
    assert prepare(source, out, *options, name=name) == 0
    return TrialTable.open(out)


def in_order(table: TrialTable, subject: str = "sub-01") -> tuple[np.ndarray, list[str]]:
    trials = table.all_trials(subject)
    order = np.argsort(trials.trials)
    return trials.fmri()[order], trials.stimulus_ids[order].tolist()


def expected(trials: range | list[int]) -> np.ndarray:
    return np.stack([made.beta(trial)[made.chosen()] for trial in trials])


# fMRIPrep's folder


def test_fmriprep_as_it_is(bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = prepared(bids, tmp_path / "out", f"stimuli={bids / 'stimuli'}")
    said = capsys.readouterr().err
    assert "What was shown is the column stim_file" in said
    fmri, ids = in_order(table)
    # Fixations and buttons are no trials; each beta lands in its voxel and row.
    assert ids == [f"cat_{trial % made.PICTURES:02d}" for trial in range(20)]
    truth = expected(range(20))
    # What the other trials' common regressor can't take of their different betas, and 16 bits, stays.
    assert np.abs(fmri - truth).max() < 1.2
    assert np.corrcoef(fmri.ravel(), truth.ravel())[0, 1] > 0.995
    trials = table.all_trials("sub-01")
    order = np.argsort(trials.trials)
    assert trials.sessions[order].tolist() == [1] * 10 + [2] * 10
    assert trials.runs[order].tolist() == ([1] * 5 + [2] * 5) * 2
    assert table.stimuli.categories(["cat_01", "cat_02"]) == ["animal", "thing"]
    assert table.stimuli.images(["cat_03"]).shape == (1, 8, 8, 3)
    voxels = table.voxels("sub-01")
    indices = np.argwhere(made.chosen())
    assert np.allclose(voxels.coordinates, indices @ made.AFFINE[:3, :3].T + made.AFFINE[:3, 3], atol=1e-4)
    assert voxels.space == "T1w" and validate_table(table.path) == []
    assert voxels.grid is not None and voxels.grid.shape == made.SHAPE and np.allclose(voxels.grid.affine, made.AFFINE)


def test_fmriprep_s_own_folder_finds_the_raw_events(bids: Path, tmp_path: Path) -> None:
    table = prepared(bids / "derivatives" / "fmriprep", tmp_path / "out")
    assert len(table.all_trials("sub-01")) == 20
    record = json.loads((tmp_path / "out" / "table.json").read_text())
    assert record["events_column"] == "stim_file"
    assert len(record["prepared"]["files"]) == 16 and all(
        len(each["sha256"]) == 64 for each in record["prepared"]["files"].values()
    )


def test_the_mean_after_a_lag(bids: Path, tmp_path: Path) -> None:
    table = prepared(bids, tmp_path / "out", "betas=lag", "lag=6", "confounds=[]", "high_pass=0")
    fmri, _ = in_order(table)
    run = nibabel.load(next(bids.rglob("*ses-02*run-1*preproc_bold.nii.gz"))).get_fdata()[made.chosen()]
    percent = 100 * (run / run.mean(1, keepdims=True) - 1)
    # Volumes at 1, 3, 5 … s; the window of the second trial is 36 to 38 s.
    assert np.allclose(fmri[11], percent[:, 18], atol=1e-3)
    assert np.corrcoef(fmri.ravel(), expected(range(20)).ravel())[0, 1] > 0.85


def test_a_run_that_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made.write_fmriprep(tmp_path / "bids")
    for path in sorted((tmp_path / "bids").rglob("*ses-02*run-2*")):
        path.rename(path.with_name(path.name.replace("run-2", "run-3")))
    assert prepare(tmp_path / "bids", tmp_path / "out", "betas=lag") == 0
    said = capsys.readouterr().err
    assert "sub-01, session 02: runs 1 to 3 are read without 2, of which no image was found." in said
    assert "session 01: runs" not in said


def test_conditions_are_split_by_run(bids: Path, tmp_path: Path) -> None:
    table = prepared(bids, tmp_path / "out", "column=trial_type", "skip=[fixation,button]")
    assert sorted(table.stimuli.ids) == ["animal", "thing"]
    test = table.trials("sub-01", "test")
    assert len(set(zip(test.sessions.tolist(), test.runs.tolist(), strict=True))) == 1 and len(test) == 5
    assert "over runs" in table.repeats_stimuli()


def test_a_list_of_tested_stimuli(bids: Path, tmp_path: Path) -> None:
    (tmp_path / "tested.txt").write_text("pictures/cat 03.png\ncat_07\n")
    table = prepared(bids, tmp_path / "out", f"test_stimuli={tmp_path / 'tested.txt'}")
    assert set(table.trials("sub-01", "test").stimulus_ids.tolist()) == {"cat_03", "cat_07"}
    learned = table.trials("sub-01", ["train", "validation"])
    assert not {"cat_03", "cat_07"} & set(learned.stimulus_ids.tolist())


def test_regions_of_masks_and_of_an_atlas(bids: Path, tmp_path: Path) -> None:
    inside = np.arange(np.prod(made.SHAPE)).reshape(made.SHAPE)
    made.save(tmp_path / "sub-01" / "V1.nii.gz", inside < 30, dtype=np.uint8)
    made.save(tmp_path / "sub-01" / "V2.nii.gz", (inside >= 20) & (inside < 40), dtype=np.uint8)
    masks = prepared(bids, tmp_path / "masks", f"roi_masks={tmp_path / '{subject}'}")
    flat = inside[made.chosen()]
    by_place = np.where(flat < 30, "V1", np.where(flat < 40, "V2", ""))
    assert masks.voxels("sub-01").roi == by_place.tolist()
    made.save(tmp_path / "atlas.nii.gz", np.where(inside < 30, 7, np.where(inside < 40, 9, 0)), dtype=np.int16)
    (tmp_path / "labels.tsv").write_text("index\tname\n7\tV1\n9\tV2\n")
    options = (f"atlas={tmp_path / 'atlas.nii.gz'}", f"atlas_labels={tmp_path / 'labels.tsv'}", "rois=V2")
    atlas = prepared(bids, tmp_path / "atlas", *options)
    assert atlas.voxels("sub-01").roi == ["V2"] * int((by_place == "V2").sum())
    assert atlas.voxels("sub-01").source_columns.tolist() == np.flatnonzero(by_place == "V2").tolist()
    # The grid is that of all voxels of the mask, of which the table keeps some.
    assert atlas.voxels("sub-01").grid.sha256 == masks.voxels("sub-01").grid.sha256


# Reading


def test_voxels_are_those_of_nilearn_s_masker_a_few_volumes_at_a_time(tmp_path: Path, monkeypatch) -> None:
    from nilearn.maskers import NiftiMasker

    values = np.random.default_rng(0).normal(100, 20, (*made.SHAPE, 11))
    mask = read_mask(made.save(tmp_path / "mask.nii.gz", made.chosen(), dtype=np.uint8))
    for name, dtype in (("a.nii.gz", np.int16), ("b.nii", np.float32)):
        path = made.save(tmp_path / name, values, dtype=dtype)
        theirs = NiftiMasker(mask.path, standardize=None).fit().transform(path)
        monkeypatch.setattr(series_module, "_BYTES_AT_ONCE", 8 * 60 * 4)
        series = VolumeSeries(path, mask)
        assert series.at_once == 4 and series.seconds == made.SECONDS
        read = list(blocks(series))
        assert [len(block) for block in read] == [4, 4, 3]
        assert np.allclose(np.concatenate(read), theirs, rtol=1e-5)
        assert np.array_equal(np.concatenate(list(blocks(series, [1, 5, 6]))), np.concatenate(read)[[1, 5, 6]])


def test_least_squares_separate_is_nilearn_s_first_level_model(bids: Path, tmp_path: Path, monkeypatch) -> None:
    import pandas
    from nilearn.glm.first_level import FirstLevelModel

    monkeypatch.setattr(single_trials, "_BYTES_AT_ONCE", 16 * made.VOLUMES * 7)
    fmri, _ = in_order(prepared(bids, tmp_path / "out", "confounds=[]"))
    image, mask = (next(bids.rglob(f"*ses-01*run-2*{end}.nii.gz")) for end in ("preproc_bold", "brain_mask"))
    names = ["others"] * 5
    names[3] = "trial"
    events = pandas.DataFrame({"onset": made.ONSETS, "duration": made.DURATION, "trial_type": names})
    model = FirstLevelModel(
        made.SECONDS, made.START / made.SECONDS, hrf_model="glover", high_pass=0.01, mask_img=str(mask),
        noise_model="ols", signal_scaling=0, minimize_memory=False,
    )  # fmt: skip
    theirs = model.fit(str(image), events).compute_contrast("trial", output_type="effect_size").get_fdata()
    assert np.allclose(fmri[8], theirs[made.chosen()], rtol=1e-3, atol=1e-3)


def test_autocorrelated_noise_and_a_table_of_events_for_all(bids: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "in"
    shutil.copytree(bids, root)
    tables = sorted(root.rglob("*_events.tsv"))
    shutil.copy(tables[0], root / "task-see_events.tsv")
    for table in tables:
        table.unlink()
    fmri, ids = in_order(prepared(root, tmp_path / "out", "noise=ar1"))
    assert ids == [f"cat_0{trial}" for trial in range(5)] * 4
    assert np.corrcoef(fmri.ravel(), expected(range(20)).ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            "confounds=[wm_csf]",
            "The confounds of sub-01_ses-01_task-see_run-1_space-T1w_desc-preproc_bold.nii.gz can't be",
        ),
        ("confounds=[scrub]", "There are no confounds 'scrub' for single trials"),
        ("stimuli={root}/derivatives", "has no pictures"),
        ("stimuli={root}/few", "11 of 12 stimuli have no picture in"),
        ("task=hear", "No file has task-hear; there are see"),
        ("subjects=[sub-02]", "There is no subject 'sub-02'"),
        ("tr=0.5", "has the onset 60 s, and the run has 90 volumes of 0.5 s"),
    ],
)
def test_options_that_do_not_fit(bids: Path, tmp_path: Path, capsys, option: str, sentence: str) -> None:
    import shutil

    (bids / "few").mkdir(exist_ok=True)
    shutil.copy(bids / "stimuli" / "pictures" / "cat 03.png", bids / "few")
    assert prepare(bids, tmp_path / "out", option.format(root=bids)) == 1
    error = capsys.readouterr().err
    assert sentence in error and "unexpected" not in error


# Betas and GLMsingle


def write_betas(root: Path, dtype: type = np.float32) -> Path:
    func = root / "sub-01" / "func"
    made.write_events(func / "sub-01_task-see_run-1_events.tsv", [[made.stimulus(t)] for t in range(3)] + [["n/a"]] + [
        [made.stimulus(t)] for t in range(3, 6)
    ], "stim_file")  # fmt: skip
    values = [made.beta(t) for t in range(3)] + [np.full(made.SHAPE, 99.0)] + [made.beta(t) for t in range(3, 6)]
    made.save(func / "sub-01_task-see_run-1_space-T1w_betas.nii.gz", np.stack(values, -1), dtype=dtype)
    return made.save(root / "mask.nii.gz", made.chosen(), dtype=np.uint8)


def test_betas_with_a_row_each(tmp_path: Path) -> None:
    mask = write_betas(tmp_path / "in")
    fmri, ids = in_order(prepared(tmp_path / "in", tmp_path / "out", f"mask={mask}"))
    # The volume of the row without a stimulus is left out.
    assert np.allclose(fmri, expected(range(6)), atol=2e-3) and ids == [f"cat_0{trial}" for trial in range(6)]


@pytest.mark.parametrize("form", ["hdf5", "mat"])
def test_glmsingle(tmp_path: Path, form: str) -> None:
    root = tmp_path / "in"
    made.write_glmsingle(root, form)
    mask = made.save(tmp_path / "mask.nii.gz", made.chosen(), dtype=np.uint8)
    for run in (1, 2):
        rows = made.event_rows(made.trials_of(1, run))
        made.write_events(
            root / "sub-01" / "ses-01" / "func" / f"sub-01_ses-01_task-see_run-{run}_events.tsv", rows[::-1]
        )
    table = prepared(root, tmp_path / "out", f"mask={mask}")
    fmri, ids = in_order(table)
    # Trials are in the order in which they were shown, whatever that of the table's rows.
    assert np.allclose(fmri, expected(range(10)), atol=2e-3) and ids == [f"cat_{trial:02d}" for trial in range(10)]
    trials = table.all_trials("sub-01")
    assert trials.runs[np.argsort(trials.trials)].tolist() == [1] * 5 + [2] * 5


def test_glmsingle_with_a_table_of_its_own(tmp_path: Path) -> None:
    path = made.write_glmsingle(tmp_path / "in")
    mask = made.save(tmp_path / "mask.nii.gz", made.chosen(), dtype=np.uint8)
    path.with_name("events.tsv").write_text("stimulus_id\n" + "".join(f"s{t % 5}\n" for t in range(10)))
    table = prepared(tmp_path / "in", tmp_path / "out", f"mask={mask}")
    assert in_order(table)[1] == [f"s{trial % 5}" for trial in range(10)]


# What is wrong


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_affine(root: Path) -> str:
    affine = made.AFFINE.copy()
    affine[0, 3] += 1
    return f"mask={made.save(root / 'other.nii.gz', made.chosen(), affine, np.uint8)}"


def other_shape(root: Path) -> str:
    return f"mask={made.save(root / 'other.nii.gz', made.chosen()[:4], dtype=np.uint8)}"


def nothing_chosen(root: Path) -> str:
    return f"mask={made.save(root / 'other.nii.gz', np.zeros(made.SHAPE), dtype=np.uint8)}"


def atlas_as_mask(root: Path) -> str:
    return f"mask={made.save(root / 'other.nii.gz', np.arange(60).reshape(made.SHAPE), dtype=np.uint8)}"


def cut(root: Path) -> str:
    damaged(next(root.rglob("*betas.nii.gz")))
    return f"mask={root / 'mask.nii.gz'}"


def no_image(root: Path) -> str:
    next(root.rglob("*betas.nii.gz")).write_text("nothing")
    return f"mask={root / 'mask.nii.gz'}"


def all_nan(root: Path) -> str:
    made.save(next(root.rglob("*betas.nii.gz")), np.full((*made.SHAPE, 7), np.nan))
    return f"mask={root / 'mask.nii.gz'}"


def fewer_rows(root: Path) -> str:
    made.write_events(next(root.rglob("*events.tsv")), [["a"], ["b"]], "stim_file")
    return f"mask={root / 'mask.nii.gz'}"


def no_events(root: Path) -> str:
    next(root.rglob("*events.tsv")).unlink()
    return f"mask={root / 'mask.nii.gz'}"


def alike_names(root: Path) -> str:
    rows = [["a b"], ["a_b"], *[["c"]] * 5]
    made.write_events(next(root.rglob("*events.tsv")), rows, "stim_file")
    return f"mask={root / 'mask.nii.gz'}"


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (other_affine, "but other positions (affines up to 1 mm apart). Nothing is resampled"),
        (other_shape, "5 x 4 x 3 voxels, and not 4 x 4 x 3"),
        (nothing_chosen, "is 0 everywhere"),
        (atlas_as_mask, "give an atlas as one"),
        (lambda root: f"mask={root / 'nowhere.nii.gz'}", "There is no NIfTI image"),
        (lambda root: "column=stim_fil", "mask=FILE"),
        (cut, "is damaged, cut short"),
        (no_image, "is damaged, cut short, or no NIfTI image"),
        (all_nan, "nothing but NaN"),
        (fewer_rows, "has 7 patterns"),
        (no_events, "There is no table of events for"),
        (alike_names, "would both have the id 'a_b'"),
        (lambda root: "kind=bold", "has no files of the names sub-*/[ses-*/]func/…_desc-preproc_bold.nii.gz"),
    ],
)  # fmt: skip
def test_other_files_are_a_sentence(tmp_path: Path, capsys, break_it, sentence: str) -> None:
    write_betas(tmp_path / "in")
    option = break_it(tmp_path / "in")
    assert prepare(tmp_path / "in", tmp_path / "out", option) == 1
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_not_there(tmp_path: Path, capsys) -> None:
    mask = write_betas(tmp_path / "in")
    assert prepare(tmp_path / "in", tmp_path / "out", f"mask={mask}", "column=stim_fil") == 1
    assert "Did you mean 'stim_file'" in capsys.readouterr().err


def test_a_pickle_is_refused(tmp_path: Path, capsys) -> None:
    made.write_glmsingle(tmp_path / "in", "npy")
    mask = made.save(tmp_path / "mask.nii.gz", made.chosen(), dtype=np.uint8)
    assert prepare(tmp_path / "in", tmp_path / "out", f"mask={mask}") == 1
    assert "is a pickle" in capsys.readouterr().err


def test_a_cut_hdf5_file(tmp_path: Path, capsys) -> None:
    damaged(made.write_glmsingle(tmp_path / "in"))
    mask = made.save(tmp_path / "mask.nii.gz", made.chosen(), dtype=np.uint8)
    assert prepare(tmp_path / "in", tmp_path / "out", f"mask={mask}") == 1
    assert "no HDF5 file" in capsys.readouterr().err


def test_several_spaces_are_a_choice(bids: Path, tmp_path: Path, capsys) -> None:
    import shutil

    root = tmp_path / "in"
    shutil.copytree(bids, root)
    for path in list(root.rglob("*space-T1w*")):
        shutil.copy(path, path.with_name(path.name.replace("space-T1w", "space-MNI152NLin2009cAsym_res-2")))
    assert prepare(root, tmp_path / "out") == 1
    assert "space-MNI152NLin2009cAsym, space-T1w; choose one with --option space=NAME" in capsys.readouterr().err
    assert len(prepared(root, tmp_path / "out", "space=T1w").all_trials("sub-01")) == 20


def test_two_images_of_one_run(bids: Path, tmp_path: Path, capsys) -> None:
    import shutil

    root = tmp_path / "in"
    shutil.copytree(bids, root)
    path = next(root.rglob("*preproc_bold.nii.gz"))
    shutil.copy(path, path.with_name(path.name.replace("space-T1w", "space-T1w_res-2")))
    assert prepare(root, tmp_path / "out") == 1
    assert "are of the same run" in capsys.readouterr().err


def test_an_event_after_the_end_of_the_run(bids: Path, tmp_path: Path, capsys) -> None:
    import shutil

    root = tmp_path / "in"
    shutil.copytree(bids, root)
    path = next(root.rglob("*ses-01*run-1_events.tsv"))
    made.write_events(path, [["4000", "2", "thing", "a.png"]])
    assert prepare(root, tmp_path / "out") == 1
    assert "sub-01, ses-01_task-see_run-1: row 1" in capsys.readouterr().err


def test_a_missing_package_is_named(bids: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert prepare(bids, tmp_path / "out") == 1
    assert 'pip install "fmri_models[data]"' in capsys.readouterr().err
