"""From a recipe to a saved pipeline, on a small table."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline, TrialTable, TrialTableWriter
from fmri_models.errors import FmriModelsError
from fmri_models.training.building import image_generator_for, recipe_targets
from fmri_models.training.estimate import estimate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.refit import refit_processor
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.new_process import run_program
from tests.small_table import NUM_VOXELS, write_kfold, write_small_table


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_small_table(tmp_path_factory.mktemp("table") / "data")


def recipe(data, out, *overrides):
    return load_recipe("linear", [f"data={data}", f"out={out}", "generator=pixels", *overrides])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_training_writes_a_pipeline_that_decodes(data, tmp_path):
    assert train(recipe(data, tmp_path / "out", "subjects=[subj07, subj02]")) == [tmp_path / "out"]
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    table = TrialTable.open(data)
    for subject in ("subj07", "subj02"):
        trials = table.trials(subject, "test")
        drawn = pipeline(trials.fmri(), subject, session=trials.sessions, output_type="np").images
        shown = table.stimuli.images(trials.stimulus_ids) / 255
        correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(drawn, shown, strict=True)]
        assert np.mean(correlation) > 0.6


def test_the_record_says_how_it_was_trained_but_not_where(data, tmp_path):
    train(recipe(data, tmp_path / "out", "subjects=[subj02]"))
    record = TrainingRecord.load(tmp_path / "out")
    assert (record.method, record.split, record.train_parts) == ("linear", "default", ["train", "validation"])
    assert record.table_fingerprint == TrialTable.open(data).fingerprint
    assert str(tmp_path) not in (tmp_path / "out" / "training.json").read_text()


def test_the_same_recipe_gives_the_same_weights(data, tmp_path):
    for name in ("a", "b"):
        train(recipe(data, tmp_path / name, "subjects=[subj02]"))
    first, second = (FmriToImagePipeline.from_pretrained(tmp_path / name).brain_model for name in ("a", "b"))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_subjects_keep_the_order_of_the_recipe(data, tmp_path):
    train(recipe(data, tmp_path / "out", "subjects=[subj07, subj02]"))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert pipeline.processor.subject_names == ["subj07", "subj02"]
    assert pipeline.brain_model.config.num_voxels == [NUM_VOXELS["subj07"], NUM_VOXELS["subj02"]]


def test_an_output_folder_with_content_stays_as_it_is(data, tmp_path):
    train(recipe(data, tmp_path / "out", "subjects=[subj02]"))
    before = contents(tmp_path / "out")
    with pytest.raises(FmriModelsError, match="exists and is not empty"):
        train(recipe(data, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


def test_folds_are_trained_and_resumed(data, tmp_path):
    write_kfold(data, "kfold4", 4)
    call = recipe(data, tmp_path / "out", "subjects=[subj02]", "split=kfold4", "folds=all")
    folders = train(call)
    assert [folder.name for folder in folders] == ["fold00", "fold01", "fold02", "fold03"]
    assert [TrainingRecord.load(folder).fold for folder in folders] == [0, 1, 2, 3]
    before = contents(tmp_path / "out" / "fold00")
    shutil.rmtree(tmp_path / "out" / "fold02")
    train(call, resume=True)
    assert (tmp_path / "out" / "fold02" / "model_index.json").is_file()
    assert contents(tmp_path / "out" / "fold00") == before


def test_the_estimate_trains_nothing(data, tmp_path):
    text = estimate(recipe(data, tmp_path / "out"))
    assert f"{(60 + 1) * 288 + (45 + 1) * 288:,}" in text
    assert "0 (closed form)" in text
    assert not (tmp_path / "out").exists()


def test_stimuli_outside_the_generators_domain_are_reported(data, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="fmri_models"):
        train(recipe(data, tmp_path / "out", "subjects=[subj02]", "generator=embedded", "targets=[latents]"))
    assert "outside its domain" in caplog.text


def test_refitting_replaces_the_processor_alone(data, tmp_path):
    train(recipe(data, tmp_path / "out", "subjects=[subj02]"))
    weights = (tmp_path / "out" / "brain_model" / "model.safetensors").read_bytes()
    refit_processor(tmp_path / "out", data, "pooled")
    assert (
        json.loads((tmp_path / "out" / "processor" / "preprocessor_config.json").read_text())["statistics"] == "pooled"
    )
    assert (tmp_path / "out" / "brain_model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["subjects=[subj09]"], "no subject 'subj09'; it has subj0"),
        (["split=imaginary"], "no split 'imaginary'"),
        (["targets=[text_embeds]"], "of 82 stimuli have no caption"),
        (["stages.0.objective={alpha: 3}"], "stages.0.objective of the recipe .* has the unknown key 'alpha'"),
        (["generator=nothing"], "no image generator 'nothing'"),
        (["processor.rois=[V4]"], "no voxel in V4; its ROIs are V1"),
    ],
)
def test_bad_recipes_are_sentences_and_write_nothing(data, tmp_path, overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        train(recipe(data, tmp_path / "out", *overrides))
    assert not (tmp_path / "out").exists()


def test_a_target_that_the_generator_lacks_is_named():
    spaces = SimpleNamespace(image_embedding_space=1, text_embedding_space=None, latent_space=1)
    with pytest.raises(FmriModelsError, match="has no text_embeds; it has image_embeds, latents"):
        recipe_targets(load_recipe("linear", ["targets=[text_embeds]"]), spaces)


def test_missing_keys_are_sentences():
    with pytest.raises(FmriModelsError, match="no data; add data=FOLDER"):
        train(load_recipe("linear"))


def test_only_a_pipeline_is_replaced(data, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("important")
    with pytest.raises(FmriModelsError, match="is no pipeline"):
        train(recipe(data, out), overwrite=True)
    (out / "thesis.tex").unlink()
    train(recipe(data, out), overwrite=True)
    (out / "thesis.tex").write_text("important")
    with pytest.raises(FmriModelsError, match=r"holds thesis\.tex, which would be lost"):
        train(recipe(data, out), overwrite=True)
    assert (out / "thesis.tex").read_text() == "important"


def test_what_is_read_is_never_replaced(data, tmp_path):
    base = train(recipe(data, tmp_path / "base", "subjects=[subj02]"))[0]
    inside = tmp_path / "base" / "deeper"
    for out, relation in ((base, "is"), (inside, "lies in"), (tmp_path, "contains")):
        with pytest.raises(FmriModelsError, match=f"{relation} .*which is read"):
            train(recipe(data, out, f"initial_model={base}", "subjects=[subj02]"), overwrite=True)
    with pytest.raises(FmriModelsError, match="which is read"):
        train(recipe(data, data / "model"), overwrite=True)
    file = base / "brain_model" / "mine.yaml"
    file.write_text("method: linear\n")
    with pytest.raises(FmriModelsError, match=r"contains .*mine\.yaml, which is read"):
        train(recipe(data, base), overwrite=True, recipe_file=file)
    assert (base / "model_index.json").is_file()


def test_folds_are_not_written_into_a_pipeline(data, tmp_path):
    write_kfold(data, "kfold4", 4)
    train(recipe(data, tmp_path / "out", "subjects=[subj02]"))
    with pytest.raises(FmriModelsError, match="holds a pipeline, and folds are to be written into it"):
        train(recipe(data, tmp_path / "out", "split=kfold4", "folds=all"), overwrite=True)


def test_no_room_is_said_before_the_work(data, tmp_path, monkeypatch):
    full = type(shutil.disk_usage(tmp_path))(1000, 990, 10)
    monkeypatch.setattr("fmri_models.output_folders.shutil.disk_usage", lambda path: full)
    with pytest.raises(FmriModelsError, match="There is no room for .*out.*0 MiB are free"):
        train(recipe(data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_killed_fit_leaves_nothing_after_the_next_one(data, tmp_path):
    program = (
        "import os, signal, sys\n"
        "from fmri_models.training.recipe import load_recipe\n"
        "from fmri_models.training.stages import StageRunner\n"
        "from fmri_models.training.trainer import train\n"
        "StageRunner.run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(load_recipe('linear', sys.argv[1:]))\n"
    )
    arguments = ["generator=pixels", f"data={data}", f"out={tmp_path / 'out'}"]
    run_program(program, *arguments)
    assert list(tmp_path.glob(".partial-*"))
    train(recipe(data, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_options_that_the_recipe_says_itself_are_refused_in_the_processor(data, tmp_path):
    with pytest.raises(FmriModelsError, match="'parts', which the recipe says itself"):
        train(recipe(data, tmp_path / "out", "processor.parts=[test]"))


@pytest.mark.parametrize(("size", "is_advised"), [(32, False), (40, True)])
def test_training_says_that_large_pictures_are_not_for_pixels(tmp_path, caplog, size, is_advised):
    ids = ["a", "b", "c"]
    pictures = np.random.default_rng(0).integers(0, 256, (3, size, size), dtype=np.uint8)
    with TrialTableWriter(tmp_path / "data", "large", license="CC0", source="drawn") as writer:
        writer.add_stimuli({"stimulus_id": each, "image": picture} for each, picture in zip(ids, pictures, strict=True))
        writer.add_voxels("subj01", 2)
        writer.add_trials("subj01", "train", stimulus_ids=ids, fmri=np.eye(3, 2, dtype=np.float32))
    with caplog.at_level("WARNING", logger="fmri_models"):
        image_generator_for(recipe(tmp_path / "data", tmp_path / "out"), TrialTable.open(tmp_path / "data"))
    assert ("generator=thumbnail" in caplog.text) == is_advised
