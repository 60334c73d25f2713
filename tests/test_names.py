"""Names that may become file names, and text where markup means something."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmri_models.errors import FmriModelsError
from fmri_models.names import (
    as_sentence,
    check_line,
    check_name,
    closest,
    csv_cell,
    file_name,
    markdown,
    markdown_code,
    one_line,
)


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


@given(st.text(max_size=60) | st.text(alphabet="*_`~|[]()<>!#\\-+=.:1 a@$&\n\t", max_size=40))
def test_rendered_markdown_is_the_text(text):
    """By a parser of CommonMark and tables, wherever in a page the text stands."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    parser = parser.enable("strikethrough")
    shown = one_line(text).strip()
    for before, after in (("", ""), ("# ", ""), ("- ", ""), ("Said: ", " and so on"), ("above\n", "\nbelow")):
        words, kinds = _rendered(parser, f"{before}{markdown(text)}{after}")
        assert kinds <= {"paragraph", "heading", "bullet_list", "list_item", "inline", "text", "softbreak"}
        assert "".join(words.split()) == "".join(f"{before.strip('#- ')}{shown}{after}".split())
    words, kinds = _rendered(parser, f"| a | b |\n|---|---|\n| {markdown(text)} | c |")
    assert words.count("c") == 1 + shown.count("c") and kinds <= {
        "table", "thead", "tbody", "tr", "th", "td", "inline", "text"
    }  # fmt: skip


def _rendered(parser, text):
    """The words that a reader sees, and the kinds of everything on the page."""
    words, kinds = [], set()
    for token in parser.parse(text):
        kinds.add(token.type.removesuffix("_open").removesuffix("_close"))
        for child in token.children or []:
            kinds.add("text" if child.type == "text_special" else child.type)
            words.append(child.content)
    return " ".join(words) if "softbreak" in kinds else "".join(words), kinds


@given(st.text(max_size=60) | st.text(alphabet="=+-@\t\r\n,;\"'＝＋－＠ a1", max_size=10))
def test_cells_are_text_for_every_spreadsheet(text):
    cell = csv_cell(text)
    first = unicodedata.normalize("NFKC", cell.lstrip())[:1]
    assert first not in ("=", "+", "-", "@") and is_visible_line(cell)


@given(st.text())
def test_one_line_is_one_line(text):
    assert is_visible_line(one_line(text)) and len(one_line(text)) <= 300
    assert one_line(one_line(text)) == one_line(text)


def is_visible_line(text):
    return all(c == " " or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


@given(st.text(max_size=10) | st.text(alphabet="./\\~ab%\0\n", max_size=140))
def test_file_names_stay_in_their_folder(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "folder"
    try:
        name = file_name(text, ".png")
    except FmriModelsError:
        return
    assert (folder / name).parent == folder and os.path.normpath(folder / name) == str(folder / name)
    assert not name.startswith(".") and len(name.encode()) < 256


@pytest.mark.parametrize(
    ("text", "expected"), [("It draws cells", "It draws cells."), ("It does.", "It does."), ("Cells!", "Cells!")]
)
def test_another_sentence_may_follow(text, expected):
    assert as_sentence(text) == expected


def test_a_wrong_guess_that_would_refuse_something_needs_all_but_the_same_name():
    known = ["category", "caption", "file"]
    assert closest("categroy", known, certain=True) == "category"
    assert closest("cate", known) == "category"
    assert closest("cate", known, certain=True) is None
    assert closest("section", known, certain=True) is None
