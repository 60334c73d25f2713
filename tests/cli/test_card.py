"""`fmri-models card` and what it does with the report that lies beside a pipeline."""

import shutil

import pytest

from fmri_models.cli.main import main
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A pipeline whose report was evaluated into its own folder."""
    folder = tmp_path_factory.mktemp("card")
    write_small_table(folder / "table", subjects=("subj07",))
    train(load_recipe("linear", [f"data={folder / 'table'}", f"out={folder / 'pipeline'}", "generator=pixels"]))
    evaluate(folder / "pipeline", folder / "table", folder / "pipeline", protocol="small_pictures", overwrite=True)
    return folder


def test_the_report_beside_a_pipeline_is_used_and_kept(measured, tmp_path, capsys):
    pipeline = tmp_path / "pipeline"
    shutil.copytree(measured / "pipeline", pipeline)
    before = {path: path.read_bytes() for path in pipeline.rglob("*") if path.is_file()}
    assert main(["card", str(pipeline)]) == 0
    assert "nothing was measured" not in capsys.readouterr().out
    assert "nothing was measured" not in (pipeline / "README.md").read_text()
    assert {path: path.read_bytes() for path in before} == before


def test_fitting_the_processor_anew_takes_the_earlier_report_away(measured, tmp_path, capsys):
    pipeline = tmp_path / "pipeline"
    shutil.copytree(measured / "pipeline", pipeline)
    (pipeline / "images" / "holiday.png").write_bytes(b"mine")
    data = str(measured / "table")
    assert main(["fit-processor", str(pipeline), "--data", data, "--statistics", "pooled"]) == 0
    assert "evaluate the model again" in capsys.readouterr().out
    assert not (pipeline / "report.json").exists()
    assert (pipeline / "images" / "holiday.png").read_bytes() == b"mine"
