"""Saved weights are compared with the network that is meant, before any memory is taken for it."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from fmri_models.errors import FmriModelsError
from fmri_models.models.linear import LinearConfig, LinearModel
from fmri_models.weights import (
    MAX_SIZE,
    NoSuchVariantError,
    check_configuration,
    check_finite,
    check_model_folder,
    stored_dtype,
    stored_tensors,
    variants_in,
)
from tests.new_process import run_program

FIRST = "heads.latents.a.blocks.0.weight"
NUM_TENSORS = 4


@pytest.fixture
def folder(tmp_path):
    space = {"encoder": "pixels", "layer": "latent", "shape": [1, 4, 4]}
    config = LinearConfig(subject_names=["a"], num_voxels=[5], latent_space=space, targets_a_block=8)
    LinearModel(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def check(folder, **options):
    check_model_folder(LinearModel, folder, "The brain model", **options)


def change(folder, function, file="model.safetensors"):
    tensors = load_file(folder / file)
    function(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})


def poison(tensors, value=float("nan")):
    tensors[FIRST][2, 3] = value


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda tensors: tensors.pop(FIRST), rf"lacks {FIRST}: 1 of its {NUM_TENSORS} tensors"),
        (lambda tensors: tensors.clear(), rf"lacks {FIRST}: {NUM_TENSORS} of its {NUM_TENSORS} tensors"),
        (lambda tensors: tensors.update(other=torch.zeros(2)), "weights of another network: it has no other"),
        (lambda tensors: tensors.update({FIRST: torch.zeros(8, 4)}), "of the shape 8×4 in its weights and of 8×5"),
        (lambda tensors: tensors.update({FIRST: torch.zeros(40)}), "of the shape 40 in its weights and of 8×5"),
        (lambda tensors: tensors.update({FIRST: torch.zeros(8, 5, dtype=torch.int64)}), "as whole numbers"),
        (lambda tensors: tensors.update({FIRST: torch.zeros(8, 5, dtype=torch.bool)}), "as bool numbers"),
        (lambda tensors: tensors.update({FIRST: torch.zeros(8, 5, dtype=torch.float8_e4m3fn)}), "as F8_E4M3 numbers"),
        (poison, f"1 values that are NaN or infinite, of 40, in {FIRST}"),
        (lambda tensors: poison(tensors, -float("inf")), f"1 values that are NaN or infinite, of 40, in {FIRST}"),
    ],
)
def test_weights_that_are_not_whole_are_refused_by_name(folder, function, message):
    check(folder)
    change(folder, function)
    with pytest.raises(FmriModelsError, match=message) as caught:
        check(folder)
    assert "\n" not in str(caught.value)


def test_half_precision_is_the_same_network(folder):
    change(folder, lambda tensors: tensors.update({key: value.bfloat16() for key, value in tensors.items()}))
    check(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_of_any_float_type_are_looked_at(tmp_path, value):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        save_file({"a": torch.tensor(value, dtype=dtype), "b": torch.zeros(0)}, tmp_path / "model.safetensors")
        with pytest.raises(FmriModelsError, match="NaN or infinite, of 1, in a"):
            check_finite(stored_tensors(tmp_path, "It"), "It")


def shard(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    write_index(folder, weight_map)
    return weight_map


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_one_network(folder):
    shard(folder)
    check(folder)
    change(folder, lambda tensors: tensors.popitem(), "model-00002-of-00002.safetensors")
    with pytest.raises(FmriModelsError, match=r"lacks .* which should be in model-00002-of-00002.safetensors"):
        check(folder)


@pytest.mark.parametrize(
    "place", ["../model.safetensors", "/etc/passwd", "other.bin", "", 3, None, ["x"], "a/b.safetensors"]
)
def test_an_index_names_files_of_its_folder(folder, place):
    weight_map = shard(folder)
    write_index(folder, {**weight_map, FIRST: place})
    with pytest.raises(FmriModelsError, match="expected a .safetensors file of the same folder"):
        check(folder)


def test_an_index_without_a_map_and_two_sets_of_weights(folder):
    shutil.copy(folder / "model.safetensors", folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(FmriModelsError, match="two sets of weights"):
        check(folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    shard(folder)
    write_index(folder, {})
    with pytest.raises(FmriModelsError, match="without a weight_map"):
        check(folder)


def test_pickled_weights_are_none(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FmriModelsError, match="has no weights"):
        check(folder)


def test_variants_that_are_there_are_named(folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(
        NoSuchVariantError, match=r"weights without a variant; there are weights of 'fp16': pass variant='fp16'\."
    ):
        check(folder)
    with pytest.raises(FmriModelsError, match="pass variant='fp16'"):
        LinearModel.from_pretrained(folder)
    with pytest.raises(FmriModelsError, match=r"variant 'bf16'; there are weights of 'fp16': pass variant='fp16'\."):
        LinearModel.from_pretrained(folder, variant="bf16")
    assert LinearModel.from_pretrained(folder, variant="fp16").dtype == torch.float32
    shutil.copy(folder / "model.fp16.safetensors", folder / "model.safetensors")
    with pytest.raises(FmriModelsError, match="weights of 'fp16' and without one: pass variant='fp16' or no variant"):
        LinearModel.from_pretrained(folder, variant="bf16")


def test_names_of_variants():
    names = ["model.a.safetensors", "model.b-00001-of-00002.safetensors", "model.safetensors.index.c.json"]
    assert variants_in([*names, "config.json", "model.bin"]) == {"a", "b", "c"}
    plain = ["model-00001-of-00002.safetensors", "diffusion_pytorch_model.safetensors", "model.safetensors.index.json"]
    assert variants_in(plain) == {None}


def test_the_type_of_most_stored_values(folder):
    assert stored_dtype(folder, "The model") == torch.float32
    change(folder, lambda tensors: tensors.update({name: value.bfloat16() for name, value in tensors.items()}))
    assert stored_dtype(folder, "The model") == torch.bfloat16


def test_names_may_be_mapped(folder):
    change(folder, lambda tensors: tensors.update({f"former.{name}": tensors.pop(name) for name in list(tensors)}))
    with pytest.raises(FmriModelsError, match="lacks"):
        LinearModel.from_pretrained(folder)
    LinearModel.from_pretrained(folder, key_mapping={"^former.": ""})


def test_a_variant_stands_before_the_usual_weights(folder):
    shutil.copy(folder / "model.safetensors", folder / "model.fp16.safetensors")
    change(folder, poison)
    check(folder, variant="fp16")
    with pytest.raises(FmriModelsError, match="NaN"):
        check(folder, variant="bf16")


@pytest.mark.parametrize("cut", [0, 7, 8, 100, -1])
def test_a_file_that_is_cut_short_is_a_sentence(folder, cut):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(FmriModelsError, match="cut short or no safetensors file"):
        check(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_space": {"encoder": "pixels", "layer": "latent", "shape": [2**63 - 1, 9]}},
        {"latent_space": {"encoder": "pixels", "layer": "latent", "shape": [16_000_000, 9]}, "targets_a_block": 1},
        {"latent_space": {"encoder": "pixels", "layer": "latent", "shape": [1_000_000]}, "targets_a_block": 1},
        {"num_voxels": [2**63 - 1]},
        {"num_voxels": [2**24], "latent_space": {"encoder": "pixels", "layer": "latent", "shape": [2**24]}},
    ],
)
def test_sizes_are_compared_before_anything_is_allocated(folder, changes):
    """In a process of its own, which may use half a gigabyte beyond what the libraries take, and 20 seconds."""
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    code = (
        "import resource, sys\n"
        "from fmri_models.models.linear import LinearModel\n"
        "from fmri_models.errors import FmriModelsError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    LinearModel.from_pretrained(sys.argv[1])\n"
        "except FmriModelsError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = run_program(code, folder)
    assert run.returncode == 0, run.stderr
    sentence, grown = run.stdout.splitlines()[-2:]
    assert "expected" in sentence or "describes a network of more than" in sentence
    assert int(grown) < 500_000


def test_building_on_meta_draws_no_random_numbers(folder):
    state = torch.get_rng_state()
    check(folder)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {"AutoModel": "evil.X"}},
        {"attn_implementation": "user/kernel"},
        {"text_config": {"_attn_implementation": "user/kernel"}},
        {"quantization_config": {"quant_method": "x"}},
        {"parts": [{"trust_remote_code": True}]},
        {"hidden_size": MAX_SIZE + 1},
        {"vision_config": {"hidden_size": -(2**63)}},
        {"layer_norm_eps": float("inf")},
        {"layers": [1] * 10_001},
    ],
)
def test_a_configuration_says_sizes_and_no_loaders(values):
    with pytest.raises(FmriModelsError, match="remove it|expected"):
        check_configuration(values, "The configuration")
    check_configuration({"hidden_size": 4096, "eps": 1e-6, "auto_map": None, "list": [1, 2]}, "The configuration")


def test_what_a_class_leaves_out_is_left_out(tmp_path):
    class Network(nn.Module):
        _keys_to_ignore_on_load_missing = [r"^made\."]
        _keys_to_ignore_on_load_unexpected = [r"^old\."]

        def __init__(self):
            super().__init__()
            self.made, self.kept = nn.Linear(2, 2), nn.Linear(2, 2)

        @classmethod
        def from_config(cls, config):
            return cls()

    (tmp_path / "config.json").write_text("{}")
    weights = {f"kept.{name}": value for name, value in nn.Linear(2, 2).state_dict().items()}
    save_file({**weights, "old.x": torch.zeros(1), "position_ids": torch.zeros(1, 3)}, tmp_path / "model.safetensors")
    check_model_folder(Network, tmp_path, "It")
    save_file({**weights, "new.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(FmriModelsError, match=r"it has no new\.x"):
        check_model_folder(Network, tmp_path, "It")
    check_model_folder(Network, tmp_path, "It", unused=[r"^new\."])


def test_random_bytes_in_the_header_are_sentences(folder):
    file = folder / "model.safetensors"
    data, rng = file.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        changed[rng.integers(len(data) - 300)] = rng.integers(256)
        file.write_bytes(changed)
        try:
            check(folder)
        except FmriModelsError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("change", [None, "missing", "other", "shape"])
def test_names_that_transformers_had_before_are_known(tmp_path, change):
    """Published text towers name their tensors `text_model.…`, as transformers did before its fifth version."""
    config = CLIPTextConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(tmp_path)
    tensors = {f"text_model.{name}": value for name, value in load_file(tmp_path / "model.safetensors").items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    last = "text_model.final_layer_norm.weight"
    if change == "missing":
        del tensors[last]
    elif change == "other":
        tensors["text_model.other"] = torch.zeros(2)
    elif change == "shape":
        tensors[last] = torch.zeros(9)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    if change is None:
        check_model_folder(CLIPTextModel, tmp_path, "The text encoder")
        assert len(CLIPTextModel.from_pretrained(tmp_path).state_dict()) == len(tensors) - 1
    else:
        with pytest.raises(FmriModelsError, match="The text encoder"):
            check_model_folder(CLIPTextModel, tmp_path, "The text encoder")


def test_names_that_diffusers_had_before_are_known(tmp_path):
    """Attention of the first autoencoders: `query` and `proj_attn` instead of `to_q` and `to_out.0`."""
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=2).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, old in names.items():
        tensors = {name.replace(f".{new}.", f".{old}."): value for name, value in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    check_model_folder(AutoencoderKL, tmp_path, "The autoencoder")
