"""`fmri-models retrieve` with galleries of files and folders, in both directions."""

import csv
import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.cli.main import main
from fmri_models.data.generator_pictures import pictures_to_embed
from tests.small_table import write_small_table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A linear model on tiny grey pictures whose embeddings are their pixels, and galleries of the test pictures."""
    folder = tmp_path_factory.mktemp("retrieve")
    data = write_small_table(folder / "data", subjects=("subj07",))
    assert main(["train", "linear", f"data={data}", f"out={folder / 'model'}", "generator=pixels"]) == 0
    table = TrialTable.open(data)
    ids = sorted(set(table.trials("subj07", "test").stimulus_ids.tolist()))
    images = table.stimuli.images(ids)
    (folder / "pictures").mkdir()
    for name, picture in zip(ids, images, strict=True):
        Image.fromarray(picture[..., 0]).save(folder / "pictures" / f"{name}.png")
    generator = FmriToImagePipeline.from_pretrained(folder / "model").image_generator
    np.save(folder / "gallery.npy", generator.embed_images(pictures_to_embed(images, generator)).half().numpy())
    return folder


@pytest.fixture
def ids(workplace):
    return sorted(path.stem for path in (workplace / "pictures").iterdir())


def retrieved(workplace, capsys, gallery, *options):
    """Rows of the output, and what is said beside it."""
    capsys.readouterr()
    command = ["retrieve", "--model", workplace / "model", "--fmri", workplace / "data", "--subject", "subj07"]
    status = main([str(each) for each in (*command, "--gallery", gallery, *options)])
    out, err = capsys.readouterr()
    return status, list(csv.DictReader(io.StringIO(out))), err


def test_a_file_and_a_folder_of_the_same_pictures_agree(workplace, ids, capsys):
    status, by_name, said = retrieved(workplace, capsys, workplace / "pictures", "--top-k", "3")
    assert status == 0
    assert "more than once" not in said
    _, by_number, _ = retrieved(workplace, capsys, workplace / "gallery.npy", "--top-k", "3")
    assert list(by_name[0]) == ["trial", "stimulus", "rank", "item", "similarity"]
    assert len(by_name) == 3 * len(ids)
    assert [row["item"] for row in by_name] == [ids[int(row["item"])] for row in by_number]
    assert [row["rank"] for row in by_name[:4]] == ["1", "2", "3", "1"]
    similarities = [float(row["similarity"]) for row in by_name[:3]]
    assert similarities == sorted(similarities, reverse=True)
    assert np.mean([row["item"] == row["stimulus"] for row in by_name if row["rank"] == "1"]) > 0.5


def test_pictures_look_for_their_patterns(workplace, ids, capsys):
    status, rows, _ = retrieved(workplace, capsys, workplace / "pictures", "--query", "image", "--top-k", "1")
    assert status == 0
    assert [row["item"] for row in rows] == ids
    assert np.mean([row["item"] == row["stimulus"] for row in rows]) > 0.5
    _, brain_rows, _ = retrieved(workplace, capsys, workplace / "pictures", "--top-k", str(len(ids)))
    similarity = {(row["stimulus"], row["item"]): row["similarity"] for row in brain_rows}
    assert all(similarity[row["stimulus"], row["item"]] == row["similarity"] for row in rows)


def test_duplicates_are_counted_and_take_ranks(workplace, ids, capsys, tmp_path):
    values = np.load(workplace / "gallery.npy")
    np.save(tmp_path / "twice.npy", np.concatenate([values, values]))
    status, rows, said = retrieved(workplace, capsys, tmp_path / "twice.npy", "--top-k", "2")
    assert status == 0
    assert f"holds {len(ids)} of {2 * len(ids)} items more than once" in said
    first, second = rows[0], rows[1]
    assert int(second["item"]) == int(first["item"]) + len(ids)
    assert first["similarity"] == second["similarity"]


def test_bad_galleries_are_one_line(workplace, ids, capsys, tmp_path):
    def refused(gallery, *options):
        status, rows, said = retrieved(workplace, capsys, gallery, *options)
        assert (status, rows) == (1, [])
        return said.strip().splitlines()[-1]

    values = np.load(workplace / "gallery.npy")
    np.save(tmp_path / "narrow.npy", values.reshape(len(values), -1)[:, :7])
    assert "has embeddings of 7 values; this pipeline's have 144" in refused(tmp_path / "narrow.npy")
    np.save(tmp_path / "none.npy", values[:0])
    assert "has no rows" in refused(tmp_path / "none.npy")
    values[3] = 0
    np.save(tmp_path / "zero.npy", values)
    assert "Row 3 of the gallery is all zero, NaN or infinite" in refused(tmp_path / "zero.npy")
    (tmp_path / "garbage.npy").write_bytes(b"no array")
    assert "no readable .npy array" in refused(tmp_path / "garbage.npy")
    assert "There is no file" in refused(tmp_path / "absent.npy")
    (tmp_path / "empty").mkdir()
    assert "has no pictures (.png, .jpg, .jpeg)" in refused(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes((workplace / "pictures" / f"{ids[0]}.png").read_bytes()[:60])
    assert "a.png can't be read" in refused(tmp_path / "broken")
    assert "top_k is 13; the gallery has 12 pictures" in refused(workplace / "pictures", "--top-k", "13")
    assert "top_k is 13; there are 12 patterns" in refused(workplace / "pictures", "--top-k", "13", "--query", "image")


def test_pictures_of_several_sizes_are_resized(workplace, ids, capsys, tmp_path):
    for number, path in enumerate(sorted((workplace / "pictures").iterdir())):
        with Image.open(path) as picture:
            size = 12 * (1 + number % 3)
            picture.resize((size, size), Image.Resampling.NEAREST).save(tmp_path / path.name)
    status, rows, _ = retrieved(workplace, capsys, tmp_path, "--top-k", "1")
    _, original, _ = retrieved(workplace, capsys, workplace / "pictures", "--top-k", "1")
    assert status == 0
    assert np.mean([a["item"] == b["item"] for a, b in zip(rows, original, strict=True)]) > 0.8


def test_names_of_pictures_are_no_formulas(workplace, ids, capsys, tmp_path):
    shutil.copytree(workplace / "pictures", tmp_path / "pictures")
    names = ["=HYPERLINK(1)", "+1", "-1", "@x", "a\n=1", "a,b"]
    for name, old in zip(names, ids, strict=False):
        (tmp_path / "pictures" / f"{old}.png").rename(tmp_path / "pictures" / f"{name}.png")
    status, rows, _ = retrieved(workplace, capsys, tmp_path / "pictures", "--top-k", str(len(ids)))
    assert status == 0
    items = {row["item"] for row in rows}
    assert {"'=HYPERLINK(1)", "'+1", "'-1", "'@x", "a\\n=1", "a,b"} <= items
    assert set(ids[len(names) :]) <= items
    assert {row["stimulus"] for row in rows} == set(ids)


def test_what_is_no_file_is_no_picture_of_a_gallery(workplace, ids, capsys, tmp_path):
    shutil.copytree(workplace / "pictures", tmp_path / "pictures")
    os.mkfifo(tmp_path / "pictures" / "pipe.png")
    (tmp_path / "pictures" / "loop.png").symlink_to(tmp_path / "pictures" / "loop.png")
    (tmp_path / "pictures" / "folder.png").mkdir()
    status, rows, _ = retrieved(workplace, capsys, tmp_path / "pictures", "--top-k", str(len(ids)))
    assert status == 0
    assert {row["item"] for row in rows} == set(ids)


def test_galleries_of_other_numbers_are_one_line(workplace, capsys, tmp_path):
    values = np.load(workplace / "gallery.npy").astype(np.float64)
    flat = values.reshape(len(values), -1)
    for name, changed in (
        ("nan", np.where(np.arange(flat.shape[1]) == 3, np.nan, flat)),
        ("infinite", np.where(np.arange(flat.shape[1]) == 3, np.inf, flat)),
        ("objects", flat.astype(object)),
        ("empty", np.zeros((0, 2**30), np.float32)),
        ("scalar", np.float32(1)),
    ):
        np.save(tmp_path / f"{name}.npy", changed, allow_pickle=True)
        status, rows, said = retrieved(workplace, capsys, tmp_path / f"{name}.npy")
        assert (status, rows) == (1, []), name
        assert said.strip().splitlines()[-1].startswith("fmri-models: error: "), name
        assert "unexpected" not in said, name
    np.save(tmp_path / "huge.npy", flat * 1e300)
    status, rows, _ = retrieved(workplace, capsys, tmp_path / "huge.npy", "--top-k", "1")
    assert status == 0
    assert all(np.isfinite(float(row["similarity"])) for row in rows)


@pytest.mark.parametrize("kind", ["float16", ">f4", ">f8", "longdouble", "bfloat16"])
def test_galleries_of_other_types_give_the_same_ranks(kind, workplace, capsys, tmp_path):
    values = np.load(workplace / "gallery.npy").astype(np.float32)
    # As ml_dtypes saves it: the upper half of a float32.
    half = (values.view(np.uint32) >> 16).astype(np.uint16).view("V2")
    np.save(tmp_path / "gallery.npy", half if kind == "bfloat16" else values.astype(kind))
    status, rows, _ = retrieved(workplace, capsys, tmp_path / "gallery.npy", "--top-k", "1")
    _, plain, _ = retrieved(workplace, capsys, workplace / "gallery.npy", "--top-k", "1")
    assert status == 0
    assert [row["item"] for row in rows] == [row["item"] for row in plain]


def test_a_folder_is_a_gallery_of_its_pictures_alone(workplace, ids, capsys, tmp_path):
    shutil.copytree(workplace / "pictures", tmp_path / "pictures")
    folder = tmp_path / "pictures"
    with Image.open(folder / f"{ids[0]}.png") as picture:
        picture.save(folder / f"{ids[0]}.tif")
    (folder / f"{ids[0]}.png").unlink()
    (folder / f"{ids[1]}.png").rename(folder / f"{ids[1]}.PNG")
    for name in (f"._{ids[2]}.png", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"?")
    _, plain, quiet = retrieved(workplace, capsys, workplace / "pictures")
    status, rows, said = retrieved(workplace, capsys, folder)
    assert status == 0
    assert sorted(map(str, rows)) == sorted(map(str, plain))
    assert said == quiet
    (folder / "notes.txt").write_text("no picture")
    assert "1 entry of" in (said := retrieved(workplace, capsys, folder)[2])
    assert "is no picture and was not read: notes.txt." in said
    shutil.copy(folder / f"{ids[1]}.PNG", folder / f"{ids[1]}.png")
    assert (
        f"two pictures with the name {ids[1]} ({ids[1]}.PNG, {ids[1]}.png)" in retrieved(workplace, capsys, folder)[2]
    )
