"""The linear layer in blocks against torch's, and the memory of its gradient."""

import copy

import pytest
import torch
from torch import nn

from fmri_models.encoders import wide_linear
from fmri_models.encoders.subject_linear import SubjectLinear
from fmri_models.encoders.wide_linear import ReusedMemory, WideLinear


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Every layer is wide, and a block has three outputs of five weights, so that the last one is not full."""
    monkeypatch.setattr(wide_linear, "_MIN_WEIGHT_VALUES", 1)
    monkeypatch.setattr(wide_linear, "_VALUES_A_CHUNK", 15)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def pair(bias: bool = True) -> tuple[WideLinear, nn.Linear]:
    torch.manual_seed(0)
    wide, plain = WideLinear(5, 10, bias=bias), nn.Linear(5, 10, bias=bias)
    plain.load_state_dict(wide.state_dict())
    return wide, plain


def learn(layer: nn.Module, features: torch.Tensor) -> dict[str, torch.Tensor]:
    features = features.clone().requires_grad_()
    result = layer(features)
    (result * torch.arange(result.numel()).reshape(result.shape)).sum().backward()
    assert features.grad is not None
    return {"result": result.detach(), "features": features.grad} | {
        name: parameter.grad.clone() for name, parameter in layer.named_parameters()
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_results_and_gradients_are_those_of_torch(bias, rows):
    features = torch.randn(rows, 5, generator=torch.Generator().manual_seed(1))
    wide, plain = pair(bias)
    assert wide(features).grad_fn.name() == "_ChunkedLinearBackward"
    found, expected = learn(wide, features), learn(plain, features)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_numerical_gradients(monkeypatch):
    monkeypatch.setattr(ReusedMemory, "empty", lambda self, shape: torch.empty(shape, dtype=torch.float64))
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 5), (10, 5), (10,))]
    assert torch.autograd.gradcheck(wide_linear._ChunkedLinear.apply, (*inputs, ReusedMemory()))


def test_frozen_parts_get_no_gradient():
    wide, _ = pair()
    wide.weight.requires_grad_(False)
    wide(torch.randn(2, 5)).sum().backward()
    assert wide.weight.grad is None
    assert wide.bias.grad is not None


def test_memory_is_used_again_once_the_gradient_is_gone():
    wide, _ = pair()
    features = torch.randn(4, 5)
    learn(wide, features)
    first = wide.weight.grad.data_ptr()
    wide.zero_grad()
    learn(wide, features)
    assert wide.weight.grad.data_ptr() == first


def test_a_gradient_that_somebody_holds_is_not_overwritten():
    wide, _ = pair()
    learn(wide, torch.randn(4, 5))
    held = wide.weight.grad.flatten()[::2]
    before = held.clone()
    wide.zero_grad()
    learn(wide, torch.randn(4, 5))
    assert torch.equal(held, before)


def test_gradients_of_several_batches_add_up():
    wide, plain = pair()
    for seed in range(3):
        features = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
        learn(wide, features)
        learn(plain, features)
    torch.testing.assert_close(wide.weight.grad, plain.weight.grad)


def test_what_is_not_blocked_is_left_to_torch():
    wide, plain = pair()
    features = torch.randn(3, 5)
    assert torch.equal(wide(features[None]), plain(features[None]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert wide(features).dtype == torch.bfloat16
        assert torch.equal(wide(features), plain(features))
    assert torch.equal(wide.bfloat16()(features.bfloat16()), plain.bfloat16()(features.bfloat16()))


def test_copies_have_memory_of_their_own():
    wide, _ = pair()
    learn(wide, torch.randn(4, 5))
    other = copy.deepcopy(wide)
    other.zero_grad()
    learn(other, torch.randn(4, 5))
    assert other.weight.grad.data_ptr() != wide.weight.grad.data_ptr()
    assert set(wide.state_dict()) == {"weight", "bias"}


def test_memory_is_given_back_when_learning_ends():
    wide, _ = pair()
    learn(wide, torch.randn(4, 5))
    assert wide._gradient_memory._memory is not None
    assert wide.eval()._gradient_memory._memory is None


def test_a_subject_without_rows_gets_a_gradient_of_zeros():
    layer = SubjectLinear([5, 3], 10)
    layer(torch.randn(2, 5), torch.tensor([0, 0])).sum().backward()
    assert torch.equal(layer.layers[1].weight.grad, torch.zeros(10, 3))
