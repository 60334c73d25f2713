"""Experiments measure each cell once, and their tables say mean and spread."""

import json
from pathlib import Path

import pytest

LEVELS = [{"way": "a", "share": 0.1, "seed": seed} for seed in range(2)]


@pytest.fixture
def cells(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "experiments"))
    import cells

    return cells


def test_a_cell_is_measured_once_and_kept(cells, tmp_path):
    kept = cells._kept(LEVELS[0], recorded, tmp_path)
    cells._measure((LEVELS[0], recorded, tmp_path, kept, 1))
    first = json.loads(kept.read_text())
    assert first["value"] == 1 and first["way"] == "a" and first["seconds"] >= 0
    assert cells.measured([LEVELS[0]], recorded, tmp_path) == [first]
    assert (tmp_path / "calls").read_text() == "x"
    assert list((tmp_path / "cells").iterdir()) == [kept]
    # Another level is another cell.
    assert cells._kept({**LEVELS[0], "seed": 7}, recorded, tmp_path) != kept


def recorded(levels, out: Path):
    with (out / "calls").open("a") as file:
        file.write("x")
    return {"value": 1.0}


def test_a_table_has_mean_and_spread_over_seeds(cells):
    results = [{**level, "value": value} for level, value in zip(LEVELS, (0.2, 0.4), strict=True)]
    table = cells.markdown_table(results, "way", "share", "value", "a metric")
    assert table.splitlines()[-1] == "| a | 0.300 ± 0.141 |"
    assert cells.mean_and_spread([0.5]) == "0.500"


def test_every_quoted_result_belongs_to_a_script(repository):
    folder = repository / "experiments"
    for file in (folder / "results").glob("*.json"):
        content = json.loads(file.read_text())
        assert (folder / f"{file.stem}.py").is_file()
        assert content["command"].startswith(f"python experiments/{file.stem}.py")
        assert content["cells"] and not any(cell.get("small") for cell in content["cells"])
        assert file.with_suffix(".md").is_file()
