"""The prior's noise schedule."""

import numpy as np
import pytest
import torch

from fmri_models.alignment.prior_scheduler import CosinePriorScheduler
from fmri_models.errors import FmriModelsError
from tests.models.mindeye.original import original

TABLES = [
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2",
]  # fmt: skip


@pytest.mark.parametrize("steps", [10, 100, 1000])
@pytest.mark.parametrize("table", TABLES)
def test_tables_are_the_originals(steps, table):
    expected = original("prior_noise_schedule_cosine")[0][f"T{steps}.{table}"].numpy()
    np.testing.assert_allclose(getattr(CosinePriorScheduler(steps), table), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("steps", "timesteps"),
    [(100, list(range(99, -1, -1))), (6, [83, 66, 49, 32, 15]), (20, [*range(94, 3, -5)]), (2, [49])],
)
def test_timesteps(steps, timesteps):
    scheduler = CosinePriorScheduler(100)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps == timesteps


def test_levels_on_whole_numbers_are_rounded_as_in_the_original():
    scheduler = CosinePriorScheduler(1000)
    scheduler.set_timesteps(49)
    assert {428, 857} <= set(scheduler.timesteps)


@pytest.mark.parametrize(("total", "steps"), [(10, 10), (10, 9), (10, 4)])
def test_noise_is_needed_above_level_0(total, steps):
    scheduler = CosinePriorScheduler(total)
    scheduler.set_timesteps(steps)
    sample, predicted = torch.randn(2, 3), torch.randn(2, 3)
    for timestep in scheduler.timesteps:
        quiet, loud = (scheduler.step(predicted, timestep, sample, level * torch.ones(2, 3)) for level in (0, 9))
        assert torch.equal(quiet.prev_sample, loud.prev_sample) == (not scheduler.needs_noise(timestep))


@pytest.mark.parametrize("steps", [0, 1, 101])
def test_steps_out_of_range_are_a_sentence(steps):
    with pytest.raises(FmriModelsError, match=f"asked for {steps} inference steps; expected 2 to 100"):
        CosinePriorScheduler(100).set_timesteps(steps)


def test_a_perfect_prediction_is_reached_from_any_number_of_steps():
    clean = torch.randn(3, 4)
    for steps in range(2, 11):
        scheduler = CosinePriorScheduler(10)
        scheduler.set_timesteps(steps)
        sample = torch.randn(3, 4)
        for timestep in scheduler.timesteps:
            sample = scheduler.step(clean, timestep, sample, torch.randn(3, 4)).prev_sample
            assert torch.isfinite(sample).all()
        torch.testing.assert_close(sample, clean)


def test_the_variance_of_noisy_samples_is_one():
    scheduler = CosinePriorScheduler(100)
    timesteps = torch.arange(100).repeat_interleave(2000)
    generator = torch.Generator().manual_seed(0)
    noisy = scheduler.add_noise(
        torch.randn(len(timesteps), generator=generator), torch.randn(len(timesteps), generator=generator), timesteps
    )
    assert noisy.reshape(100, 2000).var(dim=1).sub(1).abs().max() < 0.15


def test_configuration_survives_saving(tmp_path):
    CosinePriorScheduler(37).save_pretrained(tmp_path)
    assert CosinePriorScheduler.from_pretrained(tmp_path).config.num_train_timesteps == 37


def test_tables_have_values_where_models_have_none_yet():
    with torch.device("meta"):
        scheduler = CosinePriorScheduler(10)
    noisy = scheduler.add_noise(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([9]))
    assert torch.isfinite(noisy).all() and noisy.device.type == "cpu"
