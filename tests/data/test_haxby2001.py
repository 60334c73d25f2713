"""haxby2001: both published layouts, and the real files decoded to categories, each run left out once."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fmri_models.data.validation import validate_table
from tests.data.test_nifti import damaged, in_order, prepare, prepared
from tests.fabricated import haxby2001 as made

pytest.importorskip("nibabel")
pytest.importorskip("nilearn")


def script(repository: Path) -> ModuleType:
    path = repository / "scripts" / "haxby_categories.py"
    spec = importlib.util.spec_from_file_location("haxby_categories", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def responses() -> np.ndarray:
    """(blocks, voxels), centred in each run as the script does it with the mean over its volumes."""
    values = []
    for run in range(1, made.RUNS + 1):
        mean = made.bold(run).mean(-1)[made.chosen()]
        for category in made.order(run):
            block = made.BASELINE * (1 + made.response(run, category)[made.chosen()] / 100)
            values.append(100 * (block / mean - 1))
    return np.array(values)


def test_openfmri_s_layout(tmp_path: Path) -> None:
    made.write_openfmri(tmp_path / "in" / "haxby2001", ("25mm", "1slice"))
    table = prepared(
        tmp_path / "in", tmp_path / "out", "image=bold_25mm", "folds=4", "incomplete=yes", name="haxby2001"
    )
    fmri, ids = in_order(table, "subj01")
    assert ids == [category for run in range(1, made.RUNS + 1) for category in made.order(run)]
    assert np.allclose(fmri, responses(), atol=0.02)
    assert validate_table(table.path) == []
    # A run is left out of each fold, and never torn.
    for fold in range(4):
        test = table.trials("subj01", "test", "kfold4", fold)
        assert set(test.runs.tolist()).isdisjoint(table.trials("subj01", ["train", "validation"], "kfold4", fold).runs)
        assert sorted(test.stimulus_ids.tolist()) == sorted(made.CATEGORIES)
    assert table.stimuli.categories(["cat"]) == ["cat"] and table.metadata["license"] == "CC BY-SA 3.0"


def test_nilearn_s_layout(tmp_path: Path) -> None:
    made.write_nilearn(tmp_path / "in")
    table = prepared(tmp_path / "in", tmp_path / "out", "incomplete=yes", name="haxby2001")
    fmri, ids = in_order(table, "subj01")
    assert ids == [category for run in range(1, made.RUNS + 1) for category in made.order(run)]
    assert np.allclose(fmri, responses(), atol=0.02)
    flat = np.arange(60).reshape(made.SHAPE)[made.chosen()]
    assert table.voxels("subj01").roi == np.where(flat < 10, "face", np.where(flat < 30, "VT", "")).tolist()


@pytest.mark.parametrize(
    ("break_it", "options", "sentence"),
    [
        (lambda root: None, [], "has several images; there are bold_1slice, bold_25mm: choose one"),
        (lambda root: None, ["image=bold"], "has no bold.nii.gz"),
        (
            lambda root: (root / "models/model001/condition_key.txt").write_text("a b c"),
            ["image=bold_25mm"],
            "names the",
        ),
        (lambda root: damaged(next(root.rglob("*run003/bold_25mm.nii.gz"))), ["image=bold_25mm"], "cut short"),
        (lambda root: next(root.rglob("*run002/cond003.txt")).write_text("x"), ["image=bold_25mm"], "has the line 'x'"),
        (lambda root: (root / "sub001").rename(root / "subject1"), [], "has no files of haxby2001"),
    ],
)
def test_other_files_are_a_sentence(tmp_path: Path, capsys, break_it, options, sentence: str) -> None:
    root = made.write_openfmri(tmp_path / "in", ("25mm", "1slice"))
    break_it(root)
    assert prepare(tmp_path / "in", tmp_path / "out", *options, "incomplete=yes", name="haxby2001") == 1
    error = capsys.readouterr().err
    assert sentence in error and "unexpected" not in error
    assert not (tmp_path / "out").exists()


def test_labels_of_other_volumes(tmp_path: Path, capsys) -> None:
    root = made.write_nilearn(tmp_path / "in")
    labels = root / "subj1" / "labels.txt"
    labels.write_text("\n".join(labels.read_text().splitlines()[:-3]))
    assert prepare(root, tmp_path / "out", name="haxby2001") == 1
    assert "has 484 volumes, and" in capsys.readouterr().err


def test_eight_categories_of_the_real_files(test_data: Path, repository: Path, tmp_path: Path) -> None:
    found = script(repository).main(
        ["--source", str(test_data / "data" / "haxby2001"), "--image", "bold_1slice", "--out", str(tmp_path / "out")]
    )
    assert len(found.shown) == 80 and len(found.names) == 8
    assert found.accuracy >= 0.5
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["chance"] == 0.125 and (tmp_path / "out" / "confusion.png").is_file()
    # Labels that are exchanged within runs are decoded at chance.
    rng = np.random.default_rng(0)
    exchanged = [(rng.permutation(8)[found.shown] == found.decoded).mean() for _ in range(200)]
    assert np.mean(exchanged) < 0.2


def test_the_real_25_mm_files_have_their_mask(test_data: Path, tmp_path: Path) -> None:
    table = prepared(
        test_data / "data" / "haxby2001", tmp_path / "out", "image=bold_25mm", "incomplete=yes", name="haxby2001"
    )
    assert table.num_voxels("subj01") == 129 and len(table.all_trials("subj01")) == 80
    # Every category once in each run.
    trials = table.all_trials("subj01")
    assert len({(run, name) for run, name in zip(trials.runs, trials.stimulus_ids, strict=True)}) == 80
