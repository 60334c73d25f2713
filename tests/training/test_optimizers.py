"""Optimisers with small states, by themselves and in training."""

import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers.optimization import Adafactor as TransformersAdafactor

from fmri_models.training import optimizers
from fmri_models.training.interruption import TrainingInterrupted
from fmri_models.training.optimizers import Adafactor, RoundedAdamW, num_bytes, round_at_random
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.training.small_method import SmallObjective
from tests.training.test_gradient import run_steps, stage_of

ADAFACTOR = ["stages.0.training.optimizer=adafactor"]
BFLOAT16 = ["stages.0.training.parameter_dtype=bfloat16", "stages.0.training.mixed_precision=bf16"]
SMALL_STATES = [ADAFACTOR, BFLOAT16, [*ADAFACTOR, *BFLOAT16]]


def descend(optimizer, parameters, steps=20, change=None):
    """Gradient descent on Σ (w - target)⁴ with targets of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    targets = [torch.randn(p.shape, generator=generator) * 10.0 ** (i % 3) for i, p in enumerate(parameters)]
    for step in range(steps):
        for parameter, target in zip(parameters, targets, strict=True):
            parameter.grad = 4 * (parameter.detach() - target.to(parameter.dtype)) ** 3
        if change is not None:
            change(optimizer, step)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def parameters_of(*shapes):
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


@pytest.mark.parametrize("block", [2**22, 16])
def test_adafactor_is_that_of_transformers_with_absolute_steps(monkeypatch, block):
    """Weights are updated in blocks of rows, which must not show."""
    monkeypatch.setattr(optimizers, "_VALUES_A_CHUNK", block)
    shapes = [(7, 5), (6,), (30, 2)]
    own, other = parameters_of(*shapes), parameters_of(*shapes)
    reference = TransformersAdafactor(other, lr=0.05, weight_decay=0.1, scale_parameter=False, relative_step=False)
    found = descend(Adafactor(own, lr=0.05, weight_decay=0.1), own)
    for value, expected in zip(found, descend(reference, other), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_adafactor_takes_a_convolution_for_a_matrix():
    convolution, matrix = parameters_of((4, 3, 2, 2), (4, 12))
    matrix.data = convolution.data.reshape(4, 12).clone()
    both = [descend(Adafactor([p], lr=0.05), [p], steps=1)[0] for p in (convolution, matrix)]
    state = Adafactor([convolution], lr=0.05)
    descend(state, [convolution], steps=1)
    assert {name: tuple(value.shape) for name, value in state.state[convolution].items()} == {
        "step": (), "row": (4,), "column": (12,),
    }  # fmt: skip
    torch.testing.assert_close(both[0].reshape(4, 12), both[1])


@pytest.mark.parametrize("block", [2**22, 16])
def test_adamw_on_float32_is_pytorchs(monkeypatch, block):
    monkeypatch.setattr(optimizers, "_VALUES_A_CHUNK", block)

    def cycle(optimizer, step):
        optimizer.param_groups[0]["betas"] = (0.95 - 0.005 * step, 0.999)

    shapes = [(7, 5), (6,), (2, 3, 2, 2)]
    own, other = parameters_of(*shapes), parameters_of(*shapes)
    reference = torch.optim.AdamW(other, lr=0.05, weight_decay=0.1)
    found = descend(RoundedAdamW(own, lr=0.05, weight_decay=0.1), own, change=cycle)
    for value, expected in zip(found, descend(reference, other, change=cycle), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [1.003, -1.003, 3.1e-5, -7.77e8])
def test_rounding_at_random_keeps_the_mean(value):
    torch.manual_seed(0)
    values = torch.full((100_000,), value)
    rounded = round_at_random(values)
    nearest = values[0].bfloat16()
    assert rounded.dtype == torch.bfloat16 and len(rounded.unique()) == 2 and nearest in rounded.unique()
    low, high = (float(each) for each in rounded.unique())
    assert low < value < high
    # The mean of 100,000 draws of two values is off by at most .5 / sqrt(100,000) of their distance in two of three.
    assert abs(float(rounded.double().mean()) - value) < 0.008 * (high - low)


def test_what_bfloat16_can_hold_is_not_changed():
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**-126, float("inf"), -float("inf")])
    assert torch.equal(round_at_random(values), values.bfloat16())


@pytest.mark.parametrize("kind", [Adafactor, RoundedAdamW])
def test_steps_smaller_than_a_distance_in_bfloat16_add_up(kind):
    """Near 1, numbers in bfloat16 are .004 apart; 1,000 steps of .0002 are to lead from 1 to .8."""
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.ones(20, 50, dtype=torch.bfloat16))
    optimizer = kind([parameter], lr=2e-4, weight_decay=0.0)
    for _ in range(1000):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert float(parameter.detach().float().mean()) == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("overrides", [[], *SMALL_STATES, ["stages.0.objective={only_head: true}", *ADAFACTOR]])
def test_bytes_are_those_of_real_steps(make_recipe, overrides):
    stage = stage_of(make_recipe("out", *overrides))
    run_steps(stage, 1)
    state = [
        value
        for each in stage.weights.optimizer.optimizer.state.values()
        for key, value in each.items()
        if key != "step"
    ]
    # A gradient has the dtype of its weight.
    tensors = [*stage.weights.parameters, *stage.weights.parameters, *state]
    found = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert found == sum(num_bytes(parameter, stage.options) for parameter in stage.weights.parameters)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", SMALL_STATES)
def test_training_with_small_states_learns(make_recipe, tmp_path, overrides):
    seldom = ["stages.0.training.checkpoint_every=200", "stages.0.training.keep_best=false"]
    train(make_recipe("out", *overrides, *seldom, "stages.0.training.steps=200"))
    result = TrainingRecord.load(tmp_path / "out").stages[0]["result"]
    assert result["best_validation"]["correlation"] > 0.3 > result["validations"][0]["correlation"]
    saved = load_file(tmp_path / "out" / "brain_model" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        [*ADAFACTOR, "stages.0.training.ema_decay=0.9", "stages.0.training.gradient_accumulation_steps=2",
         "stages.0.training.gradient_accumulation=cached", "stages.0.objective={contrastive: 0.5}"],
        [*BFLOAT16, "stages.0.training.ema_decay=0.9", "stages.0.training.max_grad_norm=0.5"],
        [*ADAFACTOR, *BFLOAT16, "stages.0.training.keep_best=false"],
    ],
)  # fmt: skip
def test_an_interruption_resumes_to_the_bit(make_recipe, tmp_path, monkeypatch, overrides):
    overrides = [*overrides, "stages.0.training.steps=20"]
    train(make_recipe("whole", *overrides))
    losses, calls = SmallObjective.losses, []

    def interrupted(self, *arguments):
        calls.append(None)
        if len(calls) == 17:
            signal.raise_signal(signal.SIGINT)
        return losses(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SmallObjective, "losses", interrupted)
        with pytest.raises(TrainingInterrupted):
            train(make_recipe("out", *overrides))
    train(make_recipe("out", *overrides), resume=True)
    whole, resumed = (load_file(tmp_path / name / "brain_model" / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
