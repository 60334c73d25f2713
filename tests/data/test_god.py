"""Generic Object Decoding, from files in both published layouts to a table and a report."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.published.extraction import work_folder
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import god

CORTEX = np.array(god.CORTEX)


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("god")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


def in_order(trials) -> np.ndarray:
    return np.argsort(trials.trials)


def test_every_trial_is_where_it_belongs(tmp_path):
    table = prepared(god.write_published(tmp_path / "god", (1, 3)), tmp_path / "table")
    assert table.subjects == ["subj01", "subj03"] and validate_table(table.path) == []
    for subject, number in (("subj01", 1), ("subj03", 3)):
        rows = god.rows(number)
        trials = table.all_trials(subject)
        order = in_order(trials)
        assert np.array_equal(trials.fmri()[order], god.all_betas(number)[:, CORTEX])
        assert trials.stimulus_ids[order].tolist() == [name for _, name, _ in rows]
        assert trials.imagery[order].tolist() == [kind == 3 for kind, _, _ in rows]
        learned = table.trials(subject, ["train", "validation"])
        assert sorted(learned.trials.tolist()) == list(range(len(god.TRAINED)))
    # Runs of the test and of imagery are counted on.
    assert table.trials("subj01", "test").runs.tolist() == [3] * 4 + [4] * 4 + [5] * 4 + [6] * 4 + [7] * 4
    shown = table.stimuli.images(god.TESTED)
    assert np.array_equal(shown, [god.picture(name) for name in god.TESTED])
    assert table.stimuli.categories(["n01443537_22563"]) == ["n01443537"]
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.stimuli) == ("god", "forbidden")
    assert "request" not in table.metadata["description"] and table.metadata["license"].startswith("CC0 1.0")


def test_sessions_are_those_of_the_file_where_it_has_some(tmp_path):
    source = god.write_published(tmp_path / "god")
    god.write_bdata(source / "Subject1.h5", 1, sessions=True)
    table = prepared(source, tmp_path / "table")
    trials = table.all_trials("subj01")
    order = in_order(trials)
    assert trials.sessions[order].tolist() == [1] * 6 + [2] * 6 + [2] * 12 + [3] * 8
    assert np.array_equal(trials.fmri()[order], god.all_betas(1)[:, CORTEX])
    assert "do not say sessions" not in table.metadata["description"]


def test_a_missing_library_is_a_sentence(tmp_path, monkeypatch):
    source = god.write_published(tmp_path / "god")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        FmriModelsError, match=r"package h5py, which is not installed; pip install .fmri_models\[data\]"
    ):
        prepared(source, tmp_path / "table")


def test_regions_and_places(tmp_path):
    source = god.write_published(tmp_path / "god")
    voxels = prepared(source, tmp_path / "table").voxels("subj01")
    assert voxels.roi == ["V1", "V1", "V2", "LVC", "LOC", "LOC", "HVC", "VC"]
    assert np.allclose(voxels.coordinates, np.stack([3.0 * CORTEX, -3.0 * CORTEX, 1.5 * CORTEX], axis=1))
    # A region that overlaps another is whole.
    second = prepared(source, tmp_path / "table", rois=["V2"])
    assert second.trials("subj01", "test").fmri()[0].tolist() == [11201.0, 11202.0]
    higher = prepared(source, tmp_path / "table", rois=["HVC"]).voxels("subj01")
    assert higher.source_columns.tolist() == [4, 5, 6] and higher.source_width == 8
    assert prepared(source, tmp_path / "table", cortex=False).num_voxels("subj01") == god.WIDTH


def test_the_mean_of_the_repetitions_leaves_imagery_apart(tmp_path):
    options = {"repetitions": "average_test", "zscore": "session", "validation_fraction": 0}
    test = prepared(god.write_published(tmp_path / "god"), tmp_path / "table", **options).trials("subj01", "test")
    seen = test.stimulus_ids[~test.imagery]
    assert sorted(seen.tolist()) == sorted(god.TESTED) and int(test.imagery.sum()) == len(god.TESTED)
    learned = 100.0 * np.arange(len(god.TRAINED))
    expected = (np.mean([1200, 1600, 2000]) - learned.mean()) / learned.std()
    assert test.fmri()[~test.imagery][0] == pytest.approx(np.full(len(CORTEX), expected), rel=1e-3)
    without = prepared(god.write_published(tmp_path / "god"), tmp_path / "table", imagery=False)
    assert len(without.trials("subj01", "test")) == god.REPEATS * len(god.TESTED)


def test_tested_categories_are_new_over_all_subjects_together(tmp_path):
    table = prepared(god.write_published(tmp_path / "god", (1, 2)), tmp_path / "table")
    of_part = {
        part: {name.partition("_")[0] for each in table.subjects for name in table.trials(each, part).stimulus_ids}
        for part in ("train", "validation", "test")
    }
    assert len(of_part["test"]) == 4
    assert not of_part["test"] & (of_part["train"] | of_part["validation"])
    # A picture of a tested category in training is another data set.
    path = tmp_path / "god" / "Subject1.h5"
    with h5py.File(path, "r+") as file:
        keys = [key.decode() for key in file["metadata/key"][:]]
        column = int(np.flatnonzero(file["metadata/value"][keys.index("stimulus_id")] == 1)[0])
        file["dataset"][0, column] = 1443537.000007
    with pytest.raises(FmriModelsError, match=r"1 tested categories are learned from, too \(n01443537\)"):
        prepared(tmp_path / "god", tmp_path / "other")


@pytest.mark.parametrize("labels", [True, False])
def test_the_form_of_mindvis_has_the_same_trials(tmp_path, labels):
    table = prepared(god.write_mindvis(tmp_path / "npz", (1, 2), labels), tmp_path / "table")
    published = prepared(god.write_published(tmp_path / "god", (1, 2)), tmp_path / "published", imagery=False)
    for subject in table.subjects:
        for part in ("train", "validation"):
            own, other = table.trials(subject, part), published.trials(subject, part)
            assert own.stimulus_ids.tolist() == other.stimulus_ids.tolist()
            assert np.array_equal(own.fmri(), other.fmri())
        own, other = table.trials(subject, "test"), published.trials(subject, "test")
        values = other.fmri() if labels else other.fmri().reshape(god.REPEATS, len(god.TESTED), -1).mean(axis=0)
        assert np.array_equal(own.fmri(), values)
        assert own.stimulus_ids.tolist() == god.TESTED * (god.REPEATS if labels else 1)
    assert table.voxels("subj01").roi == published.voxels("subj01").roi
    names = [*god.TRAINED, *god.TESTED]
    assert np.array_equal(table.stimuli.images(names), published.stimuli.images(names))
    assert table.stimuli.categories([god.TRAINED[0], god.TESTED[0], god.TESTED[1]]) == [
        "ostrich", "goldfish", "n01621127",
    ]  # fmt: skip


def test_the_miniature_of_the_original_layout(test_data, tmp_path):
    """Files that were made beside the original loader, which returned the same voxels and pictures."""
    from safetensors.numpy import load_file

    stored = load_file(test_data / "fixtures/mindvis/mindvis_datasets.safetensors")
    layout = json.loads((test_data / "fixtures/mindvis/mindvis_datasets.json").read_text())["layout"]
    folder = tmp_path / "npz"
    folder.mkdir()
    beginning = "file.Kamitani/npz/"
    for name in ("sbj_1.npz", "sbj_2.npz", "images_256.npz"):
        arrays = {
            key.removeprefix(f"{beginning}{name}/"): value
            for key, value in stored.items()
            if key.startswith(f"{beginning}{name}/")
        }
        np.savez(folder / name, **{key: value.astype(bool) if key == "VC" else value for key, value in arrays.items()})
    (folder / "imagenet_class_index.json").write_text(json.dumps(layout["class_index"]))
    for name in ("training", "testing"):
        lines = [",".join(row) for row in layout[f"{name}_label_rows"]]
        (folder / f"imagenet_{name}_label.csv").write_text("\n".join(lines) + "\n")
    # The loader pads to the patch by wrapping around, and standardises by one number of the whole matrix.
    for number in (1, 2):
        table = prepared(folder, tmp_path / "table", subjects=[f"subj{number:02d}"], validation_fraction=0)
        train, test = (table.trials(f"subj{number:02d}", part) for part in ("train", "test"))
        own = train.fmri()[in_order(train)]
        mask = stored[f"{beginning}sbj_{number}.npz/VC"].astype(bool)
        assert np.allclose(own, stored[f"{beginning}sbj_{number}.npz/arr_0"][:, mask])
        if number == 1:
            padded = np.pad(own, ((0, 0), (0, 16 - own.shape[1] % 16)), "wrap")
            expected = (padded - padded.mean()) / padded.std()
            returned = stored["out.kam.one.train_fmri"]
            assert np.allclose(expected[:, : returned.shape[1]], returned, atol=1e-5)
            pictures = table.stimuli.images(train.stimulus_ids[in_order(train)])
            assert np.array_equal(pictures, stored["out.kam.one.train_image"])
            assert np.array_equal(table.stimuli.images(test.stimulus_ids), stored["out.kam.one.test_image"])


def bad_width(folder: Path) -> None:
    with h5py.File(folder / "Subject1.h5", "r+") as file:
        values = file["metadata/value"][:]
        del file["metadata/value"]
        file["metadata"].create_dataset("value", data=values[:, 1:])


def cut(folder: Path) -> None:
    data = (folder / "Subject1.h5").read_bytes()
    (folder / "Subject1.h5").write_bytes(data[: len(data) // 2])


def in_float32(folder: Path) -> None:
    with h5py.File(folder / "Subject1.h5", "r+") as file:
        values = file["dataset"][:].astype(np.float32)
        del file["dataset"]
        file.create_dataset("dataset", data=values)


def nan_run(folder: Path) -> None:
    with h5py.File(folder / "Subject1.h5", "r+") as file:
        file["dataset"][:6, 1 : 1 + god.WIDTH] = np.nan


def no_key(folder: Path) -> None:
    with h5py.File(folder / "Subject1.h5", "r+") as file:
        file["metadata/key"][0] = b"Voxels"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: (folder / "Subject1.h5").unlink(), {}, "has no files of GOD; expected Subject1.h5"),
        (lambda folder: None, {"incomplete": False}, "has 32 trials, and not 3,450"),
        (lambda folder: (folder / "images/test/n01443537_22563.JPEG").unlink(), {"incomplete": False},
         "1 of 16 pictures are missing.*forms.gle"),
        (lambda folder: god.write_mindvis(folder / "npz"), {}, "both Subject.*give the folder of one form"),
        (lambda folder: god.write_published(folder / "again", pictures=False), {}, "Subject1.h5 is in .* twice"),
        (cut, {}, "is damaged, cut short, or no HDF5 file"),
        (bad_width, {}, "its metadata are of the shape"),
        (in_float32, {}, "rounded, so that pictures can't be told apart"),
        (nan_run, {}, "NaN"),
        (no_key, {}, "no key 'VoxelData'"),
        (lambda folder: None, {"subjects": ["subj02"]}, "no subject 'subj02'"),
        (lambda folder: None, {"images": Path("nowhere")}, "pictures' folder nowhere does not exist"),
    ],
)  # fmt: skip
def test_other_files_are_a_sentence_and_no_table(tmp_path, change, options, message):
    folder = god.write_published(tmp_path / "god")
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "imagenet_testing_label.csv").unlink(), "imagenet_testing_label.csv"),
        (lambda folder: (folder / "imagenet_training_label.csv").write_text("1518878.005958\n" * 12), "twice"),
        (lambda folder: (folder / "imagenet_training_label.csv").write_text("ostrich\n"), "expected one as 1518878"),
        (lambda folder: (folder / "sbj_1.npz").write_bytes(b"PK\x03\x04"), "no .npz file"),
        (lambda folder: np.savez(folder / "sbj_1.npz", VC=np.ones(3, bool), arr_0=np.ones((2, 4))), "expected .4,."),
        (lambda folder: np.savez(folder / "images_256.npz", train_images=np.ones((2, 4, 4, 3))), "train_images in"),
        (lambda folder: np.savez(folder / "images_500.npz", train_images=np.ones(1)), "leave one of them"),
    ],
)
def test_other_files_of_the_form_of_mindvis(tmp_path, change, message):
    folder = god.write_mindvis(tmp_path / "npz")
    change(folder)
    with pytest.raises(FmriModelsError, match=message):
        prepared(folder, tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    from fmri_models.data.published import bdata

    source = god.write_published(tmp_path / "god", (1, 2))
    whole = prepared(source, tmp_path / "whole")
    reads = []
    blocks = bdata.BData.blocks

    def failing(self, columns, rows):
        reads.append(self.path.name)
        if len(reads) == 5:
            raise KeyboardInterrupt
        return blocks(self, columns, rows)

    monkeypatch.setattr(bdata.BData, "blocks", failing)
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "table")
    assert not (tmp_path / "table").exists() and work_folder(tmp_path / "table").is_dir()
    table = prepared(source, tmp_path / "table")
    # Four recordings had been read: three of the first subject, and one of the second.
    assert len(reads) == 5 + 2 and table.fingerprint == whole.fingerprint


def test_without_pictures_the_card_says_where_to_ask(tmp_path):
    table = prepared(god.write_published(tmp_path / "god", pictures=False), tmp_path / "table")
    assert "forms.gle/ujvA34948Xg49jdn9" in table.metadata["description"]
    with pytest.raises(FmriModelsError):
        table.stimuli.images()


def test_from_the_command_to_a_report(tmp_path, capsys):
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    god.write_published(tmp_path / "god")
    command = ["prepare", "god", "--source", str(tmp_path / "god"), "--out", str(tmp_path / "table")]
    options = ["incomplete=yes", "imagery=no", "repetitions=average_test", "size=8"]
    assert main([*command, *(part for each in options for part in ("--option", each))]) == 0
    assert "fmri-models train linear" in capsys.readouterr().out
    assert TrialTable.open(tmp_path / "table").stimuli.images().shape == (16, 8, 8, 3)
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == len(god.TESTED)
