"""Natural Object Dataset, from a folder in the published layout to a table and a report."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import nod as made

pytest.importorskip("nibabel")


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("nod")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


def named(line: str) -> str:
    stem = line.rpartition("/")[2].partition(".")[0]
    return f"coco_{stem}" if stem.isdecimal() else stem


def test_every_beta_is_where_it_belongs(tmp_path: Path) -> None:
    table = prepared(made.write(tmp_path / "nod", (1, 12)), tmp_path / "table")
    assert table.subjects == ["sub-01", "sub-12"] and validate_table(table.path) == []
    for subject in table.subjects:
        number = int(subject[-2:])
        runs = [(session, run + 1) for session, count in made.RUNS.items() for run in range(count)]
        runs = [each for each in runs if each[0] != "coco" or number < 10]
        trials = table.all_trials(subject)
        order = np.argsort(trials.trials)
        assert np.allclose(
            trials.fmri()[order], np.concatenate([made.betas(number, *each) for each in runs]), atol=0.05
        )
        shown = [named(line) for each in runs for line in made.pictures(number, *each)]
        assert trials.stimulus_ids[order].tolist() == shown
        sessions = {"imagenet01": 1, "imagenet02": 2, "coco": 5}
        assert trials.sessions[order].tolist() == [sessions[s] for s, r in runs for _ in made.pictures(number, s, r)]
        tested = table.trials(subject, "test").stimulus_ids.tolist()
        assert set(tested) == (set(map(named, made.COCO)) if number < 10 else set())
    assert table.voxels("sub-01").roi == ["CORTEX_LEFT"] * 4 + ["CORTEX_RIGHT"] * 3
    assert np.array_equal(table.stimuli.images([named(made.COCO[0])])[0], made.picture(made.COCO[0]))
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.stimuli) == ("nod", "forbidden")


def test_of_subjects_without_coco_a_test_is_drawn(tmp_path: Path) -> None:
    table = prepared(made.write(tmp_path / "nod", (12,)), tmp_path / "table")
    assert len(table.trials("sub-12", "test")) and "coco" not in " ".join(table.stimuli.ids)


def results(folder: Path, name: str, ending: str) -> Path:
    return folder / "derivatives" / "ciftify" / "sub-01" / "results" / name / f"{name}_{ending}"


FIRST = "ses-imagenet01_task-imagenet_run-1"


def other_vertices(folder: Path) -> None:
    from nibabel.cifti2 import BrainModelAxis, ScalarAxis

    name = "ses-imagenet01_task-imagenet_run-2"
    axis = BrainModelAxis.from_surface(np.arange(made.WIDTH), 20, name="cortex_left")
    maps = ScalarAxis([str(place) for place in range(made.MAPS)])
    made._save(results(folder, name, "beta.dscalar.nii"), made.betas(1, "imagenet01", 2), maps, axis)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: None, {"subjects": ["sub-02"]}, "has sub-01; give the folder of OpenNeuro ds004496"),
        (lambda folder: None, {"incomplete": False}, "has 18 trials, and not 5,200"),
        (lambda folder: results(folder, FIRST, "beta.dscalar.nii").unlink(), {}, "is missing; get the betas"),
        (lambda folder: results(folder, FIRST, "label.txt").unlink(), {}, "label.txt"),
        (
            lambda folder: results(folder, FIRST, "label.txt").write_text("a\nb\nc\nd\n"),
            {},
            "such as 'a' for the 4 maps",
        ),
        (lambda folder: results(folder, FIRST, "label.txt").write_text("000000124419.jpg"), {}, "names 1 pictures for"),
        (lambda folder: results(folder, FIRST, "beta.dscalar.nii").write_bytes(b"no"), {}, "no CIFTI file"),
        (other_vertices, {}, "has other vertices"),
        (lambda folder: next(folder.rglob("*.JPEG")).unlink(), {"incomplete": False}, "1 of 15 pictures are missing"),
    ],
)
def test_other_files_are_a_sentence_and_no_table(tmp_path: Path, change, options, message: str) -> None:
    folder = made.write(tmp_path / "nod")
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def test_to_a_report(tmp_path: Path) -> None:
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    prepared(made.write(tmp_path / "nod"), tmp_path / "table", repetitions="average_test")
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == len(made.COCO)
