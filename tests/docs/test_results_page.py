"""Files of results, and the tables of figures on pages, are what reports say; others are marked."""

import csv
import json
import re
from pathlib import Path

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.report import Report
from scripts import write_results as script

ROOT = script.ROOT
# As tables of figures have them: at least this many numbers such as .83 or 0.863.
FIGURE, FEWEST = re.compile(r"(?<!\d)0?\.\d{2,3}\b"), 12
MARKS = re.compile(
    r"<!-- (results: \w+|figures by hand: their reports are not kept"
    r"|figures of ((?:experiments/)?results/\w+\.json)) -->"
)
# Defaults of options, or speed and memory, which no report has.
NO_SCORES = ("| key | default |", "| | clock", "| what |", "| step |")


def test_nothing_is_stale():
    assert script.stale() == [], "run: python scripts/write_results.py"
    assert script.main(["--check"]) == 0


def test_every_line_is_a_figure_of_its_report():
    reports = {name: Report.load(path) for name, path in script.reports().items()}
    assert {"mindeye-scenes", "linear-scenes", "digits69_linear", "digits69_linear_folds"} <= set(reports)
    count = 0
    for path in sorted(script.RESULTS.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                report = reports[line["report"]]
                own = report.per_subject.get(line["subject"], {}) if len(report.per_subject) > 1 else {}
                found = (own or report.results)[line["row"]][line["metric"]]
                assert float(line["value"]) == found["value"]
                assert [line["ci95_low"], line["ci95_high"]] == [repr(end) for end in found.get("ci95") or []] or (
                    not found.get("ci95") and line["ci95_low"] == line["ci95_high"] == ""
                )
                assert int(line["n"]) == found["n"]
                assert (line["simulated"] == "yes") == report.data["simulated"]
                assert path.stem == line["data"] == report.data["name"]
                count += 1
    tables = [each.results for each in reports.values()]
    tables += [own for each in reports.values() if len(each.per_subject) > 1 for own in each.per_subject.values()]
    assert count == sum(bool(it) for rows in tables for row in rows.values() for it in row.values())


def test_tables_of_figures_are_made_of_reports_or_marked():
    pages = [ROOT / "README.md", *(ROOT / name for name in ("docs/photos.md", "docs/examples.md", "docs/results.md"))]
    for page in [*pages, *sorted((ROOT / "docs" / "methods").glob("*.md"))]:
        lines = page.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if not line.startswith("|") or lines[number - 1].startswith("|") or line.startswith(NO_SCORES):
                continue
            table = []
            for each in lines[number:]:
                if not each.startswith("|"):
                    break
                table.append(each)
            if sum(len(FIGURE.findall(each)) for each in table) < FEWEST or "CPU" in line or "MiB |" in line[-8:]:
                continue
            mark = MARKS.fullmatch(lines[number - 2])
            assert mark, f"{page.name}, line {number + 1}: of which report are these figures?"
            assert mark[2] is None or (ROOT / mark[2]).is_file()


def test_pages_with_figures_by_hand_are_listed():
    listed = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("## Tables whose reports are not kept")[1]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        by_hand = script.BY_HAND in page.read_text(encoding="utf-8").splitlines()
        name = page.relative_to(ROOT / "docs").as_posix() if page.is_relative_to(ROOT / "docs") else page.name
        assert by_hand == (f"({name})" in listed.split("Tables of many")[0] or f"| {name} |" in listed), name


def test_markers_name_the_tables_that_there_are():
    names = [
        name for page in script.PAGES for name in re.findall(r"<!-- results: (\w+) -->", (ROOT / page).read_text())
    ]
    assert sorted(names) == sorted(script.TABLES)


# ----------------------------------------------------------------------------------------------------------- published


def test_published_figures_were_read_at_their_source():
    content = json.loads(script.PUBLISHED.read_text(encoding="utf-8"))
    for row in content["rows"]:
        assert re.match(r"paper: arXiv|notebook |comments in \w+\.py", row["source"])
        assert row["test_pictures"] in (982, 1000) and row["sessions"] in (1, 37, 40)
        assert row["repetitions"] and row["subjects"] and len(row["values"]) == len(content["columns"])
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert "None of ours stands beside them" in page
    assert not re.search(r"memory;|secondhand", page)


def test_published_figures_are_those_of_the_collection(test_data):
    """Each value is the collection's, and its rows from memory or third parties are not there."""
    specification = test_data / "specs" / "published_nsd_tables.json"
    if not specification.is_file():
        pytest.skip("The collection is not there.")
    known = json.loads(specification.read_text(encoding="utf-8"))
    rows = json.loads(script.PUBLISHED.read_text(encoding="utf-8"))["rows"]
    tables = {row["table"] for row in rows}
    unread = {
        name for name, it in known.items() if isinstance(it, dict) and re.match("memory|secondhand", it["source"])
    }
    assert tables == {name for name, it in known.items() if isinstance(it, dict)} - unread
    for name in tables:
        table = known[name]
        found = [row["values"] for row in rows if row["table"] == name]
        if "fwd" in table:
            by_subject = table["fwd"] if isinstance(table["fwd"], dict) else {"": table["fwd"]}
            back = table["bwd"] if isinstance(table["bwd"], dict) else {"": table["bwd"]}
            assert [values[8:] for values in found] == [[by_subject[it], back[it]] for it in by_subject]
        else:
            assert sorted(map(str, found)) == sorted(str(it) for key, it in table.items() if key != "source")


# ------------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A copy of what the script reads and writes."""
    import shutil

    shutil.copytree(script.RESULTS, tmp_path / "results")
    for name in (*script.PAGES, "README.md", "docs/methods/mindvis.md", "docs/methods/mindeye.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in script.EXAMPLES.glob("*/report.json"):
        place = tmp_path / folder.relative_to(ROOT)
        place.parent.mkdir(parents=True)
        shutil.copy(folder, place)
    for name in ("ROOT", "RESULTS", "KEPT", "PUBLISHED", "EXAMPLES"):
        monkeypatch.setattr(script, name, tmp_path / getattr(script, name).relative_to(ROOT))
    return tmp_path


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_what_somebody_typed_is_found_and_written_anew(elsewhere, capsys):
    assert script.main(["--check"]) == 0
    changed(elsewhere / "docs" / "methods" / "linear.md", "| .791 |", "| .891 |")
    changed(elsewhere / "results" / "digits69.csv", "0.7,", "0.9,")
    (elsewhere / "results" / "other.csv").write_text("a\n")
    assert script.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "docs/methods/linear.md is not what the reports say. Run: python scripts/write_results.py" in said
    assert "results/digits69.csv is not" in said and "results/other.csv is of no report" in said
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    changed(elsewhere / "README.md", "| ridge regression to pixels | .791 |", "| ridge regression to pixels | .799 |")
    assert script.main(["--check"]) == 1
    assert "README.md does not have the line '| ridge regression to pixels | .791" in capsys.readouterr().err


def test_a_report_is_added_as_it_was_written(elsewhere):
    source = elsewhere / "given.json"
    content = json.loads((script.KEPT / "digits69_linear.json").read_text(encoding="utf-8"))
    content["seed"], content["data"]["name"] = 7, "=cmd()|other data"
    source.write_text(json.dumps(content))
    assert script.main(["--add", str(source), "mine"]) == 0
    assert json.loads((script.KEPT / "mine.json").read_text(encoding="utf-8")) == content
    with (script.RESULTS / "_cmd_other_data.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["seed"] for line in lines} == {"7"} and lines[0]["data"].startswith("'=")
    assert script.main(["--check"]) == 0


def test_two_reports_of_the_same_are_refused(elsewhere):
    with pytest.raises(SystemExit, match="digits69_linear and twice have the same method, pipeline, data"):
        script.main(["--add", str(script.KEPT / "digits69_linear.json"), "twice"])


def test_what_is_no_report_is_not_added(elsewhere):
    with pytest.raises(FmriModelsError, match="is JSON, but not a report"):
        script.main(["--add", str(script.PUBLISHED), "mine"])
    with pytest.raises(FmriModelsError, match="name of a report"):
        script.main(["--add", str(script.KEPT / "digits69_linear.json"), "../mine"])
    with pytest.raises(SystemExit, match="is an example of the package"):
        script.main(["--add", str(script.KEPT / "digits69_linear.json"), "linear-scenes"])
