"""The record that evaluation relies on: what is read is what was written, or a sentence."""

import hashlib
import json
import os

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.training_record import RECORD_SCHEMA, LearnedFrom, TrainingRecord, encoded_pictures, without_places

HASHES = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]


def record(**changes):
    values = {
        "method": "linear", "table": "small", "table_fingerprint": "0" * 64, "split": "default", "fold": 0,
        "train_parts": ["train"], "repetitions": "average",
    }  # fmt: skip
    return TrainingRecord(**{**values, **changes})


def test_a_record_comes_back(tmp_path):
    saved = record(simulated=True, stages=[{"stage": "ridge", "result": {"1": 0.5}}], seconds=3)
    saved.save(tmp_path)
    assert TrainingRecord.load(tmp_path) == saved


def test_curve_hardware_and_the_table_come_back(tmp_path):
    saved = record(
        hardware={"device": "cuda", "name": "NVIDIA H200", "processes": 2, "threads": 8, "precision": "bfloat16"},
        curve=[{"stage": "backbone", "step": 20, "train_loss": 0.5, "validation_loss": None}],
        learned={"subjects": 2, "sessions": 80, "trials": 60000, "pictures": 20000},
        table_license="cc0-1.0",
        table_source="an experiment",
    )
    saved.save(tmp_path)
    assert TrainingRecord.load(tmp_path) == saved


def test_a_record_of_the_second_schema_is_read_and_becomes_one_of_this_version(tmp_path):
    record().save(tmp_path)
    path = tmp_path / "training.json"
    values = json.loads(path.read_text())
    for key in ("hardware", "curve", "learned", "table_license", "table_source"):
        del values[key]
    path.write_text(json.dumps({**values, "schema": 2}))
    old = TrainingRecord.load(tmp_path)
    assert (old.hardware, old.curve, old.learned, old.table_license, old.table_source) == (None, [], None, "", "")
    old.save(tmp_path)
    assert json.loads(path.read_text())["schema"] == RECORD_SCHEMA, "a version before would refuse what it now holds"


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("/data/me/teacher", "teacher"), ("/data/me/teacher/", "teacher"), ("~/teacher", "teacher"),
        ("~me/teacher", "teacher"), (r"C:\data\teacher", "teacher"), (r"\\server\me\teacher", "teacher"),
        ("file:///data/me/teacher", "teacher"), ("/", "a folder"),
        ("user/teacher", "user/teacher"), ("embedded", "embedded"), ("https://example.org/x", "https://example.org/x"),
    ],
)  # fmt: skip
def test_what_is_saved_names_no_path_of_a_machine(tmp_path, place, named):
    assert without_places({"a": [place, (3, place)]}) == {"a": [named, [3, named]]}
    old = record(
        recipe={"generator": {"options": {"file": place}}}, selection={"candidates": [{"values": {"a": place}}]}
    )
    assert old.names_places == (place != named)
    old.save(tmp_path)
    saved = TrainingRecord.load(tmp_path)
    assert saved.recipe["generator"]["options"]["file"] == saved.selection["candidates"][0]["values"]["a"] == named


def learned(pictures=HASHES[:4], **changes):
    values = {"table": "small", "table_fingerprint": "0" * 64, "split": "a", "fold": 0, "parts": ["train"]}
    return LearnedFrom(
        **{**values, "part_fingerprints": {"test": "1" * 64}, **changes}, pictures=encoded_pictures(pictures)
    )


def test_the_pictures_that_were_learned_from_come_back_compactly(tmp_path):
    saved = record(learned_from=[learned(), learned(HASHES[4:5], table="other")], unknown_initial_models=["somebody/x"])
    saved.save(tmp_path)
    loaded = TrainingRecord.load(tmp_path)
    assert loaded == saved
    own, other = loaded.learned_from
    assert own.knows([*HASHES, None]) == [True] * 4 + [False] * 3
    assert other.knows(HASHES) == [False] * 4 + [True, False]
    assert own.pictures == encoded_pictures([*HASHES[3::-1], HASHES[0]]), "neither order nor repetitions count"
    assert len(encoded_pictures(hashlib.sha256(bytes(each)).hexdigest() for each in range(1000))) == 8000


def test_a_record_of_the_first_schema_is_read(tmp_path):
    record().save(tmp_path)
    path = tmp_path / "training.json"
    values = json.loads(path.read_text())
    del values["learned_from"], values["unknown_initial_models"]
    path.write_text(json.dumps({**values, "schema": 1}))
    assert TrainingRecord.load(tmp_path).learned_from is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": "abc"}, "hashes of pictures in base64"),
        ({"pictures": "YWJj"}, "hashes of 6 bytes"),
        ({"pictures": 1}, "as 'pictures'"),
        ({"fold": True}, "as 'fold'"),
        ({"more": 1}, "has 'more', which is not known there"),
        ({"part_fingerprints": ["x"]}, "as 'part_fingerprints'"),
        ({"parts": []}, "as 'parts'"),
    ],
)
def test_trainings_that_do_not_fit_are_sentences(tmp_path, changes, message):
    record(learned_from=[learned()]).save(tmp_path)
    path = tmp_path / "training.json"
    values = json.loads(path.read_text())
    values["learned_from"][0].update(changes)
    path.write_text(json.dumps(values))
    with pytest.raises(FmriModelsError, match=f"A training in the record of training .*{message}"):
        TrainingRecord.load(tmp_path)
    for wrong in ([], [3], "x", {"a": 1}, [values["learned_from"][0]] * 100):
        path.write_text(json.dumps({**values, "learned_from": wrong}))
        with pytest.raises(FmriModelsError, match=r"training\.json"):
            TrainingRecord.load(tmp_path)


def test_what_is_not_finite_is_null(tmp_path):
    record(stages=[{"result": float("nan"), "values": [float("inf"), 1.0]}]).save(tmp_path)
    assert "NaN" not in (tmp_path / "training.json").read_text()
    assert TrainingRecord.load(tmp_path).stages == [{"result": None, "values": [None, 1.0]}]


def test_a_folder_without_a_record_has_none(tmp_path):
    assert TrainingRecord.load(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": True}, "has True as 'fold'; expected integer"),
        ({"fold": -1}, "has -1 as 'fold'"),
        ({"train_parts": "train"}, "has 'train' as 'train_parts'"),
        ({"train_parts": []}, "as 'train_parts'"),
        ({"repetitions": "some"}, "'average', 'single' or 'all'"),
        ({"simulated": "yes"}, "has 'yes' as 'simulated'"),
        ({"seconds": -1.0}, "as 'seconds'"),
        ({"stages": {}}, "as 'stages'"),
        ({"more": 1}, "has 'more', which is not known there"),
        ({"schema": RECORD_SCHEMA + 1}, "newer version"),
        ({"hardware": {"device": "cpu", "host": "mine"}}, "'hardware"),
        ({"curve": [{"stage": "a", "step": -1, "train_loss": 1.0, "validation_loss": None}]}, "'curve"),
        ({"curve": [{"stage": "a", "step": 1, "train_loss": float("inf"), "validation_loss": None}]}, "training.json"),
        ({"schema": "1"}, "schema version '1'"),
    ],
)
def test_values_that_do_not_fit_are_sentences(tmp_path, changes, message):
    record().save(tmp_path)
    path = tmp_path / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(FmriModelsError, match=message):
        TrainingRecord.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b"[]", b"{", b"[" * 100_000, b'{"schema": NaN}', b'{"schema": 1}', b'"\\ud800"']
)
def test_files_that_hold_no_record_are_sentences(tmp_path, content):
    (tmp_path / "training.json").write_bytes(content)
    with pytest.raises(FmriModelsError, match=r"training\.json"):
        TrainingRecord.load(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_no_missing_record(tmp_path, make):
    """Without its record, a pipeline could be evaluated on what it was trained on."""
    make(tmp_path / "training.json")
    with pytest.raises(FmriModelsError, match="is a folder|no regular file"):
        TrainingRecord.load(tmp_path)


def test_its_repr_is_short():
    trainings = [learned([hashlib.sha256(bytes(each)).hexdigest() for each in range(500)])] * 3
    shown = repr(record(recipe={str(each): "x" * 1000 for each in range(100)}, learned_from=trainings))
    assert shown.startswith("TrainingRecord(method='linear', table='small', ")
    assert len(shown) < 2000
    assert len(repr(trainings[0])) < 1000
