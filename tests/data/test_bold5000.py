"""BOLD5000, from files in its three published layouts to a table and a report."""

import json
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.published.extraction import work_folder
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from fmri_models.processing.image_grid import positions_sha256
from tests.fabricated import bold5000

FORMS = {
    "arrays": bold5000.write_arrays,
    "volumes": bold5000.write_volumes,
    "first_release": bold5000.write_first_release,
}
WIDTH = sum(bold5000.WIDTHS.values())


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("bold5000")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


def columns(form: str) -> np.ndarray:
    """Which of the fabricated columns the table's voxels are, in their order."""
    if form != "volumes":
        return np.arange(WIDTH)
    return np.flatnonzero(np.any(list(bold5000.region_masks().values()), axis=0))


def betas(form: str, subject: str) -> np.ndarray:
    width = WIDTH if form != "volumes" else int(np.prod(bold5000.SHAPE))
    return bold5000.all_betas(subject, width)[:, columns(form)]


@pytest.mark.parametrize("form", FORMS)
def test_every_trial_is_where_it_belongs(tmp_path, form):
    table = prepared(FORMS[form](tmp_path / "source"), tmp_path / "table")
    assert table.subjects == ["CSI1", "CSI4"] and validate_table(table.path) == []
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.redistribution) == ("bold5000", "allowed")
    for subject in table.subjects:
        trials = table.all_trials(subject)
        order = np.argsort(trials.trials)
        assert np.array_equal(trials.fmri()[order], betas(form, subject).astype(np.float32))
        assert trials.stimulus_ids[order].tolist() == [bold5000.stem(name) for name in bold5000.shown(subject)]
        test = table.trials(subject, "test")
        tested = {bold5000.stem(name) for name in bold5000.REPEATED}
        assert set(test.stimulus_ids.tolist()) == tested
        learned = table.trials(subject, ["train", "validation"])
        assert not set(learned.stimulus_ids.tolist()) & tested
    sessions = table.all_trials("CSI1").sessions
    # A list of all trials says no sessions; files of sessions do.
    assert set(sessions.tolist()) == ({1} if form == "first_release" else {1, 2})
    names = table.stimuli.ids
    pictures = {bold5000.stem(name): bold5000.picture(name) for name in bold5000.PICTURES}
    assert np.array_equal(table.stimuli.images(names), [pictures[name] for name in names])
    assert table.stimuli.categories(["n01930112_19568", "concert5", "COCO_train2014_000000312003"]) == [
        "n01930112", "concert", None,
    ]  # fmt: skip


def test_regions_beside_each_other(tmp_path):
    source = bold5000.write_arrays(tmp_path / "source", ("CSI1",))
    voxels = prepared(source, tmp_path / "table").voxels("CSI1")
    assert voxels.roi == [region for region in bold5000.REGIONS for _ in range(5)]
    right = prepared(source, tmp_path / "table", rois=["RHLOC"]).voxels("CSI1")
    assert right.source_columns.tolist() == [7, 8, 9]


def test_volumes_know_their_grid(tmp_path):
    source = bold5000.write_volumes(tmp_path / "source", ("CSI1",))
    table = prepared(source, tmp_path / "table")
    voxels = table.voxels("CSI1")
    indices = columns("volumes")
    places = np.stack(np.unravel_index(indices, bold5000.SHAPE), axis=1)
    expected = places @ bold5000.AFFINE[:3, :3].T + bold5000.AFFINE[:3, 3]
    assert np.allclose(voxels.coordinates, expected)
    grid = json.loads((table.path / "table.json").read_text())["grids"]["CSI1"]
    assert grid["shape"] == list(bold5000.SHAPE) and np.allclose(grid["affine"], bold5000.AFFINE)
    assert grid["sha256"] == positions_sha256(indices)
    # The voxel of two regions has the label of the first, and is chosen by either.
    assert voxels.roi[:2] == ["EarlyVis", "EarlyVis"]
    overlapping = prepared(source, tmp_path / "table", rois=["RHEarlyVis"]).voxels("CSI1")
    assert overlapping.source_columns.tolist() == [1, 2, 3]
    brain = prepared(source, tmp_path / "table", voxels="brain")
    assert brain.num_voxels("CSI1") == int(bold5000.brain().sum())


def test_scale_factors_of_volumes_are_applied(tmp_path):
    source = bold5000.write_volumes(tmp_path / "source", ("CSI4",))
    path = source / f"CSI4_{bold5000.BETAS}_ses-01.nii.gz"
    values = np.arange(np.prod(bold5000.SHAPE) * 6).reshape(*bold5000.SHAPE, 6).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(path)
    table = prepared(source, tmp_path / "table")
    trials = table.all_trials("CSI4")
    stored = values.reshape(-1, 6)[columns("volumes")].T.astype(float)
    assert np.allclose(trials.fmri()[np.argsort(trials.trials)], nibabel.load(path).get_fdata().reshape(-1, 6)[
        columns("volumes")
    ].T)  # fmt: skip
    assert not np.allclose(trials.fmri()[np.argsort(trials.trials)], stored)


def test_repetitions_of_the_test_are_averaged_after_standardising(tmp_path):
    source = bold5000.write_arrays(tmp_path / "source", ("CSI1",))
    options = {"repetitions": "average_test", "validation_fraction": 0}
    table = prepared(source, tmp_path / "table", **options)
    test = table.trials("CSI1", "test")
    assert sorted(test.stimulus_ids.tolist()) == sorted(bold5000.stem(name) for name in bold5000.REPEATED)
    rows = [place for place, name in enumerate(bold5000.shown("CSI1")) if name == bold5000.REPEATED[0]]
    own = test.fmri()[test.stimulus_ids == bold5000.stem(bold5000.REPEATED[0])][0]
    assert np.allclose(own, betas("arrays", "CSI1")[rows].mean(axis=0))


@pytest.mark.parametrize("subject", ["CSI1", "CSI2", "CSI3", "CSI4"])
def test_a_whole_list_of_trials_is_that_of_the_sessions(subject):
    """The counts that the paper has are those of its sessions of nine and ten runs."""
    script = sys.modules[load_preparation("bold5000").__module__]
    sessions, runs = script._sessions_and_runs(subject, script.TRIALS[subject])
    assert len(sessions) == len(runs) == script.TRIALS[subject]
    assert len(set(zip(sessions, runs, strict=True))) * 37 == len(runs) and sessions == sorted(sessions)


def test_without_a_list_the_repeated_have_to_be_all(tmp_path, monkeypatch):
    source = bold5000.write_arrays(tmp_path / "source")
    (source / "BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt").unlink()
    with pytest.raises(FmriModelsError, match="3 pictures were shown several times to CSI1, CSI4, and not 113"):
        prepared(source, tmp_path / "table")


def test_the_miniature_of_the_original_layout(test_data, tmp_path):
    """Files that were made beside the original loader, which returned the same betas."""
    from PIL import Image
    from safetensors.numpy import load_file

    stored = load_file(test_data / "fixtures/mindvis/mindvis_datasets.safetensors")
    layout = json.loads((test_data / "fixtures/mindvis/mindvis_datasets.json").read_text())["layout"]["bold"]
    place = tmp_path / "BOLD5000_GLMsingle_ROI_betas" / "py"
    scenes = tmp_path / "BOLD5000_Stimuli" / "Scene_Stimuli"
    runs = tmp_path / "BOLD5000_Stimuli" / "Stimuli_Presentation_Lists" / "CSI1" / "CSI1_sess01"
    for folder in (place, scenes / "Presented_Stimuli" / "Scene", runs):
        folder.mkdir(parents=True)
    for key, value in stored.items():
        if key.startswith("file.BOLD5000/CSI1_"):
            np.save(place / f"CSI1_{bold5000.BETAS}_allses_{key.rpartition('_')[2]}.npy", value)
        if key.startswith("file.BOLD5000/img_dict/"):
            name = key.rpartition("/")[2]
            Image.fromarray(value).save(scenes / "Presented_Stimuli" / "Scene" / name, format="PNG")
    (scenes / "repeated_stimuli_113_list.txt").write_text("\n".join(layout["repeated_list"]))
    (runs / "CSI_sess01_run01.txt").write_text("\n".join(layout["sequence"]))
    outputs = tmp_path.parent / f"{tmp_path.name}_tables"
    table = prepared(tmp_path, outputs / "averaged", repetitions="average_test", validation_fraction=0)
    train, test = table.trials("CSI1", "train"), table.trials("CSI1", "test")
    single = prepared(tmp_path, outputs / "single", validation_fraction=0).all_trials("CSI1")
    everything = single.fmri()[np.argsort(single.trials)]
    # The loader pads to the patch by wrapping around, and standardises by one number of the whole matrix.
    padded = np.pad(everything, ((0, 0), (0, 16 - everything.shape[1] % 16)), "wrap")
    for own, name in ((train, "train"), (test, "test")):
        returned = stored[f"out.bold.plain.{name}_fmri"]
        values = np.pad(own.fmri(), ((0, 0), (0, 16 - everything.shape[1] % 16)), "wrap")
        order = np.argsort(own.trials)
        expected = (values[order] - padded.mean()) / padded.std()
        assert np.allclose(expected, returned[:, : expected.shape[1]], atol=1e-5)
        pictures = table.stimuli.images(own.stimulus_ids[order])
        assert np.array_equal(pictures, stored[f"out.bold.plain.{name}_image"])


def at(folder: Path, name: str) -> Path:
    return next(folder.rglob(name))


def shorter(folder: Path) -> None:
    path = at(folder, "CSI1_*_LHLOC.npy")
    np.save(path, np.load(path)[1:])


def cut(folder: Path) -> None:
    path = at(folder, "CSI1_*_LHLOC.npy")
    path.write_bytes(path.read_bytes()[:-9])


def without_names(folder: Path) -> None:
    for path in folder.rglob("CSI_sess*.txt"):
        path.unlink()


def fewer_names(folder: Path) -> None:
    path = at(folder / "BOLD5000_Stimuli/Stimuli_Presentation_Lists/CSI1", "CSI_sess01_run01.txt")
    path.write_text(path.read_text().partition("\n")[2])


def nan_session(folder: Path) -> None:
    for path in folder.rglob("CSI1_*_allses_*.npy"):
        values = np.load(path)
        values[:6] = np.nan
        np.save(path, values)


def pickled(folder: Path) -> None:
    place = folder / "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli"
    for path in [each for each in place.rglob("*") if each.is_file()]:
        path.unlink()
    (place / "img_dict.npy").write_bytes(b"\x93NUMPY")


def twice(folder: Path) -> None:
    path = at(folder, "concert5.jpg")
    (folder / "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli/COCO/concert5.png").write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: None, {"incomplete": False}, "names 4 pictures, and not 113"),
        (shorter, {}, r"is of the shape \(12, 2\); expected \(13, voxels\)"),
        (cut, {}, "cut short or changed"),
        (lambda folder: at(folder, "CSI4_*_RHRSC.npy").unlink(), {}, "has no CSI4_.*_allses_RHRSC.npy"),
        (without_names, {}, "doesn't say what CSI1 was shown; expected BOLD5000_Stimuli"),
        (fewer_names, {}, "13 trials of betas .* and lists of 12 pictures"),
        (nan_session, {}, "NaN"),
        (pickled, {}, "pickled dictionary, which may run programs"),
        (twice, {}, "Two pictures are called concert5"),
        (lambda folder: at(folder, "concert6.jpg").unlink(), {"incomplete": False}, "1 of 9 pictures are missing"),
        (bold5000.write_first_release, {}, "several forms of the betas; name one: --option form=arrays"),
        (lambda folder: None, {"form": "volumes"}, "has no betas of BOLD5000"),
        (lambda folder: None, {"subjects": ["CSI2"]}, "has no betas of BOLD5000"),
    ],
)  # fmt: skip
def test_other_arrays_are_a_sentence_and_no_table(tmp_path, change, options, message):
    folder = bold5000.write_arrays(tmp_path / "source")
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def another_grid(folder: Path) -> None:
    nibabel.Nifti1Image(bold5000.brain(), np.eye(4)).to_filename(folder / "CSI1_brainmask.nii.gz")


def another_shape(folder: Path) -> None:
    nibabel.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)).to_filename(folder / "CSI1_brainmask.nii.gz")
    for path in folder.rglob("sub-CSI1_mask-*"):
        nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)).to_filename(path)


def cut_volumes(folder: Path) -> None:
    path = at(folder, "CSI1_*_ses-02.nii.gz")
    path.write_bytes(path.read_bytes()[:-400])


def release_cut(folder: Path) -> None:
    path = at(folder, "CSI1_ROIs_TR34.h5")
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("volumes", another_grid, "has another grid than .*CSI1_brainmask.nii.gz: .*Nothing is resampled"),
        ("volumes", another_shape, r"are of the shape \(4, 5, 3\), and the brain mask is \(3, 3, 3\)"),
        ("volumes", cut_volumes, "is damaged, cut short, or no NIfTI image"),
        ("volumes", lambda folder: at(folder, "CSI1_*_ses-01.nii.gz").unlink(), "expected all from 1 on without a gap"),
        ("volumes", lambda folder: at(folder, "*mask-LHPPA*").unlink(), "mask-LHPPA.nii.gz; give derivatives/spm"),
        (
            "volumes",
            lambda folder: at(folder, "CSI1_brain*").write_bytes(b"no"),
            "CSI1_brainmask.nii.gz is damaged, cut short, or no NIfTI image",
        ),
        ("first_release", release_cut, "is damaged, cut short, or no HDF5 file"),
    ],
)
def test_other_volumes_are_a_sentence_and_no_table(tmp_path, form, change, message):
    folder = FORMS[form](tmp_path / "source")
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table")
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def test_a_session_that_is_missing_at_the_end(tmp_path):
    source = bold5000.write_volumes(tmp_path / "source", ("CSI1",))
    at(source, "CSI1_*_ses-02.nii.gz").unlink()
    table = prepared(source, tmp_path / "table")
    assert len(table.all_trials("CSI1")) == 6
    with pytest.raises(FmriModelsError, match="6 trials of betas .* and lists of 13 pictures"):
        prepared(source, tmp_path / "table", incomplete=False)


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    from fmri_models.data.published import extraction

    source = bold5000.write_volumes(tmp_path / "source")
    whole = prepared(source, tmp_path / "whole")
    read, append = [], extraction._append

    def failing(path, recording, subject):
        read.append(recording.name)
        if len(read) == 2:
            raise KeyboardInterrupt
        return append(path, recording, subject)

    monkeypatch.setattr(extraction, "_append", failing)
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "table")
    assert not (tmp_path / "table").exists() and work_folder(tmp_path / "table").is_dir()
    table = prepared(source, tmp_path / "table")
    assert read == ["session 01", "session 02", "session 02", "session 01"]
    assert table.fingerprint == whole.fingerprint


def test_first_release_with_a_region_less(tmp_path):
    source = bold5000.write_first_release(tmp_path / "source", ("CSI1",))
    with h5py.File(at(source, "CSI1_ROIs_TR34.h5"), "r+") as file:
        del file["RHOPA"]
    with pytest.raises(FmriModelsError, match="has no matrix RHOPA"):
        prepared(source, tmp_path / "table")


def test_from_the_command_to_a_report(tmp_path):
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    bold5000.write_arrays(tmp_path / "source")
    command = ["prepare", "bold5000", "--source", str(tmp_path / "source"), "--out", str(tmp_path / "table")]
    options = ["incomplete=yes", "repetitions=average_test", "size=8"]
    assert main([*command, *(part for each in options for part in ("--option", each))]) == 0
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == 2 * len(bold5000.REPEATED)
