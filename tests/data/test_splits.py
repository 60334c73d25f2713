from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.data.split_trials import SplitTrials, draw_validation
from fmri_models.data.splits import (
    DrawnSplit,
    add_split,
    split_by_run,
    split_by_stimulus,
    split_fewer,
    split_kfold,
    split_semantic,
)
from fmri_models.errors import FmriModelsError
from tests.small_table import write_small_table

Part = dict[tuple[int, str], set[str]]


def groups_in(drawn: DrawnSplit, rows: SplitTrials) -> Part:
    parts: Part = {}
    for row in drawn.table.to_pylist():
        parts.setdefault((row["fold"], row["split"]), set()).add(rows.group_of(row["stimulus_id"]))
    return parts


@st.composite
def designs(draw: st.DrawFn) -> SplitTrials:
    shown = draw(st.lists(st.integers(0, 25), min_size=6, max_size=60))
    ids = [f"s{i}" for i in shown] + ["s0", "s1", "s2", "s3"]
    # Twins: the same picture under two ids.
    groups = {f"s{i}": f"content{i // 2 if i > 20 else i + 100}" for i in range(26)}
    categories = {f"s{i}": f"c{i // 2 % 3}" for i in range(26)}
    subjects = ["subj01" if i % 3 else "subj02" for i in range(len(ids))]
    runs = [(1, 1 + i % 4) for i in range(len(ids))]
    return SplitTrials(subjects, list(range(len(ids))), ids, runs, groups, categories)


@given(designs(), st.integers(0, 5), st.sampled_from(["stimulus", "kfold", "semantic"]))
def test_no_picture_is_in_two_parts_and_no_trial_is_lost(rows: SplitTrials, seed: int, by: str) -> None:
    if by == "stimulus":
        drawn = split_by_stimulus(rows, seed)
    elif by == "kfold":
        drawn = split_kfold(rows, seed, folds=3)
    else:
        drawn = split_semantic(rows, seed)
    parts = groups_in(drawn, rows)
    folds = {fold for fold, _ in parts}
    assert len(drawn.table) == len(rows.trials) * len(folds)
    for fold in folds:
        test, train = parts[fold, "test"], parts[fold, "train"]
        validation = parts.get((fold, "validation"), set())
        assert test and train
        assert not test & train and not test & validation and not train & validation
        assert test | train | validation == set(rows.shown)
    if by == "kfold":
        assert sum(len(parts[fold, "test"]) for fold in folds) == len(rows.shown)


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    ids = [f"s{i}" for i in range(40)]
    rows = SplitTrials(["a"] * 40, list(range(40)), ids)
    turned = SplitTrials(["a"] * 40, list(range(40)), ids[::-1])
    first = groups_in(split_by_stimulus(rows, 3), rows)
    assert first == groups_in(split_by_stimulus(turned, 3), turned)
    assert first != groups_in(split_by_stimulus(rows, 4), rows)
    assert len(first[0, "test"]) == 4 and len(first[0, "validation"]) == 4


def test_kfold_spreads_categories() -> None:
    ids = [f"s{i}" for i in range(40)]
    rows = SplitTrials(["a"] * 40, list(range(40)), ids, categories={s: f"c{i % 2}" for i, s in enumerate(ids)})
    for (_, part), shown in groups_in(split_kfold(rows, 0, folds=10), rows).items():
        if part == "test":
            assert sorted(rows.categories[s] for s in shown) == ["c0", "c0", "c1", "c1"]


def test_semantic_holds_whole_categories_out() -> None:
    ids = [f"s{i}" for i in range(40)]
    rows = SplitTrials(["a"] * 40, list(range(40)), ids, categories={s: f"c{i % 8}" for i, s in enumerate(ids)})
    drawn = split_semantic(rows, 0, test_fraction=0.2)
    parts = groups_in(drawn, rows)
    held_out = {rows.categories[s] for s in parts[0, "test"]}
    assert len(parts[0, "test"]) == 10 and len(held_out) == 2
    assert not held_out & {rows.categories[s] for s in parts[0, "train"] | parts[0, "validation"]}
    with pytest.raises(FmriModelsError, match=r"40 stimuli have no category \(s0, "):
        split_semantic(SplitTrials(["a"] * 40, list(range(40)), ids))


def trials_of(drawn: DrawnSplit, subject: str, *parts: str) -> list[int]:
    rows = drawn.table.to_pylist()
    return [row["trial"] for row in rows if row["subject"] == subject and row["split"] in parts]


def test_fewer_trials_and_the_same_test() -> None:
    # Two subjects saw the same pictures three times each; the second one a few less.
    ids = [f"s{i}" for i in range(40) for _ in range(3)] + [f"s{i}" for i in range(30) for _ in range(3)]
    rows = SplitTrials(["a"] * 120 + ["b"] * 90, [*range(120), *range(90)], ids)
    base = split_by_stimulus(rows, 0, test_fraction=0.2)
    drawn = split_fewer(rows, base.table, 20, seed=1, validation_fraction=0.2)
    for subject in ("a", "b"):
        assert trials_of(drawn, subject, "test") == trials_of(base, subject, "test")
        chosen = trials_of(drawn, subject, "train", "validation")
        assert len(chosen) == 20
        assert set(chosen) <= set(trials_of(base, subject, "train"))
    parts = groups_in(drawn, rows)
    assert len(parts[0, "validation"]) >= 1
    assert not parts[0, "validation"] & (parts[0, "train"] | parts[0, "test"])
    again = split_fewer(rows, base.table, 20, seed=1, validation_fraction=0.2)
    assert again.table.equals(drawn.table)
    assert not split_fewer(rows, base.table, 20, seed=2, validation_fraction=0.2).table.equals(drawn.table)


def test_fewer_trials_than_there_are_are_kept_whole_and_none_is_refused() -> None:
    ids = [f"s{i}" for i in range(20)]
    rows = SplitTrials(["a"] * 20, list(range(20)), ids)
    base = split_by_stimulus(rows, 0)
    everything = split_fewer(rows, base.table, 1000, validation_fraction=0)
    assert trials_of(everything, "a", "train") == trials_of(base, "a", "train")
    with pytest.raises(FmriModelsError, match="0 trials were asked for"):
        split_fewer(rows, base.table, 0)
    with pytest.raises(FmriModelsError, match="number of stimuli of a is 1"):
        split_fewer(rows, base.table, 1)


def test_fewer_trials_of_a_design_that_repeats_stimuli_still_say_so(write_table: Callable[..., Path]) -> None:
    table = TrialTable.open(write_table(runs=True))
    rows = SplitTrials.of_table(table)
    base = split_by_run(rows)
    drawn = split_fewer(rows, base.table, 6, repeats_stimuli=base.repeats_stimuli)
    add_split(table, "few", drawn)
    assert TrialTable.open(table.path).repeats_stimuli("few") == base.repeats_stimuli


def test_runs_that_repeat_stimuli_say_so(write_table: Callable[..., Path]) -> None:
    table = TrialTable.open(write_table(runs=True))
    rows = SplitTrials.of_table(table)
    drawn = split_by_run(rows)
    assert drawn.table["fold"].unique().to_pylist() == [0, 1]
    assert "16 of 24 stimuli are tested and learned from" in drawn.repeats_stimuli
    add_split(table, "runs", drawn)
    reopened = TrialTable.open(table.path)
    assert reopened.repeats_stimuli("runs") == drawn.repeats_stimuli
    assert set(reopened.trials("subj01", "test", "runs", fold=1).runs.tolist()) == {2}
    assert set(reopened.trials("subj01", ["train", "validation"], "runs", fold=1).runs.tolist()) == {1}
    assert split_by_run(rows, folds=2).table["fold"].unique().to_pylist() == [0, 1]


def test_runs_without_repetitions_are_disjoint() -> None:
    rows = SplitTrials(
        ["a"] * 20, list(range(20)), [f"s{i}" for i in range(20)], [(1 + i // 10, i % 2) for i in range(20)]
    )
    drawn = split_by_run(rows)
    assert not drawn.repeats_stimuli
    assert drawn.table["fold"].unique().to_pylist() == [0, 1, 2, 3]


def test_too_little_to_split() -> None:
    one = SplitTrials(["a"] * 3, [0, 1, 2], ["s"] * 3, [(1, 1)] * 3, categories={"s": "c"})
    for draw, message in (
        (split_by_stimulus, "stimuli is 1; expected at least 2"),
        (split_kfold, "expected at least 10 for 10 folds"),
        (split_by_run, "runs is 1"),
        (split_semantic, "categories is 1"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            draw(one)
    two = SplitTrials(["a"] * 2, [0, 1], ["s", "t"])
    with pytest.raises(FmriModelsError, match=r"test fraction is 1\.5"):
        split_by_stimulus(two, test_fraction=1.5)
    with pytest.raises(FmriModelsError, match="1 folds were asked for"):
        split_kfold(two, folds=1)


def test_the_command_adds_a_split_once(table_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = TrialTable.open(table_path)
    command = ["data", "split", str(table_path), "--name", "k4", "--by", "kfold", "--folds", "4", "--seed", "1"]
    assert main(command) == 0
    assert "split k4: 4 folds" in capsys.readouterr().out
    table = TrialTable.open(table_path)
    assert table.split_names() == ["default", "k4"] and table.num_folds("k4") == 4
    assert table.fingerprint == before.fingerprint
    assert table.split_fingerprint("k4") != table.split_fingerprint("default")
    content = (table_path / "splits/k4.parquet").read_bytes()
    assert main(command) == 1
    assert "'k4' exists" in capsys.readouterr().err
    assert (table_path / "splits/k4.parquet").read_bytes() == content
    assert sorted(path.name for path in (table_path / "splits").iterdir()) == ["default.parquet", "k4.parquet"]
    shown = [set(table.trials("subj01", "test", "k4", fold).stimulus_ids) for fold in range(4)]
    assert sum(map(len, shown)) == len(set.union(*shown)) == 24


def test_few_test_stimuli_point_to_folds(table_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", str(table_path), "--name", "few", "--by", "stimulus"]) == 0
    assert "Only 2 stimuli are tested" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["data", "split", str(table_path), "--name", "x", "--by", "stimulus", "--folds", "3"])
    assert stop.value.code == 2


def test_what_no_split_is_drawn_from() -> None:
    rows = SplitTrials(["s"] * 4, list(range(4)), list("abcd"), runs=[(1, run) for run in range(4)])
    for draw in (split_by_stimulus, split_kfold, split_by_run, split_semantic):
        for seed in (-1, 2**32):
            with pytest.raises(FmriModelsError, match=f"The seed is {seed}; expected a whole number from 0"):
                draw(rows, seed=seed)
    with pytest.raises(FmriModelsError, match="20000 folds were asked for; expected 2 to 10000"):
        split_kfold(rows, folds=20_000)


def test_a_draw_leaves_each_subject_enough_to_learn_from() -> None:
    few = SplitTrials(["a"] * 3, [0, 1, 2], ["s", "t", "u"])
    for seed in range(5):
        parts = groups_in(split_by_stimulus(few, seed, validation_fraction=0.9), few)
        assert len(parts[0, "test"]) == 1 and len(parts[0, "train"]) == 2 and (0, "validation") not in parts
        parts = groups_in(split_by_stimulus(few, seed, test_fraction=0.9), few)
        assert len(parts[0, "train"]) == 2
    with pytest.raises(FmriModelsError, match="No stimulus can be tested: training needs 2 of each subject"):
        split_by_stimulus(SplitTrials(["a"] * 2, [0, 1], ["s", "t"]))
    # The second subject saw two of ten.
    rows = SplitTrials(["a"] * 10 + ["b"] * 2, [*range(10), 0, 1], [*"abcdefghij", "a", "b"])
    for seed in range(10):
        train = groups_in(split_by_stimulus(rows, seed, 0.3, 0.3), rows)[0, "train"]
        assert {"a", "b"} <= train


def test_a_run_is_learned_from_where_a_subject_would_have_too_few_stimuli_without_it() -> None:
    stimuli, runs = ["s", "s", "t", "s"], [(1, 1), (1, 2), (1, 2), (1, 3)]
    rows = SplitTrials(["a"] * 4, list(range(4)), stimuli, runs)
    for seed in range(6):
        drawn = draw_validation(rows, np.array([0, 1, 2]), 0.5, np.random.default_rng(seed), {"s"})
        assert drawn.tolist() in ([], [0])


def test_numbers_of_numpy_are_seeds_and_folds_and_others_are_sentences() -> None:
    rows = SplitTrials(["s"] * 9, list(range(9)), list("abcdefghi"), [(1, run) for run in range(9)])
    for draw in (split_by_stimulus, split_kfold, split_by_run):
        options = {} if draw is split_by_stimulus else {"folds": 3}
        drawn, other = draw(rows, np.int64(3), **options), draw(rows, 3, **options)
        assert drawn.table.equals(other.table, check_metadata=True) and type(drawn.seed) is int
    for draw in (split_kfold, split_by_run):
        for folds in (2.0, "3", True):
            with pytest.raises(FmriModelsError, match="folds were asked for"):
                draw(rows, folds=folds)
    for fraction in ("x", "0.5", True, None, float("nan"), 1):
        with pytest.raises(FmriModelsError, match="The test fraction is .*; expected a number between 0 and 1"):
            split_by_stimulus(rows, test_fraction=fraction)
        with pytest.raises(FmriModelsError, match="The validation fraction is .*; expected 0, or a number between"):
            split_by_stimulus(rows, validation_fraction=fraction)


def categories_over_runs(
    runs: int = 10, each: int = 1, sessions: int = 1, subjects: tuple[str, ...] = ("a",)
) -> SplitTrials:
    """Four categories in every run; each session numbers its runs from 1."""
    rows = [
        (subject, (1 + session, 1 + run), f"c{category}")
        for subject in subjects
        for session in range(sessions)
        for run in range(runs)
        for category in range(4)
        for _ in range(each)
    ]
    names, of_run, shown = zip(*rows, strict=True)
    return SplitTrials(list(names), list(range(len(rows))), list(shown), list(of_run))


def runs_in(drawn: DrawnSplit, rows: SplitTrials, fold: int) -> dict[str, set[tuple[int, int]]]:
    found: dict[str, set[tuple[int, int]]] = {"train": set(), "validation": set(), "test": set()}
    for row, part, of_fold in zip(
        range(len(drawn.table)), drawn.table["split"].to_pylist(), drawn.table["fold"].to_pylist(), strict=True
    ):
        if of_fold == fold:
            found[part].add(rows.runs[row % len(rows.trials)])
    return found


@pytest.mark.parametrize("folds", [5, None])
@pytest.mark.parametrize("rows", [
    categories_over_runs(), categories_over_runs(each=3), categories_over_runs(runs=5, sessions=2),
    categories_over_runs(subjects=("a", "b")),
])  # fmt: skip
def test_validation_is_by_run_where_the_design_repeats_stimuli(rows: SplitTrials, folds: int | None) -> None:
    drawn = split_by_run(rows, folds=folds)
    assert drawn.repeats_stimuli and len(drawn.notes) == 1
    for fold in range(folds or 10):
        parts = runs_in(drawn, rows, fold)
        assert len(parts["validation"]) == 1 and len(parts["test"]) == 10 // (folds or 10)
        assert not parts["validation"] & parts["train"] and not parts["test"] & (parts["train"] | parts["validation"])
    for shown in groups_in(drawn, rows).values():
        assert shown == {"c0", "c1", "c2", "c3"}


def test_a_run_that_holds_the_last_trials_of_a_tested_stimulus_or_session_is_learned_from() -> None:
    # Two runs: the only training run can't be set aside.
    drawn = split_by_run(categories_over_runs(runs=2))
    assert "validation" not in drawn.table["split"].to_pylist()
    assert any("In 2 of 2 folds no run is set aside" in note for note in drawn.notes)
    # In the folds of session 1, only runs of session 2 leave their session statistics.
    rows = categories_over_runs(runs=2, sessions=2)
    drawn = split_by_run(rows)
    for fold in range(4):
        parts = runs_in(drawn, rows, fold)
        (test,), (validation,) = parts["test"], parts["validation"]
        assert test[0] != validation[0] and {run[0] for run in parts["train"]} == {1, 2}
    # Animals in runs 1 and 2, objects in 3 and 4: with run 1 tested, run 2 has the last animals.
    ids = [f"{kind}{i}" for kind in ("animal", "animal", "object", "object") for i in range(3)]
    rows = SplitTrials(["a"] * 12, list(range(12)), ids, [(1, 1 + i // 3) for i in range(12)])
    drawn = split_by_run(rows)
    assert runs_in(drawn, rows, 0)["validation"] <= {(1, 3), (1, 4)}
    assert runs_in(drawn, rows, 3)["validation"] <= {(1, 1), (1, 2)}


def test_no_split_is_written_into_the_cache_of_the_hub(tmp_path: Path) -> None:
    path = write_small_table(tmp_path / "datasets--tester--small" / "snapshots" / "0a1b", ("subj02",))
    table = TrialTable.open(path)
    drawn = split_kfold(SplitTrials.of_table(table), seed=0, folds=2)
    with pytest.raises(FmriModelsError, match="in the cache of the Hub.*hf download"):
        add_split(table, "kfold", drawn)
    assert table.split_names() == ["default"]
