"""Files that are not what they should be: each ends in a sentence, whatever it claims."""

import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.io
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter, pictures, schema
from fmri_models.data.arrays import prepare_arrays
from fmri_models.data.csv_files import read_csv, read_number
from fmri_models.data.matlab import read_mat
from fmri_models.data.pictures import decode_picture
from fmri_models.data.stimuli import read_stimuli
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError

from .bombs import BOMBS, TRIALS, use, write_table
from .test_validation import changed, column, rewrite

STIMULI = "stimuli/stimuli-00000-of-00001.parquet"
SPLIT = "splits/default.parquet"
VOXELS = "voxels/subj01.parquet"
NOISE_FREE = "noise_free/subj01.parquet"


def set_at(values: dict, place: str, value: object) -> None:
    *parents, last = place.split("|")
    for key in parents:
        values = values[key]
    values[last] = value


TABLE_JSON: list[tuple[str, object, str]] = [
    ("name", 3, "has 3 as 'name'"),
    ("name", "a\n# b", "U+000A"),
    ("simulated", 1, "has 1 as 'simulated'"),
    ("subjects", 2, "has 2 as 'subjects'"),
    ("subjects", [], "as 'subjects'"),
    ("subjects", ["subj01", "subj01"], "names that are all different"),
    ("subjects", ["../..", "subj02"], "'../..' as 'subjects.0'"),
    ("num_voxels|subj01", 2**63 - 1, f"less than or equal to {schema.MAX_VOXELS}"),
    ("num_voxels|subj01", 0, "greater than or equal to 1"),
    ("num_voxels|subj01", True, "has True as 'num_voxels.subj01'"),
    ("num_voxels|subj01", 3.5, "has 3.5 as 'num_voxels.subj01'"),
    ("num_voxels|dog", 3, "has num_voxels of"),
    ("trials|subj01", 1e308, "as 'trials.subj01'"),
    ("trials|subj01|test", -1, "as 'trials.subj01.test'"),
    ("trials|subj01|dog", 1, "'trials.subj01.dog', which is not known"),
    ("image_channels", 2, "expected 1 or 3"),
    ("files", [], "as 'files'"),
    ("files|../../etc/passwd", {"sha256": "0" * 64, "bytes": 1}, "'../../etc/passwd', which no trial table has"),
    ("files|/etc/passwd", {"sha256": "0" * 64, "bytes": 1}, "which no trial table has"),
    ("files|trials/subj09/test-00000-of-00001.parquet", {"sha256": "0" * 64, "bytes": 1}, "which no trial table has"),
    (f"files|{VOXELS}|sha256", "x", "64 hexadecimal digits"),
    (f"files|{VOXELS}|bytes", -1, f"as 'files.{VOXELS}.bytes'"),
    (f"files|{VOXELS}", None, f"as 'files.{VOXELS}'"),
    ("description", ["a"], "as 'description'"),
    ("license", None, "as 'license'"),
]


@pytest.mark.parametrize(("place", "value", "message"), TABLE_JSON)
def test_table_json_is_checked_at_every_level(place: str, value: object, message: str, table_path: Path) -> None:
    file = table_path / "table.json"
    metadata = json.loads(file.read_text())
    set_at(metadata, place, value)
    file.write_text(json.dumps(metadata))
    with pytest.raises(FmriModelsError, match=".") as caught:
        TrialTable.open(table_path)
    assert message in str(caught.value)
    assert validate_table(table_path) == [str(caught.value)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"schema": 1, "name": "\xff"}', "no text in UTF-8"),
        (b'{"schema": 1, "name": "\\ud800"}', "broken characters"),
        (b'{"schema": 1, "a": NaN}', "no readable JSON"),
        (b'{"schema": 1, "a": ' + b"[" * 100_000, "nested too deep"),
        (b'{"schema": 1, "a": ' + b"[" * 500 + b"]" * 500 + b"}", "nested"),
        (b"[]", "no JSON object"),
        (b"", "no readable JSON"),
    ],
)
def test_what_is_no_table_json(text: bytes, message: str, table_path: Path) -> None:
    (table_path / "table.json").write_bytes(text)
    with pytest.raises(FmriModelsError, match=message):
        TrialTable.open(table_path)


def test_files_that_the_table_needs(table_path: Path) -> None:
    file = table_path / "table.json"
    metadata = json.loads(file.read_text())
    for name in (TRIALS, VOXELS, STIMULI):
        fewer = {key: value for key, value in metadata["files"].items() if key != name}
        file.write_text(json.dumps({**metadata, "files": fewer}))
        with pytest.raises(FmriModelsError, match="has no file"):
            TrialTable.open(table_path)


def constant(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    return lambda table: column(
        table, name, pa.array([value] * len(table), table.schema.field(name).type if value is not None else None)
    )


def at(name: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    return lambda table: changed(table, name, row, value)


def with_betas(value: float) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        width = table.schema.field("fmri").type.list_size
        dtype = table.schema.field("fmri").type.value_type.to_pandas_dtype()
        fmri = schema.fmri_matrix(table["fmri"], width).astype(dtype)
        fmri[3, 4] = value
        return column(table, "fmri", schema.fmri_array(fmri))

    return change


def without(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def saying(how: bytes) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata({b"fmri_models": how})


def with_bad_text(name: str) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        offsets = np.arange(len(table) + 1, dtype=np.int32) * 2
        data = b"\xff\xfe" * len(table)
        text = pa.Array.from_buffers(
            pa.string(), len(table), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
        )
        return column(table, name, text)

    return change


FAULTS: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "NaN": (TRIALS, with_betas(np.nan), "has NaN or infinite betas (first: row 3)"),
    "infinite": (TRIALS, with_betas(np.inf), "has NaN or infinite betas"),
    "no column": (TRIALS, without("stimulus_id"), "has no column 'stimulus_id'"),
    "no betas": (TRIALS, without("fmri"), "has no column 'fmri'"),
    "text for numbers": (TRIALS, lambda t: column(t, "session", ["1"] * 32), "session has the type string"),
    "null number": (TRIALS, at("run", 2, None), "missing values (null) in the column run"),
    "null id": (TRIALS, at("stimulus_id", 2, None), "missing values (null) in the column stimulus_id"),
    "an id that leads out": (TRIALS, at("stimulus_id", 2, "../../x"), "the stimulus id '../../x', which can't be"),
    "an absolute id": (TRIALS, at("stimulus_id", 2, "/etc/x"), "the stimulus id '/etc/x'"),
    "bad text": (TRIALS, with_bad_text("stimulus_id"), "can't be read"),
    "negative": (TRIALS, at("session", 2, -1), "has session numbers from -1"),
    "a trial twice": (TRIALS, at("trial", 3, 4), "1 trial numbers more than once (4)"),
    "another's trial": (TRIALS, at("subject", 3, "subj02"), "has trials of subj02"),
    "fewer trials": (TRIALS, lambda t: t.slice(0, 31), "31 trials in train; table.json says 32"),
    "stimulus leads out": (STIMULI, at("stimulus_id", 2, "../x"), "the stimulus id '../x'"),
    "stimulus twice": (STIMULI, at("stimulus_id", 2, "s01"), "more than once (s01)"),
    "no pictures": (STIMULI, without("image"), "has no column 'image'"),
    "pictures are text": (STIMULI, constant("image", None), "image has the type null"),
    "captions of bad text": (STIMULI, with_bad_text("category"), "can't be read"),
    "factors are numbers": (STIMULI, lambda t: column(t, "factors", [1] * 24), "factors has the type int64"),
    "factors are a list": (STIMULI, constant("factors", "[1]"), "expected a JSON object"),
    "factors are no JSON": (STIMULI, constant("factors", "{"), "no readable JSON"),
    "a hash": (STIMULI, constant("content_sha256", "x"), "64 hexadecimal digits"),
    "a category of two lines": (STIMULI, constant("category", "a\nb"), "U+000A"),
    "voxels": (VOXELS, lambda t: t.slice(0, 29), "29 rows; subj01 has 30 voxels"),
    "voxel order": (VOXELS, at("index", 1, 7), "doesn't count from 0 to 29"),
    "voxel column": (VOXELS, without("roi"), "has no column 'roi'"),
    "ncsnr": (VOXELS, constant("ncsnr", -3.0), "values in the column ncsnr"),
    "ncsnr NaN": (VOXELS, at("ncsnr", 1, float("nan")), "values in the column ncsnr"),
    "ceiling": (VOXELS, constant("noise_ceiling", 1.5), "not from 0 to 1"),
    "coordinates": (VOXELS, constant("x", float("inf")), "values in the column x"),
    "a ceiling from anywhere": (VOXELS, constant("noise_ceiling_source", "me"), "noise ceilings from 'me'"),
    "a region of two lines": (VOXELS, constant("roi", "a\nb"), "U+000A"),
    "noise-free": (NOISE_FREE, constant("stimulus_id", "a/b"), "the stimulus id 'a/b'"),
    "noise-free NaN": (NOISE_FREE, with_betas(np.nan), "has NaN or infinite betas"),
    "noise-free type": (NOISE_FREE, lambda t: column(t, "fmri", [1] * 24), "fmri has the type int64"),
    "fold": (SPLIT, at("fold", 0, -1), "fold numbers from -1"),
    "far fold": (SPLIT, at("fold", 0, 10**9), "expected 0 to 9999"),
    "fold missing": (SPLIT, at("fold", 0, 3), "has the fold 3 but 2 folds in all"),
    "fold null": (SPLIT, at("fold", 0, None), "missing values (null) in the column fold"),
    "split part": (SPLIT, at("split", 0, "val"), "has the part 'val'"),
    "split subject": (SPLIT, at("subject", 0, "../x"), "has the subject '../x'"),
    "split twice": (SPLIT, lambda t: pa.concat_tables([t, t.slice(0, 1)]), "0 of subj01 twice in fold 0"),
    "split says no JSON": (SPLIT, saying(b"{"), "no readable JSON"),
    "split says bytes": (SPLIT, saying(b"\xff"), "no text in UTF-8"),
    "split says a list": (SPLIT, saying(b"[]"), "no JSON object"),
    "split says nothing": (SPLIT, saying(b"{}"), "schema version None"),
    "split says a number": (SPLIT, saying(b'{"schema": 1, "repeats_stimuli": 3}'), "has 3 as 'repeats_stimuli'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_file_is_found_on_reading_and_by_validate(fault: str, table_path: Path) -> None:
    name, change, message = FAULTS[fault]
    rewrite(table_path, name, change)
    with pytest.raises(FmriModelsError, match=".") as caught:
        use(table_path)
    assert message in str(caught.value)
    assert validate_table(table_path)


def test_a_changed_file_does_not_reach_the_cache(table_path: Path) -> None:
    file = table_path / TRIALS
    rewrite(table_path, TRIALS, lambda table: table)
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    file.write_bytes(content)
    with pytest.raises(FmriModelsError, match=r"was changed: its SHA-256|can't be read"):
        TrialTable.open(table_path).trials("subj01").fmri()


def test_a_damaged_cache_is_named(table_path: Path, own_cache: Path) -> None:
    TrialTable.open(table_path).trials("subj01").fmri()
    (values,) = own_cache.rglob("subj01/values.npy")
    values.write_bytes(values.read_bytes()[:-8])
    with pytest.raises(FmriModelsError, match=r"cached matrix .*cut short.*delete the folder"):
        TrialTable.open(table_path).trials("subj01").fmri()


def test_a_subject_that_leads_out_of_the_cache(own_cache: Path) -> None:
    from fmri_models.data.matrix import FmriMatrix

    with pytest.raises(FmriModelsError, match="can't be used as a file name"):
        FmriMatrix.materialize("f" * 64, "../../x", (1, 1), lambda: [np.ones((1, 1), np.float32)])
    assert not list(own_cache.rglob("*x*"))


def test_a_split_that_leads_out(table_path: Path, tmp_path: Path) -> None:
    (tmp_path / "other.parquet").write_bytes((table_path / SPLIT).read_bytes())
    with pytest.raises(FmriModelsError, match="has no split"):
        TrialTable.open(table_path).trials("subj01", split_name="../../other")
    (table_path / "splits" / "a b.parquet").write_bytes((table_path / SPLIT).read_bytes())
    assert TrialTable.open(table_path).split_names() == ["default"]
    assert "its name can't be that of one" in validate_table(table_path)[0]
    assert main(["data", "split", str(table_path), "--name", "../x", "--by", "kfold"]) == 1


def test_pipes_sockets_and_loops_of_links(table_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (2, 2)).save(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up").symlink_to(folder)
    with socket.socket(socket.AF_UNIX) as own:
        # A socket's path has to be short.
        monkeypatch.chdir(folder)
        own.bind("s.png")
    assert read_stimuli(folder).ids == ["a"]
    for place in (folder / "pipe.png", Path("/dev/zero")):
        with pytest.raises(FmriModelsError, match="no regular file"):
            read_stimuli(place)
        with pytest.raises(FmriModelsError, match="no regular file"):
            prepare_arrays(place, place, folder, tmp_path / "out")
    with pytest.raises(FmriModelsError, match="do not exist|circle"):
        read_stimuli(folder / "loop.png")
    for name in ("table.json", TRIALS):
        content = (table_path / name).read_bytes()
        (table_path / name).unlink()
        os.mkfifo(table_path / name)
        with pytest.raises(FmriModelsError, match=r"no regular file|lacks the file"):
            TrialTable.open(table_path)
        assert validate_table(table_path)
        (table_path / name).unlink()
        (table_path / name).write_bytes(content)


@pytest.mark.parametrize(
    "text", ["1_0", "\u0663", "nan", "inf", "-inf", "1e", "0x1", "1,5", "", "1 0", "1e99999", "--1"]
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        read_number(text)


def test_numbers() -> None:
    assert [read_number(text) for text in ("1", "-1.5", "+.5", "1.", "1e3", "1E-2")] == [1, -1.5, 0.5, 1, 1000, 0.01]


def test_lines_and_rows_have_bounds() -> None:
    with pytest.raises(FmriModelsError, match="line 2, has 2000001 characters"):
        read_csv(b"a\n" + b"x" * 2_000_000 + b"\n", "It", ["a"], 10)
    with pytest.raises(FmriModelsError, match="field larger than field limit"):
        read_csv(b"a\n" + b"x" * 200_000, "It", ["a"], 10)
    with pytest.raises(FmriModelsError, match="more than 10 rows"):
        read_csv(b"a\n" + b"x\n" * 11, "It", ["a"], 10)


def test_captions_are_separated_by_a_line_whatever_is_around_it(tmp_path: Path) -> None:
    for name in "abc":
        Image.new("L", (2, 2)).save(tmp_path / f"{name}.png")
    (tmp_path / "index.csv").write_text("file,captions\na.png,one|two\nb.png,one | two\nc.png,|one|\n")
    assert [record["captions"] for record in read_stimuli(tmp_path)] == [["one", "two"], ["one", "two"], ["one"]]


def test_pictures_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    for kind in ("png", "bmp", "tiff", "webp", "gif", "jpeg", "ppm"):
        path = tmp_path / f"a.{kind}"
        Image.new("L", (40, 25)).save(path)
        assert decode_picture(path, "it").shape[:2] == (25, 40)
        Image.new("L", (40, 26)).save(path)
        with pytest.raises(FmriModelsError, match="40 x 26 pixels; expected 1,000 in all at most"):
            decode_picture(path, "it")
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(FmriModelsError, match="it is none of PNG, JPEG"):
        decode_picture(tmp_path / "a.eps", "it")
    frames = [Image.new("L", (4, 4), grey) for grey in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode_picture(tmp_path / "a.gif", "it").shape[:2] == (4, 4)
    for cut in (8, 20, 40, 60):
        with pytest.raises(FmriModelsError, match="can't be decoded"):
            decode_picture((tmp_path / "a.gif").read_bytes()[: cut // 4], "it")


def test_scans_of_a_jpeg_have_a_bound(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 7).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.rfind(b"\xff\xda") : -2]
    hostile = data[:-2] + scan * 3000 + data[-2:]
    (tmp_path / "a.jpg").write_bytes(hostile)
    for source in (hostile, tmp_path / "a.jpg"):
        with pytest.raises(FmriModelsError, match="The picture of a is a JPEG of more than 100 scans"):
            decode_picture(source, "a")
    # What metadata and appended films hold are no scans.
    comment = b"\xff\xfe" + (302).to_bytes(2, "big") + b"\xff\xda" * 150
    harmless = data[:2] + comment + data[2:] + b"\xff\xda" * 150
    np.testing.assert_array_equal(decode_picture(harmless, "a"), decode_picture(data, "a"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_file(method: int, tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.bmp")
    with zipfile.ZipFile(tmp_path / "p.zip", "w", method) as archive:
        archive.write(tmp_path / "a.bmp", "a.bmp")
    whole = (tmp_path / "p.zip").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        (tmp_path / "p.zip").write_bytes(data)
        try:
            list(read_stimuli(tmp_path / "p.zip"))
        except FmriModelsError as error:
            assert "p.zip" in str(error)


def test_a_member_of_a_zip_file_without_a_name(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
        archive.write(tmp_path / "a.png", "b.png")
    data = (tmp_path / "p.zip").read_bytes().replace(b"b.png", b"\0.png")
    (tmp_path / "p.zip").write_bytes(data)
    assert [record["stimulus_id"] for record in read_stimuli(tmp_path / "p.zip")] == ["a"]


def test_a_mat_file_is_read_by_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    values = np.arange(6.0).reshape(2, 3)
    scipy.io.savemat(path, {"a": values, "b": np.array([True]), "text": "abc", "cell": np.array([1, "x"], object)})
    found = read_mat(path, ["a", "b", "text", "cell", "none"], "give another")
    assert sorted(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], values)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "x/a.mat")
    np.testing.assert_array_equal(read_mat(tmp_path / "a.zip", ["a"], "give another", "x/a.mat")["a"], values)
    path.write_bytes(b"no matlab file")
    with pytest.raises(FmriModelsError, match=r"a\.mat is no readable MATLAB file .*; give another\."):
        read_mat(path, ["a"], "give another")


def test_a_mat_file_that_crashes_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.ones(3)})
    # Whatever the file, the reader ends as by a fault of memory: the child imports this instead of SciPy's.
    fake = tmp_path / "fake" / "scipy" / "io"
    fake.mkdir(parents=True)
    (fake.parent / "__init__.py").touch()
    (fake / "__init__.py").write_text("import os, signal\ndef loadmat(*a, **k): os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    with pytest.raises(FmriModelsError, match=r"a\.mat is damaged \(its reader crashed\); give another"):
        read_mat(path, ["a"], "give another")


@pytest.mark.slow
def test_bombs(tmp_path: Path) -> None:
    quick = ["a zip of zeros", "a zip by bzip2", "a PNG of 178,000,000 x 1", "2^63 - 1 voxels"]
    command = [sys.executable, "-m", "tests.data.bombs", str(tmp_path), *quick]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in result.stdout.splitlines() if ": ok: " not in line] == []
    assert len(result.stdout.splitlines()) == len(quick)


@pytest.mark.slow
def test_all_bombs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.data.bombs", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in result.stdout.splitlines() if ": ok: " not in line] == []
    assert len(result.stdout.splitlines()) == len(BOMBS)


def test_tables_are_equal_to_the_byte(tmp_path: Path) -> None:
    for name in "ab":
        write_table(tmp_path / name)
    first, second = (
        {
            file.relative_to(tmp_path / name): file.read_bytes()
            for file in (tmp_path / name).rglob("*")
            if file.is_file()
        }
        for name in "ab"
    )
    assert first == second and len(first) == 7


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> # [a](b) *x*"
    with TrialTableWriter(tmp_path / "t", evil, description=f"{evil}\n# heading", license=evil, source=evil) as writer:
        writer.add_stimuli([{"stimulus_id": "a", "image": None}])
        writer.add_trials("s", "train", ["a"], np.ones((1, 2)))
    card = (tmp_path / "t" / "README.md").read_text().split("---\n", 2)[2]
    assert "<script>" not in card and "\n# heading" not in card and "[a](b)" not in card
    assert TrialTable.open(tmp_path / "t").name == evil
    for key in ("name", "license", "source"):
        with pytest.raises(FmriModelsError, match=r"U\+000A"):
            TrialTableWriter(tmp_path / "u", **{"name": "a", key: "a\n# b"})
    with pytest.raises(FmriModelsError, match=r"U\+001B"):
        TrialTableWriter(tmp_path / "u", "\x1b[31m")
