"""What a recipe leaves to the data: few stimuli, and designs that repeat stimuli over runs."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_by_run, split_kfold
from fmri_models.errors import FmriModelsError
from fmri_models.training.before_training import few_stimuli_sentence
from fmri_models.training.estimate import estimate
from fmri_models.training.inner_folds import inner_split
from fmri_models.training.recipe import Recipe, load_recipe
from fmri_models.training.settling import settled_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord

KINDS = 6


def write_design(path: Path, runs: int, each: int = 1, sessions: int = 1) -> TrialTable:
    """Six categories in every run, each with its pattern; each session numbers its runs from 1."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, size=(KINDS, 8, 8), dtype=np.uint8)
    patterns = rng.normal(size=(KINDS, 80))
    ids = [f"kind{kind}" for kind in range(KINDS)]
    shown = np.tile(np.repeat(np.arange(KINDS), each), runs * sessions)
    of_run = np.repeat(np.arange(runs * sessions), KINDS * each)
    fmri = patterns[shown] + 1.5 * rng.normal(size=(len(shown), 80)) + 0.5 * rng.normal(size=(len(shown), 1))
    with TrialTableWriter(path, name="design", repeats_stimuli="for tests") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": each} for name, each in zip(ids, pictures, strict=True))
        writer.add_voxels("subj01", 80)
        writer.add_trials(
            "subj01", "train", stimulus_ids=[ids[kind] for kind in shown], sessions=(1 + of_run // runs).tolist(),
            runs=(1 + of_run % runs).tolist(), trials=list(range(len(shown))), fmri=fmri.astype(np.float32),
        )  # fmt: skip
    table = TrialTable.open(path)
    rows = SplitTrials.of_table(table)
    add_split(table, "runs", split_by_run(rows))
    add_split(table, "kinds", split_kfold(rows, folds=3))
    return TrialTable.open(path)


def recipe_of(table: TrialTable, *overrides: str, name: str = "linear") -> Recipe:
    return load_recipe(name, [f"data={table.path}", "generator=pixels", "targets=[latents]", *overrides])


def settled(table: TrialTable, *overrides: str, name: str = "linear") -> Recipe:
    return settled_recipe(recipe_of(table, *overrides, name=name), table, ["subj01"])


@pytest.mark.parametrize(("runs", "each", "sessions", "leaves_out"), [
    (6, 1, 1, "run"), (4, 3, 1, "run"), (2, 1, 2, "run"), (2, 3, 1, "trial"), (2, 1, 1, "nothing"),
])  # fmt: skip
def test_the_recipe_linear_reads_categories_that_are_repeated_over_runs(
    tmp_path: Path, runs: int, each: int, sessions: int, leaves_out: str
) -> None:
    table = write_design(tmp_path / "data", runs, each, sessions)
    right = []
    for fold in range(2):
        out = tmp_path / f"out{fold}"
        train(recipe_of(table, "split=runs", f"fold={fold}", f"out={out}"))
        record = TrainingRecord.load(out)
        assert record is not None and record.repetitions == "single"
        assert record.stages[0]["learned_from"]["subj01"] == {
            "parts": ["train", "validation"], "rows": KINDS * each * (runs * sessions - 1), "stimuli": KINDS,
            "leaves_out": leaves_out,
        }  # fmt: skip
        pipeline, test = FmriToImagePipeline.from_pretrained(out), table.trials("subj01", "test", "runs", fold)
        drawn = pipeline(test.fmri(), "subj01", session=test.sessions, output_type="np").images
        flat = drawn.reshape(len(drawn), -1)
        truth = table.stimuli.images(table.stimuli.ids).reshape(KINDS, -1)
        found = np.corrcoef(flat, truth)[: len(flat), len(flat) :].argmax(1)
        right += [table.stimuli.ids[row] == shown for row, shown in zip(found, test.stimulus_ids, strict=True)]
    # Six patterns of single trials don't tell much; chance is 1 in 6.
    assert np.mean(right) > (0.5 if leaves_out == "nothing" else 0.8)


def test_few_stimuli_are_all_learned_from_and_many_keep_their_validation(tmp_path: Path) -> None:
    table = write_design(tmp_path / "data", runs=3)
    few = settled(table, "split=kinds")
    assert (few.repetitions, few.train_parts) == ("average", ["train", "validation"])
    assert few.stages[0].objective["selection"] == "leave_one_stimulus_out"
    assert settled_recipe(few, table, ["subj01"]) == few
    many = settled(table, "split=kinds", "stages.0.objective.few_stimuli=2")
    assert (many.train_parts, many.stages[0].objective["selection"]) == (["train"], "validation")
    told = settled(table, "split=kinds", "stages.0.objective.selection=leave_one_stimulus_out")
    assert told.train_parts == ["train"]


@pytest.mark.parametrize("name", ["mindeye", "digits69_linear"])
def test_repetitions_are_not_averaged_over_runs_by_any_method(tmp_path: Path, name: str) -> None:
    table = write_design(tmp_path / "data", runs=3)
    assert settled(table, "split=runs", name=name).repetitions == "single"
    assert settled(table, "split=kinds", name=name).repetitions == "average"


def test_the_estimate_counts_the_rows_that_are_learned_from(tmp_path: Path) -> None:
    table = write_design(tmp_path / "data", runs=4)
    assert f"(80 voxels, {KINDS * 3} rows)" in estimate(recipe_of(table, "split=runs", f"out={tmp_path / 'out'}"))


def test_settings_are_chosen_on_runs_where_the_design_repeats_stimuli(tmp_path: Path) -> None:
    table = write_design(tmp_path / "data", runs=7)
    rows = inner_split(recipe_of(table, "split=runs", "stages.0.objective.selection=validation"), table, 3)
    inner = table.with_split("inner", rows)
    assert inner.num_folds("inner") == 3 and inner.repeats_stimuli("inner")
    for fold in range(3):
        runs = [
            set(inner.trials("subj01", part, "inner", fold).runs.tolist()) for part in ("train", "validation", "test")
        ]
        assert [len(each) for each in runs] == [3, 1, 2] and not set.intersection(*runs)
        assert 1 not in set.union(*runs)


@pytest.mark.parametrize(("name", "overrides", "warns"), [
    ("mindeye", (), True), ("mindeye_photos", (), True), ("digits69_mindeye", (), True), ("linear", (), False),
    ("mindeye", ("initial_model=somewhere",), False),
])  # fmt: skip
def test_few_stimuli_are_said_to_be_few_before_training_by_gradient(
    tmp_path: Path, name: str, overrides: tuple[str, ...], warns: bool
) -> None:
    table = write_design(tmp_path / "data", runs=3)
    recipe = load_recipe(name, [f"data={table.path}", "generator=pixels", *overrides])
    sentence = few_stimuli_sentence(recipe, table, ["subj01"])
    assert bool(sentence) == warns
    assert not warns or ("There are 6 training stimuli" in sentence and "recipe linear" in sentence)


def test_the_sentence_comes_before_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = write_design(tmp_path / "data", runs=3)
    recipe = recipe_of(table, f"out={tmp_path / 'out'}", "processor.rois=[nowhere]", name="mindeye")
    with caplog.at_level("WARNING", logger="fmri_models"), pytest.raises(FmriModelsError, match="nowhere"):
        train(recipe)
    assert "There are 6 training stimuli" in caplog.text
    small = ["model.hidden_size=16", "model.prior_num_layers=1", "targets=[image_embeds]"]
    assert "There are 6 training stimuli" in estimate(recipe_of(table, *small, name="digits69_mindeye"))
