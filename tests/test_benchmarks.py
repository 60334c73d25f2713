"""Benchmarks of methods run at tiny sizes; their figures are no subject of tests."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.new_process import python


@pytest.mark.slow
def test_mindvis(repository: Path, tmp_path: Path):
    out = tmp_path / "mindvis.json"
    command = [*python(), str(repository / "benchmarks/mindvis.py"), "--quick", "--rows", "pretraining"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run(
        [*command, "--out", str(out)], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "pretraining tiny" in finished.stdout
    assert "no original" in finished.stdout
    (row,) = json.loads(out.read_text())["rows"]
    assert set(row["sides"]) == {"ours"}
    assert row["sides"]["ours"]["seconds"] > 0
    assert row["floor_seconds"] > 0


@pytest.mark.slow
def test_mindbridge(repository: Path, tmp_path: Path):
    out = tmp_path / "mindbridge.json"
    command = [*python(), str(repository / "benchmarks/mindbridge.py"), "--quick", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert set(row["sides"]) == {"ours"} and row["difference"] is None
    assert row["sides"]["ours"]["seconds"] > 0 and row["floor_seconds"] > 0


@pytest.mark.slow
def test_mindvis_says_where_the_original_is_from(repository: Path, tmp_path: Path):
    command = [*python(), str(repository / "benchmarks/mindvis.py"), "--original", str(tmp_path)]
    finished = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert "git clone https://github.com/zjc062/mind-vis" in finished.stderr


@pytest.mark.slow
def test_evaluation(repository: Path, tmp_path: Path):
    out = tmp_path / "evaluation.json"
    command = [*python(), str(repository / "benchmarks/evaluation.py"), "--quick", "--out", str(out), "--repeats", "1"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    written = json.loads(out.read_text())
    assert written["two_way_identification"]["fmri_models"]["largest_difference"] == 0
    assert written["n_way_accuracy"]["fmri_models, the loop's draws"]["largest_difference"] <= 1e-6


@pytest.mark.slow
def test_trial_table(repository: Path, tmp_path: Path):
    out = tmp_path / "trial_table.json"
    sides = ["fmri_models", "webdataset", "hdf5 float16", "hdf5 uint8", "hdf5 in memory"]
    command = [*python(), str(repository / "benchmarks/trial_table.py"), "--quick", "--workers", "0", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run(
        [*command, "--sides", *sides], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "| hdf5 in memory | 0 | warm |" in finished.stdout and "conversion: a session of NSD" in finished.stdout
    written = json.loads(out.read_text())
    assert [row["side"] for row in written["batches"]] == sides
    assert all(row["trials_per_s"] > 0 and row["peak_mib"] > 0 and row["disk_bytes"] > 0 for row in written["batches"])
    assert written["conversion"]["trials"] == 750 and written["conversion"]["mb_per_s"] > 0
    assert len(written["betas"]["rows_per_s"]) == 2
