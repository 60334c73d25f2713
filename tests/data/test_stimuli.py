import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmri_models.data.csv_files import read_csv
from fmri_models.data.pictures import decode_picture
from fmri_models.data.stimuli import fit_square, read_stimuli
from fmri_models.errors import FmriModelsError


def picture(seed: int = 0, height: int = 6, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, seed: int = 0, **size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, **size)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(["a.png", "b.JPG", "deep/c.png", ".hidden/d.png", "__MACOSX/a.png"]):
        save(tmp_path / "in" / name, index)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def zipped(folder: Path) -> Path:
    path = folder.parent / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_folder_or_zip_without_an_index(folder: Path, as_zip: bool) -> None:
    source = read_stimuli(zipped(folder) if as_zip else folder)
    assert source.ids == ["a", "b", "c"] and len(source) == 3
    records = list(source)
    assert records[0]["image"] == (folder / "a.png").read_bytes()
    assert [record["category"] for record in records] == [None, None, "deep"]
    assert [record["stimulus_id"] for record in source] == source.ids


@pytest.mark.parametrize("as_zip", [False, True])
def test_an_index_says_what_is_read(folder: Path, as_zip: bool) -> None:
    (folder / "index.csv").write_text(
        "\ufefffile,stimulus_id,label,captions,other\n"
        'deep\\c.png,,animal,"a cat | one cat, black ",1\n'
        "a.png,first,,,\n",
        encoding="utf-8",
    )
    records = list(read_stimuli(zipped(folder) if as_zip else folder))
    assert [record["stimulus_id"] for record in records] == ["c", "first"]
    assert records[0]["captions"] == ["a cat", "one cat, black"] and records[1]["captions"] == []
    assert [record["category"] for record in records] == ["animal", None]


@pytest.mark.parametrize(
    "column", ["stimulus", "id", "stim_id", "Stimulus ID", "image", "categroy", "class", "captoin"]
)
def test_a_column_of_the_index_that_looks_misspelt_is_refused(folder: Path, column: str) -> None:
    (folder / "index.csv").write_text(f"file,{column}\na.png,first\n")
    with pytest.raises(FmriModelsError, match=rf"the column '{column}', which is not read; rename it to '(stim|c)"):
        read_stimuli(folder)


def test_other_columns_and_unknown_words_of_the_index(folder: Path) -> None:
    (folder / "index.csv").write_text(",file,width,id,stimulus_id,category,caption\n0,a.png,6,1,first,nan,NA\n")
    source = read_stimuli(folder)
    assert source.ids == ["first"] and source.categories == [None] and next(iter(source))["captions"] == []
    assert source.notes() == [f"index.csv of {folder} has columns that are not used: width, id."]


def test_links_that_lead_to_no_file_are_named(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "others" / "z.png")
    (folder / "dead.png").symlink_to(tmp_path / "absent")
    (folder / "more").symlink_to(tmp_path / "others")
    (folder / "good.png").symlink_to(tmp_path / "others" / "z.png")
    source = read_stimuli(folder)
    assert source.ids == ["a", "b", "c", "good"] and source.unreadable == ["dead.png", "more"]
    assert "dead.png (a link to nothing that can be read), more (a link to a folder)" in source.notes()[0]
    (folder / "index.csv").write_text("file\ndead.png\n")
    with pytest.raises(FmriModelsError, match=r"aren't there \(dead\.png, the first a pipe or a link to no file\)"):
        read_stimuli(folder)


@pytest.mark.parametrize("stored", ["e\u0301", "\u00e9"])
@pytest.mark.parametrize("written", ["e\u0301", "\u00e9"])
def test_accents_are_compared_by_what_is_read(stored: str, written: str, tmp_path: Path) -> None:
    save(tmp_path / f"{stored}.png")
    assert read_stimuli(tmp_path).ids == ["_"]
    (tmp_path / "index.csv").write_text(f"file\n{written}.png\n", encoding="utf-8")
    source = read_stimuli(tmp_path)
    assert source.ids == ["_"] and len(list(source)) == 1


def test_names_that_are_one_file_elsewhere_are_named(tmp_path: Path) -> None:
    save(tmp_path / "S0.png")
    save(tmp_path / "s0.png")
    assert "differ from others in upper and lower case alone (S0, s0)" in read_stimuli(tmp_path).notes()[0]


@pytest.mark.parametrize("size", [1.5, "8", True, 0, float("nan")])
def test_a_size_is_a_whole_number(folder: Path, size: object) -> None:
    with pytest.raises(FmriModelsError, match="The size of pictures is .*; expected a whole number from 1"):
        read_stimuli(folder, size)
    assert type(read_stimuli(folder, np.int64(4)).size) is int


def test_an_index_in_the_only_folder_of_a_zip(folder: Path) -> None:
    (folder / "index.csv").write_text("file,caption\na.png,one\n")
    path = folder.parent / "nested.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("index.csv", "a.png"):
            archive.write(folder / name, f"set/{name}")
    (record,) = read_stimuli(path)
    assert record["captions"] == ["one"]


def test_ids_are_unique_and_safe(tmp_path: Path) -> None:
    for name in ("x/1.png", "y/1.png", "y/photo (2).png"):
        save(tmp_path / name)
    assert read_stimuli(tmp_path).ids == ["x_1.png", "y_1.png", "photo__2_"]


def test_a_trial_table_is_a_source(table_path: Path) -> None:
    source = read_stimuli(table_path, size=4)
    assert source.ids[:2] == ["s00", "s01"] and source.categories[1] == "c1"
    record = next(iter(source))
    assert record["image"].shape == (4, 4, 3)
    assert record["captions"] == ["picture 0", "a picture"] and record["factors"] == {"kind": 0}


def test_cropped_to_the_centre_and_smoothed(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    save(tmp_path / "fits.png", height=4, width=4)
    fits, cropped = list(read_stimuli(tmp_path, size=4))
    assert fits["image"] == (tmp_path / "fits.png").read_bytes()
    np.testing.assert_array_equal(cropped["image"], np.full((4, 4, 3), 200))
    # A checkerboard that is not smoothed would stay black and white.
    checkers = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    buffer = io.BytesIO()
    checkers.save(buffer, "PNG")
    small = fit_square(buffer.getvalue(), 8, "checkers")
    assert small.shape == (8, 8, 1) and np.abs(small.astype(int) - 127).max() < 40


def test_transparent_turned_and_deep_pictures() -> None:
    def encoded(image: Image.Image, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        return buffer.getvalue()

    clear = Image.new("RGBA", (2, 3), (255, 0, 0, 0))
    np.testing.assert_array_equal(decode_picture(encoded(clear), "x"), np.full((3, 2, 3), 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encoded(Image.new("L", (2, 3)), exif=exif), "x").shape == (2, 3, 1)
    deep = Image.fromarray(np.full((2, 2), 60_000, np.uint16))
    with pytest.raises(FmriModelsError, match="more than 8 bits"):
        decode_picture(encoded(deep), "x")


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no zip")
    for source, message in (
        ("nothing", "do not exist"),
        ("empty", "has no pictures; expected files ending in"),
        ("text.zip", "neither a folder nor a zip file"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            read_stimuli(tmp_path / source)
    with pytest.raises(FmriModelsError, match="size of pictures is 0"):
        read_stimuli(folder, size=0)
    for index, message in (
        ("name\na.png\n", "no column 'file'; found name"),
        ("file\na.png\nx.png\n", r"1 files that aren't there \(x\.png\)"),
        ("file\n../../etc/passwd\n", "aren't there"),
        ("file\n/etc/passwd\n", "aren't there"),
        ("file,stimulus_id\na.png,x\nb.JPG,x\n", r"more than once \(x\)"),
        ("file,stimulus_id\na.png,a/b\n", "can't be used as a file name"),
        ("file,caption\na.png\n", "line 2, has 1 fields; expected 2"),
        ("file,file\na.png,a.png\n", "column 'file' twice"),
        ("file\n", "has no pictures"),
    ):
        (folder / "index.csv").write_text(index)
        with pytest.raises(FmriModelsError, match=message):
            read_stimuli(folder)


def test_an_undecodable_picture_is_named(folder: Path) -> None:
    (folder / "b.JPG").write_bytes((folder / "b.JPG").read_bytes()[:60])
    with pytest.raises(FmriModelsError, match="stimulus b can't be decoded"):
        list(read_stimuli(folder, size=4))


def test_a_path_that_leads_out_of_a_zip_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "../../escaped.png")
        archive.write(tmp_path / "a.png", "fine.png")
    before = sorted(tmp_path.parent.rglob("*"))
    assert [record["stimulus_id"] for record in read_stimuli(tmp_path / "slip.zip")] == ["fine"]
    assert sorted(tmp_path.parent.rglob("*")) == before


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_a_sentence(data: bytes) -> None:
    try:
        columns = read_csv(data, "index.csv", ["file"], 1000)
    except FmriModelsError:
        return
    assert len({len(values) for values in columns.values()}) == 1
    assert "file" in columns


@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), max_size=5))
def test_any_fields_survive(fields: list[list[str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["file", "caption"], *fields])
    try:
        columns = read_csv(buffer.getvalue().encode("utf-8", "surrogatepass"), "index.csv", ["file"], 1000)
    except FmriModelsError:
        # NUL and lone surrogates.
        return
    expected = [[value.strip() for value in row] for row in fields if any(value.strip() for value in row)]
    assert [list(row) for row in zip(columns["file"], columns["caption"], strict=True)] == expected


def test_photos(test_data: Path) -> None:
    source = read_stimuli(test_data / "data/images/coco_captioned_256_train.zip", size=64)
    assert len(source) == 80
    record = next(iter(source))
    assert record["image"].shape == (64, 64, 3) and len(record["captions"]) == 5
    clothes = read_stimuli(test_data / "data/images/clothing_cc0_128.zip")
    assert len(clothes) == 5096 and clothes.categories[0] == "T-Shirt"
