"""Each method's page says where it stands, what it comes from, what is the same, what differs, and what came of it."""

import re

import pytest

from fmri_models.records import Method
from fmri_models.registry import METHODS
from tests.docs.test_documentation import ROOT

SURVEY = "https://arxiv.org/abs/2502.16861"
STAGES = ("fMRI signal encoding", "feature mapping", "image reconstruction", "what it is for")
OWN = METHODS.own()


@pytest.mark.parametrize("method", OWN, ids=[method.name for method in OWN])
def test_a_page_has_what_a_reader_looks_for(method: Method) -> None:
    page = (ROOT / "docs" / "methods" / f"{method.name}.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", page, re.MULTILINE)
    for wanted in ("Place in the survey", "What is computed", "The same as published", "What differs", "Results"):
        assert [title for title in sections if title.startswith(wanted)], f"## {wanted}"
    place = page.partition("## Place in the survey\n")[2].partition("\n## ")[0]
    assert SURVEY in place
    assert method.paper is not None and method.paper.url in place
    assert method.origin in place
    assert tuple(re.findall(r"^\| ([^|]+?) \| ", place, re.MULTILINE)[1:]) == STAGES
