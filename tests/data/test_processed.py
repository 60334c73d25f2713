"""Processors fitted on a table: which trials decide on sessions and voxels, and what is said before the work."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.noise_ceiling import estimate_ncsnr
from fmri_models.data.processed import ProcessedTrials
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_kfold
from fmri_models.data.table_processor import fit_processor
from fmri_models.errors import FmriModelsError

VOXELS = 20


def write_table(
    path: Path, repetitions: int = 2, source: str | None = None, test_session: int = 1, test_scale: float = 1.0
) -> TrialTable:
    """Twenty training, four validation and four test stimuli; the first voxels are reliable in training trials alone.

    In test trials the last ones are, so that a ceiling over all trials chooses others.
    """
    rng = np.random.default_rng(0)
    with TrialTableWriter(path, "t", simulated=source == "simulated truth") as writer:
        writer.add_stimuli({"stimulus_id": f"s{index:02d}", "image": None} for index in range(28))
        if source is not None:
            ratios = np.linspace(0, 2, VOXELS)
            writer.add_voxels("subj01", VOXELS, ncsnr=ratios, source=source, repetitions=2)
        first = 0
        for part, count in (("train", 20), ("validation", 4), ("test", 4)):
            shown = np.repeat(np.arange(first, first + count), repetitions)
            signal = rng.normal(size=(28, VOXELS))[shown] * (np.arange(VOXELS) < 6)
            if part == "test":
                signal = test_scale * rng.normal(size=(28, VOXELS))[shown] * (np.arange(VOXELS) >= 14)
            sessions = [test_session if part == "test" else 1] * len(shown)
            fmri = 1000 + signal + 0.3 * rng.normal(size=signal.shape)
            writer.add_trials("subj01", part, [f"s{index:02d}" for index in shown], fmri, sessions=sessions)
            first += count
    return TrialTable.open(path)


def test_ceilings_that_choose_voxels_come_from_the_repetitions_of_these_trials(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t", source="release")
    processor = fit_processor(table, ["subj01"], num_best_voxels=6)
    assert processor.subject("subj01").selected.tolist() == [0, 1, 2, 3, 4, 5]
    assert processor.noise_ceiling_source == "training repetitions"
    trials = table.trials("subj01", "train")
    ratios = estimate_ncsnr(trials.fmri, trials.stimulus_ids, trials.sessions, VOXELS)
    assert ratios is not None
    kept = fit_processor(table, ["subj01"], min_noise_ceiling=0.5).subject("subj01").selected
    np.testing.assert_array_equal(kept, np.flatnonzero(ratios**2 / (ratios**2 + 1 / 2) >= 0.5))


def test_test_trials_of_a_fold_choose_no_voxels(tmp_path: Path) -> None:
    chosen = []
    for scale in (1.0, 50.0):
        table = write_table(tmp_path / str(scale), test_scale=scale)
        add_split(table, "kfold", split_kfold(SplitTrials.of_table(table), seed=0, folds=4))
        table = TrialTable.open(table.path)
        for fold in range(4):
            tested = set(table.trials("subj01", "test", "kfold", fold).stimulus_ids.tolist())
            if {"s24", "s25", "s26", "s27"} <= tested:
                chosen.append(fit_processor(table, ["subj01"], split="kfold", fold=fold, num_best_voxels=6))
        chosen.append(fit_processor(table, ["subj01"], num_best_voxels=6))
    selected = [processor.subject("subj01").selected.tolist() for processor in chosen]
    assert all(each == [0, 1, 2, 3, 4, 5] for each in selected)


@pytest.mark.parametrize("source", ["release", "simulated truth"])
def test_without_repetitions_the_tables_ceilings_are_taken_and_named(source: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t", repetitions=1, source=source)
    processor = fit_processor(table, ["subj01"], num_best_voxels=2)
    assert processor.subject("subj01").selected.tolist() == [18, 19]
    assert processor.noise_ceiling_source == source
    processor.save_pretrained(tmp_path / "p")
    assert type(processor).from_pretrained(tmp_path / "p").noise_ceiling_source == source


@pytest.mark.parametrize("source", [None, "training repetitions"])
def test_without_any_ceilings_there_is_a_sentence(source: str | None, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t", repetitions=1, source=source)
    for option in ({"num_best_voxels": 2}, {"min_noise_ceiling": 0.1}):
        with pytest.raises(FmriModelsError, match="no training stimulus of the split 'default' is repeated"):
            fit_processor(table, ["subj01"], **option)
    fit_processor(table, ["subj01"])


def test_sessions_without_training_trials_are_named_before_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fmri_models"), "propagate", True)
    table = write_table(tmp_path / "t", test_session=3)
    processor = fit_processor(table, ["subj01"], statistics="session")
    assert "test trials in sessions without training trials (8 of subj01 in 3)" in caplog.text
    assert "processor.unseen_session=pooled" in caplog.text and "--unseen-session pooled" in caplog.text
    with pytest.raises(FmriModelsError, match="8 of subj01 in 3.*train with processor.unseen_session=pooled"):
        fit_processor(table, ["subj01"], needed=["test"], statistics="session")
    test = table.trials("subj01", "test")
    with pytest.raises(FmriModelsError, match="--unseen-session pooled"):
        ProcessedTrials(test, processor)
    processor.unseen_session = "pooled"
    assert np.isfinite(ProcessedTrials(test, processor)[np.arange(4)]).all()
    caplog.clear()
    for options in ({"statistics": "pooled"}, {"statistics": "session", "unseen_session": "pooled"}):
        fit_processor(table, ["subj01"], needed=["test"], **options)
    assert "session" not in caplog.text


def test_statistics_of_the_trials_given_are_those_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmri_models.data.processed._EXAMPLES_A_CHUNK", 3)
    monkeypatch.setattr("fmri_models.data.processed._KEPT_BYTES", 0)
    table = write_table(tmp_path / "t", test_session=3)
    processor = fit_processor(table, ["subj01"], statistics="session", unseen_session="from_batch")
    test = table.trials("subj01", "test")
    with pytest.warns(UserWarning, match="8 trials given at once"):
        rows = ProcessedTrials(test, processor, "single")
    betas = test.fmri()
    np.testing.assert_allclose(rows[np.arange(8)], (betas - betas.mean(0)) / betas.std(0), atol=1e-2)
