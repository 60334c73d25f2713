"""Options of training by gradient: schedules against PyTorch's own, and each sentence for a bad value."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmri_models.errors import FmriModelsError
from fmri_models.training.options import TrainingOptions
from fmri_models.training.recipe import load_recipe


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
def test_one_cycle_is_pytorchs(warmup):
    options = TrainingOptions(steps=50, learning_rate=2.0, warmup=warmup)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2.0, total_steps=50, pct_start=warmup, final_div_factor=1000
    )
    for step in range(50):
        group = optimizer.param_groups[0]
        assert 2.0 * options.learning_rate_share(step, 50) == pytest.approx(group["lr"], rel=1e-9)
        assert options.beta1(step, 50) == pytest.approx(group["betas"][0], rel=1e-9)
        optimizer.step()
        if step < 49:
            scheduler.step()


def test_cosine_rises_and_falls_to_zero():
    options = TrainingOptions(steps=100, schedule="cosine", warmup=0.1)
    shares = [options.learning_rate_share(step, 100) for step in range(100)]
    assert shares.index(max(shares)) == 10 and max(shares) == 1.0
    assert shares[:11] == sorted(shares[:11]) and shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[55] == pytest.approx(0.5) and shares[99] < 0.001
    assert options.beta1(5, 100) is None


def test_constant_is_level_after_the_warm_up():
    options = TrainingOptions(steps=10, schedule="constant", warmup=0.2)
    shares = [options.learning_rate_share(step, 10) for step in range(10)]
    assert shares == pytest.approx([1 / 3, 2 / 3] + [1.0] * 8)


@given(
    st.sampled_from(["one_cycle", "cosine", "constant"]),
    st.integers(min_value=1, max_value=300),
    st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_the_learning_rate_never_leaves_its_range(schedule, steps, warmup):
    options = TrainingOptions(steps=steps, schedule=schedule, warmup=warmup)
    for step in range(steps):
        assert 0 <= options.learning_rate_share(step, steps) <= 1 + 1e-9


def test_epochs_become_steps():
    assert TrainingOptions(epochs=3).num_steps(7) == 21
    assert TrainingOptions(epochs=3, gradient_accumulation_steps=2).num_steps(7) == 11
    assert TrainingOptions(steps=5).num_steps(7) == 5


def test_better_is_less_or_more():
    assert TrainingOptions(steps=1).is_better(1.0, 2.0) and TrainingOptions(steps=1).is_better(9.0, None)
    assert TrainingOptions(steps=1, monitor_mode="max").is_better(2.0, 1.0)
    assert not TrainingOptions(steps=1).is_better(2.0, 2.0)


def recipe_with(tmp_path, training):
    path = tmp_path / "mine.yaml"
    path.write_text(f"method: linear\nstages: [{{name: only, training: {training}}}]\n")
    return load_recipe(str(path))


def test_yamls_traps_are_read_as_they_were_meant(tmp_path):
    options = recipe_with(tmp_path, "{steps: 5, learning_rate: 3e-4, mixed_precision: no}").stages[0].training
    assert (options.learning_rate, options.mixed_precision) == (3e-4, "no")


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("{}", "neither steps nor epochs"),
        ("{steps: 1, epochs: 1}", "both steps and epochs"),
        ("{steps: 0}", "training.steps is 0; expected a whole number from 1"),
        ("{epochs: 1.5}", "training.epochs is 1.5"),
        ("{steps: 1, batch_size: true}", "training.batch_size is 'true'"),
        ("{steps: 1000000000000000000000000000000}", "number beyond"),
        ("{steps: 2000000000}", "expected a whole number from 1 to 1000000000"),
        ("{steps: 1, learning_rate: 1_0e-4}", "training.learning_rate is .1_0e-4."),
        ("{steps: 1, learning_rate: .inf}", "training.learning_rate is inf"),
        ("{steps: 1, learning_rate: 0}", "training.learning_rate is 0; expected a number above 0"),
        ("{steps: 1, learning_rate: fast}", "training.learning_rate is 'fast'"),
        ("{steps: 1, learning_rate: .nan}", "training.learning_rate is nan"),
        ("{steps: 1, weight_decay: -1}", "training.weight_decay is -1; expected a number from 0"),
        ("{steps: 1, warmup: 1}", "training.warmup is 1; expected a number from 0 and below 1"),
        (
            "{steps: 1, schedule: linear}",
            "training.schedule is 'linear'; expected 'one_cycle', 'cosine', 'cosine_from_zero' or 'constant'",
        ),
        ("{steps: 1, mixed_precision: fp8}", "training.mixed_precision is 'fp8'"),
        ("{steps: 1, optimizer: sgd}", "training.optimizer is 'sgd'; expected 'adamw' or 'adafactor'"),
        ("{steps: 1, parameter_dtype: float16}", "training.parameter_dtype is 'float16'"),
        ("{steps: 1, parameter_dtype: bfloat16}", "mixed_precision is 'no'; weights in bfloat16 need"),
        ("{steps: 1, weight_decay_groups: none}", "training.weight_decay_groups is 'none'"),
        ("{steps: 1, gradient_accumulation: joint}", "training.gradient_accumulation is 'joint'"),
        ("{steps: 1, gradient_accumulation_steps: 0}", "training.gradient_accumulation_steps is 0"),
        ("{steps: 1, max_grad_norm: 0}", "training.max_grad_norm is 0"),
        ("{steps: 1, ema_decay: 1}", "training.ema_decay is 1"),
        ("{steps: 1, checkpoint_every: 0}", "training.checkpoint_every is 0"),
        ("{steps: 1, validate_every: x}", "training.validate_every is 'x'"),
        ("{steps: 1, monitor: }", "training.monitor is ''"),
        ("{steps: 1, monitor_mode: best}", "training.monitor_mode is 'best'"),
        ("{steps: 1, keep_best: maybe}", "training.keep_best is 'maybe'"),
        ("{steps: 1, log_every: 0}", "training.log_every is 0"),
        ("{step: 1}", "unknown key 'step'; did you mean 'steps'"),
        ("3", "a training that is no mapping"),
    ],
)
def test_bad_options_are_sentences(tmp_path, training, message):
    with pytest.raises(FmriModelsError, match=message):
        recipe_with(tmp_path, training)
