"""Reports of recipes on simulated scenes are kept under the recipe's name."""

from pathlib import Path

import pytest

from fmri_models.evaluation.report import Report
from fmri_models.simulation import simulate
from scripts import measure_scene_recipes, write_results


@pytest.mark.slow
def test_a_recipe_is_trained_once_and_its_report_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_results, "KEPT", tmp_path / "kept")
    sizes = {"num_voxels": 60, "num_train": 60, "num_validation": 6, "num_test": 6, "repetitions": 1}
    monkeypatch.setattr(measure_scene_recipes, "simulate_table", lambda out: simulate("builtin:scenes", out, **sizes))
    measure_scene_recipes.main(["unibrain_scenes", "--work", str(tmp_path / "work")])
    kept = Report.load(tmp_path / "kept" / "unibrain_scenes.json")
    assert (kept.model["path"], kept.data["test_items"]) == ("unibrain_scenes", 6)
    assert {"brain", *measure_scene_recipes.ROWS} <= set(kept.results)
    trained = (tmp_path / "work/unibrain_scenes/training.json").stat().st_mtime_ns
    measure_scene_recipes.measure("unibrain_scenes", tmp_path / "work")
    assert (tmp_path / "work/unibrain_scenes/training.json").stat().st_mtime_ns == trained
