"""What may not go to the Hub is refused before anything is sent; what is ours is not mistaken for it."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from fmri_models import FmriModelsError
from fmri_models.upload_checks import check_folder, check_upload

TOKEN = "hf_" + "aB3" * 12
PATH = "/home/me/scans/run1.npy"


def refused(folder: Path, name: str, sentence: str) -> None:
    with pytest.raises(FmriModelsError, match=sentence) as error:
        check_upload(folder, [name])
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f'{{"token": "{TOKEN}"}}',
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2_" * 12,
        "AKIAIOSFODNN7EXAMPLE",
        "sk-proj-" + "a1B2" * 10,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "machine api.example.org login user password 1f2e3d",
        "https://user:secret@example.org/repo.git",
        "WANDB_API_KEY=" + "0123456789abcdef" * 2 + "01234567",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jBmNHl0w5N",
        "Authorization: Bearer " + "a1B2" * 10,
        "wandb: " + "0123456789abcdef" * 2 + "01234567",
        'aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"',
    ],
)
@pytest.mark.parametrize("name", ["README.md", "training.json", "deep/notes.yaml"])
def test_tokens_are_found(tmp_path, text, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"first line\n{text}\n")
    refused(tmp_path, name, "line 2, has what looks like a")


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        "/Users/me/betas",
        "C:\\Users\\me\\betas.npy",
        "D:\\data\\fmri\\x.npy",
        "~/betas/x.npy",
        "~me/x",
        "/scratch/gpu3/x",
        "/tmp/pytest-1/x",
        "file:///srv/x",
        "data:/home/me/x",
        "D:/data/fmri/x.npy",
        "../../../home/me/generator",
        str(Path.home() / "anything") if len(Path.home().parts) > 2 else "/mnt/x/y",
    ],
)
def test_paths_of_machines_are_found_in_text_and_in_json(tmp_path, path):
    (tmp_path / "report.md").write_text(f"measured on {path} today")
    refused(tmp_path, "report.md", "has the path .* of a machine")
    (tmp_path / "report.json").write_text(json.dumps({"data": {path: 1}}))
    refused(tmp_path, "report.json", "has the path")


def test_of_json_the_key_is_named_and_a_value_that_is_a_path_is_one_wherever_it_begins(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps({"recipe": {"data": ["/dss/cluster7/x"]}}))
    refused(tmp_path, "training.json", r"\(recipe\.data\) has the path /dss/cluster7/x of a machine")
    (tmp_path / "training.json").write_text(f'{{"notes": {{"a": "{PATH}"}}, "notes": 1}}')
    refused(tmp_path, "training.json", r"\(notes\.a\) has the path")
    (tmp_path / "training.json").write_text(json.dumps({TOKEN: 1}))
    refused(tmp_path, "training.json", "token of the Hub")


def test_escapes_hide_nothing(tmp_path):
    (tmp_path / "a.json").write_text('{"data": "\\u002fhome\\u002fme\\u002fx"}')
    refused(tmp_path, "a.json", "has the path /home/me/x")
    (tmp_path / "b.txt").write_bytes(f"see {PATH}".encode("utf-16"))
    refused(tmp_path, "b.txt", "has the path")


def test_headers_of_binary_files_are_read(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"made_from": PATH})
    refused(tmp_path, "model.safetensors", r"\(metadata made_from\) has the path")
    about = PngInfo()
    about.add_text("comment", TOKEN)
    Image.new("RGB", (4, 4)).save(tmp_path / "grid.png", pnginfo=about)
    refused(tmp_path, "grid.png", "token of the Hub")
    table = pa.table({"a": [1]}).replace_schema_metadata({"source": PATH})
    pq.write_table(table, tmp_path / "a.parquet")
    refused(tmp_path, "a.parquet", "has the path")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_that_are_not_finite_are_refused(tmp_path, dtype):
    weights = torch.zeros(5, 3)
    save_file({"fine": weights.to(dtype), "ids": torch.arange(3)}, tmp_path / "model.safetensors")
    check_upload(tmp_path, ["model.safetensors"])
    weights[3, 1] = torch.nan
    save_file({"fine": weights.to(dtype)}, tmp_path / "model.safetensors")
    refused(tmp_path, "model.safetensors", "1 values that are NaN or infinite in fine")


def test_scalars_and_empty_tensors_are_weights(tmp_path):
    save_file({"scale": torch.tensor(1.0), "none": torch.empty(0, 4)}, tmp_path / "model.safetensors")
    check_upload(tmp_path, ["model.safetensors"])
    save_file({"scale": torch.tensor(torch.inf)}, tmp_path / "model.safetensors")
    refused(tmp_path, "model.safetensors", "NaN or infinite in scale")


def test_pickles_are_refused_whatever_their_name(tmp_path):
    for name in ("model.bin", "model.pt", "a.pkl", "a.ckpt"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path, name, "is a pickle")
    torch.save({"w": torch.zeros(2)}, tmp_path / "weights.dat")
    refused(tmp_path, "weights.dat", "is a pickle")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "cache").write_bytes(pickle.dumps({"a": Path}, protocol=protocol))
        refused(tmp_path, "cache", "is a pickle")
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    refused(tmp_path, "objects.npy", "is a pickle")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    refused(tmp_path, "objects.npz", "is a pickle")
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    np.savez(tmp_path / "numbers.npz", a=np.zeros(3))
    check_upload(tmp_path, ["numbers.npy", "numbers.npz"])


def test_links_out_of_the_folder_are_refused(tmp_path):
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").symlink_to(tmp_path / "secret")
    refused(folder, "README.md", "link to a file outside")


def test_links_of_the_hubs_cache_are_no_links_out(tmp_path):
    repository = tmp_path / "models--user--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs" / "abc").write_text("a card")
    (snapshot / "README.md").symlink_to("../../blobs/abc")
    check_upload(snapshot, ["README.md"])
    (tmp_path / "secret").write_text("mine")
    (snapshot / "config.json").symlink_to(tmp_path / "secret")
    refused(snapshot, "config.json", "link to a file outside")


def test_a_whole_folder_is_looked_at(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text(TOKEN)
    check_folder(tmp_path)
    (tmp_path / "sub" / "notes.txt").write_text(TOKEN)
    with pytest.raises(FmriModelsError, match=r"sub/notes\.txt"):
        check_folder(tmp_path)


def test_what_is_added_is_looked_at_too(tmp_path):
    with pytest.raises(FmriModelsError, match="README.md"):
        check_upload(tmp_path, [], {"README.md": TOKEN.encode()})


@pytest.mark.parametrize(
    "text",
    [
        "see docs/data.md and https://example.org/home/me/x, or [a page](../home/x.md)",
        "</head><body></body> and/or 3/4, ~3/4 of them, a/b/c",
        '{"bos_token": "<|startoftext|>", "tokenizer_class": "CLIPTokenizer", "token_weight": 10.0}',
        '{"sha256": "' + "0123456789abcdef" * 4 + '", "password": null}',
        "images/truth/scene0001.png and ./splits, ../table",
        "Q:\\n{{ question }}\\nA:\\n{{ answer }}",
        "s3://bucket/tmp/x, <a href='page.html#/home/x'>, ../images/x",
        "ratio 1:2, time 12:30:05, a:b",
    ],
)
def test_no_false_alarm(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    (tmp_path / "report.json").write_text(json.dumps({"text": text}))
    check_upload(tmp_path, ["README.md", "report.json"])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000))
def test_digests_and_hashes_are_no_tokens(tmp_path_factory, data):
    import base64

    folder = tmp_path_factory.mktemp("hashes")
    (folder / "training.json").write_text(json.dumps({"pictures": base64.b64encode(data).decode(), "sha": data.hex()}))
    check_upload(folder, ["training.json"])


def test_what_the_package_carries_could_be_pushed():
    """The project's own output raises no alarm: vocabulary, hashes, cards, reports."""
    assets = Path(check_upload.__code__.co_filename).parent / "assets"
    files = [path.relative_to(assets).as_posix() for path in assets.rglob("*") if path.is_file()]
    assert len(files) > 5
    check_upload(assets, files)


@pytest.mark.parametrize("shape", [(), (1,), (1, 9_000_001), (2, 3, 1_500_000), (9_000_001, 1), (0, 4), (4, 0)])
def test_values_of_any_shape_are_looked_at_in_chunks(tmp_path, shape, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "isfinite", lambda values: seen.append(values.numel()) or ~values.isnan())
    values = torch.zeros(shape)
    save_file({"layer": values}, tmp_path / "model.safetensors")
    check_upload(tmp_path, ["model.safetensors"])
    assert sum(seen) == values.numel() and max(seen, default=0) <= 2**22
    if values.numel():
        values.view(-1)[-1] = float("nan")
        save_file({"layer": values}, tmp_path / "model.safetensors")
        refused(tmp_path, "model.safetensors", "has 1 values that are NaN")
