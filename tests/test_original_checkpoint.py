"""Published files: what is read of them, and what is refused in one sentence."""

import os
import random
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
