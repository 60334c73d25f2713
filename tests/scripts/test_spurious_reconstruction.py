"""The demonstration of spurious reconstruction: its page has the figures of its run, and it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import spurious_reconstruction as script


def test_the_page_has_the_stored_figures():
    summary = json.loads(script.FIGURES.read_text(encoding="utf-8"))
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.with_table(page, summary) == page
    assert script.PLOT.is_file()


def test_the_page_says_no_more_than_the_figures():
    found = json.loads(script.FIGURES.read_text(encoding="utf-8"))["reports"]
    clustered, new, _ = found.values()
    # What the page calls beyond doubt, and what not.
    assert clustered["rows"]["brain"]["ci95"][0] > 0.5 and clustered["p"] < 0.01
    assert clustered["rows"]["nearest_train"]["ci95"][1] > clustered["rows"]["brain"]["value"]
    assert clustered["within"]["ci95"][0] < 0.5 < clustered["across"]["ci95"][0] and new["across"]["ci95"][1] < 0.5
    assert new["rows"]["brain"]["value"] < 0.5 and new["gap"]["ci95"][0] > 0
    assert clustered["farther"]["ci95"][0] < 0.5 < clustered["farther"]["ci95"][1] and new["farther"]["value"] == 1
    assert clustered["shares"]["1"]["value"] > 0.5 and clustered["shares"]["5"]["value"] > 0.9
    assert new["outside"]["ci95"][0] > 1.5 * clustered["outside"]["ci95"][1]


@pytest.mark.slow
def test_a_small_run(tmp_path: Path):
    command = [sys.executable, script.__file__, "--out", str(tmp_path / "out"), "--steps", "1", "--pictures", "120"]
    finished = subprocess.run([*command, "--voxels", "80"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "new clusters: two_way" in finished.stdout and (tmp_path / "out" / "spurious.png").is_file()
    figures = json.loads((tmp_path / "out" / "summary.json").read_text())["reports"]
    assert set(figures) == {"clustered", "new clusters", "diverse"} and figures["new clusters"]["gap"]
