"""Published files: what is read of them, and what is refused in one sentence."""

import argparse
import datetime
import os
import random
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.optim.lr_scheduler import OneCycleLR

from fmri_models.errors import FmriModelsError
from fmri_models.original_checkpoint import check_finite, read_state


def weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_is_what_it_begins_as_whatever_its_name(tmp_path, zipped):
    save_file(weights(), tmp_path / "last.pth")
    torch.save(weights(), tmp_path / "last.safetensors", _use_new_zipfile_serialization=zipped)
    for name in ("last.pth", "last.safetensors"):
        assert same(read_state(tmp_path / name), weights())


@pytest.mark.parametrize("key", [None, "state_dict"])
def test_arrays_in_the_place_of_tensors_are_named(tmp_path, key):
    arrays = {name: value.numpy() for name, value in weights().items()}
    saved = arrays if key is None else {key: arrays, "epoch": 3}
    torch.save(saved, tmp_path / "last.pth")
    for checkpoint in (saved, tmp_path / "last.pth"):
        with pytest.raises(FmriModelsError, match=r"arrays of NumPy by name.*torch\.from_numpy"):
            read_state(checkpoint)


class Payload:
    """Touches a file as soon as it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_files_of_torch_in_both_formats(tmp_path, zipped, whole):
    saved = {"epoch": 3, "model_state_dict": weights(), "lrs": [0.1]} if whole else weights()
    torch.save(saved, tmp_path / "last.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_state(tmp_path / "last.pth"), weights())


def test_safetensors_and_the_prefix_of_distributed_training(tmp_path):
    save_file({f"module.{key}": value for key, value in weights().items()}, tmp_path / "last.safetensors")
    assert same(read_state(tmp_path / "last.safetensors"), weights())


def test_a_dictionary_stays_its_owners():
    given = weights()
    read_state(given)["a.bias"].zero_()
    assert same(given, weights())


def test_the_state_of_training_is_passed_over(tmp_path):
    """Checkpoints of torch 2.0 have a function of the one-cycle schedule in them, and rates may be numpy's."""
    schedule = {"anneal_func": OneCycleLR._annealing_cos, "last_epoch": 239}
    saved = {"model_state_dict": weights(), "lr_scheduler": schedule, "lrs": [np.float64(3e-4)]}
    torch.save(saved, tmp_path / "last.pth")
    assert b"_annealing_cos" in (tmp_path / "last.pth").read_bytes()
    assert same(read_state(tmp_path / "last.pth"), weights())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "inside"])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, zipped, place):
    monkeypatch.chdir(tmp_path)
    saved = {"model_state_dict": weights(), "other": Payload()} if place == "beside" else weights() | {"b": Payload()}
    torch.save(saved, "last.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FmriModelsError, match=r"last\.pth holds more than tensors.*code from a file is not run"):
        read_state("last.pth")
    assert not Path("executed").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [10, 200, -200])
def test_truncated_files_are_a_sentence(tmp_path, zipped, kept):
    path = tmp_path / "last.pth"
    torch.save(weights() | {"large": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FmriModelsError, match=r"last\.pth (is incomplete|holds more than tensors)") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


def test_truncated_safetensors_are_a_sentence(tmp_path):
    path = tmp_path / "last.safetensors"
    save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FmriModelsError, match="is incomplete or no checkpoint"):
        read_state(path)


def named(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in weights().items()}


WRAPPED = {
    "DataParallel": {"model_state_dict": named("module.")},
    "compiled": {"model_state_dict": named("_orig_mod.")},
    "compiled, then distributed": named("module._orig_mod."),
    "distributed, then compiled": {"state_dict": named("_orig_mod.module.")},
    "twice": named("module.module._orig_mod._orig_mod."),
    "fully sharded": named("_fsdp_wrapped_module._checkpoint_wrapped_module."),
    "Lightning": {"state_dict": weights(), "global_step": 3, "optimizer_states": [{"state": {0: {"m": torch.ones(1)}}}],
                  "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}}},
    "DeepSpeed": {"module": weights(), "global_steps": 3, "optimizer": {"state": {}, "param_groups": []}},
    "in each other": {"model": {"module": {"state_dict": named("module.")}}},
    "any name": {"epoch": 1, "my_network": weights()},
    "an average alone": {"ema": weights()},
    "swa_utils": {"model_state_dict": named("module.") | {"n_averaged": torch.tensor(4)}},
    "with a loss of its own": {"model_state_dict": weights(), "criterion": {"temperature": torch.ones(1)}},
    "with arrays": {"model_state_dict": weights(), "losses": np.zeros(3), "lrs": np.arange(2), "last": np.float32(1)},
    "with arguments": {"state_dict": weights(), "args": argparse.Namespace(out=Path("x"), seed=1), "at": Path("y")},
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_trainers_wrap_weights_in(tmp_path, name, zipped):
    torch.save(WRAPPED[name], tmp_path / "last.ckpt", _use_new_zipfile_serialization=zipped)
    assert same(read_state(tmp_path / "last.ckpt"), weights())


def test_compiled_parts_have_their_own_names():
    state = {"a._orig_mod.weight": torch.ones(1), "b.weight": torch.ones(1)}
    assert set(read_state(state)) == {"a.weight", "b.weight"}
    assert set(read_state({"module.a": torch.ones(1), "b": torch.ones(1)})) == {"module.a", "b"}


class AttributeDict(dict):
    """As Lightning's, whose module is not here."""


def test_lightnings_arguments_are_passed_over(tmp_path, monkeypatch):
    module = types.ModuleType("pytorch_lightning.utilities.parsing")
    module.AttributeDict = AttributeDict
    monkeypatch.setattr(AttributeDict, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.utilities", types.ModuleType("pytorch_lightning.utilities"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    saved = {"state_dict": weights(), "hyper_parameters": AttributeDict(rate=1e-3, sizes=[1])}
    torch.save(saved, tmp_path / "last.ckpt")
    assert same(read_state(tmp_path / "last.ckpt"), weights())


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"model": weights(), "model_ema": weights()}, "several state dicts, 'model' and 'model_ema'"),
        ({"state_dict": weights(), "state_dict_ema": weights()}, "several state dicts"),
        ({"encoder": weights(), "decoder": weights()}, "several state dicts, 'encoder' and 'decoder'"),
        ({"a._orig_mod.w": torch.ones(1), "a.w": torch.ones(1)}, "names differ only in"),
        ({"epoch": 3, "optimizer": {"state": {0: torch.ones(1)}}}, "holds no state dict"),
        ({"model": {"epoch": 3}}, "holds no state dict"),
    ],
)
def test_what_may_be_meant_in_several_ways_is_a_sentence(tmp_path, saved, message):
    torch.save(saved, tmp_path / "last.pth")
    with pytest.raises(FmriModelsError, match=message):
        read_state(tmp_path / "last.pth")


def test_wrappers_without_end_are_a_sentence():
    values: Any = weights()
    for _ in range(5000):
        values = {"model": values}
    with pytest.raises(FmriModelsError, match="holds no state dict"):
        read_state(values)


def test_a_class_of_somebodys_is_named(tmp_path):
    torch.save({"model_state_dict": weights(), "when": datetime.date(2020, 1, 1)}, tmp_path / "last.pth")
    with pytest.raises(FmriModelsError, match=r"more than tensors \(datetime.date\).*save its model_state_dict alone"):
        read_state(tmp_path / "last.pth")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.safetensors.index.json", "of weights in several files"),
        ("__0_0.distcp", "torch's distributed checkpoints"),
        ("global_step10/mp_rank_00_model_states.pt", "DeepSpeed, whose zero_to_fp32.py"),
        ("other.txt", "is a folder; give the file"),
    ],
)
def test_folders_of_parts_are_named(tmp_path, file, message):
    (tmp_path / "saved" / file).parent.mkdir(parents=True)
    (tmp_path / "saved" / file).touch()
    with pytest.raises(FmriModelsError, match=message):
        read_state(tmp_path / "saved")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights", "holds more than tensors, or is no checkpoint"),
        (b"", "is incomplete or no checkpoint"),
        (3, "holds no state dict"),
        ({}, "holds no state dict"),
        ({"model_state_dict": {"a": [1.0]}}, "holds no state dict"),
    ],
)
def test_what_is_no_checkpoint_is_a_sentence(tmp_path, content, message):
    path = tmp_path / "last.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(FmriModelsError, match=rf"last\.pth {message}"):
        read_state(path)


def test_a_folder_and_a_missing_file_are_sentences(tmp_path):
    with pytest.raises(FmriModelsError, match="is a folder; give the file"):
        read_state(tmp_path)
    with pytest.raises(FmriModelsError, match="There is no file"):
        read_state(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_named(value, dtype):
    state = weights() | {"b.weight": torch.ones(3, 4, dtype=dtype), "steps": torch.tensor(3)}
    check_finite(state)
    state["b.weight"][1, 2] = value
    with pytest.raises(FmriModelsError, match=r"b\.weight of the checkpoint has 1 values that are NaN or infinite"):
        check_finite(state)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("name", ["last.pth", "last.safetensors"])
def test_what_is_no_file_is_a_sentence(tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(FmriModelsError, match="is no regular file"):
        read_state(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "a pointer of Git LFS.*git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"<HTML><body>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML text"),
        (b'{"error": "Repository not found"}', "is a JSON text"),
        (b"PK\x03\x04" + b"\0" * 100, "is incomplete or no checkpoint"),
        (b"\x80\x02" + b"]" * 100_000 + b".", "is incomplete|holds more than tensors"),
        (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", "is incomplete|holds more than tensors"),
    ],
)
def test_what_stands_in_a_checkpoints_place_is_named(tmp_path, content, message):
    (tmp_path / "last.pth").write_bytes(content)
    with pytest.raises(FmriModelsError, match=message):
        read_state(tmp_path / "last.pth")


def repacked(path: Path, compress_type: int, pickle_size: int = 0) -> None:
    """Writes the parts of a checkpoint anew, as other programs than torch would."""
    with zipfile.ZipFile(path) as archive:
        parts = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            padded = content + b"\0" * pickle_size if name.endswith("data.pkl") else content
            archive.writestr(name, padded, compress_type=compress_type)


def test_archives_that_grow_are_refused_before_they_do(tmp_path):
    torch.save(weights(), tmp_path / "last.pth")
    repacked(tmp_path / "last.pth", zipfile.ZIP_DEFLATED, pickle_size=100 * 2**20)
    assert (tmp_path / "last.pth").stat().st_size < 2**20
    with pytest.raises(FmriModelsError, match="has the compressed part .*data.pkl, which torch does not write"):
        read_state(tmp_path / "last.pth")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(1).expand(10**9, 10**3), "which repeat each other"),
        (torch.zeros(3, 3).to_sparse(), "has values as torch.sparse_coo"),
        (torch.zeros(2, dtype=torch.complex64), "has values of torch.complex64"),
        (torch.zeros(2, device="meta"), "on meta"),
        (torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8), "expected plain tensors"),
    ],
)
def test_what_only_seems_to_be_a_tensor_is_named(tmp_path, value, message):
    torch.save(weights() | {"b.weight": value}, tmp_path / "last.pth")
    with pytest.raises(FmriModelsError, match=message):
        read_state(tmp_path / "last.pth")


@pytest.mark.parametrize("key", [5, (1, 2), None, ""])
def test_names_are_texts(tmp_path, key):
    torch.save(weights() | {key: torch.zeros(2)}, tmp_path / "last.pth")
    with pytest.raises(FmriModelsError, match="has a name that is no text"):
        read_state(tmp_path / "last.pth")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_mutated_files_end_in_a_state_or_a_sentence(tmp_path, ending):
    path = tmp_path / f"last{ending}"
    if ending == ".pth":
        torch.save({"epoch": 3, "model_state_dict": weights()}, path)
    else:
        save_file(weights(), path)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.choice((1, 3, 10))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            read_state(path)
        except FmriModelsError as error:
            assert len(str(error)) < 1000 and "\n" not in str(error)
