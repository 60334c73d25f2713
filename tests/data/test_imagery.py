"""The optional columns of trials: which block a trial is of, and whether its picture was imagined."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import split_by_imagery, split_by_stimulus
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError
from tests.small_table import write_small_table

PICTURES = 12
IMAGINED = ("p00", "p01", "p02")


def write(path, with_imagery=True, **marks):
    """Twelve pictures seen twice, and three of them imagined."""
    rng = np.random.default_rng(0)
    ids = [f"p{index:02d}" for index in range(PICTURES)]
    seen = ids * 2
    with TrialTableWriter(path, name="imagery") as writer:
        pictures = rng.integers(0, 255, (PICTURES, 8, 8), dtype=np.uint8)
        writer.add_stimuli({"stimulus_id": name, "image": picture} for name, picture in zip(ids, pictures, strict=True))
        writer.add_trials("subj01", "train", seen, rng.normal(size=(len(seen), 5)), blocks=[1] * 12 + [2] * 12)
        if with_imagery:
            marks = {"imagery": [True] * 3} | marks
            betas = rng.normal(size=(3, 5))
            writer.add_trials("subj01", "train", list(IMAGINED), betas, **marks)
    return path


@pytest.fixture
def table(tmp_path):
    return TrialTable.open(write(tmp_path / "data"))


def test_marks_are_read_where_they_are_and_are_none_elsewhere(table):
    trials = table.all_trials("subj01")
    assert trials.imagery.tolist() == [False] * 24 + [True] * 3
    assert trials.blocks.tolist() == [1] * 12 + [2] * 12 + [0] * 3
    assert trials.subset([25]).imagery.tolist() == [True]
    assert not [each for each in validate_table(table.path) if "imagery" in each or "block" in each]


def test_tables_without_them_are_as_they_were(tmp_path):
    table = TrialTable.open(write_small_table(tmp_path / "small"))
    trials = table.all_trials("subj07")
    assert not trials.imagery.any() and not trials.blocks.any()
    assert trials.imagery.dtype == bool
    columns = pq.read_schema(table.trial_files("subj07")[0]).names
    assert columns == ["subject", "session", "run", "trial", "repetition", "stimulus_id", "fmri"]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({"imagery": [1, 0, 1]}, "expected True or False"),
        ({"imagery": [True]}, "1 marks of imagery of subj01 for 3 trials"),
        ({"blocks": [-1, 0, 1]}, "expected 0 to"),
    ],
)
def test_other_marks_are_refused(tmp_path, marks, message):
    with pytest.raises(FmriModelsError, match=message):
        write(tmp_path / "data", **marks)


def test_a_column_of_another_type_is_a_sentence(table):
    path = table.trial_files("subj01")[0]
    content = pq.read_table(path)
    place = content.column_names.index("imagery")
    pq.write_table(content.set_column(place, "imagery", [np.zeros(len(content), np.int32)]), path)
    with pytest.raises(FmriModelsError, match="the column imagery has the type int32; expected bool"):
        table.all_trials("subj01")


def test_what_is_imagined_is_tested_and_new(table):
    drawn = split_by_imagery(SplitTrials.of_table(table), validation_fraction=0.2)
    rows = drawn.table.to_pylist()
    parts = {part: {row["stimulus_id"] for row in rows if row["split"] == part} for part in ("train", "test")}
    assert parts["test"] == set(IMAGINED)
    assert not parts["train"] & set(IMAGINED) and drawn.repeats_stimuli == ""
    assert "6 trials of pictures that are imagined in others are in no part" in drawn.notes[0]
    assert any("split as if their pictures had been shown" in note for note in split_by_stimulus(
        SplitTrials.of_table(table)).notes)  # fmt: skip


def test_a_table_without_imagery_has_no_such_split(tmp_path, capsys):
    path = write(tmp_path / "data", with_imagery=False)
    assert main(["data", "split", str(path), "--name", "imagery", "--by", "imagery"]) == 1
    assert "No trial of the table is one of imagery" in capsys.readouterr().err


def test_events_say_which_trials_are_of_imagery(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.normal(size=(27, 5)).astype(np.float32))
    ids = [f"p{index:02d}" for index in range(PICTURES)]
    lines = [f"{name},block-1,no" for name in ids * 2] + [f"{name},2,yes" for name in IMAGINED]
    (tmp_path / "events.csv").write_text("\n".join(["stimulus_id,block,imagery", *lines]) + "\n")
    (tmp_path / "pictures").mkdir()
    for name in ids:
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / "pictures" / f"{name}.png")
    command = ["prepare", "arrays", "--fmri", str(tmp_path / "X.npy"), "--events", str(tmp_path / "events.csv")]
    command += ["--stimuli", str(tmp_path / "pictures"), "--out", str(tmp_path / "data")]
    assert main(command) == 0
    assert TrialTable.open(tmp_path / "data").all_trials("subj01").imagery.sum() == 3
    assert main(["data", "split", str(tmp_path / "data"), "--name", "imagery", "--by", "imagery"]) == 0
    lines[0] = "p00,1,perhaps"
    (tmp_path / "events.csv").write_text("\n".join(["stimulus_id,block,imagery", *lines]) + "\n")
    assert main([*command, "--overwrite"]) == 1
    assert "as imagery in row 1; expected yes or no" in capsys.readouterr().err
