"""The log of looks at a test split."""

import json
import os
import subprocess

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import looks, read_looks, record_look


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tables" / "toy"
    folder.mkdir(parents=True)
    return folder


def test_all_looks_are_kept_in_order_and_by_split(table):
    path = record_look(table, "f1", "default/test", {"model": "a"}, {"pixcorr": 0.5}, report="out")
    record_look(table, "f1", "default/test", {"model": "b"}, {"pixcorr": None})
    record_look(table, "f1", "kfold/0", {}, {})
    record_look(table, "f2", "default/test", {}, {})
    assert path == table.parent / "evaluations.jsonl"
    found = read_looks(table, "f1", "default/test")
    assert [look["config"]["model"] for look in found] == ["a", "b"]
    assert found[0]["report"] == "out"
    assert {"time", "commit", "fingerprint", "split", "config", "score"} <= found[0].keys()
    assert len(read_looks(table, "f1")) == 3
    assert read_looks(table, "unknown") == []


def test_the_log_outlives_the_table(table):
    record_look(table, "f", "default/test", {}, {})
    table.rmdir()
    assert len(read_looks(table, "f")) == 1


def test_a_read_only_place_is_logged_in_the_cache(table, monkeypatch, tmp_path):
    append = looks._append

    def refuse_beside(path, line):
        if path.parent == table.parent:
            raise PermissionError("read-only")
        append(path, line)

    monkeypatch.setattr(looks, "_append", refuse_beside)
    path = record_look(table, "f", "default/test", {}, {})
    assert path.is_relative_to(tmp_path / "cache")
    assert len(read_looks(table, "f", "default/test")) == 1


def test_nowhere_to_write_and_broken_lines_are_sentences(table, monkeypatch):
    (table.parent / "evaluations.jsonl").write_text(json.dumps({"fingerprint": "f"}) + "\n\nnot json\n")
    with pytest.raises(FmriModelsError, match="Line 3 of"):
        read_looks(table, "f")

    def refuse(path, line):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(looks, "_append", refuse)
    with pytest.raises(FmriModelsError, match="neither to"):
        record_look(table, "f", "default/test", {}, {})


def test_commit_only_of_a_checkout_of_this_package(monkeypatch, tmp_path):
    package = tmp_path / "site" / "looks.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(looks, "__file__", str(package))
    assert looks.current_commit() is None
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    options = ["-c", "user.name=a", "-c", "user.email=a@b"]

    def git(*arguments):
        subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True, env=environment)

    git("init")
    git("commit", "--allow-empty", "-m", "first")
    assert looks.current_commit() is None
    git("add", "site/looks.py")
    git("commit", "-m", "second")
    assert len(looks.current_commit()) == 40
    package.write_text("changed")
    assert looks.current_commit().endswith("-dirty")
