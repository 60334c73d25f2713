"""A processor fitted for a saved pipeline: which trials and voxels, and what is left as it was."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load

from fmri_models import FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.processed import ProcessedTrials
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.patterns import load_patterns
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from fmri_models.processing_fmri import FmriProcessor
from fmri_models.space.decoder import Decoder
from fmri_models.training.recipe import load_recipe
from fmri_models.training.refit import refit_processor
from fmri_models.training.trainer import train
from tests.small_table import NUM_VOXELS, write_kfold, write_small_table

SPACE = {"encoder": "pixels", "layer": "embedding", "shape": [5]}
VOXELS = NUM_VOXELS["subj02"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_small_table(tmp_path_factory.mktemp("refit") / "data", ("subj02",))


def save(folder, num_voxels=VOXELS, name="subj02", processor=None):
    """A pipeline without statistics."""
    processor = processor or FmriProcessor.without_statistics({name: num_voxels}, "anything")
    config = LinearConfig(subject_names=[name], num_voxels=processor.num_voxels, image_embedding_space=SPACE)
    LinearPipeline(LinearModel(config), processor).save_pretrained(folder)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_statistics_come_from_training_trials(data, tmp_path):
    folder = save(tmp_path / "pipeline")
    before = contents(folder)
    refit_processor(folder, data)
    processor = FmriToImagePipeline.from_pretrained(folder).processor
    assert processor.statistics == "session"
    trials = TrialTable.open(data).trials("subj02", "train")
    first = trials.fmri()[np.asarray(trials.sessions) == 1]
    np.testing.assert_allclose(processor.subject("subj02").mean[0], first.mean(axis=0), atol=1e-6)
    assert contents(folder)["brain_model/model.safetensors"] == before["brain_model/model.safetensors"]


@pytest.mark.parametrize("statistics", ["pooled", "session", "identity"])
def test_a_processor_that_was_never_fitted_is_fitted_with_its_own_options(data, tmp_path, statistics):
    never = FmriProcessor(["subj02"], statistics, min_session_trials=3, unseen_session="pooled")
    config = LinearConfig(subject_names=["subj02"], num_voxels=[VOXELS], image_embedding_space=SPACE)
    for name, processor in {"named": never, "bare": FmriProcessor(statistics=statistics)}.items():
        LinearPipeline(LinearModel(config), processor).save_pretrained(tmp_path / name)
        assert main(["fit-processor", str(tmp_path / name), "--data", str(data)]) == 0
        fitted = FmriToImagePipeline.from_pretrained(tmp_path / name).processor
        assert fitted.is_fitted and fitted.options == processor.options and fitted.subject_names == ["subj02"]
    assert refit_processor(tmp_path / "named", data, statistics="pooled").statistics == "pooled"


@pytest.mark.parametrize("statistics", ["pooled", "session"])
def test_a_fitted_processor_keeps_its_kind_of_statistics_unless_another_is_asked_for(data, tmp_path, statistics):
    betas = np.random.default_rng(0).normal(size=(20, VOXELS))
    former = FmriProcessor.fit(
        betas,
        subjects=["subj02"] * 20,
        sessions=[1] * 20,
        statistics=statistics,
        **({"min_session_trials": 4} if statistics == "session" else {}),
    )
    folder = save(tmp_path / "pipeline", processor=former)
    kept = refit_processor(folder, data)
    assert kept.statistics == statistics and kept.min_session_trials == former.min_session_trials
    other = {"pooled": "session", "session": "pooled"}[statistics]
    assert refit_processor(folder, data, other).statistics == other


def test_the_subject_may_have_another_name_in_the_table(data, tmp_path):
    folder = save(tmp_path / "pipeline", name="subj01")
    (folder / "notes.txt").write_text("kept")
    before = contents(folder)
    with pytest.raises(FmriModelsError, match=r"no subject 'subj01'; it has subj02; .* --subject subj01=NAME"):
        refit_processor(folder, data)
    assert contents(folder) == before
    refit_processor(folder, data, subjects={"subj01": "subj02"})
    pipeline = FmriToImagePipeline.from_pretrained(folder)
    assert pipeline.processor.subject_names == pipeline.brain_model.config.subject_names == ["subj02"]
    after = contents(folder)
    assert after.keys() == before.keys()
    former, renamed = (load(content["brain_model/model.safetensors"]) for content in (before, after))
    assert renamed.keys() == {name.replace("subj01", "subj02") for name in former} != former.keys()
    assert all(torch.equal(renamed[name.replace("subj01", "subj02")], values) for name, values in former.items())
    assert after["notes.txt"] == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]
    betas = TrialTable.open(data).trials("subj02", "test").fmri()[:2]
    assert torch.isfinite(pipeline.processor(betas, session=1)["fmri"]).all()


def test_the_model_goes_on_reading_the_same_voxels(data, tmp_path):
    rng = np.random.default_rng(0)
    former = FmriProcessor.fit(
        {"subj02": rng.normal(size=(9, VOXELS))}, voxel_scores={"subj02": rng.uniform(size=VOXELS)}, num_best_voxels=8
    )
    folder = save(tmp_path / "pipeline", processor=former)
    refit_processor(folder, data, statistics="pooled")
    processor = FmriToImagePipeline.from_pretrained(folder).processor
    assert processor.num_best_voxels == 8
    np.testing.assert_array_equal(processor.subject("subj02").selected, former.subject("subj02").selected)
    trials = TrialTable.open(data).trials("subj02", "train").fmri()[:, former.subject("subj02").selected]
    np.testing.assert_allclose(processor.subject("subj02").mean[0], trials.mean(axis=0), atol=1e-6)


def test_a_table_of_the_training_is_split_as_in_training(data, tmp_path):
    write_kfold(data, "kfold3", 3)
    overrides = [f"data={data}", f"out={tmp_path / 'model'}", "generator=pixels", "split=kfold3", "fold=1"]
    train(load_recipe("linear", overrides))
    refit_processor(tmp_path / "model", data, statistics="pooled")
    found = FmriProcessor.from_pretrained(tmp_path / "model" / "processor").subject("subj02").mean[0]
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    trials = TrialTable.open(data).trials("subj02", record["train_parts"], "kfold3", 1).fmri()
    np.testing.assert_allclose(found, trials.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("num_voxels", "subjects", "message"),
    [
        (VOXELS, {"subj09": "subj02"}, "The model has no subject 'subj09'; it has subj02"),
        (VOXELS, {"subj02": "anna"}, "has no subject 'anna'; it has subj02"),
        (7, None, r"subj02 of .* has 45 voxels and the model was made for 7; prepare a table"),
    ],
)
def test_what_does_not_fit_leaves_the_pipeline_as_it_was(data, tmp_path, num_voxels, subjects, message):
    folder = save(tmp_path / "pipeline", num_voxels=num_voxels)
    before = contents(folder)
    with pytest.raises(FmriModelsError, match=message):
        refit_processor(folder, data, subjects=subjects)
    assert contents(folder) == before


def test_two_subjects_do_not_become_one(data, tmp_path):
    processor = FmriProcessor.without_statistics({"a": VOXELS, "b": VOXELS}, "anything")
    config = LinearConfig(subject_names=["a", "b"], num_voxels=[VOXELS] * 2, image_embedding_space=SPACE)
    LinearPipeline(LinearModel(config), processor).save_pretrained(tmp_path / "pipeline")
    with pytest.raises(FmriModelsError, match="would be the same one of the table: subj02, subj02"):
        refit_processor(tmp_path / "pipeline", data, subjects={"a": "subj02", "b": "subj02"})


def test_what_is_no_pipeline_is_a_sentence(data, tmp_path):
    for content in (None, "{}", "no json", '{"brain_model": ["x", "UNet"]}'):
        if content is not None:
            (tmp_path / "model_index.json").write_text(content)
        with pytest.raises(FmriModelsError, match=r"is no saved pipeline|is no model of this package"):
            refit_processor(tmp_path, data)


def test_what_is_done_with_unseen_sessions_is_taken_over_or_said_anew(data, tmp_path):
    former = FmriProcessor.without_statistics({"subj02": VOXELS}, "anything")
    former.unseen_session = "from_batch"
    folder = save(tmp_path / "pipeline", processor=former)
    assert refit_processor(folder, data).unseen_session == "from_batch"
    assert refit_processor(folder, data, unseen_session="pooled").unseen_session == "pooled"
    assert FmriToImagePipeline.from_pretrained(folder).processor.unseen_session == "pooled"


def write_dropped(path, kept, part="train", width=6, dropped=True):
    """A table of which voxels of a wider array were kept."""
    rng = np.random.default_rng(0)
    source = {"source_columns": np.array(kept), "source_width": width} if dropped else {}
    with TrialTableWriter(path, "t") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": None} for name in ("a", "b"))
        writer.add_voxels("subj02", len(kept), **source)
        writer.add_trials("subj02", part, ["a", "b"] * 6, rng.normal(size=(12, width))[:, list(kept)])
    return path


def test_other_voxels_of_the_same_number_are_refused(tmp_path):
    first = write_dropped(tmp_path / "first", [0, 1, 2, 4])
    folder = save(tmp_path / "pipeline", 4)
    processor = refit_processor(folder, first, statistics="pooled")
    assert processor.subject("subj02").source_columns.tolist() == [0, 1, 2, 4]
    assert processor(np.arange(6.0))["fmri"].shape == (1, 4)
    with pytest.raises(FmriModelsError, match="as many voxels as the model, but others"):
        refit_processor(folder, write_dropped(tmp_path / "second", [0, 1, 3, 4]))


def test_a_table_of_the_recorded_voxels_gives_statistics_of_those_that_the_model_reads(tmp_path):
    """As such a table is decoded, too; columns that were themselves chosen from more are others."""
    kept = [0, 1, 2, 4]
    folder = save(tmp_path / "pipeline", 4)
    narrow = refit_processor(folder, write_dropped(tmp_path / "narrow", kept), statistics="pooled").subject("subj02")
    wide = refit_processor(folder, write_dropped(tmp_path / "wide", range(6), dropped=False), statistics="pooled")
    found = wide.subject("subj02")
    np.testing.assert_array_equal(found.mean, narrow.mean)
    np.testing.assert_array_equal(found.std, narrow.std)
    assert (found.num_voxels, found.source_width, found.source_columns.tolist()) == (4, 6, kept)
    assert FmriToImagePipeline.from_pretrained(folder).processor(np.arange(6.0))["fmri"].shape == (1, 4)
    with pytest.raises(FmriModelsError, match="has 6 voxels and the model was made for 4, which were kept of 6 record"):
        refit_processor(folder, write_dropped(tmp_path / "other", range(6), width=8))


@pytest.mark.parametrize("kept", [[0, 1, 3, 4], [0, 1, 2]])
def test_other_voxels_are_refused_wherever_a_table_is_decoded(kept, tmp_path):
    folder = save(tmp_path / "pipeline", 4)
    first = write_dropped(tmp_path / "first", [0, 1, 2, 4], "test")
    refit_processor(folder, write_dropped(tmp_path / "training", [0, 1, 2, 4]), statistics="pooled")
    second, pipeline = write_dropped(tmp_path / "second", kept, "test"), FmriToImagePipeline.from_pretrained(folder)
    load_patterns(pipeline, first, "subj02")
    assert len(ProcessedTrials(TrialTable.open(first).trials("subj02", "test"), pipeline.processor)) == 2
    Decoder(pipeline, TrialTable.open(first))
    for call in (
        lambda: load_patterns(pipeline, second, "subj02"),
        lambda: ProcessedTrials(TrialTable.open(second).trials("subj02"), pipeline.processor),
        lambda: Decoder(pipeline, TrialTable.open(second)),
    ):
        with pytest.raises(FmriModelsError, match=r"subj02 of .*second has .*; prepare a table of the model's voxels"):
            call()
