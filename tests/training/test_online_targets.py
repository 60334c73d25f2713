"""Targets of pictures that are changed in each step, on a small table with real networks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fmri_models.alignment.feature_map_teacher import FeatureMapTeacher, FeatureMapTeacherConfig, load_teacher
from fmri_models.data import TrialTable
from fmri_models.data.augmentation import PictureAugmentation
from fmri_models.data.targets import cached_targets
from fmri_models.errors import FmriModelsError
from fmri_models.generation.loading import load_image_generator
from fmri_models.registry import get_method
from fmri_models.training.building import build_model, processor_for
from fmri_models.training.online_targets import OnlineTargets
from fmri_models.training.recipe import Recipe, load_recipe
from fmri_models.training.stages import StageRunner
from fmri_models.training.trainer import train
from tests.generation.test_versatile_diffusion import make_generator as tiny_versatile_diffusion
from tests.training.tiny_sizes import TINY_MINDEYE

UNCHANGED = PictureAugmentation(
    crop_probability=0.0, flip_probability=0.0, jitter_probability=0.0, grey_probability=0.0
)
TINY = (
    "generator=embedded",
    "subjects=[subj02]",
    *TINY_MINDEYE,
)


def tiny_teacher(feature_size: int = 6) -> FeatureMapTeacher:
    """A ConvNeXt whose maps have four by four positions."""
    torch.manual_seed(0)
    config = FeatureMapTeacherConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[4, 4, 6, 8], projector_sizes=[8, feature_size], image_size=128
    )
    return FeatureMapTeacher(config).eval()


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(ids: list[str]) -> dict:
    return {"fmri": torch.zeros(len(ids), 3), "stimulus_ids": ids}


@pytest.fixture(scope="module")
def table(small_data: Path) -> TrialTable:
    return TrialTable.open(small_data)


def test_unchanged_pictures_have_the_cached_embeddings(table: TrialTable) -> None:
    generator = load_image_generator("embedded", (1, 12, 12))
    ids = [table.stimuli.ids[row] for row in (7, 2, 7)]
    batch = OnlineTargets(table, generator, UNCHANGED)(batch_of(ids), source())
    cached = cached_targets(table, generator, "image_embeds")[[7, 2, 7]]
    np.testing.assert_allclose(batch["image_embeds"].flatten(1).numpy(), cached, atol=1e-5)
    assert batch.keys() == {"fmri", "stimulus_ids", "image_embeds"}


def test_changes_depend_on_the_steps_generator_alone(table: TrialTable) -> None:
    online = OnlineTargets(table, load_image_generator("embedded", (1, 12, 12)), PictureAugmentation())
    batch = batch_of(table.stimuli.ids[:4])
    first = online(batch, source(1))["image_embeds"]
    torch.manual_seed(5)
    assert torch.equal(online(batch, source(1))["image_embeds"], first)
    assert not torch.equal(online(batch, source(2))["image_embeds"], first)


def test_a_teacher_sees_the_picture_and_a_changed_view(table: TrialTable) -> None:
    generator, teacher = load_image_generator("embedded", (1, 12, 12)), tiny_teacher()
    batch = batch_of(table.stimuli.ids[:3])
    same = OnlineTargets(table, generator, teacher=teacher, teacher_view=UNCHANGED)(batch, source())
    assert same["feature_maps"].shape == (3, 16, 6)
    assert torch.equal(same["feature_maps"], same["augmented_feature_maps"])
    changed = OnlineTargets(table, generator, teacher=teacher)(batch, source())
    assert torch.equal(changed["feature_maps"], same["feature_maps"])
    assert not torch.allclose(changed["augmented_feature_maps"], same["feature_maps"])
    assert "image_embeds" not in changed


def test_a_missing_teacher_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match="can't be read as a FeatureMapTeacher"):
        load_teacher(str(tmp_path / "nothing"))


def published(data: Path, out: Path, *overrides: str) -> Recipe:
    recipe = load_recipe("mindeye_nsd", [f"data={data}", f"out={out}", *TINY, *overrides])
    small = {"epochs": None, "steps": 4, "batch_size": 8, "checkpoint_every": 2, "validate_every": 2}
    stages = [replace(stage, training=replace(stage.training, **small)) for stage in recipe.stages]
    return replace(recipe, stages=stages)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["embedded", "versatile_diffusion"])
def test_the_published_recipe_trains_at_a_tiny_size(small_data: Path, tmp_path: Path, name: str) -> None:
    generator = name
    if name == "versatile_diffusion":
        generator = str(tmp_path / "generator")
        tiny_versatile_diffusion().save_pretrained(generator)
    tiny_teacher().save_pretrained(tmp_path / "teacher")
    overrides = (
        f"generator={generator}",
        f"stages.1.teacher={tmp_path / 'teacher'}",
        "model.low_level_feature_size=6",
    )
    recipe = published(small_data, tmp_path / "out", *overrides)
    (folder,) = train(recipe)
    pipeline = get_method("mindeye").load("pipeline").from_pretrained(folder)
    table = TrialTable.open(small_data)
    trials = table.trials("subj02", "test")
    decoding = pipeline.brain_model.decode(
        pipeline.processor(trials.fmri(range(2)), subject="subj02", session=1)["fmri"]
    )
    assert torch.isfinite(decoding.image_embeds).all() and torch.isfinite(decoding.latents).all()


def stage_of(recipe: Recipe, number: int):
    """A stage of a recipe, ready to be trained."""
    assert recipe.data is not None
    table = TrialTable.open(recipe.data)
    torch.manual_seed(0)
    processor = processor_for(recipe, table)
    generator = load_image_generator("embedded", (1, 12, 12))
    model = build_model(recipe, processor, generator)
    return StageRunner(recipe, table, model, processor, generator).gradient_stage(number)


def test_a_stage_reads_what_its_objective_learns_from(small_data: Path, tmp_path: Path) -> None:
    recipe = published(small_data, tmp_path / "out")
    high_level, low_level = stage_of(recipe, 0), stage_of(recipe, 1)
    assert (set(high_level.data.targets), set(high_level.held_out.targets)) == (set(), {"image_embeds"})
    assert len(high_level.held_out.targets["image_embeds"]) == len(high_level.held_out) == 10
    assert set(low_level.data.targets) == {"latents"} and low_level.online_targets is None
    batch = next(high_level.batches(0))
    assert batch["fmri"].shape[:2] == (8, 3)
    assert high_level.held_out.__getitems__([0])["fmri"].ndim == 2


@pytest.mark.slow
def test_a_step_is_the_same_when_it_is_taken_again(small_data: Path, tmp_path: Path) -> None:
    recipe = published(small_data, tmp_path / "out")
    losses = []
    for _ in range(2):
        stage = stage_of(recipe, 0)
        losses.append(stage.update(2, stage.batches(2)))
    assert losses[0] == losses[1]
    stage = stage_of(published(small_data, tmp_path / "out", "stages.0.augmentation=none"), 0)
    assert stage.update(2, stage.batches(2))["prior"] != losses[0]["prior"]


def test_an_augmentation_without_embeddings_is_a_sentence(small_data: Path, tmp_path: Path) -> None:
    recipe = published(small_data, tmp_path / "out", "stages.1.augmentation=published")
    with pytest.raises(FmriModelsError, match="'low_level' has an augmentation and learns from no embeddings"):
        stage_of(recipe, 1)


def test_a_method_of_single_patterns_takes_no_repetitions(make_recipe: Callable[..., Recipe]) -> None:
    said = "'small' learns from one pattern a row; choose 'average' or 'single'"
    with pytest.raises(FmriModelsError, match=said):
        train(make_recipe("out", "repetitions=all"))


def test_a_teacher_of_other_maps_is_a_sentence(small_data: Path, tmp_path: Path) -> None:
    tiny_teacher(feature_size=5).save_pretrained(tmp_path / "teacher")
    teacher = f"stages.1.teacher={tmp_path / 'teacher'}"
    stage = stage_of(published(small_data, tmp_path / "out", teacher), 1)
    with pytest.raises(
        FmriModelsError, match="16 positions of 5 values.* branch 16 of 8; set model.low_level_feature_size=5"
    ):
        stage.update(0, stage.batches(0))
