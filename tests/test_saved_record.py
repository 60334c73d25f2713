"""A record beside a pipeline: what one of its own has to say, and what is refused of any."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.saved_record import SavedRecord


@dataclass
class Visit(SavedRecord):
    file = "visit.json"
    newest_schema = 2
    what = "record of a visit"
    mend = "visit again"

    scanner: str
    schema: int = newest_schema


def test_a_record_is_what_was_saved_and_none_where_there_is_none(tmp_path: Path) -> None:
    assert Visit.load(tmp_path) is None
    Visit("7T").save(tmp_path)
    assert json.loads((tmp_path / "visit.json").read_text()) == {"scanner": "7T", "schema": 2}
    assert Visit.load(tmp_path) == Visit("7T")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scanner": 7, "schema": 1}, "The record of a visit .*visit.json has 7 as 'scanner'; expected string; visit"),
        ({"scanner": "7T", "schema": 3}, "newer version"),
        ({"scanner": "7T", "schema": 1, "field": 7}, "field"),
        ([], "visit again"),
    ],
)
def test_another_content_is_a_sentence(tmp_path: Path, values: object, message: str) -> None:
    (tmp_path / "visit.json").write_text(json.dumps(values))
    with pytest.raises(FmriModelsError, match=message):
        Visit.load(tmp_path)


def test_what_is_there_and_no_file_is_no_missing_record(tmp_path: Path) -> None:
    (tmp_path / "visit.json").mkdir()
    with pytest.raises(FmriModelsError, match="visit"):
        Visit.load(tmp_path)
