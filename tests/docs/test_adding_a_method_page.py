"""What the page on adding a method shows of records makes records."""

from tests.docs.test_documentation import ROOT, blocks


def test_the_record_with_paper_and_checkpoints_is_one():
    (block,) = [text for text in blocks(ROOT / "docs" / "adding_a_method.md", "python") if "PretrainedRecord(" in text]
    names = {"__name__": "fmri_models.models.mymethod"}
    exec(block, names)
    method = names["METHOD"]
    assert (method.name, str(method.paper)) == ("mymethod", "Author and Writer (2024)")
    assert {each.state: each.method for each in method.pretrained} == {
        "trained here": "mymethod", "converted": "mymethod",
    }  # fmt: skip
