import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.errors import FmriModelsError

from .conftest import betas, pictures


def test_everything_written_is_read(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    assert (table.name, table.simulated, table.subjects) == ("small", True, ["subj01", "subj02"])
    assert table.num_voxels("subj02") == 17
    trials = table.trials("subj02", "train")
    assert len(trials) == 32
    assert trials.stimulus_ids[17] == "s01"
    assert trials.repetitions.tolist() == [0] * 16 + [1] * 16
    np.testing.assert_allclose(trials.fmri(), betas(40, 17, 1)[:32], atol=4e-3)
    np.testing.assert_allclose(table.trials("subj02", "test").fmri([4, 0]), betas(40, 17, 1)[[39, 35]], atol=4e-3)
    names, clean = table.noise_free("subj01")
    assert names[2] == "s02"
    np.testing.assert_array_equal(clean, betas(24, 30, 7))
    voxels = table.voxels("subj01")
    assert voxels.roi[0] == "V1" and voxels.roi[-1] == ""
    assert voxels.coordinates.tolist()[1] == [3, 4, 5]
    np.testing.assert_allclose(voxels.noise_ceiling, 0.25 / (0.25 + 1 / 3), rtol=1e-6)
    assert (voxels.source, voxels.repetitions, voxels.space) == ("simulated truth", 3, "toy")


def test_stimuli(table_path: Path) -> None:
    stimuli = TrialTable.open(table_path).stimuli
    wanted = ["s05", "s01", "s05"]
    np.testing.assert_array_equal(stimuli.images(wanted), pictures()[[5, 1, 5]])
    assert stimuli.captions(["s01"]) == [["picture 1", "a picture"]]
    assert stimuli.categories(wanted) == ["c2", "c1", "c2"]
    assert stimuli.factors(["s23"]) == [{"kind": 23}]
    assert len(set(stimuli.content_hashes())) == len(stimuli) == 24
    assert "s05" in stimuli and "x" not in stimuli
    assert stimuli.images([]).shape[0] == 0
    with pytest.raises(FmriModelsError, match=r"no 1 of the 2 stimuli asked for \(dog\)"):
        stimuli.captions(["s01", "dog"])


def test_subsets_and_several_parts(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    both = table.trials("subj01", ["train", "validation"])
    assert len(both) == 35
    second = both.subset(both.repetitions == 1)
    assert len(second) == 16
    np.testing.assert_array_equal(second.fmri([2]), both.fmri([18]))
    gathered = [(rows, fmri) for rows, fmri in both.batches(10)]
    assert [len(rows) for rows, _ in gathered] == [10, 10, 10, 5]
    np.testing.assert_array_equal(np.concatenate([fmri for _, fmri in gathered]), both.fmri())
    assert gathered[0][1].dtype == np.float32


def test_missing_and_mixed_pictures(tmp_path: Path) -> None:
    with TrialTableWriter(tmp_path / "t", "t") as writer:
        writer.add_stimuli(
            [
                {"stimulus_id": "hidden", "image": None},
                {"stimulus_id": "small", "image": np.zeros((4, 4), np.uint8)},
                {"stimulus_id": "wide", "image": np.zeros((4, 6), np.uint8)},
            ]
        )
        writer.add_trials("subj01", "train", ["hidden", "small", "wide"], np.ones((3, 2)))
    stimuli = TrialTable.open(tmp_path / "t").stimuli
    assert stimuli.images(["small"]).shape == (1, 4, 4, 1)
    assert stimuli.content_hashes(["hidden"]) == [None]
    assert stimuli.factors(["hidden"]) == [None] and stimuli.captions(["hidden"]) == [[]]
    with pytest.raises(FmriModelsError, match="picture of stimulus hidden is missing"):
        stimuli.images(["small", "hidden"])
    with pytest.raises(FmriModelsError, match=r"small: 4x4, wide: 4x6"):
        stimuli.images(["small", "wide"])
    voxels = TrialTable.open(tmp_path / "t").voxels("subj01")
    assert voxels.coordinates is voxels.ncsnr is voxels.noise_ceiling is None
    assert TrialTable.open(tmp_path / "t").noise_free("subj01") is None


def test_names_that_are_not_there(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    with pytest.raises(FmriModelsError, match="no subject 'subj09'; it has subj01, subj02"):
        table.trials("subj09")
    with pytest.raises(FmriModelsError, match="no split 'kfold'; it has default"):
        table.trials("subj01", split_name="kfold")
    with pytest.raises(FmriModelsError, match="no part 'val'"):
        table.trials("subj01", "val")
    with pytest.raises(FmriModelsError, match="has 1 folds"):
        table.trials("subj01", fold=1)


def test_what_is_no_table(tmp_path: Path, table_path: Path) -> None:
    with pytest.raises(FmriModelsError, match="does not exist"):
        TrialTable.open(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(FmriModelsError, match="is a file"):
        TrialTable.open(tmp_path / "file")
    with pytest.raises(FmriModelsError, match=r"has no table\.json"):
        TrialTable.open(tmp_path)
    metadata = json.loads((table_path / "table.json").read_text())
    for change, message in (
        ({"schema": 2}, "newer version"),
        ({"schema": None}, "schema version None"),
        ({"files": None}, None),
    ):
        changed = {**metadata, **change}
        if message is None:
            del changed["files"]
        (table_path / "table.json").write_text(json.dumps(changed))
        with pytest.raises(FmriModelsError, match=message or "has no 'files'"):
            TrialTable.open(table_path)
    (table_path / "table.json").write_text("{")
    with pytest.raises(FmriModelsError, match="is no readable JSON"):
        TrialTable.open(table_path)


def test_broken_files_are_named(table_path: Path) -> None:
    file = table_path / "trials/subj01/train-00000-of-00001.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(FmriModelsError, match=r"train-00000-of-00001\.parquet has .* cut short"):
        TrialTable.open(table_path)
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    table = TrialTable.open(table_path)
    with pytest.raises(FmriModelsError, match=r"train-00000-of-00001\.parquet can't be read.*prepare the table again"):
        table.trials("subj01")
    file.unlink()
    with pytest.raises(FmriModelsError, match=r"lacks the file trials/subj01/train"):
        TrialTable.open(table_path)


def test_the_package_imports_lightly() -> None:
    code = (
        "import sys, fmri_models.data as d;"
        "heavy = {'torch', 'pyarrow', 'datasets', 'sklearn', 'PIL'} & set(sys.modules);"
        "print(sorted(heavy)); d.TrialTable"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_number_is_one_row_and_what_is_no_row_is_a_sentence(table_path: Path) -> None:
    trials = TrialTable.open(table_path).trials("subj01")
    np.testing.assert_array_equal(trials.fmri(3), trials.fmri([3]))
    np.testing.assert_array_equal(trials.fmri(np.int32(-1)), trials.fmri()[-1:])
    assert trials.subset(3).trials.tolist() == trials.trials[3:4].tolist()
    assert len(trials.fmri([])) == 0
    for rows in ([0.5], "3", [None]):
        with pytest.raises(FmriModelsError, match="expected whole numbers from 0, a boolean mask, or a slice"):
            trials.fmri(rows)


def test_what_opens_a_table_is_said(table_path: Path) -> None:
    with pytest.raises(FmriModelsError, match=r"^TrialTable\.open\('.*'\) opens a trial table\.$"):
        TrialTable(table_path)


def test_reprs_are_short(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    voxels = table.voxels("subj02")
    assert repr(voxels).startswith("Voxels(roi=['")
    assert f"source={voxels.source!r}" in repr(voxels)
    for each in (table, voxels, table.stimuli, table.trials("subj02")):
        assert len(repr(each)) < 1000
        assert " object at 0x" not in repr(each)
    assert repr(table.stimuli).endswith(f"{len(table.stimuli)} pictures)")
