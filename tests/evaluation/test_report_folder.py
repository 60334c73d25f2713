"""A report's folder: all files of one evaluation together, whatever kills it, and nobody else's touched."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, RowData, Scores, get_protocol, write_report
from fmri_models.evaluation.items_file import brain_items, brain_items_of
from fmri_models.evaluation.picture_files import earlier_pictures
from fmri_models.evaluation.report_folder import check_report_folder
from fmri_models.evaluation.scores import ITEM_SCHEMA
from tests.evaluation.toy_report import COUNT

PROTOCOL = get_protocol("small_pictures")
OTHERS = ("notes.txt", "images/holiday.png", "images/brain/holiday.png", "pipeline/model_index.json")


def write(folder: Path, ids: list[str], value: float, row: str = "brain") -> None:
    """A report of pictures of one colour, all of whose scores are `value`."""
    pictures = torch.full((len(ids), 1, 8, 8), value)
    values = {row: {"pixcorr": np.full(len(ids), value)}}
    scores = Scores(values, np.array(["subj01"] * len(ids)), np.array(ids), np.zeros(len(ids), np.int64), pool_size=3.0)
    report = Report.from_scores(scores, PROTOCOL, draws=10, notes=[f"value {value}"])
    write_report(folder, report, scores, {row: RowData(pictures)}, pictures)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def expected(ids: list[str], row: str = "brain") -> set[str]:
    pictures = {f"images/{place}/{name}.png" for place in ("truth", row) for name in ids}
    return {"report.json", "report.md", "report.html", "grid.png", "items.parquet", *pictures}


@pytest.fixture
def folder(tmp_path):
    for name in OTHERS:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("somebody's")
    write(tmp_path / "out", ["a", "b", "c"], 0.25)
    return tmp_path / "out"


def test_everything_is_written_and_other_content_stays(report, scores, material, tmp_path):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "weights").write_text("kept")
    for _ in range(2):
        written = write_report(tmp_path, report, scores, material["rows"], material["truth"])
        assert all(path.exists() for path in written)
    assert (tmp_path / "pipeline" / "weights").read_text() == "kept"
    assert not list(tmp_path.glob(".partial*"))
    table = pq.read_table(tmp_path / "items.parquet")
    assert table.column_names == ["row", "metric", "subject", "stimulus_id", "seed", "value"]
    brain = table.to_pandas().query("row == 'brain' and metric == 'pixcorr'")
    assert brain.value.mean() == pytest.approx(report.results["brain"]["pixcorr"]["value"])
    assert len(list((tmp_path / "images" / "truth").iterdir())) == COUNT
    assert (tmp_path / "images" / "brain" / "subj02" / "s03.png").is_file()
    assert not (tmp_path / "images" / "ridge").exists()
    html = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in html
    assert "http://" not in html
    assert "https://" not in html


def test_a_second_report_replaces_the_first_and_nothing_else(folder):
    assert files(folder) == expected(["a", "b", "c"]) | set(OTHERS)
    write(folder, ["b", "d"], 0.5)
    assert files(folder) == expected(["b", "d"]) | set(OTHERS)
    assert all((folder / name).read_text() == "somebody's" for name in OTHERS)
    write(folder, ["b", "d"], 0.5, row="floor")
    assert files(folder) == expected(["b", "d"], "floor") | set(OTHERS)


def test_pictures_of_several_trials_are_removed_by_their_numbers(folder):
    write(folder, ["a", "a", "a"], 0.5)
    assert "images/brain/a-3.png" in files(folder)
    write(folder, ["a", "a"], 0.5)
    assert "images/brain/a-2.png" in files(folder)
    assert "images/brain/a-3.png" not in files(folder)


def test_without_readable_items_all_pictures_stay(folder):
    (folder / "items.parquet").write_bytes(b"x")
    assert earlier_pictures(folder) == []
    write(folder, ["b"], 0.5)
    assert "images/brain/a.png" in files(folder)
    assert brain_items_of(Report.load(folder))["pixcorr"] == {("subj01", "b"): [0.5]}


def _write_and_be_killed(folder: Path, step: int) -> None:
    """Kills the process when it makes, moves or removes something for the `step`-th time."""
    count = 0

    def killing(call):
        def counted(*arguments, **options):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
        setattr(os, name, killing(getattr(os, name)))
    write(folder, ["b", "d"], 0.5)


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_one_evaluation(folder, tmp_path):
    fork = multiprocessing.get_context("fork")
    seen = []
    for step in range(1, 200):
        out = tmp_path / "killed" / "out"
        shutil.copytree(folder, out)
        process = fork.Process(target=_write_and_be_killed, args=(out, step))
        process.start()
        process.join()
        report = Report.load(out)
        value = report.results["brain"]["pixcorr"]["value"]
        ids = {0.25: ["a", "b", "c"], 0.5: ["b", "d"]}[value]
        assert files(out) == expected(ids) | set(OTHERS), step
        assert brain_items_of(report)["pixcorr"] == {("subj01", each): [value] for each in ids}
        assert f"value {value}" in (out / "report.md").read_text()
        assert f"value {value}" in (out / "report.html").read_text()
        write(out, ["e"], 0.75)
        assert files(out) == expected(["e"]) | set(OTHERS), step
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        shutil.rmtree(out)
        seen.append(value)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert seen == sorted(seen)
    assert {0.25, 0.5} == set(seen)
    assert len(seen) > 20


def test_items_of_another_evaluation_are_not_joined(folder, tmp_path):
    write(tmp_path / "other", ["a", "b", "c"], 0.5)
    shutil.copy(tmp_path / "other" / "items.parquet", folder)
    with pytest.raises(FmriModelsError, match="another evaluation than the report.json beside it"):
        brain_items_of(Report.load(folder))
    content = json.loads((folder / "report.json").read_text())
    del content["items_sha256"]
    (folder / "report.json").write_text(json.dumps(content))
    with pytest.raises(FmriModelsError, match="another evaluation"):
        brain_items_of(Report.load(folder))
    write(tmp_path / "same", ["a", "b", "c"], 0.25)
    shutil.copy(tmp_path / "same" / "items.parquet", folder)
    assert len(brain_items_of(Report.load(folder))["pixcorr"]) == 3
    (folder / "items.parquet").unlink()
    assert brain_items_of(Report.load(folder)) is None


def items(folder: Path, **changes) -> Path:
    columns = {"row": ["brain"], "metric": ["mse"], "subject": ["subj01"], "stimulus_id": ["a"], "seed": [0]}
    table = pa.table({**columns, "value": [0.5]}, schema=ITEM_SCHEMA)
    for name, column in changes.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, folder / "items.parquet")
    return folder / "items.parquet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": pa.array([float("nan")])}, "has the value nan; expected finite"),
        ({"value": pa.array([float("inf")])}, "has the value inf"),
        ({"value": pa.array(["0.5"])}, "string in the column value; expected double"),
        ({"value": pa.array([True])}, "bool in the column value"),
        ({"seed": pa.array([0.0])}, "double in the column seed"),
        ({"row": pa.array([None], pa.string())}, "item without a row"),
        ({"stimulus_id": pa.array(["a\nb"])}, "not one line|one line without control"),
        ({"subject": pa.array(["x" * 2000])}, "a text of 2000 bytes"),
        ({"metric": pa.array([["mse"]])}, "in the column metric; expected string"),
    ],
)
def test_items_are_read_against_a_schema(tmp_path, changes, message):
    with pytest.raises(FmriModelsError, match=message):
        brain_items(items(tmp_path, **changes))


def test_values_may_be_missing_and_text_in_dictionaries(tmp_path):
    assert brain_items(items(tmp_path, value=pa.array([None], pa.float64()))) == {}
    path = items(tmp_path, stimulus_id=pa.array(["a"]).dictionary_encode())
    assert brain_items(path) == {"mse": {("subj01", "a"): [0.5]}}


def test_what_are_no_items_is_a_sentence(tmp_path):
    path = items(tmp_path)
    data = path.read_bytes()
    for broken in (b"", b"PAR1", data[: len(data) // 2], data[:-4] + b"PAR2"):
        path.write_bytes(broken)
        with pytest.raises(FmriModelsError, match="can't be read"):
            brain_items(path)
    pq.write_table(pq.read_table(items(tmp_path)).drop_columns(["metric"]), path)
    with pytest.raises(FmriModelsError, match="has the columns row, subject"):
        brain_items(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FmriModelsError, match="no regular file"):
        brain_items(path)


def test_a_small_file_of_many_rows_is_refused_at_once(tmp_path):
    rows = 5_000_001
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), ["brain"])
    path = items(tmp_path)
    table = pa.table(dict.fromkeys(ITEM_SCHEMA.names[:4], column))
    zeros = pa.array(np.zeros(rows))
    pq.write_table(table.append_column("seed", zeros.cast(pa.int64())).append_column("value", zeros), path)
    with pytest.raises(FmriModelsError, match="5000001 rows; expected 5000000 at most"):
        brain_items(path)


def test_an_output_folder_is_checked_before_the_work(folder, tmp_path):
    with pytest.raises(FmriModelsError, match="not empty.*--overwrite"):
        check_report_folder(folder)
    check_report_folder(folder, overwrite=True)
    for pictures in (folder, folder / "images", folder / "images" / "brain"):
        with pytest.raises(FmriModelsError, match="would replace pictures"):
            check_report_folder(folder, True, [tmp_path, pictures])
    check_report_folder(folder / "pipeline" / "report", True, [folder])
    shutil.rmtree(folder / "images")
    (folder / "images").symlink_to(tmp_path)
    with pytest.raises(FmriModelsError, match="no folder of its own"):
        check_report_folder(folder, overwrite=True)
    (folder / "images").unlink()
    (folder / "grid.png").unlink()
    (folder / "grid.png").mkdir()
    with pytest.raises(FmriModelsError, match="is a folder, and a file has to be written there"):
        check_report_folder(folder, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(folder):
    folder.chmod(0o500)
    try:
        with pytest.raises(FmriModelsError, match="no permission"):
            check_report_folder(folder, overwrite=True)
    finally:
        folder.chmod(0o700)


def test_rows_that_no_folder_can_be_named_after_are_refused(tmp_path):
    with pytest.raises(FmriModelsError, match="can't be used as a file name"):
        write(tmp_path / "out", ["a"], 0.5, row="../brain")
    assert list(tmp_path.iterdir()) == []
