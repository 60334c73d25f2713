import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter, schema
from fmri_models.data.parquet import file_sha256
from fmri_models.data.validation import validate_table
from fmri_models.processing.image_grid import positions_sha256

VOXELS = "voxels/subj01.parquet"
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


def learned_too(table: pa.Table) -> pa.Table:
    """Takes a validation stimulus of both subjects for training."""
    parts = zip(table["split"].to_pylist(), table["stimulus_id"].to_pylist(), strict=True)
    return column(table, "split", ["train" if stimulus == "s17" else part for part, stimulus in parts])


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
FAULTS |= {
    "ceiling source": (
        VOXELS,
        lambda t: changed(t, "noise_ceiling_source", 0, None),
        "1 voxels of subj01 have a noise ceiling of which noise_ceiling_source",
    ),
    "ceiling repetitions": (
        VOXELS,
        lambda t: changed(t, "noise_ceiling_repetitions", 0, None),
        "noise_ceiling_repetitions doesn't say",
    ),
    "two sources": (
        VOXELS,
        lambda t: changed(t, "noise_ceiling_source", 0, "release"),
        "several sources (release, simulated truth)",
    ),
    "two repetitions": (VOXELS, lambda t: changed(t, "noise_ceiling_repetitions", 0, 7), "several repetitions (3, 7)"),
    "ceiling NaN": (
        VOXELS,
        lambda t: changed(t, "noise_ceiling", 0, float("nan")),
        "values in the column noise_ceiling",
    ),
    "position infinite": (VOXELS, lambda t: changed(t, "y", 0, float("inf")), "values in the column y"),
    "half a position": (
        VOXELS,
        lambda t: changed(t, "y", 0, None),
        "1 voxels of subj01 have some of x, y and z and not all",
    ),
    "two spaces": (VOXELS, lambda t: changed(t, "space", 0, "MNI"), "several spaces ('MNI', 'toy')"),
    "a part of another file": (
        "splits/default.parquet",
        learned_too,
        "1 of 3 trials of subj01 in train that the files, and table.json, have in validation",
    ),
    "a trial without a part": (
        "splits/default.parquet",
        lambda t: t.slice(1),
        "in no part that the files, and table.json, have in train",
    ),
}


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


def run_of(value: float | None) -> Callable[[pa.Table], pa.Table]:
    """Fills the second run, of 16 trials, with one value; with one pattern, if None."""

    def fill(table: pa.Table) -> pa.Table:
        fmri = schema.fmri_matrix(table["fmri"], 30).copy()
        fmri[16:] = fmri[16] if value is None else value
        return column(table, "fmri", schema.fmri_array(fmri))

    return fill


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "Session 1, run 2 of subj01 has NaN or infinite betas in all of its 16 trials"),
        (0, "Session 1, run 2 of subj01 has the same betas in all of its 16 trials"),
        (None, "Session 1, run 2 of subj01 has the same betas in all of its 16 trials"),
    ],
)
def test_a_run_of_which_nothing_was_measured_is_named(
    value: float | None, message: str, write_table: Callable[..., Path]
) -> None:
    table = write_table(runs=True)
    assert validate_table(table) == []
    rewrite(table, TRIALS, run_of(value))
    assert any(message in finding for finding in validate_table(table))


SHAPE = (4, 5, 6)
AFFINE = np.array([[2, 0, 0, -3], [0, 2, 0.1, -7], [0, 0, 2, 4], [0, 0, 0, 1]], dtype=float)


def write_volumes(path: Path, positions: np.ndarray, dropped: int = 0) -> Path:
    """A table of the voxels at some flat positions of a volume, of which the last few are dropped."""
    places = np.stack(np.unravel_index(positions, SHAPE), axis=1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    kept = len(positions) - dropped
    columns = {"source_columns": np.arange(kept), "source_width": len(positions)} if dropped else {}
    with TrialTableWriter(path, "volumes") as writer:
        writer.add_stimuli({"stimulus_id": f"s{number}", "image": None} for number in range(6))
        writer.add_voxels("subj01", kept, coordinates=places[:kept], space="scanner", **columns)
        ids = [f"s{number}" for number in range(6)]
        writer.add_trials("subj01", "train", stimulus_ids=ids, fmri=np.random.default_rng(0).normal(size=(6, kept)))
        grid = {"shape": list(SHAPE), "affine": AFFINE.tolist(), "sha256": positions_sha256(positions)}
        writer.extra["grids"] = {"subj01": grid}
    return path


def edit_grid(path: Path, subject: str = "subj01", **changes: object) -> None:
    metadata = json.loads((path / "table.json").read_text())
    metadata["grids"] = {subject: metadata["grids"]["subj01"] | changes}
    (path / "table.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize("dropped", [0, 3])
def test_a_mask_fits_the_voxels_that_it_has(tmp_path: Path, dropped: int) -> None:
    table = write_volumes(tmp_path / "table", np.arange(5, 45, 2), dropped)
    assert validate_table(table) == []
    assert TrialTable.open(table).voxels("subj01").grid is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "The mask of subj01 in table.json has another SHA-256 than the 20 voxels"),
        ({"shape": [4, 5, 3]}, "of 20 voxels of subj01 have positions where the volumes"),
        (
            {"shape": [2, 3, 3]},
            "subj01 has 20 voxels, and the volumes that its betas came from 2 x 3 x 3, which are fewer",
        ),
        ({"affine": [[0, 0, 0, 1]] * 4}, "The affine of subj01 in table.json can't be inverted"),
        ({"subject": "subj09"}, "table.json has grids of subj09, which the table doesn't have as subjects"),
    ],
)
def test_a_grid_that_is_another_one_is_found(tmp_path: Path, changes: dict, message: str) -> None:
    table = write_volumes(tmp_path / "table", np.arange(5, 45, 2))
    edit_grid(table, **changes)
    findings = validate_table(table)
    assert any(message in finding for finding in findings), findings


def test_one_voxel_twice_is_found(tmp_path: Path) -> None:
    table = write_volumes(tmp_path / "table", np.array([5, 7, 7, 9]))
    assert "1 voxels of subj01 have the position of another one" in validate_table(table)[0]


def test_positions_in_another_space_and_alike_regions_are_notes(tmp_path: Path, table_path: Path) -> None:
    table = write_volumes(tmp_path / "volumes", np.arange(5, 45, 2))
    moved = AFFINE.copy()
    moved[:3, 3] += 0.7
    edit_grid(table, affine=moved.tolist())
    notes: list[str] = []
    assert validate_table(table, note=notes.append) == []
    assert any("are in another space (scanner)" in note for note in notes)
    rewrite(table_path, VOXELS, lambda t: changed(t, "roi", 0, "v 1"))
    notes.clear()
    assert validate_table(table_path, note=notes.append) == []
    assert any("differ in case or spaces alone ('V1', 'v 1')" in note for note in notes)
