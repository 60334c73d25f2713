"""vim-1, from files in the published layout to a table and a report."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import vim1 as made


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("vim1")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


def test_every_response_is_where_it_belongs(tmp_path: Path) -> None:
    table = prepared(made.write(tmp_path / "vim1"), tmp_path / "table", validation_fraction=0)
    assert table.subjects == ["subj01", "subj02"] and validate_table(table.path) == []
    for number, subject in enumerate(table.subjects, 1):
        kept = np.delete(np.arange(made.WIDTH[number]), made.BAD)
        for place, part in enumerate(("train", "test")):
            trials = table.trials(subject, part)
            order = np.argsort(trials.trials)
            assert np.allclose(trials.fmri()[order], made.responses(number, place)[:, kept], atol=1e-3)
            name = ("trn", "val")[place]
            assert trials.stimulus_ids[order].tolist() == [f"{name}{row + 1:04d}" for row in range(len(trials))]
        regions = [("", "V1", "V2", "V3", "V3A", "V3B", "V4", "LO")[made.ROIS[column]] for column in kept]
        assert table.voxels(subject).roi == regions
    pictures = table.stimuli.images(["trn0001", "val0005"])
    expected = np.rint((np.stack([made.photographs(0)[0], made.photographs(1)[4]]).astype(float) + 1) * 127.5)
    assert np.array_equal(pictures[..., 0], expected.astype(np.uint8))
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.redistribution) == ("vim-1", "forbidden")


def test_without_photographs_and_with_all_voxels(tmp_path: Path) -> None:
    source = made.write(tmp_path / "vim1", stimuli=False)
    table = prepared(source / "EstimatedResponses.mat", tmp_path / "table", subjects=["subj02"])
    assert table.subjects == ["subj02"] and "no pictures" in table.metadata["description"]


def turned(folder: Path) -> None:
    with h5py.File(folder / "EstimatedResponses.mat", "r+") as file:
        values = file["dataTrnS1"][:].T
        del file["dataTrnS1"]
        file["dataTrnS1"] = values


def other_region(folder: Path) -> None:
    with h5py.File(folder / "EstimatedResponses.mat", "r+") as file:
        file["roiS1"][0, 0] = 9


def none(folder: Path) -> None:
    with h5py.File(folder / "EstimatedResponses.mat", "w") as file:
        file["rt"] = np.zeros(3)


def cut(folder: Path) -> None:
    data = (folder / "EstimatedResponses.mat").read_bytes()
    (folder / "EstimatedResponses.mat").write_bytes(data[: len(data) // 3])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: (folder / "EstimatedResponses.mat").unlink(), {}, "EstimatedResponses.mat.*crcns.org"),
        (lambda folder: None, {"incomplete": False}, "has 19 trials, and not 1,870"),
        (turned, {}, r"its axes are \(photographs, voxels\)"),
        (other_region, {}, "other numbers than 0 to 7"),
        (none, {}, "no dataTrnS1 and no dataTrnS2"),
        (cut, {}, "no HDF5 file"),
        (lambda folder: (folder / "Stimuli.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)), {}, "Stimuli.mat"),
    ],
)
def test_other_files_are_a_sentence_and_no_table(tmp_path: Path, change, options, message: str) -> None:
    folder = made.write(tmp_path / "vim1")
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def test_to_a_report(tmp_path: Path) -> None:
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    prepared(made.write(tmp_path / "vim1"), tmp_path / "table", subjects=["subj01"])
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == made.TESTED
