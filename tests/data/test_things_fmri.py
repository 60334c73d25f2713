"""`fmri-models prepare things_fmri` on small tables in the published layout."""

import json

import h5py
import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from tests.fabricated import things_fmri as things

CHOSEN = [voxel for voxel in range(things.VOXELS) if any(things.regions(voxel).values())]
ROWS = things.trials()


def prepared(source, out, **options) -> TrialTable:
    load_preparation("things_fmri")(source, out, incomplete=True, **options)
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return things.write_things(tmp_path_factory.mktemp("things") / "source")


def of_stimulus(trials, stimulus: str, session: int) -> np.ndarray:
    return trials.fmri()[(trials.stimulus_ids == stimulus) & (trials.sessions == session)][0]


def test_each_trial_has_its_column(folder, tmp_path):
    table = prepared(folder, tmp_path / "table")
    trials = table.all_trials("subj01")
    assert len(trials) == len(ROWS)
    for place, row in enumerate(ROWS):
        found = of_stimulus(trials, row["stimulus"].removesuffix(".jpg"), int(row["session"]))
        assert np.allclose(found, things.responses()[CHOSEN, place], atol=1e-6)
    test = table.trials("subj01", "test")
    assert set(test.stimulus_ids.tolist()) == {"aardvark_99s", "ball_99s"} and len(test) == 6
    voxels = table.voxels("subj01")
    assert voxels.roi == ["V1" if things.regions(voxel)["V1"] else "IT" for voxel in CHOSEN]
    assert np.allclose(voxels.noise_ceiling, [0.04 * voxel for voxel in CHOSEN], atol=1e-6)
    assert (voxels.source, voxels.repetitions) == ("release", 12)
    # Indices of 2 mm voxels, as the table has no affine.
    assert np.array_equal(voxels.coordinates, [(2.0 * voxel, 2.0, 4.0) for voxel in CHOSEN])
    assert set(table.stimuli.categories()) == set(things.CONCEPTS)


def test_all_voxels_and_new_concepts(folder, tmp_path):
    table = prepared(folder, tmp_path / "table", voxels="all", leave_out_tested_concepts=True)
    assert table.num_voxels("subj01") == things.VOXELS
    shown = dict(zip(table.stimuli.ids, table.stimuli.categories(), strict=True))
    trained = {shown[s] for part in ("train", "validation") for s in table.trials("subj01", part).stimulus_ids}
    assert trained == {"cup", "dog"}


def test_a_table_without_pictures_says_so(tmp_path):
    table = prepared(things.write_things(tmp_path / "source", pictures=False), tmp_path / "table")
    assert "were not there" in (table.path / "README.md").read_text()


def test_what_is_wrong_is_a_sentence(folder, tmp_path, capsys):
    with pytest.raises(FmriModelsError, match="24 trials, and not 9,840"):
        load_preparation("things_fmri")(folder, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert main(["prepare", "things_fmri", "--source", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert "figshare" in capsys.readouterr().err
    source = things.write_things(tmp_path / "source")
    (source / "images" / "cup").rename(source / "images" / "mug")
    with pytest.raises(FmriModelsError, match="There is no picture .*cup_.*; betas_csv is at"):
        prepared(source, tmp_path / "out")
    with h5py.File(source / "betas_csv/sub-01_ResponseData.h5", "w") as file:
        file["ResponseData/block0_values"] = things.responses()[:, 1:]
    with pytest.raises(FmriModelsError, match=r"shape \(20, 23\); expected \(20, 24\)"):
        prepared(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_from_the_tables_to_a_report(folder, tmp_path):
    out = tmp_path / "table"
    assert (
        main(["prepare", "things_fmri", "--source", str(folder), "--out", str(out), "--option", "incomplete=yes"]) == 0
    )
    assert main(["train", "linear", f"data={out}", f"out={tmp_path / 'model'}", "generator=pixels"]) == 0
    command = ["evaluate", "--model", str(tmp_path / "model"), "--data", str(out), "--protocol", "small_pictures"]
    assert main([*command, "--rows", "shuffled_brain", "--out", str(tmp_path / "report")]) == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["data"]["test_repetitions"] == [3, 3]
