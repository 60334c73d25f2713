import re
from dataclasses import replace
from html import unescape

from fmri_models.evaluation import Report, RowData, get_protocol, score_rows, write_report
from fmri_models.evaluation.report_pages import to_markdown
from fmri_models.evaluation.report_terminal import results_table
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
    network = "efficientnet_lite0 (model.pth; layer global_pool; 224x224; known weights; SHA-256 579344248a93e230)"
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
    assert cells == [len(report.results) + 3, len(report.comparisons) + 2, 6, 6]
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
    assert "{'" not in markdown and "['" not in markdown
    assert "recipe linear" in markdown
