"""MOSAIC, from files in the published layout to a table and a report."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError
from tests.fabricated import mosaic as made

pytest.importorskip("nibabel")


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("mosaic")(source, out, **{"overwrite": True, **options})
    return TrialTable.open(out)


def named(dataset: str, stimulus: str) -> str:
    return stimulus if stimulus.startswith("n0") else f"{dataset}_{stimulus.replace(' ', '_')}"


def test_every_beta_is_where_it_belongs(tmp_path: Path) -> None:
    source = made.write(tmp_path / "mosaic")
    atlas = made.write_atlas(tmp_path / "areas.dlabel.nii")
    options = {"images": tmp_path / "pictures", "atlas": atlas, "rois": ["V1", "V2"], "validation_fraction": 0}
    table = prepared(source, tmp_path / "table", **options)
    assert table.subjects == ["sub-01_GOD", "sub-02_NOD"] and validate_table(table.path) == []
    # A vertex without a beta in some trial is left out, of each subject for itself.
    chosen = [place for place in [*range(10), *range(made.LEFT, made.LEFT + 10)] if place != made.BAD]
    for subject in table.subjects:
        dataset = subject.partition("_")[2]
        for part in ("train", "test"):
            expected = {
                (named(dataset, stimulus), repetition): made.beta(place, subject)[chosen]
                for place, (stimulus, phase, repetition) in enumerate(made.trials(dataset))
                if phase == part and (phase == "test" or stimulus != made.COMMON)
            }
            trials = table.trials(subject, part)
            order = np.argsort(trials.trials)
            keys = sorted(expected)
            assert trials.stimulus_ids[order].tolist() == [name for name, _ in keys]
            assert np.allclose(trials.fmri()[order], np.stack([expected[key] for key in keys]), atol=0.01)
        assert table.voxels(subject).roi == ["V1"] * 9 + ["V2"] * 10
    assert "1 training trials show pictures that are tested elsewhere" in table.metadata["description"]
    assert np.array_equal(table.stimuli.images([made.COMMON])[0], made.picture(made.COMMON))
    assert table.metadata["license"].startswith("CC0 1.0")


def test_parts_of_it(tmp_path: Path) -> None:
    source = made.write(tmp_path / "mosaic", ("sub-01_NSD",), pictures=False)
    table = prepared(source, tmp_path / "table", vertices="all", rois=["SUBCORTEX"], datasets=["NSD"])
    assert table.num_voxels("sub-01_NSD") == made.GRAYORDINATES - made.CORTEX
    assert "not to be passed on" in table.metadata["license"] and "no pictures" in table.metadata["description"]


def other_key(folder: Path) -> None:
    with h5py.File(folder / "sub-01_GOD.hdf5", "r+") as file:
        file["betas"].move("sub-01_GOD_stimulus-god 00_phase-train_rep-0", "trial0")


def other_width(folder: Path) -> None:
    with h5py.File(folder / "sub-01_GOD.hdf5", "w") as file:
        file["betas/sub-01_GOD_stimulus-a_phase-train_rep-0"] = np.zeros(59412)


def alike(folder: Path) -> None:
    with h5py.File(folder / "sub-01_GOD.hdf5", "r+") as file:
        file["betas/sub-01_GOD_stimulus-god+00_phase-train_rep-0"] = made.beta(0)


def cut(folder: Path) -> None:
    path = folder / "sub-01_GOD.hdf5"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: (folder / "sub-01_GOD.hdf5").unlink(), {}, "has no such file of MOSAIC"),
        (lambda folder: None, {"datasets": ["COCO"]}, "MOSAIC has no 'COCO'; it has BMD"),
        (lambda folder: None, {"subjects": ["sub-02_GOD"]}, "no such file of MOSAIC"),
        (other_key, {}, "has the array 'trial0' in betas"),
        (other_width, {}, r"of the shape \(59412,\); expected arrays of \(91282,\)"),
        (alike, {}, "would both have the id 'GOD_god_00'"),
        (cut, {}, "no HDF5 file"),
        (lambda folder: None, {"images": Path("nowhere")}, "pictures' folder nowhere does not exist"),
    ],
)
def test_other_files_are_a_sentence_and_no_table(tmp_path: Path, change, options, message: str) -> None:
    folder = made.write(tmp_path / "mosaic", ("sub-01_GOD",), pictures=False)
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def test_to_a_report(tmp_path: Path) -> None:
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    source = made.write(tmp_path / "mosaic", ("sub-02_NOD",))
    options = {"images": tmp_path / "pictures", "atlas": made.write_atlas(tmp_path / "areas.dlabel.nii")}
    prepared(source, tmp_path / "table", rois=["V2"], repetitions="average_test", **options)
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == 2
