"""A linear layer whose outputs read inputs of their own."""

import pytest
import torch

from fmri_models.encoders.selected_linear import SelectedLinear
from fmri_models.errors import FmriModelsError


def make_layer(standardises_patterns: bool = False) -> SelectedLinear:
    torch.manual_seed(0)
    layer = SelectedLinear(12, 7, 4, standardises_patterns)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
        layer.indices.copy_(torch.stack([torch.randperm(12)[:4].sort().values for _ in range(7)]))
    return layer


def test_it_is_the_dense_map_that_it_stands_for():
    layer, fmri = make_layer(), torch.randn(5, 12)
    torch.testing.assert_close(layer(fmri), fmri @ layer.dense().T + layer.bias)


@pytest.mark.parametrize("standardises", [False, True])
def test_a_batch_gives_what_its_rows_give(standardises):
    layer, fmri = make_layer(standardises), torch.randn(9, 12)
    torch.testing.assert_close(layer(fmri), torch.cat([layer(row[None]) for row in fmri]))


@pytest.mark.parametrize("standardises", [False, True])
def test_gradients_reach_patterns_weights_and_bias(standardises):
    layer, fmri = make_layer(standardises).double(), torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(fmri: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (fmri,))

    assert torch.autograd.gradcheck(run, (fmri, parameters["weight"], parameters["bias"]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_it_computes_in_the_precision_of_its_weights(dtype):
    layer, fmri = make_layer(), torch.randn(3, 12)
    expected = layer(fmri).detach()
    found = layer.to(dtype)(fmri)
    assert found.dtype == dtype and layer.indices.dtype == torch.int32
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_the_state_survives_a_copy():
    layer, other = make_layer(), SelectedLinear(12, 7, 4)
    other.load_state_dict(layer.state_dict())
    fmri = torch.randn(2, 12)
    assert torch.equal(other(fmri), layer(fmri))


def test_more_voxels_than_there_are_and_damaged_positions_are_sentences():
    with pytest.raises(FmriModelsError, match="voxels_per_target is 13, and there are 12 voxels; choose from 1 to 12"):
        SelectedLinear(12, 7, 13)
    layer = make_layer()
    layer.indices[2, 3] = 12
    with pytest.raises(FmriModelsError, match="voxels 0 to 12; expected 0 to 11"):
        layer(torch.randn(2, 12))
