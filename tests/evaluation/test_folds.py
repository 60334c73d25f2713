"""Folds: which are there, which were looked at before, and subjects that a fold does not test."""

import json
import shlex
import shutil

import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.data import TrialTableWriter
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import record_look
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.evaluated_pipelines import evaluated_pipelines
from fmri_models.evaluation.looks import looks_at_folds, looks_sentence, name_of_look
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_kfold, write_small_table

PROTOCOL = "small_pictures"


def said_of_split_by_run(data, capsys):
    """What the command says that draws the split `runs`."""
    assert main(["data", "split", str(data), "--name", "runs", "--by", "run"]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A table with the split k, and the folder of its three folds."""
    folder = tmp_path_factory.mktemp("folds")
    data = write_small_table(folder / "data", subjects=("subj02",))
    write_kfold(data, "k", 3)
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'm'}", "generator=pixels", "split=k", "folds=all"]))
    return folder


@pytest.fixture
def copied(workplace, tmp_path):
    """Where nobody has looked yet."""
    for name in ("data", "m"):
        shutil.copytree(workplace / name, tmp_path / name)
    return tmp_path


def looked(notes):
    (found,) = [note for note in notes if "looked at" in note]
    return found


@pytest.mark.slow
def test_missing_folds_are_the_first_note_and_in_the_log(copied):
    shutil.rmtree(copied / "m" / "fold01")
    notes = evaluate(copied / "m", copied / "data", copied / "r", PROTOCOL).notes
    said = "Only folds 0, 2 of the 3 of the split 'k' (from 0) are evaluated: of fold 1 there is no pipeline"
    assert notes[0].startswith(said)
    (line,) = (copied / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line)["split"] == "k/folds 0, 2"


@pytest.mark.slow
def test_each_fold_has_its_own_looks(copied):
    def look(model):
        return looked(evaluate(copied / model, copied / "data", copied / "r", PROTOCOL, overwrite=True).notes)

    assert look("m/fold01").startswith("The test trials of fold 1 of this split were looked at for the first time")
    assert look("m/fold02").startswith("The test trials of fold 2 of this split were looked at for the first time")
    assert look("m/fold01").startswith("The test trials of fold 1 of this split were looked at for the second time")
    said = "those of fold 0 for the first time, fold 2 for the second time, fold 1 after 2 earlier looks; all looks"
    assert said in look("m")
    assert look("m/fold00").startswith("The test trials of fold 0 of this split were looked at for the second time")


def test_more_than_a_hundred_folds_are_found_in_their_order(tmp_path):
    for name in ("fold99", "fold100", "fold00", "fold1", "fold00 copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text("{}")
    assert [each.source.name for each in evaluated_pipelines(tmp_path)] == ["fold00", "fold99", "fold100"]


@pytest.mark.parametrize(
    ("name", "further", "folds"),
    [
        ("k/all folds", {}, {0, 1, 2}),
        ("k/fold 1", {}, {1}),
        ("k/folds 0, 2", {}, {0, 2}),
        ("k/2", {}, {2}),
        ("other/all folds", {}, set()),
        ("k/test", {}, {0, 1, 2}),
        # What a look saw counts, whatever it is called.
        ("k/all folds", {"test_trials": {"0": "b"}}, {1}),
        ("copy/fold 7", {"test_trials": {"7": "c"}}, {2}),
        ("k/all folds", {"test_trials": {"0": "drawn again"}}, set()),
    ],
)
def test_what_a_line_of_the_log_has_looked_at(tmp_path, name, further, folds):
    record_look(tmp_path / "data", "f", name, {}, {}, **further)
    found = looks_at_folds(tmp_path / "data", "f", "k", {0: "a", 1: "b", 2: "c"})
    assert [seen for _, seen in found] == ([folds] if folds else [])


def test_an_earlier_version_has_written_the_fold_into_the_recipe(tmp_path):
    record_look(tmp_path / "data", "f", "k/test", {"recipe": {"fold": 2}}, {})
    tested = {1: "b", 2: "c"}
    looks = looks_at_folds(tmp_path / "data", "f", "k", tested)
    assert [seen for _, seen in looks] == [{2}]
    assert "fold 1 for the first time, fold 2 for the second time" in looks_sentence(looks, tested, 3)
    assert "for the first time" in looks_sentence([], tested, 3)


def test_names_of_looks():
    assert name_of_look("default", [0], 1) == "default/test"
    assert name_of_look("k", [1, 1], 3) == "k/fold 1"
    assert name_of_look("k", [2, 0], 3) == "k/folds 0, 2"
    assert name_of_look("k", [0, 1, 2], 3) == "k/all folds"


def write_runs(path, own_runs, shared):
    """Subjects with so many runs of ten trials; run 1 of the second shows what run 2 of the first does if `shared`."""
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, size=(80, 4, 4)).repeat(3, axis=1).repeat(3, axis=2).astype(np.uint8)
    weights = rng.normal(size=(144, 20))
    with TrialTableWriter(path, "runs") as writer:
        writer.add_stimuli({"stimulus_id": f"p{index:02d}", "image": each} for index, each in enumerate(pictures))
        for number, (subject, runs) in enumerate(own_runs.items()):
            first = 40 * number if not (shared and number) else 10
            rows = np.arange(first, first + 10 * runs)
            fmri = (pictures[rows].reshape(len(rows), -1) / 255 - 0.5) @ weights + rng.normal(size=(len(rows), 20))
            for part, chosen in (("train", slice(10, None)), ("test", slice(0, 10))):
                writer.add_trials(
                    subject,
                    part if not shared else "train",
                    [f"p{row:02d}" for row in rows[chosen]],
                    fmri[chosen].astype(np.float32),
                    runs=(1 + np.arange(len(rows)) // 10)[chosen].tolist(),
                )
    return path


@pytest.mark.slow
def test_a_subject_without_test_trials_in_a_fold_is_named_from_the_split_on(tmp_path, capsys, caplog):
    data = write_runs(tmp_path / "data", {"s1": 4, "s2": 3}, shared=False)
    said = said_of_split_by_run(data, capsys)
    assert "s2 has no test trials in fold 3: evaluations leave the subject out there." in said
    overrides = [f"data={data}", "generator=pixels", "targets=[latents]", "split=runs", "processor.statistics=pooled"]
    with caplog.at_level("WARNING", logger="fmri_models"):
        train(load_recipe("linear", [*overrides, f"out={tmp_path / 'm'}", "folds=all"]))
    said = "s2 has no test trials in fold 3 of the split 'runs': evaluations leave the subject out there."
    assert caplog.text.count(said) == 1
    report = evaluate(tmp_path / "m", data, tmp_path / "r", PROTOCOL)
    assert report.data["test_items"] == 70
    assert report.notes[0] == said
    alone = [*overrides, f"out={tmp_path / 'alone'}", "subjects=[s2]", "fold=3"]
    train(load_recipe("linear", alone))
    with pytest.raises(FmriModelsError, match="has no test trials of s2 in fold 3 of the split 'runs'"):
        evaluate(tmp_path / "alone", data, tmp_path / "r2", PROTOCOL)


def test_a_subject_with_nothing_to_learn_from_is_found_before_any_fold_is_trained(tmp_path, capsys):
    data = write_runs(tmp_path / "data", {"s1": 3, "s2": 1}, shared=True)
    said = said_of_split_by_run(data, capsys)
    assert "s2 has only test trials in fold 0: no training takes the subject there." in said
    assert "s2 has no test trials in folds 1, 2: evaluations leave the subject out there." in said
    with pytest.raises(FmriModelsError, match=r"s2 has no trials in train, validation of the split 'runs' \(fold 0\)"):
        train(load_recipe("linear", [f"data={data}", f"out={tmp_path / 'm'}", "split=runs", "folds=all"]))
    assert not (tmp_path / "m").exists()


def test_pictures_that_only_different_subjects_share_are_not_said_to_be_shown_twice(tmp_path, capsys):
    data = write_runs(tmp_path / "data", {"s1": 4, "s2": 3}, shared=True)
    said = said_of_split_by_run(data, capsys)
    assert "30 of 40 stimuli are tested and learned from in the same fold, because the design shows them to sev" in said
    assert "no subject learns from its own test pictures" in said
    assert "in several runs (" not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m best #1", "it's", "-m"])
def test_next_lines_can_be_copied_into_a_shell(workplace, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "linear", f"data={workplace / 'data'}", f"out={name}", "generator=pixels"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert main(command[1:]) == 0
    assert (tmp_path / f"{name}-report" / "report.json").is_file()
