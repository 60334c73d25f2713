"""Simulated trials without a stimulus: rest and viewing, beside parts that they don't change."""

import numpy as np
import pytest
from PIL import Image

from fmri_models.data.table import TrialTable
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError
from fmri_models.simulation import simulate

SIZES = {"num_subjects": 2, "num_voxels": 120, "num_train": 40, "num_validation": 4, "num_test": 6, "repetitions": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    simulate("builtin:scenes", folder / "plain", **SIZES)
    simulate("builtin:scenes", folder / "more", unlabelled=301, **SIZES)
    return folder


def test_all_other_files_are_the_same_bytes(folders):
    plain = {p.relative_to(folders / "plain"): p.read_bytes() for p in (folders / "plain").rglob("*.parquet")}
    more = {p.relative_to(folders / "more"): p.read_bytes() for p in (folders / "more").rglob("*.parquet")}
    assert {path: more[path] for path in plain} == plain
    assert {path.name for path in more.keys() - plain.keys()} == {"unlabelled-00000-of-00001.parquet"}


def test_they_are_half_rest_and_half_viewing(folders):
    table = TrialTable.open(folders / "more")
    assert validate_table(folders / "more") == []
    for subject in table.subjects:
        counts = [len(table.trials(subject, part)) for part in ("unlabelled", "unlabelled_rest", "unlabelled_viewing")]
        assert counts == [301, 151, 150]
        sessions = table.all_trials(subject).sessions
        assert set(table.trials(subject, "unlabelled").sessions) <= set(sessions)


def test_viewing_has_the_variance_of_responses_and_rest_that_of_noise(folders):
    table = TrialTable.open(folders / "more")
    ncsnr = table.voxels("subj01").ncsnr
    best = np.argsort(-ncsnr)[:30]
    spread = {
        part: table.trials("subj01", part).fmri()[:, best].var(axis=0).mean()
        for part in ("train", "unlabelled_rest", "unlabelled_viewing")
    }
    assert spread["unlabelled_rest"] < 0.9 * spread["unlabelled_viewing"]
    assert 0.75 < spread["unlabelled_viewing"] / spread["train"] < 1.33


def test_one_kind_alone(tmp_path):
    simulate("builtin:scenes", tmp_path / "t", unlabelled=5, unlabelled_kinds=["rest"], **SIZES)
    table = TrialTable.open(tmp_path / "t")
    assert len(table.trials("subj01", "unlabelled_rest")) == len(table.trials("subj01", "unlabelled")) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unlabelled": -1}, "expected 0 to"), ({"unlabelled": 4, "unlabelled_kinds": ["sleep"]}, "rest, viewing")],
)
def test_what_makes_no_sense_is_refused(tmp_path, options, message):
    with pytest.raises(FmriModelsError, match=message):
        simulate("builtin:scenes", tmp_path / "t", **options, **SIZES)


def test_withheld_pictures_of_a_folder_are_those_that_nobody_learns_from(tmp_path):
    for seed in range(20):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"p{seed:02d}.png")
    sizes = {"num_voxels": 60, "num_train": 10, "num_validation": 2, "num_test": 3, "repetitions": 2}
    simulate(tmp_path, tmp_path.parent / "few", unlabelled=8, **sizes)
    table = TrialTable.open(tmp_path.parent / "few")
    assert (len(table.trials("subj01", "unlabelled_viewing")), len(table.stimuli.ids)) == (4, 15)
    with pytest.raises(FmriModelsError, match="6 unlabelled viewing trials need as many further pictures, and 5 are"):
        simulate(tmp_path, tmp_path.parent / "many", unlabelled=12, **sizes)
