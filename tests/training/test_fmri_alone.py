"""Pretraining on fMRI alone: recipes without an image generator, tables without pictures, and what begins with them."""

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.data.writer import TrialTableWriter
from fmri_models.errors import FmriModelsError
from fmri_models.hub.cards import write_card
from fmri_models.simulation import simulate
from fmri_models.training.estimate import estimate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord

SMALL = [
    "processor.patch_size=10", "model.patch_size=10", "model.hidden_size=16", "model.num_hidden_layers=1",
    "model.num_attention_heads=2", "model.decoder_hidden_size=16", "model.decoder_num_attention_heads=2",
]  # fmt: skip
SHORT = ["stages.0.training.epochs=null", "stages.0.training.steps=3", "stages.0.training.batch_size=8"]
WIDTHS = {"anna": 40, "bert": 33}


@pytest.fixture(scope="module")
def rest(tmp_path_factory):
    """Two subjects without any picture."""
    folder = tmp_path_factory.mktemp("rest") / "table"
    rng = np.random.default_rng(0)
    with TrialTableWriter(folder, name="rest") as writer:
        for subject, width in WIDTHS.items():
            betas = rng.normal(size=(24, width)).astype(np.float32)
            writer.add_trials(subject, "unlabelled", [""] * 24, betas, runs=[1001] * 24)
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "table"
    sizes = {"num_train": 12, "num_validation": 4, "num_test": 4, "num_subjects": 1, "unlabelled": 6}
    return simulate("builtin:scenes", folder, num_voxels=30, **sizes)


@pytest.fixture(scope="module")
def pretrained(rest, scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "out"
    further = f"stages.0.unpaired=[{{data: {scenes}, parts: [train, unlabelled]}}]"
    train(load_recipe("mindvis_pretraining", [f"data={rest}", f"out={out}", *SMALL, *SHORT, further]))
    return out


def test_several_tables_and_subjects_without_a_generator(pretrained, rest):
    pipeline = FmriToImagePipeline.from_pretrained(pretrained)
    assert pipeline.image_generator is None and pipeline.brain_model.conditioner is None
    assert pipeline.processor.subject_names == ["anna", "bert"]
    record = TrainingRecord.load(pretrained)
    own, further = record.learned_from
    assert own.parts == ["validation", "unlabelled"] and further.fmri_of == ["subj01"]
    assert record.learned["pictures"] == 0 and record.learned["trials"] == 48
    with pytest.raises(FmriModelsError, match="has no image generator"):
        pipeline(np.zeros((1, 40), np.float32), subject="anna", session=1)


def test_its_card_promises_no_pictures(pretrained):
    text = write_card(pretrained).read_text()
    assert "into features, from which another training begins" in text
    assert "none; the model was pretrained on fMRI alone" in text and "retrieval_embeds" not in text
    code = text.split("```python")[1].split("```")[0].replace('(".")', f"({str(pretrained)!r})")
    found: dict = {}
    exec(code, found)
    assert found["features"].shape == (1, 4, 16)


@pytest.mark.slow
def test_a_recipe_with_pictures_begins_with_it(pretrained, scenes, tmp_path):
    keys = ("epochs=null", "steps=2", "batch_size=4")
    short = [f"stages.{number}.training.{key}" for number in range(3) for key in keys]
    names = [f"data={scenes}", f"out={tmp_path / 'out'}", f"initial_model={pretrained}"]
    train(load_recipe("mindvis", [*names, *SMALL, *short, "stages.0.training.learning_rate=1e-12"]))
    record = TrainingRecord.load(tmp_path / "out")
    # What it begins with has learned from the fMRI of a training part alone, and from no pictures.
    name = TrialTable.open(scenes).name
    assert [each.table for each in record.learned_from] == [name, "rest", name]
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert pipeline.drawing_settings.guidance_scale == 1
    first = FmriToImagePipeline.from_pretrained(pretrained).brain_model
    torch.testing.assert_close(first.decoder.mask_token, pipeline.brain_model.decoder.mask_token, rtol=0, atol=1e-6)


def test_the_estimate(rest):
    told = estimate(load_recipe("mindvis_pretraining", [f"data={rest}", *SMALL, *SHORT]))
    assert "anna (40 voxels, 24 rows), bert (33 voxels, read as 40 columns, 24 rows)" in told
    assert "training stimuli" not in told


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("linear", [], "All trials of anna are without a stimulus .*recipe mindvis_pretraining"),
        (
            "mindvis",
            ["stages.0.train_on=[unlabelled]"],
            "has no pictures, and the recipe has the image generator 'embed",
        ),
        (
            "mindvis",
            ["stages.0.train_on=[unlabelled]", "generator=null"],
            "'alignment' learns from image_embeds, text_embeds; name",
        ),
        (
            "mindvis_pretraining",
            ["stages.0.objective.module=conditioner"],
            "'pretraining' learns from latents; name one",
        ),
        ("mindvis_pretraining", ["stages.0.image_generator={train: [all]}"], "nothing of it can be trained"),
        ("mindvis_pretraining", ["targets=[latents]"], "has no latents"),
    ],
)
def test_what_needs_pictures_says_so(rest, tmp_path, name, overrides, message):
    small = [] if name == "linear" else [*SMALL, *SHORT]
    with pytest.raises(FmriModelsError, match=message):
        train(load_recipe(name, [f"data={rest}", f"out={tmp_path / 'out'}", *small, *overrides]))


@pytest.mark.slow
def test_pictures_are_not_learned_from_trials_without_any(scenes, tmp_path):
    names = [f"data={scenes}", f"out={tmp_path / 'out'}", *SMALL, *SHORT]
    with pytest.raises(
        FmriModelsError, match="'alignment' learns from image_embeds of pictures and names the part unlab"
    ):
        train(load_recipe("mindvis", [*names, "stages.1.train_on=[train, unlabelled]"]))
    with pytest.raises(FmriModelsError, match="learns from image_embeds, latents of pictures and names the part unlab"):
        train(load_recipe("linear", [*names[:2], "stages.0.train_on=[train, unlabelled]"]))
