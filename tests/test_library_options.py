"""Arguments of `from_pretrained` and `save_pretrained`: known ones are understood, others refused before any work."""

import inspect
import re

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from transformers import PreTrainedModel
from transformers.utils import logging

from fmri_models import FmriProcessor, FmriToImagePipeline, LinearConfig, LinearModel, MindEyeConfig
from fmri_models.errors import FmriModelsError
from fmri_models.generation.clip_targets import ClipTargets
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.library_options import (
    DIFFUSERS_LOAD_OPTIONS,
    DIFFUSERS_SAVE_OPTIONS,
    check_loading_options,
    checked_device,
    checked_dtype,
    not_loaded,
    take_device_map,
    take_dtype,
)


def options_in(function):
    """Names of the arguments that a function takes by name or out of its `kwargs`."""
    named = [name for name, each in inspect.signature(function).parameters.items() if each.kind != each.VAR_KEYWORD]
    return {*named, *re.findall(r'kwargs\.(?:pop|get)\(\s*"([a-z]\w*)"', inspect.getsource(function))}


def test_what_diffusers_takes_is_known():
    own = {"cls", "self", "pretrained_model_name_or_path", "save_directory", "push_to_hub", "safe_serialization"}
    own |= {"disable"}  # of a progress bar inside
    push = {"repo_id", "private", "token", "commit_message", "create_pr"}
    assert options_in(DiffusionPipeline.from_pretrained) - own <= set(DIFFUSERS_LOAD_OPTIONS)
    assert options_in(DiffusionPipeline.save_pretrained) - own - push <= set(DIFFUSERS_SAVE_OPTIONS)


@pytest.mark.parametrize(
    ("pipeline_class", "name", "nearest"),
    [
        (FmriToImagePipeline, "image_generatr", "image_generator"),
        (FmriToImagePipeline, "torch_dtyp", "torch_dtype"),
        (EmbeddedImageGenerator, "local_file_only", "local_files_only"),
        (ClipTargets, "antialiasing", "antialias"),
    ],
)
def test_misspelt_arguments_of_loading_are_refused_with_the_nearest(pipeline_class, name, nearest):
    check_loading_options(pipeline_class, [nearest, "cache_dir", "_commit_hash"])
    with pytest.raises(FmriModelsError, match=f"from_pretrained takes no '{name}'. Did you mean '{nearest}'"):
        check_loading_options(pipeline_class, [nearest, name])


def test_the_hint_knows_what_a_class_takes_besides():
    with pytest.raises(FmriModelsError, match="no 'unseen_sesion'. Did you mean 'unseen_session'"):
        check_loading_options(FmriToImagePipeline, ["unseen_sesion"], others=["unseen_session"])


@pytest.mark.parametrize("dtype", ["flot", "int8", torch.int8, 16, {"brain_model": "flot"}, ["float32"]])
def test_what_is_no_dtype_is_a_sentence(dtype):
    with pytest.raises(FmriModelsError, match=r"X got .* as dtype; expected torch\.float32"):
        checked_dtype(dtype, "X")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"torch_dtype": None}, {}),
        ({"torch_dtype": torch.float16}, {"dtype": torch.float16}),
        ({"torch_dtype": "torch.float16", "dtype": torch.float16}, {"dtype": torch.float16}),
        ({"dtype": "auto", "other": 1}, {"dtype": "auto", "other": 1}),
        (
            {"torch_dtype": {"unet": "float16", "default": "auto"}},
            {"dtype": {"unet": torch.float16, "default": "auto"}},
        ),
    ],
)
def test_both_names_of_dtype_are_one(given, expected):
    take_dtype(given, "X", ["unet"])
    assert given == expected


def test_contradicting_and_unknown_dtypes_are_sentences():
    with pytest.raises(FmriModelsError, match="X got torch.float16 as dtype and torch.float32 as torch_dtype"):
        take_dtype({"dtype": torch.float16, "torch_dtype": torch.float32}, "X")
    with pytest.raises(
        FmriModelsError, match="a dtype for 'unett', which is none of unet, default. Did you mean 'unet'"
    ):
        take_dtype({"dtype": {"unett": torch.float16}}, "X", ["unet"])
    with pytest.raises(FmriModelsError, match="got a mapping as dtype and loads one network"):
        take_dtype({"dtype": {"unet": torch.float16}}, "X")


def test_devices():
    assert checked_device("cpu", "X") == torch.device("cpu")
    for wrong, message in (("gpu", "as device; expected 'cpu'"), ("cuda:99", "'cuda:99', and this machine has")):
        with pytest.raises(FmriModelsError, match=message):
            checked_device(wrong, "X")
    options = {"device_map": "cpu"}
    assert take_device_map(options, "X") == torch.device("cpu") and options == {}
    with pytest.raises(FmriModelsError, match="as device_map; expected one device, 'auto' or 'balanced'"):
        take_device_map({"device_map": {"": "cpu"}}, "X")


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (MemoryError(), {}, "^There is not enough memory to load the model in a .MemoryError.; close"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), {}, "^There is not enough memory"),
        (ImportError("No module named x"), {"quantization_config": 1}, "a package that is missing here .*leave quanti"),
        (ValueError("no"), {"device_map": "auto"}, "can't be loaded with device_map as given here .no."),
        (ValueError("no"), {}, "can't be loaded, although its files are whole .no."),
    ],
)
def test_the_cause_is_named_and_nothing_called_damaged(error, options, message):
    with pytest.raises(FmriModelsError, match=message) as caught:
        raise not_loaded("The model in a", error, options)
    assert "again" not in str(caught.value)


def test_dtypes_and_their_names():
    assert checked_dtype("bfloat16", "X") == checked_dtype("torch.bfloat16", "X") == torch.bfloat16
    assert checked_dtype({"default": "float16"}, "X") == {"default": torch.float16}
    assert checked_dtype(None, "X") is None


def test_misspelt_arguments_of_models_and_saving_are_refused_with_the_nearest(tmp_path):
    space = {"encoder": "pixels", "layer": "latent", "shape": [1, 2, 2]}
    model = LinearModel(LinearConfig(subject_names=["a"], num_voxels=[3], latent_space=space))
    with pytest.raises(FmriModelsError, match="save_pretrained takes no 'max_shard_siz'"):
        model.save_pretrained(tmp_path / "model", max_shard_siz="1GB")
    assert not (tmp_path / "model").exists()
    model.save_pretrained(tmp_path / "model", safe_serialization=True)
    with pytest.raises(FmriModelsError, match="LinearModel.from_pretrained takes no 'dtyp'. Did you mean 'dtype'"):
        LinearModel.from_pretrained(tmp_path / "model", dtyp="float32")
    with pytest.raises(FmriModelsError, match="save_pretrained takes no 'privat'. Did you mean 'private'"):
        FmriProcessor.fit({"a": np.eye(4, 3, dtype=np.float32)}).save_pretrained(tmp_path / "processor", privat=True)
    known = {"self", "save_directory", "is_main_process", "push_to_hub", "max_shard_size", "variant", "token"}
    unknown = set(inspect.signature(PreTrainedModel.save_pretrained).parameters) - known - {"kwargs"}
    assert unknown <= {"state_dict", "save_peft_format", "save_original_format", "distributed_checkpoint"}


def test_a_misspelt_field_of_a_configuration_is_named(caplog):
    logging.enable_propagation()
    try:
        MindEyeConfig(subject_names=["a"], num_voxels=[3], hiden_size=3, comment="mine")
    finally:
        logging.disable_propagation()
    assert "no field 'hiden_size'" in caplog.text and "Did you mean 'hidden_size'" in caplog.text
    assert "no field 'comment', which is kept and changes nothing.\n" in caplog.text
