"""The code of docs/generators/your_own.md runs as it stands there; the file that it shows has tests of its own."""

import re


def test_the_call_with_objects_runs(repository):
    page = (repository / "docs" / "generators" / "your_own.md").read_text(encoding="utf-8")
    shown, code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert (repository / shown.split('"')[1]).is_file()
    names: dict = {}
    exec(code, names)
    assert names["images"].shape == (2, 1, 8, 8)
