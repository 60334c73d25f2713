"""Settings: files that say with which options a script reads a data set; those of Faces, from folders to a report."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.published.settings import read_settings
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from fmri_models.registry import DATASETS
from fmri_models.shipped import shipped_folder
from tests.fabricated import faces
from tests.fabricated import nifti as made

pytest.importorskip("nibabel")
pytest.importorskip("nilearn")

SETTINGS = """
title: Our pictures
reads: nifti
license: CC0 1.0
origin: https://example.org/ours
citation: Nobody (2026).
options:
  task: see
  stimuli: "{source}/stimuli"
  betas: lag
  lag: 4
  seed_of_nobody: 1
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faces.write(tmp_path_factory.mktemp("faces"))


def prepared(source: Path, out: Path, name: str = "faces", **options) -> TrialTable:
    load_preparation(name)(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


@pytest.mark.parametrize("path", sorted(shipped_folder("dataset_scripts").glob("*.yaml")), ids=lambda path: path.stem)
def test_settings_that_come_along_fit_their_script(path: Path) -> None:
    settings = read_settings(path)
    record = DATASETS.get(path.stem)
    assert settings.layout_read_in and (record.title, record.license) == (settings.title, settings.license)
    parameters = inspect.signature(load_preparation(path.stem)).parameters
    assert {"source", "out", "overwrite", *settings.options} <= set(parameters)


def test_faces_from_its_folder(source: Path, tmp_path: Path) -> None:
    table = prepared(source, tmp_path / "table")
    assert table.name == "faces" and table.subjects == ["sub-01"] and validate_table(table.path) == []
    trials = table.all_trials("sub-01")
    order = np.argsort(trials.trials)
    # Neither fixations nor imagery nor the localiser are trials.
    files = [Path(file).stem for run in range(4) for _, file, _ in faces.shown(run)]
    assert trials.stimulus_ids[order].tolist() == files
    truth = np.stack([made.beta(trial)[made.chosen()] for trial in range(20)])
    assert np.corrcoef(trials.fmri()[order].ravel(), truth.ravel())[0, 1] > 0.99
    # A face of the test lies in the folder of each run, and is one stimulus that no training trial shows.
    test = table.trials("sub-01", "test")
    assert sorted(set(test.stimulus_ids.tolist())) == sorted(faces.TESTED) and len(test) == 8
    assert trials.sessions[order].tolist() == [1] * 10 + [2] * 10
    assert np.array_equal(table.stimuli.images([faces.TESTED[0]])[0], faces.picture(faces.TESTED[0]))
    record = json.loads((tmp_path / "table" / "table.json").read_text())
    assert "faces.yaml" in json.dumps(record) and "CelebA" in record["license"]
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and terms.name == "faces"


def test_faces_counts_what_the_release_has(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match=r"sub-01 has 20 trials, and not 10,272"):
        prepared(source, tmp_path / "table", incomplete=False)
    assert not (tmp_path / "table").exists()


def test_faces_to_a_report(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    options = ["incomplete=yes", "size=8", "repetitions=average_test", "betas=lag"]
    command = ["prepare", "faces", "--source", str(source), "--out", str(tmp_path / "table")]
    assert main([*command, *(part for each in options for part in ("--option", each))]) == 0
    capsys.readouterr()
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == len(faces.TESTED)


def test_a_file_of_one_s_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bids = tmp_path / "bids"
    made.write_fmriprep(bids)
    made.write_pictures(bids / "stimuli")
    file = tmp_path / "ours.yaml"
    file.write_text(SETTINGS.replace("  seed_of_nobody: 1\n", ""))
    assert main(["prepare", str(file), "--source", str(bids), "--out", str(tmp_path / "table")]) == 0
    table = TrialTable.open(tmp_path / "table")
    assert table.name == "ours" and "from 4 s after the onset" in table.metadata["description"]
    # What the command says counts more than the file.
    again = ["--option", "lag=6", "--name", "later"]
    assert main(["prepare", str(file), "--source", str(bids), "--out", str(tmp_path / "later"), *again]) == 0
    later = TrialTable.open(tmp_path / "later")
    assert later.name == "later" and "from 6 s after the onset" in later.metadata["description"]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text, r"the option 'seed_of_nobody'; nifti has kind, events"),
        (lambda text: text.replace("  seed_of_nobody: 1", "  lagg: 1"), "Did you mean 'lag'"),
        (lambda text: text.replace("  seed_of_nobody: 1", "  high_pass: often"), "high_pass in ours.yaml"),
        (lambda text: text.replace("  seed_of_nobody: 1", "  seed: 3"), "the option 'seed'"),
        (lambda text: text.replace("reads: nifti", "reads: niftii"), "Did you mean 'nifti'"),
        (lambda text: text.replace("reads: nifti", "reads: digits69"), "expected a data set that a script reads"),
        (lambda text: text.replace("title: Our pictures", ""), "title"),
        (lambda text: text + "lag: 3\n", "say 'lag'; they have title"),
        (lambda text: "- one\n", "hold no mapping"),
        (lambda text: "title: [\n", "is no valid YAML|no valid YAML"),
    ],
)
def test_bad_settings_are_a_sentence(tmp_path: Path, change, message: str) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(change(SETTINGS))
    with pytest.raises(FmriModelsError, match=message) as caught:
        load_preparation(str(file))
    assert "\n" not in str(caught.value)


def test_test_types_that_no_event_has(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match=r"no .*test_faces|No event has the trial_type test_faces"):
        prepared(source, tmp_path / "table", test_types=["test_faces"])
