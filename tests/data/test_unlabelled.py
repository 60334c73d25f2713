"""Trials without a stimulus: written, read by part, never averaged, and in no split's rows."""

import numpy as np
import pytest
from datasets import load_dataset

from fmri_models.data.processed import ProcessedTrials
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import split_by_stimulus
from fmri_models.data.table import TrialTable
from fmri_models.data.table_processor import fit_processor
from fmri_models.data.validation import validate_table
from fmri_models.data.writer import TrialTableWriter
from fmri_models.errors import FmriModelsError

VOXELS = 6


def write(folder, unlabelled: int = 4):
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(12 + unlabelled, VOXELS)).astype(np.float32)
    with TrialTableWriter(folder, name="small") as writer:
        pictures = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
        writer.add_stimuli({"stimulus_id": f"s{i}", "image": picture} for i, picture in enumerate(pictures))
        writer.add_trials("a", "train", [f"s{i // 2}" for i in range(8)], betas[:8])
        writer.add_trials("a", "test", ["s4", "s4", "s5", "s5"], betas[8:12])
        if unlabelled:
            runs = [1001, 1001, 2001, 2001]
            writer.add_trials("a", "unlabelled", [""] * unlabelled, betas[12:], runs=runs)
    return TrialTable.open(folder), betas


def test_unlabelled_trials_are_read_by_their_part_and_are_in_no_split(tmp_path):
    table, betas = write(tmp_path / "t")
    np.testing.assert_array_equal(table.trials("a", ["unlabelled"]).fmri(), betas[12:])
    np.testing.assert_array_equal(table.trials("a", "unlabelled_rest").fmri(), betas[12:14])
    np.testing.assert_array_equal(table.trials("a", ["train", "unlabelled_viewing"]).fmri()[8:], betas[14:])
    assert table.trials("a", "unlabelled").stimulus_ids.tolist() == [""] * 4
    assert len(table.all_trials("a")) == len(table.split_rows()) == len(table.shown()) == 12
    assert len(split_by_stimulus(SplitTrials.of_table(table), test_fraction=0.4).table) == 12
    notes: list[str] = []
    assert validate_table(tmp_path / "t", note=notes.append) == []
    assert notes == ["Trials without a stimulus (part 'unlabelled'): 4 of a."]
    assert len(load_dataset(str(tmp_path / "t"), "a", split="unlabelled", cache_dir=str(tmp_path / "c"))) == 4


def test_unlabelled_trials_are_no_repetitions_of_each_other(tmp_path):
    table, _ = write(tmp_path / "t")
    processor = fit_processor(table, ["a"])
    processed = ProcessedTrials(table.trials("a", ["train", "unlabelled"]), processor)
    assert len(processed) == 4 + 4
    assert processed.stimulus_ids.tolist() == ["s0", "s1", "s2", "s3", "", "", "", ""]


def test_other_parts_are_the_same_bytes(tmp_path):
    files = {}
    for count in (0, 4):
        folder = tmp_path / str(count)
        write(folder, count)
        files[count] = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.parquet")}
    more = files[4].keys() - files[0].keys()
    assert [path.name for path in more] == ["unlabelled-00000-of-00001.parquet"]
    assert all(files[4][path] == data for path, data in files[0].items())


def test_only_unlabelled_trials_have_no_stimulus(tmp_path):
    for part, stimulus in (("train", ""), ("unlabelled", "s0")):
        with pytest.raises(FmriModelsError), TrialTableWriter(tmp_path / part, name="small") as writer:
            writer.add_trials("a", part, [stimulus], np.arange(6.0)[None])
