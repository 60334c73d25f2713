"""Names that may become file names, and text where markup means something."""

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.names import check_line, check_name, csv_cell, file_name, markdown, markdown_code, one_line


@pytest.mark.parametrize("name", ["a", "subj01", "scene-00_1.v2", "_x", "0" * 128])
def test_ids_become_file_names(name):
    assert file_name(name, ".png") == f"{name}.png"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "a b", "a\0b", "a\n", "-x", ".x", "ä", "0" * 129, 3, None, True],
)
def test_other_ids_are_refused(name):
    with pytest.raises(FmriModelsError, match="can't be used as a file name"):
        file_name(name, ".png")
    with pytest.raises(FmriModelsError, match="The subject "):
        check_name(name, "subject")


@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "\x1b[31m", "a\u2028b", "\u202eabc", "a\u200bb", "\ud800", "a" * 1001, 3]
)
def test_free_text_is_one_visible_line(text):
    with pytest.raises(FmriModelsError, match="The table's name"):
        check_line(text, "table's name")
    assert check_line("Zwölf Löwen – 獅子", "table's name") == "Zwölf Löwen – 獅子"


def test_any_text_becomes_one_line():
    assert one_line("a\n\x1b[2Jb\ud800") == "a\\n\\x1b[2Jb\\ud800"
    assert one_line("x" * 400) == "x" * 299 + "…"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            "nearest_train scores 0.711 in ssim (of 50); noise-free",
            "nearest_train scores 0.711 in ssim (of 50); noise-free",
        ),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("# big", "\\# big"),
        ("- item", "\\- item"),
        ("12. item", "12\\. item"),
        ("===", "\\==="),
        ("[a](http://b)", "\\[a\\](http\\://b)"),
        ("![a](b)", "!\\[a\\](b)"),
        ("a | b", "a \\| b"),
        ("_a_ **b** `c` ~~d~~ $e$", "\\_a\\_ \\*\\*b\\*\\* \\`c\\` \\~\\~d\\~\\~ \\$e\\$"),
        ("a\n# b", "a\\\\n# b"),
        ("    code", "code"),
        ("see www.b.c", "see www\\.b.c"),
    ],
)
def test_markdown_shows_text_literally(text, written):
    assert markdown(text) == written


def test_code_in_markdown_neither_ends_early_nor_holds_html():
    assert markdown_code("two_way *x*") == "`two_way *x*`"
    assert markdown_code("a`b") == "a\\`b"
    assert markdown_code("<b>") == "&lt;b&gt;"
    assert markdown_code("a\n\n# b") == "`a\\n\\n# b`"
    assert markdown_code("") == ""


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@x", "\t=1"])
def test_no_cell_is_a_formula(text):
    assert csv_cell(text)[0] in "'\\"
    assert csv_cell("scene-01") == "scene-01"
