"""The page on responsible use has the table of terms that the package goes by."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_terms_table", ROOT / "scripts" / "write_terms_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_package() -> None:
    script = _script()
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.BEGIN in page
    assert script.with_table(page) == page, "run: python scripts/write_terms_table.py"


def test_each_law_says_how_it_was_checked() -> None:
    page = _script().PAGE.read_text(encoding="utf-8")
    section = page.partition("## Recommendation and laws")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert {len(row) for row in rows} == {4}
    assert len(rows) > 10
    for row in rows[1:]:
        assert set(row[-1].split(", ")) <= {"P", "S", "G"}, row
        assert row[0].startswith("[")
        assert "](https://" in row[0]
