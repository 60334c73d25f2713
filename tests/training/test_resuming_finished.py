"""What `--resume` keeps, and which weights a training starts from: only those of the same training, voxels and data."""

import shutil

import numpy as np
import pytest

from fmri_models import FmriProcessor, TrialTable
from fmri_models.cli.main import main
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_kfold
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.same_voxels import check_same_voxels
from fmri_models.training.trainer import train
from tests.small_table import write_kfold, write_small_table

WEAK = "stages.0.objective.penalties=[1.0e+6]"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A table with the split k, and the folder of its three folds."""
    folder = tmp_path_factory.mktemp("finished")
    write_kfold(write_small_table(folder / "data"), "k", 3)
    train(recipe(folder / "data", folder / "folds", "folds=all"))
    return folder


def recipe(data, out, *overrides):
    options = [f"data={data}", f"out={out}", "generator=pixels", "subjects=[subj02]", "split=k"]
    return load_recipe("linear", [*options, *overrides])


@pytest.fixture
def folds(workplace, tmp_path):
    """Folds of which one is missing."""
    shutil.copytree(workplace / "folds", tmp_path / "folds")
    shutil.rmtree(tmp_path / "folds" / "fold01")
    return tmp_path / "folds"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((WEAK,), r"has stages\.0\.objective\.penalties\.0 None, and now it is 1000000\.0"),
        (("processor.statistics=pooled", "processor.rois=[V1]"), r"has processor\.\w+(\.0)? .*, and now it is"),
        (("seed=1",), "has seed 0, and now it is 1"),
        (("subjects=[subj07]",), r"has subjects\.0 'subj02', and now it is 'subj07'"),
        (("selection.candidates=[{},{processor.statistics: pooled}]",), r"has selection\.metric None, and now it is"),
    ],
)
def test_finished_folds_of_another_recipe_are_not_kept(workplace, folds, change, message):
    with pytest.raises(FmriModelsError, match=f"The finished training in .*fold00 {message}.*resume with the same"):
        train(recipe(workplace / "data", folds, "folds=all", *change), resume=True)
    assert not (folds / "fold01").exists(), "and nothing is trained before that"


def test_finished_folds_of_other_data_are_not_kept(workplace, folds, tmp_path):
    other = write_small_table(tmp_path / "other", noise=0.4)
    write_kfold(other, "k", 3)
    with pytest.raises(FmriModelsError, match="fold00 is on other data than this .another table."):
        train(recipe(other, folds, "folds=all"), resume=True)
    again = tmp_path / "again"
    shutil.copytree(workplace / "data", again)
    (again / "splits" / "k.parquet").unlink()
    table = TrialTable.open(again)
    add_split(table, "k", split_kfold(SplitTrials.of_table(table), seed=7, folds=3))
    with pytest.raises(FmriModelsError, match="fold00 is on other data than this .another split."):
        train(recipe(again, folds, "folds=all"), resume=True)


def test_a_pipeline_that_nobody_knows_the_training_of_is_not_kept(workplace, folds):
    (folds / "fold02" / "training.json").unlink()
    with pytest.raises(FmriModelsError, match="fold02 holds a pipeline without a record of its training"):
        train(recipe(workplace / "data", folds, "folds=all"), resume=True)


def test_what_is_kept_is_not_said_to_be_saved(workplace, folds, capsys, caplog):
    call = ["train", "linear", f"data={workplace / 'data'}", f"out={folds}", "generator=pixels"]
    call += ["subjects=[subj02]", "split=k", "folds=all", "max_shard_size=1GB", "--resume"]
    with caplog.at_level("WARNING", logger="fmri_models"):
        assert main(call) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("saved")] == [f"saved {folds / 'fold01'}"]
    assert caplog.text.count("is complete, of this recipe and these data: nothing to do there") == 2


def test_a_finished_selection_is_kept_with_its_candidates_and_not_with_others(workplace, tmp_path, caplog):
    candidates = "selection.candidates=[{},{processor.statistics: pooled}]"

    def trained(*overrides, **options):
        train(recipe(workplace / "data", tmp_path / "out", "selection.folds=2", *overrides), **options)

    trained(candidates)
    with caplog.at_level("WARNING", logger="fmri_models"):
        trained(candidates, resume=True)
    assert "nothing to do there" in caplog.text
    with pytest.raises(FmriModelsError, match=r"has selection\.metric 'pixcorr', and now it is 'mse'"):
        trained(candidates, "selection.metric=mse", resume=True)
    with pytest.raises(FmriModelsError, match="has selection.metric 'pixcorr', and now it is None"):
        train(recipe(workplace / "data", tmp_path / "out"), resume=True)


def test_folds_that_were_trained_in_different_ways_are_not_merged(workplace, folds, tmp_path):
    train(recipe(workplace / "data", folds / "fold01", "fold=1", WEAK))
    with pytest.raises(FmriModelsError, match=r"in different ways \(stages\.0\.objective\.penalties\.0 is None"):
        evaluate(folds, workplace / "data", tmp_path / "r", "small_pictures")
    with pytest.raises(FmriModelsError, match="trained in different ways"):
        evaluate(workplace / "folds", workplace / "data", tmp_path / "r", "small_pictures", reference=folds)


def test_a_fold_that_is_there_twice_is_not_counted_twice(workplace, folds, tmp_path):
    shutil.copytree(folds / "fold02", folds / "fold01")
    with pytest.raises(FmriModelsError, match="fold01 and .*fold02 were both trained on fold 2"):
        evaluate(folds, workplace / "data", tmp_path / "r", "small_pictures")


def test_an_initial_model_of_a_fit_in_closed_form_has_no_effect(workplace, tmp_path):
    with pytest.raises(FmriModelsError, match="it would have no effect"):
        train(recipe(workplace / "data", tmp_path / "out", f"initial_model={workplace / 'folds' / 'fold00'}"))
    assert not (tmp_path / "out").exists()


class Labels:
    """What is known of voxels."""

    def __init__(self, roi=None, coordinates=None, noise_ceiling=None):
        self.roi, self.coordinates, self.noise_ceiling = roi, coordinates, noise_ceiling


def processor(labels=None, width=6, **options):
    fmri = np.random.default_rng(0).normal(size=(20, width)).astype(np.float32)
    return FmriProcessor.fit({"s": fmri}, voxels={"s": labels or Labels()}, **options)


PLACES = np.arange(18, dtype=np.float32).reshape(6, 3)
BEST = {"num_best_voxels": 3}


@pytest.mark.parametrize(
    ("initial", "own", "message"),
    [
        (processor(), processor(), None),
        (processor(Labels(roi=list("AAABBB")), rois=["A"]), processor(Labels(roi=list("AAABBB")), rois=["A"]), None),
        (
            processor(Labels(roi=list("AAABBB")), rois=["A"]),
            processor(Labels(roi=list("AAABBB")), rois=["B"]),
            "3 of 3 are in another ROI.*Train on a table with the same voxels",
        ),
        (
            processor(Labels(noise_ceiling=[6, 5, 4, 3, 2, 1]), **BEST),
            processor(Labels(noise_ceiling=[6, 5, 1, 2, 3, 4]), **BEST),
            "1 of 3 are other columns of the betas, the first 2 there and 5 here.*choose by processor.rois",
        ),
        (processor(Labels(coordinates=PLACES)), processor(Labels(coordinates=PLACES + 1)), "6 of 6 are at other coord"),
        (processor(Labels(roi=list("AAABBB")), rois=["A"]), processor(width=3), "chosen from 6 and from 3"),
        # The same places in a table of fewer voxels.
        (
            processor(Labels(roi=list("AAABBB"), coordinates=PLACES), rois=["B"]),
            processor(Labels(coordinates=PLACES[3:]), width=3),
            None,
        ),
        (FmriProcessor.without_statistics({"s": 6}, "voxels of V1"), processor(), None),
    ],
)
def test_weights_of_other_voxels_are_refused_however_many_there_are(initial, own, message):
    if message is None:
        check_same_voxels("model", initial, own)
        return
    with pytest.raises(FmriModelsError, match=f"reads other voxels of s than this training .*{message}"):
        check_same_voxels("model", initial, own)


def test_voxels_that_nobody_can_compare_are_a_warning(caplog):
    own = processor(Labels(roi=list("AAABBB")), rois=["B"])
    with caplog.at_level("WARNING", logger="fmri_models"):
        check_same_voxels("model", FmriProcessor.without_statistics({"s": 3}, "voxels of V1"), own)
    assert "nobody could check that the voxels of s are those that it was trained on" in caplog.text
