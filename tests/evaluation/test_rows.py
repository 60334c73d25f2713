"""The table of rows: an entry of it is all that a control takes."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report_terminal import results_table
from fmri_models.evaluation.row_data import RowData
from fmri_models.evaluation.rows import ROWS, Row, get_row, grid_rows
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import PARTS, write_small_table


def shown_on_the_page(repository):
    page = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "row = Row(" in code), names)
    return names["row"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, repository):
    """An evaluation, and one to which an author has added controls: the page's, another, and one that is missing."""
    folder = tmp_path_factory.mktemp("rows")
    data = write_small_table(folder / "data", subjects=("subj02",))
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]"]))
    evaluate(folder / "model", data, folder / "before", "small_pictures")
    grey = Row(
        "grey",
        "control",
        "all grey",
        "One grey for every picture.",
        draw=lambda of: RowData(images=of.as_drawn(np.full((len(of), *of.truth.shape[-2:], 1), 128, dtype=np.uint8))),
        by_generator=False,
        uses_test_images=True,
        grid_place=65,
    )
    never = Row(
        "never",
        "control",
        "never",
        "None.",
        draw=lambda of: of.rows["brain"],
        missing=lambda of: f"{of.subject} has no such thing.",
    )
    with pytest.MonkeyPatch.context() as patch:
        for row in (grey, shown_on_the_page(repository), never):
            patch.setitem(ROWS, row.name, row)
        report = evaluate(folder / "model", data, folder / "after", "small_pictures")
        table = results_table(report, all_rows=True, width=200)
    return folder, report, table


def test_a_control_of_ones_own_is_in_report_json(evaluated):
    folder, report, _ = evaluated
    content = json.loads((folder / "after" / "report.json").read_text())
    assert list(content["results"])[-2:] == ["grey", "half_response"]
    assert content["results"]["grey"]["mse"]["n"] == PARTS["test"]
    assert content["results"]["half_response"]["pixcorr"]["value"] > 0.5
    assert content["rows"]["grey"] == {
        "kind": "control",
        "label": "all grey",
        "description": "One grey for every picture.",
        "uses_test_images": True,
    }
    assert "uses_test_images" not in content["rows"]["half_response"]
    assert report.comparisons["grey"]["pairwise_pixcorr"]["difference"] > 0
    before = json.loads((folder / "before" / "report.json").read_text())
    assert before["results"].items() <= content["results"].items()


def test_it_is_in_the_tables_and_pages(evaluated):
    folder, _, table = evaluated
    for text in (table, *((folder / "after" / name).read_text() for name in ("report.md", "report.html"))):
        assert "all grey" in text and "half the response" in text


def test_it_is_in_the_grid_where_its_entry_says(evaluated):
    folder, report, _ = evaluated
    before, after = (Image.open(folder / name / "grid.png") for name in ("before", "after"))
    # One row more: the grey one.
    assert after.height > before.height and after.width == before.width
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ROWS, "grey", Row("grey", "control", "all grey", "", grid_place=65))
        shown = grid_rows(report.results, "mindeye")
    assert shown[shown.index("grey") - 1 : shown.index("grey") + 2] == ["nearest_train", "grey", "shuffled_brain"]


def test_it_has_its_pictures(evaluated):
    folder, _, _ = evaluated
    for name in ("grey", "half_response"):
        assert len(list((folder / "after" / "images" / name).glob("*.png"))) == PARTS["test"]
    grey = next((folder / "after" / "images" / "grey").glob("*.png"))
    assert set(np.asarray(Image.open(grey)).ravel()) == {128}


def test_a_row_that_there_is_not_has_its_reason_in_the_notes(evaluated):
    _, report, _ = evaluated
    assert "never" not in report.results
    assert "subj02 has no such thing." in report.notes


def test_chosen_rows_are_drawn_alone_and_the_report_says_so(evaluated):
    folder, _, _ = evaluated
    report = evaluate(
        folder / "model", folder / "data", folder / "chosen", "small_pictures", rows=["floor", "shuffled_brain"]
    )
    assert list(report.results) == ["brain", "shuffled_brain", "floor"]
    assert "chose its rows" in report.missing_rows["mean_image"]
    everything = json.loads((folder / "before" / "report.json").read_text())
    assert report.results["floor"] == everything["results"]["floor"]


def test_an_unknown_row_is_refused_with_the_nearest(evaluated):
    folder, _, _ = evaluated
    with pytest.raises(FmriModelsError, match="no row 'flor'.*Did you mean 'floor'"):
        evaluate(folder / "model", folder / "data", folder / "unknown", "small_pictures", rows=["flor"])


def test_the_grid_shows_the_pictures_of_a_method_once():
    names = ["brain", "ridge", "floor", "shuffled_brain", "permuted_training", "a_callers"]
    assert grid_rows(names, "mindeye") == ["brain", "ridge", "shuffled_brain", "floor"]
    assert grid_rows(names, "linear") == ["brain", "shuffled_brain", "floor"]


def test_rows_of_callers_are_references():
    row = get_row("reference_of_somebody")
    assert (row.role, row.label, row.draw) == ("reference", "reference of somebody", None)


def test_every_entry_is_named_as_in_the_table_and_can_be_drawn():
    for name, row in ROWS.items():
        assert row.name == name and row.draw is not None and row.label and row.description
