"""The log of looks at a test split."""

import json
import multiprocessing
import os
import resource
import signal
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


@pytest.mark.parametrize("inside", ["", "tables/small"])
def test_looks_at_a_table_of_the_hub_are_kept_out_of_the_hubs_cache(tmp_path, monkeypatch, inside):
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))
    commits = [tmp_path / "hub" / "datasets--tester--small" / "snapshots" / name / inside for name in ("a1", "b2")]
    for commit in commits:
        commit.mkdir(parents=True)
        looks.check_log(commit)
        assert record_look(commit, "f", "default/test", {}, {}) == tmp_path / "cache" / "evaluations.jsonl"
    assert not list((tmp_path / "hub").rglob("*.jsonl"))
    # Whatever becomes of that cache, and whichever commit holds the same table.
    assert len(read_looks(commits[0], "f")) == 2
    monkeypatch.setattr(looks, "_append", lambda path, line: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(FmriModelsError, match="can't be written to .*cache.evaluations.jsonl .*make it writable"):
        record_look(commits[0], "f", "default/test", {}, {})


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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "is no record of an evaluation"),
        ('{"fingerprint": 3}', "has 3 as 'fingerprint'; expected string"),
        ('{"score": {"mse": true}}', "has True as 'score.mse'"),
        ('{"score": {"mse": NaN}}', "NaN is no number"),
        ('{"config": []}', "has \\[\\] as 'config'"),
        ('{"time": "a\\u001b[31m"}', "one line"),
        ("[" * 200_000, "nested too deep"),
        ('{"a": "', "no readable JSON"),
    ],
)
def test_a_damaged_line_is_named_before_an_evaluation_and_after(table, line, message):
    log = table.parent / "evaluations.jsonl"
    record_look(table, "f", "default/test", {}, {"mse": 0.5})
    log.write_text(log.read_text() + line + "\n")
    for call in (lambda: read_looks(table, "f"), lambda: looks.check_log(table)):
        with pytest.raises(FmriModelsError, match=f"Line 2 of .*{message}.*; repair or remove that line"):
            call()
    assert log.read_text().splitlines()[1] == line


def test_what_is_no_log_is_a_sentence(table):
    log = table.parent / "evaluations.jsonl"
    os.mkfifo(log)
    with pytest.raises(FmriModelsError, match="no regular file"):
        looks.check_log(table)
    log.unlink()
    log.write_bytes(b"\xff\xfe")
    with pytest.raises(FmriModelsError, match="no text in UTF-8"):
        looks.check_log(table)
    with log.open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(FmriModelsError, match="bytes; expected"):
        looks.check_log(table)


def test_a_line_without_its_end_swallows_no_other(table):
    log = table.parent / "evaluations.jsonl"
    log.write_text(json.dumps({"fingerprint": "f"}))
    record_look(table, "f", "default/test", {}, {})
    assert len(read_looks(table, "f")) == 2


def test_text_of_a_look_is_one_line_and_its_numbers_are_finite(table):
    record_look(table, "f", "default/test", {"model": "a\nb\u2028c"}, {"mse": float("nan")})
    [look] = read_looks(table, "f")
    assert look["config"] == {"model": "a\\nb\\u2028c"}
    assert look["score"] == {"mse": None}


def test_a_full_disk_leaves_no_part_of_a_line(table):
    log = table.parent / "evaluations.jsonl"
    record_look(table, "f", "default/test", {}, {})
    before = log.read_bytes()
    # What a disk that becomes full takes of a line: the beginning.
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limit[1]))
        with pytest.raises(OSError, match="No space|too large"):
            looks._append(log, "x" * 1000 + "\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.read_bytes() == before


def test_evaluations_at_the_same_time_lose_no_line(table):
    fork = multiprocessing.get_context("fork")
    config = {"recipe": "x" * 20_000}
    processes = [
        fork.Process(target=lambda: [record_look(table, "f", "s", config, {}) for _ in range(5)]) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_looks(table, "f", "s")) == 20


def test_an_unwritable_log_is_found_before_the_evaluation(table, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    looks.check_log(table)
    assert not (table.parent / "evaluations.jsonl").exists()
    monkeypatch.setattr(looks, "_try_appending", refuse)
    with pytest.raises(FmriModelsError, match="neither to"):
        looks.check_log(table)
