"""Modules of subjects have the subjects' names, whatever these are, and those that were numbered are still read."""

import copy
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fmri_models.encoders import subject_layers
from fmri_models.encoders.subject_layers import SubjectLayers
from fmri_models.encoders.subject_linear import SubjectLinear
from fmri_models.subject_modules import SubjectModules, former_names, prefixes_today

NAMES = ["subj01", "a.b", "a%2Eb", "1", "01", "float", "bfloat16", "names", "a-b", "_", "Subj01", "training", "..", "%"]
Linear = partial(nn.Linear, out_features=2)


def layers_of(names=("b", "a", "c"), counts=(3, 4, 5)) -> SubjectLayers:
    torch.manual_seed(0)
    return SubjectLayers(dict(zip(names, counts, strict=True)), Linear)


def test_any_name_of_a_subject_is_one_of_a_module():
    layers = SubjectModules({name: nn.Linear(1, 1) for name in NAMES})
    keys = [name for name, _ in layers.named_children()]
    assert keys[0] == "subj01" and keys[1] == "a%2Eb" and keys[8] == "a-b"
    assert len(set(keys)) == len(NAMES) and not any("." in key or key.isdecimal() for key in keys)
    for place, (name, key) in enumerate(zip(NAMES, keys, strict=True)):
        assert layers[name] is layers[place] is layers.get_submodule(key)
        assert layers.key_of(name) == layers.key_today(key) == key
    assert layers.names == NAMES and list(layers) == [layers[name] for name in NAMES]


@given(st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True), min_size=1, max_size=6, unique=True))
def test_names_and_their_modules_belong_together(names):
    layers = SubjectModules({name: nn.Linear(1, 1) for name in names})
    assert len(dict(layers.named_children())) == len(names)
    again = SubjectModules({name: nn.Linear(1, 1) for name in names})
    again.load_state_dict(layers.state_dict())
    assert all(torch.equal(again[name].weight, layers[name].weight) for name in names)


def test_tensors_that_were_numbered_are_those_of_the_subject_at_that_place():
    layers = nn.Sequential(layers_of(["2", "1", "0.5"]))
    numbered = {
        f"0.{place}.{key}": each.detach() + 1
        for place in range(3)
        for key, each in layers[0][place].state_dict().items()
    }
    assert prefixes_today(layers, numbered) == {"0.0.": "0.%32.", "0.1.": "0.%31.", "0.2.": "0.0%2E5."}
    layers.load_state_dict(numbered)
    assert [torch.equal(layers[0][name].weight, numbered[f"0.{n}.weight"]) for n, name in enumerate(["2", "1", "0.5"])]
    assert former_names(layers.state_dict(), ["2", "1", "0.5"]).keys() == numbered.keys()
    for wrong in ("0.3.weight", "0.01.weight"):
        with pytest.raises(RuntimeError, match="Unexpected key"):
            layers.load_state_dict({**numbered, wrong: torch.zeros(2, 3)})


def test_layers_without_names_are_numbered_as_ever():
    layer = SubjectLinear([3, 4], 6)
    assert list(layer.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert prefixes_today(layer, layer.state_dict()) == {} and not layer.layers.has_names


def test_layers_are_copied_and_pickled_with_what_makes_further_ones():
    layer = SubjectLinear({"a": 3, "b": 4}, 6)
    for each in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        each.layers.append("c", 7, each.layers.new_layer(7))
        assert each.layers.names == ["a", "b", "c"] and each.num_voxels == [3, 4, 7]
        assert each(torch.randn(3, 7), torch.tensor([2, 0, 1])).shape == (3, 6)
        each.layers.remove("a")
        assert each.layers.names == ["b", "c"] and each.num_voxels == [4, 7]
    assert layer.num_voxels == [3, 4]


@pytest.mark.parametrize("compute", ["own rows", "all rows"])
def test_outputs_may_have_any_shape_and_a_width_of_each_subject(compute, monkeypatch):
    if compute == "all rows":
        monkeypatch.setattr(subject_layers, "becomes_a_graph", lambda: True)
    ids = torch.tensor([1, 0, 1])
    tokens = SubjectLayers({"a": 3, "b": 4}, Tokens)
    found = tokens(torch.randn(3, 4, 5), ids)
    assert found.shape == (3, 2, 5)
    turned = SubjectLayers({"a": 3, "b": 4}, partial(nn.Linear, 6), reads_all=True)
    hidden = torch.randn(3, 6)
    expected = [turned["b"](hidden[0]), nn.functional.pad(turned["a"](hidden[1]), (0, 1)), turned["b"](hidden[2])]
    torch.testing.assert_close(turned(hidden, ids), torch.stack(expected))


class Tokens(nn.Module):
    """(B, voxels, 5) ▶ (B, 2, 5)."""

    def __init__(self, num_voxels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, num_voxels))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.weight @ values


def test_layers_compile_and_give_nan_for_ids_that_are_none():
    layers = layers_of()
    ids, fmri = torch.tensor([2, 0, 1]), torch.randn(3, 5)
    exported = torch.export.export(layers, (fmri, ids)).module()
    torch.testing.assert_close(exported(fmri, ids), layers(fmri, ids))
    assert exported(fmri, torch.tensor([3, -1, 0]))[:2].isnan().all()
