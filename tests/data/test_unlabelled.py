"""Trials without a stimulus: written, read by part, never averaged, and in no split's rows."""

import csv
import itertools

import numpy as np
import pytest
from datasets import load_dataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data.arrays import prepare_arrays
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


PICTURES = 24


class Given:
    """A person's files: an array, events, and pictures p00 ... p23."""

    def __init__(self, folder, rows, header=("stimulus_id",), seed=0):
        (folder / "pictures").mkdir(parents=True)
        for i in range(PICTURES):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / f"p{i:02d}.png")
        self.betas = np.random.default_rng(seed).normal(size=(len(rows), VOXELS)).astype(np.float32)
        np.save(folder / "x.npy", self.betas)
        with (folder / "events.csv").open("w", newline="") as file:
            # A line of one empty field would be no row.
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([[*header, "note"], *([*row, "-"] for row in rows)])
        self.folder = folder

    def prepare(self, pictures=True, **options):
        said = []
        stimuli = self.folder / "pictures" if pictures else None
        out = self.folder / "out"
        prepare_arrays(
            self.folder / "x.npy",
            self.folder / "events.csv",
            stimuli,
            out,
            report=said.append,
            overwrite=True,
            **options,
        )
        return TrialTable.open(out), said


def test_rows_without_a_stimulus_become_a_part_of_their_own(tmp_path):
    rows = [[f"p{i:02d}", 1, ("train", "test")[i >= 12], i % 2] for i in range(PICTURES)]
    rows[3:3] = [["", 1001, "", ""], ["n/a", 2001, "unlabelled", 5]]
    files = Given(tmp_path / "f", rows, ["stimulus_id", "run", "split", "repetition"])
    table, said = files.prepare()
    assert any(s.startswith("2 of 26 trials have no stimulus: they are of the part 'unlabelled'") for s in said)
    np.testing.assert_array_equal(table.trials("subj01", "unlabelled").fmri(), files.betas[3:5])
    assert table.trials("subj01", "unlabelled").trials.tolist() == [3, 4]
    assert table.trials("subj01", "unlabelled").repetitions.tolist() == [0, 0]
    np.testing.assert_array_equal(table.trials("subj01", "unlabelled_viewing").fmri(), files.betas[4:5])
    assert table.metadata["trials"]["subj01"] == {"train": 11, "validation": 1, "test": 12, "unlabelled": 2}
    assert table.trials("subj01", "test").repetitions.tolist() == [0, 1] * 6
    assert validate_table(table.path) == []


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from(["", "p"]), min_size=30, max_size=40), st.booleans())
def test_any_rows_may_be_without_a_stimulus(tmp_path_factory, kinds, is_split):
    """The others are what they are in a table without these."""
    # With fewer, there may be too few to split.
    assume(not any(kinds) or sum(map(bool, kinds)) >= 8)
    names = itertools.cycle(f"p{i:02d}" for i in range(PICTURES))
    rows = [[next(names) if kind else ""] for kind in kinds]
    labelled = [row for row in rows if row[0]]
    if is_split:
        part = {name: ("train", "train", "validation", "test")[int(name[1:]) % 4] for (name,) in labelled}
        rows = [[name, part.get(name, "")] for (name,) in rows]
        labelled = [row for row in rows if row[0]]
    header = ["stimulus_id", "split"][: 1 + is_split]
    files = Given(tmp_path_factory.mktemp("any") / "f", rows, header)
    without = Given(tmp_path_factory.mktemp("any") / "f", labelled, header)
    expected = without.prepare()[0] if labelled else None
    table, _ = files.prepare(pictures=bool(labelled))
    at = [i for i, row in enumerate(rows) if row[0]]
    np.testing.assert_array_equal(
        table.unlabelled_trials("subj01").fmri(), files.betas[[i for i, row in enumerate(rows) if not row[0]]]
    )
    for part in ("train", "validation", "test"):
        found = table.trials("subj01", part)
        wanted = [] if expected is None else expected.trials("subj01", part).trials.tolist()
        assert found.trials.tolist() == [at[trial] for trial in wanted]
        np.testing.assert_array_equal(found.fmri(), files.betas[found.trials])
    assert validate_table(table.path) == table.findings
    assert len(table.findings) == (0 if expected is None else len(expected.findings))


def test_a_table_of_fmri_alone(tmp_path, capsys):
    rows = [["anna" if i < 24 else "bert", "", 1 + i // 12] for i in range(36)]
    files = Given(tmp_path / "f", rows, ["subject", "stimulus_id", "session"])
    arguments = ["--fmri", str(files.folder / "x.npy"), "--events", str(files.folder / "events.csv")]
    assert main(["prepare", "arrays", *arguments, "--out", str(tmp_path / "t")]) == 0
    assert "mindvis_pretraining" in capsys.readouterr().out
    table = TrialTable.open(tmp_path / "t")
    assert len(table.stimuli) == 0 and table.num_folds() == 1 and len(table.split_rows()) == 0
    assert table.stimuli.images().shape[0] == 0
    np.testing.assert_array_equal(table.trials("bert", "unlabelled").fmri(), files.betas[24:])
    notes: list[str] = []
    assert validate_table(table.path, note=notes.append) == []
    assert any(note.startswith("All trials of anna, bert are without a stimulus") for note in notes)
    assert len(load_dataset(str(table.path), "bert", split="unlabelled", cache_dir=str(tmp_path / "c"))) == 12
    card = (table.path / "README.md").read_text()
    assert "**Stimuli:** none" in card and "stimuli-*" not in card and "stimuli = " not in card
    assert main(["data", "info", str(table.path)]) == 0
    assert "24 trials (24 unlabelled), 2 sessions, no stimulus shown" in capsys.readouterr().out
    assert main(["data", "split", str(table.path), "--name", "k", "--by", "stimulus"]) == 1
    assert "The number of stimuli is 0" in capsys.readouterr().err


def test_a_subject_without_stimuli_beside_one_with_some(tmp_path):
    rows = [["anna", f"p{i:02d}"] for i in range(PICTURES)] + [["bert", ""]] * 12
    table, said = Given(tmp_path / "f", rows, ["subject", "stimulus_id"]).prepare()
    assert table.metadata["trials"]["bert"]["unlabelled"] == 12 and len(table.all_trials("bert")) == 0
    assert any(sentence.startswith("All trials of bert are without a stimulus") for sentence in said)
    assert len(split_by_stimulus(SplitTrials.of_table(table)).table) == PICTURES


def test_trials_without_a_stimulus_are_not_one_stimulus_of_their_session(tmp_path):
    rows = [["", 1 + i // 15] for i in range(30)]
    table, _ = Given(tmp_path / "f", rows, ["stimulus_id", "session"]).prepare(pictures=False)
    processor = fit_processor(table, ["subj01"], ["unlabelled"], statistics="session")
    assert processor.subject("subj01").pooled_sessions == []
    with pytest.raises(FmriModelsError, match="num_best_voxels chooses voxels .* of which there are none"):
        fit_processor(table, ["subj01"], ["unlabelled"], num_best_voxels=3)


@pytest.mark.parametrize(
    ("rows", "pictures", "message"),
    [
        ([["", "train"], ["p01", "train"]], True, "no stimulus_id in row 1, which is in the split 'train'; say what"),
        ([["p00", "unlabelled"], ["p01", "train"]], True, "has the stimulus p00 in row 1, .*whose trials have none"),
        ([["p00", ""], ["p01", "train"]], True, "has no split in row 1"),
        ([["", ""], ["", ""]], True, "has no stimulus_id in any row, and pictures are given"),
        ([["p00", "train"], ["", ""]], False, r"has 1 stimuli \(p00\) and no pictures are given; .*--stimuli"),
        ([["p00", "test"], ["", ""]], True, "No trial of the events is in the split 'train'"),
    ],
)
def test_what_contradicts_itself_is_a_sentence(tmp_path, rows, pictures, message):
    with pytest.raises(FmriModelsError, match=message):
        Given(tmp_path / "f", rows, ["stimulus_id", "split"]).prepare(pictures)
    assert not (tmp_path / "f" / "out").exists()


def test_a_tested_trial_that_is_there_without_its_stimulus_too_is_a_finding(tmp_path):
    rows = [[f"p{i:02d}", "test" if i > 11 else "train"] for i in range(PICTURES)] + [["", ""]]
    files = Given(tmp_path / "f", rows, ["stimulus_id", "split"])
    files.betas[-1] = files.betas[PICTURES - 1]
    np.save(files.folder / "x.npy", files.betas)
    table, _ = files.prepare()
    assert any("so that what is tested is learned from" in finding for finding in table.findings)
