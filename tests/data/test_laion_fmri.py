"""LAION-fMRI, from a folder in the published layout to a table and a report."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.validation import validate_table
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import laion_fmri as made

pytest.importorskip("nibabel")


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("laion_fmri")(source, out, **{"overwrite": True, "incomplete": True, **options})
    return TrialTable.open(out)


def plain(label: str) -> str:
    return label.rpartition(".")[0].replace("+", "plus")


def test_every_beta_is_where_it_belongs(tmp_path: Path) -> None:
    table = prepared(made.write(tmp_path / "laion", ("sub-01", "sub-03")), tmp_path / "table", voxels="brain")
    assert table.subjects == ["sub-01", "sub-03"] and validate_table(table.path) == []
    for subject in table.subjects:
        trials = table.all_trials(subject)
        order = np.argsort(trials.trials)
        counts = [len(made.labels(subject, session)) for session in range(made.SESSIONS)]
        shown = [(session, place) for session, count in enumerate(counts) for place in range(count)]
        expected = np.stack([made.betas(subject, session)[..., place][made.brain()] for session, place in shown])
        assert np.allclose(trials.fmri()[order], expected, atol=1e-2)
        assert trials.stimulus_ids[order].tolist() == [plain(made.labels(subject, s)[t]) for s, t in shown]
        assert trials.sessions[order].tolist() == [session + 1 for session, _ in shown]
        assert trials.runs[order].tolist() == [1 + place // 5 for _, place in shown]
        # All shared pictures are tested, unusual ones, too.
        tested = set(table.trials(subject, "test").stimulus_ids.tolist())
        assert tested == {plain(label) for label in [*made.SHARED, *made.OOD]}
    assert np.array_equal(table.stimuli.images([plain(made.OOD[0])])[0], made.picture(made.OOD[0]))
    voxels = table.voxels("sub-01")
    indices = np.argwhere(made.brain())
    assert np.allclose(voxels.coordinates, indices @ made.AFFINE[:3, :3].T + made.AFFINE[:3, 3], atol=1e-3)
    assert voxels.roi == ["early" if x < 1 else "visual" if x < 3 else "" for x, _, _ in indices]
    assert voxels.grid is not None and voxels.grid.shape == made.SHAPE
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and (terms.name, terms.weights, terms.stimuli) == ("laion-fmri", "allowed", "forbidden")


def test_voxels_of_regions_and_ceilings(tmp_path: Path) -> None:
    source = made.write(tmp_path / "laion")
    table = prepared(source, tmp_path / "table")
    chosen = made.brain() & made.regions()["visual"]
    assert table.num_voxels("sub-01") == chosen.sum()
    ceiling = np.arange(np.prod(made.SHAPE)).reshape(made.SHAPE)[chosen] / 100
    voxels = table.voxels("sub-01")
    assert voxels.noise_ceiling is not None and np.allclose(voxels.noise_ceiling, ceiling, atol=1e-6)
    early = prepared(source, tmp_path / "table", rois=["early"])
    assert early.num_voxels("sub-01") == (made.brain() & made.regions()["early"]).sum()
    whole = prepared(source, tmp_path / "table", rois=["visual"])
    assert whole.num_voxels("sub-01") == chosen.sum()


def test_splits_of_the_release(tmp_path: Path) -> None:
    source = made.write(tmp_path / "laion", ("sub-01", "sub-03"))
    table = prepared(source, tmp_path / "table", test_set="tau", validation_fraction=0)
    for subject in table.subjects:
        own = [plain(label) for label in made.unique(subject)]
        shared = plain(made.SHARED[int(subject[-2:]) % 4])
        assert set(table.trials(subject, "test").stimulus_ids.tolist()) == {shared, own[1]}
        # Neither unusual pictures, nor the one of no part, nor what the other subject is tested on.
        others = {plain(made.SHARED[1]), plain(made.SHARED[3])}
        learned = {*own[2:], *map(plain, made.SHARED)} - others
        assert set(table.trials(subject, "train").stimulus_ids.tolist()) == learned
    ood = prepared(source, tmp_path / "table", test_set="ood")
    assert set(ood.trials("sub-01", "test").stimulus_ids.tolist()) == set(map(plain, made.OOD))
    with pytest.raises(FmriModelsError, match=r"random_3.json.*ViCCo-Group/LAION-fMRI"):
        prepared(source, tmp_path / "other", test_set="random_3")


def func(folder: Path) -> Path:
    return folder / "derivatives" / "glmsingle-tedana" / "sub-01" / "ses-01" / "func"


def fewer_rows(folder: Path) -> None:
    path = next(func(folder).glob("*_trials.tsv"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]) + "\n")


def index_twice(folder: Path) -> None:
    path = next(func(folder).glob("*_trials.tsv"))
    path.write_text(path.read_text().replace("\t0\tunique", "\t1\tunique"))


def cut(folder: Path) -> None:
    path = next(func(folder).glob("*statmap.nii.gz"))
    path.write_bytes(path.read_bytes()[:-60])


def other_grid(folder: Path) -> None:
    path = folder / "derivatives" / "atlases" / "sub-01" / "rois" / "early.nii.gz"
    made.save(path, np.ones((3, 3, 3)))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: None, {"subjects": ["sub-02"]}, "has no subject of LAION-fMRI"),
        (lambda folder: None, {"test_set": "taau"}, "Did you mean 'tau'"),
        (lambda folder: next(func(folder).glob("*statmap.nii.gz")).unlink(), {}, "is missing; download the session"),
        (fewer_rows, {}, "has 11 trials, and its table 10 rows"),
        (index_twice, {}, "other values of beta_index than 0 to 10"),
        (cut, {}, "cut short"),
        (other_grid, {}, "another grid"),
        (lambda folder: next((folder / "stimuli/images").glob("unique*")).unlink(), {}, "1 of 14 pictures are missing"),
        (lambda folder: None, {"images": Path("nowhere")}, "pictures' folder nowhere does not exist"),
    ],
)
def test_other_files_are_a_sentence_and_no_table(tmp_path: Path, change, options, message: str) -> None:
    folder = made.write(tmp_path / "laion")
    change(folder)
    with pytest.raises(FmriModelsError, match=message) as caught:
        prepared(folder, tmp_path / "table", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "table").exists()


def test_to_a_report(tmp_path: Path) -> None:
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    prepared(made.write(tmp_path / "laion"), tmp_path / "table", repetitions="average_test")
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == len(made.SHARED) + len(made.OOD)


def test_half_a_download_is_refused(tmp_path: Path) -> None:
    source = made.write(tmp_path / "source")
    with pytest.raises(
        FmriModelsError, match=r"sub-01 has \d+ pictures in \d+ sessions, and not 5,833 or more.*incomplete"
    ):
        prepared(source, tmp_path / "t", incomplete=False)
