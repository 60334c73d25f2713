"""The demo as a new user runs it, what it has to show, and the README's Python on what it saved."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# On a slow machine the first test waits for the whole demo.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

# Rows that the brain has to beat, and the metrics that a blurry mean wins by its nature.
CONTROLS = ("shuffled_brain", "permuted_training", "mean_image", "floor")
WON_BY_BLUR = ("pixcorr", "ssim", "mse")
TWO_WAY = "two_way_efficientnet_lite0"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "fmri_models.cli.main", "demo", "--out", "outputs/demo"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert finished.returncode == 0, finished.stderr
    (folder / "stdout.txt").write_text(finished.stdout)
    return folder


@pytest.fixture(scope="module")
def report(workplace):
    return json.loads((workplace / "outputs" / "demo" / "report.json").read_text())


def value(report, row, metric):
    return report["results"][row][metric]["value"]


def test_everything_is_where_the_readme_says(workplace):
    demo = workplace / "outputs" / "demo"
    for name in ("pipeline", "data", "report.json", "report.md", "report.html", "grid.png", "items.parquet", "images"):
        assert (demo / name).exists(), name
    rows = {
        "brain",
        "brain_low_level",
        "brain_embeds_only",
        *CONTROLS,
        "nearest_train",
        "ceiling",
        "ceiling_embeds_only",
    }
    assert {path.name for path in (demo / "images").iterdir()} >= {"truth", "ridge", "noise_free"} | rows
    for name in ("README.md", "training.json", "report.json"):
        assert (demo / "pipeline" / name).is_file(), name
    assert {path.name for path in demo.rglob(".*")} == {".eval_results"}


def test_it_ends_with_a_table_paths_and_next_commands(workplace):
    shown = (workplace / "stdout.txt").read_text()
    assert re.search(r"^metric +chance +brain +ridge +best control +ceiling$", shown, re.MULTILINE)
    assert "outputs/demo/grid.png" in shown
    assert "fmri-models retrieve" in shown
    assert "largest difference: 0 of 255" in shown or "largest difference: 1 of 255" in shown


def test_the_brain_beats_its_controls(report):
    for control in CONTROLS:
        for metric, difference in report["comparisons"][control].items():
            if difference is not None and metric not in WON_BY_BLUR:
                assert difference["ci95"][0] > 0, (control, metric, difference)


def test_permuted_training_is_at_chance(report):
    low, high = report["results"]["permuted_training"]["two_way_efficientnet_lite0"]["ci95"]
    assert low <= 0.5 <= high
    assert 0.48 <= report["permutation"]["two_way_efficientnet_lite0"]["mean"] <= 0.52


def test_the_noise_is_not_easy(report):
    assert report["data"]["simulated"] is True
    assert 0.2 < report["data"]["mean_noise_ceiling"] <= 0.35
    assert report["data"]["test_factor_combinations_seen_in_training"] < 0.5


def test_the_generator_is_no_bottleneck(report):
    assert value(report, "ceiling", TWO_WAY) >= 0.90
    assert value(report, "ceiling_embeds_only", TWO_WAY) >= 0.88


def test_the_brain_is_near_the_ceiling_and_sees_more_than_sky_and_ground(report):
    assert value(report, "brain", TWO_WAY) >= 0.9 * value(report, "ceiling", TWO_WAY)
    assert value(report, "brain", f"{TWO_WAY}_same_background") >= 0.75


def test_diffusion_adds_to_the_low_level_picture(report):
    for metric in (TWO_WAY, "factor_accuracy_kind"):
        assert value(report, "brain", metric) > value(report, "brain_low_level", metric), metric


def test_what_an_object_is_can_be_read(report):
    assert value(report, "brain", "factor_accuracy_kind") >= 0.50
    assert report["comparisons"]["ridge"]["factor_accuracy_kind"]["ci95"][0] > 0


def test_retrieval_is_not_below_ridge(report):
    for metric in ("retrieval_query_brain_top1", "retrieval_query_image_top1"):
        assert value(report, "brain", metric) >= 0.85
        assert report["comparisons"]["ridge"][metric]["ci95"][0] >= -0.05


def test_the_python_of_the_readme_runs_on_it(workplace, repository):
    # The first block is on the example that comes with the package, the second one on what the demo has saved.
    blocks = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)[:2]
    finished = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=workplace,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert finished.returncode == 0, finished.stderr
    saved = [*Path(workplace).glob("*.png"), *(Path(workplace) / "outputs").glob("*.png")]
    assert len(saved) == 2
    assert all(np.asarray(Image.open(each)).std() > 10 for each in saved)
