"""`fmri-models evaluate`: what is refused before the work, what stays, and models by their name on the Hub."""

import json
import os
import re
import shutil
import subprocess

import pytest

from fmri_models.cli.main import main
from fmri_models.evaluation import Protocol, Report
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.evaluated_pipelines import evaluated_pipelines
from tests.new_process import python
from tests.small_table import write_small_table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    data = write_small_table(folder / "data", subjects=("subj07",))
    assert main(["train", "linear", f"data={data}", f"out={folder / 'model'}", "generator=pixels"]) == 0
    return folder


def run(workplace, capsys, out, *options, model=None, data=None):
    capsys.readouterr()
    command = ["evaluate", "--model", model or workplace / "model", "--data", data or workplace / "data", "--out", out]
    status = main([str(part) for part in (*command, "--protocol", "small_pictures", *options)])
    err = capsys.readouterr().err.strip().splitlines()
    return status, err[-1] if err else ""


def test_settings_without_an_effect_are_warned_of_and_not_in_the_report(workplace, capsys, tmp_path):
    command = ["evaluate", "--model", workplace / "model", "--data", workplace / "data", "--out", tmp_path / "out"]
    options = ["--protocol", "small_pictures", "--candidates", "8", "--steps", "3", "--guidance-scale", "7"]
    assert main([str(part) for part in (*command, *options)]) == 0
    lines = capsys.readouterr().err.splitlines()
    start = "fmri-models: warning: num_inference_steps, guidance_scale, num_candidates have no effect"
    assert len([line for line in lines if line.startswith(start)]) == 1
    settings = Report.load(tmp_path / "out").model["settings"]
    assert set(settings) == {"strength", "seed", "precision"}
    assert "num_candidates" not in (tmp_path / "out" / "report.md").read_text()


@pytest.fixture
def no_work(monkeypatch):
    """Fails where a pipeline would be loaded."""

    def load(*arguments, **options):
        raise AssertionError("the work had begun")

    monkeypatch.setattr("fmri_models.pipeline_fmri.FmriToImagePipeline.from_pretrained", load)


def test_outputs_and_logs_that_cannot_be_written_are_met_before_the_work(workplace, capsys, tmp_path, no_work):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("somebody's")
    assert "not empty" in run(workplace, capsys, tmp_path / "out")[1]
    assert "is a file" in run(workplace, capsys, tmp_path / "out" / "notes.txt", "--overwrite")[1]
    (tmp_path / "out" / "images").write_text("somebody's")
    assert "images is no folder of its own" in run(workplace, capsys, tmp_path / "out", "--overwrite")[1]
    assert "is too long" in run(workplace, capsys, tmp_path / ("x" * 300))[1]
    assert "notes.txt is a file" in run(workplace, capsys, tmp_path / "out" / "notes.txt" / "below")[1]
    shutil.copytree(workplace / "data", tmp_path / "data")
    (tmp_path / "evaluations.jsonl").write_text("[]\n")
    assert "Line 1 of" in run(workplace, capsys, tmp_path / "new", data=tmp_path / "data")[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "evaluations.jsonl", "out"]


@pytest.mark.slow
def test_a_report_may_lie_beside_the_pipeline_and_the_table_that_it_is_of(workplace, capsys, tmp_path):
    for name in ("model", "data"):
        shutil.copytree(workplace / name, tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in (tmp_path, tmp_path / "model"):
        status, _ = run(workplace, capsys, out, "--overwrite", model=tmp_path / "model", data=tmp_path / "data")
        assert status == 0
        assert Report.load(out).results["brain"]
    assert {path: path.read_bytes() for path in before} == before
    assert len((tmp_path / "evaluations.jsonl").read_text().splitlines()) == 2


def test_a_disk_that_becomes_full_changes_nothing(workplace, capsys, tmp_path, monkeypatch):
    assert run(workplace, capsys, tmp_path / "out")[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fmri_models.evaluation.report_folder.to_html", full)
    assert "disk is full" in run(workplace, capsys, tmp_path / "out", "--overwrite", "--seed", "1")[1]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_names_on_the_hub_are_told_from_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [each.source for each in evaluated_pipelines("user/name")] == ["user/name"]
    (tmp_path / "user" / "name").mkdir(parents=True)
    (tmp_path / "user" / "name" / "model_index.json").write_text("{}")
    assert [str(each.source) for each in evaluated_pipelines("user/name")] == ["user/name"]
    assert not isinstance(evaluated_pipelines("user/name")[0].source, str)


_FROM_THE_HUB = """
import json, sys
from fmri_models import FmriToImagePipeline
from fmri_models.cli.main import main
model, data, other, out = sys.argv[1:]
FmriToImagePipeline.from_pretrained(model).push_to_hub("tester/small")
command = ["evaluate", "--protocol", "small_pictures", "--model", "tester/small"]
print(json.dumps([
    main([*command, "--data", data, "--out", f"{out}/report"]),
    main([*command, "--data", data, "--out", f"{out}/beside", "--reference", "tester/small"]),
    main([*command, "--data", other, "--out", f"{out}/refused"]),
]))
"""


@pytest.mark.slow
def test_a_model_by_its_name_on_the_hub_keeps_to_the_test_trials_of_its_training(workplace, tmp_path, repository):
    pytest.importorskip("starlette")
    from tests.hub.loopback_hub import running

    other = write_small_table(tmp_path / "other", subjects=("subj07",), noise=2.0)
    with running(tmp_path / "server") as url:
        environment = {
            **os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1",
        }  # fmt: skip
        folders = [str(path) for path in (workplace / "model", workplace / "data", other, tmp_path)]
        command = [*python(), "-c", _FROM_THE_HUB, *folders]
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 1], done.stderr[-3000:]
    assert "was trained on the table 'small' with another content" in done.stderr
    report = Report.load(tmp_path / "report")
    assert report.model["path"] == "tester/small"
    assert report.model["method"] == "linear"
    assert "reference" in Report.load(tmp_path / "beside").results
    assert not (tmp_path / "refused").exists()


def test_a_protocol_of_ones_own_measures_a_model(workplace, tmp_path):
    mine = Protocol("mine", "Squared error alone.", ("mse",))
    report = evaluate(workplace / "model", workplace / "data", tmp_path / "out", mine, rows=["mean_image"])
    assert list(report.results["brain"]) == ["mse"] and report.protocol_title == "mine"


def test_the_help_names_the_protocols_and_begins_with_folders_of_pictures(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = capsys.readouterr().out
    assert "protocols: standard, small_pictures, mindeye-982," in told
    assert told.index("--images my_reconstructions --truth shown") < told.index("--model outputs/linear")


def test_every_drawn_row_is_counted_and_the_precision_is_said(workplace, capsys, tmp_path):
    command = ["evaluate", "--model", workplace / "model", "--data", workplace / "data", "--out", tmp_path / "out"]
    assert main([str(part) for part in (*command, "--protocol", "small_pictures", "--precision", "bfloat16")]) == 0
    written = capsys.readouterr()
    rows = re.findall(r"Drawing row (\d+) of (\d+) drawn rows, [^:]*: (\d+)/\3 pictures in", written.err)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert {int(of) for _, of, _ in rows} == {len(rows)}
    assert written.err.count("Pictures are drawn in bfloat16 here") == 1
    assert max(map(len, written.out.splitlines()[:-1])) <= 80
    assert "permuted_training" not in written.out


def test_help_names_the_parts_of_an_audit():
    from fmri_models.cli.evaluate import _AUDIT_PARTS
    from fmri_models.evaluation.audit import PARTS

    assert tuple(PARTS) == _AUDIT_PARTS
