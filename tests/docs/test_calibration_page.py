"""The table of the calibration page is what the functions say now."""

from scripts import write_calibration as script


def test_the_table_is_what_the_functions_say():
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.with_table(page) == page, "run: python scripts/write_calibration.py"
