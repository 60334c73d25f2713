"""The catalogue's tables are what the records say."""

import re

from fmri_models.registry import DATASETS, GENERATORS, METHODS, PRETRAINED
from fmri_models.training.recipe_files import recipe_names
from scripts import write_catalogue as script


def test_the_tables_are_made_of_the_records():
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.with_tables(page) == page, "run: python scripts/write_catalogue.py"


def test_each_has_its_table_and_each_name_is_there():
    page = script.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"<!-- (?!end)(\w+) -->", page) == list(script.TABLES)
    own = [registry.own() for registry in (METHODS, GENERATORS, PRETRAINED, DATASETS)]
    names = {record.name for records in own for record in records if not record.name.startswith("shallow")}
    assert all(f"`{name}`" in page for name in {*names, *recipe_names()})
