"""Deep Image Reconstruction, from files in the published layout to a table and a report."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.published import bdata
from fmri_models.data.published.extraction import work_folder
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import dir as made

CORTEX = np.array(made.CORTEX)
ALL = ["natural", "shapes", "letters", "imagery"]


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("dir")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


def test_every_trial_is_where_it_belongs(tmp_path: Path) -> None:
    table = prepared(made.write(tmp_path / "dir", (1, 3)), tmp_path / "table", tests=ALL)
    assert table.subjects == ["subj01", "subj03"] and validate_table(table.path) == []
    for subject, number in (("subj01", 1), ("subj03", 3)):
        trials = table.all_trials(subject)
        order = np.argsort(trials.trials)
        shown = [(kind, place, row) for kind in made.PARTS for place, row in enumerate(made.rows(kind)) if row[1]]
        assert trials.stimulus_ids[order].tolist() == [row[1] for _, _, row in shown]
        expected = np.stack([made.betas(kind, number)[place, CORTEX] for kind, place, _ in shown])
        assert np.array_equal(trials.fmri()[order], expected)
        assert trials.imagery[order].tolist() == [kind == "imagery" for kind, _, _ in shown]
        learned = table.trials(subject, ["train", "validation"])
        assert set(learned.stimulus_ids.tolist()) == set(made.TRAINED)
    # Runs and sessions go on from one file to the next; the fixation is no trial.
    test = table.trials("subj01", "test")
    order = np.argsort(test.trials)
    assert test.runs[order].tolist() == [3] * 4 + [4] * 4 + [5] * 4 + [6] * 3 + [7] * 3 + [8] * 2 + [9] * 2 + [10] * 3
    assert test.sessions[order].tolist() == [2] * 12 + [3] * 6 + [4] * 4 + [5] * 3
    assert np.array_equal(
        table.stimuli.images(["colorExpStim19_yellow_plus"])[0], made.picture("colorExpStim19_yellow_+")
    )
    assert table.stimuli.categories(["colorExpStim19_yellow_plus", "letter_black_img028_R"]) == ["yellow plus", "R"]
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.stimuli) == ("dir", "forbidden")


def test_tests_are_chosen(tmp_path: Path) -> None:
    source = made.write(tmp_path / "dir")
    natural = prepared(source, tmp_path / "table").trials("subj01", "test")
    assert set(natural.stimulus_ids.tolist()) == set(made.TESTED)
    letters = prepared(source, tmp_path / "table", tests=["letters"], repetitions="average_test")
    test = letters.trials("subj01", "test")
    assert test.stimulus_ids.tolist() == list(made.LETTERS.values())
    assert np.array_equal(test.fmri()[0], made.betas("letters", 1)[[0, 2]].mean(axis=0)[CORTEX])
    assert "letters" in letters.metadata["description"] and "shapes" not in letters.metadata["description"]
    assert prepared(source, tmp_path / "table", cortex=False).num_voxels("subj01") == made.betas("natural", 1).shape[1]


def other_voxels(folder: Path) -> None:
    with h5py.File(folder / "sub-01_perceptionNaturalImageTest_original_VC.h5", "r+") as file:
        keys = [key.decode() for key in file["metadata/key"][:]]
        file["metadata/value"][keys.index("ROI_VC"), 6] = 1


def cut(folder: Path) -> None:
    path = folder / "sub-01_perceptionNaturalImageTraining_original_VC.h5"
    path.write_bytes(path.read_bytes()[:500])


def unknown_shape(folder: Path) -> None:
    with h5py.File(folder / "sub-01_perceptionArtificialImage_original_VC.h5", "r+") as file:
        file["dataset"][0, -1] = 41


def category_learned_from(folder: Path) -> None:
    with h5py.File(folder / "sub-01_perceptionNaturalImageTraining_original_VC.h5", "r+") as file:
        file["dataset"][0, -1] = 1443537.000007


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: [path.unlink() for path in folder.glob("*.h5")], {}, "has no files of DIR; expected sub-01"),
        (lambda folder: None, {"incomplete": False}, "has 36 trials, and not 7,200"),
        (lambda folder: (folder / "sub-01_imagery_original_VC.h5").unlink(), {"incomplete": False, "tests": ALL},
         "and not sub-01_imagery_original_VC.h5; get the rest"),
        (lambda folder: None, {"tests": ["shape"]}, "Did you mean 'shapes'"),
        (lambda folder: (folder / "images/JPEG/n01443537_22563.JPEG").unlink(), {"incomplete": False},
         "1 of 16 pictures are missing"),
        (lambda folder: None, {"images": Path("nowhere")}, "pictures' folder nowhere does not exist"),
        (other_voxels, {}, "have other voxels"),
        (cut, {}, "no HDF5 file"),
        (unknown_shape, {"tests": ["shapes"]}, "has 1 to 41; expected 1 to 40"),
        (category_learned_from, {}, r"tested categories are learned from, too \(n01443537\)"),
    ],
)  # fmt: skip
def test_other_files_are_a_sentence_and_no_table(tmp_path: Path, change, options, message: str) -> None:
    folder = made.write(tmp_path / "dir")
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def test_an_interrupted_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made.write(tmp_path / "dir", (1, 2))
    whole = prepared(source, tmp_path / "whole")
    reads, blocks = [], bdata.BData.blocks

    def failing(self, columns, rows):
        reads.append(self.path.name)
        if len(reads) == 3:
            raise KeyboardInterrupt
        return blocks(self, columns, rows)

    monkeypatch.setattr(bdata.BData, "blocks", failing)
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "table")
    assert not (tmp_path / "table").exists() and work_folder(tmp_path / "table").is_dir()
    assert prepared(source, tmp_path / "table").fingerprint == whole.fingerprint and len(reads) == 3 + 2


def test_to_a_report(tmp_path: Path) -> None:
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    prepared(made.write(tmp_path / "dir"), tmp_path / "table", repetitions="average_test", size=8)
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == len(made.TESTED)
