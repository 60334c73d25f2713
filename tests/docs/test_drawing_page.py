"""The code of docs/generators/drawing.md runs as it stands there, on the CPU."""

import re

import torch


def test_the_code_of_the_page_runs(repository):
    page = (repository / "docs" / "generators" / "drawing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(block.replace("offload()", "offload(device='cpu')"), names)
    torch.testing.assert_close(names["images"], names["again"])
