"""Miyawaki et al. 2008, from nilearn's folder and the file of figures to a table and a report."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import miyawaki2008 as fabricated

REAL = "data/miyawaki/miyawaki_figures_2_5.npz"


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("miyawaki2008")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def nilearn_folder(tmp_path_factory) -> Path:
    return fabricated.write_nilearn(tmp_path_factory.mktemp("miyawaki") / "miyawaki2008")


@pytest.fixture
def source(nilearn_folder, tmp_path) -> Path:
    return shutil.copytree(nilearn_folder, tmp_path / "source")


def test_every_block_is_where_it_belongs(nilearn_folder, tmp_path):
    table = prepared(nilearn_folder, tmp_path / "table", detrend=False)
    assert validate_table(table.path) == []
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.redistribution) == ("miyawaki2008", "unknown")
    trials = table.all_trials("subj01")
    order = np.argsort(trials.trials)
    blocks = [
        (kind, run, block)
        for kind, count in fabricated.RUNS.items()
        for run in range(1, count + 1)
        for block in range(fabricated.BLOCKS)
    ]
    expected = np.stack([fabricated.beta(*each)[fabricated.MASKED] for each in blocks])
    assert np.array_equal(trials.fmri()[order], expected.astype(np.float32))
    shown = table.stimuli.images(trials.stimulus_ids[order])[..., 0]
    assert np.array_equal(shown, [255 * fabricated.pattern(*each) for each in blocks])
    assert trials.runs[order].tolist() == [run + 20 * (kind == "figure") for kind, run, _ in blocks]
    # What is tested are figures alone, each time that it was shown; random patterns are learned from.
    test = table.trials("subj01", "test")
    assert len(test) == 48 and len(set(test.stimulus_ids.tolist())) == fabricated.NUM_FIGURES
    learned = table.trials("subj01", ["train", "validation"]).stimulus_ids.tolist()
    assert len(learned) == 80 and all(name.startswith("random_") for name in learned)


def test_regions_places_and_ceilings(nilearn_folder, tmp_path):
    table = prepared(nilearn_folder, tmp_path / "table", detrend=False)
    voxels = table.voxels("subj01")
    # The last one has a mask of eccentricity alone.
    assert voxels.roi == ["V1", "V1", "V1", "V2", "VP", "V3A", ""]
    places = np.stack(np.unravel_index(fabricated.MASKED, fabricated.SHAPE), axis=1)
    assert np.allclose(voxels.coordinates, places @ fabricated.AFFINE[:3, :3].T + fabricated.AFFINE[:3, 3])
    assert prepared(nilearn_folder, tmp_path / "table", rois=["V1"]).num_voxels("subj01") == 3


def test_trends_of_runs_are_taken_away(source, tmp_path):
    path = source / "func" / "data_random_run01.nii.gz"
    values = np.random.default_rng(0).normal(size=(*fabricated.SHAPE, fabricated.volumes_of(1))).astype(np.float32)
    trend = np.linspace(0, 50, values.shape[3], dtype=np.float32) + 300

    def first_run(volumes: np.ndarray) -> np.ndarray:
        nibabel.Nifti1Image(volumes, fabricated.AFFINE).to_filename(path)
        trials = prepared(source, tmp_path / "table").all_trials("subj01")
        return trials.fmri()[np.argsort(trials.trials)][: fabricated.BLOCKS]

    assert np.allclose(first_run(values), first_run(values + trend), atol=1e-3)


def test_the_shift_is_told(nilearn_folder, tmp_path):
    trials = prepared(nilearn_folder, tmp_path / "table", detrend=False, shift=1).all_trials("subj01")
    first = trials.fmri()[np.argsort(trials.trials)][0]
    # A volume of rest and two of the response.
    assert np.allclose(first, fabricated.beta("random", 1, 0)[fabricated.MASKED] * 2 / 3)


def test_the_mean_of_a_figure(nilearn_folder, tmp_path):
    test = prepared(nilearn_folder, tmp_path / "table", repetitions="average_test").trials("subj01", "test")
    assert len(test) == fabricated.NUM_FIGURES


def nan_run(folder: Path) -> None:
    path = folder / "func" / "data_random_run03.nii.gz"
    volumes = np.full((*fabricated.SHAPE, fabricated.volumes_of(3)), np.nan, dtype=np.float32)
    nibabel.Nifti1Image(volumes, fabricated.AFFINE).to_filename(path)


def cut(folder: Path) -> None:
    path = folder / "func" / "data_figure_run02.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])


def no_rest(folder: Path) -> None:
    path = folder / "label" / "data_random_run01_label.csv"
    path.write_text(path.read_text().replace("-1", "7"))


def shorter(folder: Path) -> None:
    path = folder / "label" / "data_random_run01_label.csv"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))


def other_shape(folder: Path) -> None:
    nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), fabricated.AFFINE).to_filename(folder / "mask" / "mask.nii.gz")
    for path in (folder / "mask").glob("[LR]H*"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: None, {"incomplete": False}, "has 7 voxels, and not 5,438"),
        (lambda folder: (folder / "func/data_figure_run02.nii.gz").unlink(), {"incomplete": False},
         "1 runs are missing .data_figure_run02.nii.gz"),
        (lambda folder: shutil.rmtree(folder / "func"), {}, "has no files of Miyawaki et al.; expected the folder of"),
        (lambda folder: (folder / "label/data_random_run01_label.csv").unlink(), {}, "data_random_run01_label.csv"),
        (lambda folder: (folder / "mask/mask.nii.gz").unlink(), {}, "mask.nii.gz"),
        (nan_run, {}, "random, run 03 has nothing but NaN"),
        (cut, {}, "data_figure_run02.nii.gz is damaged, cut short"),
        (no_rest, {}, "of -1, 0 and 1, a row a volume"),
        (shorter, {}, r"is of the shape \(27, 100\); expected \(28, 100\)"),
        (other_shape, {}, r"are of the shape \(4, 3, 2\), and the mask is \(2, 2, 2\)"),
        (lambda folder: fabricated.write_mask(folder / "mask/RHV2v.nii.gz", [5], np.eye(4)), {}, "another grid"),
        (lambda folder: None, {"shift": -1}, "The shift is -1 volumes"),
    ],
)  # fmt: skip
def test_other_files_are_a_sentence_and_no_table(source, tmp_path, change, options, message):
    change(source)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(source, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def test_the_file_of_figures(tmp_path):
    source = fabricated.write_npz(tmp_path / "miyawaki_figures_2_5.npz")
    stored = np.load(source)
    table = prepared(source, tmp_path / "table", folds=10)
    trials = table.all_trials("subj01")
    order = np.argsort(trials.trials)
    assert np.array_equal(trials.fmri()[order], stored["voxels"])
    assert np.array_equal(table.stimuli.images(trials.stimulus_ids[order])[..., 0], 255 * stored["images"])
    check_folds(table)


def check_folds(table: TrialTable) -> None:
    """Each fold tests one picture, all eight times, and learns from nine."""
    tested = []
    for fold in range(10):
        test = table.trials("subj01", "test", "kfold10", fold)
        learned = table.trials("subj01", ["train", "validation"], "kfold10", fold)
        assert len(test) == 8 and len(set(test.stimulus_ids.tolist())) == 1 and len(learned) == 72
        assert not set(test.stimulus_ids.tolist()) & set(learned.stimulus_ids.tolist())
        tested += test.stimulus_ids[:1].tolist()
    assert len(set(tested)) == 10


def two_pictures(values: dict) -> None:
    values["images"][0] = 1 - values["images"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("image_id"), "expected .trials, voxels., .trials, height, width. and .trials,."),
        (lambda values: values.update(images=values["images"] * 255), "other values than 0.0 to 1.0"),
        (two_pictures, "is two different pictures"),
        (lambda values: values.update(voxels=values["voxels"][1:]), "has voxels .79, 12."),
    ],
)
def test_another_file_of_figures(tmp_path, change, message):
    path = fabricated.write_npz(tmp_path / "miyawaki_figures_2_5.npz")
    values = dict(np.load(path))
    change(values)
    np.savez(path, **values)
    with pytest.raises(FmriModelsError, match=message):
        prepared(path, tmp_path / "table")


def leave_one_out(source: Path, out: Path, *options: str):
    """By the commands, from the file to the report of all folds."""
    from fmri_models.evaluation.report import Report

    command = ["prepare", "miyawaki2008", "--source", str(source), "--out", str(out / "table")]
    assert main([*command, "--option", "folds=10", *options]) == 0
    recipe = ["generator=pixels", "targets=[latents]", "processor.statistics=pooled", "split=kfold10", "folds=all"]
    assert main(["train", "linear", f"data={out / 'table'}", f"out={out / 'model'}", *recipe]) == 0
    arguments = ["--model", str(out / "model"), "--data", str(out / "table"), "--out", str(out / "report")]
    assert main(["evaluate", *arguments, "--protocol", "small_pictures"]) == 0
    check_folds(TrialTable.open(out / "table"))
    return Report.load(out / "report")


@pytest.mark.slow
def test_leave_one_picture_out_of_made_up_figures(tmp_path):
    source = fabricated.write_npz(tmp_path / "miyawaki_figures_2_5.npz")
    report = leave_one_out(source, tmp_path, "--option", "incomplete=yes")
    assert report.data["test_items"] == 10 and report.data["folds"] == list(range(10))


@pytest.mark.slow
def test_leave_one_picture_out_of_the_real_figures(test_data, tmp_path):
    table = prepared(test_data / REAL, tmp_path / "first", incomplete=False)
    stored = np.load(test_data / REAL)
    trials = table.all_trials("subj01")
    order = np.argsort(trials.trials)
    assert np.array_equal(trials.fmri()[order], stored["voxels"])
    assert table.voxels("subj01").source == "training repetitions"
    report = leave_one_out(test_data / REAL, tmp_path)
    assert report.data["test_items"] == 10
    pixcorr = {row: report.results[row]["pixcorr"]["value"] for row in ("brain", "mean_image", "nearest_train")}
    # Measured: .778 beside .563 and .627.
    assert pixcorr["brain"] > 0.7 and pixcorr["brain"] - max(pixcorr["mean_image"], pixcorr["nearest_train"]) > 0.1
    assert report.results["permuted_training"]["pixcorr"]["value"] < 0.4
