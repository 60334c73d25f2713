import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmri_models.cli.main import main
from fmri_models.data import schema
from fmri_models.data.parquet import file_sha256
from fmri_models.data.validation import validate_table

TRIALS = "trials/subj01/train-00000-of-00001.parquet"
STIMULI = "stimuli/stimuli-00000-of-00001.parquet"


def rewrite(path: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes a file and its hash, as a faulty program of somebody else would."""
    table = change(pq.read_table(path / name))
    pq.write_table(table, path / name)
    metadata = json.loads((path / "table.json").read_text())
    metadata["files"][name] = {"sha256": file_sha256(path / name), "bytes": (path / name).stat().st_size}
    (path / "table.json").write_text(json.dumps(metadata))


def column(table: pa.Table, name: str, values: object) -> pa.Table:
    index = table.column_names.index(name)
    return table.set_column(index, name, values if isinstance(values, pa.Array) else pa.array(values))


def changed(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    return column(table, name, pa.array(values, table.schema.field(name).type))


def with_nan(table: pa.Table) -> pa.Table:
    fmri = schema.fmri_matrix(table["fmri"], 30).copy()
    fmri[3, 4] = np.nan
    return column(table, "fmri", schema.fmri_array(fmri))


def test_nothing_is_wrong_with_what_the_writer_writes(table_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate_table(table_path) == []
    assert main(["data", "validate", str(table_path)]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    assert main(["data", "info", str(table_path)]) == 0
    out = capsys.readouterr().out
    assert "subj02: 17 voxels, 40 trials (32 train, 3 validation, 5 test), 1 session" in out
    assert "mean noise ceiling 0.429 of 3 averaged repetitions (simulated truth)" in out


FAULTS: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "NaN": (TRIALS, with_nan, "NaN or infinite betas in 1 trials (first: trial 3)"),
    "width": (TRIALS, lambda t: column(t, "fmri", schema.fmri_array(np.ones((32, 29), np.float16))), "the type fixed"),
    "column": (TRIALS, lambda t: t.drop_columns(["run"]), "has no column 'run'"),
    "type": (TRIALS, lambda t: column(t, "session", ["1"] * 32), "session has the type string; expected int32"),
    "trial": (TRIALS, lambda t: changed(t, "trial", 3, 4), "1 trial numbers more than once (4)"),
    "stimulus": (TRIALS, lambda t: changed(t, "stimulus_id", 3, "dog"), "1 stimuli that the table doesn't have (dog)"),
    "subject": (TRIALS, lambda t: changed(t, "subject", 3, "subj02"), "has trials of subj02"),
    "rows": (TRIALS, lambda t: t.slice(0, 31), "31 trials in train; table.json says 32"),
    "voxels": ("voxels/subj01.parquet", lambda t: t.slice(0, 29), "29 rows; subj01 has 30 voxels"),
    "voxel order": ("voxels/subj01.parquet", lambda t: changed(t, "index", 1, 7), "doesn't count from 0 to 29"),
    "picture": (STIMULI, lambda t: changed(t, "image", 2, {"bytes": b"?", "path": None}), "s02 can't be decoded"),
    "content": (STIMULI, lambda t: changed(t, "content_sha256", 2, "0" * 64), "s02 is not the one of its"),
    "ids": (STIMULI, lambda t: changed(t, "stimulus_id", 2, "s01"), "1 stimulus ids are there more than once (s01)"),
    "split": ("splits/default.parquet", lambda t: changed(t, "split", 0, "test"), "s00 is in test and in train"),
    "split part": ("splits/default.parquet", lambda t: changed(t, "split", 0, "val"), "has the part 'val'"),
    "split trial": ("splits/default.parquet", lambda t: changed(t, "trial", 0, 99), "names trial 99 of subj01"),
    "split twice": ("splits/default.parquet", lambda t: pa.concat_tables([t, t.slice(0, 1)]), "0 of subj01 twice"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, table_path: Path) -> None:
    name, change, message = FAULTS[fault]
    rewrite(table_path, name, change)
    findings = validate_table(table_path)
    assert any(message in finding for finding in findings), findings


def test_the_same_picture_in_two_parts_is_found_by_content(table_path: Path) -> None:
    def twin(table: pa.Table) -> pa.Table:
        source = {name: table[name][0].as_py() for name in ("image", "content_sha256")}
        for name, value in source.items():
            table = changed(table, name, 20, value)
        return table

    rewrite(table_path, STIMULI, twin)
    (finding,) = validate_table(table_path)
    assert "same picture (s00 and s20)" in finding or "same picture (s20 and s00)" in finding


def test_changed_missing_and_foreign_files_are_findings(table_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = table_path / TRIALS
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    (table_path / "voxels/subj02.parquet").unlink()
    (table_path / "trials/subj01/train-00001-of-00001.parquet").write_bytes(content)
    assert main(["data", "validate", str(table_path)]) == 1
    captured = capsys.readouterr()
    assert f"{TRIALS} was changed" in captured.out
    assert "voxels/subj02.parquet is missing" in captured.out
    assert "does not belong to the table" in captured.out
    assert "3 problems" in captured.err


def test_what_is_no_table_is_a_finding(tmp_path: Path) -> None:
    (finding,) = validate_table(tmp_path)
    assert "no table.json" in finding
