import re
from dataclasses import fields, replace
from html import unescape

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, RowData, get_protocol, report_pages, score_rows, write_report
from fmri_models.evaluation.page_plots import distribution_figures
from fmri_models.evaluation.protocols import PROTOCOLS, Protocol
from fmri_models.evaluation.report_facts import _ANTIALIAS, _INTERPOLATION, _PROTOCOL_FIELDS, protocol_fields
from fmri_models.evaluation.report_pages import to_html, to_markdown
from fmri_models.evaluation.report_tables import tables
from fmri_models.evaluation.report_terminal import results_table
from fmri_models.evaluation.score_bars import leading_table, score_bar, score_lines
from fmri_models.evaluation.table import Table
from tests.evaluation.toy_report import smooth_pictures

HOSTILE = "# <script>alert(1)</script> [a](http://b) | **c** `d`\n\n# own \x1b[31m"


def test_tables_show_direction_and_missing_values(report):
    table, markdown = results_table(report), to_markdown(report)
    assert "PixCorr ↑" in table
    assert "MSE ↓" in table
    assert "–" in table
    assert "Permutation test" in markdown
    assert "Earlier looks at the test split" in markdown
    assert "simulated" in markdown


def test_a_page_explains_its_metrics_rows_and_networks(report, scores, material, tmp_path):
    networks = {
        "efficientnet_lite0": {
            "sha256": "579344248a93e230", "weights": "known", "file": "model.pth", "layer": "global_pool",
            "preprocessing": "224x224",
        },
        "mine": {"sha256": "", "weights": "unknown weights"},
        "of_earlier_versions": {"sha256": "ab"},
    }  # fmt: skip
    note = "mean_image scores 0.3 in identification_top1."
    changed = replace(report, extractors=networks, notes=[note], warnings=[])
    write_report(tmp_path, changed, scores, material["rows"], material["truth"])
    markdown, html = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    network = (
        "EfficientNet-Lite0 (efficientnet_lite0; model.pth; layer global_pool; 224x224; known weights; "
        "SHA-256 579344248a93e230)"
    )
    for page in (markdown, unescape(html)):
        assert network in page
        assert "mine (unknown weights)" in page and "of_earlier_versions (SHA-256 ab)" in page
        assert "a blurry average does well in PixCorr, SSIM, MSE" in page
        for metric in report.metrics():
            assert metric.description in page.replace("\\", "")
        for row in report.results:
            assert report.row(row)["description"] in page
        # As the tables call them.
        assert "mean image scores 0.3 in top-1 pixels." in page
    assert "- **PixCorr** (`pixcorr`): Pearson correlation" in markdown
    assert '<a href="#notes">' in html and html.index("How to read it") < html.index('id="scores"')
    assert Report.load(tmp_path).notes == [note]


def test_html_escapes_what_users_give(report, scores, material, tmp_path):
    changed = Report(**{**report.__dict__, "data": {"name": "<script>alert(1)</script>"}})
    write_report(tmp_path, changed, scores, material["rows"], material["truth"])
    assert "<script>" not in (tmp_path / "report.html").read_text()


def test_names_are_text_wherever_a_report_is_written(report, scores, material, tmp_path):
    changed = replace(
        report,
        protocol={**report.protocol, "name": HOSTILE, "description": HOSTILE},
        rows={**report.rows, "ridge": {**report.rows["ridge"], "label": HOSTILE, "description": HOSTILE}},
        per_subject={HOSTILE: report.per_subject["subj01"], "subj02": report.per_subject["subj02"]},
        data={"name": HOSTILE, "mean_noise_ceiling": 0.5, "noise_ceiling_source": [HOSTILE]},
        model={"path": HOSTILE},
        versions={"torch": HOSTILE},
        looks=[{"time": HOSTILE, "commit": HOSTILE, "config": {HOSTILE: HOSTILE}, "score": {}}],
        notes=[HOSTILE],
    )
    write_report(tmp_path, changed, scores, material["rows"], material["truth"])
    markdown, html = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for text in (markdown, html, results_table(changed)):
        assert "\x1b" not in text
        assert "\n# own" not in text
    assert "<script>" not in markdown + html
    assert "**c**" not in markdown
    assert not re.search(r"(?<!\\)\]\((?!grid)", markdown)
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("| metric")]
    # The leading rows (brain, ridge, the best control) with chance and a difference, then all of them.
    assert cells == [8, len(report.results) + 3, len(report.comparisons) + 2, 6, 6]
    assert re.findall(r"^#+ .*", markdown, re.MULTILINE)[0].startswith("# Report: protocol \\#")
    read = Report.load(tmp_path)
    assert read.notes == [HOSTILE.replace("\n", "\\n").replace("\x1b", "\\x1b")]
    assert read.to_dict() == changed.to_dict()


def test_a_report_shows_no_python_dictionaries():
    truth = smooth_pictures(4, size=16)
    scores = score_rows({"brain": RowData(truth)}, truth, list("abcd"), get_protocol("small_pictures"), permutations=0)
    model = {"path": "m", "subjects": ["subj01", "subj02"], "transductive": False, "settings": {"strength": 0.8}}
    report = Report.from_scores(scores, get_protocol("small_pictures"), model=model)
    report.looks = [{"time": "t", "config": {"model": "m", "recipe": {"method": "linear", "stages": [{"a": 1}]}}}]
    markdown = to_markdown(report)
    html = unescape(to_html(report))
    for page in (markdown, html):
        assert "{'" not in page and "['" not in page and "None" not in page and "=True" not in page
        assert "recipe linear" in page


def test_every_field_of_a_protocol_has_a_label_and_a_value(report):
    for protocol in PROTOCOLS.values():
        shown = dict(protocol_fields(replace(report, protocol=protocol.to_dict() | {"deviations": ["other pictures"]})))
        names = [_PROTOCOL_FIELDS[each.name][0] for each in fields(Protocol)]
        unneeded = () if protocol.size or protocol.resolution else (_INTERPOLATION, _ANTIALIAS)
        assert set(names) - set(unneeded) <= set(shown)
        assert all(shown.values()) and not any(set("_{[") & set(label) for label in shown)
        values = [value for label, value in shown.items() if label not in ("name", "what it measures", "metrics")]
        assert not any(re.search("None|True|False|[{]|_", value) for value in values), values
    later = replace(report, protocol={"name": "p", "a_new_field": {"x": [1, 2]}})
    assert dict(protocol_fields(later))["a new field"] == "x (1, 2)"
    of_files = replace(report, model={"images": "recon"})
    assert "repetitions of a stimulus" not in dict(protocol_fields(of_files))


def test_the_first_table_has_the_rows_that_matter(report):
    lines = {line.metric.replace("\u00a0", " "): line for line in score_lines(report)}
    assert [cell.column for cell in lines["PixCorr ↑"].cells] == ["from brain", "ridge", "best control"]
    best = {name: line.cells[2].row for name, line in lines.items()}
    for metric in report.metrics():
        values = {row: report.results[row].get(metric.name) for row in ("shuffled_brain", "mean_image")}
        known = {report.row(row)["label"]: each["value"] for row, each in values.items() if each}
        name = f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"
        if known:
            assert best[name] == (max if metric.higher_is_better else min)(known, key=known.get)
    table = leading_table(report)
    columns = ["metric", "chance", "from brain", "ridge", "best control", "brain − best control", "the best control is"]
    assert table.header == columns and all(len(line) == 7 for line in table.lines)


def test_a_longer_bar_is_better_whatever_the_direction():
    def width(bar, name="value"):
        found = re.search(rf'class="{name}" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', bar)
        return float(found[1]), float(found[2])

    worst_first = {0.0: (0, 1), 0.4: (0, 1), 1.0: (0, 1)}
    widths = [width(score_bar(value, None, None, scale))[1] for value, scale in worst_first.items()]
    assert widths == [0, 40, 100]
    # Of an error the left end is the largest.
    assert width(score_bar(0.2, None, None, (1.0, 0.0)))[1] == 80
    left, wide = width(score_bar(0.2, (0.1, 0.3), None, (1.0, 0.0)), "interval")
    assert (left, left + wide) == (70, 90)
    assert "chance" not in score_bar(0.2, None, None, (0, 1)) and "interval" not in score_bar(0.2, None, None, (0, 1))
    # What lies outside stays inside, and nothing is infinite.
    assert width(score_bar(7, None, None, (0, 1)))[1] == 100


def test_training_curves_come_from_the_record_and_go_into_the_file(report, tmp_path):
    curve = [{"stage": "<b>", "step": step, "train_loss": 1 / step, "validation_loss": None} for step in (1, 2, 3)]
    trained = replace(report, training_curve={"0": curve, "1": curve})
    trained.save(tmp_path / "report.json")
    assert Report.load(tmp_path).training_curve == {"0": curve, "1": curve}
    html = to_html(trained)
    assert 'id="training"' in html and "a line a fold" in html and "<b>" not in html.split("<main>")[0]
    assert "Stage &lt;b&gt;" in html
    assert 'id="training"' not in to_html(report) and "training_curve" not in report.to_dict()
    for wrong in ({"a": curve}, {"0": [{"stage": "s", "step": -1}]}, {"0": [{"step": 1}]}):
        replace(report, training_curve=wrong).save(tmp_path / "report.json")
        with pytest.raises(FmriModelsError, match="training_curve"):
            Report.load(tmp_path)


def test_names_with_dollars_are_text_in_plots(report, scores):
    hostile = replace(report, rows={**report.rows, "mean_image": {**report.rows["mean_image"], "label": "$\\frac<i>$"}})
    figures = distribution_figures(hostile, scores)
    assert figures and all("<i>" not in figure.svg for figure in figures)
    assert any("frac&lt;i&gt;$" in figure.svg for figure in figures)
    assert not any("http" in figure.svg or "<style" in figure.svg for figure in figures)


def test_a_table_that_stands_with_others_has_their_heading(report, monkeypatch):
    monkeypatch.setattr(
        report_pages, "tables", lambda report: [*tables(report), Table("T", "c", ["a"], [["b"]], section="S")]
    )
    html = to_html(report)
    assert re.search('<h2 id="(section-[0-9])">S</h2>', html)[1] in html.split("</nav>")[0] and "<h3>T</h3>" in html
    # Behind a fold, and once.
    assert html.count("All rows") == 2 and '<details class="fold"><summary><h3>All rows</h3>' in html
