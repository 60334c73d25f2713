"""The experiment on shared stimuli runs, and its table has all of its figures."""

import json
import sys
from pathlib import Path

import pytest

from scripts import shared_stimuli as script


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SHARES", (1.0, 0.5))
    monkeypatch.setattr(script, "METHODS", ("ridge", "shared_response"))
    monkeypatch.setattr(script, "DRAWS", 2)
    out = str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["shared_stimuli", "--out", out, "--stimuli", "300", "--voxels", "200"])
    script.main()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["shared_stimuli"] == {"1": 30, "0.5": 15}
    assert [len(found) for found in summary["aligned"]["ridge"].values()] == [1, 2]
    assert 0.25 < summary["null"] < 0.75 and summary["own"] > 0.5
    assert "| `shared_response` |" in capsys.readouterr().out
