"""`fmri-models compare`: what it prints, and what it refuses of reports and items."""

import csv
import hashlib
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
from fmri_models.names import latex

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


def test_differences_are_tested_and_corrected_for_their_number(folder, capsys):
    status, out, _ = compared(folder, capsys)
    assert status == 0
    assert re.search(r"metric +difference +95 % interval +p +p \(Holm\) +n", out)
    result = json.loads(compared(folder, capsys, "--json")[1])
    found = result["differences_from_first"]["bad"]
    p = [each["p"] for each in found.values() if each["p"] is not None]
    # Differences that are the same for all stimuli have neither interval nor p.
    assert all((each["p"] is None) == (each["ci95"] is None) == (each["p_holm"] is None) for each in found.values())
    assert len(p) >= 4
    # 12 stimuli have 4096 signs, and the least p is that of two of them.
    assert found["mse"]["p"] == 2 / 4096 and found["mse"]["difference"] < 0
    tested = [each for each in found.values() if each["p"] is not None]
    assert all(each["p"] <= each["p_holm"] <= min(1, each["p"] * len(p) + 1e-12) for each in tested)
    assert found["mse"]["p_holm"] == pytest.approx(2 / 4096 * len(p))


def test_reports_are_described_below(folder, capsys):
    out = compared(folder, capsys)[1]
    assert re.search(r"protocol +small_pictures +small_pictures", out)
    assert re.search(r"test set +12 pictures +12 pictures", out)


def test_other_protocols_stand_beside_each_other_only_where_somebody_says_so(folder, capsys):
    change(folder, protocol__name="mindeye-982", protocol__size=256)
    status, _, err = compared(folder, capsys)
    assert status == 1
    assert "the protocol's name 'mindeye-982'" in err and "pass --across-protocols" in err
    for option in ("--across-protocols", "--force"):
        status, out, _ = compared(folder, capsys, option)
        assert status == 0
        assert out.count("Not comparable: ") == 2 and "against good" not in out
    change(folder, data__fingerprint="g")
    assert compared(folder, capsys, "--across-protocols")[0] == 1
    assert compared(folder, capsys, "--force")[0] == 0


@pytest.mark.parametrize("values", [
    {"data__split": "other", "data__folds": [0]},
    {"data__split": "default", "data__folds": [1]},
    {"data__split": "default", "data__folds": [0], "data__test_fingerprints": {"0": "b"}},
])  # fmt: skip
def test_other_test_splits_are_refused(folder, capsys, values):
    about = {"split": "default", "folds": [0], "test_items": 12, "test_trials": 12}
    if "data__test_fingerprints" in values:
        about["test_fingerprints"] = {"0": "a"}
    path = folder / "bad" / "report.json"
    content = json.loads(path.read_text())
    content["data"] |= about
    path.write_text(json.dumps(content))
    change(folder, **{f"data__{name}": value for name, value in about.items()})
    assert compared(folder, capsys)[0] == 0
    change(folder, **values)
    for option in ((), ("--across-protocols",)):
        status, _, err = compared(folder, capsys, *option)
        assert status == 1 and "have different test splits" in err and "--force" in err


def test_the_same_test_trials_under_another_name_of_the_split_are_compared(folder, capsys):
    for name in ("good", "bad"):
        path = folder / name / "report.json"
        content = json.loads(path.read_text())
        content["data"] |= {"split": name, "folds": [0], "test_items": 12, "test_trials": 12}
        content["data"]["test_fingerprints"] = {"0": "a"}
        path.write_text(json.dumps(content))
    status, out, _ = compared(folder, capsys)
    assert status == 0 and "bad against good" in out


def test_subjects_and_their_mean(folder, capsys):
    of_subjects = {
        name: {"brain": {"mse": {"value": value, "n": 6}, "ssim": {"value": 0.1, "n": 6} if value == 0.5 else None}}
        for name, value in (("subj01", 0.25), ("subj02", 0.5))
    }
    change(folder, per_subject=of_subjects)
    out = compared(folder, capsys)[1]
    line = next(line for line in out.splitlines() if line.startswith("metric") and "good: subj01" in line)
    assert "good: mean of 2" in line
    after = out[out.index(line) :].splitlines()
    assert next(each.split()[1:4] for each in after if each.startswith("MSE")) == ["0.250", "0.500", "0.375"]
    assert next(each.split()[1:4] for each in after if each.startswith("SSIM ")) == ["–", "0.100", "–"]


def table_cells(line):
    return re.split(r"(?<!\\)&", line.removesuffix(r"\\"))


HOSTILE = (
    r"=cmd|'/C calc'!A0 \input{/etc/passwd} $x$ 50% a&b #1 x_y ^ ~ ` "
    '"<script>alert(1)</script> [a](b) | 中 ↑'
)


def hostile(folder):
    """A report in which every text that a comparison shows is hostile, and so is its folder."""
    change(
        folder, warnings=[HOSTILE], notes=[HOSTILE], protocol__description=HOSTILE, protocol__name=HOSTILE,
        protocol__deviations=[HOSTILE], per_subject={HOSTILE: {"brain": {"mse": {"value": 0.2, "n": 3}}}, "b": {}},
    )  # fmt: skip
    place = folder / "=a_b%&$#{x} [1] 中"
    (folder / "good").rename(place)
    return [(path, Report.load(path)) for path in (place, folder / "bad")]


def test_latex_is_what_compiles_whatever_the_names_are(folder):
    text = compare(hostile(folder), across_protocols=True, format="latex")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\caption{") == 3
    # Of commands there are ours alone.
    ours = {
        "begin", "end", "centering", "caption", "label", "hline", "textbackslash", "textasciicircum", "textasciitilde",
        "textless", "textgreater", "textbar", "char", "textasciigrave", "textquotesingle", "uparrow",
        "downarrow", "texttt", "pm", "ldots", "surd",
    }  # fmt: skip
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= ours
    assert not re.search(r"(?<!\\)[%#~^\"`]", text) and "input{" not in text.replace(r"input\{", "")
    assert not re.search(r"(?<!\\)_", text)
    assert text.isascii() or not re.search("[^\x00-\u017f]", text)
    for block in text.split(r"\begin{tabular}")[1:]:
        columns = re.match(r"\{(l)(r+)\}", block)
        lines = [line for line in block.split(r"\end{tabular}")[0].splitlines() if line.endswith(r"\\")]
        assert {len(table_cells(line)) for line in lines} == {1 + len(columns[2])}
        assert all(line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}") for line in lines)


def test_latex_has_no_letter_that_its_own_fonts_lack():
    """Without a package of fonts (OT1) LaTeX refuses guillemets, an ogonek and letters such as eth."""
    assert latex("Zürich Łódź ćş Œ") == "Zürich Łódź ćş Œ"
    assert latex("«ąðđŋ»") == "".join(rf"\texttt{{U+{ord(letter):04X}}}" for letter in "«ąðđŋ»")
    assert latex('"') == r"\texttt{\char34}"


def test_markdown_shows_names_as_they_are(folder):
    text = compare(hostile(folder), across_protocols=True, format="markdown")
    assert "<script>" not in text and "](b)" not in text.replace("\\]", "")
    for block in re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert text.startswith("Not comparable: ")


def test_csv_is_one_table_in_which_nothing_is_a_formula(folder):
    plain = compare([(path, Report.load(path)) for path in (folder / "good", folder / "bad")], format="csv")
    lines = list(csv.DictReader(plain.splitlines()))
    of_bad = {line["metric"]: line for line in lines if (line["report"], line["row"]) == ("bad", "brain")}
    report = Report.load(folder / "bad")
    assert float(of_bad["mse"]["value"]) == report.results["brain"]["mse"]["value"]
    assert [float(of_bad["mse"][side]) for side in ("low", "high")] == report.results["brain"]["mse"]["ci95"]
    assert float(of_bad["mse"]["p"]) == 2 / 4096 and float(of_bad["mse"]["difference"]) < 0
    assert all(line["p"] == "" for line in lines if line["report"] == "good")
    text = compare(hostile(folder), across_protocols=True, format="csv")
    found = list(csv.reader(text.splitlines()))
    assert {len(line) for line in found} == {len(found[0])}
    assert not any(cell.startswith(("=", "@", "+")) for line in found for cell in line)


def test_formats_have_the_same_figures(folder, capsys):
    status, markdown, _ = compared(folder, capsys, "--format", "markdown")
    assert status == 0 and "## bad against good on the same stimuli" in markdown
    latex = compared(folder, capsys, "--format", "latex")[1]
    value = f"{Report.load(folder / 'good').results['brain']['mse']['value']:.3f}"
    assert value in markdown and value in latex
    with pytest.raises(SystemExit):
        compared(folder, capsys, "--format", "word")


@pytest.mark.parametrize(("change_of", "differing"), [
    ({"sha256": "1" * 64}, "weights"),
    ({"layer": "other"}, "layer"),
    ({"preprocessing": "256"}, "preprocessing"),
    ({"sha256": "1" * 64, "layer": "other"}, "weights and layer"),
    # Another file with the published weights.
    ({"sha256": "1" * 64, "weights": "known"}, None),
])  # fmt: skip
def test_metrics_of_other_networks_are_not_compared(folder, capsys, change_of, differing):
    """A metric is called as its network is, whatever weights that was given."""
    described = {"sha256": "0" * 64, "weights": "known", "layer": "pool", "preprocessing": "224"}
    weights = change_of.get("weights", "unknown weights") if "sha256" in change_of else "known"
    for name, network in (("good", described), ("bad", described | change_of | {"weights": weights})):
        path = folder / name / "report.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"extractors": {"alexnet2": network}}))
    status, out, err = compared(folder, capsys)
    if differing is None:
        assert status == 0 and "against good on the same stimuli" in out
        return
    assert status == 1 and f"different networks (alexnet2: other {differing})" in err
    status, out, _ = compared(folder, capsys, "--across-protocols")
    assert status == 0 and "Not comparable: " in out and "against good" not in out


def test_figures_of_whole_sets_have_no_p(folder, capsys):
    """Stimuli of a fold have its Fréchet distance, and not each its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("good", "bad"):
        path = folder / name / "items.parquet"
        items = pq.read_table(path)
        values = items["value"].to_pylist()
        of_mse = [metric == "mse" for metric in items["metric"].to_pylist()]
        values = [
            (10.0 if name == "good" else 12.0 + (stimulus > "s05")) if is_mse else value
            for value, is_mse, stimulus in zip(values, of_mse, items["stimulus_id"].to_pylist(), strict=True)
        ]
        metrics = ["fid_mine" if is_mse else m for m, is_mse in zip(items["metric"].to_pylist(), of_mse, strict=True)]
        items = items.set_column(1, "metric", pa.array(metrics)).set_column(5, "value", pa.array(values))
        pq.write_table(items, path)
        report = folder / name / "report.json"
        content = json.loads(report.read_text().replace('"mse"', '"fid_mine"'))
        report.write_text(json.dumps(content | {"items_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    status, out, _ = compared(folder, capsys, "--format", "csv")
    assert status == 0
    of_bad = [each for each in csv.DictReader(out.splitlines()) if (each["report"], each["row"]) == ("bad", "brain")]
    (line,) = (each for each in of_bad if each["metric"] == "fid_mine")
    assert line["difference"] == "-2.5" and line["p"] == line["p_holm"] == line["difference_low"] == ""
