"""Each row goes through the layer of its subject, however that is computed."""

import pytest
import torch
from torch import nn

from fmri_models.encoders import subject_layers
from fmri_models.encoders.subject_linear import SubjectLinear
from fmri_models.errors import FmriModelsError

IDS = torch.tensor([2, 0, 2, 1, 0])


def layer_and_voxels() -> tuple[SubjectLinear, torch.Tensor]:
    torch.manual_seed(0)
    fmri = torch.randn(len(IDS), 5)
    # What would be seen if padding were read.
    fmri[1, 3:] = fmri[4, 3:] = fmri[3, 4:] = float("nan")
    return SubjectLinear([3, 4, 5], 6), fmri


def test_all_layers_on_all_rows_are_the_same_as_each_on_its_own():
    layer, fmri = layer_and_voxels()
    results = []
    for compute in (layer, lambda *inputs: subject_layers._selected(layer.layers, *inputs, layer.num_voxels)):
        layer.zero_grad()
        features = compute(fmri, IDS)
        features.square().sum().backward()
        results.append([features, *(parameter.grad.clone() for parameter in layer.parameters())])
    for found, expected in zip(*results, strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("subjects", [1, 3])
def test_an_id_that_is_none_is_never_another_subjects(subjects):
    layers = nn.ModuleList(nn.Linear(5, 2) for _ in range(subjects))
    fmri, ids = torch.randn(3, 5), torch.tensor([0, subjects, -1])
    with pytest.raises(FmriModelsError, match="give the index of each row's subject"):
        subject_layers.by_subject(layers, fmri, ids, [5] * subjects)
    features = subject_layers._selected(layers, fmri, ids, [5] * subjects)
    assert features[0].isfinite().all() and features[1:].isnan().all()


def test_a_layer_without_rows_has_a_gradient_of_zero():
    layer, fmri = layer_and_voxels()
    layer(fmri[:1], IDS[:1]).sum().backward()
    assert [bool(each.weight.grad.any()) for each in layer.layers] == [False, False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_voxels_are_brought_to_the_precision_of_the_weights(dtype):
    layer, fmri = layer_and_voxels()
    expected = layer(fmri, IDS)
    features = layer.to(dtype)(fmri, IDS)
    assert features.dtype == dtype
    torch.testing.assert_close(features.float(), expected, atol=0.05, rtol=0.05)


def test_under_autocast_it_computes_what_its_layers_do():
    layer, fmri = layer_and_voxels()
    with torch.autocast("cpu", torch.bfloat16):
        features = layer(fmri, IDS)
        expected = subject_layers.by_subject(layer.layers, fmri, IDS, layer.num_voxels)
        of_half = layer(fmri.bfloat16(), IDS)
    assert features.dtype == of_half.dtype == torch.bfloat16
    assert torch.equal(features, expected) and torch.equal(features, of_half)
