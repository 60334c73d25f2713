"""A model whose folder holds a PEFT adapter is checked like any other: the adapter's tensors and those of its base."""

import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fmri_models.errors import FmriModelsError
from tests.models.mindeye.test_modeling_mindeye import TestMindEyeModel as MindEye


@pytest.fixture
def folders(tmp_path):
    """Folders of a base and of an adapter on it, and the class of the model."""
    model = MindEye().make_model()
    model.save_pretrained(tmp_path / "base")
    adapted = type(model).from_pretrained(tmp_path / "base")
    layers = [name for name, each in adapted.named_modules() if isinstance(each, torch.nn.Linear)]
    adapted.add_adapter(peft.LoraConfig(r=2, target_modules=layers[:2]))
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "base", tmp_path / "adapter", type(model)


def change(file, function):
    tensors = load_file(file)
    function(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_an_adapter_is_loaded_with_its_base(folders):
    _, adapter, model_class = folders
    assert any("lora" in name for name, _ in model_class.from_pretrained(adapter).named_parameters())


def test_an_adapter_that_is_not_finite_is_a_sentence(folders):
    _, adapter, model_class = folders
    change(adapter / "adapter_model.safetensors", lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    with pytest.raises(FmriModelsError, match="The adapter in .* NaN or infinite"):
        model_class.from_pretrained(adapter)


@pytest.mark.parametrize("together", [False, True])
def test_an_adapter_hides_no_missing_weights_of_its_base(folders, together):
    base, adapter, model_class = folders
    change(base / "model.safetensors", lambda tensors: tensors.pop(next(iter(tensors))))
    if together:
        for file in adapter.iterdir():
            shutil.copy(file, base)
    with pytest.raises(FmriModelsError, match="lacks"):
        model_class.from_pretrained(base if together else adapter)
