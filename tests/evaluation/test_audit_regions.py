"""Regions silenced and alone: on a brain of which it is known what each region holds."""

import copy
import json

import numpy as np
import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.audit import PARTS
from fmri_models.evaluation.audit.regions import MOST_REGIONS, NO_REGION, OTHER_REGIONS, _regions
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report import Report
from fmri_models.evaluation.report_pages import to_html, to_markdown
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.evaluation.damaged_audit import check_damaged
from tests.evaluation.regional_table import Region, write_regional_table

REGIONS = PARTS["regions"]
# Which holds all, nothing, and all in voxels without a label.
HOLDS_ALL, NOISE, UNLABELLED = Region("V1", 30, 16), Region("FFA", 60, 0), Region("", 10, 0)
METRIC = "pairwise_pixcorr"


def audited(folder, data, *options):
    overrides = [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]", *options]
    train(load_recipe("linear", overrides))
    return evaluate(folder / "model", data, folder / "report", "small_pictures", rows=["floor"], audit=["regions"])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    subjects = {"subj01": [HOLDS_ALL, NOISE, UNLABELLED], "subj02": [Region("V1", 36, 16), Region("V2", 20, 0)]}
    return audited(folder, write_regional_table(folder / "data", subjects))


def region(report, name):
    return next(each for each in report.audit["regions"]["regions"] if each["name"] == name)


def test_the_region_that_holds_what_was_shown_is_missed_and_is_enough(report):
    found = region(report, "V1")
    assert found["loss"][METRIC]["ci95"][0] > 0.3
    assert found["more_than_random"][METRIC]["ci95"][0] > 0
    assert found["silenced"][METRIC]["value"] == pytest.approx(0.5, abs=0.15)
    assert found["alone"][METRIC]["value"] == pytest.approx(report.results["brain"][METRIC]["value"], abs=0.1)
    assert found["alone_more_than_random"][METRIC]["ci95"][0] > 0
    assert found["voxels"] == {"subj01": 30, "subj02": 36}


def test_the_region_of_noise_is_not_missed_though_it_is_larger(report):
    found = region(report, "FFA")
    assert abs(found["loss"][METRIC]["difference"]) < 0.05
    assert found["more_than_random"][METRIC]["difference"] < 0
    assert found["alone"][METRIC]["value"] == pytest.approx(0.5, abs=0.15)
    # Of the subject that has it alone.
    assert found["voxels"] == {"subj01": 60}
    assert (found["loss"][METRIC]["n"], found["loss"][METRIC]["stimuli"]) == (30, 30)
    assert region(report, "V1")["loss"][METRIC]["n"] == 60


def test_figures_of_a_subject_that_lacks_a_region_are_not_mixed_with_it(report):
    """V2 is of the second subject: its intact score is that of this one."""
    found = region(report, "V2")
    own = report.per_subject["subj02"]["brain"][METRIC]["value"]
    assert found["silenced"][METRIC]["value"] + found["loss"][METRIC]["difference"] == pytest.approx(own)


def test_what_is_said(report):
    notes = [note for note in report.notes if note.startswith("Regions")]
    assert "falls beyond doubt when one of these is silenced (4 looks" in notes[0] and ": V1 (+" in notes[0]
    assert any("V1 matters more than as many random voxels" in note for note in notes)
    assert any("have no label" in note for note in notes)
    assert any("not all subjects have" in note and "FFA" in note for note in notes)
    first, others = REGIONS.tables(report.audit["regions"])
    assert {len(line) for line in first.lines} == {len(first.header)}
    assert {len(line) for line in others.lines} == {len(others.header)}
    assert [line[0] for line in first.lines] == ["V1", "FFA", "V2", NO_REGION]
    assert "do not overlap" in first.caption and "mean response of training" in first.caption
    assert "## Regions" in to_markdown(report)
    pytest.importorskip("matplotlib")
    assert "as many random voxels" in to_html(report, None)


def test_it_is_read_again_and_refused_where_it_was_tampered_with(report, tmp_path):
    assert Report.load(report.folder).audit == report.audit
    content = json.loads((report.folder / "report.json").read_text())
    for change in (
        lambda audit: audit.update(regions=[]),
        lambda audit: audit["regions"][0]["voxels"].update(subj99=3),
        lambda audit: audit["regions"][0]["loss"][METRIC].update(difference="much"),
        lambda audit: audit["regions"][0].pop("alone"),
    ):
        changed = copy.deepcopy(content)
        change(changed["audit"]["regions"])
        (tmp_path / "report.json").write_text(json.dumps(changed))
        with pytest.raises(FmriModelsError, match="an audit says of regions"):
            Report.load(tmp_path)


def test_damaged_files_are_refused_or_shown(report):
    pytest.importorskip("matplotlib")
    shown, refused = check_damaged("regions", report.audit["regions"])
    assert shown > 2 and refused > 5


@pytest.mark.parametrize(
    ("regions", "said"),
    [([Region("", 40, 16)], "in which region"), ([Region("V1", 40, 16)], "are of one region .V1., and nothing")],
)
def test_where_there_are_no_regions_to_compare_that_is_said(tmp_path, regions, said):
    data = write_regional_table(tmp_path / "data", {"subj01": regions}, parts={"train": 30, "test": 6})
    report = audited(tmp_path, data)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(report.audit["regions"]["not_defined"])
    assert any(note.startswith("Regions: ") for note in report.notes)


def test_regions_that_are_pooled_or_left_out_are_silenced_before_that(tmp_path):
    subjects = {"subj01": [HOLDS_ALL, Region("V2", 30, 0), Region("V3", 20, 0)]}
    data = write_regional_table(tmp_path / "data", subjects)
    report = audited(tmp_path, data, "processor.statistics=pooled", "processor.rois=[V1,V2]", "processor.pool_width=60")
    assert [each["name"] for each in report.audit["regions"]["regions"]] == ["V1", "V2"]
    assert report.audit["regions"]["voxels"] == {"subj01": 60}
    assert region(report, "V1")["loss"][METRIC]["ci95"][0] > 0.3
    assert abs(region(report, "V2")["loss"][METRIC]["difference"]) < 0.05


def test_the_smallest_of_many_regions_are_one():
    labels = np.array([name for number in range(12) for name in [f"R{number}"] * (number + 1)] + [""] * 3, dtype=object)
    read = np.ones(len(labels), bool)
    read[-4] = False
    found = _regions(labels, read)
    assert len(found) == MOST_REGIONS and list(found)[-2:] == [OTHER_REGIONS, NO_REGION]
    assert sum(each.sum() for each in found.values()) == read.sum()
    assert not any((each & ~read).any() for each in found.values())
    assert found["R11"].sum() == 11


def test_of_several_pictures_of_each_response_both_parts_are_those_of_all(tmp_path, monkeypatch):
    subjects = {"subj01": [HOLDS_ALL, Region("V2", 30, 0)]}
    data = write_regional_table(tmp_path / "data", subjects, parts={"train": 40, "test": 8})
    overrides = [f"data={data}", f"out={tmp_path / 'model'}", "generator=pixels", "targets=[latents]"]
    train(load_recipe("linear", overrides))
    # Pixels draw the same of each, and are asked for one.
    monkeypatch.setattr("fmri_models.evaluation.evaluate.Evaluation._samples", lambda *arguments: 2)
    parts = ["bottleneck", "regions"]
    report = evaluate(tmp_path / "model", data, tmp_path / "r", "small_pictures", rows=["floor"], audit=parts)
    loss = region(report, "V1")["loss"][METRIC]
    assert (loss["n"], loss["stimuli"]) == (16, 8)
    one = report.audit["bottleneck"]["results"]["1"][METRIC]
    assert (one["n"], one["stimuli"]) == (16, 8)
