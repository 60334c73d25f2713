"""Weights that Accelerate keeps elsewhere are brought for every method that computes."""

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook, disk_offload
from accelerate.hooks import AlignDevicesHook, CpuOffload, add_hook_to_module
from torch import nn

from fmri_models import MindEyeLowLevelModel, MindEyeModel, MindEyePrior
from fmri_models.modeling_fmri import FmriPreTrainedModel
from fmri_models.offloading import execution_device, onloaded, place_of, with_hooks, without_index_of_cpu
from tests.models.mindeye.test_modeling_mindeye import tiny_config

CPU = torch.device("cpu")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((2,), 3.0))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.scale

    @with_hooks
    def scaled(self, values: torch.Tensor, *, others: list[torch.Tensor] | None = None) -> torch.Tensor:
        """Not by a forward."""
        return values * self.scale + sum(others or [])


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_a_method_beside_forward_finds_weights(where, tmp_path):
    module = Scaled()
    expected = module.scaled(torch.ones(2), others=[torch.ones(2)])
    if where == "cpu":
        cpu_offload(module, CPU)
    else:
        disk_offload(module, str(tmp_path), execution_device=CPU)
    assert module.scale.device.type == "meta"
    assert execution_device(module) == place_of(module) == CPU
    assert torch.equal(module.scaled(torch.ones(2), others=[torch.ones(2)]), expected)
    assert module.scale.device.type == "meta"


def test_a_chain_of_models_goes_on_at_a_method():
    """The model before is sent back as soon as a method of the next one is called."""
    first, second = Scaled(), Scaled()
    _, hook = cpu_offload_with_hook(first, CPU)
    sent_back = []
    hook.offload = lambda: sent_back.append(first)
    cpu_offload_with_hook(second, CPU, prev_module_hook=hook)
    first.scale = nn.Parameter(first.scale.detach().to("meta"))
    second.scaled(torch.ones(2))
    assert sent_back == [first]


def test_what_fails_sends_weights_back_too():
    module = Scaled()
    cpu_offload(module, CPU)
    with pytest.raises(TypeError), onloaded(module):
        assert module.scale.device == CPU
        raise TypeError
    assert module.scale.device.type == "meta"


def test_without_hooks_nothing_happens():
    module = Scaled()
    assert execution_device(module) is None
    assert place_of(module) == CPU
    with onloaded(module):
        assert module.scaled(torch.ones(2)).tolist() == [3.0, 3.0]


def test_a_cpu_has_no_index():
    module = nn.Sequential(Scaled(), Scaled())
    add_hook_to_module(module[0], AlignDevicesHook(execution_device=torch.device("cpu", 0)))
    add_hook_to_module(module[1], CpuOffload(torch.device("meta")))
    without_index_of_cpu(module)
    assert module[0]._hf_hook.execution_device == CPU
    assert module[1]._hf_hook.execution_device == torch.device("meta")


def test_methods_of_any_brain_model_are_wrapped():
    class Theirs(FmriPreTrainedModel):
        def decode(self, fmri, subject_ids=None, num_candidates=1, generator=None):
            return fmri

    assert hasattr(Theirs.decode, "__wrapped__")
    assert Theirs.decode.__name__ == "decode"


def computed(model: FmriPreTrainedModel) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    if isinstance(model, MindEyePrior):
        return model.sample(torch.ones(2, *model.config.token_shape), generator=source)
    fmri = torch.ones(2, max(model.config.num_voxels))
    decoding = model.decode(fmri, [0, 1], generator=source)
    return torch.cat([values.flatten() for values in decoding.values()])


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("model_class", [MindEyeModel, MindEyePrior, MindEyeLowLevelModel])
def test_models_and_their_parts_compute_the_same(model_class, where, tmp_path):
    torch.manual_seed(0)
    model = model_class(tiny_config()).eval()
    expected = computed(model)
    if where == "cpu":
        cpu_offload(model, CPU)
    else:
        disk_offload(model, str(tmp_path), execution_device=CPU)
    torch.testing.assert_close(computed(model), expected)
    if isinstance(model, MindEyeModel):
        tokens = torch.ones(2, *model.config.token_shape)
        sampled = model.prior.sample(tokens, generator=torch.Generator().manual_seed(0))
        assert torch.isfinite(sampled).all()
