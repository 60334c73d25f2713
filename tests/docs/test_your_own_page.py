"""The code of docs/generators/your_own.md runs as it stands there; the file that it shows has tests of its own."""

import re


def test_the_call_with_objects_runs(repository):
    page = (repository / "docs" / "generators" / "your_own.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r'^--8<-- "(.*)"$', page, flags=re.MULTILINE)
    assert (repository / shown).is_file()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["images"].shape == (2, 1, 8, 8)
