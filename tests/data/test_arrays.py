import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.data.arrays import prepare_arrays
from fmri_models.data.noise_ceiling import estimate_ncsnr
from fmri_models.data.table_processor import fit_processor
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError

NUM_STIMULI = 30


class Files:
    """A person's files: pictures p00 ... p29, betas and events of two subjects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stimuli = folder / "pictures"
        self.stimuli.mkdir(parents=True)
        self.events = folder / "events.csv"
        self.out = folder / "out"
        for i in range(NUM_STIMULI):
            self.picture(f"p{i:02d}.{'png' if i % 2 else 'jpg'}", i)

    def picture(self, name: str, seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.stimuli / name)

    def array(self, name: str, values: np.ndarray) -> Path:
        np.save(self.folder / name, values)
        return self.folder / name

    def write_events(self, rows: Sequence[Sequence[object]], header: Sequence[str] = ("stimulus_id",)) -> None:
        self.csv(self.events, [header, *rows])

    def csv(self, path: Path, rows: Sequence[Sequence[object]]) -> Path:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    def prepare(self, fmri: object, **options: object) -> tuple[TrialTable, list[str]]:
        said: list[str] = []
        prepare_arrays(fmri, self.events, self.stimuli, self.out, report=said.append, **options)
        return TrialTable.open(self.out), said


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "mine")


def betas(rows: int = NUM_STIMULI, voxels: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, voxels)).astype(np.float32)


IDS = [f"p{i:02d}" for i in range(NUM_STIMULI)]


def one_each(ids: Sequence[str] = IDS) -> list[list[str]]:
    return [[stimulus] for stimulus in ids]


def test_the_least_that_is_needed(files: Files) -> None:
    files.write_events(one_each() * 2)
    fmri = betas(60)
    table, said = files.prepare(files.array("x.npy", fmri), seed=3)
    assert table.subjects == ["subj01"] and table.name == "out" and not table.simulated
    everything = table.all_trials("subj01")
    order = np.argsort(everything.trials)
    assert everything.stimulus_ids[order].tolist() == IDS * 2
    assert everything.repetitions[order].tolist() == [0] * 30 + [1] * 30
    assert set(everything.sessions.tolist()) == set(everything.runs.tolist()) == {1}
    np.testing.assert_allclose(everything.fmri()[order], fmri, atol=4e-3)
    counts = [len(set(table.trials("subj01", part).stimulus_ids)) for part in ("train", "validation", "test")]
    assert counts == [24, 3, 3]
    assert any("drawn by stimulus from seed 3" in sentence for sentence in said)
    assert any("Only 3 stimuli are tested" in sentence and "kfold" in sentence for sentence in said)
    voxels = table.voxels("subj01")
    assert (voxels.source, voxels.repetitions) == ("training repetitions", 2)


def test_blank_pictures_are_named_and_nothing_wrong(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p05.png", "p09.png"):
        Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(files.stimuli / name)
    # Two ids with one picture would be one stimulus.
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(files.stimuli / "p09.png")
    files.write_events(one_each() * 2)
    table, said = files.prepare(files.array("x.npy", betas(60)))
    assert table.findings == []
    assert any("2 of 30 pictures have one value throughout (p05, p09)" in sentence for sentence in said)
    assert main(["data", "validate", str(files.out)]) == 0
    out = capsys.readouterr().out
    assert "note: 2 of 30 pictures have one value throughout (p05, p09)" in out and "nothing wrong" in out


@pytest.mark.parametrize(("name", "meant"), [("sub01", "sub-01"), ("sub-0l", "sub-01"), ("anna", None)])
@pytest.mark.parametrize("exists", [True, False])
def test_voxels_of_nobody_are_refused_with_the_nearest(
    files: Files, name: str, meant: str | None, exists: bool
) -> None:
    files.write_events([[stimulus] for stimulus in IDS])
    own = files.csv(files.folder / "voxels.csv", [["roi"], *[["V1"]] * 6])
    other = own if exists else files.folder / "none.csv"
    hint = f"Did you mean '{meant}'" if meant else "those of sub-01.$"
    with pytest.raises(FmriModelsError, match=f"given for '{name}', of whom there are no betas.*{hint}"):
        files.prepare({"sub-01": files.array("x.npy", betas())}, voxels={"sub-01": own, name: other})
    assert not files.out.exists()
    table, _ = files.prepare({"sub-01": files.array("x.npy", betas())}, voxels={"sub-01": own})
    assert table.voxels("sub-01").roi == ["V1"] * 6


def test_the_seed_draws_the_split(files: Files) -> None:
    files.write_events(one_each())
    path = files.array("x.npy", betas())
    shown = []
    for seed in (0, 0, 1):
        table, _ = files.prepare(path, seed=seed, overwrite=True)
        shown.append(table.trials("subj01", "test").stimulus_ids.tolist())
    assert shown[0] == shown[1] != shown[2]


def test_two_subjects_of_different_width_with_voxel_files(files: Files) -> None:
    rows = [[s, stimulus, session, 4, 1 + (i % 2), part]
            for i, (stimulus, part) in enumerate(zip(IDS, ["train"] * 20 + ["test"] * 10, strict=True))
            for s, session in (("anna", 1 + i % 3), ("bert", 9))]  # fmt: skip
    files.write_events(rows, ["subject", "stimulus_id", "session", "run", "repetition", "split"])
    a, b = betas(30, 6, 1), betas(30, 4, 2).astype(np.float64)
    of_a = files.csv(files.folder / "va.csv", [["roi", "x", "y", "z"], *[[f"V{v}", v, 2 * v, -v] for v in range(6)]])
    of_b = files.csv(files.folder / "vb.csv", [["ncsnr", "name"], [0.5, "q"], ["", "q"], [1.0, "q"], [0, "q"]])
    table, said = files.prepare(
        {"bert": files.array("b.npy", b), "anna": files.array("a.npy", a)}, voxels={"anna": of_a, "bert": of_b}
    )
    assert table.subjects == ["anna", "bert"]
    assert table.voxels("anna").roi == [f"V{v}" for v in range(6)]
    assert table.voxels("anna").coordinates[2].tolist() == [2, 4, -2]
    assert table.voxels("anna").ncsnr is None
    np.testing.assert_array_equal(table.voxels("bert").ncsnr, [0.5, np.nan, 1, 0])
    assert table.voxels("bert").source == "release" and table.voxels("bert").repetitions == 1
    np.testing.assert_allclose(table.trials("bert", "test").fmri(), b[20:], atol=4e-3)
    anna = table.trials("anna", "test")
    assert anna.sessions.tolist() == [1 + i % 3 for i in range(20, 30)]
    assert anna.repetitions.tolist() == [0, 1] * 5 and set(anna.runs.tolist()) == {4}
    assert len(set(table.trials("anna", "validation").stimulus_ids)) == 2
    np.testing.assert_array_equal(
        table.trials("anna", "validation").stimulus_ids, table.trials("bert", "validation").stimulus_ids
    )
    assert any("No validation trials are given: 2 of 20" in sentence for sentence in said)


def test_one_array_for_several_subjects(files: Files) -> None:
    files.write_events(
        [[stimulus, "b" if i % 2 else "a"] for i, stimulus in enumerate(IDS)], ["stimulus_id", "subject"]
    )
    fmri = betas()
    table, _ = files.prepare(files.array("x.npy", fmri))
    assert table.subjects == ["a", "b"]
    rows = table.all_trials("b")
    np.testing.assert_allclose(rows.fmri(), fmri[1::2][rows.trials], atol=4e-3)


def test_bad_voxels(files: Files) -> None:
    files.write_events(one_each())
    fmri = betas()
    fmri[:, 1] = 7
    path = files.array("x.npy", fmri)
    table, said = files.prepare(path)
    assert table.num_voxels("subj01") == 6
    assert any("1 of 6 voxels never change; they are kept" in sentence for sentence in said)
    fmri[4, 3], fmri[5, 4] = np.nan, np.inf
    path = files.array("x.npy", fmri)
    with pytest.raises(FmriModelsError, match=r"2 of 6 voxels of subj01 have NaN or infinite.*--drop-bad-voxels"):
        files.prepare(path, overwrite=True)
    labels = files.csv(files.folder / "v.csv", [["roi"], *[[f"r{v}"] for v in range(6)]])
    table, said = files.prepare(path, overwrite=True, drop_bad_voxels=True, voxels=labels)
    assert table.voxels("subj01").roi == ["r0", "r2", "r5"]
    rows = table.all_trials("subj01")
    np.testing.assert_allclose(rows.fmri(), fmri[rows.trials][:, [0, 2, 5]], atol=4e-3)
    assert any("3 of 6 voxels dropped (2 not finite, 1 constant)" in sentence for sentence in said)
    assert table.voxels("subj01").source_columns.tolist() == [0, 2, 5]
    assert table.voxels("subj01").source_width == 6
    processor = fit_processor(table, ["subj01"])
    processed = processor(fmri[rows.trials])["fmri"]
    np.testing.assert_allclose(processed, processor(fmri[rows.trials][:, [0, 2, 5]])["fmri"])
    assert validate_table(table.path) == []


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16])
def test_types(files: Files, dtype: type) -> None:
    files.write_events(one_each())
    fmri = (300 * betas()).astype(dtype)
    table, _ = files.prepare(files.array("x.npy", np.asfortranarray(fmri)))
    rows = table.all_trials("subj01")
    np.testing.assert_allclose(rows.fmri(), fmri[rows.trials].astype(np.float32), atol=1.5)


def bad(name: str) -> Callable[[Callable[[Files], object]], Callable[[Files], object]]:
    def register(make: Callable[[Files], object]) -> Callable[[Files], object]:
        BAD[name] = make
        return make

    return register


BAD: dict[str, Callable[[Files], object]] = {}


@bad("30 rows, the events file .* has 29 trials; expected one row a trial")
def _(files: Files) -> object:
    files.write_events(one_each(IDS[:29]))
    return files.array("x.npy", betas())


@bad("no column 'stimulus_id'; found stimulus")
def _(files: Files) -> object:
    files.write_events(one_each(), ["stimulus"])
    return files.array("x.npy", betas())


@bad(r"\(4,\); expected \(trials, voxels\)")
def _(files: Files) -> object:
    return files.array("x.npy", np.ones(4))


@bad("x.npy holds object; expected whole or floating-point numbers")
def _(files: Files) -> object:
    np.save(files.folder / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
    return files.folder / "x.npy"


@bad("has 72 bytes of values; expected 720 for its shape .*cut short")
def _(files: Files) -> object:
    (files.folder / "x.npy").write_bytes(files.array("y.npy", betas()).read_bytes()[:200])
    return files.folder / "x.npy"


@bad(r"is no \.npy file but a zip archive \(\.npz\): save one array alone")
def _(files: Files) -> object:
    np.savez(files.folder / "x.npz", a=betas())
    return files.folder / "x.npz"


@bad("holds complex128; expected whole or floating-point numbers")
def _(files: Files) -> object:
    return files.array("x.npy", np.ones((30, 2), complex))


@bad("There is no file of betas .*none.npy")
def _(files: Files) -> object:
    return files.folder / "none.npy"


@bad("trials of carl, for whom there is no array; there are arrays for anna")
def _(files: Files) -> object:
    files.write_events([[s, "carl"] for s in IDS], ["stimulus_id", "subject"])
    return {"anna": files.array("x.npy", betas())}


@bad("no column 'subject'; expected one, for 2 subjects")
def _(files: Files) -> object:
    return {"anna": files.array("x.npy", betas()), "bert": files.array("y.npy", betas())}


@bad(r"4 of 30 stimuli have no picture in .* \(p00, p01, p02 and 1 more\)")
def _(files: Files) -> object:
    for name in ("p00.jpg", "p01.png", "p02.jpg", "p03.png"):
        (files.stimuli / name).unlink()
    return files.array("x.npy", betas())


@bad(r"same picture \(p0[01] and p0[01]\) is in")
def _(files: Files) -> object:
    files.picture("p00.png", 1)
    (files.stimuli / "p00.jpg").unlink()
    rows = [[s, "test" if i == 0 else "validation" if i == 5 else "train"] for i, s in enumerate(IDS)]
    files.write_events(rows, ["stimulus_id", "split"])
    return files.array("x.npy", betas())


@bad("The stimulus p00 is in")
def _(files: Files) -> object:
    files.write_events([["p00", "test"], ["p00", "train"], *[[s, "train"] for s in IDS[2:]]], ["stimulus_id", "split"])
    return files.array("x.npy", betas())


@bad("has the split 'Test'")
def _(files: Files) -> object:
    files.write_events([[s, "Test"] for s in IDS], ["stimulus_id", "split"])
    return files.array("x.npy", betas())


@bad("No trial of the events is in the split 'train'")
def _(files: Files) -> object:
    files.write_events([[s, "test"] for s in IDS], ["stimulus_id", "split"])
    return files.array("x.npy", betas())


@bad("no session in row 3")
def _(files: Files) -> object:
    files.write_events([[s, "" if s == "p02" else 1] for s in IDS], ["stimulus_id", "session"])
    return files.array("x.npy", betas())


@bad("'one' as run in row 1; expected a whole number")
def _(files: Files) -> object:
    files.write_events([[s, "one"] for s in IDS], ["stimulus_id", "run"])
    return files.array("x.npy", betas())


@bad("'p/1' can't be used as a file name")
def _(files: Files) -> object:
    files.write_events([["p/1"] for _ in IDS])
    return files.array("x.npy", betas())


@bad("1 trials of subj01 have no finite value at all .rows 4 of")
def _(files: Files) -> object:
    fmri = betas()
    fmri[3] = np.nan
    return files.array("x.npy", fmri)


@bad("No voxel of subj01 has finite values that change")
def _(files: Files) -> object:
    return files.array("x.npy", np.ones((30, 3)))


@pytest.mark.parametrize("message", BAD)
def test_refused_and_nothing_written(message: str, files: Files) -> None:
    files.write_events(one_each())
    fmri = BAD[message](files)
    with pytest.raises(FmriModelsError, match=message):
        files.prepare(fmri)
    assert not files.out.exists()
    assert not list(files.folder.glob(".partial-*"))


@bad(r"the picture p00 is there, so write p00 for p00\.jpg in the events")
def _(files: Files) -> object:
    files.write_events([[f"{s}.jpg"] for s in IDS])
    return files.array("x.npy", betas())


@bad("so write p00 for P-0 in the events")
def _(files: Files) -> object:
    files.write_events([["P-0"], *one_each(IDS[1:])])
    return files.array("x.npy", betas())


@bad("an id is the name of a picture's file without folder and ending, here p00")
def _(files: Files) -> object:
    files.write_events([["pictures/p00.jpg"], *one_each(IDS[1:])])
    return files.array("x.npy", betas())


@bad(r"The stimulus p01 has 2 pictures in .* \(p01\.PNG, p01\.png\); leave one of them there")
def _(files: Files) -> object:
    files.picture("p01.PNG", 1)
    return files.array("x.npy", betas())


@bad(r"The stimulus p01 has 2 pictures in .* \(p01\.png, thumbs/p01\.png\); leave one of them there")
def _(files: Files) -> object:
    (files.stimuli / "thumbs").mkdir()
    files.picture("thumbs/p01.png", 1)
    return files.array("x.npy", betas())


@bad("'1.9' as session in row 1; expected a whole number from 0 to 2147483647 or a label such as ses-01")
def _(files: Files) -> object:
    files.write_events([[s, "1.9"] for s in IDS], ["stimulus_id", "session"])
    return files.array("x.npy", betas())


@bad("has the split 'tset' in row 1; expected train, validation, test: write test")
def _(files: Files) -> object:
    files.write_events([[s, "tset"] for s in IDS], ["stimulus_id", "split"])
    return files.array("x.npy", betas())


@bad("has the column 'sesions', which is not read; rename it to 'session'")
def _(files: Files) -> object:
    files.write_events([[s, 1] for s in IDS], ["stimulus_id", "sesions"])
    return files.array("x.npy", betas())


@bad("has the column 'participant_id', which is not read; rename it to 'subject'")
def _(files: Files) -> object:
    files.write_events([[s, 1] for s in IDS], ["stimulus_id", "participant_id"])
    return files.array("x.npy", betas())


@bad("has the subjects 01 and 1, which look like one")
def _(files: Files) -> object:
    files.write_events([[s, "01" if i % 2 else "1"] for i, s in enumerate(IDS)], ["stimulus_id", "subject"])
    return files.array("x.npy", betas())


@bad("there are arrays for subj01: write subj01 for 1, or the other way round")
def _(files: Files) -> object:
    files.write_events([[s, "1"] for s in IDS], ["stimulus_id", "subject"])
    return {"subj01": files.array("x.npy", betas())}


@bad("the file is float16, which ends at 65504: larger numbers were lost")
def _(files: Files) -> object:
    fmri = betas().astype(np.float16)
    fmri[2, 3] = np.inf
    return files.array("x.npy", fmri)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_events_as_spreadsheets_and_bids_write_them(separator: str, files: Files) -> None:
    parts = ["Train"] * 15 + ["VAL"] * 3 + ["testing"] * 12
    header = ["onset", "Stimulus_ID", "session", "RUN", "split", "trial_type"]
    rows = [["1.5", s, f"ses-{1 + i % 2:02d}", f"run-{i % 3}", part, "face"]
            for i, (s, part) in enumerate(zip(IDS, parts, strict=True))]  # fmt: skip
    text = "\r\n".join(separator.join(row) for row in [header, *rows]) + "\r\n"
    files.events.write_bytes(b"\xef\xbb\xbf" + text.encode())
    table, said = files.prepare(files.array("x.npy", betas()))
    trials = table.all_trials("subj01")
    assert trials.sessions.tolist() == [1 + i % 2 for i in range(30)]
    assert trials.runs.tolist() == [i % 3 for i in range(30)]
    assert table.metadata["trials"]["subj01"] == {"train": 15, "validation": 3, "test": 12}
    assert any("columns that are not used: onset, trial_type." in sentence for sentence in said)


def test_few_test_stimuli_of_a_given_split_are_said(files: Files) -> None:
    files.write_events([[s, "test" if i < 4 else "train"] for i, s in enumerate(IDS)], ["stimulus_id", "split"])
    _, said = files.prepare(files.array("x.npy", betas()))
    assert any("Only 4 stimuli are tested" in sentence and "--by kfold" in sentence for sentence in said)


def test_sessions_that_are_tested_but_not_learned_from_are_said(files: Files) -> None:
    rows = [[s, i // 10, "test" if i >= 18 else "train"] for i, s in enumerate(IDS)]
    files.write_events(rows, ["stimulus_id", "session", "split"])
    _, said = files.prepare(files.array("x.npy", betas()))
    assert any("10 test trials are of sessions without training trials (2); evaluate with" in s for s in said)


def test_what_is_no_picture_is_said(files: Files) -> None:
    files.write_events(one_each())
    for name in ("notes.txt", "p00.heic", ".DS_Store", "._p00.jpg", "Thumbs.db"):
        (files.stimuli / name).write_bytes(b"?")
    _, said = files.prepare(files.array("x.npy", betas()))
    assert any("2 entries of" in s and "are no pictures and were not read: notes.txt, p00.heic." in s for s in said)


@pytest.mark.parametrize("kind", [">f4", ">i2", "longdouble", "bfloat16"])
def test_arrays_of_other_machines_and_of_half_a_float(kind: str, files: Files) -> None:
    files.write_events(one_each())
    fmri = 100 * betas()
    # As ml_dtypes saves it: the upper half of a float32, of a type that NumPy does not know.
    stored = (fmri.view(np.uint32) >> 16).astype(np.uint16).view("V2") if kind == "bfloat16" else fmri.astype(kind)
    table, _ = files.prepare(files.array("x.npy", stored))
    np.testing.assert_allclose(table.all_trials("subj01").fmri(), fmri[table.all_trials("subj01").trials], atol=2)


VOXEL_FILES: dict[str, tuple[str, list[str], list[float] | None]] = {
    "a voxel without a label": ("roi\nV1\n\nV2\n\nV3\n\n", ["V1", "", "V2", "", "V3", ""], None),
    "with an empty line at the end": ("roi\nV1\n\nV2\nV2\nV3\nV3\n\n\n", ["V1", "", "V2", "V2", "V3", "V3"], None),
    "empty lines between all": ("roi\n\n" + "V1\n\n" * 6, ["V1"] * 6, None),
    "nothing known of a voxel": ("roi,ncsnr\nV1,1\n,\n,2\nV2,\n,\nV3,0\n", ["V1", "", "", "V2", "", "V3"],
                                 [1, np.nan, 2, np.nan, np.nan, 0]),
    "words for unknown numbers": ("roi,ncsnr\nn/a,nan\nNaN,NaN\nNA,NA\nx,n/a\nx,#N/A\nx,1\n",
                                  ["", "", "", "x", "x", "x"], [np.nan] * 5 + [1]),
    "semicolons and decimal commas": ("ROI;NCSNR\n" + "V1;0,5\n" * 6, ["V1"] * 6, [0.5] * 6),
    "tabs": ("roi\tncsnr\n" + "V 1\t.5\n" * 6, ["V 1"] * 6, [0.5] * 6),
}  # fmt: skip


@pytest.mark.parametrize("name", VOXEL_FILES)
def test_voxel_files(name: str, files: Files) -> None:
    text, roi, ncsnr = VOXEL_FILES[name]
    files.write_events(one_each())
    (files.folder / "v.csv").write_text(text)
    table, _ = files.prepare(files.array("x.npy", betas()), voxels=files.folder / "v.csv")
    assert table.voxels("subj01").roi == roi
    if ncsnr is None:
        assert table.voxels("subj01").ncsnr is None
    else:
        np.testing.assert_array_equal(table.voxels("subj01").ncsnr, np.array(ncsnr, np.float32))


def test_a_column_of_empty_fields_is_none(files: Files) -> None:
    files.write_events(one_each() * 2)
    voxels = files.csv(files.folder / "v.csv", [["roi", "ncsnr", "x", "y", "z"], *[["V1", "", "", "", ""]] * 6])
    table, _ = files.prepare(files.array("x.npy", betas(60)), voxels=voxels)
    assert table.voxels("subj01").source == "training repetitions"
    assert table.voxels("subj01").coordinates is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["roi"], ["V1"]], "1 rows, subj01 has 6 voxels"),
        ([["roi", "ncnsr"], *[["V1", "1"]] * 6], "the column 'ncnsr', which is not read; rename it to 'ncsnr'"),
        ([["ncsnr", "roi"], *[["0,5", "V1"]] * 6], "'0,5' as ncsnr in row 1"),
        ([["name"], *[["a"]] * 6], "none of the columns roi, x, y, z, ncsnr"),
        ([["x", "y"], *[[1, 2]] * 6], "only some of the columns x, y, z"),
        ([["ncsnr"], *[["high"]] * 6], "'high' as ncsnr in row 1"),
        ([["ncsnr"], *[["inf"]] * 6], "'inf' as ncsnr in row 1; expected a number, or nothing"),
        ([["ncsnr"], *[["nan"]] * 6], "'nan' as ncsnr in row 1"),
        ([["ncsnr"], *[["-3"]] * 6], "-3 as ncsnr in row 1; expected a number from 0"),
        ([["ncsnr"], *[["1e30"]] * 6], "1e30 as ncsnr in row 1; expected a number from 0"),
        ([["ncsnr"], *[["1_0"]] * 6], "'1_0' as ncsnr in row 1"),
        ([["x", "y", "z"], *[["\u0663", "1", "1"]] * 6], "'\u0663' as x in row 1"),
    ],
)
def test_voxel_files_that_are_refused(rows: list[list[object]], message: str, files: Files) -> None:
    files.write_events(one_each())
    voxels = files.csv(files.folder / "v.csv", rows)
    with pytest.raises(FmriModelsError, match=message):
        files.prepare(files.array("x.npy", betas()), voxels=voxels)


def test_ncsnr_is_estimated_from_training_trials_as_it_was_simulated() -> None:
    rng = np.random.default_rng(0)
    levels, each = np.array([0, 0.3, 0.7, 1.5]), 60
    ncsnr = np.repeat(levels, each)
    stimuli = np.repeat(np.arange(700), 3)[rng.permutation(2100)]
    signal = rng.normal(size=(700, 4 * each)) * ncsnr
    sessions = np.arange(2100) // 300
    fmri = signal[stimuli] + rng.normal(size=(2100, 4 * each))
    # Gain and offset of a session are no noise: responses are standardised by session.
    fmri = (fmri * (1 + sessions[:, None] % 3) + 100 * sessions[:, None]).astype(np.float32)
    estimate = estimate_ncsnr(lambda rows: fmri[rows], stimuli.astype(str), sessions, 4 * each)
    medians = np.median(estimate.reshape(4, each), axis=1)
    np.testing.assert_allclose(medians[1:], levels[1:], rtol=0.04)
    assert medians[0] < 0.1
    assert estimate_ncsnr(lambda rows: fmri[rows], np.arange(2100).astype(str), sessions, 4 * each) is None


def test_ncsnr_of_sessions_of_few_stimuli_is_that_of_their_trials() -> None:
    rng = np.random.default_rng(0)
    ncsnr = np.repeat([0.3, 0.7, 1.5], 60)
    # Three stimuli a session, each ten times: their mean is the session's.
    stimuli = np.repeat(np.arange(240), 10)
    fmri = (rng.normal(size=(240, 180)) * ncsnr)[stimuli] + rng.normal(size=(2400, 180))
    estimate = estimate_ncsnr(lambda rows: fmri[rows], stimuli.astype(str), stimuli // 3, 180)
    np.testing.assert_allclose(np.median(estimate.reshape(3, 60), axis=1), [0.3, 0.7, 1.5], rtol=0.05)


def test_noise_ceilings_do_not_see_test_trials(files: Files) -> None:
    rows = [[s, part] for s, part in zip(IDS, ["train"] * 15 + ["validation"] * 5 + ["test"] * 10, strict=True)] * 2
    files.write_events(rows, ["stimulus_id", "split"])
    fmri = betas(60)
    table, _ = files.prepare(files.array("x.npy", fmri))
    before = table.voxels("subj01").ncsnr
    fmri[[i for i, row in enumerate(rows) if row[1] != "train"]] = 0
    table, _ = files.prepare(files.array("x.npy", fmri), overwrite=True)
    np.testing.assert_array_equal(table.voxels("subj01").ncsnr, before)


def test_the_command(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_events([[s, "b" if i % 2 else "a"] for i, s in enumerate(IDS)], ["stimulus_id", "subject"])
    arguments = ["--events", str(files.events), "--stimuli", str(files.stimuli), "--out", str(files.out)]
    arrays = [f"{name}={files.array(f'{name}.npy', betas(15, width))}" for name, width in (("a", 5), ("b", 3))]
    command = ["prepare", "arrays", "--fmri", *arrays, *arguments]
    assert main([*command, "--name", "ours", "--seed", "2"]) == 0
    out = capsys.readouterr().out
    assert "drawn by stimulus from seed 2" in out and f"data info {files.out}" in out
    table = TrialTable.open(files.out)
    assert table.name == "ours" and [table.num_voxels(s) for s in table.subjects] == [5, 3]
    assert main(["data", "validate", str(files.out)]) == 0
    assert main(command) == 1
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["arrays", "--fmri", "x.npy", "--out", "o"],
        ["arrays", "--fmri", "a.npy", "b.npy", "--events", "e.csv", "--stimuli", "d", "--out", "o"],
        ["arrays", "--fmri", "a=a.npy", "a=b.npy", "--events", "e.csv", "--stimuli", "d", "--out", "o"],
        ["digits69", "--out", "o"],
        ["digits69", "--source", "x", "--option", "novalue", "--out", "o"],
        ["digits69", "--source", "x", "--fmri", "x.npy", "--out", "o"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *arguments])
    assert stop.value.code == 2


CELL = st.one_of(
    st.sampled_from(["p00", "p01", "1", "1.0", "0", "-1", "", "train", "test", "unlabelled", "n/a", "nan", "a b", "é"]),
    st.text(),
)


@given(
    st.lists(
        st.sampled_from(["stimulus_id", "subject", "session", "run", "repetition", "split"]), max_size=6, unique=True
    ),
    st.lists(st.lists(CELL, min_size=6, max_size=6), min_size=1, max_size=3),
)
def test_any_events_make_a_table_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], rows: list[list[str]]
) -> None:
    files = Files(tmp_path_factory.mktemp("any") / "f")
    with files.events.open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([header, *(row[: len(header)] for row in rows)])
    try:
        table, _ = files.prepare(files.array("x.npy", betas(len(rows), 3)))
    except FmriModelsError:
        assert not files.out.exists()
        return
    every = [each(subject) for subject in table.subjects for each in (table.all_trials, table.unlabelled_trials)]
    assert sum(map(len, every)) == len(rows)


def by_run(parts: Sequence[str], sessions: Sequence[int], runs: Sequence[int], kinds: int = 4) -> list[list]:
    """Events of runs that show the same pictures; a row of the three lists is a run."""
    return [
        [f"p{kind:02d}", session, run, part]
        for part, session, run in zip(parts, sessions, runs, strict=True)
        for kind in range(kinds)
    ]


DESIGN = ["stimulus_id", "session", "run", "split"]


def test_a_split_by_run_of_repeated_stimuli_has_its_validation_by_run(files: Files) -> None:
    rows = by_run(["train"] * 3 + ["test"] + ["train"] * 3 + ["test"], [1] * 4 + [2] * 4, [1, 2, 3, 4] * 2)
    files.write_events(rows, DESIGN)
    table, said = files.prepare(files.array("x.npy", betas(len(rows))))
    assert "4 tested stimuli are learned from in other runs" in table.repeats_stimuli()
    assert any("1 of 6 runs drawn from seed 0" in sentence for sentence in said)
    validation = table.trials("subj01", "validation")
    assert len(validation) == 4 and len(set(zip(validation.sessions, validation.runs, strict=True))) == 1
    assert set(table.trials("subj01", "train").stimulus_ids) == {"p00", "p01", "p02", "p03"}


@pytest.mark.parametrize("change", ["a torn run", "a new picture in the test"])
def test_a_picture_in_two_parts_that_is_no_design_by_run_is_refused(files: Files, change: str) -> None:
    rows = by_run(["train", "train", "test"], [1, 1, 1], [1, 2, 3])
    if change == "a torn run":
        rows[4][3] = "test"
    else:
        rows[-1][0] = "p20"
    files.write_events(rows, DESIGN)
    with pytest.raises(FmriModelsError, match="split by stimulus"):
        files.prepare(files.array("x.npy", betas(len(rows))))


def test_two_runs_leave_none_for_validation(files: Files) -> None:
    rows = by_run(["train", "test"], [1, 1], [1, 2])
    files.write_events(rows, DESIGN)
    table, said = files.prepare(files.array("x.npy", betas(len(rows))))
    assert any("No training run can be spared" in sentence for sentence in said)
    assert len(table.trials("subj01", "validation")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1.5}, "The size of pictures is 1.5; expected a whole number"),
        ({"size": True}, "The size of pictures is True"),
        ({"test_fraction": "x"}, "The test fraction is 'x'; expected a number between 0 and 1"),
        ({"validation_fraction": -1}, "The validation fraction is -1; expected 0, or a number"),
        ({"drop_bad_voxels": "no"}, "drop_bad_voxels is 'no'; expected True or False"),
        ({"overwrite": "no"}, "overwrite is 'no'; expected True or False"),
        ({"seed": 1.5}, "The seed is 1.5"),
    ],
)
def test_arguments_of_another_kind_are_refused(files: Files, options: dict[str, object], message: str) -> None:
    files.write_events(one_each())
    with pytest.raises(FmriModelsError, match=re.escape(message)):
        files.prepare(files.array("x.npy", betas()), **options)
    assert not files.out.exists()


def test_numbers_of_numpy_are_arguments(files: Files) -> None:
    files.write_events(one_each())
    table, _ = files.prepare(files.array("x.npy", betas()), seed=np.int64(3), size=np.int64(8))
    assert table.metadata["split"]["seed"] == 3


@pytest.mark.parametrize("label", ["NA", "none", "NULL", "<NA>", "n/a"])
def test_a_subject_that_is_unknown_is_refused(files: Files, label: str) -> None:
    files.write_events(
        [["subj01" if i else label, stimulus] for i, stimulus in enumerate(IDS)], ["subject", "stimulus_id"]
    )
    with pytest.raises(FmriModelsError, match=f"has {label} as subject in row 1, which says that it is unknown"):
        files.prepare(files.array("x.npy", betas()))


def test_a_missing_picture_that_is_a_link_to_nothing_is_named(files: Files) -> None:
    files.write_events(one_each())
    (files.stimuli / "p03.png").unlink()
    (files.stimuli / "p03.png").symlink_to(files.folder / "absent.png")
    with pytest.raises(FmriModelsError, match=r"p03\.png is a pipe or a link to no file, so put the picture itself"):
        files.prepare(files.array("x.npy", betas()))


def test_a_misspelt_column_of_the_index_binds_no_picture(files: Files) -> None:
    files.write_events(one_each())
    rows = [
        [path.name, stimulus] for path, stimulus in zip(sorted(files.stimuli.iterdir()), reversed(IDS), strict=True)
    ]
    files.csv(files.stimuli / "index.csv", [["file", "stimulus"], *rows])
    with pytest.raises(FmriModelsError, match="the column 'stimulus', which is not read; rename it to 'stimulus_id'"):
        files.prepare(files.array("x.npy", betas()))


def test_two_training_stimuli_stay_in_training(files: Files) -> None:
    parts = ["train", "train", *["test"] * 10]
    files.write_events(list(zip(IDS[:12], parts, strict=True)), ["stimulus_id", "split"])
    table, said = files.prepare(files.array("x.npy", betas(12)))
    assert len(table.trials("subj01", "train").stimulus_ids) == 2 and not table.findings
    assert "No training stimulus can be spared, so that none is left for validation." in said
