"""The permutation test inside sessions: right where responses of a session have something in common."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, RowData, score_rows
from fmri_models.evaluation.bootstrap import holm, sign_flip_test
from fmri_models.evaluation.pairings import exchangeable, within
from fmri_models.evaluation.protocols import Protocol

SESSIONS, STIMULI = 6, 5


def with_session_effects(seed):
    """Pictures of a session are alike, and its reconstructions drift with it; none knows which picture was shown."""
    source = torch.Generator().manual_seed(seed)
    sessions = torch.arange(SESSIONS).repeat_interleave(STIMULI)
    effect = torch.rand(SESSIONS, 1, 8, 8, generator=source)[sessions]
    truth = 0.5 * effect + 0.5 * torch.rand(effect.shape, generator=source)
    recon = 0.5 * effect + 0.5 * torch.rand(effect.shape, generator=source)
    return truth, recon, [str(session) for session in sessions.tolist()]


def p_value(truth, recon, sessions, inside, permutations=99, seed=0):
    protocol = Protocol("null", "", ("pairwise_pixcorr",), exchange_within=inside)
    ids = [f"s{index:02d}" for index in range(len(truth))]
    scores = score_rows(
        {"brain": RowData(recon)}, truth, ids, protocol, permutations=permutations, seed=seed, blocks=sessions
    )
    return Report.from_scores(scores, protocol, draws=20).permutation["pairwise_pixcorr"]["p"]


@pytest.mark.parametrize("repeats", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_p_is_uniform_inside_sessions_and_too_small_without(repeats):
    inside = [p_value(*with_session_effects(seed), "session", seed=seed) for seed in range(repeats)]
    among_all = [p_value(*with_session_effects(seed), None, seed=seed) for seed in range(repeats)]
    # p is a multiple of 1/100: half a step of tolerance, and no more small ones than luck gives.
    assert kstest(np.array(inside) - 0.005, "uniform").pvalue > 0.001
    assert np.sum(np.array(inside) <= 0.05) <= binom.ppf(0.9999, repeats, 0.05)
    # What has nothing to do with what was shown within a session is called significant nearly always.
    assert np.mean(np.array(among_all) <= 0.05) > 0.9


def test_what_was_read_inside_sessions_is_found_there():
    truth, _, sessions = with_session_effects(0)
    assert p_value(truth, 0.7 * truth + 0.1, sessions, "session") == 0.01


def test_stimuli_are_exchanged_with_those_of_the_same_sessions():
    stimuli = np.arange(6)
    blocks = np.array(["1", "1", "1 2", "1 2", "2", "2"])
    inside = within([np.arange(6)], blocks)
    groups = [group.tolist() for group in exchangeable(stimuli, [stimuli[each] for each in inside])]
    assert sorted(groups) == [[0, 1], [2, 3], [4, 5]]
    assert within([np.arange(6)], None)[0].tolist() == list(range(6))


def test_single_trials_of_a_stimulus_stay_together():
    # Each of four stimuli in both sessions: the items of each go to one other.
    truth = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    protocol = Protocol("null", "", ("mse",), exchange_within="session")
    scores = score_rows(
        {"brain": RowData(truth)}, truth, list("abcd") * 2, protocol, blocks=["1"] * 4 + ["2"] * 4, permutations=30
    )
    assert scores.exhaustive and scores.permuted["mse"].shape == (24, 8)
    assert np.array_equal(scores.permuted["mse"][:, :4], scores.permuted["mse"][:, 4:])


def test_sessions_that_nobody_gives_and_stimuli_that_are_alone_in_theirs():
    truth, recon, sessions = with_session_effects(0)
    with pytest.raises(FmriModelsError, match="inside a session alone, and nobody says"):
        p_value(truth, recon, None, "session")
    with pytest.raises(FmriModelsError, match="29 of 30 items"):
        p_value(truth, recon, sessions[1:], "session")
    protocol = Protocol("null", "", ("mse",), exchange_within="run")
    ids = [f"s{index:02d}" for index in range(len(truth))]
    scores = score_rows({"brain": RowData(recon)}, truth, ids, protocol, blocks=ids)
    report = Report.from_scores(scores, protocol, draws=20)
    assert report.permutation["mse"]["p"] == 1
    assert any("and of the same runs" in note and "says nothing" in note for note in report.notes)


def test_signs_of_differences_are_flipped():
    source, p = np.random.default_rng(0), []
    for seed in range(300):
        values = source.normal(size=12)
        p.append(sign_flip_test(values, np.zeros(12), [str(i) for i in range(12)], draws=500, seed=seed))
    assert kstest(p, "uniform").pvalue > 0.001
    ids = list("abcdefgh")
    assert sign_flip_test(np.arange(8) + 1, np.zeros(8), ids) == 2 / 2**8
    assert sign_flip_test(np.zeros(8), np.zeros(8), ids) == 1
    assert sign_flip_test(np.zeros(4), np.ones(4), list("abcd")) is None
    assert sign_flip_test(np.full(8, np.nan), np.ones(8), ids) is None
    # Items of one stimulus are one.
    assert sign_flip_test(np.ones(16), np.zeros(16), ids * 2) == 2 / 2**8
    # Of merged folds, differences reach farther by luck.
    far = np.random.default_rng(1).normal(0.5, 1, 30)
    names = [str(i) for i in range(30)]
    assert sign_flip_test(far, 0 * far, names) < sign_flip_test(far, 0 * far, names, widening=2**0.5)


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
