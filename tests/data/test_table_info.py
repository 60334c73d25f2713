"""`data info`: regions, noise ceilings, terms and origin of a table as text and JSON; its pages of pictures."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter, parquet
from fmri_models.data.picture_tiles import drawable
from fmri_models.data.stimulus_page import chosen_positions, fitted_text, write_stimulus_page
from fmri_models.data.table_facts import subject_facts, table_facts

from .test_validation import STIMULI, changed, rewrite

VOXELS = "voxels/subj01.parquet"


def grey(number: int) -> np.ndarray:
    """A picture of one grey, but for a corner by which it is another one than those of the same grey."""
    pixels = np.full((8, 8, 3), number % 256, np.uint8)
    pixels[0, 0] = number // 256, 0, 1
    return pixels


def write(path: Path, count: int = 12, image: bool = True, **voxels) -> Path:
    rng = np.random.default_rng(0)
    names = [f"s{number:03d}" for number in range(count)]
    with TrialTableWriter(path, "mine", source="ours", license="CC0") as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": grey(number) if image else None} for number, name in enumerate(names)
        )
        if voxels:
            writer.add_voxels("subj01", 20, **voxels)
        shown = [*names[:-2], *names[:2]]
        fmri = rng.normal(size=(len(shown) + 2, 20)).astype(np.float32)
        runs = [1 + place // 6 for place in range(len(shown))]
        writer.add_trials(
            "subj01",
            "train",
            stimulus_ids=shown,
            fmri=fmri[:-2],
            runs=runs,
            imagery=[True] + [False] * (len(shown) - 1),
        )
        writer.add_trials("subj01", "test", stimulus_ids=names[-2:], fmri=fmri[-2:], sessions=[2, 2])
    return path


def test_everything_is_told_as_text_and_as_json(tmp_path, capsys):
    ceilings = np.array([0.05] * 10 + [0.45] * 5 + [np.nan] * 5)
    table = write(
        tmp_path / "table",
        roi=["V1"] * 12 + ["V2"] * 3 + [""] * 5,
        coordinates=np.arange(60).reshape(20, 3),
        noise_ceiling=ceilings,
        source="release",
        repetitions=2,
        space="MNI",
    )
    assert main(["data", "info", str(table)]) == 0
    out = capsys.readouterr().out
    for told in (
        "mine (measured), 12 stimuli\n",
        "licence CC0; no other terms are known",
        "source ours",
        "its source files are not recorded",
        "mean noise ceiling 0.183 of 2 averaged repetitions (release)",
        "3 runs in 2 sessions; 10 stimuli shown once, 2 stimuli twice; 1 trial of imagery",
        "  V1                   12   60.0%\n  V2                    3   15.0%\n  in no region          5   25.0%\n",
        "positions: of all voxels, in mm (MNI)",
        "noise ceilings: 15 voxels, 5 unknown; lowest 0.050, quartiles 0.050 0.050 0.450, highest 0.450",
        f"  0.0 to 0.1         10  {'#' * 40}\n",
        f"  0.4 to 0.5          5  {'#' * 20}\n",
    ):
        assert told in out, told
    assert main(["data", "info", str(table), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 12 and found["license"] == "CC0" and found["terms"] is None
    subject = found["subjects"]["subj01"]
    assert subject["regions"] == [
        {"label": "V1", "voxels": 12, "share": 0.6},
        {"label": "V2", "voxels": 3, "share": 0.15},
    ]
    assert subject["noise_ceiling"]["histogram"]["voxels"] == [10, 0, 0, 0, 5, 0, 0, 0, 0, 0]
    assert subject["stimuli_by_times_shown"] == {"1": 10, "2": 2}
    assert (subject["runs"], subject["sessions"], subject["imagery_trials"]) == (3, 2, 1)
    assert subject["coordinates"]["lowest_mm"] == [0, 1, 2] and subject["grid"] is None
    assert "page" not in found and "histogram" not in found


def test_what_a_table_does_not_have_is_said_in_a_word(tmp_path, capsys):
    table = write(tmp_path / "table", image=False)
    page, histogram = tmp_path / "page.png", tmp_path / "histogram.png"
    options = ["--page", str(page), "--histogram", str(histogram)]
    assert main(["data", "info", str(table), *options]) == 0
    out = capsys.readouterr().out
    for told in (
        "12 stimuli, none with a picture",
        "noise ceiling unknown",
        "regions: none known",
        "positions: not known",
        "noise ceilings: not known",
        "no page was written: no stimulus of mine has a picture",
        "no histogram was written: no noise ceiling of mine is known",
    ):
        assert told in out, told
    assert not page.exists() and not histogram.exists()
    assert main(["data", "info", str(table), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["page"] is None and found["histogram"] is None
    assert found["subjects"]["subj01"]["regions"] == [] and found["subjects"]["subj01"]["noise_ceiling"] is None


def test_ceilings_that_are_no_numbers_do_not_hide_the_rest(table_path, tmp_path, capsys):
    rewrite(table_path, VOXELS, lambda t: changed(t, "noise_ceiling", 0, float("nan")))
    histogram = tmp_path / "histogram.png"
    assert main(["data", "info", str(table_path), "--histogram", str(histogram), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "noise_ceiling" in found["subjects"]["subj01"]["voxels_unreadable"]
    assert found["subjects"]["subj01"]["noise_ceiling"] is None and found["subjects"]["subj01"]["trials"] == 40
    assert found["histogram"]["subjects"] == ["subj02"] and histogram.exists()
    assert main(["data", "info", str(table_path)]) == 0
    assert "values in the column noise_ceiling" in capsys.readouterr().out


def test_where_a_table_comes_from_is_told(tmp_path):
    with TrialTableWriter(tmp_path / "table", "renamed", license="CC0", source="") as writer:
        writer.add_stimuli({"stimulus_id": f"s{number}", "image": None} for number in range(4))
        writer.add_trials("subj01", "train", stimulus_ids=["s0", "s1", "s2", "s3"], fmri=np.random.rand(4, 5))
        files = {"a.h5": {"bytes": 5, "sha256": "0" * 64}, "b.h5": {"bytes": 7}}
        writer.extra["prepared"] = {"script": "dataset_scripts/god.py", "script_version": 3, "files": files}
    facts = table_facts(TrialTable.open(tmp_path / "table"))
    assert facts["prepared"]["source_files"] == 2 and facts["prepared"]["source_bytes"] == 12
    assert facts["prepared"]["checksums"] == 1 and facts["prepared"]["script_version"] == 3
    # A table that was given another name is still that data set's.
    assert "Horikawa" in facts["terms"]["responses"]["title"]
    assert (facts["terms"]["responses"]["responses"], facts["terms"]["pictures"]["pictures"]) == (
        "allowed",
        "forbidden",
    )


def test_a_grid_is_told(tmp_path):
    table = write(tmp_path / "table", coordinates=np.arange(60).reshape(20, 3))
    metadata = json.loads((table / "table.json").read_text())
    affine = [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2.5, 0], [0, 0, 0, 1]]
    metadata["grids"] = {"subj01": {"shape": [5, 6, 7], "affine": affine, "sha256": "a" * 64}}
    (table / "table.json").write_text(json.dumps(metadata))
    grid = subject_facts(TrialTable.open(table), "subj01")["grid"]
    assert (grid["shape"], grid["voxel_size_mm"], grid["mask_sha256"]) == ([5, 6, 7], [2, 2, 2.5], "a" * 64)


def test_a_page_shows_some_pictures_with_their_ids(tmp_path, capsys):
    table = write(tmp_path / "table", count=60)
    page = tmp_path / "page.png"
    assert main(["data", "info", str(table), "--page", str(page), "--pictures", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["page"]
    assert (len(found["shown"]), found["pictures"], found["seed"]) == (10, 60, None)
    assert found["shown"][0] == "s000" and found["shown"][-1] == "s059"
    pixels = np.asarray(Image.open(page))
    assert pixels.shape[1] == 8 * 112 + 7 * 8 + 32
    # The tile of each picture has its grey, in the order of the table.
    for place, name in enumerate(found["shown"]):
        left, top = 16 + place % 8 * 120 + 56, 50 + place // 8 * 138 + 56
        assert (pixels[top, left] == int(name[1:])).all(), name
    first = page.read_bytes()
    assert main(["data", "info", str(table), "--page", str(page), "--pictures", "10"]) == 0
    assert "10 of 60 pictures" in capsys.readouterr().out and page.read_bytes() == first
    drawn = write_stimulus_page(TrialTable.open(table), page, 10, seed=1)
    assert drawn is not None and drawn.shown != found["shown"] and drawn.shown == sorted(drawn.shown)


@pytest.mark.parametrize("size", [(8, 8, 1), (20, 120, 3), (300, 60, 3)])
def test_pictures_of_any_form_fit_their_tile(tmp_path, size):
    with TrialTableWriter(tmp_path / "table", "mine") as writer:
        writer.add_stimuli({"stimulus_id": f"s{n}", "image": np.full(size, 40 * n, np.uint8)} for n in range(3))
        writer.add_trials("subj01", "train", stimulus_ids=["s0", "s1", "s2"], fmri=np.random.rand(3, 5))
    assert write_stimulus_page(TrialTable.open(tmp_path / "table"), tmp_path / "page.png") is not None
    centre = np.asarray(Image.open(tmp_path / "page.png"))[50 + 56, 16 + 120 + 56]
    assert (centre == 40).all()


def test_a_damaged_picture_leaves_the_others(tmp_path, capsys):
    table = write(tmp_path / "table")
    rewrite(table, STIMULI, lambda t: changed(t, "image", 2, {"bytes": b"?", "path": None}))
    assert main(["data", "info", str(table), "--page", str(tmp_path / "page.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"]["unreadable"] == ["s002"]


def test_a_page_of_many_stimuli_reads_few_row_groups_and_takes_little_memory(tmp_path, monkeypatch):
    table = write(tmp_path / "table", count=3000)
    assert pq.ParquetFile(table / STIMULI).num_row_groups > 40
    read = []
    pictures = parquet.pictures

    def counting(path, expected, positions, most_rows):
        for row, data in pictures(path, expected, positions, most_rows):
            read.append(row)
            yield row, data

    monkeypatch.setattr(parquet, "pictures", counting)
    opened = TrialTable.open(table)
    assert len(opened.stimuli) == 3000
    tracemalloc.start()
    page = write_stimulus_page(opened, tmp_path / "page.png", 24)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert page is not None and len(read) == 24 and peak < 16 * 2**20


def test_positions_are_spread_or_drawn():
    assert chosen_positions(3, 10, None) == [0, 1, 2]
    assert chosen_positions(101, 5, None) == [0, 25, 50, 75, 100]
    assert chosen_positions(73_000, 400, 0) == chosen_positions(73_000, 400, 0) != chosen_positions(73_000, 400, 1)
    for seed in (None, 0):
        chosen = chosen_positions(73_000, 400, seed)
        assert len(set(chosen)) == 400 and chosen == sorted(chosen) and chosen[-1] < 73_000


def test_titles_are_in_letters_that_can_be_drawn():
    assert drawable("Überprüfung 测试", 80) == "Uberprufung ??"
    assert drawable("a" * 90, 80).startswith("a" * 79)


def test_a_long_id_keeps_its_end():
    from PIL import ImageFont

    font = ImageFont.load_default(11)
    text = fitted_text("n01443537_22563_of_a_very_long_name_indeed_0042", 112, font)
    assert text.endswith("0042") and text.startswith("n0") and font.getlength(text) <= 112
    assert fitted_text("short", 112, font) == "short"


def test_a_histogram_of_each_subject(table_path, tmp_path, capsys):
    file = tmp_path / "histogram.png"
    assert main(["data", "info", str(table_path), "--histogram", str(file)]) == 0
    assert "(2 subjects)" in capsys.readouterr().out
    blue = (np.asarray(Image.open(file)) == (76, 114, 176)).all(axis=2)
    # All ceilings are .429, so that each of two panels has one bar.
    columns = np.flatnonzero(blue.any(axis=0))
    assert (np.diff(columns) > 50).sum() + 1 == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--page", "page.jpg"], 1, "give a name that ends in .png"),
        (["--page", "table/page.png"], 1, "lies in"),
        (["--page", "page.png", "--pictures", "0"], 1, "expected 1 to 400"),
        (["--page", "page.png", "--pictures", "401"], 1, "expected 1 to 400"),
        (["--page", "page.png", "--seed", "-1"], 1, "seed"),
        (["--pictures", "4"], 2, "give --page FILE.png"),
        (["--seed", "4"], 2, "give --page FILE.png"),
        (["--page", "a.png", "--histogram", "a.png"], 2, "the same file"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(tmp_path, monkeypatch, capsys, options, code, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "table")
    try:
        found = main(["data", "info", "table", *options])
    except SystemExit as usage:
        found = usage.code
    assert found == code and message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png")) and not list((tmp_path / "table").glob("*.png"))
