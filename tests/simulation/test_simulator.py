"""The simulated brain: what it must have in common with a real one, and what it says about itself."""

import argparse
import hashlib
import io
import json
import zipfile
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli import simulate as command
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from fmri_models.scenes import scene_records
from fmri_models.simulation import Experiment, Simulator, SimulatorConfig, constants, simulate
from fmri_models.simulation.anatomy import voxel_count
from fmri_models.simulation.design import plan_design
from fmri_models.simulation.early import receptive_fields
from fmri_models.simulation.energy import NUM_GABORS, channels
from fmri_models.simulation.noise import draw_noise_ceilings, draw_pool, noise_ceiling

SMALL = {"num_voxels": 60, "num_train": 20, "num_validation": 3, "num_test": 6}


@cache
def scenes(num: int) -> tuple[np.ndarray, list[dict]]:
    records = list(scene_records("generator", num))
    return np.stack([record["image"] for record in records]), [record["factors"] for record in records]


@cache
def simulator(num_voxels: int = 600) -> Simulator:
    return Simulator(SimulatorConfig(num_voxels))


@cache
def experiment() -> Experiment:
    images, factors = scenes(250)
    return simulator().experiment(images, ["train"] * 200 + ["test"] * 50, factors)


@cache
def betas() -> np.ndarray:
    return experiment().fmri()


def noise() -> np.ndarray:
    """What is left of the betas without the expected response, standardized per voxel."""
    left = betas() - experiment().noise_free(experiment().design.stimulus)
    return (left - left.mean(axis=0)) / left.std(axis=0)


def mean_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over pairs of voxels, one of either group; columns are standardized."""
    return float((first.T @ second / len(first)).mean())


# ---------------------------------------------------------------------------------------------------------------------
# Noise ceilings


@pytest.mark.parametrize(("num_voxels", "seed"), [(3000, 0), (3000, 5), (200, 1)])
def test_ceilings_are_skewed_and_on_average_below_a_third_and_a_bit(num_voxels, seed):
    brain = Simulator(SimulatorConfig(num_voxels, seed=seed))
    ceilings = draw_noise_ceilings(brain.anatomy.roi, seed, 0)
    assert 0.31 <= ceilings.mean() <= 0.34
    assert 0.25 <= np.median(ceilings) <= 0.31 and np.median(ceilings) < ceilings.mean()
    assert np.quantile(ceilings, 0.99) > 0.7 and ceilings.max() <= 0.85
    assert np.mean((ceilings - ceilings.mean()) ** 3) > 0


def test_stored_ceilings_are_those_of_simulated_repetitions():
    """Estimated as NSD's are: centered within sessions, variance over repetitions and over all trials."""
    design, stored = experiment().design, experiment().noise_ceiling(3)
    centered = betas().copy()
    for session in range(1, design.num_sessions + 1):
        centered[design.session == session] -= centered[design.session == session].mean(axis=0)
    repeated = centered[np.argsort(design.stimulus, kind="stable")].reshape(250, 3, -1)
    noise_variance = repeated.var(axis=1, ddof=1).mean(axis=0)
    signal_variance = centered.var(axis=0) - noise_variance
    measured = signal_variance / (signal_variance + noise_variance / 3)
    assert measured.mean() == pytest.approx(stored.mean(), abs=0.02)
    assert np.corrcoef(measured, stored)[0, 1] > 0.9
    assert np.abs(measured - stored).mean() < 0.07
    # Low and high ones alike: no source of noise is left out where there is much or little of it.
    low, high = stored < 0.2, stored > 0.5
    assert measured[low].mean() == pytest.approx(stored[low].mean(), abs=0.03)
    assert measured[high].mean() == pytest.approx(stored[high].mean(), abs=0.03)


@pytest.mark.parametrize("repetitions", [1, 3])
def test_expected_responses_explain_what_the_ceiling_says(repetitions):
    design = experiment().design
    in_order = np.argsort(design.stimulus, kind="stable")
    averaged = betas()[in_order].reshape(len(betas()) // repetitions, repetitions, -1).mean(axis=1)
    expected = experiment().noise_free(design.stimulus[in_order][::repetitions])
    explained = 1 - (averaged - expected).var(axis=0) / averaged.var(axis=0)
    stored = experiment().noise_ceiling(repetitions)
    assert explained.mean() == pytest.approx(stored.mean(), abs=0.025)
    assert np.corrcoef(explained, stored)[0, 1] > 0.95


def test_a_better_scanner_has_higher_ceilings_and_they_are_true():
    images, factors = scenes(250)
    better = Simulator(SimulatorConfig(600, signal_to_noise=2.5)).experiment(images, ["train"] * 250, factors)
    usual = draw_noise_ceilings(simulator().anatomy.roi, 0, 0)
    stored = better.noise_ceiling(3)
    np.testing.assert_allclose(stored, np.minimum(6.25 * usual / (6.25 * usual + 1 - usual), 0.85), rtol=0.02)
    shown = better.design.stimulus
    betas = better.fmri()
    explained = 1 - (betas - better.noise_free(shown)).var(axis=0) / betas.var(axis=0)
    assert explained.mean() == pytest.approx(better.noise_ceiling(1).mean(), abs=0.025)


def test_ceiling_of_more_repetitions_is_higher():
    assert noise_ceiling(np.array([1.0]), 3) == pytest.approx(0.75)
    assert (experiment().noise_ceiling(3) > experiment().noise_ceiling(1)).all()


def test_variance_budget_adds_up():
    budget = experiment().budget
    np.testing.assert_allclose(budget.signal + budget.noise, 1)
    shares = budget.noise_shares()
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert shares["signal_space"] == pytest.approx(constants.SIGNAL_SPACE_SHARE, abs=0.005)
    shared = shares["whole_brain"] + shares["roi"] + shares["smooth"] + shares["signal_space"]
    assert shared == pytest.approx(constants.SHARED_SHARE, abs=0.01) == pytest.approx(0.30, abs=0.01)


# ---------------------------------------------------------------------------------------------------------------------
# Noise: shared, and running on in time


def test_noise_is_shared_by_the_whole_brain_more_by_an_area_most_by_neighbors():
    residuals, roi = noise(), simulator().anatomy.roi
    far = mean_correlation(residuals[:, roi == "V1"], residuals[:, roi == "lateral"])
    assert 0.6 * constants.GLOBAL_SHARE < far < 1.5 * constants.GLOBAL_SHARE
    area = residuals[:, roi == "parietal"]
    count = area.shape[1]
    within = (mean_correlation(area, area) * count - 1) / (count - 1)
    assert within > far + 0.5 * constants.ROI_SHARE
    position = simulator().anatomy.coordinates
    distance = np.linalg.norm(position[:, None] - position[None], axis=2)
    near = (distance > 0) & (distance < 4) & (roi[:, None] == "lateral") & (roi[None] == "lateral")
    apart = (distance > 30) & (roi[:, None] == "lateral") & (roi[None] == "lateral")
    correlation = residuals.T @ residuals / len(residuals)
    assert correlation[near].mean() > correlation[apart].mean() + 0.5 * constants.SMOOTH_SHARE


def test_shared_noise_does_not_average_away_over_voxels():
    mean = noise().mean(axis=1)
    assert mean.var() > 0.6 * constants.GLOBAL_SHARE > 10 / simulator().num_voxels


@cache
def wide_experiment() -> Experiment:
    images, factors = scenes(400)
    return simulator(2000).experiment(images, ["train"] * 350 + ["test"] * 50, factors)


def best_error(num_voxels: int, signal_space: bool) -> float:
    """Share of the variance of the first ten principal axes of the signal that the best linear readout of one trial
    misses, with the true covariances; without noise in the signal's space, the other shared parts take its share.
    """
    experiment = wide_experiment()
    budget, loadings = experiment.budget, experiment._noise.loadings.astype(float)
    patterns = experiment._expected(np.arange(400)).astype(float)
    patterns = (patterns - patterns.mean(axis=0)) / patterns.std(axis=0)
    axes = np.linalg.svd(patterns, full_matrices=False)[0][:, :10]
    voxels = np.random.default_rng(0).permutation(2000)[:num_voxels]
    signal = patterns[:, voxels] * np.sqrt(budget.signal[voxels] / 400)
    shared = loadings[:, voxels].T @ loadings[:, voxels]
    if signal_space:
        mixed = experiment._noise._patterns[:, voxels].astype(float)
        shared += mixed.T @ mixed / len(mixed)
    else:
        shared *= constants.SHARED_SHARE / (constants.SHARED_SHARE - constants.SIGNAL_SPACE_SHARE)
    alone = budget.noise - budget.whole_brain - budget.roi - budget.smooth - budget.signal_space
    covariance = signal.T @ signal + shared + np.diag(alone[voxels])
    explained = axes.T @ signal
    return 1 - float((explained * np.linalg.solve(covariance, explained.T).T).sum(axis=1).mean())


@pytest.mark.slow
def test_more_voxels_do_not_average_noise_in_the_signals_space_away():
    assert best_error(2000, signal_space=True) > 0.65 * best_error(500, signal_space=True)
    assert best_error(2000, signal_space=False) < 0.5 * best_error(500, signal_space=False)
    assert best_error(2000, signal_space=True) > 3 * best_error(2000, signal_space=False)


@pytest.mark.parametrize("num_voxels", [500, 2000])
def test_noise_is_large_along_the_signals_leading_axes(num_voxels):
    """The measured one: more than what any random axis of the same voxels has, by a factor that grows with voxels."""
    experiment = wide_experiment()
    voxels = np.random.default_rng(0).permutation(2000)[:num_voxels]
    signal = experiment._responses[:, voxels] * np.sqrt(experiment.budget.signal[voxels])
    axes = np.linalg.svd(signal - signal.mean(axis=0), full_matrices=False)[2][:5]
    drawn = np.concatenate([experiment._noise.run(1, run, 60) for run in range(12)])[:, voxels]
    along = (drawn @ axes.T).var(axis=0)
    against = (signal @ axes.T).var(axis=0)
    assert (along > 0.8 * constants.SIGNAL_SPACE_STRENGTH * against).all()
    assert along.min() > 2 * drawn.var(axis=0).mean() * num_voxels / 500


def test_noise_in_the_signals_space_is_as_strong_as_the_signal_allows():
    """The ratio to the signal is one number for all voxels but those whose ceiling leaves no room."""
    budget = experiment().budget
    ratio = budget.signal_space / budget.signal
    assert np.mean(ratio < 0.999 * constants.SIGNAL_SPACE_STRENGTH) < 0.05
    assert ratio.max() <= 1.001 * constants.SIGNAL_SPACE_STRENGTH
    assert (budget.independent > 0.99 * constants.MIN_INDEPENDENT_SHARE * budget.noise).all()


def test_noise_in_the_signals_space_has_its_variance_and_is_made_of_training_stimuli_alone(monkeypatch):
    source = experiment()._noise
    rng = np.random.default_rng(0)
    drawn = np.concatenate([source._signal_space(60, rng) for _ in range(30)])
    measured = drawn.var(axis=0) / experiment().budget.signal_space
    assert measured.mean() == pytest.approx(1, abs=0.05) and measured.std() < 0.2
    # A direction of the voxels in which no training stimulus differs from another has none of it.
    assert len(source._patterns) == 200
    outside = np.linalg.svd(source._patterns)[2][-1]
    assert (drawn @ outside).std() < 1e-4 * drawn.std()
    monkeypatch.setattr(constants, "SIGNAL_SPACE_POOL", 50)
    pool = draw_pool(np.arange(7, 207), 0, 0)
    assert len(set(pool)) == 50 and pool.min() >= 7 and pool.max() < 207
    assert not np.array_equal(pool, draw_pool(np.arange(7, 207), 0, 1))


def test_without_training_stimuli_there_is_no_noise_in_the_signals_space():
    images, factors = scenes(40)
    tested = simulator(100).experiment(images, ["test"] * 40, factors)
    assert (tested.budget.signal_space == 0).all() and (tested.budget.independent > 0).all()
    np.testing.assert_allclose(tested.budget.signal + tested.budget.noise, 1)
    assert np.isfinite(tested.fmri()).all()


def test_noise_is_autocorrelated_within_a_run_and_not_across_runs():
    source = experiment()._noise
    runs = [source.run(1, run, 20) for run in range(40)]
    runs = [run / np.sqrt((run**2).mean()) for run in runs]
    within = np.mean([(run[:-1] * run[1:]).mean() for run in runs])
    across = np.mean([(first[-1] * second[0]).mean() for first, second in pairwise(runs)])
    shared, alone = constants.SHARED_AUTOCORRELATION, constants.INDEPENDENT_AUTOCORRELATION
    assert within == pytest.approx(0.3 * shared + 0.7 * alone, abs=0.04)
    assert abs(across) < 0.06


def test_a_trial_carries_over_into_the_next_one_of_its_run():
    design = experiment().design
    expected = experiment().noise_free(design.stimulus)
    expected = (expected - expected.mean(axis=0)) / experiment()._units.std
    residuals = (betas() - experiment().noise_free(design.stimulus)) / experiment()._units.std
    residuals -= residuals.mean(axis=0)
    follows = ~design.starts_run[1:]
    strength = (residuals[1:] * expected[:-1])[follows].mean() / (expected[:-1] ** 2)[follows].mean()
    assert strength == pytest.approx(constants.CARRY_OVER, abs=0.03)
    across = (residuals[1:] * expected[:-1])[~follows].mean() / (expected[:-1] ** 2)[~follows].mean()
    assert abs(across) < 0.15


def test_sessions_differ_in_offset_gain_and_tuning():
    effects = experiment()._effects
    np.testing.assert_allclose(effects.offsets.std(axis=0, ddof=1), 1, rtol=1e-4)
    gains = np.hypot(effects.kept, effects.drifted)
    angles = np.arctan2(effects.drifted, effects.kept)
    np.testing.assert_allclose(gains.std(axis=0, ddof=1), constants.GAIN_SPREAD, rtol=1e-3)
    np.testing.assert_allclose(angles.std(axis=0, ddof=1), constants.DRIFT_RADIANS, rtol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Signal


def test_a_voxel_answers_to_what_is_in_its_receptive_field():
    early, anatomy = simulator().early, simulator().anatomy
    inside = np.flatnonzero((np.abs(anatomy.centers) < 3).all(axis=1) & (anatomy.sizes < 1.2))[:60]
    texture = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    pixels = constants.EYE_SIZE / constants.PICTURE_DEGREES
    for voxel in inside:
        right, up = anatomy.centers[voxel]
        pictures = np.full((3, 64, 64, 3), 128, np.uint8)
        for picture, sign in ((pictures[0], 1), (pictures[1], -1)):
            row = int(np.clip(31.5 - sign * up * pixels - 5, 0, 54))
            column = int(np.clip(31.5 + sign * right * pixels - 5, 0, 54))
            picture[row : row + 10, column : column + 10] = texture
        at_field, opposite, nothing = early.respond(pictures)[0][:, voxel]
        assert at_field > nothing
        if np.hypot(right, up) > 2 * anatomy.sizes[voxel]:
            assert at_field > 1.3 * opposite


def test_receptive_fields_cover_the_picture_and_grow_with_eccentricity_and_area():
    anatomy = simulator(3000).anatomy
    coverage = receptive_fields(anatomy.centers, anatomy.sizes).sum(axis=0)
    assert coverage.min() > 0.01 * coverage.max()
    eccentricity = np.hypot(*anatomy.centers.T)
    sizes = {name: anatomy.sizes[anatomy.roi[: anatomy.num_early] == name] for name in ("V1", "V2", "V3", "V4")}
    assert np.mean(sizes["V1"]) < np.mean(sizes["V2"]) < np.mean(sizes["V3"]) < np.mean(sizes["V4"])
    in_v1 = anatomy.roi[: anatomy.num_early] == "V1"
    assert np.corrcoef(eccentricity[in_v1], anatomy.sizes[in_v1])[0, 1] > 0.7
    assert 0.05 < np.median(anatomy.sizes) / constants.PICTURE_DEGREES < 0.3


def test_a_well_placed_receptive_field_sums_to_one():
    field = receptive_fields(np.zeros((1, 2)), np.array([0.8]))
    assert field.sum() == pytest.approx(1, abs=1e-3)


def test_gabors_prefer_their_orientation_and_frequency_whatever_the_phase():
    rows, columns = np.mgrid[:64, :64] / 64
    for index in (9, 14, 20):
        frequency = constants.FREQUENCIES[index // 8]
        angle = np.pi * (index % 8) / 8
        wave = 2 * np.pi * frequency * (columns * np.cos(angle) + rows * np.sin(angle))
        pictures = np.stack([127.5 + 100 * np.cos(wave + phase) for phase in (0, np.pi / 2, 2)])
        energies = channels(np.repeat(pictures[..., None], 3, axis=3).astype(np.uint8))
        center = energies[:, :NUM_GABORS].reshape(3, NUM_GABORS, 16, 16)[..., 7:9, 7:9].mean(axis=(2, 3))
        assert (center.argmax(axis=1) == index).all()
        assert center[:, index].std() < 0.05 * center[:, index].mean()


def test_responses_are_compressive():
    rng = np.random.default_rng(0)
    faint = 128 + rng.integers(-20, 21, (1, 64, 64, 3))
    strong = 128 + 4 * (faint - 128)
    responses = simulator().early.respond(np.concatenate([faint, strong]).astype(np.uint8))[0]
    # Four times the contrast is sixteen times the energy.
    assert (responses[1] > 1.5 * responses[0]).mean() > 0.99
    assert (responses[1] < 5 * responses[0]).all()


def test_colour_reaches_early_areas():
    red, green = np.full((2, 64, 64, 3), 128, np.uint8)
    # Equal luminance, opposite colour.
    red[16:48, 16:48], green[16:48, 16:48] = (188, 100, 115), (68, 156, 140)
    responses = simulator().early.respond(np.stack([red, green]))[0]
    difference = np.abs(responses[0] - responses[1]) / responses.mean(axis=0)
    v4 = simulator().anatomy.roi[: simulator().anatomy.num_early] == "V4"
    assert difference[v4].mean() > 0.1


def test_higher_areas_read_factors_and_not_pixels():
    images, factors = scenes(40)
    higher = simulator().higher
    first = higher.respond(images, factors)[0]
    np.testing.assert_array_equal(higher.respond(images[::-1], factors)[0], first)
    assert np.abs(higher.respond(images, factors[::-1])[0] - first).mean() > 0.1


def test_higher_areas_are_not_additive_in_factors():
    _, factors = scenes(60)
    pairs = [{**factors[0], "kind": kind, "colour": colour} for kind in ("boat", "tree") for colour in ("red", "blue")]
    both = simulator().higher.respond(np.zeros((64, 64, 64, 3), np.uint8), [*pairs, *factors])[0][:4]
    interaction = both[0] + both[3] - both[1] - both[2]
    main_effects = np.abs(both[0] - both[3]).mean()
    assert np.abs(interaction).mean() > 0.1 * main_effects


def test_without_factors_higher_areas_read_the_picture_but_not_linearly():
    images, _ = scenes(60)
    mixed = ((images[:20].astype(int) + images[20:40]) // 2).astype(np.uint8)
    responses = simulator().higher.respond(np.concatenate([images, mixed]), None)[0]
    varied = responses.std(axis=0)
    assert (varied > 0.1).all()
    linear = (responses[:20] + responses[20:40]) / 2
    assert np.abs(responses[60:] - linear).mean() > 0.3 * varied.mean()


def test_one_missing_factor_and_all_pictures_are_read_as_pictures():
    images, factors = scenes(20)
    higher = simulator().higher
    np.testing.assert_array_equal(higher.respond(images, [None, *factors[1:]])[0], higher.respond(images, None)[0])


@pytest.mark.parametrize("shade", ["equal", "different"])
def test_constant_pictures_give_finite_betas(shade):
    shades = np.full(12, 90) if shade == "equal" else np.arange(12) * 20
    images = np.broadcast_to(shades[:, None, None, None], (12, 30, 40, 1)).astype(np.uint8)
    experiment = simulator(100).experiment(images, ["train"] * 12)
    values = experiment.fmri()
    with pytest.warns(FutureWarning, match="blocks is chunks now"):
        np.testing.assert_array_equal(np.concatenate([betas for _, betas in experiment.blocks()]), values)
    assert np.isfinite(values).all() and np.isfinite(experiment.noise_free(np.arange(12))).all()
    if shade == "equal":
        assert (experiment.ncsnr == 0).all() and (values.std(axis=0) > 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# Design


def test_repetitions_are_in_different_sessions_and_groups_are_spread_evenly():
    groups = np.array(["train"] * 500 + ["validation"] * 20 + ["test"] * 60)
    design = plan_design(groups, 3, np.random.default_rng(0))
    assert len(design) == 580 * 3 and design.num_sessions == 3
    sessions = np.full((580, 3), -1)
    sessions[design.stimulus, design.repetition] = design.session
    assert (np.diff(sessions, axis=1) > 0).all()
    for group in ("train", "validation", "test"):
        counts = np.bincount(design.session[groups[design.stimulus] == group])[1:]
        assert counts.max() - counts.min() <= 1


def test_sessions_are_as_long_as_nsds():
    design = plan_design(np.array(["train"] * 2000), 3, np.random.default_rng(0))
    assert design.num_sessions == 8
    runs = [span.stop - span.start for span in design.runs()]
    assert sum(runs) == 6000 and max(runs) <= constants.TRIALS_PER_RUN
    assert set(np.bincount(design.session)[1:]) == {750}


def test_voxel_counts_differ_and_the_first_is_what_was_asked_for():
    counts = [voxel_count(3000, subject) for subject in range(8)]
    assert counts[0] == 3000 and len(set(counts)) == 8
    assert all(2700 <= count <= 3300 for count in counts)
    assert len({voxel_count(5, subject) for subject in range(8)}) == 8


# ---------------------------------------------------------------------------------------------------------------------
# Tables


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> TrialTable:
    return TrialTable.open(
        simulate("builtin:scenes", tmp_path_factory.mktemp("simulated") / "table", num_subjects=3, **SMALL)
    )


def trial_files(folder, subject) -> list[str]:
    files = [*(folder / "trials" / subject).iterdir(), folder / "voxels" / f"{subject}.parquet"]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)]


def test_table_says_that_it_is_simulated(table):
    assert table.simulated and "simulated" in table.name
    about = json.loads((table.path / "table.json").read_text())["simulation"]
    assert about["version"] == constants.VERSION and "no HRF" in about["betas"]
    assert set(about["noise_shares"]) == {"subj01", "subj02", "subj03"}
    assert "no GLM are simulated" in (table.path / "README.md").read_text().replace("\n", " ")


def test_table_has_all_that_is_known(table):
    voxels = table.voxels("subj01")
    assert set(voxels.roi) == {"V1", "V2", "V3", "V4", "ventral", "lateral", "parietal"}
    assert voxels.source == "simulated truth" and voxels.repetitions == 3
    np.testing.assert_allclose(voxels.noise_ceiling, voxels.ncsnr**2 / (voxels.ncsnr**2 + 1 / 3), rtol=1e-4)
    assert voxels.noise_ceiling.mean() <= 0.35
    ids, expected = table.noise_free("subj01")
    trials = table.trials("subj01", "test")
    assert set(ids) == set(trials.stimulus_ids) and expected.shape == (6, 60)
    averaged = np.stack([trials.fmri(np.flatnonzero(trials.stimulus_ids == name)).mean(axis=0) for name in ids])
    best = voxels.noise_ceiling > 0.5
    assert np.corrcoef(expected[:, best].ravel(), averaged[:, best].ravel())[0, 1] > 0.6


def test_subjects_share_test_and_some_training_stimuli(table):
    for split in ("test", "validation"):
        shown = [set(table.trials(subject, split).stimulus_ids) for subject in table.subjects]
        assert shown[0] == shown[1] == shown[2]
    train = [set(table.trials(subject, "train").stimulus_ids) for subject in table.subjects]
    assert all(len(stimuli) == 20 for stimuli in train)
    assert len(train[0] & train[1]) == len(train[0] & train[1] & train[2]) == 2
    assert len({table.num_voxels(subject) for subject in table.subjects}) == 3


def test_repetitions_in_the_table_are_in_different_sessions(table):
    for split in ("train", "test"):
        trials = table.trials("subj02", split)
        for name in set(trials.stimulus_ids):
            assert len(set(trials.sessions[trials.stimulus_ids == name])) == 3


def test_two_simulations_are_equal_to_the_byte_and_subjects_do_not_depend_on_others(table, tmp_path):
    again = simulate("builtin:scenes", tmp_path / "again", num_subjects=2, **SMALL)
    for subject in ("subj01", "subj02"):
        assert trial_files(again, subject) == trial_files(table.path, subject)
    alone = simulate("builtin:scenes", tmp_path / "alone", first_subject=3, **SMALL)
    assert TrialTable.open(alone).subjects == ["subj03"]
    assert trial_files(alone, "subj03") == trial_files(table.path, "subj03")
    assert set(TrialTable.open(alone).stimuli.ids) < set(table.stimuli.ids)
    other = simulate("builtin:scenes", tmp_path / "other", seed=1, **SMALL)
    assert trial_files(other, "subj01") != trial_files(table.path, "subj01")


def test_number_of_trials_can_be_given(tmp_path):
    table = TrialTable.open(
        simulate("builtin:scenes", tmp_path / "t", num_voxels=20, num_trials=60, num_validation=0, num_test=5)
    )
    assert sum(len(table.trials("subj01", split)) for split in ("train", "test")) == 60


def picture_zip(path, num: int) -> None:
    """Pictures of different shapes, grey and colour, one of them twice."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(num):
            shape = (20 + index, 30, 3) if index % 2 else (24, 24)
            data = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(data, "PNG")
            archive.writestr(f"pictures/p{index:02d}.png", data.getvalue())
        archive.writestr("pictures/again.png", data.getvalue())


def run_command(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["simulate", *arguments])
    parsed.run(parsed)


def test_command_simulates_responses_to_a_zip_of_pictures(tmp_path, capsys):
    picture_zip(tmp_path / "pictures.zip", 24)
    out = tmp_path / "out"
    arguments = ["--stimuli", str(tmp_path / "pictures.zip"), "--out", str(out), "--voxels", "40", "--subjects", "2"]
    run_command(*arguments, "--train", "15", "--size", "32")
    captured = capsys.readouterr()
    assert "simulated" in captured.out and "picture" in captured.err
    table = TrialTable.open(out)
    train, test = (table.trials("subj01", split) for split in ("train", "test"))
    assert len(train) == 45 and len(set(test.stimulus_ids)) == 2
    assert table.stimuli.images(sorted(set(test.stimulus_ids))).shape == (2, 32, 32, 3)
    assert len(set(table.stimuli.content_hashes())) == len(table.stimuli.ids)
    assert train.fmri().shape == (45, 40) and np.isfinite(train.fmri()).all()
    with pytest.raises(FmriModelsError, match="not empty"):
        run_command(*arguments)


def test_a_simulated_table_is_a_source_of_stimuli(table, tmp_path):
    again = TrialTable.open(simulate(table.path, tmp_path / "again", num_voxels=20, num_train=10, num_test=4))
    assert set(again.trials("subj01", "train").stimulus_ids) <= set(table.stimuli.ids)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_voxels": 0}, "number of voxels is 0"),
        ({"repetitions": 0}, "number of repetitions is 0"),
        ({"num_subjects": 0}, "0 subjects"),
        ({"seed": -1}, "seed is -1"),
        ({"signal_to_noise": 0}, "signal-to-noise ratio is 0; expected a number above 0"),
        ({"signal_to_noise": float("nan")}, "signal-to-noise ratio is nan"),
        (
            {"num_test": 0},
            r"at least one .* other numbers \(--validation, --test; num_validation, num_test in Python\)",
        ),
        ({"num_train": 0}, r"ask for more \(--train; num_train in Python\)"),
        ({"num_trials": 30}, r"^30 trials are 10 stimuli, each shown 3 times\. That leaves -190 training"),
        (
            {"num_trials": 30},
            r"set fewer aside \(--validation, --test; .* or ask for more trials \(--trials; num_trials\)",
        ),
        ({"num_trials": 900, "num_train": 10}, "one of them"),
        ({"first_subject": 0}, "subjects 0 to 0 were asked for; expected numbers from 1 to 99"),
        ({"first_subject": 99, "num_subjects": 2}, "subjects 99 to 100 were asked for"),
        ({"stimuli": "builtin:faces"}, "builtin:scenes"),
        ({"stimuli": "no/such/folder"}, "do not exist"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tmp_path, arguments, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        simulate(**{"stimuli": "builtin:scenes", "out": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


def test_too_few_pictures_are_refused(tmp_path):
    picture_zip(tmp_path / "pictures.zip", 12)
    with pytest.raises(FmriModelsError, match="12 different pictures for 50 training"):
        simulate(tmp_path / "pictures.zip", tmp_path / "out", num_train=50)
