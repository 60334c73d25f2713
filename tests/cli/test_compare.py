"""`fmri-models compare`: what it prints, and what it refuses of reports and items."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch

from fmri_models.cli.compare import compare
from fmri_models.cli.main import main
from fmri_models.evaluation import Report, RowData, get_protocol, score_rows, write_report

PROTOCOL = get_protocol("small_pictures")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    truth = torch.rand(12, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    for name, noise in (("good", 0.3), ("bad", 0.7)):
        recon = (1 - noise) * truth + noise * torch.rand(truth.shape, generator=torch.Generator().manual_seed(1))
        rows = {"brain": RowData(recon), "ridge": RowData(recon.flip(3))}
        scores = score_rows(rows, truth, [f"s{index:02d}" for index in range(12)], PROTOCOL, permutations=5)
        data = {"name": "toy", "fingerprint": "f"}
        write_report(folder / name, Report.from_scores(scores, PROTOCOL, data=data, draws=50), scores, rows, truth)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    for name in ("good", "bad"):
        shutil.copytree(written / name, tmp_path / name, ignore=shutil.ignore_patterns("images"))
    return tmp_path


def compared(folder, capsys, *options):
    capsys.readouterr()
    status = main(["compare", str(folder / "good"), str(folder / "bad" / "report.json"), *options])
    out, err = capsys.readouterr()
    assert "unexpected" not in err
    assert "Traceback" not in err
    return status, out, err


def change(folder, **values):
    """Puts values in places of a report, such as `results__brain__mse__n=0`."""
    path = folder / "good" / "report.json"
    content = json.loads(path.read_text())
    for place, value in values.items():
        *parents, last = place.split("__")
        part = content
        for parent in parents:
            part = part[parent]
        part[last] = value
    path.write_text(json.dumps(content))


def test_reports_stand_side_by_side(folder, capsys):
    status, out, _ = compared(folder, capsys)
    assert status == 0
    assert "good (ridge)" in out
    assert "bad against good on the same stimuli" in out


def test_chance_stands_beside_the_scores(folder, capsys):
    _, out, _ = compared(folder, capsys)
    header, _, *lines = out.splitlines()
    assert header.split()[:2] == ["metric", "chance"]
    assert any(re.match(r"two-way pixels ↑ +0\.500 ", line) for line in lines)
    assert any(re.match(r"top-1 pixels ↑ +0\.083 ", line) for line in lines)


def test_few_stimuli_have_no_interval(tmp_path, capsys):
    truth = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    for name, noise in (("good", 0.3), ("bad", 0.7)):
        rows = {"brain": RowData((1 - noise) * truth + noise * truth.flip(3))}
        scores = score_rows(rows, truth, list("abcd"), PROTOCOL, permutations=5)
        report = Report.from_scores(scores, PROTOCOL, data={"name": "toy", "fingerprint": "f"})
        write_report(tmp_path / name, report, scores, rows, truth)
    status, out, _ = compared(tmp_path, capsys)
    assert status == 0
    assert "[" not in out
    assert "fewer than 5 stimuli have no interval" in out


def test_items_that_a_report_does_not_name_are_said_to_be_unverified(folder, capsys):
    assert "can't be verified" not in compared(folder, capsys)[1]
    change(folder, items_sha256=None)
    status, out, _ = compared(folder, capsys)
    assert status == 0
    assert out.count("can't be verified") == 1
    assert "good was written by an earlier version" in out
    (folder / "good" / "items.parquet").unlink()
    assert "can't be verified" not in compared(folder, capsys)[1]


def test_reports_of_earlier_versions_are_read(folder, capsys):
    for name in ("good", "bad"):
        path = folder / name / "report.json"
        content = json.loads(path.read_text())
        # What the format had from its beginning.
        kept = ("schema", "protocol", "results", "permutation", "per_subject", "data", "model", "versions", "seed")
        path.write_text(json.dumps({key: content[key] for key in kept} | {"of_a_later_version": [1]}))
    status, out, _ = compared(folder, capsys)
    assert status == 0
    assert "bad against good" in out


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("results__brain__mse__value", True, "True as 'results.brain.mse.value'; expected number"),
        ("results__brain__mse__value", "0.5", "'0.5' as 'results.brain.mse.value'; expected number"),
        ("results__brain__mse__value", float("nan"), "NaN is no number of JSON"),
        ("results__brain__mse__value", 10**400, "results.brain.mse.value|no readable JSON|number"),
        ("results__brain__mse__value", 1e300, "less than or equal to"),
        ("results__brain__mse__value", None, "None as 'results.brain.mse.value'"),
        ("results__brain__mse__ci95", [0.1], "at least 2 items"),
        ("results__brain__mse__ci95", [0.1, 0.2, 0.3], "at most 2 items"),
        ("results__brain__mse__ci95", [0.9, 0.1], "a lower bound that is not above the upper one"),
        ("results__brain__mse__ci95", 0.5, "0.5 as 'results.brain.mse.ci95'; expected list"),
        ("results__brain__mse__ci95", [0.1, True], "True as 'results.brain.mse.ci95.1'"),
        ("results__brain__mse__n", 0, "0 as 'results.brain.mse.n'; expected greater than or equal to 1"),
        ("results__brain__mse__n", 1.5, "1.5 as 'results.brain.mse.n'"),
        ("results__brain__mse", [], "[] as 'results.brain.mse'"),
        ("results__brain", [], "[] as 'results.brain'; expected dictionary"),
        ("results__brain__niceness", None, "'niceness' as 'results.brain.niceness"),
        ("results__bra\nin", {}, "one line"),
        ("protocol__metrics", False, "False as 'protocol.metrics'; expected list"),
        ("protocol__name", ["a"], "as 'protocol.name'; expected string"),
        ("protocol__pool_size", "x", "as 'protocol.pool_size'"),
        ("rows__brain__label", "a\nb", "one line"),
        ("rows__brain__kind", "friend", "as 'rows.brain.kind'"),
        ("data__fingerprint", {}, "as 'data.fingerprint'; expected string"),
        ("data", {"split": "default"}, "expected folds, test_items and test_trials"),
        ("items_sha256", "x", "as 'items_sha256'"),
        ("notes", ["\x1b[31m"], "one line"),
        ("looks", [{"score": {"mse": "x"}}], "as 'looks.0.score.mse'"),
        ("results", 3, "no results"),
        ("schema", 99, "newer version"),
    ],
)
def test_a_report_is_read_against_its_schema(folder, capsys, place, value, message):
    change(folder, **{place: value})
    status, out, err = compared(folder, capsys, "--force")
    assert (status, out) == (1, "")
    assert re.search(message if "|" in message else re.escape(message), err)
    assert "report.json" in err


def test_what_is_no_report_is_a_sentence(folder, capsys):
    path = folder / "good" / "report.json"
    for content in (b"", b"[1]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000, b"\0" * 100, b"{}" * 2):
        path.write_bytes(content)
        assert compared(folder, capsys)[0] == 1
    path.unlink()
    assert "no report" in compared(folder, capsys)[2]
    os.mkfifo(path)
    assert "no regular file" in compared(folder, capsys)[2]
    path.unlink()
    path.symlink_to(path)
    assert "lead in a circle" in compared(folder, capsys)[2]
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**31)
    assert "bytes; expected" in compared(folder, capsys)[2]


def test_items_of_another_evaluation_and_broken_ones_are_sentences(folder, capsys):
    shutil.copy(folder / "bad" / "items.parquet", folder / "good")
    assert "is of another evaluation than the report.json beside it" in compared(folder, capsys)[2]
    data = (folder / "good" / "items.parquet").read_bytes()
    (folder / "good" / "items.parquet").write_bytes(data[:1000])
    assert "can't be read" in compared(folder, capsys)[2]
    (folder / "good" / "items.parquet").unlink()
    status, out, _ = compared(folder, capsys)
    assert status == 0
    assert "no paired difference" in out


def test_folders_are_one_line_on_the_terminal(folder):
    name = "a\x1b[31m\nred"
    (folder / "good").rename(folder / name)
    out = compare([(path, Report.load(path)) for path in (folder / name, folder / "bad")])
    assert "\x1b" not in out
    assert "a\\x1b[31m\\nred" in out


@pytest.mark.parametrize("changes", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_no_mutation_ends_in_anything_else(folder, capsys, changes):
    """Changed values, of which none may print NaN or end in an error that is not a sentence."""
    path = folder / "good" / "report.json"
    original = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    values = (None, True, -1, 2**70, 1e308, "", "x", [], [1], {}, {"value": 1}, [[]], "1_0", [0.2, 0.1])
    for _ in range(changes):
        content = json.loads(json.dumps(original))
        part, key = content, "results"
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if not isinstance(part[key], (dict, list)) or rng.random() < 0.1:
                part[key] = values[rng.integers(len(values))]
                break
            part = part[key]
        path.write_text(json.dumps(content))
        status, out, err = compared(folder, capsys, "--force")
        assert status == 0 or err.startswith("fmri-models: error: ")
        assert "nan" not in out


def test_what_was_learned_from_is_marked_wherever_figures_stand(folder, capsys):
    assert "(!)" not in compared(folder, capsys)[1]
    sentence = "The model has learned from 3 of these 12 pictures."
    change(folder, warnings=[sentence], notes=[sentence])
    status, out, _ = compared(folder, capsys)
    assert status == 0
    first, second, *_ = out.splitlines()
    assert (first, second) == ("good (!)", f"Not known to be figures of new pictures: {sentence}")
    assert "good (!) (ridge)" in out and "bad against good (!)" in out


def test_stimuli_of_one_picture_are_one_in_paired_differences(folder, capsys):
    before = compared(folder, capsys)[1]
    change(folder, same_pictures=[[f"s{index:02d}" for index in range(9)]])
    status, out, _ = compared(folder, capsys)
    assert status == 0
    assert "have no interval" not in before and "fewer than 5 stimuli have no interval" in out
