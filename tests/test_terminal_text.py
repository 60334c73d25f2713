import pytest
from wcwidth import width as columns_of

from fmri_models.terminal_text import size_text, text_list, text_table, voxels_read, wrapped


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_table_fits_its_width_and_loses_nothing(width):
    header = ["metric", *(f"a model called {number}" for number in range(7))]
    labels = [
        "two-way efficientnet_lite0, same background ↑",
        "図形 right ↑",
        "an_unbroken_name_longer_than_any_column_is",
    ]
    lines = [[label, *(f"0.{number}23 [0.{number}11, 0.{number}55]" for number in range(7))] for label in labels]
    text = text_table(header, lines, width)
    assert max(map(columns_of, text.splitlines())) <= width
    for line in lines:
        assert all(text.count(cell) == len(lines) for cell in line[1:])
    assert "an_unbroken" in text
    assert not any(line.strip() in ("↑", "↓") for line in text.splitlines())


def test_wide_characters_take_two_columns():
    assert [columns_of(text) for text in ("ab", "図形", "e\u0301")] == [2, 4, 1]
    assert text_table(["図", "e\u0301"], [["ab", "1"]], 40).splitlines() == ["図  e\u0301", "--  -", "ab  1"]


@pytest.mark.parametrize("text", ["", "図形", "x" * 2000, "a ↑", "\u00ad" * 5])
def test_any_text_can_be_wrapped(text):
    for columns in (1, 2, 7):
        assert "".join(wrapped(text, columns)).replace(" ", "") == text.replace(" ", "")


def test_a_list_has_its_texts_beside_the_names():
    text = text_list([("図", "a picture"), ("name", " ".join(["word"] * 12)), ("x", "")], indent="  ", width=40)
    assert text.splitlines() == [
        "  図    a picture",
        "  name  word word word word word word",
        "        word word word word word word",
        "  x",
    ]
    assert text_list([]) == ""


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 KB"), (694_954, "695 KB"), (29_967_192, "30 MB"),
     (12_300_000_000, "12.3 GB"), (999_999, "1 MB"), (1_234_000_000_000, "1234 GB")],
)  # fmt: skip
def test_sizes_are_read_in_three_figures(size, expected):
    assert size_text(size) == expected


def test_columns_are_not_called_voxels_where_a_processor_makes_others_of_them():
    assert voxels_read(1000, 1000) == "1,000 voxels"
    assert voxels_read(200, 384) == "200 voxels, read as 384 columns"
