"""What lies in the place of a file that was not downloaded is called by its name, whoever reads the file."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fmri_models import FmriProcessor, LinearConfig, LinearModel
from fmri_models.data.matlab import read_mat
from fmri_models.data.pictures import read_picture
from fmri_models.data.stimuli import read_stimuli
from fmri_models.data.table import TrialTable
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.items_file import brain_items
from fmri_models.evaluation.patterns import load_array
from fmri_models.original_checkpoint import read_state
from fmri_models.reading import check_regular_file, read_array, read_json, read_text, stand_in
from fmri_models.training.recipe import load_recipe
from tests.small_table import write_small_table

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
STAND_INS = [
    (POINTER, "is a pointer of Git LFS.*git lfs pull"),
    (b"\xef\xbb\xbf\n <!DOCTYPE html>\n<html lang='en'>Sign in", "is a web page"),
    (b"<HTML><head></head></HTML>", "is a web page"),
    (b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "is an XML text"),
    (b"<Error><Code>NoSuchKey</Code></Error>", "is an error message of a server"),
]
JSON = (b'{"error": "Repository not found"}', "is a JSON text")


def table_with(folder: Path, content: bytes) -> None:
    table = TrialTable.open(write_small_table(folder / "table"))
    next((table.path / "trials").rglob("*.parquet")).write_bytes(content)
    TrialTable.open(table.path).all_trials("subj07").fmri(np.arange(2))


def statistics_with(folder: Path, content: bytes) -> None:
    fmri = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    FmriProcessor.fit({"a": fmri}).save_pretrained(folder / "processor")
    (folder / "processor" / "fmri_statistics.st").write_bytes(content)
    FmriProcessor.from_pretrained(folder / "processor")


def model_with(folder: Path, content: bytes) -> None:
    space = {"encoder": "pixels", "layer": "latent", "shape": [1, 2, 2]}
    LinearModel(LinearConfig(subject_names=["a"], num_voxels=[3], latent_space=space)).save_pretrained(folder / "model")
    (folder / "model" / "model.safetensors").write_bytes(content)
    LinearModel.from_pretrained(folder / "model")


def archive_with(folder: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(folder / "it.zip", "w") as archive:
        archive.writestr(name, content)
    return folder / "it.zip"


def file_with(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def stimuli_with(folder: Path, content: bytes) -> None:
    (folder / "pictures").mkdir()
    file_with(folder / "pictures", "a.png", content)
    list(read_stimuli(folder / "pictures"))


READERS = {
    "array": lambda folder, content: read_array(file_with(folder, "x.npy", content), "betas", "mend it"),
    "gallery": lambda folder, content: load_array(file_with(folder, "x.npy", content), memory_map=True),
    "MATLAB": lambda folder, content: read_mat(file_with(folder, "x.mat", content), ["a"], "mend it"),
    "MATLAB in zip": lambda folder, content: read_mat(
        archive_with(folder, "x.mat", content), ["a"], "mend it", "x.mat"
    ),
    "picture": lambda folder, content: read_picture(file_with(folder, "x.png", content), "it"),
    "pictures in a folder": stimuli_with,
    "pictures in zip": lambda folder, content: list(read_stimuli(archive_with(folder, "a.png", content), size=8)),
    "zip": lambda folder, content: read_stimuli(file_with(folder, "x.zip", content)),
    "Parquet": table_with,
    "items": lambda folder, content: brain_items(file_with(folder, "items.parquet", content)),
    "checkpoint": lambda folder, content: read_state(file_with(folder, "x.pth", content)),
    "safetensors": lambda folder, content: read_state(file_with(folder, "x.safetensors", content)),
    "statistics": statistics_with,
    "model": model_with,
}
TEXT_READERS = {
    "JSON": lambda folder, content: read_json(file_with(folder, "x.json", content), "record", "mend it"),
    "text": lambda folder, content: read_text(file_with(folder, "x.csv", content), "events", "mend it"),
    "recipe": lambda folder, content: load_recipe(str(file_with(folder, "x.yaml", content))),
}


@pytest.mark.parametrize("reader", [*READERS, *TEXT_READERS])
@pytest.mark.parametrize(("content", "message"), STAND_INS[:2])
def test_every_reader_names_what_it_found(tmp_path, reader, content, message):
    with pytest.raises(FmriModelsError, match=message) as caught:
        (READERS | TEXT_READERS)[reader](tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", ["array", "MATLAB", "picture", "zip", "items", "checkpoint", "safetensors", "model"])
@pytest.mark.parametrize(("content", "message"), [*STAND_INS[2:], JSON])
def test_servers_messages_are_named(tmp_path, reader, content, message):
    with pytest.raises(FmriModelsError, match=message):
        READERS[reader](tmp_path, content)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b"{ \xff", b"<svg>", b"version 1", b"PK\x03\x04", b"\x93NUMPY", b'{"a": "\xff"}']
)
def test_everything_else_may_be_the_file(tmp_path, content):
    assert stand_in(content) is None
    assert check_regular_file(file_with(tmp_path, "x.bin", content), "file", "mend it")


def test_a_json_text_may_be_a_text(tmp_path):
    assert read_json(file_with(tmp_path, "x.json", JSON[0]), "record", "mend it") == {"error": "Repository not found"}
    assert check_regular_file(file_with(tmp_path, "x.yaml", JSON[0]), "recipe", "mend it")


def test_a_page_that_is_meant_to_be_one_is_read(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<!DOCTYPE html><html></html>")
    assert read_text(page, "page", "remove it").startswith("<!DOCTYPE")
