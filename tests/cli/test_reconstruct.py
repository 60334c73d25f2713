"""`fmri-models reconstruct`: what it replaces, where it writes, and what it refuses of arrays."""

import csv
import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.patterns import Patterns, load_array
from fmri_models.evaluation.reconstruct import reconstruct
from fmri_models.pipeline_fmri import FmriToImagePipeline
from tests.small_table import write_small_table

SUBJECT = "subj07"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstruct")
    data = write_small_table(folder / "data", subjects=(SUBJECT,))
    assert main(["train", "linear", f"data={data}", f"out={folder / 'model'}", "generator=pixels"]) == 0
    return folder


def run(workplace, capsys, out, *options, data=None):
    capsys.readouterr()
    command = ["reconstruct", "--model", workplace / "model", "--fmri", data or workplace / "data"]
    status = main([str(part) for part in (*command, "--subject", SUBJECT, "--out", out, *options)])
    err = capsys.readouterr().err.strip().splitlines()
    return status, err[-1] if err else ""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_its_own_folders_are_replaced(workplace, capsys, tmp_path):
    out = tmp_path / "out"
    assert run(workplace, capsys, out)[0] == 0
    before = names(out)
    with open(out / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert before == sorted(["embeddings.npy", "trials.csv", *(f"{row['trial']}.png" for row in rows)])
    assert "not empty" in run(workplace, capsys, out)[1]
    assert run(workplace, capsys, out, "--overwrite", "--seed", "0", "1")[0] == 0
    assert run(workplace, capsys, out, "--overwrite")[0] == 0
    assert names(out) == before
    for name in ("holiday.png", "notes.txt"):
        (out / name).write_bytes(b"somebody's")
        status, message = run(workplace, capsys, out, "--overwrite")
        assert status == 1
        assert name in message
        assert "would be lost with it" in message
        (out / name).unlink()
    assert names(out) == before
    (out / "trials.csv").unlink()
    assert "it has no trials.csv" in run(workplace, capsys, out, "--overwrite")[1]
    assert len(names(out)) == len(before) - 1


def test_no_input_is_replaced(workplace, capsys, tmp_path):
    for name in ("model", "data"):
        before = sorted(path for path in (workplace / name).rglob("*"))
        for out in (workplace / name, workplace / name / "below", workplace):
            status, message = run(workplace, capsys, out, "--overwrite")
            assert status == 1
            assert "which is read; choose a folder apart from it" in message
        assert sorted(path for path in (workplace / name).rglob("*")) == before


def evil_table(data, folder, evil):
    """A table whose first test stimulus has another id, with hashes that fit."""
    shutil.copytree(data, folder)
    first = pq.read_table(next((folder / "trials" / SUBJECT).glob("test-*.parquet")))["stimulus_id"][0].as_py()
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        if "stimulus_id" in table.column_names:
            ids = [evil if each == first else each for each in table["stimulus_id"].to_pylist()]
            place = table.column_names.index("stimulus_id")
            pq.write_table(table.set_column(place, table.schema.field(place), pa.array(ids, pa.string())), path)
    about = json.loads((folder / "table.json").read_text())
    for name in about["files"]:
        content = (folder / name).read_bytes()
        about["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "table.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("evil", ["../../x", "{absolute}", "a/b", "..", "a\x00b"])
def test_no_id_leads_out_of_the_folder(workplace, capsys, tmp_path, evil):
    victim = tmp_path / "victim"
    victim.with_suffix(".png").write_bytes(b"somebody's")
    data = evil_table(workplace / "data", tmp_path / "evil", evil.format(absolute=victim))
    before = names(tmp_path)
    status, message = run(workplace, capsys, tmp_path / "below" / "out", data=data)
    assert status == 1
    assert "can't be used as a file name" in message
    assert set(names(tmp_path)) - {"below"} == set(before)
    assert victim.with_suffix(".png").read_bytes() == b"somebody's"


def test_names_are_checked_where_they_are_written_too(workplace, tmp_path):
    pipeline = FmriToImagePipeline.from_pretrained(workplace / "model")
    features = torch.zeros(2, pipeline.processor.width)
    for ids, message in ((["../x", "b"], "can't be used as a file name"), (["a", "a"], "have the same name")):
        with pytest.raises(FmriModelsError, match=message):
            reconstruct(pipeline, Patterns(ids, ids, features, SUBJECT), [0], tmp_path / "out")
    assert names(tmp_path) == []


def test_what_are_no_numbers_is_a_sentence(tmp_path):
    path = tmp_path / "x.npy"
    cases = {
        "no readable .npy array": np.array([[object()]]),
        "expected a \\(rows, values\\) array": np.zeros(4),
        "expected whole or floating-point numbers": np.array([["a"]]),
    }
    for message, values in cases.items():
        np.save(path, values, allow_pickle=True)
        with pytest.raises(FmriModelsError, match=message):
            load_array(path)
    for header in ("{'descr': '<f4', 'fortran_order': False, 'shape': (10737418240, 1), }", "(" * 2000, "{" * 100):
        data = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data + bytes(64))
        for memory_map in (False, True):
            with pytest.raises(FmriModelsError, match="x.npy"):
                load_array(path, memory_map)
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 2)))
    (tmp_path / "x.npz").rename(path)
    with pytest.raises(FmriModelsError, match="a zip archive"):
        load_array(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FmriModelsError, match="no regular file"):
        load_array(path)
    np.save(tmp_path / "big.npy", np.ones((2, 3), ">f4"))
    assert load_array(tmp_path / "big.npy").tolist() == [[1] * 3] * 2
    assert np.asarray(load_array(tmp_path / "big.npy", memory_map=True)).tolist() == [[1] * 3] * 2


def test_a_program_is_told_the_folder_in_json_alone(workplace, capsys, tmp_path):
    assert run(workplace, capsys, tmp_path / "told")[0] == 0
    capsys.readouterr()
    arguments = ["--model", workplace / "model", "--fmri", workplace / "data", "--out", tmp_path / "out", "--json"]
    assert main(["reconstruct", *map(str, arguments), "--subject", SUBJECT]) == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["out"] == str(tmp_path / "out")
    assert str(tmp_path) not in written.err
