"""Which trials a pipeline has not learned from: the same answer for evaluation, commands and page, or a refusal."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.cli.main import main
from fmri_models.data.split_files import part_fingerprints
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_by_run, split_by_stimulus
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.held_out import held_out_notes, held_out_trials, other_table_notes
from fmri_models.evaluation.patterns import load_patterns
from fmri_models.training.estimate import estimate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import LearnedFrom, TrainingRecord, encoded_pictures
from tests.small_table import PARTS, write_kfold, write_small_table

SUBJECT = "subj07"


# By gradient, as a start from another model has no effect on a fit in closed form.
RECIPE = """
method: mindeye
generator: pixels
targets: [image_embeds]
processor: {statistics: session}
model: {hidden_size: 16, num_hidden_layers: 1, use_projector: false, prior_num_layers: 1, prior_num_attention_heads: 2,
        prior_attention_head_dim: 8, prior_num_inference_steps: 2}
stages:
  - name: all
    objective: {modules: [backbone, prior], mixco_beta: null, soft_clip_temperatures: [0.05, 0.05]}
    train_on: [train, validation]
    validate_on: []
    training: {steps: 2, batch_size: 30}
"""


def make_recipe(data, out, *overrides):
    path = out.parent / "recipe.yaml"
    path.write_text(RECIPE)
    return load_recipe(str(path), [f"data={data}", f"out={out}", *overrides])


def trained(data, out, *overrides):
    train(make_recipe(data, out, *overrides))
    return out


def draw(data, name, seed, draw=split_by_stimulus, **options):
    table = TrialTable.open(data)
    add_split(table, name, draw(SplitTrials.of_table(table), seed, **options))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A table with the splits a and b (by stimulus), k (three folds) and runs, and a model on a."""
    folder = tmp_path_factory.mktemp("held_out")
    data = write_small_table(folder / "data", subjects=(SUBJECT,))
    for seed, name in enumerate("ab"):
        draw(data, name, seed, test_fraction=0.3)
    write_kfold(data, "k", 3)
    draw(data, "runs", 0, split_by_run)
    trained(data, folder / "model", "split=a")
    return folder


@pytest.fixture
def copied(workplace, tmp_path):
    """Table and model in a place where they may be changed."""
    for name in ("data", "model"):
        shutil.copytree(workplace / name, tmp_path / name)
    return tmp_path


def test_ids(table, split, part="test", fold=0):
    return set(table.trials(SUBJECT, part, split, fold).stimulus_ids.tolist())


test_ids.__test__ = False


def without_training(model):
    """As an earlier version has recorded it."""
    path = model / "training.json"
    values = json.loads(path.read_text())
    del values["learned_from"], values["unknown_initial_models"]
    path.write_text(json.dumps({**values, "schema": 1}))


def test_fingerprints_tell_what_is_in_the_parts_and_not_how_it_is_written(workplace, tmp_path):
    table = TrialTable.open(workplace / "data")
    rows = table.split_rows("k")
    found = [part_fingerprints(rows, fold) for fold in range(3)]
    assert len({prints["test"] for prints in found}) == 3
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    assert part_fingerprints(shuffled, 1) == found[1]
    again = TrialTable.open(write_small_table(tmp_path / "again", subjects=(SUBJECT,)))
    assert part_fingerprints(again.split_rows(), 0) == part_fingerprints(table.split_rows(), 0)
    assert part_fingerprints(table.split_rows("a"), 0)["test"] != part_fingerprints(table.split_rows("b"), 0)["test"]


def test_the_record_says_what_was_learned_from_and_held_out(workplace):
    table = TrialTable.open(workplace / "data")
    (own,) = TrainingRecord.load(workplace / "model").learned_from
    assert own.part_fingerprints == part_fingerprints(table.split_rows("a"), 0)
    learned = test_ids(table, "a", ["train", "validation"])
    known = dict(zip(table.stimuli.ids, own.knows(table.stimuli.content_hashes()), strict=True))
    assert {name for name, is_known in known.items() if is_known} == learned


def test_the_split_and_fold_of_the_training_are_taken(workplace):
    table = TrialTable.open(workplace / "data")
    pipeline = FmriToImagePipeline.from_pretrained(workplace / "model")
    held_out = held_out_trials(pipeline, table, SUBJECT)
    assert held_out.stimuli == test_ids(table, "a") != test_ids(table, "default")
    assert held_out_notes([held_out]) == []
    assert held_out_trials(pipeline, table, SUBJECT, "train").stimuli == test_ids(table, "a", "train")
    patterns = load_patterns(pipeline, workplace / "data", SUBJECT)
    assert (set(patterns.stimuli), patterns.notes) == (test_ids(table, "a"), [])
    with pytest.raises(FmriModelsError, match="no part 'tests' of a split; known: train, validation, test"):
        held_out_trials(pipeline, table, SUBJECT, "tests")


@pytest.mark.parametrize("command", ["evaluate", "reconstruct", "retrieve", "fit-processor"])
def test_a_split_that_was_drawn_again_is_refused_everywhere(copied, command, capsys):
    (copied / "data" / "splits" / "a.parquet").unlink()
    draw(copied / "data", "a", 5, test_fraction=0.3)
    data, model, out = copied / "data", copied / "model", copied / "out"
    options = {
        "evaluate": ["--model", model, "--data", data, "--out", out],
        "reconstruct": ["--model", model, "--fmri", data, "--subject", SUBJECT, "--out", out],
        "retrieve": ["--model", model, "--fmri", data, "--subject", SUBJECT, "--gallery", copied / "g.npy"],
        "fit-processor": [model, "--data", data],
    }
    assert main([command, *map(str, options[command])]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "The split 'a' (fold 0)" in said
    assert "was drawn again after" in said
    assert "the same command with the same seed draws it again" in said
    assert not out.exists()


def test_the_same_draw_is_the_same_split(copied):
    (copied / "data" / "splits" / "a.parquet").unlink()
    draw(copied / "data", "a", 0, test_fraction=0.3)
    report = evaluate(copied / "model", copied / "data", copied / "out", "small_pictures")
    assert report.data["split"] == "a"
    (copied / "data" / "splits" / "a.parquet").unlink()
    with pytest.raises(FmriModelsError, match=r"trained on the split 'a' \(fold 0\), which .* does not have"):
        evaluate(copied / "model", copied / "data", copied / "out2", "small_pictures")


def test_a_record_of_an_earlier_version_is_evaluated_with_a_note(copied):
    without_training(copied / "model")
    report = evaluate(copied / "model", copied / "data", copied / "out", "small_pictures")
    assert "whether that was drawn again after the training could not be checked" in report.notes[0]


def test_a_pipeline_that_was_loaded_and_saved_keeps_its_record(copied):
    FmriToImagePipeline.from_pretrained(copied / "model").save_pretrained(copied / "again")
    assert TrainingRecord.load(copied / "again") == TrainingRecord.load(copied / "model")
    assert main(["fit-processor", str(copied / "again"), "--data", str(copied / "data")]) == 0
    assert TrainingRecord.load(copied / "again") == TrainingRecord.load(copied / "model")


def test_another_table_is_reconstructed_with_a_note_and_never_evaluated(workplace, tmp_path, capsys):
    other = write_small_table(tmp_path / "other", subjects=(SUBJECT,), noise=0.4)
    pipeline = FmriToImagePipeline.from_pretrained(workplace / "model")
    with pytest.raises(FmriModelsError, match="trained on the table 'small' with another content"):
        held_out_trials(pipeline, TrialTable.open(other), SUBJECT)
    out = tmp_path / "out"
    command = ["reconstruct", "--model", workplace / "model", "--fmri", other, "--subject", SUBJECT, "--out", out]
    assert main([str(each) for each in command]) == 0
    said = capsys.readouterr().err
    learned = TrialTable.open(workplace / "data")
    seen = test_ids(learned, "default") & test_ids(learned, "a", ["train", "validation"])
    assert 0 < len(seen) < PARTS["test"]
    assert f"has learned from {len(seen)} of these {PARTS['test']} pictures" in said
    assert "the test trials are those of this table's split 'default'" in said
    assert len(list(out.glob("*.png"))) == PARTS["test"]


def test_without_a_record_nobody_knows(copied, capsys):
    (copied / "model" / "training.json").unlink()
    command = ["reconstruct", "--model", copied / "model", "--fmri", copied / "data", "--subject", SUBJECT]
    assert main([str(each) for each in (*command, "--out", copied / "out")]) == 0
    assert "nobody knows whether it has seen these test pictures" in capsys.readouterr().err


def warned(caplog, data, out, *overrides):
    """What is said before the training."""
    caplog.clear()
    with caplog.at_level("WARNING", logger="fmri_models"):
        trained(data, out, *overrides)
    return caplog.text


@pytest.mark.slow
def test_an_initial_model_brings_along_what_it_has_learned_from(workplace, tmp_path, caplog):
    data, start = workplace / "data", f"initial_model={workplace / 'model'}"
    table = TrialTable.open(data)
    tested = test_ids(table, "b")
    seen = len(tested & test_ids(table, "a", ["train", "validation"]))
    message = f"has learned from {seen} of the {len(tested)} pictures that are tested in the split 'b', fold 0"

    assert "has learned from" not in warned(caplog, data, tmp_path / "same", "split=a", start)
    assert len(TrainingRecord.load(tmp_path / "same").learned_from) == 1, "the same training twice"
    notes = evaluate(tmp_path / "same", data, tmp_path / "r", "small_pictures").notes
    assert not any("has learned from" in note for note in notes)

    assert message in warned(caplog, data, tmp_path / "out", "split=b", start)
    report = evaluate(tmp_path / "out", data, tmp_path / "report", "small_pictures")
    assert f"has learned from {seen} of these {len(tested)} pictures" in report.notes[0]

    # From another table pictures are known by their pixels alone, which is said before the training and in the report.
    other = write_small_table(tmp_path / "other", subjects=(SUBJECT,), noise=0.4)
    doubt = "has learned from another table too ('small'): "
    said = warned(caplog, other, tmp_path / "of_other", start)
    assert doubt in said and f"pictures that {SUBJECT} is tested on" in said
    assert any(
        doubt in note for note in evaluate(tmp_path / "of_other", other, tmp_path / "ro", "small_pictures").warnings
    )
    assert doubt not in warned(caplog, data, tmp_path / "same_again", "split=a", start)

    # Also at second hand, on the split that the middle one was trained on.
    assert message in warned(caplog, data, tmp_path / "third", f"initial_model={tmp_path / 'out'}", "split=b")
    assert [each.split for each in TrainingRecord.load(tmp_path / "third").learned_from] == ["b", "a"]


def test_a_dry_run_says_it_too(workplace, tmp_path, caplog):
    data, start = workplace / "data", f"initial_model={workplace / 'model'}"
    with caplog.at_level("WARNING", logger="fmri_models"):
        estimate(make_recipe(data, tmp_path / "out", "split=b", start))
    assert "pictures that are tested in the split 'b'" in caplog.text


@pytest.mark.slow
def test_all_folds_from_one_initial_model_are_marked(workplace, tmp_path, caplog):
    data, table = workplace / "data", TrialTable.open(workplace / "data")
    said = warned(caplog, data, tmp_path / "out", "split=k", "folds=all", f"initial_model={workplace / 'model'}")
    assert [f"'k', fold {fold}" in said for fold in range(3)] == [True] * 3
    report = evaluate(tmp_path / "out", data, tmp_path / "report", "small_pictures")
    seen = len(test_ids(table, "a", ["train", "validation"]))
    assert f"has learned from {seen} of these {sum(PARTS.values())} pictures" in report.notes[0]


def test_pictures_are_known_in_other_tables_by_their_content(workplace, tmp_path, caplog):
    other = write_small_table(tmp_path / "other", subjects=(SUBJECT,), noise=0.4)
    draw(other, "b", 1, test_fraction=0.3)
    start = f"initial_model={workplace / 'model'}"
    assert "pictures that are tested in the split 'b'" in warned(caplog, other, tmp_path / "out", "split=b", start)


def test_an_initial_model_without_a_record_is_noted(copied, caplog):
    (copied / "model" / "training.json").unlink()
    said = warned(caplog, copied / "data", copied / "out", "split=b", f"initial_model={copied / 'model'}")
    assert "Nobody knows all that the initial model model (a folder, " in said
    (unknown,) = TrainingRecord.load(copied / "out").unknown_initial_models
    assert unknown.startswith("model (a folder, ")
    notes = evaluate(copied / "out", copied / "data", copied / "report", "small_pictures").notes
    assert notes[0].startswith("Nobody knows all that the initial model model (a folder, ")
    trained(copied / "data", copied / "next", "split=b", f"initial_model={copied / 'out'}")
    assert TrainingRecord.load(copied / "next").unknown_initial_models == [unknown]


def test_an_initial_model_of_an_earlier_version_is_known_on_its_own_table(copied, caplog):
    without_training(copied / "model")
    start = f"initial_model={copied / 'model'}"
    said = warned(caplog, copied / "data", copied / "out", "split=b", start)
    assert "pictures that are tested in the split 'b'" in said
    assert "pictures that are tested" not in warned(caplog, copied / "data", copied / "same", "split=a", start)
    assert len(TrainingRecord.load(copied / "same").unknown_initial_models) == 1


def test_designs_that_show_pictures_again_are_judged_by_trials(workplace, tmp_path, caplog):
    data = workplace / "data"
    pooled = "processor.statistics=pooled"
    trained(data, tmp_path / "first", "split=runs", "fold=1", pooled)
    trained(data, tmp_path / "second", "split=runs", "fold=1", pooled, f"initial_model={tmp_path / 'first'}")
    notes = evaluate(tmp_path / "second", data, tmp_path / "report", "small_pictures").notes
    assert not any("has learned from" in note for note in notes)
    said = warned(caplog, data, tmp_path / "third", "split=runs", pooled, f"initial_model={tmp_path / 'first'}")
    assert "tested in the split 'runs', fold 0" in said


def test_a_recipe_that_learns_from_test_trials_is_marked(workplace, tmp_path):
    trained(workplace / "data", tmp_path / "out", "stages.0.train_on=[train,validation,test]")
    notes = evaluate(tmp_path / "out", workplace / "data", tmp_path / "report", "small_pictures").notes
    assert f"has learned from {PARTS['test']} of these {PARTS['test']} pictures" in notes[0]


def test_no_reference_has_seen_the_test_pictures(workplace, tmp_path):
    overrides = ["split=b", f"initial_model={workplace / 'model'}"]
    trained(workplace / "data", tmp_path / "seen", *overrides)
    trained(workplace / "data", tmp_path / "fresh", "split=b")
    with pytest.raises(FmriModelsError, match="The reference .* has learned from .* of the test pictures"):
        evaluate(tmp_path / "fresh", workplace / "data", tmp_path / "r", "small_pictures", reference=tmp_path / "seen")


def test_a_part_is_called_part(workplace, tmp_path, capsys):
    command = ["reconstruct", "--model", workplace / "model", "--fmri", workplace / "data", "--subject", SUBJECT]
    command = [str(each) for each in command]
    table = TrialTable.open(workplace / "data")
    for option, warned in (("--part", False), ("--split", True)):
        out = tmp_path / option.strip("-")
        assert main([*command, "--out", str(out), option, "validation"]) == 0
        assert ("--split is called --part now" in capsys.readouterr().err) is warned
        assert {path.stem for path in out.glob("*.png")} == test_ids(table, "a", "validation")
    assert main([*command, "--out", str(tmp_path / "x"), "--split", "test", "--part", "train"]) == 2
    assert "give --part alone" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "x"), "--session", "1"]) == 1
    assert "says the sessions itself" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "x"), "--seed", "3", "3"]) == 1
    assert "The seed 3 is given twice" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", table.trials(SUBJECT, "test", "a").fmri(slice(0, 2)))
    command[command.index("--fmri") + 1] = str(tmp_path / "x.npy")
    assert main([*command, "--out", str(tmp_path / "x"), "--part", "test"]) == 1
    assert "is no trial table, so it has no part 'test'" in capsys.readouterr().err


def test_built_in_scenes_are_known_by_their_pixels_in_any_table():
    source = "fmri-models simulate"

    def notes(name, table_source, of_table, of_source, pictures=""):
        learned = LearnedFrom(name, "x", "default", 0, ["train"], {}, pictures, None, "", table_source)
        stimuli = SimpleNamespace(content_hashes=lambda ids: ["ab" * 32, "cd" * 32, None])
        table = SimpleNamespace(name=of_table, fingerprint="y", metadata={"source": of_source}, stimuli=stimuli)
        return other_table_notes([learned], table, "subj04", ["b", "a", "c", "a"])

    some, scenes = encoded_pictures(["ab" * 32]), "simulated-scenes"
    assert notes(scenes, source, scenes, source, some) == []
    # What is not known to be scenes, or which of them, stays a doubt.
    assert notes(scenes, source, scenes, source, None)
    assert notes(scenes, "", scenes, source, some) and notes(scenes, source, "mine", "my scanner", some)
    assert notes("simulated-photos", source, scenes, source, some)
    assert "1 of the 3 pictures that subj04 is tested on is known" in notes(scenes, source, "mine", "mine", some)[0]
