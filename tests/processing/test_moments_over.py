"""Statistics over averages, by run, and of a sample; against numbers of the original code where there are some."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fmri_models.errors import FmriModelsError
from fmri_models.processing_fmri import FmriProcessor

FOLDER = Path(__file__).parents[1] / "fixtures" / "linear_family"


def make_trials() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Betas (36, 5), stimuli, sessions and runs."""
    rng = np.random.default_rng(0)
    stimuli = np.array([f"s{number}" for number in rng.permutation(np.repeat(np.arange(12), 3))])
    return rng.normal(size=(36, 5)) * 3 + 50, stimuli, np.repeat([1, 2], 18), np.tile(np.repeat([1, 2, 3], 6), 2)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_statistics_over_averages_are_those_of_the_mean_of_each_stimulus(ddof, chunked):
    fmri, stimuli, _, _ = make_trials()
    given = {"subj01": (fmri[start : start + 7] for start in range(0, 36, 7))} if chunked else fmri
    shown = {"subj01": stimuli} if chunked else stimuli
    processor = FmriProcessor.fit(given, stimuli=shown, statistics_over="averages", ddof=ddof)
    averages = np.stack([fmri[stimuli == name].mean(axis=0) for name in np.unique(stimuli)])
    expected = (fmri - averages.mean(axis=0)) / averages.std(axis=0, ddof=ddof)
    np.testing.assert_allclose(processor(fmri, return_tensors="np")["fmri"], expected, rtol=1e-4, atol=1e-4)


def test_averages_within_a_session_are_those_of_its_trials():
    fmri, stimuli, sessions, _ = make_trials()
    processor = FmriProcessor.fit(
        fmri, stimuli=stimuli, sessions=sessions, statistics="session", statistics_over="averages", min_session_trials=2
    )
    own = sessions == 2
    averages = np.stack([fmri[own & (stimuli == name)].mean(axis=0) for name in np.unique(stimuli[own])])
    expected = (fmri[own] - averages.mean(axis=0)) / averages.std(axis=0)
    found = processor(fmri[own], session=2, return_tensors="np")["fmri"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_ddof_one_is_the_standard_deviation_of_a_sample():
    fmri = make_trials()[0]
    found = FmriProcessor.fit(fmri, ddof=1)(fmri, return_tensors="np")["fmri"]
    np.testing.assert_allclose(found, (fmri - fmri.mean(0)) / fmri.std(0, ddof=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("statistics", "number"), [("run", 20003), ("run_number", 3)])
def test_runs_have_statistics_of_their_own(statistics, number, tmp_path):
    fmri, _, sessions, runs = make_trials()
    processor = FmriProcessor.fit(fmri, sessions=sessions, runs=runs, statistics=statistics, min_session_trials=2)
    groups = processor.groups(sessions, runs)
    assert number in groups
    own = (runs == 3) & ((sessions == 2) | (statistics == "run_number"))
    np.testing.assert_array_equal(groups == number, own)
    expected = (fmri[own] - fmri[own].mean(axis=0)) / fmri[own].std(axis=0)
    processor.save_pretrained(tmp_path)
    for each in (processor, FmriProcessor.from_pretrained(tmp_path)):
        found = each(fmri, session=groups, return_tensors="np")["fmri"][own]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(FmriModelsError, match="statistics by run.*the number that processor.groups"):
        processor(fmri)


def test_runs_of_tests_are_standardised_by_themselves_as_published():
    """IC-GAN's reader of Generic Object Decoding, whose statistics of test runs are those of test trials."""
    of = load_file(FOLDER / "god_run_normalisation.safetensors")
    kinds, runs = of["in.rows_type_run_label"].T[:2]
    voxels = of["in.voxels"][:, of["in.roi"] > 0]
    training, tested = kinds == 1, kinds == 2
    processor = FmriProcessor.fit(
        voxels[training],
        sessions=np.ones(training.sum(), int),
        runs=runs[training].astype(int),
        statistics="run_number",
        unseen_session="from_batch",
        min_session_trials=2,
    )
    assert processor.is_transductive
    found = processor(voxels[training], session=runs[training].astype(int), return_tensors="np")["fmri"]
    np.testing.assert_allclose(found, of["out.train"], atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = processor(voxels[tested], session=runs[tested].astype(int), return_tensors="np")["fmri"]
    np.testing.assert_allclose(found, of["out.test"], atol=1e-4)


def test_what_is_missing_for_statistics_is_a_sentence():
    fmri, stimuli, sessions, _ = make_trials()
    with pytest.raises(FmriModelsError, match="needs the stimulus of each trial; pass stimuli="):
        FmriProcessor.fit(fmri, statistics_over="averages")
    with pytest.raises(FmriModelsError, match="needs the run of each trial; pass runs="):
        FmriProcessor.fit(fmri, sessions=sessions, statistics="run")
    with pytest.raises(FmriModelsError, match="one stimulus, whose average has no spread"):
        FmriProcessor.fit(fmri, stimuli=np.full(len(fmri), "s1"), statistics_over="averages")
    with pytest.raises(FmriModelsError, match="statistics_over"):
        FmriProcessor.fit(fmri, stimuli=stimuli, statistics_over="means")
