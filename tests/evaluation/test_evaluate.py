"""The whole evaluation on a small table: rows, controls, folds, looks, and what it refuses."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fmri_models import FmriProcessor, FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.controls import derangement, exchange_stimuli
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.patterns import load_patterns
from fmri_models.evaluation.reconstruct import reconstruct
from fmri_models.evaluation.training_pictures import nearest_training_positions
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import PARTS, write_kfold, write_small_table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    data = write_small_table(folder / "data")
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]"]))
    return folder


@pytest.fixture(scope="module")
def report(workplace):
    return evaluate(workplace / "model", workplace / "data", workplace / "report", "small_pictures")


def value(report, row, metric):
    return report.results[row][metric]["value"]


def test_every_row_that_a_latent_generator_has(report):
    assert set(report.results) == {
        "brain", "shuffled_brain", "permuted_training", "mean_image", "nearest_train", "floor", "ceiling", "ridge",
        "noise_free",
    }  # fmt: skip


def test_rows_of_the_parts_where_the_generator_draws_from_embeddings_and_latents(workplace):
    overrides = [f"data={workplace / 'data'}", f"out={workplace / 'both'}", "generator=pixels"]
    train(load_recipe("linear", overrides))
    report = evaluate(workplace / "both", workplace / "data", workplace / "report_both", "small_pictures")
    assert {"brain_low_level", "brain_embeds_only", "ceiling_embeds_only"} <= set(report.results)
    assert value(report, "ceiling_embeds_only", "pixcorr") == pytest.approx(1, abs=1e-5)


def test_the_brain_beats_its_controls(report):
    for control in ("shuffled_brain", "permuted_training", "mean_image", "floor"):
        difference = report.comparisons[control]["pairwise_pixcorr"]
        assert difference["ci95"][0] > 0, control


def test_order_of_rows(report):
    assert value(report, "ceiling", "pixcorr") == pytest.approx(1, abs=1e-6)
    assert value(report, "noise_free", "pixcorr") > value(report, "brain", "pixcorr")
    assert value(report, "ridge", "pixcorr") == value(report, "brain", "pixcorr")
    assert 0.2 < value(report, "permuted_training", "pairwise_pixcorr") < 0.8
    assert report.permutation["pairwise_pixcorr"]["mean"] == pytest.approx(0.5, abs=0.05)


def test_what_the_report_says_of_the_data(report):
    assert report.data["simulated"] is True
    assert report.data["test_items"] == 2 * PARTS["test"]
    assert report.data["test_trials"] == 2 * 3 * PARTS["test"]
    assert set(report.per_subject) == {"subj07", "subj02"}


def test_everything_is_written(report, workplace):
    folder = workplace / "report"
    assert {path.name for path in folder.iterdir()} >= {
        "report.json", "report.md", "report.html", "grid.png", "items.parquet", "images",
    }  # fmt: skip
    assert len(list((folder / "images" / "truth").glob("*.png"))) == PARTS["test"]
    items = pq.read_table(folder / "items.parquet").to_pandas()
    brain = items[(items.row == "brain") & (items.metric == "pixcorr")]
    assert brain.value.mean() == pytest.approx(value(report, "brain", "pixcorr"))
    assert json.loads((folder / "report.json").read_text())["schema"] == 1


def test_looks_are_counted(workplace, tmp_path, monkeypatch):
    # Looks at tables that are equal to this one stand in the cache where they lie in a read-only place.
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path))
    shutil.copytree(workplace / "data", workplace / "looks" / "data")
    first = evaluate(workplace / "model", workplace / "looks" / "data", workplace / "looks" / "r1", "small_pictures")
    second = evaluate(workplace / "model", workplace / "looks" / "data", workplace / "looks" / "r2", "small_pictures")
    assert first.looks == []
    assert len(second.looks) == 1
    assert second.looks[0]["score"]["pixcorr"] == pytest.approx(value(first, "brain", "pixcorr"))
    assert any("for the second time" in note for note in second.notes)
    log = (workplace / "looks" / "evaluations.jsonl").read_text()
    assert len(log.splitlines()) == 2
    assert str(workplace) not in log


@pytest.mark.parametrize("subjects", [None, ["subj02", "subj07"]])
def test_a_processor_that_was_never_fitted_is_said_to_be_that(workplace, tmp_path, subjects):
    pipeline = FmriToImagePipeline.from_pretrained(workplace / "model")
    record = pipeline.training_record
    type(pipeline)(pipeline.brain_model, FmriProcessor(subjects), pipeline.image_generator).save_pretrained(
        tmp_path / "m"
    )
    record.save(tmp_path / "m")
    for model, reference in ((tmp_path / "m", None), (workplace / "model", tmp_path / "m")):
        with pytest.raises(FmriModelsError, match="was never fitted.*fit-processor"):
            evaluate(model, workplace / "data", tmp_path / "r", "small_pictures", reference=reference)


def test_a_full_disk_leaves_no_half_of_a_report(workplace, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fmri_models.evaluation.report_folder.save_items", full)
    with pytest.raises(FmriModelsError, match="disk is full"):
        evaluate(workplace / "model", workplace / "data", tmp_path / "r", "small_pictures")
    assert list(tmp_path.iterdir()) == []


def test_single_trials_are_worse_than_averages(workplace, report, tmp_path):
    single = evaluate(workplace / "model", workplace / "data", tmp_path / "r", "small_pictures", repetitions="single")
    assert single.data["test_items"] == 2 * 3 * PARTS["test"]
    assert value(single, "brain", "pixcorr") < value(report, "brain", "pixcorr")


def test_folds_are_merged_into_one_report(workplace, tmp_path):
    write_kfold(workplace / "data", "kfold3", 3)
    overrides = [f"data={workplace / 'data'}", f"out={tmp_path / 'folds'}", "generator=pixels", "subjects=[subj02]"]
    train(load_recipe("linear", [*overrides, "split=kfold3", "folds=all"]))
    merged = evaluate(tmp_path / "folds", workplace / "data", tmp_path / "r", "small_pictures")
    assert merged.data["folds"] == [0, 1, 2]
    assert merged.data["test_items"] == sum(PARTS.values())
    assert value(merged, "brain", "pairwise_pixcorr") > 0.8


def test_a_second_pipeline_stands_beside(workplace, tmp_path):
    overrides = [f"data={workplace / 'data'}", f"out={tmp_path / 'weak'}", "generator=pixels"]
    train(load_recipe("linear", [*overrides, "stages.0.objective.penalties=[1.0e+6]"]))
    report = evaluate(
        workplace / "model", workplace / "data", tmp_path / "r", "small_pictures", reference=tmp_path / "weak"
    )
    assert value(report, "reference", "mse") > value(report, "brain", "mse")


@pytest.mark.slow
def test_folds_stand_beside_folds_and_never_beside_a_model_that_saw_their_test_pictures(workplace, tmp_path):
    write_kfold(workplace / "data", "kfold3", 3)
    overrides = [f"data={workplace / 'data'}", "generator=pixels", "subjects=[subj02]", "split=kfold3"]
    weak = "stages.0.objective.penalties=[1.0e+6]"
    train(load_recipe("linear", [*overrides, f"out={tmp_path / 'folds'}", "folds=all"]))
    train(load_recipe("linear", [*overrides, f"out={tmp_path / 'weak'}", "folds=all", weak]))
    arguments = (tmp_path / "folds", workplace / "data", tmp_path / "r", "small_pictures")
    for other, found in (("folds/fold01", "'kfold3' fold 1"), (workplace / "model", "'default' fold 0")):
        with pytest.raises(FmriModelsError, match=f"was trained on the split {found} and the model on 'kfold3' fold 0"):
            evaluate(*arguments, reference=tmp_path / other)
    report = evaluate(*arguments, reference=tmp_path / "weak")
    assert value(report, "reference", "mse") > value(report, "brain", "mse")
    assert report.comparisons["reference"]["pixcorr"]["n"] == sum(PARTS.values())
    alone = evaluate(tmp_path / "weak", workplace / "data", tmp_path / "alone", "small_pictures")
    assert value(alone, "brain", "pixcorr") == pytest.approx(value(report, "reference", "pixcorr"))


def test_a_model_of_another_table_is_refused(workplace, tmp_path):
    other = write_small_table(tmp_path / "other", noise=2.0)
    with pytest.raises(FmriModelsError, match="was trained on the table 'small' with another content"):
        evaluate(workplace / "model", other, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_folders_that_hold_no_model_are_refused(workplace, tmp_path):
    with pytest.raises(FmriModelsError, match="neither a pipeline"):
        evaluate(tmp_path, workplace / "data", tmp_path / "r")


def test_settings_out_of_range_are_refused(workplace, tmp_path):
    with pytest.raises(FmriModelsError, match="strength is 3"):
        evaluate(workplace / "model", workplace / "data", tmp_path / "r", settings={"strength": 3})


def test_the_evaluated_pictures_are_those_of_the_saved_pipeline(workplace, report, tmp_path):
    pipeline = FmriToImagePipeline.from_pretrained(workplace / "model")
    patterns = load_patterns(pipeline, workplace / "data", "subj02")
    assert reconstruct(pipeline, patterns, [0], tmp_path / "out") == PARTS["test"]
    for path in (workplace / "report" / "images" / "brain" / "subj02").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert len((tmp_path / "out" / "trials.csv").read_text().splitlines()) == PARTS["test"] + 1


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_a_derangement_has_no_fixed_point(count):
    for seed in range(20):
        exchanged = derangement(count, seed)
        assert sorted(exchanged) == list(range(count))
        assert (exchanged != np.arange(count)).all()


def test_single_trials_are_exchanged_with_another_stimulus():
    ids = ["a", "a", "a", "b", "b", "c", "c", "c"]
    for seed in range(10):
        exchanged = exchange_stimuli(ids, seed)
        assert all(ids[row] != ids[other] for row, other in enumerate(exchanged))
        assert len({ids[other] for row, other in enumerate(exchanged) if ids[row] == "a"}) == 1


def test_nearest_training_positions():
    training = np.eye(5, dtype=np.float32)
    decoded = torch.tensor([[0.0, 0.1, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 9.0]])
    assert nearest_training_positions(decoded, training, range(5), batch=2).tolist() == [2, 4]
    assert nearest_training_positions(decoded, training, [4, 1], batch=1).tolist() == [1, 0]
